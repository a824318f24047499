"""Several devices in small: the states of a group, and every transition from one, a state at a time.

A state of the group is the number of each device's state (tables.py). A walk goes from device to device as in group.py:
each of them passes it on, or it stops there. `explore.py` does the same for millions of states at a time.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Final, NamedTuple

from snapcheck.model.device import Device, World
from snapcheck.model.faults import CallFault, Fault
from snapcheck.model.group import WALK_OF
from snapcheck.model.operations import Operation
from snapcheck.model.properties import Broken
from snapcheck.model.scope import Act, Scope
from snapcheck.model.setup import Semantics
from snapcheck.model.step import start
from snapcheck.model.tables import NOWHERE, Both, Table, Tables

State = tuple[int, ...]


class Move(NamedTuple):
    """An act on one device, or on the group (`device` is None), perhaps with a call refused at device number `at`."""

    act: Act
    device: int | None = None
    refused: str = ""
    at: int | None = None

    @property
    def words(self) -> str:
        """What it is called in a path: `goto a of d1`, `all-delete a with find refused at d0`."""
        where = "" if self.device is None else f" of d{self.device}"
        fault = "" if self.at is None else f" with {self.refused} refused at d{self.at}"
        return f"{self.act.words}{where}{fault}"

    def on(self, world: World) -> tuple[Operation, tuple[Fault, ...]]:
        """Return the operation and its faults for devices that are in such a state now."""
        faults = () if self.at is None else (CallFault(f"d{self.at}", self.refused),)
        if self.device is None:
            return self.act.on_all(), faults
        name = f"d{self.device}"
        operation = self.act.on(world.devices[name], name)
        assert operation is not None, f"{self.words} can not be done there"
        return operation, faults


class Transition(NamedTuple):
    """A move and the state that it leads to, None when that is out of the scope.

    `bad` is the device where the walk stops, or of a failed act on one device that device; `broken` is what does not
    hold of it although it always should.
    """

    move: Move
    after: State | None
    bad: int | None = None
    broken: tuple[Broken, ...] = ()


class Space:
    """All states of the devices of a scope, and the transitions between them. `start` is the first."""

    def __init__(self, scope: Scope) -> None:
        self.scope: Final = scope
        self.tables: Final = Tables(scope)
        self.start: Final[State] = (0,) * scope.devices
        self.states_max: Final[int] = len(self.tables.states) ** scope.devices

    # --- states -----------------------------------------------------------------------------------
    def packed(self, state: State) -> int:
        """Return a state as one number, with the numbers of the devices' states as its digits; the start is 0."""
        return sum(number * len(self.tables.states) ** at for at, number in enumerate(state))

    def state_of(self, world: World) -> State | None:
        """Return the state that the devices of `world` are in, None when that is out of the scope."""
        state = tuple(self.tables.number_of(device) for device in world.devices.values())
        return None if NOWHERE in state else state

    def world_of(self, state: State, semantics: Semantics = Semantics.CLASSIC) -> World:
        """Return devices that are in that state, with the smallest ids that they can have."""
        world = start(self.scope.setup(semantics))
        devices = zip(world.devices.items(), state, strict=True)
        return World(
            {name: _renamed(self.tables.states[number], device) for (name, device), number in devices}, semantics
        )

    def words_of(self, state: State) -> str:
        """Return a state in words: for each device its content, then name and content of its snapshots, in order."""
        return " | ".join(_device_words(self.tables.states[number]) for number in state)

    def way_alone(self, state: State) -> tuple[Move, ...]:
        """Return moves that bring one device after the other where `state` has it; there may be a shorter way."""
        return tuple(
            Move(act, device) for device, number in enumerate(state) for act in self.ways_of_one[number]
        )  # fmt: skip

    @cached_property
    def ways_of_one(self) -> dict[int, tuple[Act, ...]]:
        """What brings one device from the start to each state that it can come to by itself."""
        ways: dict[int, tuple[Act, ...]] = {0: ()}
        queue = [0]
        for number in queue:  # it grows meanwhile
            for act, both in self.tables.local.items():
                after = int(both.plain.after[number])
                if after != NOWHERE and after not in ways:
                    ways[after] = (*ways[number], act)
                    queue.append(after)
        return ways

    # --- transitions ------------------------------------------------------------------------------
    @cached_property
    def moves(self) -> tuple[Move, ...]:
        """Every move that there is in some state."""
        tables, devices = self.tables, range(self.scope.devices)
        local = [Move(act, device) for device in devices for act in tables.local]
        local += [
            Move(act, device, call, device) for device in devices for act, both in tables.local.items()
            for call in both.refused
        ]  # fmt: skip
        group = [Move(act) for act in tables.group]
        group += [
            Move(act, None, call, at) for act, both in tables.group.items() for call in both.refused for at in devices
        ]
        return (*local, *group)

    def transitions(self, state: State) -> Iterator[Transition]:
        """Yield every transition from `state`, those that lead out of the scope included."""
        for move in self.moves:
            found = self.transition(state, move)
            if found is not None:
                yield found

    def transition(self, state: State, move: Move) -> Transition | None:
        """Return what a move does in `state`; None when there is no such id, or no call to be refused."""
        if move.device is None:
            return self._walk(state, move, self.tables.group[move.act])
        number = state[move.device]
        table = _table(self.tables.local[move.act], move.refused)
        if not table.there[number]:
            return None
        after = int(table.after[number])
        bad = move.device if table.stops[number] else None
        whole = None if after == NOWHERE else (*state[: move.device], after, *state[move.device + 1 :])
        return Transition(move, whole, bad, self.tables.reasons.get((move.act, move.refused, number), ()))

    def _walk(self, state: State, move: Move, both: Both) -> Transition | None:
        after = list(state)
        broken: tuple[Broken, ...] = ()
        for at, number in enumerate(state):
            call = move.refused if at == move.at else ""
            table = _table(both, call)
            if not table.there[number]:
                return None
            broken += self.tables.reasons.get((move.act, call, number), ())
            after[at] = int(table.after[number])
            if after[at] == NOWHERE:
                return None if move.at is not None and move.at > at else Transition(move, None, None, broken)
            if table.stops[number]:
                return None if move.at is not None and move.at > at else Transition(move, tuple(after), at, broken)
        return Transition(move, tuple(after), None, broken)


def _table(both: Both, refused: str) -> Table:
    return both.refused[refused] if refused else both.plain


def _renamed(small: Device, device: Device) -> Device:
    return Device(device.spec, small.image)


def _device_words(device: Device) -> str:
    assert device.image is not None, "a device of a scope has an image"
    held = [f"{each.info.name}={each.content.tags[0]}" for each in device.image.snapshots]
    return " ".join((str(device.image.content.tags[0]), *held))


def path_words(moves: Sequence[Move]) -> str:
    """Return a path in words."""
    return "; ".join(move.words for move in moves) or "the start"


def is_group(act: Act) -> bool:
    """Tell whether an act is done to the whole group."""
    return act.kind in WALK_OF
