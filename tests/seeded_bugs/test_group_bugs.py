"""Stories of bugs in the group functions: what each does to three devices, told without laws, model or phases."""

from typing import Any

import pytest
from snapcheck.model.errno import Errno
from snapcheck.model.faults import CallFault
from snapcheck.model.history import UNWRITTEN, Call, Lock
from snapcheck.model.operations import (
    AllCreate,
    AllDelete,
    AllFind,
    AllGoto,
    Create,
    SetReadOnly,
    Write,
)
from snapcheck.model.setup import Kind
from snapcheck.model.snapshot import SnapshotInfo

DEVICES = ("d0", "d1", "d2")


def failing_delete(device: str) -> CallFault:
    return CallFault(device, "delete", errno=Errno.ENOSPC)


def blamed_when(device: str) -> Any:
    """A story: a group delete fails on `device`; who is blamed?"""

    def story(group: Any) -> object:
        group.all(AllCreate("a"))
        return group.do(AllDelete("a"), failing_delete(device)).first_bad

    return story


# --- who is named ---------------------------------------------------------------------------------
@pytest.mark.bug("wrong-culprit")
def test_the_first_device_is_blamed_for_the_second(tried: Any) -> None:
    assert tried(blamed_when("d1")) == ("d1", "d0")


@pytest.mark.bug("late-culprit")
def test_the_device_behind_is_blamed(tried: Any) -> None:
    assert tried(blamed_when("d1")) == ("d1", "d2")


@pytest.mark.bug("early-culprit")
def test_the_device_before_is_blamed(tried: Any) -> None:
    assert tried(blamed_when("d2")) == ("d2", "d1")


@pytest.mark.bug("child-named")
def test_the_child_is_blamed_for_its_root_node(tried: Any) -> None:
    assert tried(blamed_when("d1"), Kind.DRIVER, Kind.RAW_OVER) == ("d1", "d1/file")


@pytest.mark.bug("wrong-text")
def test_the_text_blames_the_first_device(tried: Any) -> None:
    def story(group: Any) -> str:
        group.all(AllCreate("a"))
        return group.do(AllDelete("a"), failing_delete("d2")).message.partition(":")[0]

    assert tried(story) == ("Could not delete snapshot 'a' on 'd2'", "Could not delete snapshot 'a' on 'd0'")


@pytest.mark.bug("stale-first-bad")
def test_a_device_is_blamed_for_success(tried: Any) -> None:
    assert tried.answer("first_bad", AllCreate("a")) == (None, "d2")


@pytest.mark.bug("culprit-not-written")
def test_nobody_is_told_who_failed(tried: Any) -> None:
    assert tried(blamed_when("d1")) == ("d1", UNWRITTEN)


@pytest.mark.bug("culprit-not-cleared")
def test_the_callers_pointer_is_left_as_it_was_on_success(tried: Any) -> None:
    assert tried.answer("first_bad", AllCreate("a")) == (None, UNWRITTEN)


# --- who is touched -------------------------------------------------------------------------------
def names_after(group: Any) -> list[object]:
    return [group.names(device) for device in DEVICES]


@pytest.mark.bug("innocent-touched")
def test_the_device_behind_the_culprit_loses_its_snapshot(tried: Any) -> None:
    def story(group: Any) -> object:
        group.all(AllCreate("a"))
        group.do(AllDelete("a"), failing_delete("d1"))
        return names_after(group)

    assert tried(story) == ([[], ["a"], ["a"]], [[], ["a"], []])


@pytest.mark.bug("device-skipped")
def test_the_last_device_gets_no_snapshot(tried: Any) -> None:
    def story(group: Any) -> object:
        group.all(AllCreate("a"))
        return names_after(group)

    assert tried(story) == ([["a"], ["a"], ["a"]], [["a"], ["a"], []])


@pytest.mark.bug("neighbour-skipped")
def test_the_device_behind_a_read_only_one_gets_no_snapshot(tried: Any) -> None:
    def story(group: Any) -> object:
        group.all(SetReadOnly("d0", read_only=True), AllCreate("a"))
        return names_after(group)

    assert tried(story) == ([[], ["a"], ["a"]], [[], [], ["a"]])


@pytest.mark.bug("excluded-touched")
def test_a_read_only_device_is_asked_to_go_back(tried: Any) -> None:
    def story(group: Any) -> object:
        group.all(AllCreate("a"), SetReadOnly("d1", read_only=True))
        return group.do(AllGoto("a")).errno, "goto d1" in group.calls()

    assert tried(story) == ((Errno.OK, False), (Errno.EPERM, True))


@pytest.mark.bug("list-ignored")
def test_a_device_that_is_not_on_the_list_gets_a_snapshot(tried: Any) -> None:
    def story(group: Any) -> object:
        group.all(AllCreate("a", devices=("d1",)))
        return names_after(group)

    assert tried(story) == ([[], ["a"], []], [["a"], ["a"], ["a"]])


# --- locks ----------------------------------------------------------------------------------------
@pytest.mark.bug("lock-kept")
def test_the_lock_of_the_culprit_is_never_given_back(tried: Any) -> None:
    def story(group: Any) -> object:
        group.all(AllCreate("a"))
        group.do(AllDelete("a"), failing_delete("d1"))
        kept = group.unbalanced()
        group.do(Write("d1", 0, 1, 5))
        return kept, "blocked d1" in group.story(Lock)

    assert tried(story) == (({}, False), ({"d1": 1}, True))


@pytest.mark.bug("lock-not-taken")
def test_devices_are_called_while_anybody_may_hold_their_lock(tried: Any) -> None:
    def story(group: Any) -> object:
        group.all(AllCreate("a"))
        return group.story(Lock, Call)[0]

    assert tried(story) == ("acquire d0", "enter create d0")


# --- what is reported -----------------------------------------------------------------------------
@pytest.mark.bug("partial-success")
def test_a_snapshot_of_one_device_counts_as_one_of_all(tried: Any) -> None:
    def story(group: Any) -> object:
        errno = group.do(AllCreate("a"), CallFault("d1", "create")).errno
        return errno, names_after(group)

    assert tried(story) == ((Errno.EIO, [["a"], [], []]), (Errno.OK, [["a"], [], []]))


@pytest.mark.bug("error-swallowed")
def test_a_delete_that_failed_is_reported_as_done(tried: Any) -> None:
    def story(group: Any) -> object:
        group.all(AllCreate("a"))
        errno = group.do(AllDelete("a"), failing_delete("d0")).errno
        return errno, names_after(group)

    assert tried(story) == ((Errno.ENOSPC, [["a"]] * 3), (Errno.OK, [["a"]] * 3))


@pytest.mark.bug("errno-changed")
def test_no_space_left_is_reported_as_an_io_error(tried: Any) -> None:
    def story(group: Any) -> object:
        return group.do(AllCreate("a"), CallFault("d0", "create", errno=Errno.ENOSPC)).errno

    assert tried(story) == (Errno.ENOSPC, Errno.EIO)


@pytest.mark.bug("missing-reverted")
def test_going_back_to_what_is_not_there_is_success(tried: Any) -> None:
    def story(group: Any) -> object:
        group.all(Create("d0", "a"), Create("d2", "a"))
        return group.do(AllGoto("a")).errno

    assert tried(story) == (Errno.ENOENT, Errno.OK)


@pytest.mark.bug("found-anywhere")
def test_a_snapshot_of_one_device_is_found_on_all(tried: Any) -> None:
    def story(group: Any) -> object:
        group.all(Create("d2", "a"))
        return group.do(AllFind("a")).errno

    assert tried(story) == (Errno.ENOENT, Errno.OK)


# --- the struct that the devices share ------------------------------------------------------------
@pytest.mark.bug("sn-clobbered")
def test_the_caller_finds_its_struct_empty(tried: Any) -> None:
    assert tried.answer("sn", AllCreate("a")) == (SnapshotInfo("1", "a"), SnapshotInfo())


@pytest.mark.bug("one-id-for-all")
def test_the_second_device_loses_another_snapshot(tried: Any) -> None:
    def story(group: Any) -> object:
        group.all(Create("d1", "other"), AllCreate("a"), AllDelete("a"))
        return group.names("d1")

    assert tried(story, Kind.DRIVER, Kind.DRIVER) == (["other"], ["a"])


def state_sizes(group: Any) -> list[int]:
    group.all(AllCreate("a", "d1", 100))
    return [group.look(device).memory.snapshots[0].vm_state_size for device in DEVICES]


@pytest.mark.bug("vmstate-on-wrong")
def test_the_state_is_said_to_be_on_the_last_device(tried: Any) -> None:
    assert tried(state_sizes) == ([0, 100, 0], [0, 0, 100])


@pytest.mark.bug("vmstate-on-several")
def test_the_state_is_said_to_be_on_all_devices_behind_too(tried: Any) -> None:
    assert tried(state_sizes) == ([0, 100, 0], [0, 100, 100])
