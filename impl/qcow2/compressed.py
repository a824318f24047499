"""Compressed clusters: where an L2 entry says the data is, and the two compressions (zlib, and zstd with its library).

The data lies anywhere in the file, in whole sectors of which it fills the last in part; each cluster that it touches
is counted once for each L2 entry (SPEC B.7).
"""

import zlib
from importlib import import_module
from types import ModuleType
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from snapcheck.impl.blockfile import BlockError
from snapcheck.impl.qcow2.layout import COMPRESSED, ZSTD
from snapcheck.model.errno import Errno

SECTOR: Final = 512
CLUSTERS_TOUCHED_MAX: Final = 3  # by one entry: its sectors make up to twice a cluster
_WINDOW_BITS: Final = 12  # what readers allow for


class Extent(NamedTuple):
    """Bytes of the file that hold one compressed cluster, perhaps with something else behind it."""

    offset: int
    length: int


def extent(entry: int, cluster_bits: int) -> Extent:
    """Return where the data of a compressed entry is."""
    offset_bits = _offset_bits(cluster_bits)
    offset = entry & ((1 << offset_bits) - 1)
    sectors = ((entry & (COMPRESSED - 1)) >> offset_bits) + 1
    return Extent(offset, sectors * SECTOR - offset % SECTOR)


def entry_for(place: Extent, cluster_bits: int) -> int:
    """Return the L2 entry for compressed data at `place`."""
    sectors = (place.offset + place.length - 1) // SECTOR - place.offset // SECTOR
    return COMPRESSED | sectors << _offset_bits(cluster_bits) | place.offset


def clusters(entry: int, cluster_bits: int) -> range:
    """Return the clusters of the file that a compressed entry touches."""
    offset, length = extent(entry, cluster_bits)
    return range(offset >> cluster_bits, ((offset + length - 1) >> cluster_bits) + 1)


def first_and_last(entries: NDArray[np.uint64], cluster_bits: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first and the last cluster that each of the compressed `entries` touches."""
    offset_bits = _offset_bits(cluster_bits)
    start = (entries & np.uint64((1 << offset_bits) - 1)).astype(np.int64)
    sectors = ((entries & np.uint64(COMPRESSED - 1)) >> np.uint64(offset_bits)).astype(np.int64) + 1
    return start >> cluster_bits, ((start // SECTOR + sectors) * SECTOR - 1) >> cluster_bits


def _offset_bits(cluster_bits: int) -> int:
    return 62 - (cluster_bits - 8)


# --- the data -------------------------------------------------------------------------------------
def inflated(raw: bytes, kind: int, *, cluster_bytes: int) -> bytes:
    """Return the cluster that `raw` begins with, in compressed form; EIO when it does not hold a whole one."""
    data = _inflated_zstd(raw, cluster_bytes) if kind == ZSTD else _inflated_zlib(raw, cluster_bytes)
    if len(data) != cluster_bytes:
        raise BlockError(Errno.EIO, f"compressed cluster: {len(data)} bytes come out, not {cluster_bytes}")
    return data


def _inflated_zlib(raw: bytes, cluster_bytes: int) -> bytes:
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(raw, cluster_bytes)
    except zlib.error as error:
        raise BlockError(Errno.EIO, f"compressed cluster: {error}") from error


def _inflated_zstd(raw: bytes, cluster_bytes: int) -> bytes:
    library = _zstd()
    try:
        return bytes(library.ZstdDecompressor().stream_reader(raw).read(cluster_bytes))
    except library.ZstdError as error:
        raise BlockError(Errno.EIO, f"compressed cluster: {error}") from error


def deflated(data: bytes, kind: int) -> bytes:
    """Return a cluster in compressed form, which may be longer than it was."""
    if kind == ZSTD:
        return bytes(_zstd().ZstdCompressor().compress(data))
    packer = zlib.compressobj(wbits=-_WINDOW_BITS)
    return packer.compress(data) + packer.flush()


def _zstd() -> ModuleType:
    try:
        return import_module("zstandard")
    except ImportError:
        text = "compression_type: zstd needs the library zstandard (`pip install zstandard`)"
        raise BlockError(Errno.ENOTSUP, text) from None
