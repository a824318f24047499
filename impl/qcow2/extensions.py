"""Header extensions: what stands between the header and the end of the first cluster (or the backing file's name).

Only what is understood here is decoded; everything stays on the medium as it is, as nothing ever rewrites it.
"""

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from snapcheck.impl.qcow2.layout import Header, ImageError, NeedMoreError

_BACKING_FORMAT: Final = 0xE279_2ACA
_BITMAPS: Final = 0x2385_2875
_ENCRYPTION: Final = 0x0537_BE77
_HEAD = struct.Struct(">II")
_BITMAPS_BODY = struct.Struct(">IIQQ")


class BitmapDirectory(NamedTuple):
    """Where the directory of the persistent bitmaps is."""

    bitmaps: int
    length: int
    offset: int


class Extensions(NamedTuple):
    """What the extensions say."""

    backing_format: str = ""
    bitmaps: BitmapDirectory | None = None


def parse_extensions(raw: bytes, header: Header) -> Extensions:
    """Decode the extensions in `raw`, with which the image begins.

    Raises `ImageError` for one that can not be, and `NeedMoreError` when `raw` ends too early.
    """
    found = Extensions()
    for kind, data in _extensions(raw, header):
        if kind == _BACKING_FORMAT:
            found = found._replace(backing_format=data.decode("utf-8", "replace"))
        elif kind == _BITMAPS:
            found = found._replace(bitmaps=_bitmaps(data))
        elif kind == _ENCRYPTION:
            raise ImageError(f"header extension {kind:#010x}: encryption is not supported; convert the image")
    return found


def _extensions(raw: bytes, header: Header) -> Iterator[tuple[int, bytes]]:
    place = header.header_length
    end = header.backing_offset or header.cluster_bytes
    while place + _HEAD.size <= end:
        if place + _HEAD.size > len(raw):
            raise NeedMoreError(end)
        kind, length = _HEAD.unpack_from(raw, place)
        place += _HEAD.size
        if length > end - place:
            raise ImageError(f"header extension {kind:#010x}: {length} bytes do not fit in front of {end:#x}")
        if not kind:
            return
        if place + length > len(raw):
            raise NeedMoreError(end)
        yield kind, raw[place : place + length]
        place += length + -length % 8


def _bitmaps(data: bytes) -> BitmapDirectory:
    if len(data) != _BITMAPS_BODY.size:
        raise ImageError(f"header extension 0x23852875: {len(data)} bytes for bitmaps, expected {_BITMAPS_BODY.size}")
    count, _, length, offset = _BITMAPS_BODY.unpack(data)
    if not count:
        raise ImageError("header extension 0x23852875: nb_bitmaps: 0, expected 1 or more")
    return BitmapDirectory(count, length, offset)


def pack_extension(kind: int, data: bytes) -> bytes:
    """Return an extension as it is stored."""
    return _HEAD.pack(kind, len(data)) + data + bytes(-len(data) % 8)


def backing_format_extension(name: str) -> bytes:
    """Return the extension that names the format of the backing file."""
    return pack_extension(_BACKING_FORMAT, name.encode())
