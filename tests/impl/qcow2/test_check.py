"""Stories of the checker: every sort of damage is told apart, counted, and placed."""

from collections.abc import Callable
from random import Random

import pytest
from snapcheck.impl.blockfile import BlockFile, MemoryFile
from snapcheck.impl.qcow2.check import ClusterKind, Report, inspect
from snapcheck.impl.qcow2.image import Image
from snapcheck.impl.qcow2.layout import COMPRESSED, COPIED, ImageError
from snapcheck.impl.qcow2.state import read_header
from snapcheck.model.snapshot import SnapshotInfo

Place = Callable[[BlockFile, int], int]
POINTER = (1 << 56) - 512
CLUSTER = 4096


@pytest.fixture
def file() -> MemoryFile:
    """Four clusters of data, two of them shared with the one snapshot, and free room."""
    file = MemoryFile()
    with Image.create(file, size_bytes=16 * CLUSTER, cluster_bytes=CLUSTER) as image:
        image.write(0, b"1" * (3 * CLUSTER))
        image.snapshot_create(SnapshotInfo(name="a"))
        image.write(2 * CLUSTER, b"2" * (2 * CLUSTER))
    assert inspect(file).clean
    return file


def put(file: MemoryFile, place: int, value: int, length: int = 8) -> None:
    file.pwrite(place, value.to_bytes(length, "big"))


def verdict(file: MemoryFile) -> tuple[int, int, int]:
    report = inspect(file)
    return report.corruptions, report.leaks, report.copied_missing


def kinds_of(report: Report, kind: ClusterKind) -> int:
    return report.cluster_counts()[kind]


def test_a_clean_image_is_clean_and_every_cluster_has_its_kind(file: MemoryFile) -> None:
    report = inspect(file)
    counts = {kind: count for kind, count in report.cluster_counts().items() if count}
    assert counts == {
        ClusterKind.HEADER: 1, ClusterKind.REFCOUNT_TABLE: 1, ClusterKind.REFCOUNT_BLOCK: 1,
        ClusterKind.SNAPSHOT_TABLE: 1, ClusterKind.L1: 2, ClusterKind.L2: 2, ClusterKind.DATA: 4,
        ClusterKind.SNAPSHOT_DATA: 1,
    }  # fmt: skip
    assert report.as_check().messages == ()


def test_a_count_below_the_references_is_a_corruption(
    file: MemoryFile, word_at: Place, l2_place: Place, refcount_place: Place
) -> None:
    shared = word_at(file, l2_place(file, 0)) & POINTER
    put(file, refcount_place(file, shared), 1, 2)
    assert verdict(file) == (1, 0, 1)  # and with a count of 1 it should be COPIED
    assert f"cluster at {shared:#x}: refcount 1, references 2" in inspect(file).problems


def test_a_count_above_the_references_is_a_leak(
    file: MemoryFile, word_at: Place, l2_place: Place, refcount_place: Place
) -> None:
    own = word_at(file, l2_place(file, 3)) & POINTER
    put(file, refcount_place(file, own), 2, 2)
    assert verdict(file) == (0, 1, 0)  # COPIED is right: it has one reference
    put(file, refcount_place(file, file.size() - CLUSTER), 7, 2)
    assert inspect(file).leaks >= 1


def test_a_count_behind_the_end_of_the_file_is_a_leak(file: MemoryFile, refcount_place: Place) -> None:
    put(file, refcount_place(file, file.size() + 5 * CLUSTER), 1, 2)
    assert verdict(file) == (0, 1, 0)
    assert "behind the end of the file" in inspect(file).problems[0]


def test_copied_on_a_shared_cluster_is_a_corruption(file: MemoryFile, word_at: Place, l2_place: Place) -> None:
    place = l2_place(file, 0)
    put(file, place, word_at(file, place) | COPIED)
    assert verdict(file) == (1, 0, 0)
    assert "COPIED, and 2 references" in inspect(file).problems[0]


def test_copied_missing_on_an_own_cluster_or_table_is_told_apart(
    file: MemoryFile, word_at: Place, l2_place: Place
) -> None:
    place, l1 = l2_place(file, 3), read_header(file).l1_offset
    put(file, place, word_at(file, place) & ~COPIED)
    assert verdict(file) == (0, 0, 1)
    put(file, l1, word_at(file, l1) & ~COPIED)
    assert verdict(file) == (0, 0, 2)


def test_copied_in_a_snapshot_means_nothing(file: MemoryFile, word_at: Place) -> None:
    with Image.open(file, read_only=True) as image:
        l1 = image.snapshots[0].l1_offset
    l2 = word_at(file, l1) & POINTER
    put(file, l1, word_at(file, l1) ^ COPIED)
    put(file, l2, word_at(file, l2) ^ COPIED)
    assert verdict(file) == (0, 0, 0)


@pytest.mark.parametrize(
    ("pointer", "says"),
    [
        (1 << 40, "refers to no cluster of the file"),
        (512, "refers to no cluster of the file"),
        (POINTER, "refers to no cluster of the file"),
    ],
)
def test_a_pointer_that_leads_nowhere_is_a_corruption_and_its_cluster_a_leak(
    file: MemoryFile, l2_place: Place, pointer: int, says: str
) -> None:
    place = l2_place(file, 3)
    put(file, place, pointer | COPIED)
    assert verdict(file) == (1, 1, 0)
    problem = inspect(file).problems[0]
    assert says in problem
    assert f"L2 table at {place - 24:#x}: entry 3" in problem


def test_reserved_bits_are_a_corruption_and_the_rest_is_followed(
    file: MemoryFile, word_at: Place, l2_place: Place
) -> None:
    place = l2_place(file, 3)
    put(file, place, word_at(file, place) | 1 << 57)
    assert verdict(file) == (1, 0, 0)


def test_two_entries_with_one_cluster_miss_a_count(file: MemoryFile, word_at: Place, l2_place: Place) -> None:
    put(file, l2_place(file, 5), word_at(file, l2_place(file, 3)))
    assert verdict(file) == (2, 0, 0)  # too low a count, and COPIED with two references


@pytest.mark.parametrize("table", ["header", "l1", "refcount table", "refcount block"])
def test_data_over_a_table_is_an_overlap(file: MemoryFile, l2_place: Place, word_at: Place, table: str) -> None:
    header = read_header(file)
    offset = {
        "header": 0, "l1": header.l1_offset, "refcount table": header.refcount_table_offset,
        "refcount block": word_at(file, header.refcount_table_offset),
    }[table]  # fmt: skip
    put(file, l2_place(file, 9), offset)
    report = inspect(file)
    expected = 0 if table == "header" else 1  # an entry that names cluster 0 names nothing
    assert kinds_of(report, ClusterKind.CONFLICT) == expected
    assert bool(report.corruptions) is bool(expected)


def test_tables_over_each_other_are_an_overlap(file: MemoryFile) -> None:
    put(file, 40, read_header(file).refcount_table_offset)  # the L1 table's offset
    report = inspect(file)
    assert kinds_of(report, ClusterKind.CONFLICT) == 2  # the table, and the block that it names, now an L2 table too
    assert report.corruptions > 0


def test_a_refcount_block_that_is_named_twice_is_read_once(file: MemoryFile, word_at: Place) -> None:
    table = read_header(file).refcount_table_offset
    put(file, table + 8, word_at(file, table))
    report = inspect(file)
    assert (report.corruptions, report.leaks) == (1, 0)
    assert "entry 1 refers to the same block" in report.problems[0]


def test_a_refcount_block_that_is_not_there_counts_nothing(file: MemoryFile) -> None:
    put(file, read_header(file).refcount_table_offset, 0)
    report = inspect(file)
    assert report.leaks == 0
    assert report.corruptions == file.size() // CLUSTER - 1  # all but the block, which nothing refers to any more


@pytest.mark.parametrize(("field", "value"), [(0, 100), (0, 1 << 40), (8, 0xFFFF_FFFF)])
def test_a_snapshot_with_an_impossible_l1_table_is_a_corruption_and_the_rest_is_checked(
    file: MemoryFile, field: int, value: int
) -> None:
    table = read_header(file).snapshots_offset
    put(file, table + field, value, 8 if field == 0 else 4)
    report = inspect(file)
    assert "snapshot 0: l1_table" in report.problems[0]
    assert report.corruptions == 1
    assert report.leaks == 1 + 1 + 3  # what its tree referred to: both tables, and its data


def test_compressed_data_counts_for_every_cluster_that_it_touches(file: MemoryFile, l2_place: Place) -> None:
    """Two clusters from the middle of one on: 62 - (12 - 8) bits of offset, and then sectors less one."""
    start = file.size()
    file.truncate(start + 2 * CLUSTER)
    put(file, l2_place(file, 9), COMPRESSED | 7 << 58 | (start + 2048))
    assert verdict(file) == (2, 0, 0)
    file.truncate(start + CLUSTER)
    assert "behind the end of the file" in inspect(file).problems[0]


def test_a_large_number_of_problems_is_counted_and_not_all_told(file: MemoryFile, refcount_place: Place) -> None:
    file.pwrite(refcount_place(file, file.size()), b"\0\1" * 500)
    report = inspect(file)
    assert report.leaks == 500
    assert len(report.problems) == 50


def test_snapshots_whose_l1_tables_are_more_than_the_file_can_hold_are_not_read() -> None:
    """65,536 entries that all name the same large L1 table would take hours if each was followed."""
    file = MemoryFile()
    with Image.create(file, size_bytes=8 << 20, cluster_bytes=512) as image:
        image.write(0, b"x" * 512)
        image.snapshot_create(SnapshotInfo(name="a"))
        entry = image.snapshots[0].pack()
    padded = entry + bytes(-len(entry) % 8)
    count, offset = 60000, file.size() // 512 * 512 + 512
    file.pwrite(offset, padded * count)
    put(file, 60, count, 4)
    put(file, 64, offset)
    report = inspect(file)
    assert any("more L1 tables than the file can hold" in problem for problem in report.problems)


@pytest.mark.parametrize("seed", range(8))
def test_garbage_ends_in_a_report_or_in_a_clear_refusal(
    image_with_a_past: Callable[[int], MemoryFile], seed: int
) -> None:
    rng = Random(seed)  # noqa: S311  # chance for a test, no secret
    for _ in range(30):
        file = image_with_a_past(512).clone()
        for _ in range(rng.randint(1, 20)):
            start = rng.choice((104, file.size() // 512 * 256, rng.randrange(104, file.size())))
            file.pwrite(start, rng.randbytes(rng.choice((1, 8, 512))))
        assert _lines_told(file) <= 150


def _lines_told(file: MemoryFile) -> int:
    try:
        return len(inspect(file).problems)
    except ImageError as refusal:
        return len(str(refusal).splitlines())
