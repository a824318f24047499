"""What a device holds, small enough to compare at every step: one byte, the tag, for each 512-byte sector.

A guest write stamps sectors with a tag. The bytes on the device are made of the tag *and* the sector's number, so that
data that ends up in the wrong place is seen. Tag 0 is zeroes; `FOREIGN` stands for anything that nobody wrote there.
"""

from typing import Final

import numpy as np

SECTOR: Final = 512
ZERO: Final = 0
FOREIGN: Final = 255
TAG_MAX: Final = 254
_WORDS: Final = SECTOR // 8


def pattern(*, tag: int, sector: int, count: int) -> bytes:
    """Return the bytes that `count` sectors from `sector` on hold when stamped with `tag` (0 to TAG_MAX)."""
    assert 0 <= tag <= TAG_MAX
    if tag == ZERO:
        return bytes(count * SECTOR)
    words = (np.arange(sector, sector + count, dtype="<u8") << np.uint64(8)) | np.uint64(tag)
    return np.repeat(words, _WORDS).tobytes()


def tags_of(raw: bytes, *, sector: int = 0) -> bytes:
    """Return the tag of each sector in `raw`, which was read at `sector`; FOREIGN where it is no pattern of ours."""
    words = np.frombuffer(raw, dtype="<u8").reshape(-1, _WORDS)
    first = words[:, 0]
    tags = (first & np.uint64(0xFF)).astype(np.uint8)
    number = first >> np.uint64(8)
    here = number == np.arange(sector, sector + len(first), dtype=np.uint64)
    ours = (words == first[:, None]).all(axis=1) & ((here & (tags != ZERO) & (tags <= TAG_MAX)) | (first == 0))
    return np.where(ours, tags, np.uint8(FOREIGN)).astype(np.uint8).tobytes()


def vmstate_pattern(*, tag: int, offset: int, length: int) -> bytes:
    """Return `length` bytes of VM state from byte `offset` on; each depends on its place, so that slips are seen."""
    places = np.arange(offset, offset + length, dtype=np.uint32)
    return (
        ((places * np.uint32(7) + (places >> np.uint32(8)) + np.uint32(tag)) & np.uint32(0xFF))
        .astype(np.uint8)
        .tobytes()
    )
