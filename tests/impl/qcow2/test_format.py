"""Stories of formatting: every cluster size and every disk size gives a clean image, or a clear refusal."""

from contextlib import suppress

import pytest
from snapcheck.fault_injection.plan import FaultPlan
from snapcheck.impl.blockfile import BlockError, MemoryFile
from snapcheck.impl.qcow2.check import inspect
from snapcheck.impl.qcow2.image import Image
from snapcheck.impl.qcow2.layout import ImageError
from snapcheck.model.errno import Errno
from snapcheck.model.faults import Fails, IoFault
from snapcheck.model.history import EventList, FaultMet


@pytest.mark.parametrize("bits", range(9, 22))
@pytest.mark.parametrize("size", [0, 512, 65536, 3 << 20])
def test_every_cluster_size_gives_a_clean_empty_image(bits: int, size: int) -> None:
    file = MemoryFile()
    with Image.create(file, size_bytes=size, cluster_bytes=1 << bits) as image:
        assert image.size_bytes == size
        assert image.read(0, size) == bytes(size)
        assert image.check().clean


def test_a_large_disk_of_small_clusters_needs_many_tables_and_is_clean() -> None:
    file = MemoryFile()
    with Image.create(file, size_bytes=64 << 30, cluster_bytes=512) as image:  # an L1 table of 16 MiB
        assert image.header.refcount_table_clusters > 1
        image.write((64 << 30) - 512, b"x" * 512)
        assert image.check().clean


@pytest.mark.parametrize(
    ("size", "cluster_bytes", "errno"),
    [(-512, 4096, Errno.EINVAL), (100, 4096, Errno.EINVAL), (1 << 40, 512, Errno.EFBIG)],
)
def test_a_disk_that_can_not_be_is_refused_and_the_file_left_alone(size: int, cluster_bytes: int, errno: Errno) -> None:
    file = MemoryFile("m", b"precious")
    with pytest.raises(BlockError, match="size_bytes") as caught:
        Image.create(file, size_bytes=size, cluster_bytes=cluster_bytes)
    assert caught.value.errno is errno
    assert file.pread(0, file.size()) == b"precious"


def test_formatting_that_fails_half_way_leaves_no_image() -> None:
    ends: list[str] = []
    for at in range(1, 50):
        medium, events = MemoryFile("m", bytes(100)), EventList()
        plan = FaultPlan(events)
        disk = plan.wrap_file("d0", medium)
        plan.arm([IoFault("d0", "any", Fails(), at=at, times=0)])
        with suppress(BlockError):
            Image.create(disk, size_bytes=65536, cluster_bytes=4096)
        plan.disarm()
        if not any(isinstance(event, FaultMet) for event in events.take()):
            break
        ends.append(what_is_in(medium))
    written = ends.index("a clean image")
    assert set(ends[:written]) == {"magic"}
    assert set(ends[written:]) == {"a clean image"}  # only the last flush or the open failed
    assert written > 3


def what_is_in(file: MemoryFile) -> str:
    try:
        return "a clean image" if inspect(file).clean else "a damaged image"
    except ImageError as refusal:
        return str(refusal).split(":", 1)[0]
