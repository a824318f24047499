"""A recorded history runs again: it is fixed, still fails, or can not run."""

import pytest
from snapcheck.impl.blockfile import BlockFile
from snapcheck.impl.driver import CreateOptions, Driver
from snapcheck.impl.targets import Target, find_target
from snapcheck.model.faults import CallFault
from snapcheck.model.history import History, Step
from snapcheck.model.law_names import Law
from snapcheck.model.operations import AllCreate, AllDelete, Write
from snapcheck.model.setup import DeviceSpec, PreparedSnapshot, Setup
from snapcheck.stateful_tests.broken import LawBrokenError
from snapcheck.stateful_tests.replay import ReplayState, assert_holds, replay

LOCK_KEPT = "snapcheck.stateful_tests.seeded_bugs.group:lock_kept"
TWO = Setup((DeviceSpec("d0", sectors=16), DeviceSpec("d1", sectors=16)))
SHOWS_IT = History(TWO, [Step(Write("d0", 0, 1, 1)), Step(AllCreate("s"), (CallFault("d1", "create"),))])


def test_a_history_still_fails_on_the_driver_that_it_was_found_on() -> None:
    done = replay(find_target(LOCK_KEPT), SHOWS_IT, law=Law.LOCKS_BALANCED)
    assert done.state is ReplayState.STILL_FAILS
    assert "law locks-balanced is broken at step 1" in done.text
    assert "the driver gave:  acquired 1 times more" in done.text
    assert len(done.history.steps) == 2


def test_it_is_fixed_on_a_driver_without_the_bug() -> None:
    done = replay(find_target("qcow2"), SHOWS_IT, law=Law.LOCKS_BALANCED)
    assert done.state is ReplayState.FIXED
    assert done.text == "law locks-balanced holds, in 2 steps"


def test_another_broken_law_is_not_what_was_asked_for() -> None:
    assert replay(find_target(LOCK_KEPT), SHOWS_IT, law=Law.NO_LEAK).state is ReplayState.FIXED


def test_a_warning_counts_when_its_law_is_asked_for_and_only_then() -> None:
    prepared = PreparedSnapshot("1", "s", sectors=16, tag=3)
    setup = Setup((DeviceSpec("d0", sectors=16, snapshots=(prepared,)),))
    history = History(setup, [Step(AllDelete("s"), (CallFault("d0", "find"),))])
    assert replay(find_target("qcow2"), history, law=Law.NOBODY_SKIPPED).state is ReplayState.STILL_FAILS
    assert replay(find_target("qcow2"), history).state is ReplayState.FIXED


def test_devices_that_the_driver_can_not_build_can_not_run() -> None:
    def plain(disk: BlockFile, *, read_only: bool, create: CreateOptions | None) -> Driver:
        return find_target(LOCK_KEPT).open_driver(disk, read_only=read_only, create=create)  # type: ignore[misc]

    class NoFormat(Target):
        @property
        def format(self) -> None:  # type: ignore[override]
            return None

    prepared = PreparedSnapshot("1", "s", sectors=16, tag=3)
    history = History(Setup((DeviceSpec("d0", sectors=16, snapshots=(prepared,)),)), [Step(AllDelete("s"))])
    done = replay(NoFormat("mine:plain", "no prepared images", plain), history)
    assert done.state is ReplayState.CANNOT_RUN
    assert "can not build these devices" in done.text


def test_assert_holds_fails_with_the_law_and_is_silent_otherwise() -> None:
    with pytest.raises(LawBrokenError, match="law locks-balanced"):
        assert_holds(driver=LOCK_KEPT, history=SHOWS_IT)
    assert_holds(driver="qcow2", history=SHOWS_IT)
