"""Stories of the snapshot calls on one node: the order of the checks, the fallback to the child, events and drains."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from snapcheck.impl.blockfile import BlockError, BlockFile
from snapcheck.impl.driver import Capabilities, CreateOptions, Driver
from snapcheck.impl.generic import AioContext, Node
from snapcheck.impl.qcow2.driver import Qcow2Driver
from snapcheck.impl.qcow2.driver import open_driver as open_qcow2
from snapcheck.impl.qcow2.image import Image
from snapcheck.model.content import vmstate_pattern
from snapcheck.model.errno import Errno
from snapcheck.model.faults import CallFault, Fails, IoFault
from snapcheck.model.history import UNWRITTEN_INFO, Call, Drain, EventList, Lock, Request
from snapcheck.model.operations import (
    AddBitmap,
    CanSnapshot,
    Create,
    Delete,
    Find,
    FindByIdAndName,
    Goto,
    List,
    LoadTmp,
    LoadTmpByIdOrName,
    Operation,
    Reopen,
    SetMedium,
    SetReadOnly,
    SubmitWrite,
    VmstateRead,
    VmstateWrite,
    Write,
)
from snapcheck.model.setup import Kind
from snapcheck.model.snapshot import SnapshotInfo

MakeBench = Callable[..., Any]
OVER = [Kind.RAW_OVER, Kind.FILTER_OVER]


# --- can_snapshot (A.3) ---------------------------------------------------------------------------
def test_a_writable_driver_with_snapshots_can(bench: MakeBench) -> None:
    assert bench(Kind.DRIVER).do(CanSnapshot("d0")).answer is True


@pytest.mark.parametrize("kind", OVER)
def test_a_node_without_snapshots_can_if_its_child_can(bench: MakeBench, kind: Kind) -> None:
    one = bench(kind)
    assert one.do(CanSnapshot("d0")).answer is True
    assert one.calls() == ["can d0", "can d0/file"]


@pytest.mark.parametrize("kind", [Kind.PLAIN, Kind.EMPTY])
def test_what_has_neither_snapshots_nor_a_child_can_not(bench: MakeBench, kind: Kind) -> None:
    assert bench(kind).do(CanSnapshot("d0")).answer is False


def test_a_read_only_or_absent_medium_can_not(bench: MakeBench) -> None:
    one = bench(Kind.RAW_OVER)
    one.all(SetReadOnly("d0", read_only=True))
    assert one.do(CanSnapshot("d0")).answer is False
    assert one.do(CanSnapshot("d0/file")).answer is False
    one.all(SetReadOnly("d0", read_only=False), SetMedium("d0", present=False))
    assert one.do(CanSnapshot("d0")).answer is False


# --- create (A.4) ---------------------------------------------------------------------------------
def test_create_leaves_the_id_in_the_callers_struct(bench: MakeBench) -> None:
    one = bench(Kind.DRIVER)
    one.all(Create("d0", "a"))
    result = one.do(Create("d0", "b", date_sec=7, vm_clock_nsec=8))
    assert result.sn == SnapshotInfo("2", "b", date_sec=7, vm_clock_nsec=8)


def test_the_id_is_there_even_if_create_fails_later(bench: MakeBench) -> None:
    one = bench(Kind.DRIVER)
    result = one.do(Create("d0", "a"), IoFault("d0", "write", Fails(Errno.ENOSPC), times=0))
    assert (result.errno, result.sn.id_str, one.names()) == (Errno.ENOSPC, "1", [])


def test_a_name_is_cut_to_its_field(bench: MakeBench) -> None:
    one = bench(Kind.DRIVER)
    assert one.do(Create("d0", "n" * 300)).sn.name == "n" * 255


@pytest.mark.parametrize("kind", OVER)
def test_create_falls_back_to_the_child_and_shows_each_level(bench: MakeBench, kind: Kind) -> None:
    one = bench(kind)
    one.all(Create("d0", "a"))
    assert one.story(Call) == [
        "enter create d0", "enter create d0/file", "enter create d0/file driver",
        "return create d0/file driver", "return create d0/file", "return create d0",
    ]  # fmt: skip


@pytest.mark.parametrize(("kind", "errno"), [(Kind.PLAIN, Errno.ENOTSUP), (Kind.EMPTY, Errno.ENOMEDIUM)])
def test_without_snapshots_or_medium_every_call_says_so(bench: MakeBench, kind: Kind, errno: Errno) -> None:
    one = bench(kind)
    calls: list[Operation] = [Create("d0", "a"), Goto("d0", "a"), Delete("d0", "1", None), List("d0")]
    assert [one.do(call).errno for call in calls] == [errno] * 4


def test_an_error_of_the_driver_comes_back_at_every_level(bench: MakeBench) -> None:
    one = bench(Kind.RAW_OVER)
    assert one.do(Create("d0", "a"), CallFault("d0", "create", errno=Errno.EFBIG)).errno is Errno.EFBIG
    returned = [event.errno for event in one.events if isinstance(event, Call) and event.edge == "return"]
    assert returned == [Errno.EFBIG] * 3


# --- goto (A.5) -----------------------------------------------------------------------------------
def test_goto_brings_the_content_back(bench: MakeBench) -> None:
    one = bench(Kind.DRIVER)
    one.all(Create("d0", "a"), Write("d0", 0, 16, 5), Goto("d0", "1"))
    assert one.content() == b"\x09" * 16


@pytest.mark.parametrize("kind", OVER)
def test_goto_on_a_fallback_node_closes_it_and_opens_it_again(bench: MakeBench, kind: Kind) -> None:
    one = bench(kind)
    one.all(Create("d0", "a"), Write("d0", 0, 16, 5), Goto("d0", "a"))
    assert one.calls() == ["goto d0", "goto d0/file", "goto d0/file driver"]
    assert one.content() == b"\x09" * 16


@pytest.mark.parametrize("kind", OVER)
def test_a_fallback_node_survives_a_goto_that_fails(bench: MakeBench, kind: Kind) -> None:
    one = bench(kind)
    result = one.do(Goto("d0", "nothing"))
    assert result.errno is Errno.ENOENT
    assert result.message
    assert one.content() == b"\x09" * 16


def test_bitmaps_forbid_goto_before_anything_is_looked_for(bench: MakeBench) -> None:
    one = bench(Kind.DRIVER)
    one.all(AddBitmap("d0", "bm"))
    result = one.do(Goto("d0", "nothing"))
    assert (result.errno, result.message) == (Errno.EBUSY, "Device has active dirty bitmaps")
    assert one.calls() == ["goto d0"]


def test_a_bitmap_of_the_child_counts_at_the_childs_level(bench: MakeBench) -> None:
    one = bench(Kind.RAW_OVER)
    one.all(Create("d0", "a"), AddBitmap("d0/file", "bm"))
    assert one.do(Goto("d0", "a")).errno is Errno.EBUSY
    assert one.calls() == ["goto d0", "goto d0/file"]


def test_a_bitmap_of_the_root_does_not_bother_the_child(bench: MakeBench) -> None:
    one = bench(Kind.RAW_OVER)
    one.all(Create("d0", "a"), AddBitmap("d0", "bm"), Goto("d0/file", "a"))
    assert one.do(Goto("d0", "a")).errno is Errno.EBUSY


class Gone(Qcow2Driver):
    """A driver that answers nothing any more once a goto failed."""

    __slots__ = ("_dead",)

    def __init__(self, image: Image) -> None:
        super().__init__(image)
        self._dead = False

    def snapshot_goto(self, snapshot_id: str) -> None:
        self._dead = True
        super().snapshot_goto(snapshot_id)
        self._dead = False

    def size(self) -> int:
        return super().size() if not self._dead else self._refuse()

    def _refuse(self) -> int:
        raise BlockError(Errno.EIO, "gone")


def open_gone(disk: BlockFile, *, read_only: bool, create: CreateOptions | None) -> Driver:
    if create is not None:
        return Gone(Image.create(disk, size_bytes=create.size_bytes, cluster_bytes=create.cluster_bytes))
    return Gone(Image.open(disk, read_only=read_only))


def test_a_fallback_node_that_can_not_be_reopened_is_dead_until_its_medium_is_put_in_again(bench: MakeBench) -> None:
    one = bench(Kind.RAW_OVER, open_driver=open_gone)
    assert one.do(Goto("d0", "nothing")).errno is Errno.ENOENT, "the first error wins"
    assert one.do(Write("d0", 0, 1, 5)).errno is Errno.ENOMEDIUM
    assert one.do(List("d0/file")).errno is Errno.ENOMEDIUM
    assert one.look().memory.errors == ("list: ENOMEDIUM", "size: ENOMEDIUM", "content: ENOMEDIUM")
    one.all(SetMedium("d0", present=True))
    assert one.content() == b"\x09" * 16


# --- delete (A.6) ---------------------------------------------------------------------------------
def test_delete_needs_an_id_or_a_name(bench: MakeBench) -> None:
    one = bench(Kind.DRIVER)
    result = one.do(Delete("d0", None, None))
    assert (result.errno, result.message) == (Errno.EINVAL, "snapshot_id and name are both NULL")
    assert one.story(Drain) == []


def test_a_missing_medium_is_told_before_missing_arguments(bench: MakeBench) -> None:
    result = bench(Kind.EMPTY).do(Delete("d0", None, None))
    assert (result.errno, result.message) == (Errno.ENOMEDIUM, "Device 'd0' has no medium")


def test_delete_is_drained_and_the_section_ends_after_a_failure_too(bench: MakeBench) -> None:
    one = bench(Kind.DRIVER)
    one.all(Create("d0", "a"))
    assert one.do(Delete("d0", "1", None), CallFault("d0", "delete")).errno is Errno.EIO
    assert one.story(Drain, Call) == [
        "enter delete d0", "drain d0 begin", "enter delete d0 driver", "return delete d0 driver", "drain d0 end",
        "return delete d0",
    ]  # fmt: skip


def test_the_fallback_of_delete_drains_inside_a_drained_section(bench: MakeBench) -> None:
    one = bench(Kind.FILTER_OVER)
    one.all(Create("d0", "a"), Delete("d0", None, "a"))
    assert one.story(Drain) == ["drain d0 begin", "drain d0 begin", "drain d0 end", "drain d0 end"]


@pytest.mark.parametrize("node", ["d0", "d0/file"])
def test_requests_in_flight_land_before_the_driver_deletes(bench: MakeBench, node: str) -> None:
    one = bench(Kind.RAW_OVER)
    one.all(Create("d0", "a"), SubmitWrite("d0", 0, 2, 7), Delete(node, None, "a"))
    story = one.story(Request, Call)
    assert story.index("request d0 complete") < story.index("enter delete d0/file driver")
    assert one.content() == b"\x07\x07" + b"\x09" * 14


def test_delete_without_support_says_which_format(bench: MakeBench) -> None:
    result = bench(Kind.PLAIN).do(Delete("d0", "1", None))
    text = "Block format 'raw' used by device 'd0' does not support internal snapshot deletion"
    assert (result.errno, result.message) == (Errno.ENOTSUP, text)


# --- list and find (A.7, A.1, A.2) ----------------------------------------------------------------
def test_find_goes_by_name_never_by_id_and_takes_the_first(bench: MakeBench) -> None:
    one = bench(Kind.DRIVER)
    one.all(Create("d0", "2"), Create("d0", "a"), Create("d0", "a"))
    assert one.do(Find("d0", "a")).sn.id_str == "2"
    assert one.do(Find("d0", "2")).sn.id_str == "1"


def test_a_miss_leaves_sn_alone(bench: MakeBench) -> None:
    result = bench(Kind.DRIVER).do(Find("d0", "a"))
    assert (result.errno, result.sn) == (Errno.ENOENT, UNWRITTEN_INFO)


@pytest.mark.parametrize("kind", [Kind.PLAIN, Kind.EMPTY])
def test_find_takes_every_error_for_a_miss(bench: MakeBench, kind: Kind) -> None:
    assert bench(kind).do(Find("d0", "a")).errno is Errno.ENOENT


def test_find_lists_and_a_list_that_fails_inside_is_a_find_to_the_faults(bench: MakeBench) -> None:
    one = bench(Kind.DRIVER)
    one.all(Create("d0", "a"))
    assert one.do(Find("d0", "a"), CallFault("d0", "find")).errno is Errno.ENOENT
    assert one.calls() == ["find d0", "list d0", "list d0 driver"]
    assert one.do(List("d0"), CallFault("d0", "find")).errno is Errno.OK


@pytest.mark.parametrize(
    ("snapshot_id", "name", "found"),
    [("1", "a", "1"), (None, "a", "1"), ("2", None, "2"), ("2", "a", "2"), ("1", "b", None), ("9", None, None)],
)
def test_find_by_id_and_name_matches_all_that_is_given(
    bench: MakeBench, snapshot_id: str | None, name: str | None, found: str | None
) -> None:
    one = bench(Kind.DRIVER)
    one.all(Create("d0", "a"), Create("d0", "a"))
    result = one.do(FindByIdAndName("d0", snapshot_id, name))
    assert (result.answer, result.message) == (found is not None, None)
    assert result.sn == (UNWRITTEN_INFO if found is None else SnapshotInfo(found, "a"))


def test_find_by_id_and_name_tells_an_error_from_a_miss(bench: MakeBench) -> None:
    result = bench(Kind.DRIVER).do(FindByIdAndName("d0", "1", None), CallFault("d0", "list", errno=Errno.ENOMEM))
    assert result.answer is False
    assert result.message.startswith("Failed to get a snapshot list: ")


# --- load_tmp (A.8, A.9) --------------------------------------------------------------------------
def test_load_tmp_checks_medium_then_arguments_then_mode(bench: MakeBench) -> None:
    assert bench(Kind.EMPTY).do(LoadTmp("d0", None, None)).errno is Errno.ENOMEDIUM
    one = bench(Kind.DRIVER)
    assert one.do(LoadTmp("d0", None, None)).message == "snapshot_id and name are both NULL"
    assert one.do(LoadTmp("d0", "1", None)).message == "Device is not readonly"
    assert one.calls() == ["load_tmp d0"]


def test_load_tmp_shows_the_snapshot_until_the_device_is_closed(bench: MakeBench) -> None:
    one = bench(Kind.DRIVER)
    one.all(Create("d0", "a"), Write("d0", 0, 16, 5), SetReadOnly("d0", read_only=True), LoadTmp("d0", None, "a"))
    assert one.content() == b"\x09" * 16
    one.all(Reopen("d0"))
    assert one.content() == b"\x05" * 16


@pytest.mark.parametrize("kind", OVER)
def test_load_tmp_never_falls_back(bench: MakeBench, kind: Kind) -> None:
    one = bench(kind)
    one.all(Create("d0", "a"), SetReadOnly("d0", read_only=True))
    result = one.do(LoadTmp("d0", None, "a"))
    assert result.errno is Errno.ENOTSUP
    assert "does not support temporarily loading internal snapshots" in result.message
    assert one.do(LoadTmp("d0/file", None, "a")).errno is Errno.OK


def test_an_id_goes_before_a_name_and_a_name_is_tried_when_the_id_is_not_there(bench: MakeBench) -> None:
    one = bench(Kind.DRIVER)
    one.all(Create("d0", "2"), Write("d0", 0, 16, 5), Create("d0", "1"), SetReadOnly("d0", read_only=True))
    one.all(LoadTmpByIdOrName("d0", "2"))
    assert one.content() == b"\x05" * 16
    assert one.do(LoadTmpByIdOrName("d0", "9")).errno is Errno.ENOENT
    assert one.calls() == ["load_tmp d0", "load_tmp d0 driver", "load_tmp d0", "load_tmp d0 driver"]


def test_an_error_other_than_a_miss_is_not_tried_again_as_a_name(bench: MakeBench) -> None:
    one = bench(Kind.DRIVER)
    one.all(Create("d0", "a"), SetReadOnly("d0", read_only=True))
    fault = CallFault("d0", "load_tmp", errno=Errno.ENOMEM)
    assert one.do(LoadTmpByIdOrName("d0", "a"), fault).errno is Errno.ENOMEM
    assert one.calls() == ["load_tmp d0", "load_tmp d0 driver"]


def test_a_writable_node_is_refused_twice(bench: MakeBench) -> None:
    one = bench(Kind.DRIVER)
    assert one.do(LoadTmpByIdOrName("d0", "a")).errno is Errno.EINVAL
    assert one.calls() == ["load_tmp d0", "load_tmp d0"]


# --- VM state (B.9) -------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", [Kind.DRIVER, *OVER])
def test_vm_state_is_kept_by_whoever_keeps_any(bench: MakeBench, kind: Kind) -> None:
    one = bench(kind)
    one.all(VmstateWrite("d0", 3, 5, 7))
    state = vmstate_pattern(tag=7, offset=3, length=5)
    assert one.do(VmstateRead("d0", 0, 10)).data == bytes(3) + state + bytes(2)


def test_vm_state_has_no_place_on_a_plain_disk_and_none_without_a_medium(bench: MakeBench) -> None:
    assert bench(Kind.PLAIN).do(VmstateWrite("d0", 0, 5, 7)).errno is Errno.ENOTSUP
    assert bench(Kind.EMPTY).do(VmstateRead("d0", 0, 5)).errno is Errno.ENOMEDIUM


# --- a driver that can less -----------------------------------------------------------------------
class Less(Qcow2Driver):
    """Our engine, but it takes snapshots and can not go back to them."""

    def __init__(self, image: Image) -> None:
        super().__init__(image)
        self.capabilities: Capabilities = replace(self.capabilities, goto=False, load_tmp=False)


def test_a_driver_that_takes_snapshots_and_never_goes_back_still_can(bench: MakeBench) -> None:
    def open_less(disk: BlockFile, *, read_only: bool, create: CreateOptions | None) -> Driver:
        open_qcow2(disk, read_only=read_only, create=create).close()
        return Less(Image.open(disk, read_only=read_only))

    one = bench(Kind.DRIVER, open_driver=open_less)
    assert one.do(CanSnapshot("d0")).answer is True
    result = one.do(Goto("d0", "a"))
    assert (result.errno, result.message) == (Errno.ENOTSUP, "Block driver does not support snapshots")


# --- AioContext -----------------------------------------------------------------------------------
def test_the_owner_may_take_the_lock_again_and_others_are_blocked_without_waiting() -> None:
    events = EventList()
    lock = AioContext("d0", events)
    lock.acquire("main")
    lock.acquire("main")
    lock.acquire("iothread")
    lock.release("iothread")
    lock.release("main")
    lock.release("main")
    lock.acquire("iothread")
    assert events.take() == [
        Lock("d0", "acquire", "main"), Lock("d0", "acquire", "main"), Lock("d0", "blocked", "iothread"),
        Lock("d0", "release", "main"), Lock("d0", "release", "main"), Lock("d0", "acquire", "iothread"),
    ]  # fmt: skip


def test_a_lock_that_leaked_blocks_the_guest_of_that_device() -> None:
    events = EventList()
    lock = AioContext("d0", events)
    lock.acquire("main")
    assert lock.held("iothread", lambda: 5) == 5
    assert events.take() == [Lock("d0", "acquire", "main"), Lock("d0", "blocked", "iothread")]


def test_a_node_is_closed_with_its_bitmaps() -> None:
    node = Node("d0", format_name="raw", lock=AioContext("d0", EventList()), drains=Nobody(), recorder=EventList())
    node.bitmaps.add("bm")
    assert node.close() is None
    assert node.bitmaps == set()


class Nobody:
    """No guest at all."""

    def drained_begin(self) -> None:
        pass

    def drained_end(self) -> None:
        pass
