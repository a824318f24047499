"""How the states of a power cut arise: from each other, equal ones merged at once.

After each write the states so far and those with the write on top are joined, and equal ones merged: n writes have
2^n subsets and far fewer different states, so all subsets are covered without any of them being written down. How
many subsets ("ways") lead to each state is kept, which gives the counts. Where there are too many states only some are
carried on; how many ways are left out is known too.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from snapcheck.fault_injection.crash.columns import Columns, Effect, Rows, columns_of
from snapcheck.fault_injection.crash.cuts import Persistence, SectorWrite
from snapcheck.fault_injection.crash.ways import DROPPED_MAX, Ways
from snapcheck.fault_injection.write_log import Sort
from snapcheck.impl.blockfile import MemoryFile
from snapcheck.model.power_cut import Cut, Filling, TornWrite

_TORN_SUBSETS_MAX: Final = 64  # of the sectors of one write
_CARRIED_MIN: Final = 16  # states that are carried on however many there are
_WAYS_MAX: Final = 1e300
_ALL_SUBSETS: Final = (Persistence.EPOCH, Persistence.SECTOR_TORN, Persistence.NO_BARRIERS)

Ids = NDArray[np.int64]
Hashes = NDArray[np.uint64]
Flags = NDArray[np.bool_]
_NONE: Final[Ids] = np.array([], dtype=np.int64)
_APART: Final = np.uint64(0x9E3779B97F4A7C15)  # any odd number, to tell states with the same disk apart


@dataclass(frozen=True, slots=True)
class Plan:
    """What is enumerated: a persistence model, what lost sectors hold, and how many states of an epoch are enough."""

    device: str
    persistence: Persistence
    fill: Filling
    bound: int

    @property
    def flushes(self) -> bool:
        """Tell whether flushes make anything durable."""
        return self.persistence is not Persistence.NO_BARRIERS


@dataclass(frozen=True, slots=True)
class States:
    """Different states of one device, in some epochs that follow each other; an element, or a row, for each.

    A disk that can be left, then not (a FUA write came), and then again is a state for each of these spans.

    rows   the versions of the columns
    at     the first position of a cut that leaves the state
    until  the last one
    ways   how many subsets of writes lead to it
    """

    columns: Columns
    rows: Rows
    at: Ids
    until: Ids
    ways: NDArray[np.float64]
    _tree: "Tree" = field(repr=False)
    _numbers: Ids = field(repr=False)  # in the tree

    def __len__(self) -> int:
        return len(self.rows)

    def cut(self, state: int) -> Cut:
        """Return the cut that leaves `state`."""
        return self._tree.cut(int(self._numbers[state]))


class _Born(NamedTuple):
    """States as they arise, an element or a row for each."""

    rows: Rows
    hashes: Hashes
    at: Ids
    until: Ids  # -1 while it is not known
    ways: NDArray[np.float64]
    parent: Ids  # the state that it arose from, -1 for the first one of an epoch
    write: Ids  # the write that came on top of the parent
    survives: Flags  # whether it survived
    torn: Ids  # the number of the subset of its sectors that did, -1 for all
    whole: Flags  # whether no write of the epoch is torn
    kept: Ids  # how many writes of the epoch survive


class Tree:
    """The states of a few epochs. After `grow` the counts are there (states.Funnel says what they mean)."""

    def __init__(
        self, plan: Plan, window: Sequence[SectorWrite], base: MemoryFile, *, at: int, rng: np.random.Generator
    ) -> None:
        self.enumerated = self.possible = self.sampled = self.distinct = 0
        self._plan, self._window, self._rng = plan, window, rng
        self._writes = [write for write in window if write.entry.sort is not Sort.FLUSH]
        self._tears = plan.persistence is Persistence.SECTOR_TORN
        self._keeps_one = plan.persistence is Persistence.ONE_KEPT
        self._columns = columns_of(self._writes, base, fill=plan.fill, torn=self._tears)
        width, versions = self._columns.width, self._columns.versions_max
        self._keys = rng.integers(0, 1 << 64, size=(width, versions), dtype=np.uint64)
        self._all = _first(np.zeros((1, width), dtype=np.uint16), np.zeros(1, dtype=np.uint64), at)
        self._lost_sectors: list[tuple[int, ...]] = []  # by number of a subset of sectors
        self._roots: dict[int, int] = {}  # by the first state of an epoch: the index of the epoch's first write
        self._start_epoch(0, place=0)

    def grow(self, *, until: int) -> States:
        """Go through the writes and flushes; the last epoch lasts until the position `until`."""
        place = 0
        for write in self._window:
            if write.entry.sort is not Sort.FLUSH:
                self._step(place, write)
                place += 1
            elif self._plan.flushes:
                self._end_epoch(write.entry.number)
                full = slice(self._full, self._full + 1)
                durable = _first(self._all.rows[full], self._all.hashes[full], write.entry.number + 1)
                self._start_epoch(int(self._add(durable)[0]), place=place)
        self._end_epoch(until)
        born = self._all
        here = np.flatnonzero(born.until >= 0)
        return States(self._columns, born.rows[here], born.at[here], born.until[here], born.ways[here], self, here)

    def cut(self, state: int) -> Cut:
        """Return the cut that leaves `state`."""
        born, at = self._all, int(self._all.at[state])
        kept: set[int] = set()
        torn: list[TornWrite] = []
        while state not in self._roots:
            place = int(born.write[state])
            if born.survives[state]:
                kept.add(place)
            if born.torn[state] >= 0:
                torn.append(TornWrite(self._writes[place].entry.number, self._lost_sectors[int(born.torn[state])]))
            state = int(born.parent[state])
        first = self._roots[state]
        numbers = [self._writes[place].entry.number for place in range(first, len(self._writes)) if place not in kept]
        dropped = tuple(number for number in numbers if number < at)
        return Cut(self._plan.device, at, dropped, tuple(reversed(torn)), self._plan.fill)

    # --- epochs -----------------------------------------------------------------------------------
    def _start_epoch(self, first: int, *, place: int) -> None:
        self._roots[first] = self._place = place
        self._root = self._full = first  # of the former nothing survived, of the latter everything
        self._epoch = self._alive = _ids(first)  # all states of the epoch, and those that writes can still land on
        self._ways = Ways(self._plan.persistence)
        self._complete = True

    def _end_epoch(self, until: int) -> None:
        born, epoch = self._all, self._epoch
        born.until[epoch[born.until[epoch] < 0]] = until
        possible = self._ways.possible
        self.possible += possible
        self.sampled += not self._complete
        self.enumerated += possible if self._complete else min(int(born.ways[epoch].sum()), possible - 1)
        self.distinct += self._join_spans(epoch)

    def _join_spans(self, epoch: Ids) -> int:
        """Make equal states one whose spans meet or overlap, the first of them; return how many are left."""
        born = self._all
        in_order = np.sort(born.hashes[epoch])
        if not (in_order[1:] == in_order[:-1]).any():
            return len(epoch)
        ordered = epoch[np.lexsort((-born.kept[epoch], ~born.whole[epoch], born.at[epoch], born.hashes[epoch]))]
        at, until, hashes = born.at[ordered], born.until[ordered], born.hashes[ordered]
        # Each disk gets positions of its own, so that one running maximum says how far the spans so far reach.
        shift = np.append(0, np.cumsum(hashes[1:] != hashes[:-1])) * (int(until.max()) + 2)
        reach = np.maximum.accumulate(until + shift)
        starts = np.append(0, np.flatnonzero((at + shift)[1:] > reach[:-1] + 1) + 1)
        ends = np.append(starts[1:], len(ordered)) - 1
        ways = np.add.reduceat(born.ways[ordered], starts)
        born.until[ordered] = -1
        born.until[ordered[starts]] = (reach - shift)[ends]
        born.ways[ordered[starts]] = ways
        return len(starts)

    def _add(self, born: _Born) -> Ids:
        """Append states and return their numbers."""
        first = len(self._all.at)
        pairs: Iterable[tuple[Any, Any]] = zip(self._all, born, strict=True)
        self._all = _Born._make(np.concatenate(pair) for pair in pairs)
        return np.arange(first, len(self._all.at), dtype=np.int64)

    # --- one write --------------------------------------------------------------------------------
    def _step(self, place: int, write: SectorWrite) -> None:
        """Let a write survive on top of the states that it may land on, be lost, or be torn."""
        forced, columns = write.entry.fua and self._plan.flushes, self._columns
        fills = bool(columns.lost) and not forced  # what is lost changes something as well
        self._ways.write(forced=forced, fills=fills, tears=0 if forced else self._tears_of(place))
        parents = self._some(self._candidates(place, forced=forced))
        lost = parents if self._plan.persistence in _ALL_SUBSETS or not fills else self._some(self._alive)
        # Where no state goes on as it is, one that is there again has a span of its own, and a cut of its own.
        states = _NONE if forced or fills else self._alive
        before, root = self._full, self._root
        landed = self._merge(self._landed(parents, place, columns.survives[place]), known=states)
        states = np.union1d(states, landed)
        self._full = int(landed[parents == before][0])
        if forced and self._keeps_one:
            self._root = int(landed[parents == root][0])
        if fills:
            filled = self._merge(self._landed(lost, place, columns.lost[place], survives=False), known=states)
            states = np.union1d(states, filled)
            if self._keeps_one:
                self._root = int(filled[lost == root][0])
        if self._tears and not forced:
            states = np.union1d(states, self._tear(place, parents, before, known=states))
        if forced or fills:
            self._all.until[self._alive] = write.entry.number
        self._alive = states

    def _candidates(self, place: int, *, forced: bool) -> Ids:
        """Return the states that a write may land on; one that is `forced` is not lost."""
        dropped_max = DROPPED_MAX.get(self._plan.persistence)
        if dropped_max is not None:
            return self._alive[place - self._place - self._all.kept[self._alive] <= dropped_max]
        return self._always() if self._keeps_one and not forced else self._alive

    def _always(self) -> Ids:
        """Return the states that are carried on however many there are."""
        return np.unique(np.array([self._full, self._root if self._keeps_one else self._full], dtype=np.int64))

    def _some(self, states: Ids) -> Ids:
        """Return `states`, or where there is no room for so many some of them, and those of `_always`.

        Those with a torn write get the room that the others leave.
        """
        room = self._plan.bound - len(self._epoch)
        whole = self._all.whole[states]
        untorn = self._drawn(states[whole], room)
        torn = self._drawn(states[~whole], room - len(untorn))
        return np.union1d(np.union1d(untorn, torn), self._always())

    def _drawn(self, states: Ids, room: int) -> Ids:
        """Return `states`, or some of them where there are more than there is room for."""
        if len(states) <= max(room, _CARRIED_MIN):
            return states
        self._complete = False
        return self._rng.choice(states, size=max(room // 4, _CARRIED_MIN), replace=False)

    def _landed(self, parents: Ids, place: int, effect: Effect, *, survives: bool = True) -> _Born:
        """Return what becomes of `parents` when a write has this effect on each."""
        born, number = self._all, self._writes[place].entry.number
        rows, ones = born.rows[parents], np.ones(len(parents), dtype=np.int64)
        old = rows[:, effect.columns]
        keys = self._keys[effect.columns]
        columns = np.arange(len(effect.columns))
        change = (keys[columns, effect.versions][None, :] - keys[columns, old]).sum(axis=1, dtype=np.uint64)
        rows[:, effect.columns] = effect.versions
        hashes = born.hashes[parents] + change + self._lengthen(rows, place)
        return _Born(
            rows, hashes, ones * (number + 1), -ones, born.ways[parents], parents, ones * place,
            np.full(len(parents), survives), -ones, born.whole[parents], born.kept[parents] + survives,
        )  # fmt: skip

    def _lengthen(self, rows: Rows, place: int) -> Hashes:
        """Set the length of the file after a write in `rows`, and return by how much their hashes change."""
        old = rows[:, -1].copy()
        rows[:, -1] = self._columns.length_after[place][old]
        keys: Hashes = self._keys[-1]
        change: Hashes = keys[rows[:, -1]] - keys[old]
        return change

    def _tear(self, place: int, parents: Ids, full: int, *, known: Ids) -> Ids:
        """Let some of the sectors of a write survive: all proper subsets of those that change anything, or some.

        That is done to `parents` of which no write is torn yet, `full` among them. Returns what becomes of them.
        """
        effect = self._columns.survives[place]
        count, alone, tears = len(effect.columns), self._lengthens_alone(place), self._tears_of(place)
        if not tears:
            return _NONE
        subsets = self._subsets(count)
        if alone:
            subsets = np.concatenate((subsets, np.zeros((1, count), dtype=np.bool_)))
        chosen = self._some_to_tear(parents[self._all.whole[parents]], full, subsets=len(subsets))
        self._complete = self._complete and len(subsets) == tears
        whole = self._landed(np.repeat(chosen, len(subsets)), place, effect)
        kept = np.tile(subsets, (len(chosen), 1))
        old = self._all.rows[whole.parent][:, effect.columns]
        if self._columns.lost:  # the same columns as where it survives
            old = np.broadcast_to(self._columns.lost[place].versions, old.shape)
        keys, columns = self._keys[effect.columns], np.arange(count)
        undone = np.where(kept, np.uint64(0), keys[columns, old] - keys[columns, effect.versions][None, :])
        whole.rows[:, effect.columns] = np.where(kept, effect.versions, old)
        first = len(self._lost_sectors)
        self._lost_sectors += [
            tuple(where for where, here in zip(effect.places, row, strict=True) if not here) for row in subsets.tolist()
        ]
        torn = np.tile(np.arange(first, len(self._lost_sectors), dtype=np.int64), len(chosen))
        hashes = whole.hashes + undone.sum(axis=1, dtype=np.uint64)
        return self._merge(whole._replace(hashes=hashes, torn=torn, whole=np.zeros(len(torn), np.bool_)), known=known)

    def _tears_of(self, place: int) -> int:
        """Return in how many ways a write may be torn."""
        count = len(self._columns.survives[place].columns)
        return 2**count - 2 + self._lengthens_alone(place) if self._tears and count else 0

    def _lengthens_alone(self, place: int) -> bool:
        """Tell whether a write has sectors that change nothing but the length of the file."""
        after = self._columns.length_after[place]
        longer = bool((after != np.arange(len(after))).any())
        return longer and len(self._writes[place].sectors) > len(self._columns.survives[place].columns)

    def _some_to_tear(self, parents: Ids, full: int, *, subsets: int) -> Ids:
        """Return `parents`, or where there is no room for what becomes of so many some of them, `full` always."""
        room = (self._plan.bound - len(self._epoch)) // subsets
        if len(parents) <= room:
            return parents
        self._complete = False
        return np.union1d(self._rng.choice(parents, size=max(room // 4, 0), replace=False), _ids(full))

    def _subsets(self, count: int) -> Flags:
        """Return which of `count` sectors survive, in a row each: all proper subsets, or runs and some drawn ones."""
        if 2**count - 2 <= _TORN_SUBSETS_MAX:
            numbers: Ids = np.arange(1, 2**count - 1, dtype=np.int64)
            bits: Ids = numbers[:, None] >> np.arange(count, dtype=np.int64)
            survive: Flags = (bits & 1) == 1
            return survive
        firsts = np.tri(count, dtype=np.bool_)[: count - 1]
        if len(firsts) > _TORN_SUBSETS_MAX // 4:
            firsts = firsts[np.linspace(0, count - 2, _TORN_SUBSETS_MAX // 4).astype(np.intp)]
        drawn = self._rng.random((_TORN_SUBSETS_MAX - 2 * len(firsts), count)) < 0.5
        drawn = drawn[drawn.any(axis=1) & ~drawn.all(axis=1)]
        return np.unique(np.concatenate((firsts, ~firsts, drawn)), axis=0)

    def _merge(self, born: _Born, *, known: Ids) -> Ids:
        """Return the state that each of `born` became: an equal one that is `known`, or one that is added.

        Equal are the same disks with which the model has the same in store, so that what arises from one of them may
        as well arise from the others. Of equal ones that with the most survivors is added.
        """
        order = np.argsort(-born.kept, kind="stable")
        keys = np.concatenate((self._equal(self._all)[known], self._equal(born)[order]))
        _, firsts, inverse = np.unique(keys, return_index=True, return_inverse=True)
        fresh = firsts >= len(known)
        states = np.zeros(len(firsts), dtype=np.int64)
        states[~fresh] = known[firsts[~fresh]]
        chosen = order[firsts[fresh] - len(known)]
        added = self._add(_Born._make(part[chosen] for part in born)._replace(ways=np.zeros(len(chosen))))
        states[fresh] = added
        self._epoch = np.concatenate((self._epoch, added))
        results = np.empty(len(order), dtype=np.int64)
        results[order] = states[inverse[len(known) :]]
        all_ways = self._all.ways
        np.add.at(all_ways, results, born.ways)
        np.minimum(all_ways, _WAYS_MAX, out=all_ways)
        return results

    def _equal(self, born: _Born) -> Hashes:
        """Return a number for each state, the same for those that are equal."""
        if self._tears:
            return born.hashes + np.where(born.whole, np.uint64(0), _APART)
        if self._plan.persistence in _ALL_SUBSETS:
            return born.hashes
        return born.hashes + born.kept.astype(np.uint64) * _APART


def _ids(number: int) -> Ids:
    return np.array([number], dtype=np.int64)


def _first(rows: Rows, hashes: Hashes, at: int) -> _Born:
    """Return the state that an epoch begins with."""
    return _Born(
        rows,
        hashes,
        _ids(at),
        _ids(-1),
        np.ones(1),
        _ids(-1),
        _ids(-1),
        np.ones(1, dtype=np.bool_),
        _ids(-1),
        np.ones(1, dtype=np.bool_),
        _ids(0),
    )
