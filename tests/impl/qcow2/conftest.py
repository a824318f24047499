"""What the stories of the qcow2 engine share: an image with a past, and where its numbers are in the file."""

from collections.abc import Callable

import pytest
from snapcheck.impl.blockfile import BlockFile, MemoryFile
from snapcheck.impl.qcow2.image import Image
from snapcheck.impl.qcow2.state import read_header
from snapcheck.model.snapshot import SnapshotInfo

POINTER = (1 << 56) - 512


@pytest.fixture
def image_with_a_past() -> Callable[[int], MemoryFile]:
    """Two snapshots that share clusters with each other and with the active state, VM state, and holes."""

    def make(cluster_bytes: int) -> MemoryFile:
        file = MemoryFile("past")
        with Image.create(file, size_bytes=128 * cluster_bytes, cluster_bytes=cluster_bytes) as image:
            image.write(0, b"1" * (24 * cluster_bytes))
            image.write(90 * cluster_bytes, b"1" * (6 * cluster_bytes))
            image.vmstate_write(0, b"V" * 700)
            image.snapshot_create(SnapshotInfo(name="a", vm_state_size=700, date_sec=1))
            image.write(4 * cluster_bytes, b"2" * (4 * cluster_bytes))
            image.snapshot_create(SnapshotInfo(name="b", date_sec=2))
            image.write(6 * cluster_bytes + 512, b"3" * (2 * cluster_bytes))
            image.write(30 * cluster_bytes, b"3" * (2 * cluster_bytes))
            image.vmstate_write(0, b"W" * 900)
        return file

    return make


@pytest.fixture
def word_at() -> Callable[[BlockFile, int], int]:
    """Read the 64-bit number at an offset of a file."""
    return _word_at


def _word_at(file: BlockFile, offset: int) -> int:
    return int.from_bytes(file.pread(offset, 8), "big")


@pytest.fixture
def l2_place() -> Callable[[BlockFile, int], int]:
    """Return where in the file the active L2 entry of a guest cluster is."""

    def place(file: BlockFile, guest_cluster: int) -> int:
        header = read_header(file)
        index, slot = divmod(guest_cluster, header.cluster_bytes // 8)
        return (_word_at(file, header.l1_offset + 8 * index) & POINTER) + 8 * slot

    return place


@pytest.fixture
def refcount_place() -> Callable[[BlockFile, int], int]:
    """Return where in the file the refcount of the cluster at an offset is."""

    def place(file: BlockFile, offset: int) -> int:
        header = read_header(file)
        index, slot = divmod(offset // header.cluster_bytes, header.cluster_bytes // 2)
        return _word_at(file, header.refcount_table_offset + 8 * index) + 2 * slot

    return place
