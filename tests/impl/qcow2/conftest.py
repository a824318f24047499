"""What the stories of the qcow2 engine share: looking at all of an image, and an image with a past."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from snapcheck.impl.blockfile import BlockFile, MemoryFile
from snapcheck.impl.qcow2.image import Image
from snapcheck.model.snapshot import SnapshotInfo

VMSTATE_BYTES = 1500


@dataclass(frozen=True)
class Seen:
    """All that the users of an image can see: its size, content and VM state, its list, and what each snapshot holds."""

    size: int
    content: bytes
    vmstate: bytes
    snapshots: tuple[SnapshotInfo, ...]
    kept: tuple[tuple[int, bytes, bytes], ...] = ()


def _seen(image: Image) -> Seen:
    content = image.read(0, image.size_bytes)
    vmstate = image.vmstate_read(0, VMSTATE_BYTES)
    return Seen(image.size_bytes, content, vmstate, tuple(image.snapshot_list()))


def _seen_on_disk(file: BlockFile) -> Seen:
    """Look at the image in `file` through a fresh open; snapshots by going to each on a copy."""
    with Image.open(file.clone(), read_only=True) as image:
        seen = _seen(image)
    kept: list[tuple[int, bytes, bytes]] = []
    for entry in seen.snapshots:
        with Image.open(file.clone()) as copy:
            copy.snapshot_goto(entry.id_str)
            there = _seen(copy)
            kept.append((there.size, there.content, there.vmstate))
    return Seen(seen.size, seen.content, seen.vmstate, seen.snapshots, tuple(kept))


def _image_with_a_past(cluster_bytes: int) -> MemoryFile:
    """Two snapshots that share clusters with each other and with the active state, VM state, and holes."""
    file = MemoryFile("base")
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


@pytest.fixture
def seen() -> Callable[[Image], Seen]:
    return _seen


@pytest.fixture
def seen_on_disk() -> Callable[[BlockFile], Seen]:
    return _seen_on_disk


@pytest.fixture
def image_with_a_past() -> Callable[[int], MemoryFile]:
    return _image_with_a_past
