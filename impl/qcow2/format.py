"""Formatting: an empty version 3 image with 16-bit refcounts."""

from snapcheck.impl.blockfile import BlockError, BlockFile
from snapcheck.impl.qcow2.host import decoded, encoded
from snapcheck.impl.qcow2.layout import (
    CLUSTER_BITS_MAX,
    CLUSTER_BITS_MIN,
    L1_ENTRIES_MAX,
    Header,
    ceil_div,
)
from snapcheck.model.errno import Errno


def format_image(file: BlockFile, *, size_bytes: int, cluster_bytes: int) -> None:
    """Make `file` an empty image; the header comes last, so that a half-made one is not taken for an image."""
    bits = cluster_bytes.bit_length() - 1
    if not CLUSTER_BITS_MIN <= bits <= CLUSTER_BITS_MAX or cluster_bytes != 1 << bits:
        raise BlockError(Errno.EINVAL, f"cluster_bytes: {cluster_bytes}, expected a power of two from 512 to 2 MiB")
    if size_bytes < 0 or size_bytes % 512:
        raise BlockError(Errno.EINVAL, f"size_bytes: {size_bytes}, expected a multiple of 512")
    l1_size = ceil_div(size_bytes, cluster_bytes * cluster_bytes // 8)
    if l1_size > L1_ENTRIES_MAX:
        raise BlockError(Errno.EFBIG, f"size_bytes: {size_bytes} is too large for clusters of {cluster_bytes} bytes")
    table, blocks, l1 = _plan(l1_size, cluster_bytes)
    file.truncate(0)
    used = 1 + table + blocks + l1
    counts = decoded(bytes(blocks * cluster_bytes), "H")
    for cluster in range(used):
        counts[cluster] = 1
    file.pwrite((1 + table) * cluster_bytes, encoded(counts), region="refcount-block")
    entries = b"".join(((1 + table + n) * cluster_bytes).to_bytes(8, "big") for n in range(blocks))
    file.pwrite(cluster_bytes, entries + bytes(table * cluster_bytes - len(entries)), region="refcount-table")
    if l1:
        file.pwrite((used - l1) * cluster_bytes, bytes(l1 * cluster_bytes), region="l1")
    file.flush()
    header = Header(bits, size_bytes, l1_size, (used - l1) * cluster_bytes, cluster_bytes, table)
    file.pwrite(0, header.pack() + bytes(cluster_bytes - len(header.pack())), region="header")
    file.flush()


def _plan(l1_size: int, cluster_bytes: int) -> tuple[int, int, int]:
    """Return how many clusters the refcount table, the refcount blocks and the L1 table take."""
    l1 = ceil_div(l1_size * 8, cluster_bytes)
    table, blocks = 1, 1
    while True:
        needed = ceil_div(1 + table + blocks + l1, cluster_bytes // 2)
        if needed <= blocks:
            return table, blocks, l1
        blocks = needed
        table = ceil_div(blocks * 8, cluster_bytes)
