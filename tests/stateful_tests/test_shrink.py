"""Shrinking keeps the violation and makes everything else small: steps, faults, devices, names, sizes."""

import pytest
from snapcheck.impl.targets import find_target
from snapcheck.model.errno import Errno
from snapcheck.model.facts import Evidence
from snapcheck.model.faults import CallFault, Fails, IoFault
from snapcheck.model.history import History, Purpose, Step
from snapcheck.model.law_names import Law
from snapcheck.model.operations import (
    AllCanSnapshot,
    AllCreate,
    AllDelete,
    AllFind,
    Create,
    Flush,
    Resize,
    SnapshotAction,
    Transaction,
    Write,
)
from snapcheck.model.setup import DeviceSpec, Kind, PreparedSnapshot, Semantics, Setup
from snapcheck.stateful_tests.replay import breaks, run_again
from snapcheck.stateful_tests.session import Care
from snapcheck.stateful_tests.shrink import Shrunk, shrink

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
    done = shrunk(f"{BUGS}.qcow2:narrow_id", History(Setup(devices), history.steps))
    assert [type(step.operation) for step in done.history.steps] == [Create]


def test_what_a_violation_needs_is_kept_a_name_that_is_the_id_of_another() -> None:
    driver = f"{BUGS}.group:id_or_name"
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


def test_actions_of_a_transaction_go_with_their_devices() -> None:
    taken = Transaction((SnapshotAction("d0", "x"), SnapshotAction("d1", "x")))
    fault = IoFault("d1", "write", Fails(), at=1)
    done = shrunk(f"{BUGS}.qcow2:count_not_restored", noisy(Step(taken, (fault,))))
    assert done.history.steps[-1].operation == Transaction((SnapshotAction("d1", "a"),))
    assert [spec.name for spec in done.history.setup.devices] == ["d1"]


@pytest.mark.parametrize("purpose", [Purpose.RETRY, Purpose.PROBE])
def test_a_step_that_need_not_be_a_retry_is_none(purpose: Purpose) -> None:
    step = Step(AllCreate("s"), purpose=purpose)
    done = shrunk(f"{BUGS}.group:stale_first_bad", noisy(step))
    assert {each.purpose for each in done.history.steps} == {Purpose.EXPLORE}
