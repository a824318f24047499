"""Formatting: an empty image."""

from dataclasses import dataclass
from typing import Final

from snapcheck.impl.blockfile import BlockError, BlockFile
from snapcheck.impl.qcow2.backing import FORMATS
from snapcheck.impl.qcow2.extensions import backing_format_extension
from snapcheck.impl.qcow2.host import Codec
from snapcheck.impl.qcow2.layout import (
    BACKING_NAME_BYTES_MAX,
    CLUSTER_BITS_MAX,
    CLUSTER_BITS_MIN,
    HEADER_BYTES,
    HEADER_BYTES_V2,
    HEADER_BYTES_V3,
    L1_ENTRIES_MAX,
    LAZY_REFCOUNTS,
    ZLIB,
    ZSTD,
    Header,
    ceil_div,
)
from snapcheck.model.errno import Errno

COMPRESSIONS: Final = {"zlib": ZLIB, "zstd": ZSTD}
_ZSTD_BIT: Final = 1 << 3
_REFCOUNT_BITS: Final = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """What an image is to be like.

    lazy_refcounts   others may write refcounts late and mark the image dirty; this engine never does
    compression      of compressed clusters: zlib, or zstd where its library is installed
    backing_file     what shows where nothing is written; as it is stored, so relative to the image
    backing_format   qcow2 or raw
    """

    size_bytes: int
    cluster_bytes: int = 65536
    version: int = 3
    refcount_bits: int = 16
    lazy_refcounts: bool = False
    compression: str = "zlib"
    backing_file: str = ""
    backing_format: str = "qcow2"

    @property
    def cluster_bits(self) -> int:
        return self.cluster_bytes.bit_length() - 1

    @property
    def l1_size(self) -> int:
        return ceil_div(self.size_bytes, self.cluster_bytes * self.cluster_bytes // 8)

    def require_possible(self) -> None:
        """Raise EINVAL or EFBIG for what no image can be."""
        bits = self.cluster_bits
        _require(
            CLUSTER_BITS_MIN <= bits <= CLUSTER_BITS_MAX and self.cluster_bytes == 1 << bits,
            f"cluster_bytes: {self.cluster_bytes}, expected a power of two from 512 to 2 MiB",
        )
        _require(
            self.size_bytes >= 0 and not self.size_bytes % 512,
            f"size_bytes: {self.size_bytes}, expected a multiple of 512",
        )
        _require(self.version in (2, 3), f"version: {self.version}, expected 2 or 3")
        _require(
            self.refcount_bits in _REFCOUNT_BITS,
            f"refcount_bits: {self.refcount_bits}, expected a power of two from 1 to 64",
        )
        _require(self.compression in COMPRESSIONS, f"compression: {self.compression!r}, expected zlib or zstd")
        _require(self.backing_format in FORMATS, f"backing_format: {self.backing_format!r}, expected qcow2 or raw")
        plain = self.refcount_bits == 16 and not self.lazy_refcounts and self.compression == "zlib"
        _require(
            self.version == 3 or plain,
            "version: 2 has refcounts of 16 bits, no lazy refcounts and zlib alone; take version 3",
        )
        name_max = min(BACKING_NAME_BYTES_MAX, self.cluster_bytes - HEADER_BYTES - 32)
        _require(len(self.backing_file.encode()) <= name_max, f"backing_file: more than {name_max} bytes")
        if self.l1_size > L1_ENTRIES_MAX:
            text = f"size_bytes: {self.size_bytes} is too large for clusters of {self.cluster_bytes} bytes"
            raise BlockError(Errno.EFBIG, text)


def _require(holds: bool, text: str) -> None:  # noqa: FBT001  # reads like an assertion
    if not holds:
        raise BlockError(Errno.EINVAL, text)


def format_image(file: BlockFile, wanted: Format) -> None:
    """Make `file` an empty image; the header comes last, so that a half-made one is not taken for an image."""
    wanted.require_possible()
    size = wanted.cluster_bytes
    codec = Codec(wanted.refcount_bits)
    table, blocks, l1 = _plan(wanted)
    file.truncate(0)
    used = 1 + table + blocks + l1
    counts = codec.decode(bytes(blocks * size))
    for cluster in range(used):
        counts[cluster] = 1
    file.pwrite((1 + table) * size, codec.encode(counts), region="refcount-block")
    entries = b"".join(((1 + table + n) * size).to_bytes(8, "big") for n in range(blocks))
    file.pwrite(size, entries + bytes(table * size - len(entries)), region="refcount-table")
    if l1:
        file.pwrite((used - l1) * size, bytes(l1 * size), region="l1")
    file.flush()
    header = Header(
        wanted.cluster_bits, wanted.size_bytes, wanted.l1_size, (used - l1) * size, size, table, version=wanted.version,
        refcount_order=wanted.refcount_bits.bit_length() - 1, compression=COMPRESSIONS[wanted.compression],
        compatible=LAZY_REFCOUNTS if wanted.lazy_refcounts else 0,
    )  # fmt: skip
    file.pwrite(0, _front(header, wanted).ljust(size, b"\0"), region="header")
    file.flush()


def _front(header: Header, wanted: Format) -> bytes:
    """Return the header and what follows it in its cluster."""
    if header.version == 2:
        header = header._replace(header_length=HEADER_BYTES_V2)
    elif header.compression != ZLIB:
        header = header._replace(header_length=HEADER_BYTES, incompatible=_ZSTD_BIT)
    else:
        header = header._replace(header_length=HEADER_BYTES_V3)
    if not wanted.backing_file:
        return header.pack()
    extensions = backing_format_extension(wanted.backing_format) + bytes(8)  # the end of the extensions
    name = wanted.backing_file.encode()
    place = header.header_length + len(extensions)
    return header._replace(backing_offset=place, backing_length=len(name)).pack() + extensions + name


def _plan(wanted: Format) -> tuple[int, int, int]:
    """Return how many clusters the refcount table, the refcount blocks and the L1 table take."""
    size = wanted.cluster_bytes
    l1 = ceil_div(wanted.l1_size * 8, size)
    table, blocks = 1, 1
    while True:
        needed = ceil_div(1 + table + blocks + l1, size * 8 // wanted.refcount_bits)
        if needed <= blocks:
            return table, blocks, l1
        blocks = needed
        table = ceil_div(blocks * 8, size)
