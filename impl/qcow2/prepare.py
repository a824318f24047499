"""Images that are on devices before a history begins: made as a `DeviceSpec` says, once, and handed out as clones."""

from dataclasses import replace
from functools import lru_cache
from typing import Final

from snapcheck.impl.blockfile import MemoryFile
from snapcheck.impl.qcow2.image import Image
from snapcheck.impl.qcow2.layout import DIRTY, LAZY_REFCOUNTS, Header
from snapcheck.model.content import SECTOR, ZERO, pattern, vmstate_pattern
from snapcheck.model.setup import DeviceSpec, Kind, PreparedSnapshot, Unfinished
from snapcheck.model.snapshot import SnapshotInfo

_FOREIGN_EXTENSION: Final = 1 << 40  # an autoclear bit that nobody has given a meaning
_IMAGES_KEPT: Final = 64  # of some tens of kilobytes each: making one takes a millisecond, so memory counts for more


def prepared_image(spec: DeviceSpec) -> MemoryFile:
    """Return a new file with the image that `spec` describes: its snapshots, taken in order, and its active content.

    Ids and names go into the table as they are, also when they are longer than the API allows; damage is done last.
    Equal specs give equal bytes.
    """
    file = _image(replace(spec, name="", kind=Kind.DRIVER, read_only=False, damage=())).clone()
    for damage in spec.damage:
        file.pwrite(damage.offset, damage.data)
        if damage.cut:
            file.truncate(damage.offset + len(damage.data))
    return file


@lru_cache(maxsize=_IMAGES_KEPT)
def _image(spec: DeviceSpec) -> MemoryFile:
    file = MemoryFile("prepared")
    bits = 1 if spec.unshared else 16
    with Image.create(
        file, size_bytes=spec.sectors * SECTOR, cluster_bytes=spec.cluster_bytes, refcount_bits=bits
    ) as image:
        for snapshot in spec.snapshots:
            _stamp(image, snapshot.sectors, snapshot.tag)
            _take(image, snapshot)
        if spec.packed:
            _pack(image, spec)
        else:
            _stamp(image, spec.sectors, spec.tag)
    if spec.unfinished is not None:
        _leave_unfinished(file, spec.unfinished)
    return file


def _leave_unfinished(file: MemoryFile, what: Unfinished) -> None:
    """Leave something to the next open: counts that miss what was allocated last, or an autoclear bit."""
    header = Header.parse(file.pread(0, SECTOR))
    if what is Unfinished.COUNTS:
        block = int.from_bytes(file.pread(header.refcount_table_offset, 8), "big")
        counted = file.size() // header.cluster_bytes // 2
        file.pwrite(block + counted * 2, bytes(header.cluster_bytes - counted * 2))
        header = header._replace(incompatible=header.incompatible | DIRTY, compatible=LAZY_REFCOUNTS)
    else:
        header = header._replace(autoclear=header.autoclear | _FOREIGN_EXTENSION)
    file.pwrite(0, header.pack())


def _stamp(image: Image, sectors: int, tag: int) -> None:
    """Give the active state `sectors` sectors of `tag`; zeroes take no room."""
    image.resize(sectors * SECTOR)
    if tag == ZERO:
        image.write_zeroes(0, sectors * SECTOR)
    else:
        image.write(0, pattern(tag=tag, sector=0, count=sectors))


def _pack(image: Image, spec: DeviceSpec) -> None:
    """Give the active state the device's sectors of its tag, in compressed clusters."""
    _stamp(image, spec.sectors, ZERO)
    step = spec.cluster_bytes // SECTOR
    for sector in range(0, spec.sectors, step):
        data = pattern(tag=spec.tag, sector=sector, count=min(step, spec.sectors - sector))
        image.write_compressed(sector * SECTOR, data)


def _take(image: Image, snapshot: PreparedSnapshot) -> None:
    image.vmstate_write(0, vmstate_pattern(tag=snapshot.tag, offset=0, length=snapshot.vm_state_size))
    info = SnapshotInfo(
        snapshot.id_str, snapshot.name, snapshot.vm_state_size, snapshot.date_sec, snapshot.date_nsec,
        snapshot.vm_clock_nsec,
    )  # fmt: skip
    image.add_snapshot(info, extra=snapshot.extra)
