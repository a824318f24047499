"""Phase `walk`: long random histories, drawn by a plain seeded loop and led on by what is new.

* Each history has a swarm of its own: some of the operations, some families of faults. What never comes up in one
  leaves room for what else is there.
* A history goes on as long as it shows something new: a way in which an operation ended, in a kind of state, under a
  kind of fault. Its end is then kept, and later histories start from there (Session.checkpoint) as well as anew.
* What is new is new to this shard, so that the same seed gives the same histories however many processes there are.
* Goals say what a walk has to have seen, and lead it there (goals.py); a run that never got there can not vouch for
  anything.
"""

from dataclasses import dataclass
from itertools import count
from random import Random
from typing import Final, NamedTuple

from snapcheck.impl.driver import UnsupportedSetupError
from snapcheck.impl.targets import find_target
from snapcheck.model.device import World
from snapcheck.model.errno import Errno
from snapcheck.model.faults import CallFault, Fault, family
from snapcheck.model.history import Care, Step
from snapcheck.model.operations import KINDS, OPERATIONS, AllDelete, Delete, DelVm, Operation, Reopen
from snapcheck.stateful_tests.cells import fault_kind, state_class
from snapcheck.stateful_tests.chooser import RandomChooser
from snapcheck.stateful_tests.draw_faults import draw_faults
from snapcheck.stateful_tests.draw_operations import draw_operation
from snapcheck.stateful_tests.draw_setups import draw_setup
from snapcheck.stateful_tests.gather import Gatherer, gathering
from snapcheck.stateful_tests.goals import Goals, declared
from snapcheck.stateful_tests.session import Checkpoint, Session
from snapcheck.stateful_tests.units import Answer, Unit
from snapcheck.stateful_tests.watchdog import Watchdog, watchdog
from snapcheck.stateful_tests.work import Control

NAME: Final = "walk"
STEPS_MIN: Final = 30  # of a history, before the lack of anything new ends it
STEPS_MAX: Final = 100
PATIENCE: Final = 20  # steps without anything new
GOAL_EVERY: Final = 5  # steps, as long as a goal was never reached: then a step that may reach one
KEPT_MAX: Final = 24  # ends of histories that are worth going on from
_FAULT_CLASSES: Final = ("call", "error", "damage", "delay")
# A close look opens devices anew: what a failure left in a driver's memory outlives it only where nobody looks.
_CARES: Final = (Care.LATE, Care.LATE, Care.LIVE, Care.USUAL)
_WORDS: Final = tuple(KINDS[operation] for operation in OPERATIONS)
_DROPS: Final = tuple(KINDS[operation] for operation in (Delete, AllDelete, DelVm))
SNAPSHOTS_MAX: Final = 6  # on a device; beyond that the walk drops some: looking closely reads each of them


def run(unit: Unit, control: Control, *, care: Care | None = None) -> Answer:
    """Run histories of one unit, all with `care` when it is given. Raises `TargetError` as any phase.

    On KeyboardInterrupt it ends with what it has.
    """
    with gathering(unit, control) as gatherer, watchdog() as dog:
        walk = _Walk(unit, gatherer, dog, care)
        try:
            for number in count(gatherer.next_number()):
                if gatherer.must_stop():
                    break
                walk.history(number)
        except KeyboardInterrupt:
            gatherer.answer.interrupted = True
    return gatherer.answer


# --- swarms ---------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Swarm:
    """What comes up in a history: `kinds` of operations (None: all), classes of faults, and how closely it looks."""

    kinds: tuple[str, ...] | None
    faults: frozenset[str]
    care: Care

    def lets(self, fault: Fault) -> bool:
        """Tell whether a fault may come up."""
        return fault_class(fault) in self.faults


def fault_class(fault: Fault) -> str:
    """Return what a swarm calls a fault: `call`, or the family of an I/O fault."""
    return "call" if isinstance(fault, CallFault) else family(fault)


def draw_swarm(rng: Random, able: tuple[str, ...] | None) -> Swarm:
    """Draw a swarm for a system that performs the operations `able`."""
    words = _WORDS if able is None else able
    some = tuple(word for word in words if rng.random() < 0.6)  # six in ten
    kinds = able if rng.random() < 0.3 or not some else some  # three in ten have everything
    faults = frozenset(each for each in _FAULT_CLASSES if rng.random() < (0.2 if each == "damage" else 0.7))
    return Swarm(kinds, faults, rng.choice(_CARES))


# --- what is new ----------------------------------------------------------------------------------
class Seen(NamedTuple):
    """What makes two steps look alike to the walk: kinds of devices, operation, faults, outcome, who is named.

    `outcome` is None where it is the errno of a fault.
    """

    devices: frozenset[str]
    operation: type[Operation]
    faults: tuple[str, ...]
    outcome: Errno | None
    first_bad: str | None


def seen_in(step: Step, before: World) -> Seen:
    """Return what a step from the state `before` showed."""
    result, kinds = step.result, frozenset(map(state_class, before.devices.values()))
    met = step.met if step.faults else ()
    if not met:
        return Seen(kinds, type(step.operation), (), result.errno, result.first_bad)
    injected = {getattr(fault if isinstance(fault, CallFault) else fault.effect, "errno", None) for fault in met}
    outcome = None if result.errno in injected else result.errno
    return Seen(kinds, type(step.operation), tuple(map(fault_kind, met)), outcome, result.first_bad)


def _is_full(world: World) -> bool:
    return any(device.image and len(device.image.snapshots) > SNAPSHOTS_MAX for device in world.devices.values())


# --- histories ------------------------------------------------------------------------------------
class _Walk:
    def __init__(self, unit: Unit, gatherer: Gatherer, dog: Watchdog, care: Care | None) -> None:
        self._unit = unit
        self._gatherer = gatherer
        self._dog = dog
        self._care = care
        self._target = find_target(unit.driver)
        self._able = self._target.abilities.operations
        self._prepared = self._target.format == "qcow2"
        self._drops = tuple(word for word in _DROPS if self._able is None or word in self._able)
        wanted = declared(unit.profile, devices=unit.devices, kinds=self._able)
        self._goals = Goals(gatherer.answer.counts, wanted)
        self._seen: set[Seen] = set()
        self._kept: list[Checkpoint] = []

    def history(self, number: int) -> None:
        """Draw and run one history, from the seed that belongs to its number."""
        rng = Random(f"{self._unit.seed}/{self._unit.shard}/{NAME}/{number}")  # noqa: S311  # the same again, not secret
        swarm = draw_swarm(rng, self._able)
        kept = rng.choice(self._kept) if self._kept and rng.random() < 0.5 else None  # every other
        chooser = RandomChooser(rng)
        start = kept or draw_setup(
            chooser, semantics=self._unit.semantics, devices_max=self._unit.devices, qcow2_prepared=self._prepared
        )
        try:
            session = Session(self._target, start, care=self._care or swarm.care, dog=self._dog)
        except UnsupportedSetupError:
            self._gatherer.skipped()
            return
        with session:
            found = self._go(session, chooser, swarm)
            if found:
                self._reopen(session)
            self._gatherer.heard(session, session.finish())
            self._gatherer.answer.counts["steps that showed something new"] += found
            self._gatherer.ended(session, case=str(number))
            if found:
                self._keep(session)

    def _go(self, session: Session, chooser: RandomChooser, swarm: Swarm) -> int:
        """Go on as long as there is something new, and return how often there was."""
        found, last_new = 0, 0
        for at in range(STEPS_MAX):
            if session.over or (at >= STEPS_MIN and at - last_new > PATIENCE):
                break
            if self._step(session, chooser, swarm):
                found, last_new = found + 1, at
        return found

    def _step(self, session: Session, chooser: RandomChooser, swarm: Swarm) -> bool:
        before = session.world
        operation, faults = self._drawn(session, chooser, swarm)
        self._gatherer.heard(session, session.step(operation, faults))
        step = session.history.steps[-1]
        self._goals.look(step, before)
        self._gatherer.heard(session, session.follow_up())
        seen = seen_in(step, before)
        if seen in self._seen:
            return False
        self._seen.add(seen)
        return True

    def _drawn(
        self, session: Session, chooser: RandomChooser, swarm: Swarm
    ) -> tuple[Operation, tuple[Fault, ...]]:  # fmt: skip
        """Draw a step. Now and then it is one that may reach a goal, every other time without faults."""
        world, number = session.world, len(session.history.steps)
        wanted = self._goals.kinds_wanted(self._able) if number % GOAL_EVERY == 0 else ()
        kinds = wanted or (self._drops if _is_full(world) else swarm.kinds)
        operation = draw_operation(chooser, world, kinds=kinds or swarm.kinds)
        if wanted and number % (2 * GOAL_EVERY):
            return operation, ()
        drawn = draw_faults(chooser, world, operation, regions=self._target.regions)
        return operation, tuple(fault for fault in drawn if swarm.lets(fault)) if drawn else ()

    def _reopen(self, session: Session) -> None:
        """Open all devices again, so that a replay, which takes up nothing, gets to where the next history starts."""
        if self._able is not None and KINDS[Reopen] not in self._able:
            return
        for name, device in session.world.devices.items():
            if device.present and device.image is not None and not session.over:
                self._gatherer.heard(session, session.step(Reopen(name)))

    def _keep(self, session: Session) -> None:
        """Keep the end of a history to go on from, in the place of the one kept longest when there are enough."""
        checkpoint = session.checkpoint()
        if checkpoint is not None:
            self._kept.append(checkpoint)
            del self._kept[:-KEPT_MAX]
