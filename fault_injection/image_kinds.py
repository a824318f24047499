"""Sound qcow2 images of every kind, small ones, to be wrecked field by field (image_damage.py)."""

import struct
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Final

from snapcheck.impl.blockfile import MemoryFile
from snapcheck.impl.qcow2.extensions import pack_extension
from snapcheck.impl.qcow2.image import Image
from snapcheck.impl.qcow2.layout import BITMAPS, COPIED, EXTENDED_L2
from snapcheck.impl.qcow2.repair import repair
from snapcheck.impl.qcow2.state import read_header
from snapcheck.model.snapshot import SnapshotInfo

_BITMAPS_EXTENSION: Final = 0x2385_2875


def _with_a_past(
    *, cluster_bytes: int = 512, version: int = 3, refcount_bits: int = 16, compression: str = "zlib"
) -> MemoryFile:
    """Return one with two snapshots, VM state, holes and compressed clusters."""
    file = MemoryFile("d0")
    with Image.create(
        file, size_bytes=96 * cluster_bytes, cluster_bytes=cluster_bytes, version=version,
        refcount_bits=refcount_bits, compression=compression,
    ) as image:  # fmt: skip
        image.write(0, b"1" * (12 * cluster_bytes))
        for cluster in range(40, 46):
            image.write_compressed(cluster * cluster_bytes, bytes([cluster]) * cluster_bytes)
        if refcount_bits == 1:  # nothing can be shared
            return file
        image.vmstate_write(0, b"V" * 700)
        image.snapshot_create(SnapshotInfo(name="a", vm_state_size=700, date_sec=1))
        image.write(4 * cluster_bytes, b"2" * (4 * cluster_bytes))
        image.snapshot_create(SnapshotInfo(name="b", date_sec=2))
        image.write(6 * cluster_bytes + 100, b"3" * (2 * cluster_bytes))
        image.write_zeroes(41 * cluster_bytes, cluster_bytes)
    return file


def _with_a_bitmap() -> MemoryFile:
    """Return one with a dirty bitmap that is recording: its directory, table and one cluster of content at the end."""
    file = _with_a_past(cluster_bytes=4096)
    directory, size = file.size(), 4096
    entry = struct.pack(">QIIBBHI", directory + size, 1, 2, 1, 16, 1, 0) + b"b"
    file.pwrite(directory, entry.ljust(size, b"\0"))
    file.pwrite(directory + size, (directory + 2 * size).to_bytes(8, "big").ljust(size, b"\0"))
    file.pwrite(directory + 2 * size, b"\xff" * size)
    body = struct.pack(">IIQQ", 1, 0, len(entry) + -len(entry) % 8, directory)
    file.pwrite(104, pack_extension(_BITMAPS_EXTENSION, body))
    file.pwrite(88, BITMAPS.to_bytes(8, "big"))
    repair(file)  # counts what was added
    return file


def _with_extended_l2() -> MemoryFile:
    """Return one whose L2 entry tells parts apart: one is written, one reads as zeroes, the others neither."""
    file, size = MemoryFile("d0"), 16384
    Image.create(file, size_bytes=1 << 20, cluster_bytes=size).close()
    table = file.size()
    file.pwrite(72, EXTENDED_L2.to_bytes(8, "big"))
    file.pwrite(read_header(file).l1_offset, (table | COPIED).to_bytes(8, "big"))
    file.pwrite(table, struct.pack(">QQ", table + size | COPIED, 1 << 33 | 1).ljust(size, b"\0"))
    file.pwrite(table + size, b"x" * size)
    repair(file)
    return file


KINDS: Final[Mapping[str, Callable[[], MemoryFile]]] = {
    "version 3": _with_a_past,
    "clusters of 4 KiB": lambda: _with_a_past(cluster_bytes=4096),
    "version 2": lambda: _with_a_past(version=2),
    "refcounts of 1 bit": lambda: _with_a_past(refcount_bits=1),
    "refcounts of 8 bits": lambda: _with_a_past(refcount_bits=8),
    "refcounts of 64 bits": lambda: _with_a_past(refcount_bits=64),
    "a dirty bitmap": _with_a_bitmap,
    "extended L2 entries": _with_extended_l2,
}


@lru_cache(maxsize=len(KINDS))
def _made(kind: str) -> MemoryFile:
    return KINDS[kind]()


def sound_image(kind: str) -> MemoryFile:
    """Return a new image of that kind, to do with as one likes."""
    return _made(kind).clone()
