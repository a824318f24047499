"""Phase `sweep`: every operation from a few starting points, with a fault at every place where one can strike.

Most bugs need one or two operations and one fault, so this is exhaustive there. A case is one history: a state, one
operation more, and one fault in it; then the fault is taken away, the operation repeated, and the devices are used
further. The faults in the operations before it are the cases of a shorter sequence.

A longer sequence starts from the states that one more operation leads to. Each such state is made once and taken up
again for every case (Session.checkpoint); where that can not be done its operations are performed again. So they are
in a case without a fault: what a driver keeps in its memory is in no checkpoint. The states after one operation are
shared out by what the model expects of them, so that two shards never hold the same one; those after two follow from
them, so that two shards may both get to one.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Final, NamedTuple

from snapcheck.impl.driver import UnsupportedSetupError
from snapcheck.impl.targets import find_target
from snapcheck.model.device import World
from snapcheck.model.errno import Errno
from snapcheck.model.facts import WALKS
from snapcheck.model.faults import CALLS, Fault
from snapcheck.model.history import Care, Step
from snapcheck.model.law_names import Severity
from snapcheck.model.operations import AddBitmap, LoadTmp, LoadTmpByIdOrName, Operation, SubmitWrite
from snapcheck.model.setup import Setup
from snapcheck.stateful_tests.digest import digest_of
from snapcheck.stateful_tests.draw_faults import Targets, targets_of
from snapcheck.stateful_tests.fault_places import AT_MAX, Blow, Place, faults_at, places_behind, places_of
from snapcheck.stateful_tests.gather import Gatherer, gathering
from snapcheck.stateful_tests.session import Checkpoint, Session
from snapcheck.stateful_tests.small_operations import expected, like_an_earlier_one, small_operations
from snapcheck.stateful_tests.starting_points import starting_points
from snapcheck.stateful_tests.units import SHARDS, Answer, Profile, Unit
from snapcheck.stateful_tests.watchdog import Watchdog, watchdog
from snapcheck.stateful_tests.work import Control

NAME: Final = "sweep"
GENERATED: Final = "cases generated"  # as far as they are known: the faults of a case once it was run without any
RUN: Final = "cases run"
SKIPPED: Final = "cases skipped"  # on purpose; there was no time for the rest of those that were generated
_FIRST_OF_TWO: Final = (Blow(), Blow(lands=True))
_SECOND_OF_TWO: Final = (Blow(),)
# It closes devices: requests land, bitmaps go, views end, and the state that these lead to would be no new one.
_UNDONE_BY_A_CLOSE_LOOK: Final = (SubmitWrite, AddBitmap, LoadTmp, LoadTmpByIdOrName)


@dataclass(frozen=True, slots=True)
class Reach:
    """How far a profile goes: from how many starting points, with how many operations, under which faults.

    `calm` is from how many starting points single operations are tried without faults, before anything else is, and
    `twice` from how many of them they are struck by two faults, the second one in what follows the first. Every
    `live`-th I/O of a kind is struck first without opening anything anew before the end.
    """

    calm: int
    points: int
    length: int
    blows: tuple[Blow, ...]
    twice: int = 0
    live: int = 1


REACHES: Final = {
    Profile.QUICK: Reach(3, 3, 1, (Blow(),), live=6),
    Profile.DEFAULT: Reach(13, 8, 2, (Blow(), Blow(0, Errno.ENOSPC), Blow(lands=True)), 2),
    Profile.DEEP: Reach(13, 13, 3, tuple(
        Blow(times, errno, lands) for times in (1, 0) for errno in (Errno.EIO, Errno.ENOSPC) for lands in (False, True)
    ), 13),
}  # fmt: skip


def scope(profile: Profile, *, devices: int, length: int) -> str:
    """Return what was done when every sequence of up to `length` operations was."""
    reach = REACHES[profile]
    groups = "1 device" if devices == 1 else "2 devices" if devices == 2 else "2 and 3 devices"
    faults = ", ".join(blow.words for blow in reach.blows)
    calm = f"; without faults from {reach.calm}" if reach.calm > reach.points else ""
    which = f"length {length} from {reach.points} starting points on {groups}"
    return f"{which}, every fault {faults} (of operations that are alike one is struck){calm}"


def run(unit: Unit, control: Control) -> Answer:
    """Run this shard's cases, the short sequences first. `Answer.length` says up to which length all were run.

    Raises `TargetError` for a driver that can not be started. On KeyboardInterrupt it ends with what it has.
    """
    with gathering(unit, control) as gatherer, watchdog() as dog:
        sweep = _Sweep(unit, gatherer, dog)
        try:
            sweep.run()
        except _Stopped:
            gatherer.answer.out_of_time = True
        except KeyboardInterrupt:
            gatherer.answer.interrupted = True
        gatherer.answer.counts.update(sweep.counts)
    return gatherer.answer


class _Stopped(Exception):  # noqa: N818  # no error
    """Time, or the number of histories that was asked for, has run out."""


class _Way(NamedTuple):
    """How to get to a state: by operations on a setup; those that a checkpoint has need not be performed again."""

    setup: Setup
    operations: tuple[Operation, ...]
    checkpoint: Checkpoint | None = None


class _State(NamedTuple):
    """A state to try operations in, as the model has it."""

    way: _Way
    world: World

    def then(self, operation: Operation) -> _Way:
        """Return the way to the state after one operation more."""
        return self.way._replace(operations=(*self.way.operations, operation))


class _Trial(NamedTuple):
    """An operation that goes well without a fault, where faults can strike it, and from which starting point it is."""

    point: int
    state: _State
    operation: Operation
    places: tuple[Place, ...]


class _Shown(NamedTuple):
    """What a case showed: whether its fault was met, whether it broke a law, and where it could be struck."""

    met: bool = False
    broken: bool = False
    places: tuple[Place, ...] = ()

    @property
    def note(self) -> tuple[str, ...]:
        """The same, for a journal."""
        flags = "met" * self.met + " broken" * self.broken
        return (flags, *(f"{place.device} {place.word} {place.times or 0} {place.first}" for place in self.places))

    @staticmethod
    def remembered(note: tuple[str, ...]) -> "_Shown":
        """Return what a journal has kept."""
        flags, *lines = note
        parts = (line.split(" ") for line in lines)
        places = tuple(Place(device, word, int(times) or None, int(first)) for device, word, times, first in parts)
        return _Shown("met" in flags, "broken" in flags, places)


class _Sweep:
    def __init__(self, unit: Unit, gatherer: Gatherer, dog: Watchdog) -> None:
        self._unit = unit
        self._gatherer = gatherer
        self.counts: Counter[str] = Counter()  # of what is worked out anew when a run goes on
        self._dog = dog
        self._target = find_target(unit.driver)
        self._abilities = self._target.abilities
        self._reach = REACHES[unit.profile]
        self._singly = True  # single operations are gone through more than once
        self._shown: dict[str, _Shown] = {}  # their cases

    def run(self) -> None:
        """Run all cases of this shard, or raise `_Stopped`."""
        for state, operations in self._shared_out(self._points(set(), self._reach.calm)):
            self.counts[GENERATED] += len(operations)
            for operation in operations:
                self._case(state, operation, ())
        for length in range(1, self._reach.length + 1):
            trials: Iterable[_Trial] = self._trials(length)
            if length == 1:
                trials = [*trials]
                self._strike_early(trials)
            for trial in trials:
                self._at_each_place(trial, self._strike)
            self._gatherer.answer.length = length
            self._singly = False

    def _trials(self, length: int) -> Iterator[_Trial]:
        """Try each operation after `length` - 1 others without a fault, and yield where faults can strike it."""
        for point, (state, operations) in enumerate(self._work(length)):
            self.counts[f"states, length {length}"] += 1
            self.counts[GENERATED] += len(operations) if length > 1 else 0
            alike = like_an_earlier_one(state.world, self._operations(state), whatever_way=False)
            for operation in operations:
                shown = self._case(state, operation, ())
                faults = sum(len([*faults_at(each, 1, self._reach.blows)]) * (each.times or 0) for each in shown.places)
                self.counts[GENERATED] += faults
                self.counts[SKIPPED] += faults if shown.broken or operation in alike else 0
                self.counts["operations like another one, tried without faults"] += operation in alike
                self.counts["operations that break a law without a fault"] += shown.broken
                if not shown.broken and operation not in alike:
                    yield _Trial(point, state, operation, shown.places)

    def _strike_early(self, trials: Sequence[_Trial]) -> None:
        """Strike calls, then each place once in one of the ways, and where that is soon done twice; more is later.

        Of an operation on a group calls alone are struck twice, so that comes with the calls.
        """
        for trial in trials if len(self._reach.blows) > 1 else ():
            self._at_each_place(trial, self._strike_call)
            if trial.point < self._reach.twice and isinstance(trial.operation, WALKS):
                self._at_each_place(trial, self._strike_twice)
        for trial in trials:
            self._at_each_place(trial, self._strike_once)
            if trial.point < self._reach.twice:
                self._at_each_place(trial, self._strike_twice)

    # --- states -----------------------------------------------------------------------------------
    def _work(self, length: int) -> Iterator[tuple[_State, tuple[Operation, ...]]]:
        """Yield the states after `length` - 1 operations, and which operations are to be tried there by this shard."""
        if length > 1:
            for state in self._states(length - 1, set(), self.counts):
                yield state, self._operations(state)
            return
        yield from self._shared_out(self._points(set(), self._reach.points))

    def _shared_out(self, points: Iterable[_State]) -> Iterator[tuple[_State, tuple[Operation, ...]]]:
        """Yield starting points, and which of the operations there are this shard's."""
        dealt = count()
        for point in points:
            mine = tuple(each for each in self._operations(point) if next(dealt) % SHARDS == self._unit.shard)
            yield point, mine

    def _states(self, operations: int, seen: set[str], counts: Counter[str]) -> Iterator[_State]:
        """Yield this shard's states that are so many operations away from a starting point, none that is in `seen`."""
        if operations == 0:
            yield from self._points(seen, self._reach.points)
            return
        for parent in self._states(operations - 1, seen, Counter()):
            for operation in self._operations(parent):
                if operations > 1 or self._is_mine(parent.world, operation):
                    state = self._reached(parent.then(operation), seen, counts)
                    if state is not None:
                        yield state

    def _points(self, seen: set[str], number: int) -> Iterator[_State]:
        points = starting_points(
            devices_max=self._unit.devices, semantics=self._unit.semantics, kinds=self._abilities.operations,
            prepared=self._target.format == "qcow2",
        )  # fmt: skip
        for point in points[:number]:
            state = self._reached(_Way(point.setup, point.before), seen, self.counts)
            if state is not None:
                yield state

    def _operations(self, state: _State) -> tuple[Operation, ...]:
        return small_operations(state.world, kinds=self._abilities.operations)

    def _is_mine(self, world: World, operation: Operation) -> bool:
        """Tell whether this shard has the state that `operation` leads to, going by what the model expects of it."""
        changed = {name: states[0].state for name, states in expected(world, operation).devices.items()}
        after = [changed.get(name, device) for name, device in world.devices.items()]
        return int(digest_of(repr(after)), 16) % SHARDS == self._unit.shard

    def _reached(self, way: _Way, seen: set[str], counts: Counter[str]) -> _State | None:
        """Return the state that `way` leads to; None when it is in `seen`, or can not be reached."""
        self._require_time()
        session = self._open(way)
        if session is None:
            return None
        with session:
            key = "" if session.over else session.state_key()
            if not key or key in seen:
                counts["states reached before" if key else "states that can not be reached"] += 1
                return None
            seen.add(key)
            return _State(way._replace(checkpoint=session.checkpoint()), session.world)

    def _open(self, way: _Way, *, anew: bool = False, care: Care = Care.USUAL) -> Session | None:
        """Return a session in the state that `way` leads to; None when the system can not build the setup.

        `anew` performs all of its operations, and closes nothing.
        """
        try:
            session = Session(
                self._target, way.setup if anew else way.checkpoint or way.setup, care=care, dog=self._dog
            )
        except UnsupportedSetupError:
            self._gatherer.skipped()
            return None
        missing = way.operations[len(session.history.steps) :]
        for number, operation in enumerate(missing, 1):
            if session.over:
                break
            closely = not anew and number == len(missing) and not isinstance(operation, _UNDONE_BY_A_CLOSE_LOOK)
            self._gatherer.heard(session, session.step(operation, everywhere=closely))
        return session

    # --- cases ------------------------------------------------------------------------------------
    def _at_each_place(self, trial: _Trial, strike: Callable[[_Trial, Place, int], bool]) -> None:
        """Strike each place of an operation each time that something comes by, until there is nothing to strike."""
        for place in trial.places:
            for at in range(place.first, (place.times or AT_MAX) + 1):
                if not strike(trial, place, at):
                    break

    def _strike(self, trial: _Trial, place: Place, at: int) -> bool:
        """Run the cases of one place; return whether there was anything to strike."""
        met = False
        faults = [*faults_at(place, at, self._reach.blows)]
        for fault in faults:
            self.counts[GENERATED] += place.times is None
            met = self._case(trial.state, trial.operation, (fault,)).met or met
            if not met:
                self.counts["faults that struck nothing"] += 1
                self.counts[SKIPPED] += 0 if place.times is None else len(faults) * (place.times - at + 1) - 1
                break
        return met

    def _strike_call(self, trial: _Trial, place: Place, at: int) -> bool:
        """Do as `_strike_once` where the place is a call of the driver: these are few."""
        return place.word in CALLS and self._strike_once(trial, place, at)

    def _strike_once(self, trial: _Trial, place: Place, at: int) -> bool:
        """Run one of the cases of a place, with the next way to fail each time that something comes by.

        Nothing is opened anew before its end, so that what the failure left in a driver's memory shows. A call that is
        refused does not get as far.
        """
        if at % self._reach.live != 1 % self._reach.live or (place.word in CALLS and len(self._reach.blows) == 1):
            return True
        faults = [*faults_at(place, at, self._reach.blows)]
        return self._case(trial.state, trial.operation, (faults[(at - 1) % len(faults)],), Care.LIVE).met

    def _strike_twice(self, trial: _Trial, place: Place, at: int) -> bool:
        """Strike once, and then whatever comes by afterwards: clean-up that fails as well."""
        met = False
        for first in faults_at(place, at, _FIRST_OF_TWO) if self._is_own(trial, place) else ():
            shown = self._case(trial.state, trial.operation, (first,))
            met = met or shown.met
            for behind in () if shown.broken else shown.places:
                for later in range(behind.first, (behind.times or 0) + 1) if self._is_own(trial, behind) else ():
                    for second in faults_at(behind, later, _SECOND_OF_TWO):
                        self._case(trial.state, trial.operation, (first, second))
        return met

    def _is_own(self, trial: _Trial, place: Place) -> bool:
        """Tell whether a place is an operation's own: what a device does below is that of operations on it alone."""
        return not self._abilities.calls or place.word in CALLS or not isinstance(trial.operation, WALKS)

    def _case(
        self, state: _State, operation: Operation, faults: tuple[Fault, ...], care: Care = Care.USUAL
    ) -> _Shown:  # fmt: skip
        """Run one case, unless an earlier run has; return what it showed."""
        name = _name_of(state, operation, faults, care)
        if name in self._shown:
            return self._shown[name]
        known = self._gatherer.before.get(name)
        if known is not None:
            shown: _Shown | None = _Shown.remembered(known.note)
        else:
            shown = self._perform(state, operation, faults, care, name)
        self.counts[GENERATED] += care is Care.LIVE or len(faults) > 1  # of these nobody knew
        self.counts[SKIPPED if shown is None else RUN] += 1
        shown = _Shown() if shown is None else shown
        if self._singly:
            self._shown[name] = shown
        return shown

    def _perform(  # what a case is
        self, state: _State, operation: Operation, faults: tuple[Fault, ...], care: Care, name: str
    ) -> _Shown | None:
        """Run one case; return what it showed, None when its state can not be reached any more."""
        self._require_time()
        session = self._open(state.way, anew=not faults, care=care)
        if session is None or session.over:
            return None
        with session:
            found = session.step(operation, faults, everywhere=not faults)
            step = session.history.steps[-1]
            broken = any(each.severity is Severity.ERROR for each in found)
            shown = _Shown(bool(step.met), broken, self._places(step, targets_of(state.world, operation)))
            self._gatherer.heard(session, found)
            self._gatherer.heard(session, session.follow_up())
            if care is Care.LIVE:
                self._gatherer.heard(session, session.finish())
            self._gatherer.ended(session, case=name, note=shown.note)
        return shown

    def _places(self, step: Step, targets: Targets) -> tuple[Place, ...]:
        """Return where a fault can strike what went like `step`; a second one, if that met one; a third one nowhere."""
        if not step.faults:
            return places_of(step, self._abilities, targets)
        return places_behind(step, self._abilities, targets) if len(step.faults) == 1 and step.met else ()

    def _require_time(self) -> None:
        if self._gatherer.must_stop():
            raise _Stopped


def _name_of(state: _State, operation: Operation, faults: tuple[Fault, ...], care: Care) -> str:
    """Return what a case is known by."""
    return digest_of(repr((state.way.setup, state.way.operations, operation, faults, care.value)))
