"""Refcounts, references and COPIED bits of many crash states at once.

All states here have the same frame (frame.py): where L1 tables lead to, where refcount blocks are, the length of the
file. What differs is what L2 tables and refcount blocks hold, and COPIED bits of the active L1: a few versions of each.
What a version says of each cluster is worked out once. The verdict on a cluster depends on few tables: on the block
that counts it, and on the L2 tables that may refer to it. Clusters that depend on the same tables are judged together,
once for each combination of versions that there is, and states look their verdicts up.
"""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
from snapcheck.fault_injection.crash.columns import Rows
from snapcheck.fault_injection.crash.frame import Frame
from snapcheck.fault_injection.crash.overlay import NeedsPlainError
from snapcheck.fault_injection.crash.trees import L2Tables, any_of_row, trees_of
from snapcheck.fault_injection.crash.versions import Clusters, Flags, Numbers, distinct, marked
from snapcheck.impl.qcow2.host import Codec
from snapcheck.impl.qcow2.layout import ceil_div

_CELLS_MAX: Final = 1 << 24  # versions of tables times clusters of the file
_COUNT_MAX: Final = np.uint64(1 << 62)
_REFERENCES, _DATA, _COPIED, _UNCOPIED, _COUNTS = range(5)  # what is known of a cluster


class Verdicts(NamedTuple):
    """By state whether there is any of it."""

    corrupt: Flags
    leaks: Flags
    copied_missing: Flags

    def of(self, place: int) -> tuple[int, int, int]:
        """Return it for one state, 0 or 1 of each."""
        return int(self.corrupt[place]), int(self.leaks[place]), int(self.copied_missing[place])


class _Factor(NamedTuple):
    """A table with several versions.

    by_state  which one each state has
    adds      by what is known of a cluster: by version and cluster, how much it differs from the first version
    """

    by_state: Numbers
    adds: dict[int, Numbers]


class Copied(NamedTuple):
    """Which entries of the active L1 table say COPIED: the patterns that there are, and which one each state has."""

    patterns: Sequence[Flags]
    by_state: Numbers


class FrameTables:
    """The tables of states of one frame; `rows` are the states. `NeedsPlainError` when none can be judged here."""

    def __init__(self, frame: Frame, copied: Copied, rows: Rows, clusters: Clusters, l2_tables: L2Tables) -> None:
        self._frame, self._copied, self._size = frame, copied, frame.clusters
        self.trees = trees_of(frame)
        self._blocks = dict(frame.blocks)
        self._wrong = any(self.trees.wrong) or frame.wrong
        size = frame.file_bytes
        self._l2_versions = [clusters.versions(table, rows, file_bytes=size) for table in self.trees.tables.tolist()]
        self._block_versions = [clusters.versions(block, rows, file_bytes=size) for block in self._blocks.values()]
        self.l2 = l2_tables.rows(self._l2_versions, frame)
        self.data_clusters: Numbers = marked(self.l2.entries.clusters, self._size).nonzero()[0]

    @property
    def read_clusters(self) -> Sequence[int]:
        """Return every cluster that is read after opening: L2 tables, refcount blocks and data."""
        return [*self.trees.tables.tolist(), *self._blocks.values(), *self.data_clusters.tolist()]

    def row_of(self, table: int, states: Numbers) -> Numbers:
        """Return which row of the L2 tables holds what `table` is in each of `states`."""
        by_state, first = self._l2_versions[table].by_state, self.l2.first[table]
        return np.full(len(states), first) if by_state is None else by_state[states] + first

    # --- the verdicts -----------------------------------------------------------------------------
    def verdicts(self, states: Numbers) -> Verdicts:
        """Return what is wrong with each of `states`."""
        known, tables = self._known_of_all()
        counts, leaks = self._counts(states)
        known[_COUNTS] = counts.known
        factors = [*self._l1_factors(known, states), *self._l2_factors(known, states), *counts.factors]
        found = Verdicts(np.full(len(states), self._wrong), leaks, np.zeros(len(states), dtype=np.bool_))
        for table in set(self.l2.table[self.l2.wrong].tolist()):
            np.logical_or(found.corrupt, self.l2.wrong[self.row_of(table, states)], out=found.corrupt)
        for numbers, here in _alike(factors, self._size):
            chosen = [factors[number] for number in numbers]
            firsts, by_state = _combinations(chosen, len(states))
            wrong = _judged(known[:, here], tables[here], chosen, firsts, here)
            for whole, some in zip(found, wrong, strict=True):
                np.logical_or(whole, some[by_state] if len(some) > 1 else some, out=whole)
        return found

    def _known_of_all(self) -> tuple[Numbers, Numbers]:
        """Return what is known of each cluster without L2 tables and blocks, and how many tables lie there."""
        frame, trees = self._frame, self.trees
        known = np.zeros((5, self._size), dtype=np.int64)
        tables = np.zeros(self._size, dtype=np.int64)
        for offset, length in frame.ranges:
            first = offset >> frame.cluster_bits
            here = slice(first, first + ceil_div(length, frame.cluster_bytes))
            known[_REFERENCES][here] += 1
            tables[here] += 1
        for places, times in ((np.array([*self._blocks.values()], dtype=np.int64), 1), (trees.tables, trees.times)):
            known[_REFERENCES][places] += times
            tables[places] += 1
        return known, tables

    def _l1_factors(self, known: Numbers, states: Numbers) -> Iterator[_Factor]:
        """Add to what is `known` what the active L1 says in its first pattern, and yield how others differ."""
        trees, patterns = self.trees, self._copied.patterns
        if len(patterns) > 1 and len(patterns) * self._size > _CELLS_MAX:
            raise NeedsPlainError
        used = trees.slots[0] >= 0
        says = np.zeros((2, len(patterns), self._size), dtype=np.int64)
        for number, copied in enumerate(patterns):
            for part, those in zip(says, (copied, ~copied), strict=True):
                part[number, trees.tables[trees.slots[0][used & those]]] = 1
        known[[_COPIED, _UNCOPIED]] += says[:, 0]
        if len(patterns) > 1:
            adds = says - says[:, :1]
            yield _Factor(self._copied.by_state[states], {_COPIED: adds[0], _UNCOPIED: adds[1]})

    def _l2_factors(self, known: Numbers, states: Numbers) -> Iterator[_Factor]:
        """Add to what is `known` what L2 tables say in their first versions, and yield how others differ."""
        entries, trees, size = self.l2.entries, self.trees, self._size
        table = self.l2.table[entries.rows]
        active = trees.active[table]
        weights: dict[int, Numbers] = {
            _REFERENCES: trees.times[table], _DATA: np.ones_like(table),
            _COPIED: (active & entries.copied).astype(np.int64),
            _UNCOPIED: (active & entries.uncopied).astype(np.int64),
        }  # fmt: skip
        several = np.array([each.by_state is not None for each in self._l2_versions], dtype=np.bool_)
        fixed = ~several[table]
        for number, weight in weights.items():
            known[number] += _summed(entries.clusters[fixed], weight[fixed], size)
        for place in several.nonzero()[0].tolist():
            by_state, first = self._l2_versions[place].by_state, int(self.l2.first[place])
            count, here = len(self._l2_versions[place].contents), table == place
            cells = (entries.rows[here] - first) * size + entries.clusters[here]
            adds: dict[int, Numbers] = {}
            for number, weight in weights.items():
                sums = _summed(cells, weight[here], count * size).reshape(count, size)
                known[number] += sums[0]
                adds[number] = sums - sums[0]
            assert by_state is not None
            yield _Factor(by_state[states], adds)

    def _counts(self, states: Numbers) -> "tuple[_Counts, Flags]":
        """Return the refcounts, and for each of `states` whether anything behind the end of the file is counted."""
        codec = Codec(self._frame.refcount_bits)
        entries = self._frame.cluster_bytes * 8 // codec.bits
        counts = _Counts(np.zeros(self._size, dtype=np.int64), [])
        leaks = np.zeros(len(states), dtype=np.bool_)
        for index, versions in zip(self._blocks, self._block_versions, strict=True):
            raw = b"".join(versions.contents)
            whole, first = codec.array(raw).reshape(-1, entries), index * entries
            inside = max(0, min(self._size - first, entries))
            behind = any_of_row(whole[:, inside:] != 0)
            block = np.minimum(whole[:, :inside].astype(np.uint64), _COUNT_MAX).astype(np.int64)
            counts.known[first : first + inside] = block[0]
            if versions.by_state is None:
                leaks |= behind[0]
                continue
            by_state = versions.by_state[states]
            leaks |= behind[by_state]
            wide = np.zeros((len(block), self._size), dtype=np.int64)
            wide[:, first : first + inside] = block - block[0]
            counts.factors.append(_Factor(by_state, {_COUNTS: wide}))
        return counts, leaks


class _Counts(NamedTuple):
    known: Numbers  # refcounts in the first versions of all blocks
    factors: list[_Factor]


def _summed(cells: Numbers, weights: Numbers, size: int) -> Numbers:
    if size > _CELLS_MAX:
        raise NeedsPlainError
    return np.bincount(cells, weights=weights, minlength=size).astype(np.int64)


def _alike(factors: Sequence[_Factor], clusters: int) -> Iterator[tuple[tuple[int, ...], Numbers]]:
    """Yield clusters that depend on the same factors: which these are, and the clusters."""
    if not factors:
        yield (), np.arange(clusters, dtype=np.int64)
        return
    depends = np.zeros((len(factors), clusters), dtype=np.bool_)
    for number, factor in enumerate(factors):
        for part in factor.adds.values():
            depends[number] |= part.any(axis=0)
    firsts, inverse = distinct(list(depends.astype(np.int64)))
    order = np.argsort(inverse, kind="stable")
    ends = np.cumsum(np.bincount(inverse))
    for place, first in enumerate(firsts.tolist()):
        here = order[ends[place - 1] if place else 0 : ends[place]]
        yield tuple(depends[:, first].nonzero()[0].tolist()), here


def _combinations(factors: Sequence[_Factor], states: int) -> tuple[Numbers, Numbers]:
    """Return a state for each combination of versions, and by state which combination it has."""
    if not factors:
        return np.zeros(1, dtype=np.int64), np.zeros(states, dtype=np.int64)
    return distinct([factor.by_state for factor in factors])


def _judged(known: Numbers, tables: Numbers, factors: Sequence[_Factor], states: Numbers, here: Numbers) -> Verdicts:
    """Judge the clusters `here`, of which so much is known, in each of `states`."""
    parts = [part.reshape(1, -1) for part in known]  # one row is for all states, where no factor adds anything
    for factor in factors:
        versions = factor.by_state[states]
        for number, adds in factor.adds.items():
            parts[number] = parts[number] + adds[:, here][versions]
    references, data, copied, uncopied, counts = parts
    overlap = (tables > 1) | ((tables > 0) & (data > 0))
    corrupt = (counts < references) | overlap | ((copied > 0) & (references != 1))
    missing = (uncopied > 0) & (counts == 1)
    return Verdicts(any_of_row(corrupt), any_of_row(counts > references), any_of_row(missing))
