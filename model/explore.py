"""The whole model of a scope, breadth first: every state that there is, every transition from each of them.

Level by level, thousands of states at a time (product.py). A map with a byte for each state says which were seen, and
how far from the start they are; so a shortest way to any of them can be found again without keeping where it came from.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from snapcheck.model.beside import compared_with_step
from snapcheck.model.merged import Merged, merged_states
from snapcheck.model.operations import AllFindVmstateBs
from snapcheck.model.product import Ended, Product
from snapcheck.model.properties import Broken
from snapcheck.model.scope import Act, Scope, ScopeError, counted
from snapcheck.model.setup import Semantics
from snapcheck.model.sometimes import Sometimes, declared
from snapcheck.model.space import Move, Space, State
from snapcheck.model.tables import DEVICE_STATES_MAX, Flags, Numbers

BYTES_PER_STATE: Final = 10  # the bitmap, and a whole level of states at worst: eight bytes each, and what marks them
FIXED_BYTES: Final = 64 * 2**20
_PACKED_MAX: Final = 2**62  # a state of the group is one number
_CHUNK: Final = 1 << 14  # states at a time: what is worked on stays in the cache
_LEVELS_MAX: Final = 250  # a byte holds the depth


@dataclass(frozen=True, slots=True)
class Violation:
    """Something that is always to hold and does not: the shortest way there from the start; its last move does it."""

    broken: Broken
    path: tuple[Move, ...]


@dataclass(frozen=True, slots=True)
class Explored:
    """What an exploration saw.

    states       that were reached; those that differ in the order of the devices alone count as one when `merged`
    transitions  that lead to one of them
    leaving      transitions that lead out of the scope, and were not followed
    levels       how many states are so many moves away from the start
    endings      how many transitions of each act ended how
    reached      what was to be seen sometimes, and how far from the start it was; None: never
    violations   for each law the first that was found, at the shortest distance
    complete     nothing stopped the search
    stands_for   how many states these are when the order of the devices counts
    compared     how many group moves of a small scope were compared with the model's own step (beside.py)
    """

    scope: Scope
    states: int
    transitions: int
    leaving: int
    levels: tuple[int, ...]
    endings: dict[Ended, int]
    reached: dict[str, int | None]
    violations: tuple[Violation, ...] = ()
    complete: bool = True
    stands_for: int = 0
    compared: int = 0

    @property
    def depth(self) -> int:
        """How many moves the farthest states are away from the start."""
        return len(self.levels) - 1

    @property
    def missed(self) -> tuple[str, ...]:
        """What was to be seen sometimes and never was: states, and ways in which a group operation can end."""
        states = [words for words, depth in self.reached.items() if depth is None]
        return (*states, *(words for act in self.scope.group_acts() for words in self._never(act)))

    def _never(self, act: Act) -> Iterator[str]:
        bads = {ended.bad for ended in self.endings if ended.act == act}
        if None not in bads and act.kind is not AllFindVmstateBs:
            yield f"{act.words} never succeeded"
        if act.name and self.scope.refusals:
            yield from (f"{act.words} never failed at d{at}" for at in range(self.scope.devices) if at not in bads)


# --- before anything is allocated -----------------------------------------------------------------
def states_of(scope: Scope, *, merged: bool = False) -> int:
    """Return how many states there are to be seen, at most."""
    return merged_states(scope) if merged else scope.states


def memory_bytes(scope: Scope, *, merged: bool = False) -> int:
    """Return how much memory exploring takes, at most; sorted states are kept in a table, two bytes a device."""
    each = BYTES_PER_STATE + 4 * scope.devices * merged  # twice while it is made
    return FIXED_BYTES + states_of(scope, merged=merged) * each


def estimate_words(scope: Scope, *, merged: bool = False) -> str:
    """Return what a scope comes to at most, for people: `up to 676 states, 64 MiB of memory`."""
    states, needed = states_of(scope, merged=merged), memory_bytes(scope, merged=merged)
    return f"up to {counted(states, 'state')}, {_size(needed)} of memory"


def require_room(scope: Scope, *, bytes_max: int, merged: bool = False) -> None:
    """Raise `ScopeError`, with an estimate, for a scope that can not be explored in so much memory."""
    if scope.device_states > DEVICE_STATES_MAX:
        raise ScopeError(
            f"{scope.device_states:,} states of one device ({scope.words}) are more than {DEVICE_STATES_MAX:,}; "
            "take fewer names, values or snapshots"
        )
    needed = memory_bytes(scope, merged=merged)
    if needed > bytes_max or scope.states > _PACKED_MAX:
        states = f"{states_of(scope, merged=merged):,} states ({scope.words}) take about {_size(needed)}"
        room = f"there is room for {_size(bytes_max)}"
        raise ScopeError(f"{states}, and {room}; take fewer devices, names, values or snapshots")


def _size(count: int) -> str:
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.0f} MiB"


# --- the search -----------------------------------------------------------------------------------
Tell = Callable[[int, int], None]  # states seen and depth, now and then


def explore(
    space: Space,
    *,
    merged: bool = False,
    semantics: Semantics = Semantics.CLASSIC,
    must_stop: Callable[[], bool] = lambda: False,
    tell: Tell = lambda _states, _depth: None,
) -> Explored:
    """Explore all of a space; `must_stop` is asked now and then, and what was seen until then is returned.

    `merged` takes states for one that differ in the order of the devices alone: the same verdict with less memory; a
    path to a violation need not be a shortest one then. `semantics` is that of the group functions that are held
    against the tables; states and transitions are the same in each.
    """
    search = _Search(space, merged=merged, must_stop=must_stop)
    search.compare(semantics)
    return search.run(tell)


class _Search:
    def __init__(self, space: Space, *, merged: bool, must_stop: Callable[[], bool]) -> None:
        self._space = space
        self._must_stop = must_stop
        self._merged = merged
        self._product = Merged(space) if merged else Product(space)
        self._seen: NDArray[np.uint8] = np.zeros(self._product.states_max, dtype=np.uint8)  # 0, or depth + 1
        self._stands_for = 0
        self._goals = [Sometimes(goal, space.tables) for goal in declared(space.scope)]
        self._reached: dict[str, int | None] = {goal.words: None for goal in self._goals}
        self._violations: dict[Broken, Violation] = {}
        self._suspects = self._unfound()
        self._compared = 0

    def compare(self, semantics: Semantics) -> None:
        """Hold the group functions against the tables, in a small scope."""
        for path, broken in compared_with_step(self._space.scope, semantics):
            self._compared += 1
            if broken is None:
                continue
            known = self._violations.get(broken)
            if known is None or len(path) < len(known.path):
                self._violations[broken] = Violation(broken, path)

    def run(self, tell: Tell) -> Explored:
        levels: list[int] = []
        frontier, complete = np.zeros(1, dtype=np.intp), True
        self._seen[0] = 1
        while frontier.size and complete:
            assert len(levels) < _LEVELS_MAX, "no state of a scope is that far away"
            levels.append(0)
            for at in range(0, frontier.size, _CHUNK):
                if self._must_stop():
                    complete = False
                    break
                chunk = frontier[at : at + _CHUNK]
                self._take(chunk, len(levels))
                levels[-1] += chunk.size
                tell(sum(levels), len(levels) - 1)
            frontier = np.flatnonzero(self._seen == len(levels) + 1)
        return self._result(levels, complete=complete)

    def _result(self, levels: list[int], *, complete: bool) -> Explored:
        endings, leaving = self._product.counted()
        return Explored(
            self._space.scope, sum(levels), sum(endings.values()), leaving, tuple(levels), endings, self._reached,
            tuple(self._violations.values()), complete, self._stands_for, self._compared,
        )  # fmt: skip

    def _take(self, chunk: Numbers, level: int) -> None:
        """Go through the transitions from these states, and mark where they lead as one level further."""
        seen = self._seen

        def reach(after: Numbers) -> None:
            fresh = after[seen[after] == 0]
            if fresh.size:
                seen[fresh] = level + 1

        parts = self._product.parts(chunk)
        for goal in self._goals:
            if self._reached[goal.words] is None and goal.is_in(parts):
                self._reached[goal.words] = level - 1
        if self._suspects.any():
            self._judge(chunk[np.logical_or.reduce([self._suspects[part] for part in parts])])
        self._product.follow(chunk, parts, reach)
        self._stands_for += self._product.stands_for(chunk)

    # --- violations -------------------------------------------------------------------------------
    def _judge(self, suspects: Numbers) -> None:
        """Look at every transition of states in which something may be broken that was not found yet."""
        for packed in suspects.tolist():
            if self._must_stop():
                return
            state = self._product.unpacked(packed)
            if not self._suspects[list(state)].any():
                continue  # what is broken there has been found meanwhile
            for transition in self._space.transitions(state):
                fresh = [each for each in dict.fromkeys(transition.broken) if each not in self._violations]
                for broken in fresh:
                    self._violations[broken] = Violation(broken, (*self._path(state), transition.move))
                if fresh:
                    self._suspects = self._unfound()

    def _unfound(self) -> Flags:
        """Return the states of one device in which something is broken that no violation shows yet."""
        suspects = np.zeros(len(self._space.tables.states), dtype=np.bool_)
        for (_, _, number), reasons in self._space.tables.reasons.items():
            suspects[number] |= any(each not in self._violations for each in reasons)
        return suspects

    def _path(self, state: State) -> tuple[Move, ...]:
        """Return a shortest path to a state that was seen; any, where the order of the devices does not count."""
        if self._merged:
            return self._space.way_alone(state)
        packed, moves = self._space.packed(state), list[Move]()
        while packed:
            before = self._before(packed)
            state, after = self._product.unpacked(before), self._product.unpacked(packed)
            moves.append(next(each.move for each in self._space.transitions(state) if each.after == after))
            packed = before
        return tuple(reversed(moves))

    def _before(self, packed: int) -> int:
        """Return a state one level nearer to the start that has a transition to `packed`."""
        level = np.flatnonzero(self._seen == self._seen[packed] - 1)
        chunks = (level[at : at + _CHUNK] for at in range(0, level.size, _CHUNK))
        some = next(chunk for chunk in chunks if self._leads(chunk, packed))
        while some.size > 1:  # halve it until the one is left that leads there
            half = some[: some.size // 2]
            some = half if self._leads(half, packed) else some[some.size // 2 :]
        return int(some[0])

    def _leads(self, states: Numbers, packed: int) -> bool:
        found: list[bool] = []
        looking = Product(self._space)  # what it counts is of no interest
        looking.follow(states, looking.parts(states), lambda after: found.append(bool((after == packed).any())))
        return any(found)
