"""The explored graph as a map to drive by: its states in order, the way to each of them, walks that cover it all."""

from collections import deque
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from snapcheck.model.scope import Scope, ScopeError
from snapcheck.model.space import Move, Space, State, Transition

STATES_MAX: Final = 50_000  # more can not be driven through in any sensible time


class Atlas:
    """The states of a space, the nearest to the start first, and the transitions of each that stay in the scope."""

    def __init__(self, space: Space) -> None:
        self.space: Final = space
        self._from: dict[State, tuple[State, Move]] = {}
        self._transitions: dict[State, tuple[Transition, ...]] = {}
        self.states: Final = self._reached()

    def _reached(self) -> Sequence[State]:
        """Return every state that can be reached without a fault, and note where each one is reached from."""
        plain = [move for move in self.space.moves if not move.refused]
        states, seen = [self.space.start], {self.space.start}
        for state in states:  # it grows meanwhile
            for move in plain:
                found = self.space.transition(state, move)
                if found is not None and found.after is not None and found.after not in seen:
                    seen.add(found.after)
                    states.append(found.after)
                    self._from[found.after] = state, move
        return states

    def way(self, state: State) -> tuple[Move, ...]:
        """Return the moves that lead from the start to `state`."""
        moves: list[Move] = []
        while state != self.space.start:
            state, move = self._from[state]
            moves.append(move)
        return tuple(reversed(moves))

    def transitions(self, state: State) -> tuple[Transition, ...]:
        """Return the transitions from `state`, those that change nothing first."""
        if state not in self._transitions:
            inside = [each for each in self.space.transitions(state) if each.after is not None]
            self._transitions[state] = tuple(sorted(inside, key=lambda each: each.after != state))
        return self._transitions[state]


def require_size(scope: Scope) -> None:
    """Raise `ScopeError` for a scope that is too large to be driven through."""
    if scope.states > STATES_MAX:
        raise ScopeError(
            f"{scope.states:,} states ({scope.words}) are too many to drive a driver through, {STATES_MAX:,} at most; "
            "take fewer devices, names, values or snapshots"
        )


@lru_cache(maxsize=4)
def atlas_of(scope: Scope) -> Atlas:
    """Return the map of a scope; `ScopeError` for one that is too large to be driven through."""
    require_size(scope)
    return Atlas(Space(scope))


# --- covering walks -------------------------------------------------------------------------------
class Leg(NamedTuple):
    """One transition of a covering walk; `fresh` when it is taken for the first time."""

    transition: Transition
    fresh: bool


class Cover:
    """Plans walks that take each transition from `states` at least once; others are taken on the way."""

    def __init__(self, atlas: Atlas, states: Iterable[State]) -> None:
        self._atlas = atlas
        self._left = {state: [*reversed(atlas.transitions(state))] for state in states}
        self._left = {state: left for state, left in self._left.items() if left}

    @property
    def done(self) -> bool:
        """Whether nothing is left to be taken."""
        return not self._left

    def skip(self, legs: int) -> None:
        """Count the first so many legs of a walk from the start as taken."""
        state = self._atlas.space.start
        for _ in range(legs):
            leg = self.next(state)
            assert leg is not None, "somebody has gone that far"
            state = leg.transition.after or state

    def next(self, state: State) -> Leg | None:
        """Return what to take from `state`: something new, or else the way to it; None when there is nothing left."""
        left = self._left.get(state)
        if left:
            fresh = left.pop()
            if not left:
                del self._left[state]
            return Leg(fresh, fresh=True)
        towards = self._towards(state)
        return None if towards is None else Leg(towards, fresh=False)

    def _towards(self, start: State) -> Transition | None:
        """Return the first step of a shortest way to a state from which something is left to be taken."""
        if not self._left:
            return None
        seen, queue = {start}, deque[tuple[State, Transition | None]]([(start, None)])
        while queue:
            state, first = queue.popleft()
            for each in self._atlas.transitions(state):
                if each.after is None or each.move.refused or each.after in seen:
                    continue
                if each.after in self._left:
                    return first or each
                seen.add(each.after)
                queue.append((each.after, first or each))
        return None
