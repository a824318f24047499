"""Stories of bugs in the qcow2 engine: what each does to one image, told without laws, model or phases."""

from dataclasses import replace
from typing import Any

import pytest
from snapcheck.impl.blockfile import MemoryFile
from snapcheck.impl.driver import OpenDriver, Out
from snapcheck.impl.qcow2 import Image, inspect
from snapcheck.model.content import pattern, vmstate_pattern
from snapcheck.model.errno import Errno
from snapcheck.model.faults import Fails, IoFault
from snapcheck.model.history import Io, Level
from snapcheck.model.operations import (
    Create,
    Delete,
    Goto,
    List,
    Resize,
    VmstateRead,
    VmstateWrite,
    Write,
)
from snapcheck.model.setup import DeviceSpec, Kind, PreparedSnapshot
from snapcheck.model.snapshot import SnapshotInfo

ONE = Kind.DRIVER
SMALL = DeviceSpec("d0", sectors=16, tag=9)
CLUSTER = 4096


def stored_as(snapshot_id: str) -> DeviceSpec:
    return replace(SMALL, snapshots=(PreparedSnapshot(snapshot_id, "a", sectors=16, tag=11),))


def failing(kind: str, region: str = "", *, times: int = 1) -> IoFault:
    return IoFault("d0", kind, Fails(Errno.ENOSPC), region, times=times)


def names_on_disk(one: Any) -> object:
    disk = one.look(level=Level.FULL).disk
    return disk.errors if disk.snapshots is None else [info.name for info in disk.snapshots]


def held(one: Any) -> list[int]:
    """The tag in the first sector of each snapshot."""
    return [held.content[0] for held in one.look(level=Level.FULL).contents]


def corruptions(one: Any) -> int:
    return int(one.look(level=Level.FULL).check.corruptions)


# --- the snapshot table ---------------------------------------------------------------------------
@pytest.mark.bug("count-not-restored")
def test_a_create_that_failed_leaves_an_entry_in_memory(tried: Any) -> None:
    def story(one: Any) -> object:
        one.do(Create("d0", "a"), failing("write", "snapshot-table"))
        return one.names()

    assert tried(story, ONE) == ([], [""])


@pytest.mark.bug("narrow-id")
def test_an_id_beyond_32_bits_begins_anew(tried: Any) -> None:
    def story(one: Any) -> object:
        return one.do(Create("d0", "b")).sn.id_str

    assert tried(story, stored_as("4294967297")) == ("4294967298", "2")


@pytest.mark.bug("errno-lost")
def test_no_space_left_is_reported_as_not_permitted(tried: Any) -> None:
    def story(one: Any) -> object:
        return one.do(Create("d0", "a"), failing("write", "snapshot-table")).errno

    assert tried(story, ONE) == (Errno.ENOSPC, Errno.EPERM)


@pytest.mark.bug("entries-packed")
def test_the_second_entry_can_not_be_read_back(tried: Any) -> None:
    def story(one: Any) -> object:
        one.all(Create("d0", "a"), Create("d0", "b"))
        return names_on_disk(one)

    seen = tried(story, ONE)
    assert seen.right == ["a", "b"]
    assert seen.wrong != ["a", "b"]


@pytest.mark.bug("missing-deleted")
def test_what_is_not_there_is_deleted(tried: Any) -> None:
    assert tried.answer("errno", Delete("d0", None, "a"), ONE) == (Errno.ENOENT, Errno.OK)


@pytest.mark.bug("name-cut-short")
def test_half_a_name_is_stored(tried: Any) -> None:
    def story(one: Any) -> object:
        one.all(Create("d0", "n" * 255))
        return len(one.names()[0])

    assert tried(story, ONE) == (255, 127)


@pytest.mark.bug("delete-is-a-stub")
def test_what_was_deleted_is_still_there(tried: Any) -> None:
    def story(one: Any) -> object:
        one.all(Create("d0", "a"), Delete("d0", None, "a"))
        return one.names()

    assert tried(story, ONE) == ([], ["a"])


@pytest.mark.bug("empty-disk-refused")
def test_an_empty_disk_can_have_no_snapshot(tried: Any) -> None:
    empty = replace(SMALL, sectors=0, tag=0)
    assert tried.answer("errno", Create("d0", "a"), empty) == (Errno.OK, Errno.EINVAL)


@pytest.mark.bug("empty-list-fails")
def test_no_snapshots_can_not_be_listed(tried: Any) -> None:
    assert tried.answer("errno", List("d0"), ONE) == (Errno.OK, Errno.ENOMEM)


@pytest.mark.bug("new-first")
def test_the_newest_snapshot_comes_first(tried: Any) -> None:
    def story(one: Any) -> object:
        one.all(Create("d0", "a"), Create("d0", "b"))
        return one.names()

    assert tried(story, ONE) == (["a", "b"], ["b", "a"])


@pytest.mark.bug("deleted-in-memory")
def test_memory_says_gone_and_the_disk_says_there(tried: Any) -> None:
    def story(one: Any) -> object:
        one.all(Create("d0", "a"))
        one.do(Delete("d0", None, "a"), failing("write", "header"))
        return one.names(), names_on_disk(one)

    assert tried(story, ONE) == ((["a"], ["a"]), ([], ["a"]))


@pytest.mark.bug("busy-for-ever")
def test_no_snapshot_can_be_taken_after_one_failed(tried: Any) -> None:
    def story(one: Any) -> object:
        one.do(Create("d0", "a"), failing("write", "snapshot-table"))
        return one.do(Create("d0", "a")).errno

    assert tried(story, ONE) == (Errno.OK, Errno.EBUSY)


# --- refcounts, COPIED and the tables -------------------------------------------------------------
def compressed_image() -> MemoryFile:
    """Return an image of which two clusters are compressed, and the two behind them are not."""
    file = MemoryFile()
    with Image.create(file, size_bytes=16 * CLUSTER, cluster_bytes=CLUSTER) as image:
        for at in range(4):
            data = pattern(tag=at + 1, sector=at * 8, count=8)
            (image.write_compressed if at < 2 else image.write)(at * CLUSTER, data)
    return file


def corruptions_after_a_snapshot(open_driver: OpenDriver) -> int:
    file = compressed_image()
    driver: Any = open_driver(file, read_only=False, create=None)
    driver.snapshot_create(Out(SnapshotInfo(name="a")))
    driver.close()
    return inspect(file).corruptions


@pytest.mark.bug("ends-at-compressed")
def test_clusters_behind_a_compressed_one_are_not_counted(tried: Any) -> None:
    seen = tried.opening(corruptions_after_a_snapshot)
    assert seen.right == 0
    assert seen.wrong > 0


@pytest.mark.bug("narrow-mask")
def test_the_wrong_cluster_is_counted_for_compressed_data(tried: Any) -> None:
    seen = tried.opening(corruptions_after_a_snapshot)
    assert seen.right == 0
    assert seen.wrong > 0


@pytest.mark.bug("l1-left-swapped")
def test_the_content_is_gone_after_a_write_that_failed(tried: Any) -> None:
    def story(one: Any) -> object:
        one.all(Create("d0", "a"))
        one.do(Write("d0", 0, 1, 5), failing("write", "l1"))
        return one.content() == bytes([9]) * 16

    assert tried(story, ONE) == (True, False)


@pytest.mark.bug("count-failure-ignored")
def test_a_snapshot_is_taken_of_clusters_that_were_not_counted(tried: Any) -> None:
    def story(one: Any) -> object:
        errno = one.do(Create("d0", "a"), failing("write", "refcount-block")).errno
        return errno, corruptions(one) > 0

    assert tried(story, ONE) == ((Errno.ENOSPC, False), (Errno.OK, True))


@pytest.mark.bug("shared-overwritten")
def test_a_write_changes_what_the_snapshot_holds(tried: Any) -> None:
    def story(one: Any) -> object:
        one.all(Create("d0", "a"), Write("d0", 0, 1, 5))
        return held(one)

    assert tried(story, ONE) == ([9], [5])


@pytest.mark.bug("stale-place")
def test_a_write_goes_to_where_the_last_one_went(tried: Any) -> None:
    def story(one: Any) -> object:
        one.all(Write("d0", 0, 1, 4), Create("d0", "a"), Write("d0", 0, 1, 5))
        return held(one)

    assert tried(story, ONE) == ([4], [5])


@pytest.mark.bug("copied-kept")
def test_a_shared_cluster_is_marked_as_owned(tried: Any) -> None:
    def story(one: Any) -> object:
        one.all(Create("d0", "a"))
        return corruptions(one) > 0

    assert tried(story, ONE) == (False, True)


@pytest.mark.bug("never-lowered")
def test_a_deleted_snapshot_keeps_its_clusters(tried: Any) -> None:
    def story(one: Any) -> object:
        one.all(Create("d0", "a"), Delete("d0", None, "a"))
        return one.look(level=Level.FULL).check.leaks > 0

    assert tried(story, ONE) == (False, True)


@pytest.mark.bug("copied-after-failure")
def test_a_write_after_a_create_that_failed_changes_a_snapshot(tried: Any) -> None:
    def story(one: Any) -> object:
        one.all(Create("d0", "a"))
        one.do(Create("d0", "b"), failing("write", "snapshot-table"))
        one.all(Write("d0", 0, 1, 5))
        return held(one)

    assert tried(story, ONE) == ([9], [5])


@pytest.mark.bug("one-by-one")
def test_a_snapshot_takes_thousands_of_writes(tried: Any) -> None:
    def story(one: Any) -> object:
        one.all(Create("d0", "a"))
        return sum(isinstance(event, Io) for event in one.events)

    seen = tried(story, ONE)
    assert seen.right < 30
    assert seen.wrong > 100 * seen.right


@pytest.mark.bug("commit-not-flushed")
def test_a_snapshot_is_done_and_nothing_is_flushed(tried: Any) -> None:
    def story(one: Any) -> object:
        one.all(Create("d0", "a"))
        return any(isinstance(event, Io) and event.kind == "flush" for event in one.events)

    assert tried(story, ONE) == (True, False)


# --- sizes and VM state ---------------------------------------------------------------------------
@pytest.mark.bug("size-not-stored")
def test_a_disk_that_grew_does_not_get_its_size_back(tried: Any) -> None:
    def story(one: Any) -> object:
        one.all(Create("d0", "a"), Resize("d0", 32), Goto("d0", "a"))
        return one.look().memory.sectors

    assert tried(story, ONE) == (16, 32)


@pytest.mark.bug("resized-first")
def test_a_goto_that_failed_has_changed_the_size(tried: Any) -> None:
    def story(one: Any) -> object:
        one.all(Create("d0", "a"), Resize("d0", 32))
        errno = one.do(Goto("d0", "a"), IoFault("d0", "write", Fails(Errno.ENOSPC), "refcount-block")).errno
        return errno, one.look().memory.sectors

    assert tried(story, ONE) == ((Errno.ENOSPC, 32), (Errno.ENOSPC, 16))


def state_is_whole(one: Any, size: int) -> bool:
    """Whether the VM state reads back as it was written, in two pieces of the same pattern."""
    return bool(one.do(VmstateRead("d0", 0, size)).data == vmstate_pattern(tag=7, offset=0, length=size))


@pytest.mark.bug("vmstate-zero-filled")
def test_the_second_piece_of_a_state_wipes_the_end_of_the_first(tried: Any) -> None:
    def story(one: Any) -> object:
        one.all(VmstateWrite("d0", 0, 100, 7), VmstateWrite("d0", 100, 100, 7))
        return state_is_whole(one, 200)

    assert tried(story, ONE) == (True, False)


@pytest.mark.bug("vmstate-not-copied")
def test_a_state_that_is_shared_loses_what_is_not_written_anew(tried: Any) -> None:
    def story(one: Any) -> object:
        one.all(VmstateWrite("d0", 0, 200, 7), Create("d0", "a", 200), Goto("d0", "a"), VmstateWrite("d0", 0, 100, 7))
        return state_is_whole(one, 200)

    assert tried(story, ONE) == (True, False)


@pytest.mark.bug("narrow-vmstate-size")
def test_a_large_state_is_listed_as_a_small_one(tried: Any) -> None:
    def story(one: Any) -> object:
        one.all(Create("d0", "a", 65_537))
        return one.look().memory.snapshots[0].vm_state_size

    assert tried(story, ONE) == (65_537, 1)
