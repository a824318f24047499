"""One history: faults are taken away after their step, devices are looked at as closely as they deserve."""

import gc
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest
from snapcheck.fault_injection.disk import FaultyFile
from snapcheck.impl.blockfile import BlockError, MemoryFile
from snapcheck.impl.device import Device
from snapcheck.impl.driver import Out
from snapcheck.impl.qcow2.driver import Qcow2Driver
from snapcheck.impl.qcow2.layout import SnapshotEntry
from snapcheck.impl.qcow2.state import State
from snapcheck.impl.targets import find_target
from snapcheck.model.errno import Errno
from snapcheck.model.faults import CallFault, Fails, IoFault
from snapcheck.model.history import Care, Level, Purpose
from snapcheck.model.law_names import Law, Severity
from snapcheck.model.operations import AllCreate, AllDelete, AllFind, Create, Goto, Write
from snapcheck.model.setup import DeviceSpec, Kind, PreparedSnapshot, Setup
from snapcheck.model.snapshot import SnapshotInfo
from snapcheck.stateful_tests.compare import judge_history
from snapcheck.stateful_tests.seeded_bugs.planting import in_engine
from snapcheck.stateful_tests.session import GROUP_OPERATIONS_STRUCK, Session

QCOW2 = find_target("qcow2")
THREE = Setup(tuple(DeviceSpec(f"d{number}", sectors=16) for number in range(3)))


def levels(session: Session) -> dict[str, Level]:
    return {seen.device: seen.level for seen in session.history.steps[-1].observations}


def test_what_goes_well_is_looked_at_lightly_and_only_where_something_happened() -> None:
    with Session(QCOW2, THREE) as session:
        assert session.step(Write("d1", 0, 4, 7)) == []
        assert levels(session) == {"d1": Level.LIGHT}
        assert session.step(AllFind("s")) == []
        assert levels(session) == {"d0": Level.LIST}


def test_a_failure_is_looked_at_closely_then_repeated_without_its_fault_and_gone_on_from() -> None:
    fault = CallFault("d1", "create", errno=Errno.ENOSPC)
    with Session(QCOW2, THREE) as session:
        assert session.step(AllCreate("s"), (fault,)) == []
        failed = session.history.steps[-1]
        assert (failed.result.errno, failed.result.first_bad) == (Errno.ENOSPC, "d1")
        assert levels(session)["d1"] is Level.FULL
        assert session.follow_up() == []
        retry, *probes = session.history.steps[1:]
        assert (retry.purpose, retry.operation, retry.faults) == (Purpose.RETRY, AllCreate("s"), ())
        assert retry.result.errno is Errno.OK
        assert {step.purpose for step in probes} == {Purpose.PROBE}
        assert session.counts[GROUP_OPERATIONS_STRUCK] == 1


def test_with_live_care_a_device_that_was_struck_goes_on_with_what_it_has_in_memory() -> None:
    fault = IoFault("d1", "write", Fails())
    with Session(QCOW2, THREE, care=Care.LIVE) as session:
        assert session.step(AllCreate("s"), (fault,)) == []
        assert session.history.steps[-1].result.errno is Errno.EIO
        assert levels(session)["d1"] is Level.LIGHT
        assert session.follow_up() == []
        for step in session.history.steps:
            assert {seen.level for seen in step.observations} <= {Level.LIGHT}
        assert session.finish() == []
        assert set(levels(session).values()) == {Level.FULL}


class _DiesOfAFault(Qcow2Driver):
    """Answers nothing any more after a create that failed, as the contract lets it, until it is closed."""

    __slots__ = ("_dead",)

    def snapshot_create(self, sn: Out[SnapshotInfo]) -> None:
        try:
            super().snapshot_create(sn)
        except BlockError:
            self._dead = True
            raise

    def snapshot_list(self) -> Sequence[SnapshotInfo]:
        self._require_life()
        return super().snapshot_list()

    def size(self) -> int:
        self._require_life()
        return super().size()

    def _require_life(self) -> None:
        if getattr(self, "_dead", False):
            raise BlockError(Errno.EIO, "the node is dead")


def test_with_live_care_a_device_that_answers_nothing_any_more_is_opened_again_first() -> None:
    with Session(in_engine("a fault kills the node", driver=_DiesOfAFault), THREE, care=Care.LIVE) as session:
        assert session.step(Create("d1", "s"), (IoFault("d1", "write", Fails()),)) == []
        assert levels(session)["d1"] is Level.FULL
        assert session.follow_up() == []


def test_a_fault_that_is_not_met_calls_for_nothing() -> None:
    fault = IoFault("d1", "write", Fails(), at=999)
    with Session(QCOW2, THREE) as session:
        session.step(Create("d1", "s"), (fault,))
        assert session.history.steps[-1].met == ()
        assert session.follow_up() == []
        assert len(session.history.steps) == 1


def test_the_last_step_looks_closely_at_every_device() -> None:
    with Session(QCOW2, THREE) as session:
        session.step(Write("d0", 0, 1, 1))
        assert session.finish() == []
        assert levels(session) == dict.fromkeys(("d0", "d1", "d2"), Level.FULL)


def test_with_light_care_nothing_is_looked_at_closely() -> None:
    with Session(QCOW2, THREE, care=Care.LIGHT) as session:
        session.step(AllDelete("s"), (CallFault("d0", "find"),))
        session.finish()
        assert Level.FULL not in levels(session).values()


def test_a_history_is_judged_from_its_record_as_it_was_when_it_happened() -> None:
    prepared = PreparedSnapshot("1", "s", sectors=16, tag=3)
    setup = Setup((DeviceSpec("d0", sectors=16, snapshots=(prepared,)), DeviceSpec("d1", sectors=16)))
    with Session(QCOW2, setup) as session:
        found = session.step(AllDelete("s"), (CallFault("d0", "find"),))
    again = judge_history(session.history)
    assert [each.severity for each in found] == [Severity.WARNING]
    assert [each.evidence for each in again.found] == found


def test_a_step_that_was_left_half_way_ends_the_history(monkeypatch: pytest.MonkeyPatch) -> None:
    with Session(QCOW2, THREE) as session:
        session.step(Write("d0", 0, 1, 1))

        def interrupted(_operation: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(session, "_perform", interrupted)
        with pytest.raises(KeyboardInterrupt):
            session.step(Write("d0", 0, 1, 2))
        assert session.over
        assert session.finish() == []
        assert len(session.history.steps) == 1


# --- memory ---------------------------------------------------------------------------------------
def alive() -> Counter[type[object]]:
    """Return how many of what a history is made of are in memory, free to be collected or not."""
    return Counter(
        type(each) for each in gc.get_objects() if isinstance(each, Device | FaultyFile | MemoryFile | State)
    )


def test_a_history_that_has_ended_is_free_at_once_and_not_when_somebody_looks_for_cycles() -> None:
    setup = Setup((*THREE.devices, DeviceSpec("d3", Kind.RAW_OVER, sectors=16)))
    undone = IoFault("d0", "any", Fails(Errno.ENOMEDIUM), times=0)  # the image is dead then
    gc.collect()
    gc.disable()
    try:
        before = alive()
        with Session(QCOW2, setup, care=Care.CLOSE) as session:
            session.step(AllCreate("s"))
            session.step(AllDelete("s"), (undone,))
            session.follow_up()
            session.step(Goto("d3", "s"))
            assert alive() != before
        del session
        assert alive() == before
    finally:
        gc.enable()


class _StoresTheSizeOfNow(State):
    """Writes of each snapshot the size that the disk has now."""

    __slots__ = ()

    def packed(self, entries: Sequence[SnapshotEntry]) -> bytes:
        return super().packed([replace(entry, disk_size=self.header.size) for entry in entries])


class _DropsWhatItDoesNotKnow(State):
    """Writes of each entry what it knows itself."""

    __slots__ = ()

    def packed(self, entries: Sequence[SnapshotEntry]) -> bytes:
        return super().packed([replace(entry, extra=b"") for entry in entries])


@pytest.mark.parametrize(
    ("state", "expected", "actual"),
    [
        (_StoresTheSizeOfNow, "taken at 24 sectors", "taken at 16 sectors"),
        (_DropsWhatItDoesNotKnow, "unknown extra data eeeeeeee", "no unknown extra data"),
        (State, "", ""),
    ],
)
def test_an_entry_that_says_something_else_of_an_older_snapshot_has_changed_it(
    state: type[State], expected: str, actual: str
) -> None:
    # Given a snapshot that was taken at another size, with extra data that only a later version knows
    older = PreparedSnapshot("1", "a", sectors=24, tag=11, extra=b"\xee" * 4)
    with Session(in_engine("", state=state), Setup((DeviceSpec("d0", sectors=16, snapshots=(older,)),))) as session:
        # When another one is taken, so that the table is written anew
        found = session.step(Create("d0", "b"), everywhere=True)
    # Then what no call tells is still as it was, or the law says so
    told = [(each.expected, each.actual) for each in found if each.law is Law.SNAPSHOT_IMMUTABLE]
    who = "snapshot 'a' (id 1): "
    assert told == ([(who + expected, who + actual)] if expected else [])
