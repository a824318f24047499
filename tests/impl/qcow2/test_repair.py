"""Stories of repair: what can be put right is, what users see stays, and a cut in the middle does no harm."""

from collections.abc import Callable, Iterator
from random import Random

import pytest
from snapcheck.fault_injection.plan import FaultPlan
from snapcheck.impl.blockfile import BlockError, MemoryFile
from snapcheck.impl.qcow2 import Image, ImageError, inspect, repair
from snapcheck.impl.qcow2.layout import COPIED
from snapcheck.impl.qcow2.state import read_header
from snapcheck.model.errno import Errno
from snapcheck.model.faults import Fails, IoFault
from snapcheck.model.history import EventList
from snapcheck.model.snapshot import SnapshotInfo

Place = Callable[[MemoryFile, int], int]
CLUSTER = 4096


@pytest.fixture
def file(image_with_a_past: Callable[[int], MemoryFile]) -> MemoryFile:
    return image_with_a_past(CLUSTER)


def put(file: MemoryFile, offset: int, value: int, length: int = 8) -> None:
    file.pwrite(offset, value.to_bytes(length, "big"))


def views(file: MemoryFile) -> list[bytes]:
    """Return the active content and that of each snapshot."""
    with Image.open(file.clone(), read_only=True) as image:
        found = [image.read(0, image.size_bytes)]
        for entry in image.snapshot_list():
            image.snapshot_load_tmp(entry.id_str, entry.name)
            found.append(image.read(0, image.size_bytes))
        return found


def lose_the_refcount_table(file: MemoryFile) -> None:
    put(file, 48, 0)


def lose_a_block(file: MemoryFile) -> None:
    put(file, read_header(file).refcount_table_offset, 0)


def point_the_table_astray(file: MemoryFile) -> None:
    put(file, read_header(file).refcount_table_offset, 1 << 50)


def mix_up_all_counts(file: MemoryFile) -> None:
    block = int.from_bytes(file.pread(read_header(file).refcount_table_offset, 8), "big")
    file.pwrite(block, Random(1).randbytes(CLUSTER))  # noqa: S311  # chance for a test, no secret


def forget_all_counts(file: MemoryFile) -> None:
    block = int.from_bytes(file.pread(read_header(file).refcount_table_offset, 8), "big")
    file.pwrite(block, bytes(CLUSTER))


def take_copied_away(file: MemoryFile) -> None:
    header = read_header(file)
    entry = int.from_bytes(file.pread(header.l1_offset, 8), "big")
    put(file, header.l1_offset, entry & ~COPIED)


def say_copied_everywhere(file: MemoryFile) -> None:
    table = int.from_bytes(file.pread(read_header(file).l1_offset, 8), "big") & ~COPIED
    for place in range(table, table + CLUSTER, 8):
        entry = int.from_bytes(file.pread(place, 8), "big")
        put(file, place, entry | COPIED if entry else 0)


def mark_dirty_and_corrupt(file: MemoryFile) -> None:
    put(file, 72, 3)


DAMAGES = (
    lose_the_refcount_table, lose_a_block, point_the_table_astray, mix_up_all_counts, forget_all_counts,
    take_copied_away, say_copied_everywhere, mark_dirty_and_corrupt,
)  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_refcounts_and_flags_lost_comes_back_and_the_contents_were_never_touched(
    file: MemoryFile, damage: Callable[[MemoryFile], None]
) -> None:
    before = views(file)
    damage(file)
    done = repair(file)
    assert done.after.clean, done.after.problems
    assert done.done
    assert views(file) == before
    with Image.open(file) as image:
        image.write(0, b"n" * 50000)
        image.snapshot_create(SnapshotInfo(name="c"))
        image.snapshot_delete(None, "a")
        assert image.check().clean


def test_a_clean_image_is_left_as_it_is(file: MemoryFile) -> None:
    before = file.pread(0, file.size())
    assert repair(file).done == ()
    assert file.pread(0, file.size()) == before


def test_extra_data_that_is_too_long_is_cut_and_one_without_a_disk_size_gets_it(file: MemoryFile) -> None:
    with Image.open(file) as image:
        first, second = image.snapshots
    raw = first.pack()
    long = raw[:36] + (2000).to_bytes(4, "big") + raw[40:56] + bytes(1984) + raw[56:]
    short = second.pack()
    short = short[:36] + bytes(4) + short[56:]
    offset = -(-file.size() // CLUSTER) * CLUSTER
    file.pwrite(offset, long + bytes(-len(long) % 8) + short)
    put(file, 64, offset)
    with pytest.raises(ImageError, match="2000 bytes of extra data"):
        inspect(file)
    done = repair(file)
    assert done.after.clean, done.after.problems
    assert done.done[0] == "the snapshot table was written anew"
    with Image.open(file) as image:
        assert [each.info.name for each in image.snapshots] == ["a", "b"]
        assert [each.disk_size for each in image.snapshots] == [first.disk_size, second.disk_size]


def test_a_pointer_that_leads_nowhere_stays_and_the_corrupt_bit_with_it(file: MemoryFile, l2_place: Place) -> None:
    put(file, l2_place(file, 9), 1 << 50)
    put(file, 72, 2)
    done = repair(file)
    assert done.after.corruptions == 1
    assert read_header(file).incompatible == 2


def test_more_references_than_the_refcounts_can_hold_are_refused() -> None:
    file = MemoryFile()
    with Image.create(file, size_bytes=1 << 20, cluster_bytes=CLUSTER, refcount_bits=1) as image:
        image.write(0, b"x" * (2 * CLUSTER))
        l2 = image.header.l1_offset
    table = int.from_bytes(file.pread(l2, 8), "big") & ~COPIED
    put(file, table + 8, int.from_bytes(file.pread(table, 8), "big"))
    with pytest.raises(ImageError, match="refcount_order"):
        repair(file)


def cut_anywhere(file: MemoryFile) -> Iterator[MemoryFile]:
    """Repair again and again, stopped one I/O later each time; yield what is left."""
    for at in range(1, 200):
        medium, events = file.clone(), EventList()
        plan = FaultPlan(events)
        plan.arm([IoFault("d0", "any", Fails(Errno.EIO), at=at, times=0)])
        try:
            repair(plan.wrap_file("d0", medium))
        except BlockError:
            yield medium
        else:
            return
    pytest.fail("a repair of more than 200 I/Os: it does not end")


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_repair_that_was_cut_off_can_be_done_again(file: MemoryFile, damage: Callable[[MemoryFile], None]) -> None:
    before = views(file)
    damage(file)
    cuts = 0
    for left in cut_anywhere(file):
        cuts += 1
        assert repair(left).after.clean
        assert views(left) == before
    assert cuts > 3


@pytest.mark.parametrize("refcount_bits", [1, 2, 4, 8, 16, 32, 64])
def test_refcounts_of_every_width_are_built_anew(refcount_bits: int) -> None:
    file = MemoryFile()
    with Image.create(file, size_bytes=4 << 20, cluster_bytes=512, refcount_bits=refcount_bits) as image:
        image.write(0, b"x" * (1 << 20))
        if refcount_bits > 1:
            image.snapshot_create(SnapshotInfo(name="a"))
            image.write(0, b"y" * 5000)
    before = views(file)
    lose_the_refcount_table(file)
    assert repair(file).after.clean
    assert views(file) == before
