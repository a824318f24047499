"""Clusters and their versions: what each may hold in some states, and which state holds what."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from snapcheck.fault_injection.crash.columns import Rows
from snapcheck.fault_injection.crash.overlay import Places

Numbers = NDArray[np.int64]
Flags = NDArray[np.bool_]
_ALL: Final = (1 << 64) - 1


def marked(places: Numbers, size: int) -> Flags:
    """Return flags for `size` places, of which these are set."""
    marks = np.zeros(size, dtype=np.bool_)
    marks[places] = True
    return marks


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
        self._fixed: NDArray[np.uint64] = np.zeros(0, dtype=np.uint64)  # by cluster: the number of what it holds,
        self._is_known: Flags = np.zeros(0, dtype=np.bool_)  # as far as it is known
        self._zeroes = bytes(1 << cluster_bits)

    def columns(self, clusters: Iterable[int]) -> list[int]:
        """Return the columns that have a part in any of `clusters`."""
        found: dict[int, None] = {}
        for cluster in self._columns.keys() & set(clusters):
            found |= dict.fromkeys(self._columns[cluster])
        return sorted(found)

    def changing(self, count: int) -> Flags:
        """Return by cluster, for so many of them, whether it may hold different things in different states."""
        changing = np.array([*self._columns], dtype=np.int64)
        return marked(changing[changing < count], count)

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

    def fixed_numbers(self, clusters: Numbers, *, file_bytes: int) -> NDArray[np.uint64]:
        """Return the number of what each of `clusters` holds; they ascend, and are of those that never change."""
        last = int(clusters[-1]) if len(clusters) else -1
        if last >= len(self._fixed):
            more = last + 1 - len(self._fixed)
            self._fixed = np.pad(self._fixed, (0, more))
            self._is_known = np.pad(self._is_known, (0, more))
        missing = clusters[~self._is_known[clusters]]
        if len(missing):
            for run in np.split(missing, (missing[1:] - missing[:-1] != 1).nonzero()[0] + 1):
                self._number_run(int(run[0]), len(run))
        numbers = self._fixed[clusters]
        if (last + 1) << self._bits > file_bytes:  # the file ends within it
            numbers[-1] = self.number(self._content(last, (), file_bytes))
        return numbers

    def _number_run(self, first: int, count: int) -> None:
        """Note the numbers of what neighbours hold that never change."""
        bits = self._bits
        raw = self._places.columns.base.pread(first << bits, count << bits)
        numbers = [self.number(raw[place << bits : place + 1 << bits]) for place in range(count)]
        self._fixed[first : first + count] = np.array(numbers, dtype=np.uint64)
        self._is_known[first : first + count] = True

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
