"""A whole run: the same seed gives the same histories, and the verdict is never better than what was seen."""

import threading
from collections.abc import Sequence
from dataclasses import replace

import pytest
from snapcheck.impl.blockfile import BlockError, BlockFile
from snapcheck.impl.driver import CreateOptions, Driver
from snapcheck.impl.qcow2.driver import Qcow2Driver, open_driver
from snapcheck.impl.targets import Target, find_target
from snapcheck.model.facts import Evidence
from snapcheck.model.history import History, Step
from snapcheck.model.law_names import Law, Severity
from snapcheck.model.laws import RULES
from snapcheck.model.operations import (
    CanSnapshot,
    Create,
    Delete,
    Find,
    Flush,
    Goto,
    List,
    Operation,
    Reopen,
    Resize,
    Write,
)
from snapcheck.model.setup import DeviceSpec, Semantics, Setup
from snapcheck.reports.known import Accepted
from snapcheck.reports.verdict import RunResult, Verdict, ViolationReport
from snapcheck.stateful_tests import run as run_module
from snapcheck.stateful_tests import violations as violations_module
from snapcheck.stateful_tests.phases import stateful
from snapcheck.stateful_tests.run import PHASES, SHARDS, Progress, RunOptions, Silent, run_driver
from snapcheck.stateful_tests.session import (
    GROUP_OPERATIONS,
    GROUP_OPERATIONS_ON_NOBODY,
    GROUP_OPERATIONS_STRUCK,
)
from snapcheck.stateful_tests.shrink import Shrunk
from snapcheck.stateful_tests.units import Answer, Failure, Profile, Unit
from snapcheck.stateful_tests.violations import Violations
from snapcheck.stateful_tests.work import Control

QCOW2 = find_target("qcow2")
LOCK_KEPT = find_target("snapcheck.stateful_tests.seeded_bugs.group:lock_kept")


def unit(
    *, shard: int = 0, histories: int | None = 12, seconds: float | None = None, seed: int = 5,
    semantics: Semantics = Semantics.CLASSIC,
) -> Unit:  # fmt: skip
    return Unit(
        driver="qcow2", phase="stateful", semantics=semantics, devices=3, seed=seed, shard=shard, histories=histories,
        seconds=seconds,
    )  # fmt: skip


def answer_to(asked: Unit) -> Answer:
    return stateful.run(asked, Control(lambda _tick: None))


def run(target: Target = QCOW2, *, phases: tuple[str, ...] = ("stateful",), **options: object) -> RunResult:
    options["phases"] = phases
    return run_driver(target, RunOptions(**options), Silent()).result  # type: ignore[arg-type]  # options of the run


def put_in_place(monkeypatch: pytest.MonkeyPatch, target: Target) -> None:
    """Let every unit find this target, whatever it is called."""

    def found(_name: str) -> Target:
        return target

    monkeypatch.setattr(stateful, "find_target", found)


def told(result: RunResult) -> set[tuple[str, str]]:
    return {(each.law.value, each.operation) for each in result.violations if each.severity is Severity.ERROR}


# --- determinism ----------------------------------------------------------------------------------
def test_the_same_seed_gives_the_same_histories() -> None:
    once, again, other = answer_to(unit()), answer_to(unit()), answer_to(unit(seed=6))
    assert len(once.digests) == 12
    assert once.digests == again.digests
    assert once.digests != other.digests


def test_fewer_histories_are_the_first_ones_of_more() -> None:
    few, more = answer_to(unit(histories=5)), answer_to(unit(histories=12))
    assert few.digests == more.digests[:5]


def test_shards_have_chances_of_their_own() -> None:
    assert answer_to(unit(shard=0)).digests[1:] != answer_to(unit(shard=1)).digests[1:]


def test_time_that_runs_out_ends_a_unit_with_what_it_has() -> None:
    answer = answer_to(unit(histories=None, seconds=0.5))
    assert answer.out_of_time
    assert answer.digests == answer_to(unit(histories=len(answer.digests))).digests


def test_several_processes_find_what_one_finds() -> None:
    alone, together = run(LOCK_KEPT, histories=40, jobs=1), run(LOCK_KEPT, histories=40, jobs=2)
    assert alone.verdict is Verdict.FAILED
    assert [(each.law, each.checked, each.violated) for each in alone.laws] == [
        (each.law, each.checked, each.violated) for each in together.laws
    ]
    assert alone.coverage == together.coverage
    assert told(alone) == told(together)


def test_the_digests_of_all_histories_stand_in_the_order_of_shards_whoever_was_first() -> None:
    options = RunOptions(phases=("walk", "stateful"), profile=Profile.QUICK, histories=20)
    alone, together = (run_driver(QCOW2, replace(options, jobs=jobs), Silent()) for jobs in (1, 2))
    assert [(each.phase, each.number) for each in alone.shards] == [
        (phase, shard) for phase in ("walk", "stateful") for shard in range(SHARDS)
    ]
    assert alone.shards == together.shards
    assert sum(len(each.digests) for each in alone.shards) == sum(each.histories for each in alone.result.phases)


@pytest.mark.parametrize("histories", [1, SHARDS + 3, 30])
def test_the_number_of_histories_is_exact(histories: int) -> None:
    (phase,) = run(histories=histories).phases
    assert phase.histories == histories
    assert phase.complete


def test_the_phases_share_the_histories_and_together_they_are_exact() -> None:
    phases = run(histories=23, phases=PHASES).phases
    assert [phase.name for phase in phases] == list(PHASES)
    assert sum(phase.histories for phase in phases) == 23
    assert all(phase.histories for phase in phases)


# --- what is reached ------------------------------------------------------------------------------
@pytest.mark.parametrize("semantics", list(Semantics))
def test_a_third_of_the_group_operations_meet_a_fault_on_two_or_more_devices(semantics: Semantics) -> None:
    counts = answer_to(unit(histories=100, semantics=semantics)).counts
    assert counts[GROUP_OPERATIONS] > 500
    assert counts[GROUP_OPERATIONS_STRUCK] * 3 >= counts[GROUP_OPERATIONS]
    assert counts[GROUP_OPERATIONS_ON_NOBODY] > 0


@pytest.mark.parametrize("semantics", list(Semantics))
def test_the_engine_passes_with_every_law_checked(semantics: Semantics) -> None:
    result = run(histories=160, semantics=semantics, seed=2)
    assert [each.summary for each in result.violations if each.severity is Severity.ERROR] == []
    assert result.verdict is Verdict.PASSED, result.notes
    assert {each.law for each in result.laws if each.checked} == set(RULES)


# --- the verdict ----------------------------------------------------------------------------------
def test_a_law_that_was_never_checked_leaves_the_verdict_unknown() -> None:
    result = run(histories=1)
    assert result.verdict is Verdict.UNKNOWN
    assert "never checked" in result.notes[0]


def test_a_driver_that_can_not_be_started_leaves_the_verdict_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(disk: BlockFile, *, read_only: bool, create: CreateOptions | None) -> Driver:  # noqa: ARG001  # the contract's
        raise BlockError(5, "no such luck")

    target = Target("mine:refuses", "refuses", refuses)
    put_in_place(monkeypatch, target)
    result = run(target, histories=8)
    assert result.verdict is Verdict.UNKNOWN
    assert "could not be started" in result.notes[0]
    assert "no such luck" in result.notes[0]


def test_known_divergences_are_told_and_do_not_fail_the_run() -> None:
    accepted = tuple(Accepted(law, "we know") for law in (Law.LOCKS_BALANCED,))
    result = run(LOCK_KEPT, histories=60, known=accepted)
    errors = [each for each in result.violations if each.severity is Severity.ERROR]
    assert errors
    assert all(each.known for each in errors)
    assert result.verdict is not Verdict.FAILED


def test_news_is_told_beside_what_is_known_of_the_same_law_and_operation() -> None:
    def failure(text: str) -> Failure:
        evidence = Evidence(Law.NO_LEAK, Severity.ERROR, "d0", "flush leaks", "0 leaks", text)
        return Failure("walk", (evidence,), History(Setup((DeviceSpec("d0"),)), [Step(Flush("d0"))]), 0.0)

    told: list[ViolationReport] = []
    old = Accepted(Law.NO_LEAK, "we know", "flush", matches="^1 leaks")
    violations = Violations(QCOW2, (old,), 0.0, told.append)
    violations.shrink_all([failure("1 leaks"), failure("77 leaks"), failure("1 leaks")])
    assert [(each.actual, each.known) for each in told] == [("1 leaks", True), ("77 leaks", False)]


def test_warnings_together_are_shrunk_for_a_part_of_the_time_of_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given ten kinds of warnings and an error, and a clock that shrinking moves by what it is given
    now, given = [0.0], list[tuple[Severity, float]]()

    def slow(_target: Target, history: History, evidence: tuple[Evidence, ...], *, seconds: float) -> Shrunk:
        given.append((evidence[0].severity, seconds))
        now[0] += seconds
        return Shrunk(history, evidence)

    def failure(severity: Severity, operation: Operation) -> Failure:
        evidence = Evidence(Law.NO_LEAK, severity, "d0", "it leaks", "0 leaks", "1 leaks")
        return Failure("walk", (evidence,), History(Setup((DeviceSpec("d0"),)), [Step(operation)]), 0.0)

    monkeypatch.setattr(violations_module, "shrink", slow)
    monkeypatch.setattr(violations_module.time, "monotonic", lambda: now[0])
    kinds: list[Operation] = [
        Flush("d0"), Reopen("d0"), List("d0"), Create("d0", "a"), Goto("d0", "a"), Delete("d0", None, "a"),
        Write("d0", 0, 1, 1), Resize("d0", 8), CanSnapshot("d0"), Find("d0", "a"),
    ]  # fmt: skip
    # When all of them are shrunk
    violations = Violations(QCOW2, (), 10.0, lambda _told: None)
    violations.shrink_all([*(failure(Severity.WARNING, each) for each in kinds), failure(Severity.ERROR, kinds[0])])
    # Then the error comes first and has its time, and the warnings share a fifth of that
    assert given[0] == (Severity.ERROR, 10.0)
    shares = [seconds for severity, seconds in given if severity is Severity.WARNING]
    assert len(shares) == len(kinds)
    assert sum(shares) == pytest.approx(2.0)
    assert max(shares) <= 1.0


def test_a_failure_of_the_harness_is_no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(unit: Unit, control: Control) -> Answer:  # noqa: ARG001  # a phase's shape
        raise ZeroDivisionError("by accident")

    monkeypatch.setattr(run_module, "RUNNERS", {"stateful": breaks})
    result = run(histories=8)
    assert result.verdict is Verdict.UNKNOWN
    assert "the harness itself failed: ZeroDivisionError in breaks" in result.notes[0]


# --- while it runs --------------------------------------------------------------------------------
class Interrupting(Silent):
    """Asks for the end as soon as there is something to report."""

    def __init__(self) -> None:
        self.heard: list[Progress] = []

    def on_progress(self, progress: Progress) -> None:
        self.heard.append(progress)
        if len(self.heard) == 1:
            raise KeyboardInterrupt


def test_an_interrupted_run_reports_what_it_did() -> None:
    result = run_driver(QCOW2, RunOptions(phases=("stateful",), histories=100_000), Interrupting()).result
    assert result.verdict is Verdict.UNKNOWN
    assert "interrupted" in result.notes[0]
    assert 0 < result.phases[0].histories < 100_000


def test_a_run_that_is_interrupted_while_shrinking_still_tells_what_it_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_args: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(violations_module, "shrink", interrupted)
    result = run(LOCK_KEPT, histories=24)
    assert result.verdict is Verdict.FAILED
    assert any(each.law is Law.LOCKS_BALANCED and each.history is not None for each in result.violations)
    assert any("interrupted while shrinking" in note for note in result.notes)
    assert not any(each.shrunk for each in result.violations if each.law is Law.LOCKS_BALANCED)


def test_no_seconds_to_shrink_show_violations_as_they_were_found() -> None:
    whole, short = run(LOCK_KEPT, histories=24, shrink_seconds=0.0), run(LOCK_KEPT, histories=24)
    assert told(whole) == told(short)
    assert not any(each.shrunk for each in whole.violations)
    assert sum(each.operations for each in whole.violations) > 3 * sum(each.operations for each in short.violations)


def test_progress_and_violations_are_told_as_they_happen() -> None:
    told: list[object] = []

    class Listening(Silent):
        def on_progress(self, progress: Progress) -> None:
            told.append(progress)

        def on_violation(self, violation: ViolationReport) -> None:
            told.append(violation)

    result = run_driver(LOCK_KEPT, RunOptions(phases=("stateful",), histories=40), Listening()).result
    last = [each for each in told if isinstance(each, Progress)][-1]
    assert (last.histories, last.steps) == (40, result.phases[0].steps)
    violations = [each for each in told if isinstance(each, ViolationReport)]
    assert {each.id for each in violations} == {each.id for each in result.violations}


def test_one_bug_that_breaks_a_law_in_many_operations_is_one_cause() -> None:
    violations = run(find_target("snapcheck.stateful_tests.seeded_bugs.group:wrong_culprit"), histories=40).violations
    errors = [each for each in violations if each.severity is Severity.ERROR]
    assert len(errors) > 1
    assert {each.cause for each in errors} == {errors[0].id}
    sizes = [(each.operations, each.faults) for each in errors]
    assert sizes == sorted(sizes)


# --- drivers that misbehave -----------------------------------------------------------------------
class Loops(Qcow2Driver):
    """Never comes back from a create."""

    __slots__ = ()

    def snapshot_create(self, sn: object) -> None:  # type: ignore[override]
        while sn is not None:
            threading.Event().wait(0.001)


class Dies(Qcow2Driver):
    """Falls over an entry that is not there."""

    __slots__ = ()

    def snapshot_list(self) -> Sequence[object]:  # type: ignore[override]
        entries: list[object] = []
        return [entries[len(super().snapshot_list())]]


def open_as(driver: type[Qcow2Driver]) -> Target:
    def opened(disk: BlockFile, *, read_only: bool, create: CreateOptions | None) -> Driver:
        return driver(open_driver(disk, read_only=read_only, create=create)._image)  # pyright: ignore[reportPrivateUsage]

    return Target("mine:misbehaves", "misbehaves", opened)


def test_a_driver_that_dies_breaks_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    target = open_as(Dies)
    put_in_place(monkeypatch, target)
    result = run(target, histories=8)
    assert result.verdict is Verdict.FAILED
    assert result.violations[0].law is Law.NO_CRASH
    assert "IndexError" in result.violations[0].actual


def test_a_driver_that_loops_breaks_no_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    target = open_as(Loops)
    put_in_place(monkeypatch, target)
    monkeypatch.setattr("snapcheck.stateful_tests.watchdog.OPERATION_SECONDS_MAX", 0.2)
    result = run(target, histories=24)
    assert result.verdict is Verdict.FAILED
    assert result.violations[0].law is Law.NO_HANG
