"""Stories of bugs in the calls on one node: what each does to a device, told without laws, model or phases."""

from typing import Any

import pytest
from snapcheck.model.errno import Errno
from snapcheck.model.faults import CallFault
from snapcheck.model.history import Drain, Lock, Request
from snapcheck.model.operations import (
    AddBitmap,
    CanSnapshot,
    Create,
    Delete,
    Find,
    FindByIdAndName,
    Goto,
    LoadTmp,
    SetReadOnly,
    SubmitWrite,
    VmstateRead,
    VmstateWrite,
    Write,
)
from snapcheck.model.setup import DeviceSpec, Kind, PreparedSnapshot

CROSSED = DeviceSpec(  # each is named like the other's id
    "d0",
    sectors=16,
    tag=9,
    snapshots=(
        PreparedSnapshot("1", "2", sectors=16, tag=11),
        PreparedSnapshot("2", "1", sectors=16, tag=12),
    ),
)


def died_of(result: Any) -> str:
    return (result.crash or "").partition(":")[0]


# --- ids and names --------------------------------------------------------------------------------
@pytest.mark.bug("id-or-name")
def test_another_snapshot_is_found_by_its_id(tried: Any) -> None:
    found = tried.answer("sn", Find("d0", "1"), CROSSED)
    assert (found.right.id_str, found.wrong.id_str) == ("2", "1")


@pytest.mark.bug("delete-by-one-string")
def test_another_snapshot_is_deleted_by_its_id(tried: Any) -> None:
    def story(one: Any) -> object:
        one.all(Delete("d0", None, "1"))
        return one.names()

    assert tried(story, CROSSED) == (["2"], ["1"])


@pytest.mark.bug("load-by-one-string")
def test_another_snapshot_is_shown_by_its_id(tried: Any) -> None:
    def story(one: Any) -> object:
        one.all(SetReadOnly("d0", read_only=True), LoadTmp("d0", None, "1"))
        return one.content()[0]

    assert tried(story, CROSSED) == (12, 11)


# --- going back on the fallback -------------------------------------------------------------------
@pytest.mark.bug("child-lost")
def test_no_snapshot_can_be_taken_any_more_once_the_node_went_back(tried: Any) -> None:
    def story(one: Any) -> object:
        one.all(Create("d0", "a"), Goto("d0", "a"))
        return one.do(Create("d0", "b")).errno

    assert tried(story, Kind.RAW_OVER) == (Errno.OK, Errno.ENOTSUP)


@pytest.mark.bug("null-callback")
def test_going_back_below_a_filter_ends_the_process(tried: Any) -> None:
    def story(one: Any) -> object:
        one.all(Create("d0", "a"))
        return died_of(one.do(Goto("d0", "a")))

    assert tried(story, Kind.FILTER_OVER) == ("", "call of NULL")


@pytest.mark.bug("node-left-closed")
def test_a_device_that_went_back_can_not_be_written_any_more(tried: Any) -> None:
    def story(one: Any) -> object:
        one.all(Create("d0", "a"), Goto("d0", "a"))
        return one.do(Write("d0", 0, 1, 5)).errno

    assert tried(story, Kind.RAW_OVER) == (Errno.OK, Errno.ENOMEDIUM)


# --- checks in front of the driver ----------------------------------------------------------------
@pytest.mark.bug("bitmaps-ignored")
def test_a_dirty_bitmap_describes_content_that_is_gone(tried: Any) -> None:
    def story(one: Any) -> object:
        one.all(Create("d0", "a"), Write("d0", 0, 1, 5), AddBitmap("d0", "bm"))
        return one.do(Goto("d0", "a")).errno, one.content()[0]

    assert tried(story, Kind.DRIVER) == ((Errno.EBUSY, 5), (Errno.OK, 9))


@pytest.mark.bug("no-reason")
def test_nobody_is_told_why_the_device_did_not_go_back(tried: Any) -> None:
    said = tried.answer("message", Goto("d0", "nowhere"), Kind.DRIVER)
    assert said.right.startswith("Failed to load snapshot")
    assert said.wrong is None


@pytest.mark.bug("read-only-ignored")
def test_a_read_only_device_is_said_to_take_snapshots(tried: Any) -> None:
    def story(one: Any) -> object:
        one.all(SetReadOnly("d0", read_only=True))
        return one.do(CanSnapshot("d0")).answer

    assert tried(story, Kind.DRIVER) == (False, True)


# --- guest requests -------------------------------------------------------------------------------
def in_flight_at_a_delete(one: Any, *kinds: type) -> list[str]:
    one.all(Create("d0", "a"), SubmitWrite("d0", 0, 8, 7))
    one.all(Delete("d0", None, "a"))
    return list(one.story(*kinds))


@pytest.mark.bug("undrained-delete")
def test_a_guest_write_is_still_in_flight_when_the_snapshot_goes(tried: Any) -> None:
    def story(one: Any) -> object:
        return in_flight_at_a_delete(one, Drain, Request)

    landed = ["request d0 start", "request d0 complete"]
    assert tried(story, Kind.DRIVER) == (["drain d0 begin", *landed, "drain d0 end"], landed)


@pytest.mark.bug("drain-under-lock")
def test_who_waits_for_the_write_holds_the_lock_that_it_needs(tried: Any) -> None:
    def story(one: Any) -> object:
        return "blocked d0" in in_flight_at_a_delete(one, Lock)

    assert tried(story, Kind.DRIVER) == (False, True)


# --- what a C program dies of ---------------------------------------------------------------------
@pytest.mark.bug("stale-error")
def test_a_look_up_behind_a_failed_goto_ends_the_process(tried: Any) -> None:
    def story(one: Any) -> object:
        one.do(Goto("d0", "nowhere"))
        return died_of(one.do(FindByIdAndName("d0", None, "a")))

    assert tried(story, Kind.DRIVER) == ("", "assertion")


@pytest.mark.bug("garbage-freed")
def test_a_list_that_can_not_be_read_ends_the_process(tried: Any) -> None:
    def story(one: Any) -> object:
        return died_of(one.do(Find("d0", "a"), CallFault("d0", "find")))

    assert tried(story, Kind.DRIVER) == ("", "free of a pointer that was never set")


@pytest.mark.bug("seek-ignored")
def test_vm_state_from_the_middle_is_that_from_the_beginning(tried: Any) -> None:
    def story(one: Any) -> object:
        one.all(VmstateWrite("d0", 0, 300, 7))
        whole = one.do(VmstateRead("d0", 0, 300)).data
        part = one.do(VmstateRead("d0", 100, 50)).data
        return part == whole[100:150], part == whole[:50]

    assert tried(story, Kind.DRIVER) == ((True, False), (False, True))
