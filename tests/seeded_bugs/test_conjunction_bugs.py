"""Stories of bugs that need several things at once, told without laws, model or phases."""

from dataclasses import replace
from typing import Any

import pytest
from snapcheck.model.content import vmstate_pattern
from snapcheck.model.errno import Errno
from snapcheck.model.faults import CallFault, Fails, IoFault, LandsButFails
from snapcheck.model.history import Level
from snapcheck.model.operations import (
    AllCreate,
    AllGoto,
    Create,
    Delete,
    Discard,
    Goto,
    LoadVm,
    Resize,
    SaveVm,
    SnapshotAction,
    Transaction,
    VmstateRead,
    VmstateWrite,
    Write,
)
from snapcheck.model.setup import DeviceSpec, Kind

ONE = Kind.DRIVER
SMALL_CLUSTERS = DeviceSpec("d0", sectors=64, cluster_bytes=512, tag=9)  # one L2 table is full
LONG = "n" * 255


def corruptions(one: Any) -> int:
    return int(one.look(level=Level.FULL).check.corruptions)


# --- several snapshots ----------------------------------------------------------------------------
@pytest.mark.bug("last-moved-up")
def test_the_first_of_three_is_deleted_and_the_others_change_places(tried: Any) -> None:
    def story(one: Any) -> object:
        one.all(Create("d0", "a"), Create("d0", "b"), Create("d0", "c"), Delete("d0", None, "a"))
        return one.names()

    assert tried(story, ONE) == (["b", "c"], ["c", "b"])


@pytest.mark.bug("equal-skipped")
def test_a_disk_that_only_grew_stays_as_large_as_it_is(tried: Any) -> None:
    def story(one: Any) -> object:
        one.all(Create("d0", "a"), Resize("d0", 24), Goto("d0", "a"))
        return one.look().memory.sectors

    assert tried(story, ONE) == (16, 24)


@pytest.mark.bug("read-too-short")
def test_a_state_is_gone_once_an_older_snapshot_was_loaded(tried: Any) -> None:
    def story(vm: Any) -> object:
        vm.all(AllCreate("a"), SaveVm("b", 5, 765), AllGoto("a"))
        return vm.do(LoadVm("b")).data == vmstate_pattern(tag=5, offset=0, length=765)

    assert tried(story) == (True, False)


@pytest.mark.bug("tail-kept")
def test_a_state_that_the_snapshot_never_had_is_still_there(tried: Any) -> None:
    def story(one: Any) -> object:
        one.all(Create("d0", "a"), VmstateWrite("d0", 0, 765, 5), Goto("d0", "a"))
        return one.do(VmstateRead("d0", 0, 765)).data == bytes(765), corruptions(one)

    assert tried(story, ONE) == ((True, 0), (False, 0))


@pytest.mark.bug("state-misplaced")
def test_a_state_is_not_found_once_the_disk_had_another_size(tried: Any) -> None:
    def story(vm: Any) -> object:
        vm.all(SaveVm("a", 5, 765), Resize("d0", 128))
        return vm.do(LoadVm("a")).data == vmstate_pattern(tag=5, offset=0, length=765)

    assert tried(story, SMALL_CLUSTERS) == (True, False)


# --- what a failure leaves ------------------------------------------------------------------------
@pytest.mark.bug("place-kept")
def test_a_second_try_goes_where_the_guest_wrote_after_the_first(tried: Any) -> None:
    def story(one: Any) -> object:
        one.all(Create("d0", "a"))
        one.do(Create("d0", "b"), IoFault("d0", "write", Fails(), "snapshot-table"))
        one.all(Write("d0", 0, 8, 5), Create("d0", "b"))
        return one.content()[:8] == bytes([5]) * 8, corruptions(one) > 0

    assert tried(story, ONE) == ((True, False), (False, True))


@pytest.mark.bug("lives-on")
def test_memory_has_no_snapshot_and_the_disk_has_one(tried: Any) -> None:
    def story(one: Any) -> object:
        one.do(
            Create("d0", "a"), IoFault("d0", "write", LandsButFails(), "header"),
            IoFault("d0", "write", Fails(), "header", at=2),
        )  # fmt: skip
        return one.names()

    seen = tried(story, ONE)
    assert seen.right is None  # whoever asks is told that nobody knows
    assert seen.wrong == []


@pytest.mark.bug("taken-back-twice")
def test_clusters_in_use_are_counted_as_free(tried: Any) -> None:
    def story(one: Any) -> object:
        one.do(
            Create("d0", "a"), IoFault("d0", "write", Fails(), "refcount-block"),
            IoFault("d0", "read", Fails(), "refcount-block"),
        )  # fmt: skip
        return corruptions(one) > 0

    assert tried(story, ONE) == (False, True)


@pytest.mark.bug("ends-looked-at")
def test_a_table_is_written_over_what_lies_between_two_free_clusters(tried: Any) -> None:
    def story(one: Any) -> object:
        one.all(Create("d0", LONG), Write("d0", 0, 4, 5), Discard("d0", 0, 1), Discard("d0", 2, 1), Create("d0", LONG))
        return one.content()[1], corruptions(one) > 0

    seen = tried(story, replace(SMALL_CLUSTERS, sectors=8))
    assert seen.right == (5, False)
    assert seen.wrong != (5, False)


# --- several devices ------------------------------------------------------------------------------
@pytest.mark.bug("error-set-twice")
def test_a_rollback_that_fails_ends_the_process(tried: Any) -> None:
    def story(vm: Any) -> object:
        return vm.do(SaveVm("a"), CallFault("d1", "create"), CallFault("d0", "delete")).crash

    assert tried(story) == (None, "an error is set that was set before")


@pytest.mark.bug("aborted-by-name")
def test_a_transaction_that_fails_takes_an_older_snapshot_with_it(tried: Any) -> None:
    def story(vm: Any) -> object:
        vm.all(Create("d0", LONG))
        both = Transaction((SnapshotAction("d0", LONG + "n"), SnapshotAction("d1", "a")))
        errno = vm.do(both, CallFault("d1", "create")).errno
        return errno, [info.id_str for info in vm.look("d0").memory.snapshots]

    assert tried(story) == ((Errno.EIO, ["1"]), (Errno.EIO, ["2"]))
