"""Violations that most likely have one cause stand together, the shortest first."""

from dataclasses import replace

from snapcheck.model.faults import CallFault, Fails, IoFault
from snapcheck.model.history import History, PowerCut, Step
from snapcheck.model.law_names import Law, Severity
from snapcheck.model.operations import AllCreate, AllGoto, Create, Operation
from snapcheck.model.setup import DeviceSpec, Setup
from snapcheck.reports.causes import grouped
from snapcheck.reports.verdict import ViolationReport

DEVICES = Setup((DeviceSpec("d0"), DeviceSpec("d1")))


def found(
    identity: str, law: Law, *, beside: tuple[Law, ...] = (), operations: int = 1, severity: Severity = Severity.ERROR,
    known: bool = False, history: History | None = None,
) -> ViolationReport:  # fmt: skip
    return ViolationReport(
        id=identity, law=law, severity=severity, device="d0", operation="all-create", summary="", operations=operations,
        faults=0, phase="sweep", found_after_s=0, known=known, replay="", history=history,
        evidence=tuple(f"{each.value}: as well" for each in beside),
    )  # fmt: skip


def causes(*violations: ViolationReport) -> list[tuple[str, str]]:
    return [(each.id, each.cause) for each in grouped(violations)]


def way(operation: Operation, device: str, function: str = "create") -> History:
    return History(DEVICES, [Step(operation, (CallFault(device, function),))])


def test_violations_of_one_law_stand_together_the_shortest_first() -> None:
    longer, shorter = found("a", Law.RESULT, operations=4), found("b", Law.RESULT, operations=2)
    assert causes(longer, found("c", Law.NO_LEAK, operations=3), shorter) == [("b", "b"), ("a", "b"), ("c", "c")]


def test_laws_that_one_step_broke_stand_together_and_so_do_those_that_are_linked_by_a_third() -> None:
    chain = (
        found("a", Law.STOPS_AT_FIRST), found("b", Law.PREFIX_APPLIED, beside=(Law.STOPS_AT_FIRST,), operations=2),
        found("c", Law.LIST_EXACT, operations=3, beside=(Law.PREFIX_APPLIED,)),
    )  # fmt: skip
    assert causes(*chain[::-1]) == [("a", "a"), ("b", "a"), ("c", "a")]
    assert causes(chain[0], chain[2]) == [("a", "a"), ("c", "c")]


def test_the_same_way_to_two_laws_is_one_cause_whatever_the_names_and_devices_are() -> None:
    one = found("a", Law.RESULT, history=way(AllCreate("x"), "d0"))
    other = found("b", Law.NO_LEAK, history=way(AllCreate("y"), "d1"))
    assert causes(one, other) == [("a", "a"), ("b", "a")]
    for history in (way(AllGoto("x"), "d0"), way(AllCreate("x"), "d0", "delete"), History(DEVICES, [])):
        assert causes(one, replace(other, history=history)) == [("a", "a"), ("b", "b")]
    struck = History(DEVICES, [Step(AllCreate("x"), (IoFault("d0", "write", Fails()),))])
    assert causes(one, replace(other, history=struck)) == [("a", "a"), ("b", "b")]


def test_of_equally_short_ones_what_one_device_shows_by_itself_stands_for_the_cause() -> None:
    by_itself = History(DEVICES, [Step(Create("d0", "x"))])
    cut = replace(by_itself, cut=PowerCut("epoch", ()))
    group = found("g", Law.VMSTATE_ON_ONE, beside=(Law.LIST_EXACT,), history=way(AllCreate("x"), "d0"))
    after = found("c", Law.LIST_EXACT, history=cut)
    alone = found("a", Law.LIST_EXACT, history=by_itself)
    assert causes(after, group, alone) == [("a", "a"), ("g", "a"), ("c", "a")]


def test_warnings_and_what_is_known_stand_apart_behind_the_errors() -> None:
    warning = found("w", Law.RESULT, severity=Severity.WARNING)
    known = found("k", Law.RESULT, known=True)
    error = found("e", Law.RESULT, operations=9)
    assert causes(known, warning, error) == [("e", "e"), ("w", "w"), ("k", "k")]
