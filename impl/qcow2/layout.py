"""What is on disk: the header, the entries of the snapshot table, and the limits. Parsed once, here (SPEC B.1)."""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple, Self

from snapcheck.model.errno import Errno
from snapcheck.model.snapshot import SnapshotInfo

MAGIC: Final = b"QFI\xfb"
COPIED: Final = 1 << 63
COMPRESSED: Final = 1 << 62
ZERO: Final = 1
OFFSET_MASK: Final = 0x00FF_FFFF_FFFF_FE00

CLUSTER_BITS_MIN: Final = 9
CLUSTER_BITS_MAX: Final = 21
L1_BYTES_MAX: Final = 32 << 20
L1_ENTRIES_MAX: Final = L1_BYTES_MAX // 8
REFCOUNT_TABLE_BYTES_MAX: Final = 8 << 20
REFCOUNT_ORDER_MAX: Final = 6  # 64 bits
SNAPSHOTS_MAX: Final = 65536
SNAPSHOT_TABLE_BYTES_MAX: Final = 64 << 20
SNAPSHOT_EXTRA_BYTES_MAX: Final = 1024
OFFSET_MAX: Final = (1 << 56) - 1  # an L1 or L2 entry has no room for more
SIZE_MAX: Final = (1 << 63) - 1

DIRTY: Final = 1 << 0  # incompatible: refcounts may be stale, they were written lazily
CORRUPT: Final = 1 << 1
_COMPRESSION_NAMED: Final = 1 << 3
EXTENDED_L2: Final = 1 << 4
LAZY_REFCOUNTS: Final = 1 << 0  # compatible
BITMAPS: Final = 1 << 0  # autoclear: the persistent bitmaps are up to date
ZLIB: Final = 0
ZSTD: Final = 1
_READ = DIRTY | CORRUPT | _COMPRESSION_NAMED | EXTENDED_L2
_UNSUPPORTED = {
    2: "an external data file is not supported; convert the image with `qemu-img convert -O qcow2`",
}


class ImageError(Exception):
    """The image can not be what it claims to be, or is of a kind that is not supported: the field, and the way out."""

    def __init__(self, message: str, *, errno: Errno = Errno.EINVAL) -> None:
        self.errno = errno
        super().__init__(message)


def ceil_div(amount: int, unit: int) -> int:
    """Round up: a part of a unit still takes a whole one."""
    return -(-amount // unit)


# --- the header -----------------------------------------------------------------------------------
class Header(NamedTuple):
    """The header of an image. Its first 72 bytes lie in one sector, so one write changes several fields at once."""

    cluster_bits: int
    size: int
    l1_size: int
    l1_offset: int
    refcount_table_offset: int
    refcount_table_clusters: int
    snapshot_count: int = 0
    snapshots_offset: int = 0
    incompatible: int = 0
    compatible: int = 0
    autoclear: int = 0
    header_length: int = 104
    version: int = 3
    refcount_order: int = 4
    backing_offset: int = 0
    backing_length: int = 0
    compression: int = ZLIB

    @property
    def cluster_bytes(self) -> int:
        return 1 << self.cluster_bits

    @property
    def extended_l2(self) -> bool:
        """Tell whether each L2 entry has a second word, which tells of the cluster's 32 parts."""
        return bool(self.incompatible & EXTENDED_L2)

    @property
    def l2_bits(self) -> int:
        """Return how many bits of a guest cluster's number choose the entry of its L2 table."""
        return self.cluster_bits - (4 if self.extended_l2 else 3)

    @property
    def l2_span(self) -> int:
        """Return the guest bytes that one L1 entry maps."""
        return 1 << (self.cluster_bits + self.l2_bits)

    @property
    def l2_flags(self) -> int:
        """Return the bits of an L2 entry that are not its offset and may be set."""
        plain_zero = self.version >= 3 and not self.extended_l2
        return COPIED | COMPRESSED | (ZERO if plain_zero else 0)

    @property
    def refcount_max(self) -> int:
        return (1 << (1 << self.refcount_order)) - 1

    @property
    def vm_state_index(self) -> int:
        """Return the first L1 entry that the virtual size does not need: there the VM state begins (SPEC B.9)."""
        return ceil_div(self.size, self.l2_span)

    def pack(self) -> bytes:
        """Return the fixed part as it is stored."""
        raw = _HEADER.pack(
            MAGIC, self.version, self.backing_offset, self.backing_length, self.cluster_bits, self.size, 0,
            self.l1_size, self.l1_offset, self.refcount_table_offset, self.refcount_table_clusters,
            self.snapshot_count, self.snapshots_offset, self.incompatible, self.compatible, self.autoclear,
            self.refcount_order, self.header_length, self.compression,
        )  # fmt: skip
        return raw[: min(self.header_length, len(raw))]

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Decode the first `HEADER_BYTES` of an image of a supported kind, or say which field stands against it."""
        if raw[:4] != MAGIC:
            raise ImageError(f"magic: {raw[:4].hex()} is not 514649fb, this is not a qcow2 image")
        (
            _, version, backing_offset, backing_length, cluster_bits, size, crypt, l1_size, l1_offset, table_offset,
            table_clusters, count, snapshots_offset, incompatible, compatible, autoclear, order, length, compression,
        ) = _HEADER.unpack_from(raw.ljust(HEADER_BYTES, b"\0"))  # fmt: skip
        if version == 2:
            incompatible, compatible, autoclear, order, length = 0, 0, 0, 4, HEADER_BYTES_V2
        if length <= HEADER_BYTES_V3:
            compression = ZLIB
        header = cls(
            cluster_bits=cluster_bits, size=size, l1_size=l1_size, l1_offset=l1_offset,
            refcount_table_offset=table_offset, refcount_table_clusters=table_clusters, snapshot_count=count,
            snapshots_offset=snapshots_offset, incompatible=incompatible, compatible=compatible,
            autoclear=autoclear, header_length=length, version=version, refcount_order=order,
            backing_offset=backing_offset, backing_length=backing_length, compression=compression,
        )  # fmt: skip
        header._require_kind(crypt)
        return header

    def _require_kind(self, crypt: int) -> None:
        if self.version not in (2, 3):
            raise ImageError(f"version: {self.version}, expected 2 or 3")
        if not CLUSTER_BITS_MIN <= self.cluster_bits <= CLUSTER_BITS_MAX:
            raise ImageError(f"cluster_bits: {self.cluster_bits}, expected 9 to 21 (512 bytes to 2 MiB)")
        if crypt:
            raise ImageError(f"crypt_method: {crypt}: encryption is not supported; convert with `qemu-img convert`")
        if self.refcount_order > REFCOUNT_ORDER_MAX:
            raise ImageError(f"refcount_order: {self.refcount_order}, expected 0 to 6 (1 to 64 bits)")
        length_min = HEADER_BYTES_V2 if self.version == 2 else HEADER_BYTES_V3
        if not length_min <= self.header_length <= self.cluster_bytes or self.header_length % 8:
            raise ImageError(
                f"header_length: {self.header_length}, expected a multiple of 8 from 104 up to the cluster size"
            )

    def require_sane(self, *, file_bytes: int, lenient: bool = False) -> None:
        """Raise `ImageError` unless every table that the header names can lie in a file of `file_bytes`.

        `lenient` lets pass what a repair makes anew: the refcount table. With the dirty bit set an image is repaired
        before anything is counted, so that its table may lie behind the end of the file: a QEMU that makes a new one
        and is cut off leaves it like that, and opens it.
        """
        require_table("l1_table", self.l1_offset, self.l1_size * 8, self, bytes_max=L1_BYTES_MAX, file_bytes=file_bytes)
        if self.size > SIZE_MAX or self.l1_size < self.vm_state_index:
            raise ImageError(f"l1_size: {self.l1_size} entries are too few for a virtual size of {self.size} bytes")
        if not lenient:
            self.require_refcount_table(None if self.incompatible & DIRTY else file_bytes)
        if self.snapshot_count > SNAPSHOTS_MAX:
            raise ImageError(f"nb_snapshots: {self.snapshot_count} is more than {SNAPSHOTS_MAX}", errno=Errno.EFBIG)
        if self.snapshot_count:  # without snapshots the offset means nothing (SPEC B.4)
            require_table(
                "snapshots", self.snapshots_offset, self.snapshot_count * ENTRY_BYTES_MIN, self,
                bytes_max=SNAPSHOT_TABLE_BYTES_MAX, file_bytes=file_bytes,
            )  # fmt: skip
        if self.backing_offset:
            self._require_backing_name()

    def require_refcount_table(self, file_bytes: int | None) -> None:
        """Raise `ImageError` unless there is a refcount table where the header says, in a file of any size for None."""
        table_bytes = self.refcount_table_clusters << self.cluster_bits
        if not table_bytes:
            raise ImageError(
                "refcount_table_clusters: 0, expected 1 or more; `snapcheck check IMAGE --repair` makes a table"
            )
        require_table(
            "refcount_table", self.refcount_table_offset, table_bytes, self,
            bytes_max=REFCOUNT_TABLE_BYTES_MAX, file_bytes=file_bytes,
        )  # fmt: skip

    def _require_backing_name(self) -> None:
        if self.backing_length > BACKING_NAME_BYTES_MAX:
            raise ImageError(f"backing_file_size: {self.backing_length} is more than {BACKING_NAME_BYTES_MAX}")
        if self.backing_offset + self.backing_length > self.cluster_bytes:
            raise ImageError(f"backing_file_offset: {self.backing_offset:#x}, the name ends behind the first cluster")

    def require_supported(self) -> None:
        """Raise `ImageError` when a feature stands for what is not built here."""
        unknown = self.incompatible & ~_READ
        if unknown:
            bit = (unknown & -unknown).bit_length() - 1  # the lowest of them
            raise ImageError(f"incompatible_features: bit {bit}: {_UNSUPPORTED.get(bit, 'an unknown feature')}")
        if self.compression not in (ZLIB, ZSTD):
            raise ImageError(f"compression_type: {self.compression}, expected 0 (zlib) or 1 (zstd)")
        if bool(self.incompatible & _COMPRESSION_NAMED) != (self.compression != ZLIB):
            raise ImageError(
                f"compression_type: {self.compression} and bit 3 of incompatible_features do not agree;"
                " the bit stands for any type but 0"
            )
        if self.extended_l2 and self.cluster_bits < EXTENDED_CLUSTER_BITS_MIN:
            raise ImageError(f"cluster_bits: {self.cluster_bits}, extended L2 entries need 14 or more")

    def require_writable(self) -> None:
        """Raise `ImageError` when the image may be read and not written, or has to be repaired first."""
        if self.incompatible & DIRTY:
            raise ImageError(
                "incompatible_features: bit 0: the image was not closed cleanly (dirty bit);"
                " `snapcheck check IMAGE --repair` or `qemu-img check -r all` counts its clusters anew"
            )
        if self.incompatible & CORRUPT:
            raise ImageError(
                "incompatible_features: bit 1: the image is marked corrupt; copy it, and let"
                " `snapcheck check IMAGE --repair` or `qemu-img check -r all` repair it, or open it read-only"
            )
        if self.extended_l2:
            raise ImageError(
                "incompatible_features: bit 4: extended L2 entries can be read and not written; open it read-only,"
                " or convert the image with `qemu-img convert -O qcow2`"
            )


_HEADER = struct.Struct(">4sIQIIQIIQQIIQQQQIIB7x")
HEADER_BYTES: Final = _HEADER.size
HEADER_BYTES_V2: Final = 72
HEADER_BYTES_V3: Final = 104
BACKING_NAME_BYTES_MAX: Final = 1023
EXTENDED_CLUSTER_BITS_MIN: Final = 14
RESIZE_FIELDS: Final = (24, 48)  # size, crypt_method, l1_size, l1_table_offset
REFCOUNT_FIELDS: Final = (48, 60)
SNAPSHOT_FIELDS: Final = (60, 72)
RESIZE_AND_SNAPSHOT_FIELDS: Final = (24, 72)
FEATURE_FIELDS: Final = (72, 96)


def require_table(
    field: str, offset: int, length: int, header: Header, *, bytes_max: int, file_bytes: int | None = None
) -> None:
    """Raise `ImageError` for a table that is too large (EFBIG), or that is unaligned or outside the file (EINVAL)."""
    if length > bytes_max:
        raise ImageError(f"{field}: {length} bytes are more than the {bytes_max} allowed", errno=Errno.EFBIG)
    if offset & (header.cluster_bytes - 1) or offset + length > OFFSET_MAX:
        raise ImageError(f"{field}_offset: {offset:#x} is not the offset of a cluster")
    if length and not offset:
        raise ImageError(f"{field}_offset: 0 is where the header is")
    if file_bytes is not None and offset + length > ceil_div(file_bytes, header.cluster_bytes) * header.cluster_bytes:
        raise ImageError(f"{field}_offset: {offset:#x} + {length} bytes lie beyond the end of the file ({file_bytes})")


# --- the snapshot table ---------------------------------------------------------------------------
_ENTRY = struct.Struct(">QIHHIIQII")
_KNOWN_EXTRA = struct.Struct(">QQ")
ENTRY_BYTES_MIN: Final = _ENTRY.size
_EXTRA_BYTES_READ_MAX: Final = 1 << 20  # by a repair, which cuts it
_U32: Final = 0xFFFF_FFFF
_U64: Final = 0xFFFF_FFFF_FFFF_FFFF


@dataclass(frozen=True, slots=True)
class SnapshotEntry:
    """One entry of the snapshot table. `info` holds id and name as stored, not as cut by the API.

    `extra` is what stands behind the extra data that is known here (64-bit VM state size and disk size).
    `extra_bytes` is how much of both the medium has: without a disk size there, that of the image stands for it.
    """

    info: SnapshotInfo
    l1_offset: int
    l1_size: int
    disk_size: int
    extra: bytes = b""
    extra_bytes: int = field(default=16, compare=False)

    @property
    def icount(self) -> int | None:
        """Return the instruction count that QEMU 5.2 and later store, None where there is none."""
        icount = int.from_bytes(self.extra[:8], "big") if len(self.extra) >= 8 else _U64
        return None if icount == _U64 else icount

    def require_in_order(self, index: int, header: Header) -> None:
        """Raise `ImageError` when the extra data is not what the format says."""
        if self.extra_bytes > SNAPSHOT_EXTRA_BYTES_MAX:
            raise ImageError(
                f"snapshots: entry {index} has {self.extra_bytes} bytes of extra data, more than"
                f" {SNAPSHOT_EXTRA_BYTES_MAX}; `snapcheck check IMAGE --repair` cuts it",
                errno=Errno.EFBIG,
            )
        if self.extra_bytes < _KNOWN_EXTRA.size and header.version >= 3:
            raise ImageError(f"snapshots: entry {index} has no disk size in its extra data, which version 3 demands")

    def pack(self) -> bytes:
        """Return the entry as stored, without the padding that follows it."""
        info = self.info
        id_raw, name_raw = as_stored(info.id_str), as_stored(info.name)
        assert len(id_raw) <= 0xFFFF
        assert len(name_raw) <= 0xFFFF
        state = info.vm_state_size & _U64
        fixed = _ENTRY.pack(
            self.l1_offset, self.l1_size, len(id_raw), len(name_raw), info.date_sec & _U32, info.date_nsec & _U32,
            info.vm_clock_nsec & _U64, state if state <= _U32 else 0, _KNOWN_EXTRA.size + len(self.extra),
        )  # fmt: skip
        return b"".join((fixed, _KNOWN_EXTRA.pack(state, self.disk_size), self.extra, id_raw, name_raw))


def as_stored(text: str) -> bytes:
    """Return the bytes of an id or a name; what is not UTF-8 came in as surrogate escapes and goes out unchanged."""
    return text.encode("utf-8", "surrogateescape")


def pack_snapshots(entries: Iterable[SnapshotEntry]) -> bytes:
    """Return the whole table; every entry but the first starts at a multiple of 8, the last one is not padded."""
    packed = [entry.pack() for entry in entries]
    return b"".join([raw + bytes(-len(raw) % 8) for raw in packed[:-1]] + packed[-1:])


def parse_snapshots(raw: bytes, header: Header, *, lenient: bool = False) -> tuple[list[SnapshotEntry], int]:
    """Decode the table that `raw` begins with; also return how many bytes it has.

    Raises `ImageError` where QEMU refuses to open (SPEC B.1), and `NeedMoreError` when `raw` is too short. `lenient`
    cuts extra data that is too long, which a repair does.
    """
    entries: list[SnapshotEntry] = []
    place = 0
    for index in range(header.snapshot_count):
        place += -place % 8
        entry, place = _parse_entry(raw, place, index, header)
        if entry.extra_bytes > SNAPSHOT_EXTRA_BYTES_MAX and not lenient:
            entry.require_in_order(index, header)
        if place > SNAPSHOT_TABLE_BYTES_MAX:
            raise ImageError("snapshots: the table has more than 64 MiB", errno=Errno.EFBIG)
        entries.append(entry)
    return entries, place


class NeedMoreError(Exception):
    """The bytes at hand end before the table does; `length` bytes from its start are needed to go on."""

    def __init__(self, length: int) -> None:
        self.length = length
        super().__init__(f"{length} bytes needed")


def _parse_entry(raw: bytes, place: int, index: int, header: Header) -> tuple[SnapshotEntry, int]:
    _require_bytes(raw, place + ENTRY_BYTES_MIN)
    l1_offset, l1_size, id_len, name_len, sec, nsec, clock, state, extra_len = _ENTRY.unpack_from(raw, place)
    if extra_len > _EXTRA_BYTES_READ_MAX:
        raise ImageError(f"snapshots: entry {index} has {extra_len} bytes of extra data", errno=Errno.EFBIG)
    extra_at = place + ENTRY_BYTES_MIN
    id_at = extra_at + extra_len
    name_at = id_at + id_len
    _require_bytes(raw, name_at + name_len)
    extra = raw[extra_at:id_at]
    info = SnapshotInfo(
        id_str=_c_string(raw[id_at:name_at]), name=_c_string(raw[name_at : name_at + name_len]),
        vm_state_size=int.from_bytes(extra[:8], "big") if extra_len >= 8 else state,
        date_sec=sec, date_nsec=nsec, vm_clock_nsec=clock,
    )  # fmt: skip
    disk_size = int.from_bytes(extra[8:16], "big") if extra_len >= 16 else header.size
    unknown = extra[16:SNAPSHOT_EXTRA_BYTES_MAX]
    return SnapshotEntry(info, l1_offset, l1_size, disk_size, unknown, extra_len), name_at + name_len


def _require_bytes(raw: bytes, end: int) -> None:
    if end > len(raw):
        raise NeedMoreError(end)


def _c_string(raw: bytes) -> str:
    """Decode up to the first NUL: the API's strings end there, whatever the stored length says."""
    return raw.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


# --- ids ------------------------------------------------------------------------------------------
def next_id(entries: Sequence[SnapshotEntry]) -> str:
    """Return the id that a new snapshot gets: the largest number among the ids, plus one (SPEC B.2 step 3)."""
    return str((max((strtoul(entry.info.id_str) for entry in entries), default=0) + 1) & _U64)


def strtoul(text: str) -> int:
    """Read a number as C does where long has 64 bits: 0 where there is none, ULONG_MAX for a too large one."""
    text = text.lstrip(" \t\n\v\f\r")
    negative = text.startswith("-")
    digits = text[1:] if text[:1] in ("-", "+") else text
    end = next((place for place, letter in enumerate(digits) if letter not in "0123456789"), len(digits))
    number = _decimal(digits[:end])
    if number > _U64:
        return _U64
    return -number & _U64 if negative else number


def _decimal(digits: str) -> int:
    """Return the number; anything with more than 20 digits after leading zeroes is too large however it goes on."""
    digits = digits.lstrip("0")
    return int(digits[:21] or "0")


def with_id(info: SnapshotInfo, id_str: str) -> SnapshotInfo:
    """Return the caller's struct as create leaves it: with the id that was chosen."""
    return replace(info, id_str=id_str)
