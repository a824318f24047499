"""The checker: every reference and every refcount of an image compared, whole tables at a time (SPEC B.7).

It reads the file alone, so it judges images that nobody has open, or what another engine wrote. Time and memory are
bounded by the size of the file: no table is read that does not fit into it, none is read twice, and no more L1 tables
are read than it could hold.

An L2 table and its clusters are referred to once by each tree that they are in. COPIED is judged in the active tree
alone, and by the references: on a cluster that really has one reference it is right, however high the refcount.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from snapcheck.impl.blockfile import BlockFile
from snapcheck.impl.qcow2 import compressed
from snapcheck.impl.qcow2.bitmaps import Bitmap, clusters_in, read_bitmaps
from snapcheck.impl.qcow2.host import Codec
from snapcheck.impl.qcow2.layout import (
    COMPRESSED,
    COPIED,
    L1_BYTES_MAX,
    OFFSET_MASK,
    Header,
    ImageError,
    SnapshotEntry,
    ceil_div,
    require_table,
)
from snapcheck.impl.qcow2.state import read_front, read_snapshots
from snapcheck.impl.qcow2.tables import SUBCLUSTERS
from snapcheck.model.history import Check

CLUSTERS_MAX: Final = (
    1 << 24
)  # of the file, 1 TiB with clusters of 64k: a check takes some 40 bytes for each, a repair 60
MESSAGES_MAX: Final = 50  # of each sort; the rest is counted

Bytes = NDArray[np.uint8]
Flags = NDArray[np.bool_]
Entries = NDArray[np.uint64]
Indices = NDArray[np.int64]

_BATCH_BYTES: Final = 8 << 20  # of tables that are looked at together
_MASK64: Final = np.uint64(OFFSET_MASK)
_COPIED64: Final = np.uint64(COPIED)
_COMPRESSED64: Final = np.uint64(COMPRESSED)
_TABLE_RESERVED: Final = np.uint64(~OFFSET_MASK & (1 << 64) - 1)
_L1_RESERVED: Final = np.uint64(~(COPIED | OFFSET_MASK) & (1 << 64) - 1)


class ClusterKind(IntEnum):
    """What a cluster of the file holds."""

    FREE = 0
    HEADER = 1
    REFCOUNT_TABLE = 2
    REFCOUNT_BLOCK = 3
    SNAPSHOT_TABLE = 4
    L1 = 5
    L2 = 6
    DATA = 7  # of the active state, perhaps shared with snapshots
    SNAPSHOT_DATA = 8  # of snapshots only
    LEAKED = 9  # counted, and nothing refers to it
    CONFLICT = 10  # several tables, or a table and data
    BITMAP = 11  # of persistent dirty bitmaps: their directory, tables and content


@dataclass(frozen=True, slots=True)
class Report:
    """What is in an image and what is wrong with it.

    `kinds` holds a `ClusterKind` for each cluster of the file: enough to draw a map. Problems are counted, and told
    with offsets as long as there are not too many of one sort.
    """

    header: Header
    snapshots: tuple[SnapshotEntry, ...]
    file_bytes: int
    kinds: Bytes
    corruptions: int = 0
    leaks: int = 0
    copied_missing: int = 0
    problems: tuple[str, ...] = ()

    @property
    def clean(self) -> bool:
        return not (self.corruptions or self.leaks or self.copied_missing)

    def cluster_counts(self) -> dict[ClusterKind, int]:
        """Return how many clusters of the file there are of each kind."""
        counts = np.bincount(self.kinds, minlength=len(ClusterKind))
        return {kind: int(counts[kind]) for kind in ClusterKind}

    def as_check(self) -> Check:
        """Return the judgement in the vocabulary of histories."""
        return Check(self.corruptions, self.leaks, self.copied_missing, self.problems)


def inspect(file: BlockFile) -> Report:
    """Check the image in `file`, and tell what each cluster holds; `ImageError` when there is no telling."""
    return Inspection(file).report()


@dataclass(slots=True)
class _Findings:
    """Problems of one sort: all are counted, the first are told."""

    count: int = 0
    told: list[str] = field(default_factory=list[str])

    def add(self, text: str) -> None:
        self.count += 1
        if len(self.told) < MESSAGES_MAX:
            self.told.append(text)

    def add_all(self, text: str, *details: "NDArray[np.integer[Any]]") -> None:
        """Add one problem for each element of the `details`, which `text` has a place for each."""
        count = len(details[0])
        self.count += count
        if count:
            told = (detail[: MESSAGES_MAX - len(self.told)].tolist() for detail in details)
            self.told += [text.format(*values) for values in zip(*told, strict=True)]


class _Pointers(NamedTuple):
    """Table entries that refer to something: where they stand, and the cluster that each refers to."""

    places: Indices  # of the entries in the array that was looked at
    clusters: Indices


class Inspection:
    """One check in progress: references are added up table by table, and compared at the end.

    `references` and `counts` have an element for each cluster of the file; `own_references` is the part of the former
    that the refcount table and its blocks make up. `uncounted` tells whether a block is missing or can not be used.
    With `lenient` a refcount table that can not be there is no reason to give up: nothing is counted then.
    """

    def __init__(self, file: BlockFile, *, lenient: bool = False) -> None:
        self.file = file
        self.header, extensions, _ = read_front(file, lenient=lenient)
        self.snapshots = read_snapshots(file, self.header, lenient=lenient)
        self._bitmaps = read_bitmaps(file, self.header, extensions)
        self._directory = extensions.bitmaps
        self._bits = self.header.cluster_bits
        self._codec = Codec(1 << self.header.refcount_order)
        self._l2_reserved = np.uint64(~(self.header.l2_flags | OFFSET_MASK) & (1 << 64) - 1)
        self._file_bytes = file.size()
        self.clusters = ceil_div(self._file_bytes, self.header.cluster_bytes)
        if self.clusters > CLUSTERS_MAX:
            raise ImageError(f"file size: {self.clusters} clusters are more than can be checked ({CLUSTERS_MAX})")
        self.counts: NDArray[np.unsignedinteger] = np.zeros(self.clusters, dtype=self._codec.dtype)
        self.references = np.zeros(self.clusters, dtype=np.int64)
        self.own_references = np.zeros(self.clusters, dtype=np.int64)
        self.uncounted = False
        self.counted_behind_end = 0
        self._blocks = _Pointers(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
        self._tables = np.zeros(self.clusters, dtype=np.uint32)  # how many different tables lie here
        self._data = np.zeros(self.clusters, dtype=np.bool_)
        self._copied = np.zeros(self.clusters, dtype=np.bool_)  # an active entry says COPIED
        self._uncopied = np.zeros(self.clusters, dtype=np.bool_)  # an active entry does not
        self._kinds = np.zeros(self.clusters, dtype=np.uint8)
        self._corruptions, self._leaks, self._missing = _Findings(), _Findings(), _Findings()

    def report(self) -> Report:
        """Follow every reference, and compare with the refcounts."""
        self._add_table(0, self.header.header_length, ClusterKind.HEADER)
        self._read_counts()
        self.own_references = self.references.copy()
        self.own_references[:1] -= 1  # the header
        self._add_snapshot_table()
        self._add_bitmaps()
        self._follow(self._read_l1_tables())
        self._compare()
        self._judge_copied()
        self._tell_kinds()
        return Report(
            self.header, tuple(self.snapshots.entries), self._file_bytes, self._kinds,
            self._corruptions.count, self._leaks.count, self._missing.count,
            (*self._corruptions.told, *self._leaks.told, *self._missing.told),
        )  # fmt: skip

    # --- refcounts --------------------------------------------------------------------------------
    def _read_counts(self) -> None:
        """Read every refcount block once, and tell what is counted behind the end of the file."""
        header, block_entries = self.header, self.header.cluster_bytes * 8 // self._codec.bits
        offset, length = header.refcount_table_offset, header.refcount_table_clusters << self._bits
        try:
            header.require_refcount_table(self._file_bytes)
        except ImageError as error:
            self._corruptions.add(str(error))
            self.uncounted = True
            return
        self._add_table(offset, length, ClusterKind.REFCOUNT_TABLE)
        table = _words(self.file.pread(offset, length, region="refcount-table"))
        found = self._pointers(table, _TABLE_RESERVED, "refcount table: entry {}")
        blocks = self._without_repeats(found)
        needed = ceil_div(self.clusters, block_entries)
        self.uncounted = int((blocks.places < needed).sum()) < needed or self._corruptions.count > 0
        self._blocks = blocks
        self._add_tables(blocks.clusters, ClusterKind.REFCOUNT_BLOCK)
        counts = np.zeros((needed, block_entries), dtype=self._codec.dtype)
        for batch in self._batches(len(blocks.clusters)):
            raw = self._read_clusters(blocks.clusters[batch], "refcount-block")
            rows, places = self._codec.array(raw).reshape(-1, block_entries), blocks.places[batch]
            inside = places < len(counts)
            counts[places[inside]] = rows[inside]
            row, slot = np.nonzero(rows[~inside])
            self._add_leaks_behind_end(places[~inside][row] * block_entries + slot)
        self.counts = counts.reshape(-1)[: self.clusters]
        self._add_leaks_behind_end((counts.reshape(-1)[self.clusters :] != 0).nonzero()[0] + self.clusters)

    def _without_repeats(self, blocks: _Pointers) -> _Pointers:
        if len(blocks.clusters) < 2:
            return blocks
        firsts = np.unique(blocks.clusters, return_index=True)[1]
        if len(firsts) == len(blocks.clusters):
            return blocks
        repeats = np.delete(blocks.places, firsts)
        self._corruptions.add_all("refcount table: entry {} refers to the same block as an earlier one", repeats)
        return _Pointers(blocks.places[firsts], blocks.clusters[firsts])

    def blocks(self) -> Iterator[tuple[int, int]]:
        """Yield (index, offset) of each refcount block."""
        return zip(self._blocks.places.tolist(), (self._blocks.clusters << self._bits).tolist(), strict=True)

    def _add_leaks_behind_end(self, clusters: Indices) -> None:
        self.counted_behind_end += len(clusters)
        self._leaks.add_all("cluster at {:#x}: counted, behind the end of the file", clusters << self._bits)

    # --- tables -----------------------------------------------------------------------------------
    def _add_table(self, offset: int, length: int, kind: ClusterKind) -> None:
        """Count a table of `length` bytes; what lies behind the end of the file is left out."""
        first = offset >> self._bits
        here = slice(first, first + ceil_div(length, self.header.cluster_bytes))
        self.references[here] += 1
        self._tables[here] += 1
        self._kinds[here] = kind

    def _add_tables(self, clusters: Indices, kind: ClusterKind, *, references: Indices | int = 1) -> None:
        """Count tables of one cluster each; `clusters` has none of them twice."""
        self.references[clusters] += references
        self._tables[clusters] += 1
        self._kinds[clusters] = kind

    def _require_table(self, what: str, offset: int, length: int, *, bytes_max: int) -> bool:
        """Tell whether a table can be where it is said to be; that it can not is a corruption."""
        try:
            require_table(what, offset, length, self.header, bytes_max=bytes_max, file_bytes=self._file_bytes)
        except ImageError as error:
            self._corruptions.add(str(error))
            return False
        return True

    def _add_snapshot_table(self) -> None:
        if self.snapshots.entries:
            offset, length = self.header.snapshots_offset, self.snapshots.length
            self._require_table("snapshots", offset, length, bytes_max=length)
            self._add_table(offset, length, ClusterKind.SNAPSHOT_TABLE)
        for index, entry in enumerate(self.snapshots.entries):
            try:
                entry.require_in_order(index, self.header)
            except ImageError as error:
                self._corruptions.add(str(error))

    def _add_bitmaps(self) -> None:
        """Count the directory of the bitmaps, their tables, and the clusters that those refer to."""
        if self._directory is not None and self._bitmaps:
            self._add_table(self._directory.offset, self._directory.length, ClusterKind.BITMAP)
        for bitmap in self._bitmaps:
            self._add_bitmap(bitmap)

    def _add_bitmap(self, bitmap: Bitmap) -> None:
        length = bitmap.table_entries * 8
        self._add_table(bitmap.table_offset, length, ClusterKind.BITMAP)
        offsets = np.array(clusters_in(self.file.pread(bitmap.table_offset, length, region="l1")), dtype=np.int64)
        clusters = offsets >> self._bits
        astray = ((offsets & (self.header.cluster_bytes - 1)) != 0) | (clusters >= self.clusters)
        self._corruptions.add_all("bitmap table: {:#x} refers to no cluster of the file", offsets[astray])
        np.add.at(self.references, clusters[~astray], 1)
        np.add.at(self._tables, clusters[~astray], 1)
        self._kinds[clusters[~astray]] = ClusterKind.BITMAP

    def _read_l1_tables(self) -> list[Entries]:
        """Return the active L1 table, and behind it those of the snapshots whose table can be where it should be."""
        header = self.header
        tables = [self._read_l1(header.l1_offset, header.l1_size)]
        room = (self.clusters << self._bits) // 8 - header.l1_size  # for entries; where it ends, tables overlap
        for index, entry in enumerate(self.snapshots.entries):
            name = f"snapshot {index}: l1_table"
            if not self._require_table(name, entry.l1_offset, entry.l1_size * 8, bytes_max=L1_BYTES_MAX):
                continue
            room -= entry.l1_size
            if room < 0:
                self._corruptions.add(f"snapshot {index}: more L1 tables than the file can hold; the rest is not read")
                break
            tables.append(self._read_l1(entry.l1_offset, entry.l1_size))
        return tables

    def _read_l1(self, offset: int, entries: int) -> Entries:
        if not entries:
            return np.zeros(0, dtype=np.uint64)
        self._add_table(offset, entries * 8, ClusterKind.L1)
        return _words(self.file.pread(offset, entries * 8, region="l1"))

    # --- references -------------------------------------------------------------------------------
    def _follow(self, l1_tables: list[Entries]) -> None:
        """Count what every tree refers to: each L2 table, and each of its clusters, once for each tree it is in."""
        active = self._pointers(l1_tables[0], _L1_RESERVED, "active L1: entry {}")
        self._note_copied(l1_tables[0][active.places], active.clusters)
        trees = np.bincount(active.clusters, minlength=self.clusters)
        is_active = trees > 0
        if len(l1_tables) > 1:
            others = self._pointers(np.concatenate(l1_tables[1:]), _L1_RESERVED, "snapshots' L1: entry {} of all")
            trees = trees + np.bincount(others.clusters, minlength=self.clusters)
        tables = (trees != 0).nonzero()[0]
        self._add_tables(tables, ClusterKind.L2, references=trees[tables])
        for batch in self._batches(len(tables)):
            here = tables[batch]
            self._follow_l2(here, trees[here], is_active[here])

    def _follow_l2(self, tables: Indices, trees: Indices, is_active: Flags) -> None:
        words = _words(self._read_clusters(tables, "l2"))
        entries, bits = words, self.header.l2_bits
        if self.header.extended_l2:
            entries = words[::2].copy()
            self._judge_parts(entries, words[1::2], tables)
        packed = ((entries & _COMPRESSED64) != 0).nonzero()[0]
        if len(packed):
            self._add_compressed(entries[packed], trees[packed >> bits])
            entries[packed] = 0
        found = self._pointers(entries, self._l2_reserved, "L2 table at {:#x}: entry {}", tables=tables)
        rows = found.places >> bits
        self._add_data(found.clusters, trees[rows])
        active = is_active[rows]
        self._note_copied(entries[found.places[active]], found.clusters[active])

    def _judge_parts(self, entries: Entries, parts: Entries, tables: Indices) -> None:
        """Judge the second words of extended L2 entries."""
        half = np.uint64((1 << SUBCLUSTERS) - 1)
        both = (parts & (parts >> np.uint64(SUBCLUSTERS)) & half) != 0
        packed = ((entries & _COMPRESSED64) != 0) & (parts != 0)
        nowhere = ((entries & (_MASK64 | _COMPRESSED64)) == 0) & ((parts & half) != 0)
        bad = np.flatnonzero(both | packed | nowhere)
        self._add_bad("L2 table at {:#x}: entry {}: impossible bitmap {:#x}", bad, parts, tables)

    def _add_data(self, clusters: Indices, references: Indices) -> None:
        self.references += np.bincount(clusters, weights=references, minlength=self.clusters).astype(np.int64)
        self._data[clusters] = True

    def _add_compressed(self, entries: Entries, references: Indices) -> None:
        """Count every cluster that compressed data touches; it lies anywhere, in sectors (SPEC B.7)."""
        first, last = compressed.first_and_last(entries, self._bits)
        outside = last >= self.clusters
        self._corruptions.add_all("L2: compressed data in cluster {} ends behind the end of the file", first[outside])
        copied = (entries & _COPIED64) != 0
        self._corruptions.add_all("L2: compressed data in cluster {} says COPIED", first[copied])
        for step in range(compressed.CLUSTERS_TOUCHED_MAX):
            here = (first + step <= last) & ~outside
            self._add_data(first[here] + step, references[here])

    def _note_copied(self, entries: Entries, clusters: Indices) -> None:
        copied = (entries & _COPIED64).astype(np.bool_)
        self._copied[clusters[copied]] = True
        self._uncopied[clusters[~copied]] = True

    def _pointers(
        self, entries: Entries, reserved: np.uint64, name: str, *, tables: Indices | None = None
    ) -> _Pointers:
        """Return the entries that refer to a cluster of the file; what refers elsewhere is a corruption.

        `name` gets the entry's place, behind the offset of its table where there are several `tables`.
        """
        places = ((entries & (_MASK64 | reserved)) != 0).nonzero()[0]  # of flags: that is quicker than of numbers
        used = entries[places]
        offsets = (used & _MASK64).astype(np.int64)
        clusters = offsets >> self._bits
        bits = int(np.bitwise_or.reduce(used)) if len(used) else 0  # that are set in any entry
        if not bits & (int(reserved) | self.header.cluster_bytes - 1) and int(clusters.max(initial=0)) < self.clusters:
            return _Pointers(places, clusters)
        astray = ((offsets & ((1 << self._bits) - 1)) != 0) | (clusters >= self.clusters)
        odd = (used & reserved).astype(np.bool_)
        self._add_bad(f"{name}: reserved bits in {{:#x}}", places[odd], entries, tables)
        self._add_bad(f"{name}: {{:#x}} refers to no cluster of the file", places[astray], entries, tables)
        good = ~astray & (offsets != 0)
        return _Pointers(places[good], clusters[good])

    def _add_bad(self, text: str, places: Indices, entries: Entries, tables: Indices | None) -> None:
        bits = self.header.l2_bits
        where = (places,) if tables is None else (tables[places >> bits] << self._bits, places & ((1 << bits) - 1))
        self._corruptions.add_all(text, *where, entries[places])

    # --- reading ----------------------------------------------------------------------------------
    def _batches(self, tables: int) -> Iterator[slice]:
        step = max(_BATCH_BYTES >> self._bits, 1)
        return (slice(first, first + step) for first in range(0, tables, step))

    def _read_clusters(self, clusters: Indices, region: str) -> bytes:
        """Return the bytes of `clusters`; neighbours are read in one go."""
        bits, read = self._bits, self.file.pread
        if len(clusters) == 1:
            return read(int(clusters[0]) << bits, 1 << bits, region=region)
        breaks = (clusters[1:] - clusters[:-1] != 1).nonzero()[0] + 1
        starts = [0, *breaks.tolist(), len(clusters)]
        firsts = clusters[starts[:-1]].tolist()
        runs = zip(firsts, starts[:-1], starts[1:], strict=True)
        return b"".join([read(first << bits, (end - start) << bits, region=region) for first, start, end in runs])

    # --- judging ----------------------------------------------------------------------------------
    def _compare(self) -> None:
        """Compare refcounts with references, and find what lies where something else does."""
        counts, references = self.counts, self.references
        text = "cluster at {:#x}: refcount {}, references {}"
        for findings, wrong in (
            (self._corruptions, (counts < references).nonzero()[0]),
            (self._leaks, (counts > references).nonzero()[0]),
        ):
            findings.add_all(text, wrong << self._bits, counts[wrong], references[wrong])
        overlaps = self._overlap().nonzero()[0]
        self._corruptions.add_all("cluster at {:#x}: a table and something else lie here", overlaps << self._bits)

    def _overlap(self) -> Flags:
        return (self._tables > 1) | ((self._tables > 0) & self._data)

    def _judge_copied(self) -> None:
        wrong = (self._copied & (self.references != 1)).nonzero()[0]
        self._corruptions.add_all(
            "cluster at {:#x}: COPIED, and {} references", wrong << self._bits, self.references[wrong]
        )
        missing = (self._uncopied & (self.counts == 1)).nonzero()[0]
        self._missing.add_all("cluster at {:#x}: refcount 1, and not COPIED", missing << self._bits)

    def _tell_kinds(self) -> None:
        alone = self._data & (self._tables == 0)
        self._kinds[alone] = ClusterKind.SNAPSHOT_DATA
        self._kinds[alone & (self._copied | self._uncopied)] = ClusterKind.DATA
        self._kinds[(self.references == 0) & (self.counts > 0)] = ClusterKind.LEAKED
        self._kinds[self._overlap()] = ClusterKind.CONFLICT


def _words(raw: bytes) -> Entries:
    return np.frombuffer(raw, dtype=">u8").astype(np.uint64)
