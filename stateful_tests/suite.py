"""Histories made from paths of the explored model, with what the model expects as their answers.

Written to a file they are a conformance suite: each step says what to do, which call to refuse, what has to be
answered and what each device holds then. A tool in any language can run it; `snapcheck replay` does.
"""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Final, NamedTuple

from snapcheck.model.beside import stopped
from snapcheck.model.device import Device, Expected, Outcome, World
from snapcheck.model.errno import Errno
from snapcheck.model.faults import CallFault, Fault
from snapcheck.model.history import Abilities, FaultMet, History, Level, Observation, Result, Step, View
from snapcheck.model.operations import Operation
from snapcheck.model.setup import Semantics
from snapcheck.model.snapshot import as_listed
from snapcheck.model.space import Move, Space, State, Transition
from snapcheck.model.step import start, step
from snapcheck.stateful_tests.atlas import Atlas, Cover

STEPS_MAX: Final = 100  # of one history
ERROR_TEXT: Final = "an error text"  # stands where some text has to be; which one is up to the driver
# Nothing but answers and looks is in such a history: neither calls nor locks nor I/O.
_SHOWN: Final = Abilities(calls=False, locks=False, drains=False, io=False, check=False, snapshot_contents=False)


def suite(atlas: Atlas, semantics: Semantics = Semantics.CLASSIC) -> Iterator[History]:
    """Yield histories that take every transition of the scope at least once."""
    cover = Cover(atlas, atlas.states)
    while not cover.done:
        script, state = Script(atlas.space, semantics), atlas.space.start
        for _ in range(STEPS_MAX):
            leg = cover.next(state)
            if leg is None:
                break
            script.add(leg.transition)
            state = leg.transition.after or state
        yield script.history


def history_of(space: Space, path: Sequence[Move], semantics: Semantics = Semantics.CLASSIC) -> History:
    """Return the history of a path from the start; its last move may lead anywhere."""
    script, state = Script(space, semantics), space.start
    for move in path:
        transition = space.transition(state, move)
        assert transition is not None, f"{move.words} is not there"
        script.add(transition)
        state = transition.after or state
    return script.history


class Script:
    """A history under way, with the devices as they are then."""

    def __init__(self, space: Space, semantics: Semantics) -> None:
        setup = space.scope.setup(semantics)
        self.history: Final = History(setup, abilities=_SHOWN)
        self._space = space
        self._world = start(setup)

    def add(self, transition: Transition) -> None:
        """Take a transition: note what is asked, what is answered, and what the devices hold then."""
        operation, faults = transition.move.on(self._world)
        taken = _taken(self._space, self._world, operation, faults, transition)
        self._world = World(taken.devices, self._world.semantics)
        events = tuple(FaultMet(fault.device, number) for number, fault in enumerate(faults))
        seen = tuple(_seen(name, device) for name, device in taken.devices.items())
        self.history.steps.append(
            Step(operation, faults, events=events, result=_result(taken.expected, faults), observations=seen)
        )


class _Taken(NamedTuple):
    expected: Expected
    devices: dict[str, Device]


def _taken(
    space: Space, world: World, operation: Operation, faults: tuple[Fault, ...], transition: Transition
) -> _Taken:
    """Return the outcome of the model's own step that is this transition; of several the last, where a fault struck.

    Where the group functions do not do what the tables say (model/beside.py) it is whatever they do.
    """
    found: list[_Taken] = []
    others: list[_Taken] = []
    for outcome in step(world, operation, faults):
        for devices in _devices_after(world, outcome):
            after: State | None = space.state_of(World(devices, world.semantics))
            if after == transition.after and stopped(outcome.expected) == (transition.bad is not None):
                found.append(_Taken(outcome.expected, devices))
            else:
                others.append(_Taken(outcome.expected, devices))
    found = found or others
    return found[-1] if faults else found[0]


def _devices_after(world: World, outcome: Outcome) -> Iterator[dict[str, Device]]:
    choices = [[each.state for each in outcome.devices.get(name, ())] or [old] for name, old in world.devices.items()]
    for chosen in product(*choices):
        yield dict(zip(world.devices, chosen, strict=True))


def _result(expected: Expected, faults: Sequence[Fault]) -> Result:
    """Return one answer that is expected: of several errnos that of the refusal."""
    errnos = expected.errnos or frozenset({Errno.OK})
    refusals = [fault.errno for fault in faults if isinstance(fault, CallFault)]
    errno = next((each for each in refusals if each in errnos), min(errnos, key=abs))
    return Result(
        errno=errno, answer=expected.answer, first_bad=expected.first_bad, sn=expected.sn[0] if expected.sn else None,
        snapshots=expected.snapshots, device=expected.device, data=expected.data,
        message=ERROR_TEXT if expected.message else None,
    )  # fmt: skip


def _seen(name: str, device: Device) -> Observation:
    image = device.image
    assert image is not None, "a device of a scope has an image"
    listed = tuple(as_listed(each.info) for each in image.snapshots)
    return Observation(name, Level.LIGHT, View(listed, image.sectors, image.content.tags))
