"""Clusters and their versions: what each may hold in some states, and which state holds what."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from snapcheck.fault_injection.crash.columns import Rows
from snapcheck.fault_injection.crash.overlay import Places

Numbers = NDArray[np.int64]
_ALL: Final = (1 << 64) - 1


def numbered(keys: NDArray[np.integer]) -> tuple[Numbers, Numbers]:
    """Return the first place of each different key, the keys ascending, and by place which of them it has.

    `np.unique` tells the same, and takes three times as long where there are few keys.
    """
    order = keys.argsort(kind="stable")
    ascending = keys[order]
    begins = np.ones(len(keys), dtype=np.bool_)
    np.not_equal(ascending[1:], ascending[:-1], out=begins[1:])
    inverse = np.empty(len(keys), dtype=np.int64)
    inverse[order] = begins.cumsum() - 1
    return order[begins], inverse


def distinct(columns: Sequence[NDArray[np.integer]]) -> tuple[Numbers, Numbers]:
    """Return the first place of each different combination of numbers, and by place which of them it is.

    Each of `columns` has a small number, not below 0, for each place.
    """
    key, span = np.zeros(len(columns[0]), dtype=np.int64), 1
    for column in columns:
        size = int(column.max(initial=0)) + 1
        if size == 1:
            continue
        if span > (1 << 62) // size:  # too many to count on: number those that there are
            key = numbered(key)[1]
            span = int(key.max(initial=0)) + 1
        key, span = key * size + column, span * size
    return numbered(key.astype(np.uint16) if span <= 1 << 16 else key)  # those of 16 bits are sorted in no time


@dataclass(frozen=True, slots=True)
class Versions:
    """What one cluster may hold: `contents`, and by state which of them it does hold."""

    contents: tuple[bytes, ...]
    by_state: Numbers | None  # None where all states hold the same


class Clusters:
    """The clusters of the disks of some states, for clusters of one size. Contents are made once."""

    def __init__(self, places: Places, cluster_bits: int) -> None:
        self._places = places
        self._bits = cluster_bits
        self._columns = places.by_cluster(cluster_bits)
        self._known: dict[tuple[int, tuple[int, ...]], bytes] = {}
        self._fixed_numbers: dict[int, int] = {}
        self._zeroes = bytes(1 << cluster_bits)

    def columns(self, clusters: Iterable[int]) -> list[int]:
        """Return the columns that have a part in any of `clusters`."""
        found: dict[int, None] = {}
        for cluster in self._columns.keys() & set(clusters):
            found |= dict.fromkeys(self._columns[cluster])
        return sorted(found)

    def changes(self, cluster: int) -> bool:
        """Tell whether the cluster may hold different things in different states."""
        return cluster in self._columns

    def versions(self, cluster: int, rows: Rows, *, file_bytes: int) -> Versions:
        """Return what `cluster` holds in the states of `rows`, whose files have so many bytes."""
        columns = self._columns.get(cluster, ())
        if not columns:
            return Versions((self._content(cluster, (), file_bytes),), None)
        firsts, by_state = distinct([rows[:, column] for column in columns])
        versions = rows[firsts][:, list(columns)].tolist()
        contents = tuple(self._content(cluster, tuple(row), file_bytes) for row in versions)
        return Versions(contents, by_state if len(contents) > 1 else None)

    def number(self, content: bytes) -> int:
        """Return a number that tells contents apart, 0 for zeroes; another one in each process."""
        return 0 if content == self._zeroes else hash(content) & _ALL

    def fixed_number(self, cluster: int, *, file_bytes: int) -> int:
        """Return the number of what a cluster holds that never changes."""
        if (cluster + 1) << self._bits > file_bytes:
            return self.number(self._content(cluster, (), file_bytes))
        known = self._fixed_numbers.get(cluster)
        if known is None:
            known = self._fixed_numbers[cluster] = self.number(self._content(cluster, (), file_bytes))
        return known

    def _content(self, cluster: int, versions: tuple[int, ...], file_bytes: int) -> bytes:
        """Return what a cluster holds when its columns have these versions; behind the end of the file are zeroes."""
        key = (cluster, versions)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._made(cluster, versions)
        inside = file_bytes - (cluster << self._bits)
        return known if inside >= len(known) else known[: max(inside, 0)].ljust(len(known), b"\0")

    def _made(self, cluster: int, versions: tuple[int, ...]) -> bytes:
        first, length = cluster << self._bits, 1 << self._bits
        by_column = dict(zip(self._columns.get(cluster, ()), versions, strict=True))
        return self._places.patched(first, length, by_column, size=first + length)
