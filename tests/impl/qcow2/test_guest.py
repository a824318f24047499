"""Stories of guest I/O: what goes where, and what is shared stays as it was."""

import pytest
from snapcheck.fault_injection.plan import FaultPlan
from snapcheck.impl.blockfile import BlockError, MemoryFile
from snapcheck.impl.qcow2.check import ClusterKind
from snapcheck.impl.qcow2.image import Image
from snapcheck.model.errno import Errno
from snapcheck.model.history import EventList, Io
from snapcheck.model.snapshot import SnapshotInfo

CLUSTER = 4096


@pytest.fixture
def image() -> Image:
    return Image.create(MemoryFile(), size_bytes=16 * CLUSTER, cluster_bytes=CLUSTER)


def data_clusters(image: Image) -> int:
    report = image.check()
    assert report.clean, report.problems
    return report.cluster_counts()[ClusterKind.DATA]


def test_a_part_of_a_cluster_leaves_the_rest_of_it_zero(image: Image) -> None:
    image.write(CLUSTER + 100, b"x" * 50)
    assert image.read(0, 3 * CLUSTER) == bytes(CLUSTER + 100) + b"x" * 50 + bytes(2 * CLUSTER - 150)
    assert data_clusters(image) == 1


def test_a_long_read_of_scattered_clusters_returns_what_short_ones_do() -> None:
    image = Image.create(MemoryFile(), size_bytes=200 * 512, cluster_bytes=512)
    for place in (*range(120, 60, -1), *range(10, 50), 150, 152):  # downwards: no two of these go on in the file
        image.write(place * 512, bytes([place]) * 512)
    image.snapshot_create(SnapshotInfo(name="a"))
    image.write(20 * 512, b"own" * 512)
    image.discard(30 * 512, 1024)
    assert image.read(0, 200 * 512) == b"".join(image.read(place * 512, 512) for place in range(200))
    assert image.read(700, 90000) == image.read(0, 200 * 512)[700:90700]


def test_writing_in_place_takes_no_room_and_one_io() -> None:
    events = EventList()
    image = Image.create(FaultPlan(events).wrap_file("d0", MemoryFile()), size_bytes=65536, cluster_bytes=CLUSTER)
    image.write(0, b"x" * CLUSTER)
    events.take()
    image.write(512, b"y" * 512)
    assert [(event.kind, event.length, event.region) for event in events.take() if isinstance(event, Io)] == [
        ("write", 512, "data")
    ]


def test_what_a_snapshot_shares_is_copied_and_stays(image: Image) -> None:
    image.write(0, b"1" * (4 * CLUSTER))
    image.snapshot_create(SnapshotInfo(name="a"))
    image.write(CLUSTER + 10, b"2" * CLUSTER)
    assert image.check().cluster_counts()[ClusterKind.SNAPSHOT_DATA] == 2
    assert image.read(CLUSTER, 2 * CLUSTER) == b"1" * 10 + b"2" * CLUSTER + b"1" * (CLUSTER - 10)
    image.snapshot_goto("a")
    assert image.read(0, 4 * CLUSTER) == b"1" * (4 * CLUSTER)


def test_zeroes_free_whole_clusters_and_fill_parts(image: Image) -> None:
    image.write(0, b"x" * (4 * CLUSTER))
    image.write_zeroes(512, 3 * CLUSTER)
    assert image.read(0, 4 * CLUSTER) == b"x" * 512 + bytes(3 * CLUSTER) + b"x" * (CLUSTER - 512)
    assert data_clusters(image) == 2


def test_zeroes_within_one_cluster_leave_both_sides(image: Image) -> None:
    image.write(0, b"x" * CLUSTER)
    image.write_zeroes(100, 200)
    assert image.read(0, 400) == b"x" * 100 + bytes(200) + b"x" * 100


def test_zeroes_where_nothing_was_written_take_no_room(image: Image) -> None:
    image.write_zeroes(100, 3 * CLUSTER)
    assert data_clusters(image) == 0


def test_a_discard_frees_whole_clusters_in_the_file_too() -> None:
    events = EventList()
    image = Image.create(FaultPlan(events).wrap_file("d0", MemoryFile()), size_bytes=65536, cluster_bytes=CLUSTER)
    image.write(0, b"x" * (4 * CLUSTER))
    events.take()
    image.discard(512, 4 * CLUSTER - 512)
    discards = [event for event in events.take() if isinstance(event, Io) and event.kind == "discard"]
    assert [event.length for event in discards] == [3 * CLUSTER]
    assert image.read(0, 4 * CLUSTER) == b"x" * CLUSTER + bytes(3 * CLUSTER)


def test_a_discard_of_what_a_snapshot_holds_leaves_it_to_the_snapshot() -> None:
    events = EventList()
    image = Image.create(FaultPlan(events).wrap_file("d0", MemoryFile()), size_bytes=65536, cluster_bytes=CLUSTER)
    image.write(0, b"x" * (2 * CLUSTER))
    image.snapshot_create(SnapshotInfo(name="a"))
    image.discard(0, 2 * CLUSTER)
    assert not [event for event in events.take() if isinstance(event, Io) and event.kind == "discard"]
    assert image.read(0, 2 * CLUSTER) == bytes(2 * CLUSTER)
    image.snapshot_goto("a")
    assert image.read(0, 2 * CLUSTER) == b"x" * (2 * CLUSTER)


def test_the_last_cluster_of_an_odd_disk_is_freed_as_a_whole() -> None:
    image = Image.create(MemoryFile(), size_bytes=CLUSTER + 512, cluster_bytes=CLUSTER)
    image.write(0, b"x" * (CLUSTER + 512))
    image.write_zeroes(CLUSTER, 512)
    assert data_clusters(image) == 1


def test_a_table_that_maps_nothing_any_more_is_let_go_of_when_it_is_shared(image: Image) -> None:
    image.write(0, b"x" * (2 * CLUSTER))
    image.snapshot_create(SnapshotInfo(name="a"))
    image.discard(0, 16 * CLUSTER)
    assert image.check().cluster_counts()[ClusterKind.L2] == 1  # the snapshot's


@pytest.mark.parametrize(("offset", "length"), [(16 * CLUSTER, 1), (0, 16 * CLUSTER + 1), (-512, 512)])
def test_io_outside_the_disk_is_refused(image: Image, offset: int, length: int) -> None:
    for call in (
        lambda: image.read(offset, length), lambda: image.write(offset, bytes(length)),
        lambda: image.write_zeroes(offset, length), lambda: image.discard(offset, length),
    ):  # fmt: skip
        with pytest.raises(BlockError) as caught:
            call()
        assert caught.value.errno is Errno.EIO


def test_nothing_written_changes_nothing(image: Image) -> None:
    image.write(0, b"")
    image.write_zeroes(0, 0)
    image.discard(0, 0)
    image.vmstate_write(0, b"")
    assert data_clusters(image) == 0


def test_vm_state_lies_beside_the_disk_and_may_be_anywhere(image: Image) -> None:
    image.write(15 * CLUSTER, b"d" * CLUSTER)
    image.vmstate_write(5_000_000, b"far")
    image.vmstate_write(3, b"near")
    assert image.vmstate_read(0, 10) == b"\0\0\0near\0\0\0"
    assert image.vmstate_read(4_999_999, 5) == b"\0far\0"
    assert image.read(15 * CLUSTER, CLUSTER) == b"d" * CLUSTER
    assert image.check().clean


@pytest.mark.parametrize("offset", [-1, 1 << 62, 1 << 63])
def test_vm_state_out_of_reach_is_refused(image: Image, offset: int) -> None:
    with pytest.raises(BlockError) as caught:
        image.vmstate_write(offset, b"x")
    assert caught.value.errno is Errno.EFBIG
