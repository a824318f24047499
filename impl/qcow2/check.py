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
from snapcheck.impl.qcow2.layout import (
    COMPRESSED,
    COPIED,
    L1_BYTES_MAX,
    OFFSET_MASK,
    ZERO,
    Header,
    ImageError,
    SnapshotEntry,
    ceil_div,
    require_table,
)
from snapcheck.impl.qcow2.state import read_header, read_snapshots
from snapcheck.model.history import Check

CLUSTERS_MAX: Final = 1 << 26  # of the file; more would take gigabytes of memory
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
_L2_RESERVED: Final = np.uint64(~(COPIED | COMPRESSED | ZERO | OFFSET_MASK) & (1 << 64) - 1)


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
    return _Inspection(file).report()


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


class _Inspection:
    """One check in progress: references are added up table by table, and compared at the end."""

    def __init__(self, file: BlockFile) -> None:
        self._file = file
        self._header = read_header(file)
        self._snapshots = read_snapshots(file, self._header)
        self._bits = self._header.cluster_bits
        self._file_bytes = file.size()
        self._clusters = ceil_div(self._file_bytes, self._header.cluster_bytes)
        if self._clusters > CLUSTERS_MAX:
            raise ImageError(f"file size: {self._clusters} clusters are more than can be checked ({CLUSTERS_MAX})")
        self._counts = np.zeros(self._clusters, dtype=np.uint16)
        self._references = np.zeros(self._clusters, dtype=np.int64)
        self._tables = np.zeros(self._clusters, dtype=np.uint32)  # how many different tables lie here
        self._data = np.zeros(self._clusters, dtype=np.bool_)
        self._copied = np.zeros(self._clusters, dtype=np.bool_)  # an active entry says COPIED
        self._uncopied = np.zeros(self._clusters, dtype=np.bool_)  # an active entry does not
        self._kinds = np.zeros(self._clusters, dtype=np.uint8)
        self._corruptions, self._leaks, self._missing = _Findings(), _Findings(), _Findings()

    def report(self) -> Report:
        """Follow every reference, and compare with the refcounts."""
        self._add_table(0, self._header.header_length, ClusterKind.HEADER)
        self._read_counts()
        self._add_snapshot_table()
        self._follow(self._read_l1_tables())
        self._compare()
        self._judge_copied()
        self._tell_kinds()
        return Report(
            self._header, tuple(self._snapshots.entries), self._file_bytes, self._kinds,
            self._corruptions.count, self._leaks.count, self._missing.count,
            (*self._corruptions.told, *self._leaks.told, *self._missing.told),
        )  # fmt: skip

    # --- refcounts --------------------------------------------------------------------------------
    def _read_counts(self) -> None:
        """Read every refcount block once, and tell what is counted behind the end of the file."""
        header, block_entries = self._header, self._header.cluster_bytes // 2
        offset, length = header.refcount_table_offset, header.refcount_table_clusters << self._bits
        self._add_table(offset, length, ClusterKind.REFCOUNT_TABLE)
        table = _words(self._file.pread(offset, length, region="refcount-table"))
        blocks = self._without_repeats(self._pointers(table, _TABLE_RESERVED, "refcount table: entry {}"))
        self._add_tables(blocks.clusters, ClusterKind.REFCOUNT_BLOCK)
        counts = np.zeros((ceil_div(self._clusters, block_entries), block_entries), dtype=np.uint16)
        for batch in self._batches(len(blocks.clusters)):
            raw = self._read_clusters(blocks.clusters[batch], "refcount-block")
            rows, places = np.frombuffer(raw, dtype=">u2").reshape(-1, block_entries), blocks.places[batch]
            inside = places < len(counts)
            counts[places[inside]] = rows[inside]
            row, slot = np.nonzero(rows[~inside])
            self._add_leaks_behind_end(places[~inside][row] * block_entries + slot)
        self._counts = counts.reshape(-1)[: self._clusters]
        self._add_leaks_behind_end(np.flatnonzero(counts.reshape(-1)[self._clusters :]) + self._clusters)

    def _without_repeats(self, blocks: _Pointers) -> _Pointers:
        firsts = np.unique(blocks.clusters, return_index=True)[1]
        if len(firsts) == len(blocks.clusters):
            return blocks
        repeats = np.delete(blocks.places, firsts)
        self._corruptions.add_all("refcount table: entry {} refers to the same block as an earlier one", repeats)
        return _Pointers(blocks.places[firsts], blocks.clusters[firsts])

    def _add_leaks_behind_end(self, clusters: Indices) -> None:
        self._leaks.add_all("cluster at {:#x}: counted, behind the end of the file", clusters << self._bits)

    # --- tables -----------------------------------------------------------------------------------
    def _add_table(self, offset: int, length: int, kind: ClusterKind) -> None:
        """Count a table of `length` bytes; what lies behind the end of the file is left out."""
        first = offset >> self._bits
        here = slice(first, first + ceil_div(length, self._header.cluster_bytes))
        self._references[here] += 1
        self._tables[here] += 1
        self._kinds[here] = kind

    def _add_tables(self, clusters: Indices, kind: ClusterKind, *, references: Indices | int = 1) -> None:
        """Count tables of one cluster each; `clusters` has none of them twice."""
        self._references[clusters] += references
        self._tables[clusters] += 1
        self._kinds[clusters] = kind

    def _require_table(self, what: str, offset: int, length: int, *, bytes_max: int) -> bool:
        """Tell whether a table can be where it is said to be; that it can not is a corruption."""
        try:
            require_table(what, offset, length, self._header, bytes_max=bytes_max, file_bytes=self._file_bytes)
        except ImageError as error:
            self._corruptions.add(str(error))
            return False
        return True

    def _add_snapshot_table(self) -> None:
        if self._snapshots.entries:
            offset, length = self._header.snapshots_offset, self._snapshots.length
            self._require_table("snapshots", offset, length, bytes_max=length)
            self._add_table(offset, length, ClusterKind.SNAPSHOT_TABLE)

    def _read_l1_tables(self) -> list[Entries]:
        """Return the active L1 table, and behind it those of the snapshots whose table can be where it should be."""
        header = self._header
        tables = [self._read_l1(header.l1_offset, header.l1_size)]
        room = (self._clusters << self._bits) // 8 - header.l1_size  # for entries; where it ends, tables overlap
        for index, entry in enumerate(self._snapshots.entries):
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
        return _words(self._file.pread(offset, entries * 8, region="l1"))

    # --- references -------------------------------------------------------------------------------
    def _follow(self, l1_tables: list[Entries]) -> None:
        """Count what every tree refers to: each L2 table, and each of its clusters, once for each tree it is in."""
        active = self._pointers(l1_tables[0], _L1_RESERVED, "active L1: entry {}")
        self._note_copied(l1_tables[0][active.places], active.clusters)
        trees = np.bincount(active.clusters, minlength=self._clusters)
        is_active = trees > 0
        if len(l1_tables) > 1:
            others = self._pointers(np.concatenate(l1_tables[1:]), _L1_RESERVED, "snapshots' L1: entry {} of all")
            trees = trees + np.bincount(others.clusters, minlength=self._clusters)
        tables = np.flatnonzero(trees)
        self._add_tables(tables, ClusterKind.L2, references=trees[tables])
        for batch in self._batches(len(tables)):
            here = tables[batch]
            self._follow_l2(here, trees[here], is_active[here])

    def _follow_l2(self, tables: Indices, trees: Indices, is_active: Flags) -> None:
        entries = _words(self._read_clusters(tables, "l2"))
        compressed = np.flatnonzero(entries & _COMPRESSED64)
        if len(compressed):
            self._add_compressed(entries[compressed], trees[compressed >> (self._bits - 3)])
            entries[compressed] = 0
        found = self._pointers(entries, _L2_RESERVED, "L2 table at {:#x}: entry {}", tables=tables)
        rows = found.places >> (self._bits - 3)
        self._add_data(found.clusters, trees[rows])
        active = is_active[rows]
        self._note_copied(entries[found.places[active]], found.clusters[active])

    def _add_data(self, clusters: Indices, references: Indices) -> None:
        self._references += np.bincount(clusters, weights=references, minlength=self._clusters).astype(np.int64)
        self._data[clusters] = True

    def _add_compressed(self, entries: Entries, references: Indices) -> None:
        """Count every cluster that compressed data touches; it lies anywhere, in sectors (SPEC B.7)."""
        offset_bits = 62 - (self._bits - 8)
        start = (entries & np.uint64((1 << offset_bits) - 1)).astype(np.int64)
        sectors = ((entries & np.uint64(COMPRESSED - 1)) >> np.uint64(offset_bits)).astype(np.int64) + 1
        first, last = start >> self._bits, (start // 512 * 512 + sectors * 512 - 1) >> self._bits
        outside = last >= self._clusters
        self._corruptions.add_all("L2: compressed data at {:#x} ends behind the end of the file", start[outside])
        for step in range(3):  # as many clusters as it can touch
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
        places = (entries & (_MASK64 | reserved)).nonzero()[0]
        used = entries[places]
        offsets = (used & _MASK64).astype(np.int64)
        clusters = offsets >> self._bits
        bits = int(np.bitwise_or.reduce(used)) if len(used) else 0  # that are set in any entry
        if (
            not bits & (int(reserved) | self._header.cluster_bytes - 1)
            and int(clusters.max(initial=0)) < self._clusters
        ):
            return _Pointers(places, clusters)
        astray = ((offsets & ((1 << self._bits) - 1)) != 0) | (clusters >= self._clusters)
        odd = (used & reserved).astype(np.bool_)
        self._add_bad(f"{name}: reserved bits in {{:#x}}", places[odd], entries, tables)
        self._add_bad(f"{name}: {{:#x}} refers to no cluster of the file", places[astray], entries, tables)
        good = ~astray & (offsets != 0)
        return _Pointers(places[good], clusters[good])

    def _add_bad(self, text: str, places: Indices, entries: Entries, tables: Indices | None) -> None:
        bits = self._bits - 3
        where = (places,) if tables is None else (tables[places >> bits] << self._bits, places & ((1 << bits) - 1))
        self._corruptions.add_all(text, *where, entries[places])

    # --- reading ----------------------------------------------------------------------------------
    def _batches(self, tables: int) -> Iterator[slice]:
        step = max(_BATCH_BYTES >> self._bits, 1)
        return (slice(first, first + step) for first in range(0, tables, step))

    def _read_clusters(self, clusters: Indices, region: str) -> bytes:
        """Return the bytes of `clusters`; neighbours are read in one go."""
        bits, read = self._bits, self._file.pread
        starts = [0, *(np.flatnonzero(np.diff(clusters) != 1) + 1).tolist(), len(clusters)]
        runs = zip(clusters[starts[:-1]].tolist(), np.diff(starts).tolist(), strict=True)
        return b"".join([read(first << bits, count << bits, region=region) for first, count in runs])

    # --- judging ----------------------------------------------------------------------------------
    def _compare(self) -> None:
        """Compare refcounts with references, and find what lies where something else does."""
        counts, references = self._counts, self._references
        text = "cluster at {:#x}: refcount {}, references {}"
        for findings, wrong in (
            (self._corruptions, np.flatnonzero(counts < references)),
            (self._leaks, np.flatnonzero(counts > references)),
        ):
            findings.add_all(text, wrong << self._bits, counts[wrong], references[wrong])
        overlaps = np.flatnonzero(self._overlap())
        self._corruptions.add_all("cluster at {:#x}: a table and something else lie here", overlaps << self._bits)

    def _overlap(self) -> Flags:
        return (self._tables > 1) | ((self._tables > 0) & self._data)

    def _judge_copied(self) -> None:
        wrong = np.flatnonzero(self._copied & (self._references != 1))
        self._corruptions.add_all(
            "cluster at {:#x}: COPIED, and {} references", wrong << self._bits, self._references[wrong]
        )
        missing = np.flatnonzero(self._uncopied & (self._counts == 1))
        self._missing.add_all("cluster at {:#x}: refcount 1, and not COPIED", missing << self._bits)

    def _tell_kinds(self) -> None:
        alone = self._data & (self._tables == 0)
        self._kinds[alone] = ClusterKind.SNAPSHOT_DATA
        self._kinds[alone & (self._copied | self._uncopied)] = ClusterKind.DATA
        self._kinds[(self._references == 0) & (self._counts > 0)] = ClusterKind.LEAKED
        self._kinds[self._overlap()] = ClusterKind.CONFLICT


def _words(raw: bytes) -> Entries:
    return np.frombuffer(raw, dtype=">u8").astype(np.uint64)
