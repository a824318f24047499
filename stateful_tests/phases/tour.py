"""Phase `tour`: the driver is driven through every transition of a small scope of the model.

The model is explored first (model/space.py). Each state is then made on the driver once, by the shortest way, and taken
up again from copies of the disks (Session.checkpoint): those transitions that change nothing are taken in a row, with a
close look at the end, each of the others by itself with a close look behind it. A driver whose disks can not be copied
is sent on walks that take each transition at least once.

Made by the shortest way a device numbers its snapshots from 1 without a gap. So each state is made a second time,
behind a spare snapshot that is dropped again, and what gives ids or speaks of them is taken from there once more: a
driver that counts its snapshots where it should look for the largest id is right only without gaps.

What was compared at each: the answer, first_bad_bs and all that the laws ask for, the list, the contents. A refused
call is a `CallFault`; a transition counts as taken when the fault was met and the driver is where the model is.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from snapcheck.impl.driver import UnsupportedSetupError
from snapcheck.impl.targets import find_target
from snapcheck.model.facts import Evidence
from snapcheck.model.faults import CallFault, Fault
from snapcheck.model.history import Care
from snapcheck.model.law_names import Law, Severity
from snapcheck.model.operations import AllCreate, AllDelete, AllFind, CanSnapshot, Create, Delete, Find, Operation
from snapcheck.model.scope import Scope, snapshots_of, without
from snapcheck.model.setup import Setup
from snapcheck.model.space import Move, State, Transition
from snapcheck.stateful_tests.atlas import Atlas, Cover, atlas_of
from snapcheck.stateful_tests.gather import Gatherer, gathering
from snapcheck.stateful_tests.session import Checkpoint, Session
from snapcheck.stateful_tests.units import SHARDS, Answer, Profile, Unit
from snapcheck.stateful_tests.watchdog import Watchdog, watchdog
from snapcheck.stateful_tests.work import Control

Start = Setup | Checkpoint  # what a session begins with

NAME: Final = "tour"
IN_SCOPE: Final = "transitions in scope"
TAKEN: Final = "transitions taken"
DISAGREEING: Final = "transitions disagreeing"
AGAIN: Final = "transitions taken again behind a gap in the ids"
COUNTS: Final = (IN_SCOPE, TAKEN, DISAGREEING)
# What every tour judges: no request is in flight in it, nothing is repeated or used after a failure, no power is cut.
LAWS: Final = (
    Law.RESULT, Law.OUT_PARAMS, Law.LIST_EXACT, Law.CONTENT_EXACT, Law.ERROR_MEANS_UNCHANGED, Law.SUCCESS_MEANS_DONE,
    Law.MEMORY_IS_DISK, Law.SNAPSHOT_IMMUTABLE, Law.NO_CORRUPTION, Law.NO_LEAK, Law.RIGHT_CULPRIT, Law.STOPS_AT_FIRST,
    Law.PREFIX_APPLIED, Law.NOBODY_SKIPPED, Law.EXCLUDED_UNTOUCHED, Law.VMSTATE_ON_ONE, Law.LOCKS_BALANCED,
    Law.NO_HANG, Law.NO_CRASH,
)  # fmt: skip
_SPARE: Final = "spare"  # no name of a scope: those have one letter
_OF_IDS: Final = frozenset({Create, Find, AllCreate, AllFind, AllDelete})  # they give ids, return or look for them
_STEPS_MAX: Final = 100  # of one covering walk: what fails at its end is still to be shrunk

_ALONE: Final = Scope(devices=1, names=2, values=2)
_PAIR: Final = Scope(devices=2, names=1, values=2)
SCOPES: Final = {
    Profile.QUICK: (_ALONE, _PAIR),
    Profile.DEFAULT: (_ALONE, _PAIR, Scope(devices=2, names=2, values=2)),
    Profile.DEEP: (
        _ALONE, _PAIR, Scope(devices=2, names=2, values=2), Scope(devices=2, names=1, values=2, duplicates=True),
        Scope(devices=3, names=1, values=2),
    ),
}  # fmt: skip


def scopes_of(profile: Profile, *, devices: int, asked: Scope | None) -> tuple[Scope, ...]:
    """Return the scopes to be toured: the one that was asked for, or those of the profile on so many devices."""
    if asked is not None:
        return (asked,)
    return tuple(dict.fromkeys(replace(each, devices=min(each.devices, devices)) for each in SCOPES[profile]))


def run(unit: Unit, control: Control) -> Answer:
    """Take the transitions from this shard's states. On KeyboardInterrupt it ends with what it has.

    Raises `TargetError` for a driver that can not be started.
    """
    with gathering(unit, control) as gatherer, watchdog() as dog:
        tour = _Tour(unit, gatherer, dog)
        try:
            tour.run()
        except _Stopped:
            gatherer.answer.out_of_time = True
        except KeyboardInterrupt:
            gatherer.answer.interrupted = True
        gatherer.answer.counts.update(tour.counts)
    return gatherer.answer


def _words(scopes: Sequence[Scope]) -> str:
    return f"every transition of {'; of '.join(each.words for each in scopes)}"


class _Stopped(Exception):  # noqa: N818  # no error
    """Time, or the number of histories that was asked for, has run out."""


class _NoCopiesError(Exception):
    """The disks do not hold all of the driver's state, so that it can not be taken up from copies."""


class _Stop(NamedTuple):
    """A state to be made on the driver, and the transitions to be taken from it; `gap`: its ids have a gap there."""

    state: State
    transitions: tuple[Transition, ...]
    name: str
    gap: bool = False


class _Tour:
    def __init__(self, unit: Unit, gatherer: Gatherer, dog: Watchdog) -> None:
        self._unit = unit
        self._gatherer = gatherer
        self._dog = dog
        self._target = find_target(unit.driver)
        self.counts: Counter[str] = Counter()  # of what is worked out anew when a run goes on

    def run(self) -> None:
        """Take everything that this shard has to take, or raise `_Stopped`."""
        unit = self._unit
        asked = scopes_of(unit.profile, devices=unit.devices, asked=unit.scope)
        missing, refuses = without(self._target.abilities.operations), self._refuses()
        scopes = [
            replace(each, without=(*each.without, *missing), refusals=each.refusals and refuses) for each in asked
        ]
        self._gatherer.answer.scope = _words(scopes)
        works = [atlas_of(scope) for scope in scopes]
        shares = [atlas.states[unit.shard :: SHARDS] for atlas in works]
        for atlas, states in zip(works, shares, strict=True):
            self.counts["states in scope"] += len(states)
            self.counts[IN_SCOPE] += sum(len(atlas.transitions(state)) for state in states)
        for number, (atlas, states) in enumerate(zip(works, shares, strict=True)):
            self._tour(atlas, states, str(number))

    def _tour(self, atlas: Atlas, states: Sequence[State], name: str) -> None:
        for at, state in enumerate(states):
            try:
                self._from(atlas, _Stop(state, atlas.transitions(state), f"{name}.{atlas.space.packed(state)}"))
            except _NoCopiesError:
                self._cover(atlas, Cover(atlas, states[at:]), f"{name}.walk")
                return
            except UnsupportedSetupError:
                self._gatherer.skipped()
                return
        for stop in _behind_gaps(atlas, states, name):
            self._from(atlas, stop)

    def _refuses(self) -> bool:
        """Tell whether calls of the driver can be refused: a system of its own has to let it be done."""
        if self._target.factory is None:
            return True
        try:
            with self._open(Scope(devices=1).setup(self._unit.semantics), Care.LIGHT) as session:
                session.step(CanSnapshot("d0"), (CallFault("d0", "create"),))
                return not session.history.steps[-1].skipped
        except UnsupportedSetupError:
            return True  # there will be nothing to refuse

    def _require_time(self) -> None:
        if self._gatherer.must_stop():
            raise _Stopped

    # --- from copies ------------------------------------------------------------------------------
    def _from(self, atlas: Atlas, stop: _Stop) -> None:
        """Take the transitions from a state. Raises `_NoCopiesError` when that can not be done from copies of it."""
        start: Start | None = None
        at = 0
        while at < len(stop.transitions):
            known = self._gatherer.before.get(f"{stop.name}.{at}")
            if known is not None:  # an earlier run has done that
                at = int(known.note[0])
                continue
            self._require_time()
            start = start or self._reach(atlas, stop)
            if start is None:
                self.counts["states that the driver did not reach"] += 1
                return
            at = self._case(atlas, stop, start, at)

    def _reach(self, atlas: Atlas, stop: _Stop) -> Start | None:
        """Make a state on the driver, and return what to take it up from; None when the driver does not get there."""
        setup = atlas.space.scope.setup(self._unit.semantics)
        if stop.state == atlas.space.start:
            return setup
        with self._open(setup, Care.ASKED) as session:
            for operation, faults in _operations(atlas, stop, session):
                self._gatherer.heard(session, session.step(operation, faults))
                if session.over:
                    break
            self._gatherer.heard(session, session.finish())
            if session.over or atlas.space.state_of(session.world) != stop.state:
                return None
            checkpoint = session.checkpoint()
            if checkpoint is None:
                raise _NoCopiesError
            return checkpoint

    def _open(self, start: Start, care: Care) -> Session:
        return Session(self._target, start, care=care, dog=self._dog)

    def _case(self, atlas: Atlas, stop: _Stop, start: Start, at: int) -> int:
        """Take a transition that changes the state, or all in a row that do not; return which one is next."""
        case, state, left = f"{stop.name}.{at}", stop.state, stop.transitions[at:]
        row = left[0].after == state
        together = [each for each in left if each.after == state] if row else left[:1]
        with self._open(start, Care.ASKED if row else Care.CLOSE) as session:
            for transition in together:
                at += 1
                self._gatherer.answer.counts[AGAIN] += stop.gap
                if not self._take(atlas, session, transition, fresh=not stop.gap):
                    break
            if row:
                self._agree(session, session.finish())
            self._gatherer.ended(session, case=case, note=(str(at),))
        return at

    def _take(self, atlas: Atlas, session: Session, transition: Transition, *, fresh: bool = True) -> bool:
        """Take one transition, count it if it is `fresh`, and return whether one can go on from where it leads."""
        counts, after = self._gatherer.answer.counts, transition.after
        agrees = self._agree(session, session.step(*transition.move.on(session.world)))
        step = session.history.steps[-1]
        there = not session.over and atlas.space.state_of(session.world) == after
        if not fresh:
            pass
        elif len(step.met) < len(step.faults):
            counts["transitions whose call could not be refused"] += 1
        elif there or not agrees:
            counts[TAKEN] += 1
        else:
            counts["transitions that ended in another way that is allowed"] += 1
        return there and agrees

    def _agree(self, session: Session, found: Sequence[Evidence]) -> bool:
        """Hear what speaks against the driver; return whether nothing of severity error does."""
        self._gatherer.heard(session, found)
        agrees = all(each.severity is not Severity.ERROR for each in found)
        self._gatherer.answer.counts[DISAGREEING] += not agrees
        return agrees

    # --- on walks ---------------------------------------------------------------------------------
    def _cover(self, atlas: Atlas, cover: Cover, name: str) -> None:
        """Take what is left on walks, each from a new start; give up when one does not get to anything new."""
        number, fresh = 0, 1
        while fresh and not cover.done:
            number += 1
            case = f"{name}.{number}"
            known = self._gatherer.before.get(case)
            if known is not None:  # an earlier run has done that
                cover.skip(int(known.note[0]))
                continue
            self._require_time()
            fresh = self._walk(atlas, cover, case)

    def _walk(self, atlas: Atlas, cover: Cover, case: str) -> int:
        """Go one walk; return how many transitions were new on it."""
        state, legs, fresh, going = atlas.space.start, 0, 0, True
        with self._open(atlas.space.scope.setup(self._unit.semantics), Care.ASKED) as session:
            while going and legs < _STEPS_MAX:
                leg = cover.next(state)
                if leg is None:
                    break
                legs += 1
                fresh += leg.fresh
                going = self._take(atlas, session, leg.transition, fresh=leg.fresh)
                state = leg.transition.after or state
            self._agree(session, session.finish())
            self._gatherer.ended(session, case=case, note=(str(legs),))
        return fresh


# --- behind a gap in the ids ----------------------------------------------------------------------
def _behind_gaps(atlas: Atlas, states: Sequence[State], name: str) -> Iterator[_Stop]:
    """Yield the states that have ids, with the transitions that give ids or speak of them where no call is refused."""
    if _spares(atlas.space.scope) is None:
        return
    for state in states:
        if any(snapshots_of(atlas.space.tables.states[number]) for number in state):
            again = tuple(each for each in atlas.transitions(state) if _is_of_ids(each.move, state))
            yield _Stop(state, again, f"{name}.gap.{atlas.space.packed(state)}", gap=True)


def _is_of_ids(move: Move, state: State) -> bool:
    """Tell whether a move is taken again: an act on one device only where the others are as they started."""
    if move.refused or not (move.act.rank or move.act.kind in _OF_IDS):
        return False
    return move.device is None or not any((*state[: move.device], *state[move.device + 1 :]))


def _operations(atlas: Atlas, stop: _Stop, session: Session) -> Iterator[tuple[Operation, tuple[Fault, ...]]]:
    """Yield what makes a state, each for the devices as they are by then."""
    spares = _spares(atlas.space.scope) if stop.gap else None
    taken, dropped = spares or ((), ())
    yield from ((operation, ()) for operation in taken)
    for move in atlas.way(stop.state):
        act = move.act  # the spare snapshot has the smallest of all ids
        behind = act._replace(rank=act.rank + 1) if taken and act.rank else act
        yield move._replace(act=behind).on(session.world)
    yield from ((operation, ()) for operation in dropped)


def _spares(scope: Scope) -> tuple[Sequence[Operation], Sequence[Operation]] | None:
    """Return what takes a spare snapshot of every device and what drops it; None where neither can be done."""
    names = [spec.name for spec in scope.setup().devices]
    if not {"create", "delete"} & set(scope.without):
        return [Create(name, _SPARE) for name in names], [Delete(name, None, _SPARE) for name in names]
    if not {"all-create", "all-delete"} & set(scope.without):
        return [AllCreate(_SPARE)], [AllDelete(_SPARE)]
    return None
