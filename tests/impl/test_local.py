"""Stories of the system of devices: how it starts, the guest and its requests in flight, the medium, and looking."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from snapcheck.fault_injection.plan import FaultPlan
from snapcheck.impl.blockfile import BlockError, BlockFile, MemoryFile
from snapcheck.impl.checked import StartError
from snapcheck.impl.driver import CreateOptions, Driver, UnsupportedSetupError
from snapcheck.impl.local import LocalSystem
from snapcheck.impl.observe import selectors_by_pair, selectors_by_text
from snapcheck.impl.perform import ClassicOperations, ModernOperations, Performer
from snapcheck.impl.qcow2.driver import Qcow2Driver
from snapcheck.impl.qcow2.driver import open_driver as open_qcow2
from snapcheck.impl.qcow2.image import Image
from snapcheck.impl.qcow2.prepare import prepared_image
from snapcheck.model.content import FOREIGN, vmstate_pattern
from snapcheck.model.errno import Errno
from snapcheck.model.faults import CallFault, Fails, IoFault
from snapcheck.model.history import Check, EventList, Io, Level, Lock, Request, SnapshotContent, View
from snapcheck.model.match import died_of
from snapcheck.model.operations import (
    KINDS,
    OPERATIONS,
    AddBitmap,
    AllCreate,
    Create,
    Delete,
    Discard,
    Flush,
    Goto,
    List,
    LoadTmp,
    Operation,
    RemoveBitmap,
    Reopen,
    Resize,
    SetMedium,
    SetReadOnly,
    SubmitWrite,
    VmstateWrite,
    Write,
    WriteZeroes,
)
from snapcheck.model.setup import DeviceSpec, Kind, PreparedSnapshot, Setup
from snapcheck.model.snapshot import SnapshotInfo

MakeBench = Callable[..., Any]
WRITES: list[Operation] = [
    Write("d0", 0, 1, 5), WriteZeroes("d0", 0, 1), Discard("d0", 0, 1), SubmitWrite("d0", 0, 1, 5),
    VmstateWrite("d0", 0, 5, 5),
]  # fmt: skip


def engine_with(**changes: object) -> Any:  # noqa: ANN401  # an OpenDriver
    """Our engine, declaring other capabilities."""

    def open_driver(disk: BlockFile, *, read_only: bool, create: CreateOptions | None) -> Driver:
        driver = open_qcow2(disk, read_only=read_only, create=create)
        assert isinstance(driver, Qcow2Driver)
        driver.capabilities = replace(driver.capabilities, **changes)  # type: ignore[arg-type]  # flags by name
        return driver

    return open_driver


class ReadsFromTheFront(Qcow2Driver):
    """Returns the front of the disk, whatever is asked for."""

    __slots__ = ()

    def read(self, offset: int, length: int) -> bytes:
        return super().read(0 * offset, length)


def opens_reading_from_the_front(disk: BlockFile, *, read_only: bool, create: CreateOptions | None) -> Driver:
    image = open_qcow2(disk, read_only=read_only, create=create)._image  # pyright: ignore[reportPrivateUsage]
    return ReadsFromTheFront(image)


def test_a_close_look_reads_a_piece_again_so_that_a_driver_can_not_ignore_the_offset() -> None:
    system = LocalSystem(opens_reading_from_the_front, [MemoryFile("d0")], semantics="classic", recorder=EventList())
    system.start(Setup((DeviceSpec("d0", sectors=64, tag=7),)))
    assert system.observe("d0", level=Level.LIGHT).memory.content == b"\x07" * 64
    assert FOREIGN in (system.observe("d0", level=Level.FULL).memory.content or b"")


# --- starting -------------------------------------------------------------------------------------
def test_an_empty_disk_is_formatted_and_stamped(bench: MakeBench) -> None:
    one = bench(DeviceSpec("d0", sectors=16, tag=7), DeviceSpec("d1", Kind.PLAIN, sectors=8, tag=3))
    assert one.content("d0") == b"\x07" * 16
    assert one.content("d1") == b"\x03" * 8
    assert one.story() == [], "nothing but the I/O of the disks is heard of the start"


def test_a_read_only_device_is_formatted_before_it_is_protected(bench: MakeBench) -> None:
    one = bench(DeviceSpec("d0", sectors=16, tag=7, read_only=True))
    assert one.content() == b"\x07" * 16
    assert one.do(Write("d0", 0, 1, 5)).errno is Errno.EPERM


def test_a_disk_that_holds_an_image_is_opened_as_it_is() -> None:
    spec = DeviceSpec("d0", sectors=16, tag=7, snapshots=(PreparedSnapshot("5", "a", sectors=16, tag=2),))
    system = LocalSystem(open_qcow2, [prepared_image(spec)], semantics="classic", recorder=EventList())
    system.start(Setup((spec,)))
    seen = system.observe("d0", level=Level.FULL)
    assert seen.memory.content == b"\x07" * 16
    assert [info.id_str for info in seen.memory.snapshots or ()] == ["5"]
    assert seen.contents == (SnapshotContent(b"\x02" * 16, 16, stored_sectors=16, extra=b""),)


def test_snapshots_can_not_be_put_on_an_empty_disk(bench: MakeBench) -> None:
    spec = DeviceSpec("d0", snapshots=(PreparedSnapshot("5", "a", sectors=16, tag=2),))
    with pytest.raises(UnsupportedSetupError, match="d0: snapshots on the image"):
        bench(spec)


def test_a_setup_that_the_driver_refuses_is_unsupported(bench: MakeBench) -> None:
    def open_small(disk: BlockFile, *, read_only: bool, create: CreateOptions | None) -> Driver:  # noqa: ARG001
        raise BlockError(Errno.EFBIG, "clusters are too large")

    with pytest.raises(UnsupportedSetupError, match="d0: EFBIG: clusters are too large"):
        bench(Kind.DRIVER, open_driver=open_small)


def test_a_driver_that_raises_at_the_start_can_not_start(bench: MakeBench) -> None:
    def open_broken(disk: BlockFile, *, read_only: bool, create: CreateOptions | None) -> Driver:  # noqa: ARG001
        raise RuntimeError("no license")

    with pytest.raises(StartError, match="can not start d0: open_driver raised RuntimeError: no license"):
        bench(Kind.DRIVER, open_driver=open_broken)


# --- the guest's errors, in the order of the alphabet ----------------------------------------------
@pytest.mark.parametrize("operation", WRITES)
def test_writing_needs_a_medium_then_a_writable_one(bench: MakeBench, operation: Operation) -> None:
    one = bench(Kind.DRIVER)
    one.all(SetReadOnly("d0", read_only=True))
    assert one.do(operation).errno is Errno.EPERM
    one.all(SetMedium("d0", present=False))
    assert one.do(operation).errno is Errno.ENOMEDIUM


def test_read_only_is_told_before_the_bounds_and_before_a_missing_place(bench: MakeBench) -> None:
    one = bench(Kind.PLAIN)
    assert one.do(Write("d0", 15, 2, 5)).errno is Errno.EIO
    one.all(SetReadOnly("d0", read_only=True))
    assert one.do(Write("d0", 15, 2, 5)).errno is Errno.EPERM
    assert one.do(VmstateWrite("d0", 0, 5, 5)).errno is Errno.EPERM


def test_resizing(bench: MakeBench) -> None:
    one = bench(Kind.RAW_OVER)
    one.all(Resize("d0", 18))
    assert one.content() == b"\x09" * 16 + bytes(2)
    one.all(SetReadOnly("d0", read_only=True))
    assert one.do(Resize("d0", 8)).errno is Errno.EACCES
    assert bench(Kind.EMPTY).do(Resize("d0", 8)).errno is Errno.ENOMEDIUM


@pytest.mark.parametrize("kind", [Kind.DRIVER, Kind.RAW_OVER, Kind.FILTER_OVER, Kind.PLAIN])
def test_what_the_guest_writes_is_what_it_reads(bench: MakeBench, kind: Kind) -> None:
    one = bench(kind)
    one.all(Write("d0", 2, 3, 5), WriteZeroes("d0", 3, 1), Flush("d0"))
    assert one.content() == b"\x09\x09\x05\x00\x05" + b"\x09" * 11


# --- requests in flight ---------------------------------------------------------------------------
def test_a_request_lands_at_the_end_of_the_next_operation_on_whatever_device(bench: MakeBench) -> None:
    one = bench(Kind.DRIVER, Kind.DRIVER)
    one.all(SubmitWrite("d0", 0, 1, 5))
    assert one.story(Request) == ["request d0 submit"]
    assert one.content("d0") == b"\x09" * 16
    one.all(List("d1"))
    assert one.story(Request) == ["request d0 start", "request d0 complete"]
    assert one.content("d0")[:1] == b"\x05"


def test_requests_land_in_the_order_of_submission_and_no_submission_makes_them_land(bench: MakeBench) -> None:
    one = bench(Kind.DRIVER, Kind.DRIVER)
    one.all(SubmitWrite("d1", 0, 1, 5), SubmitWrite("d0", 0, 1, 6), SubmitWrite("d1", 0, 1, 7), Flush("d0"))
    assert [words.split()[1] for words in one.story(Request)] == ["d1", "d1", "d0", "d0", "d1", "d1"]
    assert one.content("d1")[:1] == b"\x07"


def test_a_request_in_flight_is_not_in_a_snapshot_that_does_not_drain(bench: MakeBench) -> None:
    one = bench(Kind.DRIVER)
    one.all(SubmitWrite("d0", 0, 1, 5), Create("d0", "a"))
    assert one.content()[:1] == b"\x05"
    one.all(Goto("d0", "a"))
    assert one.content()[:1] == b"\x09"


def test_a_request_that_fails_is_lost_without_a_word(bench: MakeBench) -> None:
    one = bench(Kind.DRIVER)
    one.all(SubmitWrite("d0", 12, 2, 5))
    assert one.do(Resize("d0", 8)).errno is Errno.OK
    assert one.story(Request) == ["request d0 start", f"request d0 complete {Errno.EIO}"]


def test_closing_a_device_drains_it_first(bench: MakeBench) -> None:
    one = bench(Kind.DRIVER)
    one.all(SubmitWrite("d0", 0, 1, 5), SetReadOnly("d0", read_only=True))
    assert one.content()[:1] == b"\x05"


def test_the_guest_and_the_main_thread_take_the_lock_in_turn(bench: MakeBench) -> None:
    one = bench(Kind.DRIVER)
    one.all(Write("d0", 0, 1, 5))
    assert [event.owner for event in one.events if isinstance(event, Lock)] == ["iothread"] * 2
    one.all(Create("d0", "a"))
    assert [event.owner for event in one.events if isinstance(event, Lock)] == ["main"] * 2
    assert one.unbalanced() == {}


# --- the environment ------------------------------------------------------------------------------
@pytest.mark.parametrize("operation", [Reopen("d0"), SetReadOnly("d0", read_only=False), SetMedium("d0", present=True)])
def test_opening_again_ends_bitmaps_of_both_nodes(bench: MakeBench, operation: Operation) -> None:
    one = bench(Kind.RAW_OVER)
    one.all(AddBitmap("d0", "bm"), AddBitmap("d0/file", "bm"), operation)
    assert [one.do(RemoveBitmap(node, "bm")).errno for node in ("d0", "d0/file")] == [Errno.ENOENT] * 2


def test_bitmaps_have_a_name_each_and_need_a_medium(bench: MakeBench) -> None:
    one = bench(Kind.DRIVER)
    one.all(AddBitmap("d0", "bm"), AddBitmap("d0", "other"))
    assert one.do(AddBitmap("d0", "bm")).errno is Errno.EEXIST
    one.all(RemoveBitmap("d0", "bm"), AddBitmap("d0", "bm"), SetMedium("d0", present=False))
    assert one.do(AddBitmap("d0", "bm")).errno is Errno.ENOMEDIUM


def test_an_empty_drive_only_has_its_medium_taken_out(bench: MakeBench) -> None:
    one = bench(Kind.EMPTY)
    assert one.do(SetMedium("d0", present=False)).errno is Errno.OK
    for operation in (Reopen("d0"), SetReadOnly("d0", read_only=True), SetMedium("d0", present=True)):
        assert one.do(operation).errno is Errno.ENOMEDIUM


def test_the_mode_is_remembered_without_a_medium(bench: MakeBench) -> None:
    one = bench(Kind.DRIVER)
    one.all(SetMedium("d0", present=False), SetReadOnly("d0", read_only=True))
    assert one.do(Reopen("d0")).errno is Errno.ENOMEDIUM
    one.all(SetMedium("d0", present=True))
    assert one.do(Write("d0", 0, 1, 5)).errno is Errno.EPERM


def test_a_device_that_can_not_be_opened_again_is_gone_until_it_can(bench: MakeBench) -> None:
    one = bench(Kind.RAW_OVER)
    assert one.do(Reopen("d0"), IoFault("d0", "read", Fails(Errno.EACCES), times=0)).errno is Errno.EACCES
    assert one.do(List("d0/file")).errno is Errno.ENOMEDIUM
    one.all(SetMedium("d0", present=True))
    assert one.content() == b"\x09" * 16


def test_a_node_that_nobody_knows_is_a_mistake_of_the_caller(bench: MakeBench) -> None:
    one = bench(Kind.DRIVER)
    for operation in (List("d0/file"), Write("d9", 0, 1, 5)):
        with pytest.raises(AssertionError):
            one.do(operation)


# --- looking --------------------------------------------------------------------------------------
def test_a_full_look_shows_memory_disk_snapshots_and_checker(bench: MakeBench) -> None:
    one = bench(Kind.FILTER_OVER)
    one.all(VmstateWrite("d0", 0, 100, 4), Create("d0", "a", 100), Write("d0", 0, 16, 5), Create("d0", "b"))
    seen = one.look("d0", Level.FULL)
    assert seen.memory == seen.disk
    assert seen.memory.sectors == 16
    assert [info.name for info in seen.memory.snapshots] == ["a", "b"]
    state = vmstate_pattern(tag=4, offset=0, length=100)
    assert seen.contents == (
        SnapshotContent(b"\x09" * 16, 16, state, stored_sectors=16, extra=b""),
        SnapshotContent(b"\x05" * 16, 16, stored_sectors=16, extra=b""),
    )
    assert seen.check == Check()


def test_looking_is_not_heard_and_changes_nothing() -> None:
    heard, spec = EventList(), DeviceSpec("d0", sectors=16, tag=9)
    system = LocalSystem(open_qcow2, [MemoryFile()], semantics="classic", recorder=heard)
    system.start(Setup((spec,)))
    system.perform(Create("d0", "a"))
    heard.take()
    first, second = system.observe("d0", level=Level.FULL), system.observe("d0", level=Level.FULL)
    assert first == second
    assert heard.take() == []


def test_requests_that_land_while_a_device_is_looked_at_are_told_at_the_next_step(bench: MakeBench) -> None:
    one = bench(Kind.DRIVER)
    one.all(SubmitWrite("d0", 0, 1, 5))
    seen = one.look("d0", Level.FULL)
    assert (seen.memory.content[:1], seen.disk.content[:1]) == (b"\x09", b"\x05")
    one.all(List("d0"))
    assert one.story()[:2] == ["request d0 start", "request d0 complete"]


def test_what_is_not_looked_at_is_not_there(bench: MakeBench) -> None:
    one = bench(Kind.DRIVER)
    assert one.look("d0", Level.LIST).memory == View(())
    light = one.look("d0", Level.LIGHT)
    assert (light.memory.sectors, light.disk, light.contents, light.check) == (16, None, None, None)


def test_a_missing_medium_is_looked_at_without_opening_anything(bench: MakeBench) -> None:
    seen = bench(Kind.EMPTY).look("d0", Level.FULL)
    assert seen.memory == View(errors=("list: ENOMEDIUM", "size: ENOMEDIUM", "content: ENOMEDIUM"))
    assert seen.disk is None


def test_a_disk_that_ends_inside_a_sector_is_seen_with_all_of_it(bench: MakeBench) -> None:
    one = bench(Kind.PLAIN)
    one.system._devices["d0"].disk.truncate(15 * 512 + 100)
    memory = one.look().memory
    assert (memory.sectors, memory.content) == (16, b"\x09" * 15 + b"\xff")
    assert one.do(Write("d0", 15, 1, 5)).errno is Errno.EIO


def test_a_plain_disk_has_no_list_to_show(bench: MakeBench) -> None:
    seen = bench(Kind.PLAIN).look("d0", Level.FULL)
    assert seen.memory == seen.disk == View(None, 16, b"\x09" * 16, ("list: ENOTSUP",))
    assert (seen.contents, seen.check) == (None, None)


def test_a_view_of_load_tmp_ends_with_a_full_look(bench: MakeBench) -> None:
    one = bench(Kind.DRIVER)
    one.all(Create("d0", "a"), Write("d0", 0, 16, 5), SetReadOnly("d0", read_only=True), LoadTmp("d0", "1", None))
    seen = one.look("d0", Level.FULL)
    assert (seen.memory.content, seen.disk.content) == (b"\x09" * 16, b"\x05" * 16)


def test_snapshots_are_read_by_going_back_where_load_tmp_is_missing(bench: MakeBench) -> None:
    one = bench(Kind.DRIVER, open_driver=engine_with(load_tmp=False))
    one.all(Create("d0", "a"), Write("d0", 0, 16, 5))
    seen = one.look("d0", Level.FULL)
    assert seen.contents == (SnapshotContent(b"\x09" * 16, 16, stored_sectors=16, extra=b""),)
    assert seen.disk.content == b"\x05" * 16, "it is a clone that went back"


@pytest.mark.parametrize(("clone", "opened"), [(True, 1 + 1), (False, 1 + 2)])
def test_a_driver_that_can_be_cloned_is_opened_once_for_all_snapshots(
    bench: MakeBench, *, clone: bool, opened: int
) -> None:
    counted: list[BlockFile] = []
    engine = engine_with(clone=clone)

    def counting(disk: BlockFile, *, read_only: bool, create: CreateOptions | None) -> Driver:
        counted.append(disk)
        driver: Driver = engine(disk, read_only=read_only, create=create)
        return driver

    one = bench(Kind.DRIVER, open_driver=counting)
    one.all(Create("d0", "a"), Write("d0", 0, 16, 5), Create("d0", "b"), Write("d0", 0, 16, 6))
    counted.clear()
    seen = one.look("d0", Level.FULL)
    assert [held.content for held in seen.contents] == [b"\x09" * 16, b"\x05" * 16]
    assert len(counted) == opened, "the device itself, and what its snapshots are read with"


def test_our_checker_judges_a_format_of_ours_if_the_driver_has_none(bench: MakeBench) -> None:
    one = bench(Kind.DRIVER, open_driver=engine_with(check=False))
    assert one.system.abilities.check
    assert one.look("d0", Level.FULL).check == Check()


class DiesOfChecking(Qcow2Driver):
    """Its checker looks something up that is not there."""

    __slots__ = ()

    def check(self) -> Check:
        return dict[str, Check]()["the image"]


def opens_dying_of_checking(disk: BlockFile, *, read_only: bool, create: CreateOptions | None) -> Driver:
    image = open_qcow2(disk, read_only=read_only, create=create)._image  # pyright: ignore[reportPrivateUsage]
    return DiesOfChecking(image)


def test_a_checker_that_dies_is_a_crash_and_says_nothing_of_the_image(bench: MakeBench) -> None:
    one = bench(Kind.DRIVER, open_driver=opens_dying_of_checking)
    one.all(Create("d0", "a"))
    seen = one.look("d0", Level.FULL)
    assert seen.check is None
    assert "check raised KeyError: 'the image'" in died_of(seen)
    assert [held.content for held in seen.contents] == [b"\x09" * 16], "the rest was looked at all the same"


def infos(*pairs: tuple[str, str]) -> Sequence[SnapshotInfo]:
    return [SnapshotInfo(id_str, name) for id_str, name in pairs]


def test_an_entry_behind_one_that_looks_the_same_is_out_of_reach() -> None:
    listed = infos(("1", "a"), ("1", "a"), ("1", "b"), ("2", "a"))
    assert selectors_by_pair(listed, 0) == [("1", "a"), ("1", None), (None, "a")]
    assert selectors_by_pair(listed, 1) == []
    assert selectors_by_pair(listed, 2) == [("1", "b"), (None, "b")]
    assert selectors_by_text(listed, 2) == [(None, "b")]
    assert selectors_by_text(listed, 3) == [("2", None)]


def test_a_name_that_is_an_id_goes_back_to_that_id() -> None:
    listed = infos(("1", "2"), ("2", "x"), ("2", "1"))
    assert selectors_by_text(listed, 0) == [("1", None)]
    assert selectors_by_text(listed, 2) == []


@pytest.mark.parametrize(
    ("stored", "seen"),
    [
        (("1", "n" * 300), True),  # by its id alone
        (("i" * 200, "a"), True),  # by its name alone
        (("i" * 200, "n" * 300), False),  # by nothing that the API can say
        (("9" * 127, "n" * 255), True),  # these are what they look like
    ],
)
def test_texts_that_were_cut_are_reached_another_way_or_not_at_all(stored: tuple[str, str], seen: bool) -> None:  # noqa: FBT001
    spec = DeviceSpec("d0", sectors=16, snapshots=(PreparedSnapshot(*stored, sectors=16, tag=2),))
    system = LocalSystem(open_qcow2, [prepared_image(spec)], semantics="classic", recorder=EventList())
    system.start(Setup((spec,)))
    expected = SnapshotContent(b"\x02" * 16, 16, stored_sectors=16, extra=b"") if seen else None
    assert system.observe("d0", level=Level.FULL).contents == (expected,)


# --- abilities and faults -------------------------------------------------------------------------
def test_our_engine_can_everything(bench: MakeBench) -> None:
    abilities = bench(Kind.DRIVER).system.abilities
    assert (abilities.operations, abilities.prepared_images, abilities.check) == (None, True, True)


@pytest.mark.parametrize(
    ("missing", "gone"),
    [
        ("goto", {"goto", "all-goto", "load-vm"}),
        ("load_tmp", {"load-tmp", "load-tmp-by-id-or-name"}),
        ("vmstate", {"vmstate-read", "vmstate-write", "save-vm", "load-vm"}),
        ("resize", {"resize"}),
        ("discard", {"discard"}),
    ],
)
def test_what_a_driver_can_not_do_is_not_among_the_operations(bench: MakeBench, missing: str, gone: set[str]) -> None:
    one = bench(Kind.DRIVER, open_driver=engine_with(**{missing: False}))
    assert set(KINDS.values()) - set(one.system.abilities.operations) == gone


def test_a_driver_without_snapshots_only_does_guest_io(bench: MakeBench) -> None:
    one = bench(Kind.DRIVER, open_driver=engine_with(snapshots=False))
    left = one.system.abilities.operations
    assert "write" in left
    assert not [kind for kind in left if "snapshot" in kind or "create" in kind or "goto" in kind]
    assert not one.system.abilities.snapshot_contents


def test_faults_are_injected_from_outside(bench: MakeBench) -> None:
    one = bench(Kind.DRIVER)
    faults = [CallFault("d0", "create"), IoFault("d0", "read", Fails())]
    assert one.system.arm(faults) == faults
    one.system.disarm()


@pytest.mark.parametrize("group", [ClassicOperations, ModernOperations])
def test_every_operation_of_the_alphabet_is_performed(group: type[ClassicOperations | ModernOperations]) -> None:
    assert {*Performer.TABLE, *group.TABLE} == set(OPERATIONS)


def test_the_driver_under_test_is_closed_with_the_system() -> None:
    closed: list[str] = []

    class Told(Qcow2Driver):
        def close(self) -> None:
            closed.append("closed")
            super().close()

    def open_told(disk: BlockFile, *, read_only: bool, create: CreateOptions | None) -> Driver:
        assert create is not None
        assert not read_only
        return Told(Image.create(disk, size_bytes=create.size_bytes, cluster_bytes=create.cluster_bytes))

    plan = FaultPlan(EventList())
    disks = [plan.wrap_file(name, MemoryFile()) for name in ("d0", "d1")]
    system = LocalSystem(plan.wrap_open(open_told), disks, semantics="classic", recorder=plan.recorder)
    system.start(Setup((DeviceSpec("d0"), DeviceSpec("d1", Kind.RAW_OVER))))
    system.perform(AllCreate("s"))
    system.close()
    assert closed == ["closed", "closed"]


def test_io_below_a_device_is_heard_under_its_name(bench: MakeBench) -> None:
    one = bench(Kind.RAW_OVER)
    one.all(Write("d0", 0, 1, 5), Create("d0", "a"), Delete("d0", "1", None))
    assert {event.device for event in one.events if isinstance(event, Io)} == {"d0"}
