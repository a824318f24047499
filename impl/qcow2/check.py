"""The checker: every reference and every refcount of an image compared, whole tables at a time (SPEC B.7).

It reads the file alone, so it judges images that nobody has open, or what another engine wrote. Time and memory are
bounded by the size of the file: no table is read that does not fit into it, and no more L1 tables than it could hold.
"""

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from snapcheck.impl.blockfile import BlockFile
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
from snapcheck.impl.qcow2.state import read_header, read_snapshots
from snapcheck.model.history import Check

CLUSTERS_MAX: Final = 1 << 26  # of the file; more would take gigabytes of memory
MESSAGES_MAX: Final = 50  # of each sort; the rest is counted

Bytes = NDArray[np.uint8]
Entries = NDArray[np.uint64]
Indices = NDArray[np.int64]

_MASK64: Final = np.uint64(OFFSET_MASK)


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

    def add_all(self, places: Indices, text: str, cluster_bits: int, *details: Indices) -> None:
        """Add a problem for each cluster of `places`; `text` gets the offset and the details."""
        self.count += len(places)
        for number in range(min(len(places), MESSAGES_MAX - len(self.told))):
            values = [int(detail[number]) for detail in details]
            self.told.append(text.format(f"{int(places[number]) << cluster_bits:#x}", *values))


class _Inspection:
    """One check in progress: references are added up table by table, and compared at the end."""

    def __init__(self, file: BlockFile) -> None:
        self._file = file
        self._header = read_header(file)
        self._snapshots = tuple(read_snapshots(file, self._header).entries)
        self._bits = self._header.cluster_bits
        self._file_bytes = file.size()
        self._clusters = ceil_div(self._file_bytes, self._header.cluster_bytes)
        if self._clusters > CLUSTERS_MAX:
            raise ImageError(f"file size: {self._clusters} clusters are more than can be checked ({CLUSTERS_MAX})")
        self._references = np.zeros(self._clusters, dtype=np.int64)
        self._tables = np.zeros(self._clusters, dtype=np.uint8)  # how many different tables lie here
        self._kinds = np.zeros(self._clusters, dtype=np.uint8)
        self._corruptions, self._leaks, self._copied = _Findings(), _Findings(), _Findings()
        self._counts = self._read_counts()

    def report(self) -> Report:
        """Follow every reference, and compare with the refcounts."""
        header = self._header
        self._add_table(0, header.header_length, ClusterKind.HEADER)
        self._add_snapshot_table()
        l1_tables = self._read_l1_tables()
        self._follow(l1_tables)
        self._compare()
        self._judge_copied(l1_tables[0])
        return Report(
            header, self._snapshots, self._file_bytes, self._kinds,
            self._corruptions.count, self._leaks.count, self._copied.count,
            (*self._corruptions.told, *self._leaks.told, *self._copied.told),
        )  # fmt: skip
