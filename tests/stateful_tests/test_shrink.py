"""Shrinking keeps the violation and makes everything else small: steps, faults, devices, names, sizes."""

from itertools import count
from types import SimpleNamespace

import pytest
from snapcheck.impl.targets import find_target
from snapcheck.model.errno import Errno
from snapcheck.model.facts import Evidence
from snapcheck.model.faults import CallFault, Fails, IoFault
from snapcheck.model.history import Care, History, Purpose, Step
from snapcheck.model.law_names import Law, Severity
from snapcheck.model.operations import (
    AllCanSnapshot,
    AllCreate,
    AllDelete,
    AllFind,
    Create,
    DelVm,
    Flush,
    Resize,
    SnapshotAction,
    Transaction,
    Write,
)
from snapcheck.model.setup import DeviceSpec, Kind, PreparedSnapshot, Semantics, Setup
from snapcheck.stateful_tests.phases import walk
from snapcheck.stateful_tests.replay import Ran, breaks, run_again
from snapcheck.stateful_tests.seeded_bugs import CANARY, CATALOGUE, SeededBug
from snapcheck.stateful_tests.shrink import Shrunk, shrink
from snapcheck.stateful_tests.units import Failure, Unit
from snapcheck.stateful_tests.work import Control, Tick

BUGS = "snapcheck.stateful_tests.seeded_bugs"
LONG = "n" * 256


def found(driver: str, history: History) -> tuple[Evidence, ...]:
    """Return the evidence of the first step that breaks a law, and cut the history there."""
    ran = run_again(find_target(driver), history, care=Care.USUAL, telling=breaks(None))
    assert ran.evidence, "the history must show the bug"
    del history.steps[len(ran.history.steps) :]
    return ran.evidence


def shrunk(driver: str, history: History, *, seconds: float = 20) -> Shrunk:
    return shrink(find_target(driver), history, found(driver, history), seconds=seconds)


def noisy(*steps: Step, semantics: Semantics = Semantics.CLASSIC) -> History:
    """Return these steps among others, on devices of many kinds."""
    prepared = (PreparedSnapshot("7", "old", sectors=24, tag=3, vm_state_size=100),)
    devices = (
        DeviceSpec("d0", Kind.RAW_OVER, sectors=128, cluster_bytes=512, tag=9, snapshots=prepared),
        DeviceSpec("d1", sectors=64, tag=9, snapshots=prepared),
        DeviceSpec("d2", Kind.FILTER_OVER, sectors=33, read_only=True),
    )
    noise = [
        Step(Write("d0", 3, 5, 20)), Step(Flush("d1")), Step(AllFind("old")), Step(Resize("d1", 80)),
        Step(Write("d1", 70, 8, 21), (IoFault("d1", "flush", Fails(), at=9),)),
    ]  # fmt: skip
    return History(Setup(devices, semantics), [*noise, *steps])


def test_one_group_create_with_its_fault_is_what_is_left_of_a_wrong_culprit() -> None:
    fault = CallFault("d1", "create", at=1, times=0, errno=Errno.ENOSPC)
    spare = IoFault("d0", "write", Fails(), at=500)
    step = Step(AllCreate(LONG, "d0", 765, date_sec=7), (fault, spare))
    done = shrunk(f"{BUGS}.group:wrong_culprit", noisy(step))
    assert done.finished
    assert done.history.steps[-1].operation == AllCreate("a")
    assert done.history.steps[-1].faults == (CallFault("d1", "create"),)
    assert len(done.history.steps) == 1
    assert [spec.name for spec in done.history.setup.devices] == ["d0", "d1"]
    assert {(spec.kind, spec.snapshots, spec.tag) for spec in done.history.setup.devices} == {(Kind.DRIVER, (), 0)}
    assert done.evidence[0].law is Law.RIGHT_CULPRIT


def test_a_violation_that_only_the_last_look_saw_is_traced_to_the_step_that_did_it() -> None:
    history = noisy(Step(Create("d1", "s", vm_state_size=1)), Step(Write("d1", 0, 1, 5)), Step(AllCanSnapshot()))
    history.setup.devices[1].snapshots[0]  # d1 has an entry with id 7
    big = PreparedSnapshot("4294967297", "old", sectors=64, tag=3)
    devices = tuple(
        DeviceSpec(spec.name, spec.kind, sectors=64, snapshots=(big,)) if spec.name == "d1" else spec
        for spec in history.setup.devices
    )
    done = shrunk(f"{BUGS}.snapshot_table:narrow_id", History(Setup(devices), history.steps))
    assert [type(step.operation) for step in done.history.steps] == [Create]


def test_what_a_violation_needs_is_kept_a_name_that_is_the_id_of_another() -> None:
    driver = f"{BUGS}.generic:id_or_name"
    done = shrunk(driver, noisy(Step(Create("d1", "7")), Step(Flush("d1")), Step(AllDelete("7"))))
    last = done.history.steps[-1].operation
    assert isinstance(last, AllDelete)
    (spec,) = done.history.setup.devices
    assert last.name in {"7", "1"}  # an id, so not renamed to anything plainer
    assert len(done.history.steps) + len(spec.snapshots) <= 3


def test_no_time_at_all_still_gives_the_history_that_was_found() -> None:
    fault = CallFault("d1", "create")
    history = noisy(Step(AllCreate("s"), (fault,)))
    evidence = found(f"{BUGS}.group:lock_kept", history)
    done = shrink(find_target(f"{BUGS}.group:lock_kept"), history, evidence, seconds=0)
    assert not done.finished
    assert done.evidence[0].law is Law.LOCKS_BALANCED
    assert done.history.steps


def test_a_long_history_gets_some_time_more_until_it_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that goes on by a second whenever somebody looks at it."""
    failing = Step(AllCreate("a"), (CallFault("d0", "create"),))
    history = History(Setup((DeviceSpec("d0", sectors=16),)), [*[Step(Flush("d0"))] * 40, failing])
    evidence = found(f"{BUGS}.group:lock_kept", history)
    clock = count()
    monkeypatch.setattr("snapcheck.stateful_tests.shrink.time", SimpleNamespace(monotonic=lambda: next(clock)))
    done = shrink(find_target(f"{BUGS}.group:lock_kept"), history, evidence, seconds=1)
    assert not done.finished
    assert len(done.history.steps) == 1, "a second was over before the first candidate was tried"


def test_actions_of_a_transaction_go_with_their_devices() -> None:
    taken = Transaction((SnapshotAction("d0", "x"), SnapshotAction("d1", "x")))
    fault = IoFault("d1", "write", Fails(), at=1)
    done = shrunk(f"{BUGS}.snapshot_table:count_not_restored", noisy(Step(taken, (fault,))))
    assert done.history.steps[-1].operation == Transaction((SnapshotAction("d1", "a"),))
    assert [spec.name for spec in done.history.setup.devices] == ["d1"]


@pytest.mark.parametrize("purpose", [Purpose.RETRY, Purpose.PROBE])
def test_a_step_that_need_not_be_a_retry_is_none(purpose: Purpose) -> None:
    step = Step(AllCreate("s"), purpose=purpose)
    done = shrunk(f"{BUGS}.group:stale_first_bad", noisy(step))
    assert {each.purpose for each in done.history.steps} == {Purpose.EXPLORE}


def test_an_interrupted_shrinking_gives_the_best_so_far_and_goes_on_from_there_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    driver = f"{BUGS}.group:wrong_culprit"
    history = noisy(Step(AllCreate("s"), (CallFault("d1", "create", errno=Errno.ENOSPC),)))
    evidence, tries = found(driver, history), count(1)

    def interrupted(*args: object, **options: object) -> Ran:
        if next(tries) == 6:
            raise KeyboardInterrupt
        return run_again(*args, **options)  # type: ignore[arg-type]  # passed on as it came

    with monkeypatch.context() as patched:
        patched.setattr("snapcheck.stateful_tests.shrink.run_again", interrupted)
        done = shrink(find_target(driver), history, evidence)
    assert (done.interrupted, done.finished) == (True, False)
    assert len(done.history.steps) < len(history.steps)
    further = shrink(find_target(driver), done.history, done.evidence)
    assert further.finished
    assert len(further.history.steps) == 1


def test_a_warning_of_the_law_on_the_way_does_not_end_a_history_too_early() -> None:
    skipped = Step(DelVm("old"), (CallFault("d1", "find"),))  # W-08: a warning of nobody-skipped
    driver = f"{BUGS}.generic:id_or_name"
    history = noisy(skipped, Step(AllDelete("7")))
    ran = run_again(find_target(driver), history, care=Care.USUAL, telling=breaks(None))
    assert ran.evidence[0].law is Law.NOBODY_SKIPPED
    done = shrink(find_target(driver), ran.history, ran.evidence)
    assert isinstance(done.history.steps[-1].operation, AllDelete)
    assert sum(len(step.faults) for step in done.history.steps) == 0


def test_an_innocent_device_does_not_become_the_one_that_failed() -> None:
    step = Step(AllCreate("s"), (CallFault("d0", "create"),))
    done = shrunk(f"{BUGS}.group:innocent_touched", noisy(step))
    assert done.evidence[0].device == "d1"
    assert [spec.name for spec in done.history.setup.devices] == ["d0", "d1"]


# --- quality --------------------------------------------------------------------------------------
OPERATIONS_MAX = 6
FAULTS_MAX = 2


SAMPLE = (  # of the catalogue, from each of its modules; those of images and of power cuts have no long histories
    "wrong-culprit", "culprit-not-written", "error-swallowed", "count-not-restored", "missing-deleted", "id-or-name",
    "undrained-delete", "drain-under-lock", "refusal-is-success", "nested-lock", "count-failure-ignored",
    "seek-ignored",
)  # fmt: skip
NO_LIMIT = 3600.0  # seconds: the shortest is found when nothing smaller is left to try, however slow the machine is


class _UntilFound(Control):
    """Asks for the end once there is a violation."""

    def __init__(self) -> None:
        super().__init__(self._hear)
        self._found = False

    def _hear(self, tick: Tick) -> None:
        self._found = self._found or tick.violations > 0

    def stop_asked(self) -> bool:
        return self._found


def failures_of_a_walk(bug: SeededBug, *, histories: int = 5, control: Control | None = None) -> list[Failure]:
    """Return the errors that long walks show of a bug, one of each kind."""
    unit = Unit(
        driver=bug.driver, phase=walk.NAME, semantics=bug.semantics, devices=3, seed=1, shard=0, histories=histories,
        seconds=None,
    )  # fmt: skip
    answer = walk.run(unit, control or Control(lambda _tick: None))
    errors = [failure for failure in answer.failures if failure.evidence[0].severity is Severity.ERROR]
    return [*{failure.kind: failure for failure in errors}.values()]


def test_nine_in_ten_failures_of_long_walks_end_at_six_operations_and_two_faults_at_most() -> None:
    sizes: list[tuple[str, int, int]] = []
    before: list[int] = []
    for bug in CANARY:
        for failure in failures_of_a_walk(bug)[:4]:
            done = shrink(find_target(bug.driver), failure.history, failure.evidence, seconds=10)
            steps = done.history.steps
            sizes.append((bug.name, len(steps), sum(len(step.faults) for step in steps)))
            before.append(len(failure.history.steps))
    assert len({name for name, _, _ in sizes}) > len(CANARY) / 2  # some bugs are rare in a walk
    assert max(before) > 60
    small = [operations <= OPERATIONS_MAX and faults <= FAULTS_MAX for _, operations, faults in sizes]
    assert sum(small) >= 0.9 * len(small), sizes


def test_nine_in_ten_of_a_sample_of_seeded_bugs_end_at_six_operations_and_two_faults_at_most() -> None:
    # Given what a few long walks show of a dozen seeded bugs
    bugs = {bug.name: bug for bug in CATALOGUE if bug.name in SAMPLE}
    hunted = {name: failures_of_a_walk(bug, histories=6, control=_UntilFound()) for name, bug in bugs.items()}
    found = {name: failures[0] for name, failures in hunted.items() if failures}
    assert len(found) > 0.7 * len(SAMPLE)
    assert sum(len(failure.history.steps) > 2 * OPERATIONS_MAX for failure in found.values()) > len(found) / 2
    # When they are shrunk
    sizes: dict[str, tuple[int, int]] = {}
    for name, failure in found.items():
        done = shrink(find_target(bugs[name].driver), failure.history, failure.evidence, seconds=NO_LIMIT)
        sizes[name] = len(done.history.steps), sum(len(step.faults) for step in done.history.steps)
    # Then nine in ten can be taken in at a glance
    small = [operations <= OPERATIONS_MAX and faults <= FAULTS_MAX for operations, faults in sizes.values()]
    assert sum(small) >= 0.9 * len(small), sizes
