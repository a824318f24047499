"""Damage to qcow2 images that knows their structure: one class for each field, and values that mean something there.

    damaged = draw_damage(rng, "version 3")
    print(damaged.words)                     # ("snapshot.l1_size", "l2.entry")
    Image.open(damaged.file)

What a field is set to: nothing, everything, one off, a bit flipped, where another table is, just outside the file, or
any number. A checker that is only fed random bytes never gets beyond the magic.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from random import Random
from typing import Final, NamedTuple

from snapcheck.fault_injection.image_kinds import KINDS, sound_image
from snapcheck.impl.blockfile import MemoryFile
from snapcheck.impl.qcow2.layout import COMPRESSED, COPIED, OFFSET_MASK, Header
from snapcheck.impl.qcow2.state import read_front, read_snapshots

FIELDS_MAX: Final = 4  # that are wrecked in one image
SEVERAL_SHARE: Final = 0.25  # of images have more than one
CUT_SHARE: Final = 0.05  # of images are cut off besides
_HEADER: Final[Mapping[str, tuple[int, int]]] = {
    "magic": (0, 4), "version": (4, 4), "backing_file_offset": (8, 8), "backing_file_size": (16, 4),
    "cluster_bits": (20, 4), "size": (24, 8), "crypt_method": (32, 4), "l1_size": (36, 4), "l1_table_offset": (40, 8),
    "refcount_table_offset": (48, 8), "refcount_table_clusters": (56, 4), "nb_snapshots": (60, 4),
    "snapshots_offset": (64, 8), "incompatible_features": (72, 8), "compatible_features": (80, 8),
    "autoclear_features": (88, 8), "refcount_order": (96, 4), "header_length": (100, 4), "compression_type": (104, 1),
    "extension.type": (104, 4), "extension.length": (108, 4), "extension.bitmaps": (112, 4),
    "extension.bitmap_directory_size": (120, 8), "extension.bitmap_directory_offset": (128, 8),
}  # fmt: skip
_SNAPSHOT: Final[Mapping[str, tuple[int, int]]] = {
    "l1_table_offset": (0, 8), "l1_size": (8, 4), "id_str_size": (12, 2), "name_size": (14, 2), "date_sec": (16, 4),
    "date_nsec": (20, 4), "vm_clock_nsec": (24, 8), "vm_state_size": (32, 4), "extra_data_size": (36, 4),
    "extra.vm_state_size": (40, 8), "extra.disk_size": (48, 8), "id_and_name": (56, 2),
}  # fmt: skip
_BITMAP: Final[Mapping[str, tuple[int, int]]] = {
    "table_offset": (0, 8), "table_size": (8, 4), "flags": (12, 4), "type": (16, 1), "granularity_bits": (17, 1),
    "name_size": (18, 2), "extra_data_size": (20, 4),
}  # fmt: skip


class Place(NamedTuple):
    """Where a field is in the file."""

    field: str
    offset: int
    length: int


class Damaged(NamedTuple):
    """A wrecked image: the fields that were wrecked, in order ("cut off" is one of them), and the file."""

    words: tuple[str, ...]
    file: MemoryFile


def damage_one(rng: Random, image: MemoryFile, place: Place, landmarks: Sequence[int]) -> None:
    """Set one field to a value that is likely to matter there."""
    old = int.from_bytes(image.pread(place.offset, place.length), "big")
    mask = (1 << 8 * place.length) - 1
    new = _value(rng, old, mask, image.size(), landmarks) & mask
    image.pwrite(place.offset, new.to_bytes(place.length, "big"))


def _value(rng: Random, old: int, mask: int, file_bytes: int, landmarks: Sequence[int]) -> int:
    bits = mask.bit_length()
    somewhere = rng.choice(landmarks)
    return rng.choice((
        0, 1, mask, mask >> 1, old + 1, old - 1, old * 2, old ^ 1 << rng.randrange(bits), 1 << rng.randrange(bits),
        rng.getrandbits(bits), rng.getrandbits(rng.randint(1, bits)), somewhere, somewhere | COPIED, somewhere + 512,
        somewhere | COMPRESSED, somewhere + 1, file_bytes, file_bytes | COPIED, file_bytes - 512, file_bytes * 3 & ~511,
    ))  # fmt: skip


def draw_damage(rng: Random, kind: str) -> Damaged:
    """Take a sound image of that kind and wreck one field of it, sometimes several; sometimes cut it off."""
    image, (known, landmarks) = sound_image(kind), _known(kind)
    count = rng.randint(2, FIELDS_MAX) if rng.random() < SEVERAL_SHARE else 1
    words: list[str] = []
    for name in rng.choices(sorted(known), k=count):
        damage_one(rng, image, rng.choice(known[name]), landmarks)
        words.append(name)
    if rng.random() < CUT_SHARE:
        image.truncate(rng.randrange(image.size()))
        words.append("cut off")
    return Damaged(tuple(words), image)


@lru_cache(maxsize=len(KINDS))
def _known(kind: str) -> tuple[Mapping[str, list[Place]], Sequence[int]]:
    """Return where the fields are in images of a kind, and the offsets that mean something there."""
    known = places(sound_image(kind))
    return known, sorted({place.offset for each in known.values() for place in each})


# --- where the fields are -------------------------------------------------------------------------
def places(image: MemoryFile) -> dict[str, list[Place]]:
    """Return where each field of a sound image is, by its name."""
    found: dict[str, list[Place]] = {}
    for place in _places(image):
        found.setdefault(place.field, []).append(place)
    return found


def _places(image: MemoryFile) -> Iterator[Place]:
    header, extensions, _ = read_front(image)
    for name, (offset, length) in _HEADER.items():
        yield Place(f"header.{name}", offset, length)
    yield from _words("refcount_table.entry", image, header.refcount_table_offset, 8)
    for offset in _pointers(image, header.refcount_table_offset, 8):
        used = -(-image.size() >> header.cluster_bits)
        yield Place("refcount_block.entry", offset, 8)
        yield Place("refcount_block.entry", offset + max((used << header.refcount_order) // 8 - 8, 0), 8)
    yield from _tree("", image, header, header.l1_offset, header.l1_size)
    yield from _snapshots(image, header)
    if extensions.bitmaps is not None:
        yield from (
            Place(f"bitmap.{name}", extensions.bitmaps.offset + at, size) for name, (at, size) in _BITMAP.items()
        )
        table = int.from_bytes(image.pread(extensions.bitmaps.offset, 8), "big")
        yield Place("bitmap.table_entry", table, 8)


def _tree(prefix: str, image: MemoryFile, header: Header, l1_offset: int, l1_size: int) -> Iterator[Place]:
    """Yield the entries of an L1 table and of the L2 tables below it that are in use."""
    yield from _words(f"{prefix}l1.entry", image, l1_offset, l1_size)
    for table in _pointers(image, l1_offset, l1_size):
        for place in _words(f"{prefix}l2.entry", image, table, header.cluster_bytes // 8):
            entry = int.from_bytes(image.pread(place.offset, 8), "big")
            packed = entry & COMPRESSED and not header.extended_l2
            yield place._replace(field=f"{prefix}l2.compressed_entry") if packed else place
            if packed:
                yield Place("compressed_data", entry & 0xFFFF_FFFF, 4)


def _snapshots(image: MemoryFile, header: Header) -> Iterator[Place]:
    place = header.snapshots_offset
    for entry in read_snapshots(image, header).entries:
        yield from (Place(f"snapshot.{name}", place + at, size) for name, (at, size) in _SNAPSHOT.items())
        yield from _tree("snapshot.", image, header, entry.l1_offset, entry.l1_size)
        length = len(entry.pack())
        place += length + -length % 8


def _words(field: str, image: MemoryFile, offset: int, count: int) -> Iterator[Place]:
    """Yield the 64-bit words of a table that hold something, and one that does not."""
    words = [int.from_bytes(image.pread(offset + 8 * at, 8), "big") for at in range(count)]
    yield from (Place(field, offset + 8 * at, 8) for at, word in enumerate(words) if word)
    if 0 in words:
        yield Place(field, offset + 8 * words.index(0), 8)


def _pointers(image: MemoryFile, offset: int, count: int) -> list[int]:
    """Return what the first words of a table refer to."""
    words = (int.from_bytes(image.pread(offset + 8 * at, 8), "big") & OFFSET_MASK for at in range(count))
    return [word for word in words if word]
