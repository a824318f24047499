"""Persistent dirty bitmaps (SPEC B.10): they stay in the image, and stay true although nobody counts single writes.

Before the first guest write each bitmap that is recording is made to say that everything has changed. That is coarse
and never wrong: a backup by it copies too much and never too little. One that is not recording stays as it is.
"""

import struct
from typing import Final, NamedTuple

from snapcheck.impl.blockfile import BlockFile
from snapcheck.impl.qcow2.extensions import BitmapDirectory, Extensions
from snapcheck.impl.qcow2.layout import BITMAPS, OFFSET_MASK, Header, ImageError, ceil_div, require_table

BITMAPS_MAX: Final = 65535
DIRECTORY_BYTES_MAX: Final = BITMAPS_MAX * 1024
TABLE_ENTRIES_MAX: Final = 0x800_0000
ALL_ONES: Final = 1
_IN_USE: Final = 1 << 0
_RECORDING: Final = 1 << 1
_FLAGS_KNOWN: Final = 0b111
_TYPE_DIRTY: Final = 1
_GRANULARITY_BITS: Final = range(9, 32)
_ENTRY = struct.Struct(">QIIBBHI")


class Bitmap(NamedTuple):
    """One entry of the directory."""

    name: str
    table_offset: int
    table_entries: int
    flags: int

    @property
    def in_use(self) -> bool:
        """Tell whether whoever had the bitmap open did not write it back: its content means nothing."""
        return bool(self.flags & _IN_USE)

    @property
    def recording(self) -> bool:
        return bool(self.flags & _RECORDING)


def read_bitmaps(file: BlockFile, header: Header, extensions: Extensions) -> tuple[Bitmap, ...]:
    """Return the bitmaps of an image: none when the image says that they are out of date."""
    directory = extensions.bitmaps
    if directory is None or not header.autoclear & BITMAPS:
        return ()
    if directory.bitmaps > BITMAPS_MAX:
        raise ImageError(f"bitmaps: {directory.bitmaps} are more than {BITMAPS_MAX}")
    require_table(
        "bitmap_directory", directory.offset, directory.length, header, bytes_max=DIRECTORY_BYTES_MAX,
        file_bytes=file.size(),
    )  # fmt: skip
    raw = file.pread(directory.offset, directory.length, region="header")
    return tuple(_parsed(raw, directory, header, file.size()))


def _parsed(raw: bytes, directory: BitmapDirectory, header: Header, file_bytes: int) -> list[Bitmap]:
    found: list[Bitmap] = []
    place = 0
    for index in range(directory.bitmaps):
        if place + _ENTRY.size > len(raw):
            raise ImageError(f"bitmap_directory: it ends within entry {index} of {directory.bitmaps}")
        offset, entries, flags, kind, granularity_bits, name_length, extra_length = _ENTRY.unpack_from(raw, place)
        if flags & ~_FLAGS_KNOWN or kind != _TYPE_DIRTY or granularity_bits not in _GRANULARITY_BITS:
            raise ImageError(
                f"bitmap_directory: entry {index} is of an unknown kind: flags {flags:#x}, type {kind},"
                f" granularity_bits {granularity_bits}"
            )
        name_at = place + _ENTRY.size + extra_length
        if name_at + name_length > len(raw):
            raise ImageError(f"bitmap_directory: it ends within entry {index} of {directory.bitmaps}")
        needed = ceil_div(ceil_div(header.size, 1 << granularity_bits), 8 * header.cluster_bytes)
        if entries < needed:
            raise ImageError(f"bitmap {index}: table_size {entries}, the size of the disk needs {needed}")
        name = raw[name_at : name_at + name_length].decode("utf-8", "replace")
        require_table(
            f"bitmap {index}: table", offset, entries * 8, header, bytes_max=TABLE_ENTRIES_MAX * 8,
            file_bytes=file_bytes,
        )  # fmt: skip
        found.append(Bitmap(name, offset, entries, flags))
        place = name_at + name_length
        place += -place % 8
    return found


def clusters_in(table: bytes) -> list[int]:
    """Return the offsets of the clusters that a bitmap's table refers to."""
    entries = struct.unpack(f">{len(table) // 8}Q", table)
    return [entry & OFFSET_MASK for entry in entries if entry & OFFSET_MASK]
