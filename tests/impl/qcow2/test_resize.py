"""Stories of resizing: what goes is gone, what comes is zero, snapshots keep theirs."""

from collections.abc import Callable

import pytest
from snapcheck.impl.blockfile import BlockError, MemoryFile
from snapcheck.impl.qcow2.check import ClusterKind
from snapcheck.impl.qcow2.image import Image
from snapcheck.model.errno import Errno
from snapcheck.model.snapshot import SnapshotInfo

CLUSTER = 512
SPAN = CLUSTER * CLUSTER // 8  # what one L2 table maps


@pytest.fixture
def image() -> Image:
    image = Image.create(MemoryFile(), size_bytes=3 * SPAN, cluster_bytes=CLUSTER)
    image.write(0, b"x" * (3 * SPAN))
    return image


@pytest.mark.parametrize("size", [0, 512, SPAN - 512, SPAN, SPAN + 512, 2 * SPAN + 5 * CLUSTER])
def test_what_was_cut_off_reads_as_zeroes_when_the_disk_grows_again(image: Image, size: int) -> None:
    image.resize(size)
    assert image.check().clean
    assert image.check().cluster_counts()[ClusterKind.DATA] == size // CLUSTER  # nothing behind the end is kept
    image.resize(4 * SPAN)
    assert image.read(0, 4 * SPAN) == (b"x" * size).ljust(4 * SPAN, b"\0")
    assert image.check().clean


@pytest.mark.parametrize("size", [512, SPAN, SPAN + 1024])
def test_a_snapshot_keeps_what_the_active_disk_loses(image: Image, size: int) -> None:
    image.snapshot_create(SnapshotInfo(name="a"))
    image.resize(size)
    image.write(0, b"y" * size)
    image.snapshot_goto("a")
    assert image.size_bytes == 3 * SPAN
    assert image.read(0, 3 * SPAN) == b"x" * (3 * SPAN)
    assert image.check().clean


def test_half_a_cluster_behind_the_end_does_not_come_to_light() -> None:
    image = Image.create(MemoryFile(), size_bytes=8192, cluster_bytes=4096)
    image.write(0, b"x" * 8192)
    image.resize(4608)
    image.resize(8192)
    assert image.read(0, 8192) == (b"x" * 4608).ljust(8192, b"\0")


@pytest.mark.parametrize("size", [SPAN, 4 * SPAN])
def test_vm_state_goes_and_never_becomes_data(image: Image, size: int) -> None:
    image.vmstate_write(0, b"s" * 3000)
    image.resize(size)
    assert image.vmstate_read(0, 3000) == bytes(3000)
    assert b"s" not in image.read(0, size)
    assert image.check().clean


@pytest.mark.parametrize(("size", "errno"), [(-512, Errno.EINVAL), (100, Errno.EINVAL), (1 << 40, Errno.EFBIG)])
def test_a_size_that_can_not_be_is_refused_and_changes_nothing(image: Image, size: int, errno: Errno) -> None:
    with pytest.raises(BlockError) as caught:
        image.resize(size)
    assert caught.value.errno is errno
    assert image.size_bytes == 3 * SPAN


def test_a_table_that_refers_to_nowhere_is_not_shortened(
    l2_place: Callable[[MemoryFile, int], int],
) -> None:
    file = MemoryFile()
    with Image.create(file, size_bytes=SPAN, cluster_bytes=CLUSTER) as image:
        image.write(0, b"x" * SPAN)
    file.pwrite(l2_place(file, 40), (1 << 50).to_bytes(8, "big"))
    before = file.pread(0, file.size())
    with Image.open(file) as image, pytest.raises(BlockError, match="corrupt"):
        image.resize(5 * CLUSTER)
    assert file.pread(0, file.size()) == before
