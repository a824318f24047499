"""Stories of refcounts: growth, overflow, debts, and what a corrupt table is not allowed to do."""

from collections.abc import Callable

import pytest
from snapcheck.fault_injection.plan import FaultPlan
from snapcheck.impl.blockfile import BlockError, BlockFile, MemoryFile
from snapcheck.impl.qcow2.check import inspect
from snapcheck.impl.qcow2.image import Image
from snapcheck.model.errno import Errno
from snapcheck.model.faults import Fails, IoFault, LandsButFails
from snapcheck.model.history import EventList, FaultMet
from snapcheck.model.snapshot import SnapshotInfo

Place = Callable[[BlockFile, int], int]
POINTER = (1 << 56) - 512
CLUSTER = 512
BLOCK_ENTRIES = CLUSTER // 2
TABLE_ENTRIES = CLUSTER // 8


def image_with_a_full_table(*, free: int) -> MemoryFile:
    """One cluster of refcount table, all of it in use, and `free` clusters left; most clusters are leaks."""
    file = MemoryFile()
    with Image.create(file, size_bytes=1 << 20, cluster_bytes=CLUSTER) as image:
        table, covered = image.header.refcount_table_offset, TABLE_ENTRIES * BLOCK_ENTRIES
    for index in range(1, TABLE_ENTRIES):
        place = index * BLOCK_ENTRIES * CLUSTER
        file.pwrite(table + index * 8, place.to_bytes(8, "big"))
        file.pwrite(place, b"\0\1" * BLOCK_ENTRIES)
    file.pwrite((covered - BLOCK_ENTRIES) * CLUSTER, (b"\0\1" * (BLOCK_ENTRIES - free)).ljust(CLUSTER, b"\0"))
    first = int.from_bytes(file.pread(table, 8), "big")
    file.pwrite(first, b"".join(max(1, n).to_bytes(2, "big") for n in file.pread(first, CLUSTER)[1::2]))
    file.truncate(covered * CLUSTER)
    return file


def test_a_full_refcount_table_moves_to_where_it_has_room() -> None:
    file = image_with_a_full_table(free=4)
    with Image.open(file) as image:
        leaks = image.check().leaks
        image.write(0, b"x" * 16384)
        assert image.header.refcount_table_clusters == 2
        report = image.check()
        assert (report.corruptions, report.copied_missing) == (0, 0), report.problems
        assert report.leaks == leaks
        assert image.read(0, 16384) == b"x" * 16384


@pytest.mark.parametrize(("effect", "times"), [(Fails(Errno.ENOSPC), 1), (Fails(), 0), (LandsButFails(), 1)])
def test_a_failure_while_the_table_moves_leaves_no_more_leaks(effect: Fails | LandsButFails, times: int) -> None:
    base = image_with_a_full_table(free=4)
    leaks = inspect(base).leaks
    met = 0
    for at in range(1, 100):
        medium, events = base.clone(), EventList()
        plan = FaultPlan(events)
        image = Image.open(plan.wrap_file("d0", medium))
        plan.arm([IoFault("d0", "any", effect, at=at, times=times)])
        try:
            image.write(0, b"x" * 16384)
        except BlockError:
            met += 1
        plan.disarm()
        if not any(isinstance(event, FaultMet) for event in events.take()):
            break
        if not image.dead:
            image.write(0, b"x" * 16384)
            report = image.check()
            assert (report.corruptions, report.leaks) == (0, leaks), report.problems
        image.close()
        with Image.open(medium) as anew:
            assert anew.check().corruptions == 0
            anew.write(0, b"x" * 16384)
            assert anew.read(0, 16384) == b"x" * 16384
            assert anew.check().corruptions == 0
    assert met > 8


def test_a_snapshot_too_many_for_the_counts_is_refused_and_changes_nothing(
    refcount_place: Place, word_at: Place, l2_place: Place
) -> None:
    file = MemoryFile()
    with Image.create(file, size_bytes=65536, cluster_bytes=4096) as image:
        image.write(0, b"x" * 8192)
    data = word_at(file, l2_place(file, 1)) & POINTER
    file.pwrite(refcount_place(file, data), b"\xff\xff")
    before = file.pread(0, file.size())

    with Image.open(file) as image:
        with pytest.raises(BlockError) as caught:
            image.snapshot_create(SnapshotInfo(name="a"))
        assert caught.value.errno is Errno.EINVAL
        assert "65535 references" in str(caught.value)
        assert image.snapshot_list() == []
    assert file.pread(0, file.size()) == before


def test_what_could_not_be_freed_is_freed_by_the_next_operation() -> None:
    medium, events = MemoryFile(), EventList()
    plan = FaultPlan(events)
    file = plan.wrap_file("d0", medium)
    image = Image.create(file, size_bytes=65536, cluster_bytes=4096)
    image.write(0, b"x" * 65536)
    image.snapshot_create(SnapshotInfo(name="a"))
    image.write(0, b"y" * 65536)
    # given the delete is committed, and then the medium refuses everything
    plan.arm([IoFault("d0", "any", Fails(), region="refcount-block", at=1, times=0)])
    image.snapshot_delete("1", None)
    plan.disarm()
    assert inspect(medium).leaks == 16 + 3  # the data, its L2 table, its L1 table, the former snapshot table
    assert not image.dead
    # when the image is used again, the debt is paid
    image.write(0, b"z" * 65536)
    image.snapshot_create(SnapshotInfo(name="b"))
    assert inspect(medium).clean, inspect(medium).problems


@pytest.mark.parametrize("pinned", ["header", "l1", "refcount table"])
def test_a_table_that_is_counted_as_free_is_never_handed_out(pinned: str, refcount_place: Place) -> None:
    file = MemoryFile()
    with Image.create(file, size_bytes=65536, cluster_bytes=4096) as image:
        header = image.header
    offset = {"header": 0, "l1": header.l1_offset, "refcount table": header.refcount_table_offset}[pinned]
    file.pwrite(refcount_place(file, offset), bytes(2))
    with Image.open(file) as image, pytest.raises(BlockError, match="counted as free; the image is corrupt") as caught:
        image.write(0, b"x")
    assert caught.value.errno is Errno.EIO


def test_an_empty_refcount_table_does_not_lead_over_the_header() -> None:
    file = MemoryFile()
    with Image.create(file, size_bytes=65536, cluster_bytes=4096) as image:
        table = image.header.refcount_table_offset
    file.pwrite(table, bytes(4096))
    before = file.pread(0, file.size())
    with Image.open(file) as image, pytest.raises(BlockError, match="corrupt"):
        image.write(0, b"x")
    assert file.pread(0, file.size()) == before


def test_a_cluster_in_use_that_is_counted_as_free_stops_the_operation(
    image_with_a_past: Callable[[int], MemoryFile], refcount_place: Place, word_at: Place, l2_place: Place
) -> None:
    file = image_with_a_past(4096)
    data = word_at(file, l2_place(file, 0)) & POINTER
    file.pwrite(refcount_place(file, data), bytes(2))
    before = inspect(file).corruptions
    with Image.open(file) as image:
        for act in (lambda: image.snapshot_create(SnapshotInfo(name="x")), lambda: image.snapshot_goto("a")):
            with pytest.raises(BlockError, match="in use but counted as free"):
                act()
    assert inspect(file).corruptions == before
