"""What the active state and the snapshots hold in many crash states at once, as numbers that tell contents apart.

The number of a tree is a sum over its guest clusters: that of the content, times one for the place. So what a state
holds is a sum of look-ups: by L2 table for the data clusters that are the same in all states, and by pair of a table
and a data cluster for the others. Zeroes count nothing, wherever they come from.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from snapcheck.fault_injection.crash.columns import Rows
from snapcheck.fault_injection.crash.frame import Frame
from snapcheck.fault_injection.crash.overlay import NeedsPlainError
from snapcheck.fault_injection.crash.tables import FrameTables
from snapcheck.fault_injection.crash.versions import Clusters, Numbers, distinct

Sums = NDArray[np.uint64]
_ALL: Final = (1 << 64) - 1


class Contents:
    """The contents of states of one frame, whose tables these are; `rows` are the states."""

    def __init__(self, tables: FrameTables, frame: Frame, rows: Rows, clusters: Clusters) -> None:
        self._tables, self._frame = tables, frame
        entries, loose = tables.l2.entries, tables.l2.loose
        shown = entries.shown
        self._rows, self._clusters = entries.rows[shown], entries.clusters[shown]
        first_places = self._slot_of_table() << frame.l2_bits
        self._weights = _mixed(first_places[tables.l2.table[self._rows]] + entries.places[shown])
        loose_weights = _mixed(first_places[tables.l2.table[loose.rows]] + loose.places)
        changing, data = clusters.changing(frame.clusters), tables.data_clusters
        self._numbers = {each: self._numbered(each, rows, clusters) for each in data[changing[data]].tolist()}
        self._changes = changing[self._clusters]
        self._fixed = self._fixed_sums(data[~changing[data]], clusters)
        np.add.at(self._fixed, loose.rows, loose_weights * _mixed(loose.words))
        self._parts_of_table = self._changing_parts()

    def _slot_of_table(self) -> Numbers:
        """Return by table the L1 entry that refers to it, the same one in all trees."""
        trees = self._tables.trees
        found = np.full(len(trees.tables), -1, dtype=np.int64)
        for slots in trees.slots:
            places = (slots >= 0).nonzero()[0]
            known = found[slots[places]]
            if ((known >= 0) & (known != places)).any():
                raise NeedsPlainError
            found[slots[places]] = places
            if (found[slots[places]] != places).any():  # twice in one tree
                raise NeedsPlainError
        return found

    def _numbered(self, cluster: int, rows: Rows, clusters: Clusters) -> tuple[Sums, "Numbers | None"]:
        versions = clusters.versions(cluster, rows, file_bytes=self._frame.file_bytes)
        return np.array([clusters.number(each) for each in versions.contents], dtype=np.uint64), versions.by_state

    def _fixed_sums(self, still: Numbers, clusters: Clusters) -> Sums:
        """Return by row of the L2 tables the sum over the data clusters that never change: those are `still`."""
        known = np.zeros(self._frame.clusters, dtype=np.uint64)
        known[still] = clusters.fixed_numbers(still, file_bytes=self._frame.file_bytes)
        fixed = ~self._changes
        sums = np.zeros(len(self._tables.l2.table), dtype=np.uint64)
        np.add.at(sums, self._rows[fixed], self._weights[fixed] * known[self._clusters[fixed]])
        return sums

    def _changing_parts(self) -> dict[int, list[tuple[int, Sums]]]:
        """Return by L2 table the data clusters in it that change, each with its weight by row of the L2 tables."""
        places = self._changes.nonzero()[0]
        tables = self._tables.l2.table[self._rows[places]]
        firsts, which = distinct([tables, self._clusters[places]])
        found: dict[int, list[tuple[int, Sums]]] = {}
        for number, first in enumerate(firsts.tolist()):
            mine = places[which == number]
            weights = np.zeros(len(self._fixed), dtype=np.uint64)
            np.add.at(weights, self._rows[mine], self._weights[mine])
            found.setdefault(int(tables[first]), []).append((int(self._clusters[places[first]]), weights))
        return found

    def digests(self, states: Numbers) -> Sequence[Sums]:
        """Return by L1 table, the active one first, what tells apart what each of `states` holds in it.

        Of the active tree only what the guest can see counts.
        """
        trees = self._tables.trees
        parts = [self._part(table, states) for table in range(len(trees.tables))]
        found: dict[bytes, Sums] = {}
        digests: list[Sums] = []
        for number, slots in enumerate(trees.slots):
            shown = slots[: self._frame.vm_state_index] if number == 0 else slots
            used = shown[shown >= 0]
            key = used.tobytes()
            if key not in found:
                tables: list[int] = used.tolist()
                found[key] = self._added([parts[table] for table in tables], len(states))
            wrong = np.uint64(hash(self._frame.l1_tables[number]) & _ALL if trees.wrong[number] else 0)
            digests.append(found[key] + wrong if wrong else found[key])
        return digests

    @staticmethod
    def _added(parts: Sequence[Sums], states: int) -> Sums:
        total: Sums = np.zeros(states, dtype=np.uint64)
        for part in parts:
            total += part
        return total

    def _part(self, table: int, states: Numbers) -> Sums:
        """Return by state the sum over what one L2 table maps."""
        rows = self._tables.row_of(table, states)
        sums: Sums = self._fixed[rows]
        for cluster, weights in self._parts_of_table.get(table, ()):
            numbers, by_state = self._numbers[cluster]
            sums = sums + weights[rows] * (numbers[0] if by_state is None else numbers[by_state[states]])
        return sums


def _mixed(places: "Numbers | Sums") -> Sums:
    """Return a number for each place in which no place can be recognised (the finaliser of splitmix64), never even."""
    mixed: Sums = places.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (mixed ^ (mixed >> np.uint64(31))) | np.uint64(1)
