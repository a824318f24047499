"""The transitions of a space whose devices are told apart no more: a state is what its devices hold, in any order.

Devices start alike and every one of them can be brought into each of its states by itself, so with a state of the
group every other order of it can be reached too. A walk meets the devices in each of these orders. So what it can have
changed when it ends is any set of devices that it may pass, and that is what is followed here: 2^n sets in the place
of n! orders. Of n devices that leaves about one state in n!.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise
from math import comb, factorial
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from snapcheck.model.product import Ended, Product, Reach
from snapcheck.model.scope import Scope
from snapcheck.model.space import Space, State
from snapcheck.model.tables import NOWHERE, Both, Flags, Numbers


def merged_states(scope: Scope) -> int:
    """Return how many states there are at most when the order of the devices does not count."""
    return comb(scope.device_states + scope.devices - 1, scope.devices)


class _Passing(NamedTuple):
    """What one device does to the walk of a group act, by the number of its state.

    after    its state when it was changed and passed on; NOWHERE where that can not be
    stays    it can be passed without a change; `once` when that takes a refused call
    ends     the walk can end at it, unchanged
    """

    after: Numbers
    stays: Flags
    once: Flags
    ends: Flags


class Merged:
    """As `Product`, for states whose numbers are sorted. They are counted as they stand, the smallest number first."""

    def __init__(self, space: Space) -> None:
        self._size = len(space.tables.states)
        self._devices = space.scope.devices
        self.states_max: Final = comb(self._size + self._devices - 1, self._devices)
        self._counting = Product(space)
        self._sorted = _sorted_numbers(self._size, self._devices)
        # A sorted state has the rank sum(C(number + place, place + 1)): the combinatorial number system.
        self._ranks = [
            np.array([comb(number + place, place + 1) for number in range(self._size)], dtype=np.intp)
            for place in range(self._devices)
        ]
        self._alone = self._ways_alone(space)
        self._passing = [_passing(both) for both in space.tables.group.values()]

    def unpacked(self, packed: int) -> State:
        """Return the state with that rank."""
        return tuple(int(number) for number in self._sorted[:, packed])

    def parts(self, packed: Numbers) -> list[Numbers]:
        """Return the numbers of each device's state, sorted."""
        return list(self._sorted[:, packed].astype(np.intp))

    def stands_for(self, packed: Numbers) -> int:
        """Return how many states these are when the order of the devices counts."""
        orders = np.full(packed.size, factorial(self._devices))
        run = np.ones(packed.size, dtype=np.intp)
        parts = self.parts(packed)
        for one, other in pairwise(parts):
            run = np.where(one == other, run + 1, 1)
            orders //= run
        return int(orders.sum())

    def counted(self) -> tuple[dict[Ended, int], int]:
        """Return how many transitions were followed, by how they ended, and how many lead out of the scope."""
        return self._counting.counted()

    def follow(self, _packed: Numbers, parts: Sequence[Numbers], reach: Reach) -> None:
        """Take every transition from these states, in every order of the devices, and let `reach` hear of it."""
        self._counting.follow(self._counting.packed(parts), parts, lambda _after: None)
        for at, part in enumerate(parts):
            for way in self._alone:
                reach(self._rank([*parts[:at], way[part], *parts[at + 1 :]]))
        for passing in self._passing:
            for changed in _some_of(self._devices):
                self._change(passing, parts, changed, reach)

    def _change(self, passing: _Passing, parts: Sequence[Numbers], changed: Sequence[int], reach: Reach) -> None:
        """Follow a group act to where it has changed these devices and no others."""
        others = [part for at, part in enumerate(parts) if at not in changed]
        after = {at: passing.after[parts[at]] for at in changed}
        can = np.logical_and.reduce([numbers != NOWHERE for numbers in after.values()])
        if others:
            skipped = np.sum([~passing.stays[part] for part in others], axis=0)
            once = np.logical_or.reduce([passing.once[part] & ~passing.stays[part] for part in others])
            ends = np.logical_or.reduce([passing.ends[part] for part in others])
            can &= ends | (skipped == 0) | ((skipped == 1) & once)
        if can.any():
            reach(self._rank([after.get(at, part)[can] for at, part in enumerate(parts)]))

    def _rank(self, parts: Sequence[Numbers]) -> Numbers:
        ordered = np.sort(np.stack(parts), axis=0)
        total: Numbers = np.sum([ranks[part] for ranks, part in zip(self._ranks, ordered, strict=True)], axis=0)
        return total

    def _ways_alone(self, space: Space) -> list[Numbers]:
        """Return the different states that acts on one device lead to, by its state."""
        numbers = np.arange(self._size)
        tables = [table for both in space.tables.local.values() for table in (both.plain, *both.refused.values())]
        ways = {tuple(np.where(table.leaves, numbers, table.after).tolist()) for table in tables}
        return [np.array(way, dtype=np.intp) for way in sorted(ways - {tuple(numbers.tolist())})]


def _some_of(devices: int) -> Iterator[tuple[int, ...]]:
    for count in range(1, devices + 1):
        yield from combinations(range(devices), count)


def _passing(both: Both) -> _Passing:
    plain, numbers = both.plain, np.arange(len(both.plain.after))
    passes = ~plain.stops & ~plain.leaves
    refused = both.refused.values()
    skips = [table.there & ~table.stops & ~table.leaves for table in refused]
    stops = [table.there & table.stops for table in refused]
    return _Passing(
        np.where(passes & (plain.after != numbers), plain.after, NOWHERE), passes & (plain.after == numbers),
        np.logical_or.reduce([np.zeros_like(passes), *skips]), np.logical_or.reduce([plain.stops, *stops]),
    )  # fmt: skip


def _sorted_numbers(size: int, devices: int) -> NDArray[np.uint16]:
    """Return all sorted states by rank, a row for each device: the largest number grows last."""
    rows = np.arange(size, dtype=np.uint16)[np.newaxis]
    for place in range(1, devices):
        blocks = [rows[:, : comb(number + place, place)] for number in range(size)]
        last = np.repeat(np.arange(size, dtype=np.uint16), [block.shape[1] for block in blocks])
        rows = np.vstack([np.hstack(blocks), last])
    return rows
