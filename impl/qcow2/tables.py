"""The mapping: the active L1 table, L2 tables, what a tree refers to, and the COPIED bits (SPEC B.7)."""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from snapcheck.impl.blockfile import BlockError
from snapcheck.impl.qcow2 import compressed
from snapcheck.impl.qcow2.host import Host, StoreError, Words, decoded, encoded
from snapcheck.impl.qcow2.layout import COMPRESSED, COPIED, OFFSET_MASK, ZERO, Header
from snapcheck.impl.qcow2.refcounts import Refcounts
from snapcheck.model.errno import Errno

_CACHE_BYTES_MAX: Final = 32 << 20
_BATCH_BYTES: Final = 8 << 20  # of L2 tables that are looked at together
_MASK64: Final = np.uint64(OFFSET_MASK)
_COPIED64: Final = np.uint64(COPIED)
_COMPRESSED64: Final = np.uint64(COMPRESSED)
SUBCLUSTERS: Final = 32  # parts of a cluster that an extended L2 entry tells apart


class Tree(NamedTuple):
    """What an L1 table refers to: every L2 table and data cluster once, and the L2 tables that hold COPIED bits."""

    clusters: NDArray[np.int64]
    with_copied: list[int]


class Tables:
    """The active L1 table and the L2 tables of all trees, by offset. Tables never change in place."""

    __slots__ = (
        "_bad_bits", "_cache", "_compression", "_host", "_refcounts", "_words_each", "cluster_bits", "in_parts", "l1",
        "l1_offset", "l2_bits", "l2_entries",
    )  # fmt: skip

    def __init__(self, host: Host, header: Header, refcounts: Refcounts) -> None:
        self._host = host
        self._refcounts = refcounts
        self.cluster_bits = header.cluster_bits
        self.l2_bits = header.l2_bits
        self.l2_entries = 1 << self.l2_bits
        self.in_parts = header.extended_l2  # L2 entries have a second word
        self._words_each = 2 if header.extended_l2 else 1
        self._compression = header.compression
        self._bad_bits = (OFFSET_MASK & (header.cluster_bytes - 1)) | (ZERO & ~header.l2_flags)
        self._cache: dict[int, Words] = {}
        self.l1_offset = header.l1_offset
        self.l1 = self.load_l1(header.l1_offset, header.l1_size)

    def clone(self, host: Host, refcounts: Refcounts) -> "Tables":
        """Return the same tables over another host."""
        twin = object.__new__(type(self))
        for name in Tables.__slots__:
            setattr(twin, name, getattr(self, name))
        twin._host, twin._refcounts, twin._cache = host, refcounts, self._cache.copy()
        return twin

    # --- looking up -------------------------------------------------------------------------------
    def load_l1(self, offset: int, entries: int) -> Words:
        """Return the L1 table at `offset`, of a snapshot or the active one."""
        return self._host.load(offset, entries, "l1") if entries else decoded(b"")

    def l2(self, offset: int) -> Words:
        """Return the L2 table at `offset`; EIO when that is no place for one."""
        table = self._cache.get(offset)
        if table is None:
            self._require_cluster(offset, "L1 entry", "an L2 table")
            table = self._host.load(offset, self.l2_entries * self._words_each, "l2")
            if len(self._cache) << self.cluster_bits > _CACHE_BYTES_MAX:
                self._cache.clear()
            self._cache[offset] = table
        return table

    def active_l2(self, index: int) -> "Words | None":
        """Return the L2 table of the active L1's entry `index`, None where there is none."""
        if index >= len(self.l1):
            return None
        offset = self.l1[index] & OFFSET_MASK
        return self.l2(offset) if offset else None

    def entry(self, cluster: int) -> int:
        """Return the L2 entry of a guest cluster in the active tree, 0 where there is none."""
        table = self.active_l2(cluster >> self.l2_bits)
        return table[(cluster & (self.l2_entries - 1)) * self._words_each] if table is not None else 0

    def entries(self, first: int, last: int) -> Words:
        """Return the L2 entries of the guest clusters from `first` up to `last`, 0 where there is none."""
        found = decoded(b"")
        while first < last:
            table = self.active_l2(first >> self.l2_bits)
            low = first & (self.l2_entries - 1)
            count = min(last - first, self.l2_entries - low)
            if table is None:
                found.frombytes(bytes(8 * count))
            else:
                found += table[low * self._words_each : (low + count) * self._words_each : self._words_each]
            first += count
        return found

    def parts(self, cluster: int) -> int:
        """Return the second word of a guest cluster's extended L2 entry: which parts are allocated, or read as zeroes.

        The lower half has a bit for each part that is in the file, the upper half for each that reads as zeroes.
        """
        table = self.active_l2(cluster >> self.l2_bits)
        parts = table[(cluster & (self.l2_entries - 1)) * self._words_each + 1] if table is not None else 0
        if parts & parts >> SUBCLUSTERS:
            raise BlockError(Errno.EIO, f"L2 entry: bitmap {parts:#x} has a part both allocated and reading as zeroes")
        return parts

    def data_offset(self, entry: int) -> int:
        """Return where the plain data of an L2 entry is in the file, 0 where it has none; EIO for a bad pointer."""
        offset = entry & OFFSET_MASK
        if not entry & (self._bad_bits | COMPRESSED | ZERO) and offset >> self.cluster_bits < self._refcounts.limit:
            return offset
        self.require_entry(entry)
        return 0

    def own_offset(self, cluster: int) -> int:
        """Return where a guest cluster can be written in place, 0 where it can not."""
        index = cluster >> self.l2_bits
        table = self.active_l2(index)
        if table is None or not self.l1[index] & COPIED:
            return 0
        entry = table[cluster & (self.l2_entries - 1)]
        return self.data_offset(entry) if entry & COPIED else 0

    def inflated(self, entry: int) -> bytes:
        """Return the cluster of a compressed L2 entry."""
        offset, length = self._packed(entry)
        raw = self._host.read(offset, length, "data")
        return compressed.inflated(raw, self._compression, cluster_bytes=1 << self.cluster_bits)

    def clusters_of(self, entry: int) -> list[int]:
        """Return the clusters of the file that an L2 entry refers to."""
        if entry & COMPRESSED:
            return list(compressed.clusters(entry, self.cluster_bits))
        return [(entry & OFFSET_MASK) >> self.cluster_bits] if entry & OFFSET_MASK else []

    def require_entry(self, entry: int) -> None:
        """Raise EIO for an L2 entry that points where no data can be."""
        if entry & COMPRESSED:
            self._packed(entry)
            return
        if entry & ZERO & self._bad_bits:
            raise BlockError(Errno.EIO, f"L2 entry: {entry:#x} has bit 0, which nothing stands for in this image")
        self._require_cluster(entry & OFFSET_MASK, "L2 entry", "data")

    def _packed(self, entry: int) -> compressed.Extent:
        """Return where the data of a compressed L2 entry is; EIO when no data can be there."""
        place = compressed.extent(entry, self.cluster_bits)
        if (place.offset + place.length - 1) >> self.cluster_bits >= self._refcounts.limit:
            raise BlockError(
                Errno.EIO, f"L2 entry: compressed data at {place.offset:#x} is out of reach; the image is corrupt"
            )
        return place

    def _require_cluster(self, offset: int, kind: str, target: str) -> None:
        if offset & ((1 << self.cluster_bits) - 1) or offset >> self.cluster_bits >= self._refcounts.limit:
            raise BlockError(
                Errno.EIO, f"{kind}: {offset:#x} is no cluster that could hold {target}; the image is corrupt"
            )

    # --- changing ---------------------------------------------------------------------------------
    def store_l1_entry(self, index: int, entry: int) -> None:
        """Change one entry of the active L1 table, on the medium and in memory."""
        new = self.l1[:]
        new[index] = entry
        self._store_l1(new, index, index + 1)

    def _store_l1(self, new: Words, low: int, high: int) -> None:
        try:
            self._host.store(self.l1_offset, new, low, high, "l1", old=self.l1)
        except StoreError as error:
            self.l1 = error.words or self.l1
            raise
        self.l1 = new

    def store_l2(self, offset: int, new: Words, low: int, high: int) -> None:
        """Change entries `low` to `high` of the L2 table at `offset`, on the medium and in memory."""
        try:
            self._host.store(offset, new, low, high, "l2", old=self.l2(offset))
        except StoreError as error:
            if error.words is None:
                self._cache.pop(offset, None)
            else:
                self._cache[offset] = error.words
            raise
        self._cache[offset] = new

    def write_l2(self, offset: int, table: Words) -> None:
        """Write a whole L2 table that nothing refers to yet."""
        self._cache.pop(offset, None)
        self._host.write(offset, encoded(table), "l2")
        self._cache[offset] = table

    # --- whole trees ------------------------------------------------------------------------------
    def gather(self, l1: Words) -> Tree:
        """Return all that the tree of `l1` refers to; EIO or ENOTSUP, with nothing changed, for a bad pointer."""
        offsets = _l2_offsets(l1)
        with_copied: list[int] = []
        parts = [np.array(offsets, dtype=np.int64) >> self.cluster_bits]
        for batch in self._batches(offsets):
            entries = self._entries(batch)
            used = entries[entries.nonzero()[0]]
            bits = int(np.bitwise_or.reduce(used)) if len(used) else 0  # that are set in any entry
            if bits & COPIED:
                rows = (entries & _COPIED64).nonzero()[0] >> self.l2_bits
                with_copied += [batch[row] for row in sorted(set(rows.tolist()))]
            parts.append(self._clusters_of(used, bits))
        return Tree(np.concatenate(parts), with_copied)

    def _batches(self, offsets: list[int]) -> list[list[int]]:
        step = max(_BATCH_BYTES >> self.cluster_bits, 1)
        return [offsets[first : first + step] for first in range(0, len(offsets), step)]

    def _entries(self, offsets: list[int]) -> NDArray[np.uint64]:
        tables = [self.l2(offset) for offset in offsets]
        return np.frombuffer(tables[0] if len(tables) == 1 else b"".join(tables), dtype=np.uint64)

    def _clusters_of(self, used: NDArray[np.uint64], bits: int) -> NDArray[np.int64]:
        packed = np.zeros(0, dtype=np.int64)
        if bits & COMPRESSED:
            is_packed = (used & _COMPRESSED64) != 0
            packed, used = self._touched(used[is_packed]), used[~is_packed]
        if bits & ZERO:  # an entry that reads as zeroes need not have a cluster
            used = used[(used & (_MASK64 | np.uint64(self._bad_bits))).nonzero()[0]]
        clusters = ((used & _MASK64) >> np.uint64(self.cluster_bits)).view(np.int64)
        if bits & self._bad_bits or (len(clusters) and int(clusters.max()) >= self._refcounts.limit):
            bad = (used & np.uint64(self._bad_bits)).astype(bool) | (clusters >= self._refcounts.limit)
            if bad.any():
                self.require_entry(int(used[bad][0]))
        return np.concatenate((clusters, packed)) if len(packed) else clusters

    def _touched(self, entries: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return each cluster that compressed entries touch, once for each of them."""
        first, last = compressed.first_and_last(entries, self.cluster_bits)
        outside = last >= self._refcounts.limit
        if outside.any():
            self.require_entry(int(entries[outside][0]))
        steps = range(compressed.CLUSTERS_TOUCHED_MAX)
        return np.concatenate([first[first + step <= last] + step for step in steps])

    def clear_copied(self, offsets: list[int]) -> None:
        """Take the COPIED bit from every entry of the L2 tables at `offsets`: their clusters become shared."""
        for offset in offsets:
            old = self.l2(offset)
            entries = np.frombuffer(old, dtype=np.uint64)
            self._store_changed(offset, entries, entries & ~_COPIED64)

    def refresh_copied(self) -> None:
        """Set COPIED in the active tree exactly where the refcount is 1 (after a snapshot went away)."""
        offsets = _l2_offsets(self.l1)
        for batch in self._batches(offsets):
            entries = self._entries(batch)
            wanted = self._recounted(entries)
            if wanted is not entries:
                tables = zip(batch, entries.reshape(len(batch), -1), wanted.reshape(len(batch), -1), strict=True)
                for offset, row, row_wanted in tables:
                    self._store_changed(offset, row, row_wanted)
        self._refresh_l1()

    def _refresh_l1(self) -> None:
        entries = np.frombuffer(self.l1, dtype=np.uint64)
        wanted = self._recounted(entries)
        changed = (entries != wanted).nonzero()[0]
        if len(changed):
            self._store_l1(_as_words(wanted), int(changed[0]), int(changed[-1]) + 1)

    def _recounted(self, entries: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Return `entries` with the COPIED bit where, and only where, the refcount is 1."""
        places = (entries & _MASK64).nonzero()[0]
        used = entries[places]
        if int(np.bitwise_or.reduce(used)) & COMPRESSED:
            places = places[(used & _COMPRESSED64) == 0]  # COPIED never stands there
            used = entries[places]
        counts = self._refcounts.of(((used & _MASK64) >> np.uint64(self.cluster_bits)).view(np.int64))
        right = np.where(counts == 1, used | _COPIED64, used & ~_COPIED64)
        if (right == used).all():
            return entries
        wanted = entries.copy()
        wanted[places] = right
        return wanted

    def _store_changed(self, offset: int, old: NDArray[np.uint64], new: NDArray[np.uint64]) -> None:
        changed = (old != new).nonzero()[0]
        if len(changed):
            self.store_l2(offset, _as_words(new), int(changed[0]), int(changed[-1]) + 1)

    def own_copy(self, table: Words, l2_refcount: int) -> Words:
        """Return what a private copy of a shared L2 table begins with: its clusters stay shared, so nothing is COPIED.

        An unshared table whose L1 entry lost its COPIED bit (debris of a power cut) keeps what the refcounts allow.
        """
        entries = np.frombuffer(table, dtype=np.uint64)
        return _as_words(self._recounted(entries) if l2_refcount == 1 else entries & ~_COPIED64)


def _l2_offsets(l1: Words) -> list[int]:
    return [entry & OFFSET_MASK for entry in l1 if entry & OFFSET_MASK]


def _as_words(entries: NDArray[np.uint64]) -> Words:
    words = decoded(b"")
    words.frombytes(entries.tobytes())
    return words


def without_copied(l1: Words) -> Words:
    """Return an L1 table whose trees are all shared."""
    return _as_words(np.frombuffer(l1, dtype=np.uint64) & ~_COPIED64)
