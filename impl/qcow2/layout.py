"""What is on disk: the header, the entries of the snapshot table, and the limits. Parsed once, here (SPEC B.1)."""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
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
REFCOUNT_MAX: Final = 0xFFFF
SNAPSHOTS_MAX: Final = 65536
SNAPSHOT_TABLE_BYTES_MAX: Final = 64 << 20
SNAPSHOT_EXTRA_BYTES_MAX: Final = 1024
OFFSET_MAX: Final = (1 << 56) - 1  # an L1 or L2 entry has no room for more
SIZE_MAX: Final = (1 << 63) - 1

_UNCLEAN = {
    0: "the image was not closed cleanly (dirty bit); let `qemu-img check -r all` repair it",
    1: "the image is marked corrupt; let `qemu-img check -r all` repair it",
}
_UNSUPPORTED = {
    2: "an external data file is not supported; convert the image with `qemu-img convert -O qcow2`",
    3: "this compression type is not supported; convert the image with `qemu-img convert -O qcow2`",
    4: "extended L2 entries are not supported; convert the image with `qemu-img convert -O qcow2`",
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
    """The header of a version 3 image. All its fields lie in one sector, so one write changes several at once."""

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

    @property
    def cluster_bytes(self) -> int:
        return 1 << self.cluster_bits

    @property
    def l2_span(self) -> int:
        """Return the guest bytes that one L1 entry maps."""
        return 1 << (2 * self.cluster_bits - 3)

    @property
    def vm_state_index(self) -> int:
        """Return the first L1 entry that the virtual size does not need: there the VM state begins (SPEC B.9)."""
        return ceil_div(self.size, self.l2_span)

    def pack(self) -> bytes:
        """Return the fixed part as it is stored."""
        return _HEADER.pack(
            MAGIC, 3, 0, 0, self.cluster_bits, self.size, 0, self.l1_size, self.l1_offset,
            self.refcount_table_offset, self.refcount_table_clusters, self.snapshot_count, self.snapshots_offset,
            self.incompatible, self.compatible, self.autoclear, 4, self.header_length,
        )  # fmt: skip

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Decode the first sector of an image of a supported kind, or say which field stands against it."""
        if raw[:4] != MAGIC:
            raise ImageError(f"magic: {raw[:4].hex()} is not 514649fb, this is not a qcow2 image")
        (
            _, version, backing_offset, _, cluster_bits, size, crypt, l1_size, l1_offset, table_offset, table_clusters,
            count, snapshots_offset, incompatible, compatible, autoclear, order, length,
        ) = _HEADER.unpack_from(raw)  # fmt: skip
        _require_kind(version, cluster_bits, backing_offset, crypt, order)
        if not HEADER_BYTES <= length <= 1 << cluster_bits or length % 8:
            raise ImageError(f"header_length: {length}, expected a multiple of 8 from 104 up to the cluster size")
        return cls(
            cluster_bits=cluster_bits, size=size, l1_size=l1_size, l1_offset=l1_offset,
            refcount_table_offset=table_offset, refcount_table_clusters=table_clusters, snapshot_count=count,
            snapshots_offset=snapshots_offset, incompatible=incompatible, compatible=compatible,
            autoclear=autoclear, header_length=length,
        )  # fmt: skip

    def require_sane(self, *, file_bytes: int) -> None:
        """Raise `ImageError` unless every table that the header names can lie in a file of `file_bytes`."""
        require_table("l1_table", self.l1_offset, self.l1_size * 8, self, bytes_max=L1_BYTES_MAX, file_bytes=file_bytes)
        if self.size > SIZE_MAX or self.l1_size < self.vm_state_index:
            raise ImageError(f"l1_size: {self.l1_size} entries are too few for a virtual size of {self.size} bytes")
        table_bytes = self.refcount_table_clusters << self.cluster_bits
        if not table_bytes:
            raise ImageError(
                "refcount_table_clusters: 0, an image has at least one; `qemu-img check -r all` rebuilds it"
            )
        require_table(
            "refcount_table", self.refcount_table_offset, table_bytes, self,
            bytes_max=REFCOUNT_TABLE_BYTES_MAX, file_bytes=file_bytes,
        )  # fmt: skip
        if self.snapshot_count > SNAPSHOTS_MAX:
            raise ImageError(f"nb_snapshots: {self.snapshot_count} is more than {SNAPSHOTS_MAX}", errno=Errno.EFBIG)
        if self.snapshot_count:  # without snapshots the offset means nothing (SPEC B.4)
            require_table(
                "snapshots", self.snapshots_offset, self.snapshot_count * ENTRY_BYTES_MIN, self,
                bytes_max=SNAPSHOT_TABLE_BYTES_MAX, file_bytes=file_bytes,
            )  # fmt: skip

    def require_supported(self) -> None:
        """Raise `ImageError` when a feature bit stands for what is not built here."""
        for bit in range(2, 64):
            if self.incompatible >> bit & 1:
                raise ImageError(f"incompatible_features: bit {bit}: {_UNSUPPORTED.get(bit, 'an unknown feature')}")
        if self.autoclear & 1:
            raise ImageError(
                "autoclear_features: bit 0: persistent bitmaps are not supported; `qemu-img bitmap --remove` drops them"
            )

    def require_clean(self) -> None:
        """Raise `ImageError` when the image says of itself that it must be repaired before it is used."""
        for bit, way_out in _UNCLEAN.items():
            if self.incompatible >> bit & 1:
                raise ImageError(f"incompatible_features: bit {bit}: {way_out}")


_HEADER = struct.Struct(">4sIQIIQIIQQIIQQQQII")
HEADER_BYTES: Final = _HEADER.size
AUTOCLEAR_FIELD: Final = (88, 96)
RESIZE_FIELDS: Final = (24, 48)  # size, crypt_method, l1_size, l1_table_offset
REFCOUNT_FIELDS: Final = (48, 60)
SNAPSHOT_FIELDS: Final = (60, 72)
RESIZE_AND_SNAPSHOT_FIELDS: Final = (24, 72)


def _require_kind(version: int, cluster_bits: int, backing_offset: int, crypt: int, order: int) -> None:
    if version != 3:
        raise ImageError(f"version: {version} is not supported; `qemu-img amend -o compat=1.1` makes version 2 a 3")
    if not CLUSTER_BITS_MIN <= cluster_bits <= CLUSTER_BITS_MAX:
        raise ImageError(f"cluster_bits: {cluster_bits}, expected 9 to 21 (512 bytes to 2 MiB)")
    if backing_offset:
        raise ImageError("backing_file: a backing file is not supported; `qemu-img rebase -b ''` makes a full image")
    if crypt:
        raise ImageError(f"crypt_method: {crypt}: encryption is not supported; convert with `qemu-img convert`")
    if order != 4:
        raise ImageError(f"refcount_order: {order}, expected 4; convert with `qemu-img convert -o refcount_bits=16`")


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
_U32: Final = 0xFFFF_FFFF
_U64: Final = 0xFFFF_FFFF_FFFF_FFFF


@dataclass(frozen=True, slots=True)
class SnapshotEntry:
    """One entry of the snapshot table. `info` holds id and name as stored, not as cut by the API.

    `extra` is what stands behind the extra data that is known here (64-bit VM state size and disk size).
    """

    info: SnapshotInfo
    l1_offset: int
    l1_size: int
    disk_size: int
    extra: bytes = b""

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


def parse_snapshots(raw: bytes, header: Header) -> tuple[list[SnapshotEntry], int]:
    """Decode the table that `raw` begins with; also return how many bytes it has.

    Raises `ImageError` where QEMU refuses to open (SPEC B.1), and `NeedMoreError` when `raw` is too short.
    """
    entries: list[SnapshotEntry] = []
    place = 0
    for index in range(header.snapshot_count):
        place += -place % 8
        entry, place = _parse_entry(raw, place, index, header)
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
    if extra_len > SNAPSHOT_EXTRA_BYTES_MAX:
        raise ImageError(
            f"snapshots: entry {index} has {extra_len} bytes of extra data, more than {SNAPSHOT_EXTRA_BYTES_MAX};"
            " `qemu-img check -r all` cuts it",
            errno=Errno.EFBIG,
        )
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
    return SnapshotEntry(info, l1_offset, l1_size, disk_size, extra[16:]), name_at + name_len


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
