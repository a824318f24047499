"""Stories of prepared images: what a spec asks for is on the image, and asking costs next to nothing."""

from dataclasses import replace

import pytest
from snapcheck.impl.blockfile import MemoryFile
from snapcheck.impl.qcow2.check import inspect
from snapcheck.impl.qcow2.image import Image
from snapcheck.impl.qcow2.prepare import prepared_image
from snapcheck.model.content import pattern, vmstate_pattern
from snapcheck.model.setup import DeviceSpec, Kind, PreparedSnapshot
from snapcheck.model.snapshot import SnapshotInfo

FULL = DeviceSpec(
    "d0", sectors=50, cluster_bytes=512, tag=9,
    snapshots=(
        PreparedSnapshot("18446744073709551615", "n" * 300, sectors=50, tag=11),
        PreparedSnapshot("x", "", sectors=24, tag=12, vm_state_size=765, date_sec=1, date_nsec=2, vm_clock_nsec=3),
        PreparedSnapshot("x", "\udcff", sectors=200, tag=0, extra=b"\xee" * 24),
    ),
)  # fmt: skip


def all_of(file: MemoryFile) -> bytes:
    return file.pread(0, file.size())


@pytest.mark.parametrize("cluster_bytes", [512, 4096, 65536])
def test_the_image_holds_what_the_spec_says(cluster_bytes: int) -> None:
    spec = replace(FULL, cluster_bytes=cluster_bytes)
    file = prepared_image(spec)
    assert inspect(file).clean
    with Image.open(file) as image:
        assert image.header.cluster_bytes == cluster_bytes
        assert image.read(0, image.size_bytes) == pattern(tag=9, sector=0, count=50)
        assert image.vmstate_read(0, 765) == bytes(765)
        stored = [(entry.info, entry.disk_size, entry.extra) for entry in image.snapshots]
    assert stored == [
        (SnapshotInfo("18446744073709551615", "n" * 300), 50 * 512, b""),
        (SnapshotInfo("x", "", 765, 1, 2, 3), 24 * 512, b""),
        (SnapshotInfo("x", "\udcff"), 200 * 512, b"\xee" * 24),
    ]


def test_each_snapshot_holds_its_tag_and_its_vm_state() -> None:
    with Image.open(prepared_image(FULL)) as image:
        image.snapshot_goto("18446744073709551615")
        assert image.read(0, image.size_bytes) == pattern(tag=11, sector=0, count=50)
        image.snapshot_goto("x")
        assert image.read(0, image.size_bytes) == pattern(tag=12, sector=0, count=24)
        assert image.vmstate_read(0, 765) == vmstate_pattern(tag=12, offset=0, length=765)
        image.snapshot_goto("\udcff")
        assert image.read(0, image.size_bytes) == bytes(200 * 512)


def test_a_device_that_was_never_written_holds_nothing() -> None:
    file = prepared_image(DeviceSpec("d0", sectors=128, tag=0))
    assert inspect(file).clean
    assert file.size() == 4 * 4096  # the header, the refcounts and an L1 table
    with Image.open(file) as image:
        assert image.read(0, 65536) == bytes(65536)


def test_equal_specs_give_equal_bytes_whatever_the_device_is_called() -> None:
    other = replace(FULL, name="d7", kind=Kind.RAW_OVER, read_only=True)
    assert all_of(prepared_image(FULL)) == all_of(prepared_image(other))


def test_what_a_history_does_to_its_image_does_not_show_in_the_next_one() -> None:
    first = prepared_image(FULL)
    before = all_of(first)
    with Image.open(first) as image:
        image.snapshot_delete("x", None)
        image.write(0, b"y" * 25600)
    assert all_of(prepared_image(FULL)) == before


@pytest.mark.parametrize("spec", [FULL, replace(FULL, cluster_bytes=4096, sectors=33), replace(FULL, snapshots=())])
def test_what_is_packed_reads_the_same_and_takes_less_room(spec: DeviceSpec) -> None:
    plain, packed = prepared_image(spec), prepared_image(replace(spec, packed=True))
    assert inspect(packed).clean
    assert packed.size() < plain.size()
    with Image.open(packed) as image:
        assert image.read(0, image.size_bytes) == pattern(tag=9, sector=0, count=spec.sectors)
