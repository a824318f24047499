"""Each law where it holds and where it is broken, on small hand-made steps."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from snapcheck.model import laws
from snapcheck.model.crash_laws import CRASH_RULES
from snapcheck.model.device import Allowed, Content, Device, Expected, Image, Outcome, Snapshot, World
from snapcheck.model.errno import Errno
from snapcheck.model.facts import ALL_LAWS, Evidence, Running, StepFacts, members, root_of
from snapcheck.model.faults import BINDING, CallFault, Family, Fault
from snapcheck.model.fit import Beside, best_fits, looks_of
from snapcheck.model.history import (
    UNWRITTEN,
    Abilities,
    Call,
    Check,
    Drain,
    Event,
    FaultMet,
    Io,
    Level,
    Lock,
    Observation,
    Purpose,
    Request,
    Result,
    SnapshotContent,
    Step,
    View,
)
from snapcheck.model.law_names import Law, Severity
from snapcheck.model.match import fallen_in
from snapcheck.model.operations import (
    AllCanSnapshot,
    AllCreate,
    AllDelete,
    AllFind,
    AllGoto,
    Create,
    Delete,
    DelVm,
    Find,
    FindByIdAndName,
    Flush,
    Goto,
    List,
    LoadTmp,
    LoadVm,
    Operation,
    Resize,
    SaveVm,
    SetReadOnly,
    SnapshotAction,
    Transaction,
    VmstateRead,
    Write,
)
from snapcheck.model.setup import DeviceSpec, Kind, Semantics
from snapcheck.model.snapshot import SnapshotInfo
from snapcheck.model.trace import Trace

EIO = Errno.EIO


# --- given: devices, what is seen of them, and the events of a call -------------------------------
def snapshot(name: str = "s", snapshot_id: str = "1", tag: int = 1, vm_state_size: int = 0) -> Snapshot:
    return Snapshot(SnapshotInfo(snapshot_id, name, vm_state_size), 8, Content(bytes([tag]) * 8), bytes(vm_state_size))


def device(name: str = "d0", *snapshots: Snapshot, tag: int = 1, **fields: object) -> Device:
    image = Image(8, Content(bytes([tag]) * 8), b"", snapshots)
    return Device(DeviceSpec(name, sectors=8), image)._replace(**fields)  # type: ignore[arg-type]  # fields of Device


def world(*devices: Device, semantics: Semantics = Semantics.CLASSIC) -> World:
    return World({each.spec.name: each for each in devices}, semantics)


def with_snapshots(state: Device, *snapshots: Snapshot) -> Device:
    assert state.image is not None
    return state._replace(image=state.image._replace(snapshots=snapshots))


def with_tag(state: Device, tag: int) -> Device:
    assert state.image is not None
    return state._replace(image=state.image._replace(content=Content(bytes([tag]) * 8)))


def view(state: Device) -> View:
    assert state.image is not None
    infos = tuple(each.info for each in state.image.snapshots)
    return View(infos, state.image.sectors, state.image.content.tags)


def look(state: Device, level: Level = Level.LIGHT) -> Observation:
    """Return what a faithful device in `state` shows."""
    if level is Level.LIGHT:
        return Observation(state.spec.name, level, view(state))
    assert state.image is not None
    contents = tuple(SnapshotContent(each.content.tags, 8, each.vmstate) for each in state.image.snapshots)
    return Observation(state.spec.name, level, view(state), view(state), contents, Check())


def full(state: Device) -> Observation:
    return look(state, Level.FULL)


def called(node: str, function: str, errno: int = 0, *inside: Event, locked: bool = True) -> tuple[Event, ...]:
    """Return the events of one call of a group operation on a node, with what the driver did inside it."""
    name = root_of(node)
    events: tuple[Event, ...] = (
        Call(name, node, function, "generic", "enter"),
        Call(name, node, function, "driver", "enter"),
        *inside,
        Call(name, node, function, "driver", "return", errno),
        Call(name, node, function, "generic", "return", errno),
    )
    return (Lock(name, "acquire", "main"), *events, Lock(name, "release", "main")) if locked else events


DENIED = Expected(errnos=frozenset({EIO}))


def outcome(expected: Expected | None = None, *states: Device) -> Outcome:
    return Outcome(expected or Expected(), {state.spec.name: (Allowed(state),) for state in states})


def judged(
    law: Law,
    before: World,
    operation: Operation,
    outcomes: Sequence[Outcome] = (),
    result: Result | None = None,
    *,
    seen: Sequence[Observation] = (),
    events: Sequence[Event] = (),
    faults: tuple[Fault, ...] = (),
    purpose: Purpose = Purpose.EXPLORE,
    running: Running | None = None,
    abilities: Abilities | None = None,
    binding: Mapping[str, frozenset[Law]] | None = None,
) -> list[Evidence | None]:
    """Return what `law` says of one step: an entry for each check, None where it held."""
    step = Step(operation, faults, purpose, (), tuple(events), result or Result(), tuple(seen))
    running, abilities, binding = running or Running(), abilities or Abilities(), binding or {}
    trace = Trace(step.events, running.in_flight)
    walk = members(operation, before)
    struck = {met.device for met in trace.struck}
    beside = Beside(before, struck, binding.keys(), not binding.keys().isdisjoint(walk), abilities.first_bad)
    outcomes = outcomes or (outcome(),)
    best = best_fits(step, outcomes, beside)[0]
    looks = looks_of(step, best, beside, binding)
    facts = StepFacts(
        step, abilities, before, outcomes, best.outcome, best.wrong, walk, looks, trace, running, beside.vague,
        limited=bool(binding), fallen=fallen_in(step.observations),
    )  # fmt: skip
    rule, at = laws.RULES[law], laws.occasion(step)
    assert at.operation in rule.operations, "the law is not asked of this operation"
    return list(rule.judge(facts)) if rule.is_asked(at) else []


def the_evidence(answers: list[Evidence | None]) -> Evidence:
    """Return the only evidence that was given, after a look at its form."""
    found = [each for each in answers if each is not None]
    assert len(found) == 1, found
    (evidence,) = found
    for text in (evidence.summary, evidence.expected, evidence.actual):
        assert text
        assert "\n" not in text
    assert evidence.device in evidence.summary
    return evidence


def held(answers: list[Evidence | None]) -> bool:
    """Tell whether the law was checked, and always held."""
    return bool(answers) and not any(answers)


THREE = (device("d0"), device("d1"), device("d2"))
ALL_HAVE_S = tuple(device(name, snapshot()) for name in ("d0", "d1", "d2"))
CREATE_FAILS_AT_D1 = (*called("d0", "create"), *called("d1", "create", EIO))


def failing_at(node: str, *states: Device) -> Outcome:
    return outcome(Expected(errnos=frozenset({EIO}), first_bad=node), *states)


# --- the process ----------------------------------------------------------------------------------
def test_no_crash_holds_while_the_process_lives() -> None:
    assert held(judged(Law.NO_CRASH, world(device()), List("d0")))


def test_no_crash_is_broken_when_the_process_dies_of_an_exception() -> None:
    answers = judged(Law.NO_CRASH, world(device()), List("d0"), (), Result(crash="Traceback\n  x.py\nIndexError: 3"))
    evidence = the_evidence(answers)
    assert evidence.summary == "list of d0 ended the process under test"
    assert evidence.actual == "Traceback / x.py / IndexError: 3"


def test_no_crash_is_broken_when_the_process_dies_while_it_is_looked_at() -> None:
    died = Observation("d0", Level.LIST, View(errors=("list: snapshot_list raised IndexError: 3",)))
    evidence = the_evidence(judged(Law.NO_CRASH, world(device()), Write("d0", 0, 1, 1), seen=(died,)))
    assert evidence.summary == "after write of d0 a look at d0 ended the process under test"
    refused = Observation("d0", Level.LIST, View(errors=("list: EIO", "size: E4094")))
    assert held(judged(Law.NO_CRASH, world(device()), Write("d0", 0, 1, 1), seen=(refused,)))


def test_no_crash_is_broken_when_a_device_can_not_be_closed_any_more() -> None:
    stuck = Observation("d0", Level.LIST, View(()), held="d0 is in use")
    evidence = the_evidence(judged(Law.NO_CRASH, world(device()), Write("d0", 0, 1, 1), seen=(stuck,)))
    assert evidence.summary == "after write of d0 d0 can not be closed any more"


def test_no_hang_is_broken_when_a_look_does_not_end() -> None:
    stuck = Observation("d0", Level.LIST, View(errors=("list: hang: no answer in 5 s",)))
    evidence = the_evidence(judged(Law.NO_HANG, world(device()), Write("d0", 0, 1, 1), seen=(stuck,)))
    assert evidence.summary == "after write of d0 a look at d0 did not end"
    assert judged(Law.NO_CRASH, world(device()), Write("d0", 0, 1, 1), seen=(stuck,)) == []


def test_no_hang_holds_for_an_operation_that_did_much_io() -> None:
    busy = [Io("d0", "read", 0, 512)] * (laws.IO_BASE - 1)
    assert held(judged(Law.NO_HANG, world(device()), Create("d0", "s"), events=busy))


def test_no_hang_is_broken_by_io_without_end_and_by_a_timeout() -> None:
    endless = [Io("d0", "write", 0, 512)] * (laws.IO_BASE + 10_000)
    evidence = the_evidence(judged(Law.NO_HANG, world(device()), Create("d0", "s"), events=endless))
    assert evidence.expected == "at most 21600 I/O calls"
    assert evidence.actual == "30000 I/O calls"
    stuck = judged(Law.NO_HANG, world(device()), Create("d0", "s"), (), Result(crash="hang: no answer in 5 s"))
    assert the_evidence(stuck).actual == "hang: no answer in 5 s"
    assert held(judged(Law.NO_CRASH, world(device()), Create("d0", "s"), (), Result(crash="hang: no answer in 5 s")))


# --- the answer -----------------------------------------------------------------------------------
def test_result_holds_for_each_errno_that_the_model_allows() -> None:
    allowed = (outcome(DENIED), outcome(Expected()))
    assert held(judged(Law.RESULT, world(device()), Create("d0", "s"), allowed, Result(EIO)))
    assert held(judged(Law.RESULT, world(device()), Create("d0", "s"), allowed, Result()))


def test_result_holds_for_an_error_that_does_not_tell_its_number_where_any_error_is_allowed() -> None:
    allowed = (outcome(DENIED),)
    assert held(judged(Law.RESULT, world(device()), Create("d0", "s"), allowed, Result(Errno.EUNTOLD)))
    answers = judged(Law.RESULT, world(device()), Create("d0", "s"), (outcome(Expected()),), Result(Errno.EUNTOLD))
    assert the_evidence(answers).actual == "EUNTOLD"


def test_result_is_broken_by_another_errno() -> None:
    allowed = (outcome(DENIED), outcome(Expected()))
    evidence = the_evidence(judged(Law.RESULT, world(device()), Create("d0", "s"), allowed, Result(Errno.EPERM)))
    assert (evidence.device, evidence.severity) == ("d0", Severity.ERROR)
    assert evidence.summary == "create of d0 answered EPERM, which the model does not allow"
    assert evidence.expected == "EIO or OK"
    assert evidence.actual == "EPERM"


def test_result_is_not_judged_when_a_damaged_device_takes_part() -> None:
    damaged = {"d0": BINDING[Family.DAMAGE]}
    answers = judged(
        Law.RESULT, world(device()), Create("d0", "s"), (outcome(DENIED),), Result(Errno.EPERM), binding=damaged
    )
    assert answers == []


def test_out_params_holds_when_first_bad_bs_is_null_on_success_and_sn_is_filled() -> None:
    chosen = SnapshotInfo("1", "s")
    success = outcome(Expected(sn=(chosen,)))
    assert held(judged(Law.OUT_PARAMS, world(*THREE), AllCreate("s"), (success,), Result(sn=chosen)))


def test_out_params_is_broken_when_first_bad_bs_was_not_written() -> None:
    failing = (failing_at("d1"),)
    evidence = the_evidence(
        judged(Law.OUT_PARAMS, world(*THREE), AllGoto("s"), failing, Result(EIO, first_bad=UNWRITTEN))
    )
    assert evidence.device == "d1"
    assert evidence.expected == "first_bad d1"
    assert evidence.actual == "first_bad not written"


def test_out_params_is_broken_by_a_device_that_is_left_in_first_bad_bs_on_success() -> None:
    evidence = the_evidence(judged(Law.OUT_PARAMS, world(*THREE), AllGoto("s"), (), Result(first_bad="d2")))
    assert evidence.summary == "all-goto succeeded and left d2 in first_bad_bs"


def test_out_params_is_broken_by_a_wrong_id_in_sn_and_by_a_find_that_writes_sn_on_a_miss() -> None:
    chosen = outcome(Expected(sn=(SnapshotInfo("4294967298", "s"),)))
    wrong = judged(Law.OUT_PARAMS, world(device()), Create("d0", "s"), (chosen,), Result(sn=SnapshotInfo("2", "s")))
    assert the_evidence(wrong).expected == "[4294967298:'s']"
    assert the_evidence(wrong).actual == "[2:'s']"
    miss = outcome(Expected(frozenset({Errno.ENOENT}), sn=(SnapshotInfo(UNWRITTEN, UNWRITTEN),)))
    written = Result(Errno.ENOENT, sn=SnapshotInfo())
    assert the_evidence(judged(Law.OUT_PARAMS, world(device()), Find("d0", "x"), (miss,), written)).device == "d0"


def test_out_params_is_broken_by_an_error_without_a_text() -> None:
    failing = (outcome(Expected(frozenset({EIO}), first_bad="d1", message=True)),)
    evidence = the_evidence(judged(Law.OUT_PARAMS, world(*THREE), AllGoto("s"), failing, Result(EIO, first_bad="d1")))
    assert evidence.expected == "an error text"


# --- what a device holds --------------------------------------------------------------------------
def test_out_params_leaves_an_answer_that_is_wrong_itself_to_the_law_result() -> None:
    busy = outcome(Expected(frozenset({Errno.EBUSY}), message=True))
    assert judged(Law.OUT_PARAMS, world(device()), Goto("d0", "s"), (busy,), Result()) == []
    assert the_evidence(judged(Law.RESULT, world(device()), Goto("d0", "s"), (busy,), Result())).expected == "EBUSY"


def test_out_params_leaves_a_snapshot_that_was_found_where_none_is_to_the_law_result() -> None:
    nothing, there = SnapshotInfo(UNWRITTEN, UNWRITTEN), SnapshotInfo("1", "x")
    missing = outcome(Expected(frozenset({Errno.ENOENT}), sn=(nothing,)))
    no = outcome(Expected(answer=False, sn=(nothing,)))
    for operation, allowed, found in (
        (Find("d0", "x"), missing, Result(sn=there)),
        (FindByIdAndName("d0", "1", "x"), no, Result(answer=True, sn=there)),
    ):
        assert judged(Law.OUT_PARAMS, world(device()), operation, (allowed,), found) == []
        assert the_evidence(judged(Law.RESULT, world(device()), operation, (allowed,), found)).device == "d0"


def test_list_exact_holds_when_the_lists_are_equal_with_names_cut_to_their_limit() -> None:
    long_name = device("d0", snapshot("x" * 300))
    shown = replace(view(long_name), snapshots=(SnapshotInfo("1", "x" * 255),))
    assert held(judged(Law.LIST_EXACT, world(long_name), List("d0"), seen=[Observation("d0", Level.LIGHT, shown)]))


def test_list_exact_is_broken_by_a_snapshot_with_another_id() -> None:
    after = device("d0", snapshot("s", "4294967298"))
    seen = [look(device("d0", snapshot("s", "2")))]
    answers = judged(Law.LIST_EXACT, world(device()), Create("d0", "s"), (outcome(None, after),), seen=seen)
    evidence = the_evidence(answers)
    assert evidence.summary == "the snapshot list of d0 in memory is wrong"
    assert evidence.expected == "[4294967298:'s']"
    assert evidence.actual == "[2:'s']"


def test_list_exact_is_broken_by_a_date_although_ids_and_names_are_equal() -> None:
    before, after = (
        device("d0", snapshot()),
        replace(view(device("d0")), snapshots=(SnapshotInfo("1", "s", date_sec=9),)),
    )
    evidence = the_evidence(
        judged(Law.LIST_EXACT, world(before), List("d0"), seen=[Observation("d0", Level.LIGHT, after)])
    )
    assert "date_sec=9" in evidence.actual


def test_list_exact_is_broken_by_what_the_list_operation_returns() -> None:
    expected = outcome(Expected(snapshots=(snapshot().info,)))
    answers = judged(Law.LIST_EXACT, world(device("d0", snapshot())), List("d0"), (expected,), Result(snapshots=()))
    assert the_evidence(answers).actual == "[]"


def test_content_exact_holds_for_any_of_the_tags_that_a_sector_may_have() -> None:
    state = device()
    assert state.image is not None
    unsure = state._replace(image=state.image._replace(content=Content(b"\1" * 8, ((3, b"\0\2"),))))
    seen = replace(view(state), content=b"\1\1\1\2\1\1\1\1")
    answers = judged(Law.CONTENT_EXACT, world(unsure), List("d0"), seen=[Observation("d0", Level.LIGHT, seen)])
    assert held(answers)


def test_content_exact_is_broken_by_a_sector_with_another_tag() -> None:
    after = with_tag(device(), 2)
    seen = [look(with_tag(device(), 1))]
    answers = judged(Law.CONTENT_EXACT, world(device()), Write("d0", 0, 8, 2), (outcome(None, after),), seen=seen)
    evidence = the_evidence(answers)
    assert evidence.summary == "the content of d0 in memory is wrong"
    assert evidence.expected == "sector 0: tag 2"
    assert evidence.actual == "sector 0: tag 1, and 7 more sectors differ"


def test_content_exact_is_broken_by_wrong_vm_state() -> None:
    expected = outcome(Expected(data=b"\1\2\3"))
    answers = judged(Law.CONTENT_EXACT, world(device()), VmstateRead("d0", 0, 3), (expected,), Result(data=b"\1\2\4"))
    evidence = the_evidence(answers)
    assert evidence.expected == "3 bytes, byte 2 is 03"
    assert evidence.actual == "3 bytes, byte 2 is 04"


def test_content_exact_is_broken_by_a_new_snapshot_that_holds_something_else() -> None:
    after = device("d0", snapshot(tag=1))
    seen = replace(full(after), contents=(SnapshotContent(b"\7" * 8, 8, b""),))
    answers = judged(Law.CONTENT_EXACT, world(device()), Create("d0", "s"), (outcome(None, after),), seen=[seen])
    assert the_evidence(answers).actual == "snapshot 's' (id 1): sector 0: tag 7, and 7 more sectors differ"


def test_snapshot_immutable_holds_when_the_active_content_changes_alone() -> None:
    before = device("d0", snapshot(tag=1))
    after = with_tag(before, 2)
    answers = judged(
        Law.SNAPSHOT_IMMUTABLE, world(before), Write("d0", 0, 8, 2), (outcome(None, after),), seen=[full(after)]
    )
    assert held(answers)


def test_snapshot_immutable_is_broken_when_a_write_shows_in_a_snapshot() -> None:
    before = device("d0", snapshot(tag=1))
    after = with_tag(before, 2)
    seen = replace(full(after), contents=(SnapshotContent(b"\2" + b"\1" * 7, 8, b""),))
    answers = judged(Law.SNAPSHOT_IMMUTABLE, world(before), Write("d0", 0, 8, 2), (outcome(None, after),), seen=[seen])
    evidence = the_evidence(answers)
    assert evidence.summary == "write of d0 changed a snapshot of d0"
    assert evidence.expected == "snapshot 's' (id 1): sector 0: tag 1"
    assert evidence.actual == "snapshot 's' (id 1): sector 0: tag 2"


def test_snapshot_immutable_holds_when_a_snapshot_is_read_under_a_wrong_size_of_the_disk() -> None:
    before = device("d0", snapshot(tag=1))
    grown = replace(view(before), sectors=16, content=b"\1" * 8 + bytes(8))
    seen = replace(full(before), disk=grown, contents=(SnapshotContent(b"\1" * 8 + bytes(8), 16, b""),))
    refused = (outcome(DENIED),)
    answers = judged(Law.SNAPSHOT_IMMUTABLE, world(before), Resize("d0", 16), refused, Result(EIO), seen=[seen])
    assert held(answers)
    shorter = replace(seen, disk=view(before))
    answers = judged(Law.SNAPSHOT_IMMUTABLE, world(before), Resize("d0", 16), refused, Result(EIO), seen=[shorter])
    assert the_evidence(answers).actual == "snapshot 's' (id 1): 16 sectors"


def test_error_means_unchanged_holds_when_a_failed_operation_left_the_old_state() -> None:
    before = device("d0", snapshot())
    answers = judged(
        Law.ERROR_MEANS_UNCHANGED,
        world(before),
        Delete("d0", "1", None),
        (outcome(DENIED),),
        Result(EIO),
        seen=[full(before)],
    )
    assert held(answers)


def test_error_means_unchanged_is_broken_by_a_state_that_is_neither_old_nor_new() -> None:
    before = with_tag(device("d0", snapshot(tag=1)), 2)
    old_or_new = Outcome(DENIED, {"d0": (Allowed(before), Allowed(with_tag(before, 1), "B.3"))})
    mixed = replace(look(before), memory=replace(view(before), content=b"\1\1\1\1\2\2\2\2"))
    answers = judged(
        Law.ERROR_MEANS_UNCHANGED, world(before), Goto("d0", "1"), (old_or_new,), Result(EIO), seen=[mixed]
    )
    evidence = the_evidence(answers)
    assert evidence.severity is Severity.ERROR
    assert evidence.summary == "goto of d0 answered EIO and left d0 neither old nor new"


def test_error_means_unchanged_warns_of_a_new_state_that_a_rule_explains() -> None:
    before = device("d0", snapshot())
    gone = with_snapshots(before)
    old_or_new = Outcome(DENIED, {"d0": (Allowed(before), Allowed(gone, "B.4"))})
    answers = judged(
        Law.ERROR_MEANS_UNCHANGED, world(before), Delete("d0", "1", None), (old_or_new,), Result(EIO), seen=[full(gone)]
    )
    evidence = the_evidence(answers)
    assert evidence.severity is Severity.WARNING
    assert evidence.summary == "delete of d0 answered EIO and yet took effect on d0 (B.4)"


def test_success_means_done_holds_when_the_snapshot_is_there_after_a_reopen() -> None:
    after = device("d0", snapshot())
    answers = judged(
        Law.SUCCESS_MEANS_DONE, world(device()), Create("d0", "s"), (outcome(None, after),), seen=[full(after)]
    )
    assert held(answers)


def test_success_means_done_is_broken_when_the_snapshot_is_gone_after_a_reopen() -> None:
    after = device("d0", snapshot())
    seen = Observation("d0", Level.FULL, view(after), view(device()), (), Check())
    answers = judged(Law.SUCCESS_MEANS_DONE, world(device()), Create("d0", "s"), (outcome(None, after),), seen=[seen])
    evidence = the_evidence(answers)
    assert evidence.summary == "create of d0 reported success, but on disk d0 does not show it"
    assert evidence.expected == "[1:'s']"
    assert evidence.actual == "[]"


def flushed(errno: int = 0) -> Io:
    return Io("d0", "flush", 0, 0, "", errno)


WROTE = Io("d0", "write", 0, 512)


def test_success_means_done_holds_for_a_flush_that_was_tried_again_and_for_one_without_anything_to_flush() -> None:
    state = world(device())
    again = (flushed(EIO), flushed())
    running = Running(unflushed={"d0"})
    assert held(
        judged(Law.SUCCESS_MEANS_DONE, state, Flush("d0"), seen=(full(device()),), events=again, running=running)
    )
    assert judged(Law.SUCCESS_MEANS_DONE, state, Flush("d0"), seen=(full(device()),)) == []


def test_success_means_done_is_broken_by_a_flush_whose_error_is_swallowed_or_that_never_comes() -> None:
    state, running = world(device()), Running(unflushed={"d0"})
    for events, actual in (((flushed(EIO),), "flushes that failed: EIO"), ((), "no flush behind what was written")):
        answers = judged(
            Law.SUCCESS_MEANS_DONE, state, Flush("d0"), seen=(full(device()),), events=events, running=running
        )
        assert the_evidence(answers).actual == actual


def test_success_means_done_asks_no_flush_of_a_device_where_a_request_only_landed_meanwhile() -> None:
    other = device("d1")
    running = Running(unflushed={"d0", "d1"})
    landed = (Io("d1", "write", 0, 512), flushed())
    assert held(
        judged(
            Law.SUCCESS_MEANS_DONE, world(device(), other), Flush("d0"), seen=(full(device()), full(other)),
            events=landed, running=running,
        )
    )  # fmt: skip


def test_success_means_done_is_broken_by_a_create_that_wrote_and_never_flushed_with_success() -> None:
    before, after = device(), device("d0", snapshot())
    created = (outcome(Expected(), after),)
    passed_over = (WROTE, flushed(EIO), WROTE, flushed())  # what had to be on the medium first may not be
    at_the_end = (WROTE, flushed(), WROTE, flushed(EIO))
    for events in ((WROTE, flushed(EIO)), (WROTE,), passed_over, at_the_end):
        answers = judged(
            Law.SUCCESS_MEANS_DONE, world(before), Create("d0", "s"), created, seen=(full(after),), events=events
        )
        assert "did not reach its medium" in the_evidence(answers).summary
    behind = (WROTE, flushed(), WROTE)  # what cleans up behind the commit need not be flushed
    again = (WROTE, flushed(EIO), flushed(), WROTE, flushed())
    for events in (behind, again):
        answers = judged(
            Law.SUCCESS_MEANS_DONE, world(before), Create("d0", "s"), created, seen=(full(after),), events=events
        )
        assert held(answers)


def test_memory_is_disk_holds_when_both_views_are_equal() -> None:
    state = device("d0", snapshot())
    assert held(judged(Law.MEMORY_IS_DISK, world(state), List("d0"), seen=[full(state)]))


def test_memory_is_disk_is_broken_by_a_zombie_that_only_the_disk_knows() -> None:
    before = device("d0", snapshot())
    seen = Observation("d0", Level.FULL, view(device()), view(before), (SnapshotContent(b"\1" * 8),), Check())
    answers = judged(
        Law.MEMORY_IS_DISK, world(before), Delete("d0", "1", None), (outcome(DENIED),), Result(EIO), seen=[seen]
    )
    evidence = the_evidence(answers)
    assert evidence.summary == "the list of d0 is another one after a reopen"
    assert evidence.expected == "on disk [1:'s']"
    assert evidence.actual == "in memory []"


def test_memory_is_disk_is_broken_by_content_that_changes_with_a_reopen() -> None:
    seen = Observation(
        "d0", Level.FULL, view(device()), replace(view(device()), content=b"\1" * 7 + b"\0"), (), Check()
    )
    evidence = the_evidence(judged(Law.MEMORY_IS_DISK, world(device()), List("d0"), seen=[seen]))
    assert evidence.summary == "the content of d0 is another one after a reopen, from sector 7 on"


def test_memory_is_disk_is_broken_by_a_device_that_can_not_be_read_after_a_reopen() -> None:
    seen = Observation("d0", Level.FULL, view(device()), View(errors=("list: EIO",)), (), Check())
    evidence = the_evidence(judged(Law.MEMORY_IS_DISK, world(device()), List("d0"), seen=[seen]))
    assert evidence.summary == "d0 can not be read after a reopen"
    assert (evidence.expected.split()[:2], evidence.actual) == (["in", "memory"], "on disk unreadable (list: EIO)")


def test_memory_is_disk_lets_a_node_be_dead_only_at_a_step_with_a_fault() -> None:
    dead = View(errors=("list: EIO", "size: EIO", "content: EIO"))
    seen = [replace(full(device()), memory=dead)]
    failing = (outcome(DENIED),)
    met = (CallFault("d0", "create"),)
    struck = (FaultMet("d0", 0),)
    excused = judged(
        Law.MEMORY_IS_DISK,
        world(device()),
        Create("d0", "s"),
        failing,
        Result(EIO),
        seen=seen,
        events=struck,
        faults=met,
    )
    assert excused == []
    answers = judged(Law.MEMORY_IS_DISK, world(device()), Create("d0", "s"), failing, Result(EIO), seen=seen)
    assert "no fault explains it" in the_evidence(answers).summary


def test_no_corruption_holds_when_the_checker_finds_nothing_new() -> None:
    known = Running(checks={"d0": Check(corruptions=2)})
    seen = [replace(full(device()), check=Check(corruptions=2))]
    assert held(judged(Law.NO_CORRUPTION, world(device()), List("d0"), seen=seen, running=known))


def test_no_corruption_is_broken_by_a_count_below_the_references() -> None:
    bad = Check(corruptions=1, messages=("cluster 7 has count 1 and 2 references",))
    seen = [replace(full(device()), check=bad)]
    evidence = the_evidence(judged(Law.NO_CORRUPTION, world(device()), Delete("d0", "1", None), seen=seen))
    assert evidence.summary == "delete of d0 corrupted the image of d0"
    assert evidence.actual == "1: cluster 7 has count 1 and 2 references"


def test_no_corruption_warns_of_a_missing_copied_flag_only_where_an_error_explains_it() -> None:
    seen = [replace(full(device()), check=Check(copied_missing=3))]
    after_an_error = Running(failed={"d0"})
    warned = judged(Law.NO_CORRUPTION, world(device()), List("d0"), seen=seen, running=after_an_error)
    assert the_evidence(warned).severity is Severity.WARNING
    assert the_evidence(judged(Law.NO_CORRUPTION, world(device()), List("d0"), seen=seen)).severity is Severity.ERROR


def test_no_leak_holds_when_the_count_stays() -> None:
    known = Running(checks={"d0": Check(leaks=4)})
    seen = [replace(full(device()), check=Check(leaks=4))]
    assert held(judged(Law.NO_LEAK, world(device()), Create("d0", "s"), seen=seen, running=known))


def test_no_leak_is_broken_by_a_successful_operation_and_only_warns_after_a_failed_one() -> None:
    seen = [replace(full(device()), check=Check(leaks=2, messages=("cluster 9 has count 1 and no reference",)))]
    evidence = the_evidence(judged(Law.NO_LEAK, world(device()), Create("d0", "s"), seen=seen))
    assert evidence.severity is Severity.ERROR
    assert (evidence.expected, evidence.actual) == ("0 leaks", "2: cluster 9 has count 1 and no reference")
    troubled = Running(troubled={"d0"})
    warned = the_evidence(judged(Law.NO_LEAK, world(device()), Create("d0", "s"), seen=seen, running=troubled))
    assert (warned.severity, warned.actual) == (Severity.WARNING, "2 leaks")


# --- after a failure ------------------------------------------------------------------------------
def test_retry_heals_holds_when_the_repetition_succeeds() -> None:
    answers = judged(Law.RETRY_HEALS, world(device()), Create("d0", "s"), (outcome(),), purpose=Purpose.RETRY)
    assert held(answers)
    assert judged(Law.RETRY_HEALS, world(device()), Create("d0", "s"), (outcome(),)) == []


def test_retry_heals_is_broken_when_the_repetition_fails_or_leaks() -> None:
    again = judged(
        Law.RETRY_HEALS, world(device()), Create("d0", "s"), (outcome(),), Result(EIO), purpose=Purpose.RETRY
    )
    assert the_evidence(again).summary == "create of d0 still fails although its fault is gone"
    known = Running(checks={"d0": Check(leaks=1)})
    seen = [replace(full(device()), check=Check(leaks=3))]
    leaking = judged(
        Law.RETRY_HEALS,
        world(device()),
        Create("d0", "s"),
        (outcome(),),
        purpose=Purpose.RETRY,
        running=known,
        seen=seen,
    )
    assert the_evidence(leaking).summary == "repeating create of d0 leaks on d0"
    unseen = replace(known, troubled={"d0"})  # the failure left a device that could not be looked at
    told = judged(
        Law.RETRY_HEALS,
        world(device()),
        Create("d0", "s"),
        (outcome(),),
        purpose=Purpose.RETRY,
        running=unseen,
        seen=seen,
    )
    assert held(told)


def test_leaks_of_a_repetition_that_is_refused_by_rule_are_told_by_no_leak() -> None:
    refused = (outcome(Expected(frozenset({Errno.EINVAL}))),)
    seen = [replace(full(device()), check=Check(leaks=3))]

    def asked(law: Law) -> list[Evidence | None]:
        running = Running(checks={"d0": Check(leaks=1)}, troubled={"d0"})
        result = Result(Errno.EINVAL)
        return judged(
            law, world(device()), Create("d0", "s"), refused, result, purpose=Purpose.RETRY, running=running, seen=seen
        )

    assert not any(asked(Law.RETRY_HEALS))
    assert the_evidence(asked(Law.NO_LEAK)).actual == "3 leaks"


def test_retry_heals_lets_a_delete_answer_that_it_is_gone() -> None:
    gone = (outcome(Expected(frozenset({Errno.ENOENT}))),)
    answers = judged(
        Law.RETRY_HEALS, world(device()), Delete("d0", "1", None), gone, Result(Errno.ENOENT), purpose=Purpose.RETRY
    )
    assert not any(answers)


def test_safe_to_use_holds_when_going_on_changes_no_snapshot() -> None:
    before = device("d0", snapshot(tag=1))
    after = with_tag(before, 9)
    answers = judged(
        Law.SAFE_TO_USE,
        world(before),
        Write("d0", 0, 8, 9),
        (outcome(None, after),),
        seen=[full(after)],
        purpose=Purpose.PROBE,
    )
    assert held(answers)


def test_safe_to_use_is_broken_when_a_later_write_shows_in_a_snapshot_or_corrupts() -> None:
    before = device("d0", snapshot(tag=1))
    after = with_tag(before, 9)
    through = replace(full(after), contents=(SnapshotContent(b"\x09" * 8, 8, b""),))
    write, new = Write("d0", 0, 8, 9), (outcome(None, after),)
    answers = judged(Law.SAFE_TO_USE, world(before), write, new, seen=[through], purpose=Purpose.PROBE)
    assert the_evidence(answers).summary == "going on with write of d0 changed a snapshot of d0"
    corrupt = replace(full(after), check=Check(corruptions=1))
    answers = judged(Law.SAFE_TO_USE, world(before), write, new, seen=[corrupt], purpose=Purpose.PROBE)
    assert the_evidence(answers).summary == "going on with write of d0 corrupted the image of d0"


# --- group operations -----------------------------------------------------------------------------
def test_right_culprit_holds_when_the_first_device_whose_call_failed_is_named() -> None:
    failing = (failing_at("d1"),)
    answers = judged(
        Law.RIGHT_CULPRIT,
        world(*THREE),
        AllCreate("s"),
        failing,
        Result(EIO, first_bad="d1"),
        events=CREATE_FAILS_AT_D1,
    )
    assert held(answers)


def test_right_culprit_is_broken_when_an_innocent_device_is_named() -> None:
    failing = (failing_at("d1"),)
    answers = judged(
        Law.RIGHT_CULPRIT,
        world(*THREE),
        AllCreate("s"),
        failing,
        Result(EIO, first_bad="d0"),
        events=CREATE_FAILS_AT_D1,
    )
    evidence = the_evidence(answers)
    assert (evidence.device, evidence.severity) == ("d1", Severity.ERROR)
    assert evidence.summary == "all-create names d0, not d1, whose create failed first"
    assert (evidence.expected, evidence.actual) == ("first_bad d1", "first_bad d0")


def test_right_culprit_is_broken_when_a_device_refused_and_success_is_reported() -> None:
    answers = judged(Law.RIGHT_CULPRIT, world(*THREE), AllCreate("s"), (), Result(), events=CREATE_FAILS_AT_D1)
    evidence = the_evidence(answers)
    assert evidence.device == "d1"
    assert evidence.summary == "all-create reported success although create of d1 had failed"


def test_right_culprit_is_broken_when_somebody_is_named_on_success() -> None:
    events = called("d0", "create")
    answers = judged(Law.RIGHT_CULPRIT, world(*THREE), AllCreate("s"), (), Result(first_bad="d2"), events=events)
    assert the_evidence(answers).summary == "all-create names d2, not nobody, as it succeeded"


def test_right_culprit_blames_no_device_for_a_find_inside_a_delete() -> None:
    events = (*called("d0", "find", Errno.ENOENT), *called("d1", "find"), *called("d1", "delete", EIO))
    failing = (failing_at("d1"),)
    answers = judged(
        Law.RIGHT_CULPRIT, world(*ALL_HAVE_S), AllDelete("s"), failing, Result(EIO, first_bad="d1"), events=events
    )
    assert held(answers)


def test_right_culprit_blames_the_device_that_answers_no_or_misses_the_snapshot() -> None:
    no = (*called("d0", "can"), *called("d1", "can", Errno.ENOTSUP))
    answer = Result(answer=False, first_bad="d1")
    assert held(judged(Law.RIGHT_CULPRIT, world(*THREE), AllCanSnapshot(), (), answer, events=no))
    miss = (*called("d0", "find"), *called("d1", "find", Errno.ENOENT))
    lost = Result(Errno.ENOENT, first_bad="d1")
    assert held(judged(Law.RIGHT_CULPRIT, world(*THREE), AllFind("s"), (), lost, events=miss))


def test_right_culprit_names_the_root_node_when_its_child_failed() -> None:
    child = (
        Call("d1", "d1", "create", "generic", "enter"),
        Call("d1", "d1/file", "create", "generic", "enter"),
        Call("d1", "d1/file", "create", "generic", "return", EIO),
        Call("d1", "d1", "create", "generic", "return", EIO),
    )
    failing = (failing_at("d1"),)
    named_child = Result(EIO, first_bad="d1/file")
    answers = judged(Law.RIGHT_CULPRIT, world(*THREE), AllCreate("s"), failing, named_child, events=child)
    assert the_evidence(answers).expected == "first_bad d1"
    listed = AllCreate("s", devices=("d1/file",))
    modern = world(*THREE, semantics=Semantics.MODERN)
    own = (failing_at("d1/file"),)
    assert held(judged(Law.RIGHT_CULPRIT, modern, listed, own, named_child, events=child[1:3]))


def test_right_culprit_only_warns_when_a_modern_error_names_no_device() -> None:
    modern = world(*THREE, semantics=Semantics.MODERN)
    failing = (failing_at("d1"),)
    answers = judged(Law.RIGHT_CULPRIT, modern, AllCreate("s"), failing, Result(EIO), events=CREATE_FAILS_AT_D1)
    assert the_evidence(answers).severity is Severity.WARNING


def test_right_culprit_binds_on_a_damaged_device() -> None:
    failing = (failing_at("d1"),)
    damaged = {"d1": BINDING[Family.DAMAGE]}
    wrong = Result(EIO, first_bad="d0")
    answers = judged(
        Law.RIGHT_CULPRIT, world(*THREE), AllCreate("s"), failing, wrong, events=CREATE_FAILS_AT_D1, binding=damaged
    )
    assert the_evidence(answers).device == "d1"


def test_right_culprit_goes_by_the_model_where_calls_are_not_visible() -> None:
    blind = Abilities(calls=False)
    wrong = Result(EIO, first_bad="d0")
    answers = judged(Law.RIGHT_CULPRIT, world(*THREE), AllCreate("s"), (failing_at("d1"),), wrong, abilities=blind)
    assert the_evidence(answers).expected == "first_bad d1"


def test_right_culprit_of_loadvm_is_nobody_when_the_find_on_the_vmstate_device_fails() -> None:
    cans = (*called("d0", "can"), *called("d1", "can"))
    finds = (*called("d0", "find"), *called("d1", "find"))
    events = (*cans, *finds, *called("d0", "can"), *called("d0", "find", Errno.ENOENT))
    before = world(*ALL_HAVE_S)
    assert held(judged(Law.RIGHT_CULPRIT, before, LoadVm("s"), (outcome(DENIED),), Result(EIO), events=events))


def test_right_culprit_of_a_transaction_that_refused_before_any_create_is_the_models() -> None:
    refused = (failing_at("d1"),)
    actions = Transaction((SnapshotAction("d0", "s"), SnapshotAction("d1", "s")))
    events = (*called("d0", "create"), *called("d1", "can", Errno.ENOTSUP))
    assert held(judged(Law.RIGHT_CULPRIT, world(*THREE), actions, refused, Result(EIO, first_bad="d1"), events=events))


def test_stops_at_first_holds_when_only_flushes_and_landing_requests_follow_the_failure() -> None:
    landing: tuple[Event, ...] = (
        Io("d2", "flush", 0, 0),
        Request("d2", "start"),
        Io("d2", "write", 0, 512),
        Request("d2", "complete"),
    )
    events = (*CREATE_FAILS_AT_D1, *landing)
    failing = (failing_at("d1"),)
    assert held(judged(Law.STOPS_AT_FIRST, world(*THREE), AllCreate("s"), failing, Result(EIO), events=events))


def test_stops_at_first_is_broken_by_a_call_or_a_write_on_a_later_device() -> None:
    failing = (failing_at("d1"),)
    went_on = (*CREATE_FAILS_AT_D1, *called("d2", "create"))
    answers = judged(Law.STOPS_AT_FIRST, world(*THREE), AllCreate("s"), failing, Result(EIO), events=went_on)
    evidence = the_evidence(answers)
    assert evidence.device == "d2"
    assert evidence.summary == "all-create went on to d2 after create had failed on d1"
    assert evidence.actual == "snapshot create on d2"
    wrote = (*CREATE_FAILS_AT_D1, Io("d2", "write", 0, 512))
    answers = judged(Law.STOPS_AT_FIRST, world(*THREE), AllCreate("s"), failing, Result(EIO), events=wrote)
    assert the_evidence(answers).actual == "write on d2"


def test_stops_at_first_leaves_the_rollback_of_a_modern_savevm_alone() -> None:
    rollback = (*called("d0", "find"), *called("d0", "delete"), *called("d2", "find"), *called("d2", "delete"))
    events = (*CREATE_FAILS_AT_D1, *rollback)
    modern = world(*THREE, semantics=Semantics.MODERN)
    assert held(judged(Law.STOPS_AT_FIRST, modern, SaveVm("s"), (outcome(DENIED),), Result(EIO), events=events))


def test_prefix_applied_holds_when_the_snapshot_is_on_the_devices_before_the_culprit() -> None:
    d0 = device("d0", snapshot())
    answers = judged(
        Law.PREFIX_APPLIED, world(*THREE), AllCreate("s"), (failing_at("d1", d0),), Result(EIO, first_bad="d1"),
        seen=[look(d0), look(THREE[1]), look(THREE[2])], events=CREATE_FAILS_AT_D1,
    )  # fmt: skip
    assert held(answers)
    assert len(answers) == 3


def test_prefix_applied_is_broken_by_a_later_device_that_changed() -> None:
    d0, d2 = device("d0", snapshot()), device("d2", snapshot())
    answers = judged(
        Law.PREFIX_APPLIED, world(*THREE), AllCreate("s"), (failing_at("d1", d0),), Result(EIO, first_bad="d1"),
        seen=[look(d0), look(THREE[1]), look(d2)], events=CREATE_FAILS_AT_D1,
    )  # fmt: skip
    evidence = the_evidence(answers)
    assert evidence.summary == "all-create, failing at d1, left d2 in a state that the model does not allow"
    assert (evidence.expected, evidence.actual) == ("[]", "[1:'s']")


def test_nobody_skipped_holds_when_every_device_shows_the_effect() -> None:
    done = outcome(None, *ALL_HAVE_S)
    seen = [look(each) for each in ALL_HAVE_S]
    assert held(judged(Law.NOBODY_SKIPPED, world(*THREE), AllCreate("s"), (done,), seen=seen))


def test_nobody_skipped_is_broken_by_success_without_the_effect_on_one_device() -> None:
    done = outcome(None, *ALL_HAVE_S)
    seen = [look(ALL_HAVE_S[0]), look(THREE[1]), look(ALL_HAVE_S[2])]
    evidence = the_evidence(judged(Law.NOBODY_SKIPPED, world(*THREE), AllCreate("s"), (done,), seen=seen))
    assert evidence.summary == "all-create reported success without its effect on d1"
    assert (evidence.expected, evidence.actual) == ("[1:'s']", "[]")


def test_nobody_skipped_tells_a_device_that_had_to_stay_as_it_was_from_one_without_the_effect() -> None:
    done = outcome(None)  # the name is nowhere
    answers = judged(Law.NOBODY_SKIPPED, world(*ALL_HAVE_S), AllDelete("x"), (done,), seen=[look(THREE[0])])
    summary = "all-delete reported success and changed a device where it had nothing to do, d0"
    assert the_evidence(answers).summary == summary


def test_nobody_skipped_warns_of_a_delete_that_skipped_an_unreadable_list() -> None:
    before = world(*ALL_HAVE_S)
    events = (*called("d0", "find"), *called("d0", "delete"), *called("d1", "find", Errno.ENOENT))
    skipped = outcome(None, THREE[0])
    evidence = the_evidence(judged(Law.NOBODY_SKIPPED, before, AllDelete("s"), (skipped,), events=events))
    assert (evidence.device, evidence.severity) == ("d1", Severity.WARNING)
    assert "(W-08)" in evidence.summary


def test_nobody_skipped_knows_that_a_device_named_twice_has_nothing_left_to_delete() -> None:
    modern = world(*ALL_HAVE_S, semantics=Semantics.MODERN)
    events = (*called("d0", "find"), *called("d0", "delete"), *called("d0", "find", Errno.ENOENT))
    done = (outcome(None, THREE[0]),)
    answers = judged(
        Law.NOBODY_SKIPPED, modern, AllDelete("s", ("d0", "d0")), done, seen=[look(THREE[0])], events=events
    )
    assert held(answers)


def test_excluded_untouched_holds_when_a_read_only_device_is_left_out() -> None:
    before = world(device("d0"), device("d1", read_only=True))
    assert held(judged(Law.EXCLUDED_UNTOUCHED, before, AllCreate("s"), events=called("d0", "create")))


def test_excluded_untouched_is_broken_when_a_read_only_device_is_called_or_written() -> None:
    before = world(device("d0"), device("d1", read_only=True))
    events = (*called("d0", "create"), *called("d1", "create", Errno.EPERM))
    evidence = the_evidence(judged(Law.EXCLUDED_UNTOUCHED, before, AllCreate("s"), events=events))
    assert evidence.summary == "all-create touched d1, which is outside its walk"
    assert (evidence.expected, evidence.actual) == ("nothing but d0", "snapshot create on d1")
    events = (*called("d0", "create"), Io("d1", "truncate", 0, 0))
    assert (
        the_evidence(judged(Law.EXCLUDED_UNTOUCHED, before, AllCreate("s"), events=events)).actual == "truncate on d1"
    )


def test_excluded_untouched_is_broken_by_a_write_to_what_is_only_looked_at_or_read_only() -> None:
    read_only = world(device("d0", snapshot(), read_only=True))
    for operation in (Find("d0", "s"), LoadTmp("d0", "1", None), Flush("d0")):
        evidence = the_evidence(judged(Law.EXCLUDED_UNTOUCHED, read_only, operation, events=(WROTE,)))
        assert evidence.actual == "write on d0"
    evidence = the_evidence(judged(Law.EXCLUDED_UNTOUCHED, world(*THREE), AllFind("s"), events=(WROTE,)))
    assert evidence.expected == "reads alone"
    assert judged(Law.EXCLUDED_UNTOUCHED, read_only, SetReadOnly("d0", read_only=False), events=(WROTE,)) == []


def test_excluded_untouched_goes_by_the_list_of_the_modern_profile_and_spares_vm_state_bs() -> None:
    modern = world(*THREE, semantics=Semantics.MODERN)
    listed = AllCreate("s", vmstate_device="d2", devices=("d0/file", "d2"))
    inside = (*called("d0/file", "create"), *called("d2", "create"))
    assert held(judged(Law.EXCLUDED_UNTOUCHED, modern, listed, events=inside))
    outside = (*inside, *called("d1", "create"))
    assert the_evidence(judged(Law.EXCLUDED_UNTOUCHED, modern, listed, events=outside)).device == "d1"


def savevm_seen(*sizes: int) -> tuple[list[Observation], tuple[Event, ...]]:
    seen = [look(device(f"d{at}", snapshot(vm_state_size=size))) for at, size in enumerate(sizes)]
    return seen, tuple(event for at in range(len(sizes)) for event in called(f"d{at}", "create"))


def test_vmstate_on_one_holds_when_only_vm_state_bs_has_a_size() -> None:
    seen, events = savevm_seen(0, 765)
    create = AllCreate("s", vmstate_device="d1", vm_state_size=765)
    assert held(judged(Law.VMSTATE_ON_ONE, world(*THREE[:2]), create, seen=seen, events=events))


def test_vmstate_on_one_is_broken_when_a_second_snapshot_has_a_size() -> None:
    seen, events = savevm_seen(765, 765)
    create = AllCreate("s", vmstate_device="d0", vm_state_size=765)
    evidence = the_evidence(judged(Law.VMSTATE_ON_ONE, world(*THREE[:2]), create, seen=seen, events=events))
    assert evidence.device == "d1"
    assert evidence.expected == "0 bytes on d1; vm_state_bs is d0"
    assert evidence.actual == "765 bytes on d1"


def test_vmstate_on_one_expects_no_size_anywhere_when_the_walk_does_not_reach_vm_state_bs() -> None:
    seen, events = savevm_seen(765, 0)
    create = AllCreate("s", vmstate_device="d0/file", vm_state_size=765)
    evidence = the_evidence(judged(Law.VMSTATE_ON_ONE, world(*THREE[:2]), create, seen=seen, events=events))
    assert evidence.expected == "0 bytes on d0; vm_state_bs is not in the walk"


def test_vmstate_on_one_does_not_know_the_vm_state_bs_of_savevm_when_a_device_is_damaged() -> None:
    seen, events = savevm_seen(0, 765)
    damaged = {"d0": BINDING[Family.DAMAGE]}
    assert judged(Law.VMSTATE_ON_ONE, world(*THREE[:2]), SaveVm("s"), seen=seen, events=events, binding=damaged) == []


def test_all_or_nothing_holds_when_a_failed_transaction_left_the_old_lists() -> None:
    actions = Transaction((SnapshotAction("d0", "s"), SnapshotAction("d1", "s")))
    seen = [look(THREE[0]), look(THREE[1])]
    failing = (failing_at("d1"),)
    assert held(judged(Law.ALL_OR_NOTHING, world(*THREE), actions, failing, Result(EIO), seen=seen))


def test_all_or_nothing_is_broken_when_a_failed_transaction_left_a_snapshot() -> None:
    actions = Transaction((SnapshotAction("d0", "s"), SnapshotAction("d1", "s")))
    seen = [look(ALL_HAVE_S[0]), look(THREE[1])]
    failing = (failing_at("d1"),)
    answers = judged(
        Law.ALL_OR_NOTHING, world(*THREE), actions, failing, Result(EIO), seen=seen, events=CREATE_FAILS_AT_D1
    )
    evidence = the_evidence(answers)
    assert evidence.summary == "transaction failed and changed the list of d0"
    assert (evidence.expected, evidence.actual) == ("the list from before, []", "in memory [1:'s']")


def test_all_or_nothing_does_not_bind_when_a_second_fault_struck_the_rollback() -> None:
    actions = Transaction((SnapshotAction("d0", "s"), SnapshotAction("d1", "s")))
    faults = (CallFault("d1", "create"), CallFault("d0", "delete"))
    rollback = called("d0", "delete", EIO, FaultMet("d0", 1))
    events = (*called("d0", "create"), *called("d1", "create", EIO, FaultMet("d1", 0)), *rollback)
    seen = [look(ALL_HAVE_S[0])]
    answers = judged(
        Law.ALL_OR_NOTHING,
        world(*THREE),
        actions,
        (failing_at("d1"),),
        Result(EIO),
        seen=seen,
        events=events,
        faults=faults,
    )
    assert answers == []


def test_all_or_nothing_binds_on_a_device_whose_own_rollback_met_no_fault() -> None:
    actions = Transaction(tuple(SnapshotAction(name, "s") for name in ("d0", "d1", "d2")))
    made = (*called("d0", "create"), *called("d1", "create"), *called("d2", "create", EIO, FaultMet("d2", 0)))
    events = (*made, *called("d1", "delete", EIO, FaultMet("d1", 1)))
    faults = (CallFault("d2", "create"), CallFault("d1", "delete"))
    seen = [look(ALL_HAVE_S[0]), look(ALL_HAVE_S[1]), look(THREE[2])]
    answers = judged(
        Law.ALL_OR_NOTHING, world(*THREE), actions, (failing_at("d2"),), Result(EIO), seen=seen, events=events,
        faults=faults,
    )  # fmt: skip
    assert the_evidence(answers).device == "d0"


def test_all_or_nothing_only_warns_where_the_model_knows_that_a_create_could_not_be_taken_back() -> None:
    actions = Transaction((SnapshotAction("d0", "s"), SnapshotAction("d1", "s")))
    before, new = THREE[1], ALL_HAVE_S[1]
    named = Expected(errnos=frozenset({EIO}), first_bad="d1")
    allowed = Outcome(named, {"d1": (Allowed(before), Allowed(new, "nothing could be undone"))})
    failed = Result(EIO, first_bad="d1")
    answers = judged(Law.ALL_OR_NOTHING, world(*THREE), actions, (allowed,), failed, seen=[look(new)],
                     events=CREATE_FAILS_AT_D1)  # fmt: skip
    evidence = the_evidence(answers)
    assert evidence.severity is Severity.WARNING
    assert evidence.summary == "transaction failed and changed the list of d1 (nothing could be undone)"


def test_locks_balanced_holds_when_locks_are_held_around_each_call_also_recursively() -> None:
    again: tuple[Event, ...] = (Lock("d0", "acquire", "main"), Lock("d0", "release", "main"))
    assert held(judged(Law.LOCKS_BALANCED, world(*THREE), AllCreate("s"), events=called("d0", "create", 0, *again)))


def test_locks_balanced_is_broken_by_a_lock_that_the_error_path_keeps() -> None:
    events = called("d1", "delete", EIO)[:-1]
    answers = judged(Law.LOCKS_BALANCED, world(*THREE), AllDelete("s"), (failing_at("d1"),), Result(EIO), events=events)
    evidence = the_evidence(answers)
    assert evidence.summary == "all-delete returned with the AioContext of d1 out of balance"
    assert evidence.actual == "acquired 1 times more"


def test_locks_balanced_is_broken_by_a_call_without_the_lock_and_by_a_deadlock() -> None:
    bare = called("d0", "create", locked=False)
    answers = judged(Law.LOCKS_BALANCED, world(*THREE), AllCreate("s"), events=bare)
    assert the_evidence(answers).summary == "all-create called create on d0 without its AioContext"
    assert judged(Law.LOCKS_BALANCED, world(*THREE), Create("d0", "s"), events=bare) == []
    blocked = [Lock("d0", "blocked", "main")]
    assert (
        "would wait forever"
        in the_evidence(judged(Law.LOCKS_BALANCED, world(*THREE), AllCreate("s"), events=blocked)).summary
    )


def test_drained_holds_when_requests_land_before_the_driver_deletes() -> None:
    landing: tuple[Event, ...] = (Request("d0", "start"), Request("d0", "complete"))
    events = (Call("d0", "d0", "delete", "generic", "enter"), *landing, *called("d0", "delete")[2:-1])
    busy = Running(in_flight={"d0": 1})
    assert held(judged(Law.DRAINED, world(*ALL_HAVE_S), Delete("d0", "1", None), events=events, running=busy))


def test_drained_is_broken_when_the_driver_deletes_under_a_request_in_flight() -> None:
    busy = Running(in_flight={"d0": 1})
    events = called("d0", "delete")
    evidence = the_evidence(
        judged(Law.DRAINED, world(*ALL_HAVE_S), Delete("d0", "1", None), events=events, running=busy)
    )
    assert evidence.summary == "delete of d0 entered delete of d0 while d0 was not drained"
    assert evidence.actual == "requests of d0 in flight"


def test_drained_is_broken_by_a_section_that_never_ends() -> None:
    begun, ended = Drain("d0", "begin"), Drain("d0", "end")
    refused = Transaction((SnapshotAction("d0", "s"),))
    answers = judged(Law.DRAINED, world(*ALL_HAVE_S), refused, result=Result(Errno.EEXIST), events=[begun])
    evidence = the_evidence(answers)
    assert evidence.summary == "transaction returned with the drained sections of d0 out of balance"
    assert (evidence.device, evidence.actual) == ("d0", "begun 1 times more")
    answers = judged(Law.DRAINED, world(*ALL_HAVE_S), refused, result=Result(Errno.EEXIST), events=[begun, ended])
    assert answers == []


def test_drained_asks_savevm_for_every_device_and_a_bare_group_create_for_none() -> None:
    busy = Running(in_flight={"d1": 1})
    events = called("d0", "create")
    assert the_evidence(judged(Law.DRAINED, world(*THREE), SaveVm("s"), events=events, running=busy)).device == "d1"
    other = (*called("d0", "find"), *called("d0", "delete"))
    assert held(judged(Law.DRAINED, world(*ALL_HAVE_S), DelVm("s"), events=other, running=busy))


# --- all of them ----------------------------------------------------------------------------------
@pytest.mark.parametrize("law", list(laws.RULES))
def test_every_law_is_tested_where_it_holds_and_where_it_is_broken(law: Law) -> None:
    begin = f"test_{law.name.lower()}_"
    names = [name for name in globals() if name.startswith(begin)]
    assert any(name.startswith(f"{begin}holds") for name in names)
    assert any(name.startswith(f"{begin}is_broken") for name in names)


def test_every_law_has_its_rule_and_the_most_telling_come_first() -> None:
    order = list(laws.RULES)
    assert {*order, *CRASH_RULES} == set(Law) == set(ALL_LAWS)
    assert order.index(Law.RIGHT_CULPRIT) < order.index(Law.LIST_EXACT) < order.index(Law.RESULT)
    # The caller's sn is wrong as well when a device was skipped: that is no news, and the device is.
    for law in (Law.VMSTATE_ON_ONE, Law.NOBODY_SKIPPED, Law.PREFIX_APPLIED):
        assert order.index(law) < order.index(Law.OUT_PARAMS)


def test_a_law_is_not_observable_without_the_ability_that_it_needs() -> None:
    assert not laws.is_observable(Law.LOCKS_BALANCED, Abilities(locks=False))
    assert not laws.is_observable(Law.NO_LEAK, Abilities(check=False))
    assert laws.is_observable(Law.SAFE_TO_USE, Abilities(check=False))
    assert not laws.is_observable(Law.SAFE_TO_USE, Abilities(check=False, snapshot_contents=False))
    assert not laws.is_observable(Law.DRAINED, Abilities(operations=("write", "create")))
    assert all(laws.is_observable(law, Abilities()) for law in Law)


def test_laws_bind_on_the_other_devices_when_one_is_damaged() -> None:
    seen = [look(ALL_HAVE_S[0]), look(ALL_HAVE_S[1])]
    damaged = {"d0": BINDING[Family.DAMAGE]}
    answers = judged(Law.LIST_EXACT, world(*THREE), List("d2"), seen=seen, binding=damaged)
    assert the_evidence(answers).device == "d1"
    assert len(answers) == 1


def test_a_plain_device_may_refuse_to_list() -> None:
    plain = device()._replace(spec=DeviceSpec("d0", Kind.PLAIN, 8))
    seen = Observation("d0", Level.LIGHT, View(None, 8, b"\1" * 8, ("list: ENOTSUP",)))
    assert held(judged(Law.LIST_EXACT, world(plain), Write("d0", 0, 1, 1), seen=[seen]))
