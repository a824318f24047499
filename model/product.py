"""Transitions for thousands of states of a group at a time, with numpy: what `explore.py` searches with.

A state of the group is packed into one number, whose digits are the numbers of the devices' states. What an act does to
one device is then a number to be added. Acts that lead to the same state are told apart where they are counted, and
followed once; those that change nothing are counted only.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from snapcheck.model.scope import Act
from snapcheck.model.space import Space, State
from snapcheck.model.tables import NOWHERE, Both, Flags, Numbers, Table

Reach = Callable[[Numbers], None]  # hears of packed states that a transition leads to
_PASSES: Final = 0
_ENDS: Final = 1
_LEAVES: Final = 2


class Ended(NamedTuple):
    """How a transition ended: its act, the refused call if there is one, and the device where it failed or stopped."""

    act: Act
    refused: str = ""
    at: int | None = None
    bad: int | None = None


class _Step(NamedTuple):
    """A table for one device of the group, with what it adds to a packed state.

    `how` it goes on, and `always` when that is the same in every state: passes to the next device, ends there, or
    leaves the scope. `ends_as_it_was`: nothing was changed where it ends.
    """

    there: Flags
    everywhere: bool
    added: Numbers
    changes: bool
    how: NDArray[np.uint8]
    always: int | None
    ends_as_it_was: bool


@dataclass(frozen=True, slots=True)
class _Live:
    """Walks on their way: packed states as they are now, and the numbers of the devices from number `at` on."""

    states: Numbers
    parts: Sequence[Numbers]
    at: int

    def only(self, which: Flags) -> "_Live":
        return _Live(self.states[which], [part[which] for part in self.parts], self.at)


class Product:
    """The transitions of a space, counted as they are followed."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._size = len(space.tables.states)
        self._weights = [self._size**at for at in range(space.scope.devices)]
        self._alone = [self._alone_on(weight) for weight in self._weights]
        self._group = {
            act: [{call: _step(table, weight) for call, table in _by_call(both)} for weight in self._weights]
            for act, both in space.tables.group.items()
        }
        self._endings: Counter[Ended] = Counter()
        self._leaving = 0
        self._visits = [np.zeros(self._size, dtype=np.intp) for _ in self._weights]

    @property
    def states_max(self) -> int:
        """How many states can be packed."""
        return self._space.states_max

    # --- packing ----------------------------------------------------------------------------------
    def packed(self, parts: Sequence[Numbers]) -> Numbers:
        """Return states as one number each, from the numbers of each device's state."""
        total: Numbers = np.sum([part * weight for part, weight in zip(parts, self._weights, strict=True)], axis=0)
        return total

    def stands_for(self, packed: Numbers) -> int:
        """Return how many states these are."""
        size: int = packed.size
        return size

    def unpacked(self, packed: int) -> State:
        """Return the state that is packed into a number."""
        return tuple(packed // weight % self._size for weight in self._weights)

    def parts(self, packed: Numbers) -> list[Numbers]:
        """Return the numbers of each device's state."""
        parts: list[Numbers] = []
        for _ in self._weights[1:]:
            packed, part = np.divmod(packed, self._size)
            parts.append(part)
        return [*parts, packed]

    # --- following --------------------------------------------------------------------------------
    def follow(self, packed: Numbers, parts: Sequence[Numbers], reach: Reach) -> None:
        """Take every transition from these states: count it, and let `reach` hear of where it leads."""
        for at, (part, ways) in enumerate(zip(parts, self._alone, strict=True)):
            self._visits[at] += np.bincount(part, minlength=self._size)
            for added in ways:
                reach(packed + added[part])
        live = _Live(packed, parts, 0)
        for act, steps in self._group.items():
            self._walk(act, steps, live, reach)

    def _walk(self, act: Act, steps: Sequence[dict[str, _Step]], live: _Live, reach: Reach) -> None:
        """Let a group act walk over the devices: with no call refused, and with each one that comes up."""
        changes = any(step[""].changes for step in steps)
        while live.at < len(steps) and live.states.size:
            covered = not changes
            for call, step in steps[live.at].items():
                if call:
                    hit = live if step.everywhere else live.only(step.there[live.parts[0]])
                    key = Ended(act, call, live.at)
                    passed = self._pass(key, step, hit, reach if step.changes or (changes and live.at) else None)
                    self._end(key, [each[""] for each in steps], passed, reach if changes else None)
                    covered = covered or (step.everywhere and not step.changes and step.always == _ENDS)
            # Where a refused call leaves the devices just like one that fails by itself, that was heard of already.
            plain = steps[live.at][""]
            live = self._pass(Ended(act), plain, live, None if covered and plain.ends_as_it_was else reach)
        self._end(Ended(act), [], live, reach if changes else None)

    def _end(self, key: Ended, steps: Sequence[_Step], live: _Live, reach: Reach | None) -> None:
        """Walk on over the devices that are left, and end at nobody."""
        while live.at < len(steps) and live.states.size:
            live = self._pass(key, steps[live.at], live, reach)
        if live.states.size:
            self._endings[key] += live.states.size
            if reach is not None:
                reach(live.states)

    def _pass(self, key: Ended, step: _Step, live: _Live, reach: Reach | None) -> _Live:
        """Visit one device; return the walks that go on to the next one. `reach` hears of those that end here."""
        if not live.states.size:
            return _Live(live.states, live.parts[1:], live.at + 1)
        here = live.parts[0]
        states = live.states + step.added[here] if step.changes else live.states
        behind = _Live(states, live.parts[1:], live.at + 1)
        if step.always == _PASSES:
            return behind
        how = step.how[here]
        ends = how == _ENDS
        ended = int(np.count_nonzero(ends))
        passes = how == _PASSES
        self._leaving += len(how) - ended - int(np.count_nonzero(passes))
        if ended:
            self._endings[key._replace(bad=live.at)] += ended
            if reach is not None:
                reach(states[ends])
        return behind.only(passes)

    # --- counting ---------------------------------------------------------------------------------
    def counted(self) -> tuple[dict[Ended, int], int]:
        """Return how many transitions were followed, by how they ended, and how many lead out of the scope."""
        endings, leaving = self._endings.copy(), self._leaving
        for at, visits in enumerate(self._visits):
            for act, both in self._space.tables.local.items():
                for call, table in _by_call(both):
                    stays = table.there & ~table.leaves
                    device = at if call else None
                    endings[Ended(act, call, device)] += int(visits[stays & ~table.stops].sum())
                    endings[Ended(act, call, device, at)] += int(visits[stays & table.stops].sum())
                    leaving += int(visits[table.leaves].sum())
        return {key: count for key, count in endings.items() if count}, leaving

    def _alone_on(self, weight: int) -> Sequence[Numbers]:
        """Return the different ways in which acts on one device change a packed state, by the state of the device."""
        tables = [table for both in self._space.tables.local.values() for _, table in _by_call(both)]
        ways = [
            sorted({int(table.after[number]) for table in tables} - {number, NOWHERE}) for number in range(self._size)
        ]
        most = max(len(each) for each in ways)
        padded = [[*each, *[number] * (most - len(each))] for number, each in enumerate(ways)]
        added = (np.array(padded, dtype=np.intp).T - np.arange(self._size)) * weight
        return [np.ascontiguousarray(each) for each in added]


def _by_call(both: Both) -> Iterator[tuple[str, Table]]:
    yield "", both.plain
    yield from both.refused.items()


def _step(table: Table, weight: int) -> _Step:
    numbers = np.arange(len(table.after))
    added = np.where(table.leaves, 0, table.after - numbers) * weight
    how = np.where(table.leaves, _LEAVES, np.where(table.stops, _ENDS, _PASSES)).astype(np.uint8)
    always = int(how[0]) if (how == how[0]).all() else None
    unchanged = not added[how == _ENDS].any()
    return _Step(table.there, bool(table.there.all()), added, bool(added.any()), how, always, unchanged)
