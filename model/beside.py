"""The group functions of the model beside the walk over tables: every group move in every state of a small scope.

The tables (tables.py) ask each device by itself, so they can not show what goes wrong from one device to the next in
group.py: who is skipped, who is named, what the struct holds that all of them write. Here `step` answers for the whole
group, and its outcomes have to be those of visiting one device after the other: the answer, first_bad_bs, `sn` on
success, and every device exactly, with its ids.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import NamedTuple

from snapcheck.model.device import Device, Expected, World
from snapcheck.model.errno import Errno
from snapcheck.model.law_names import Law
from snapcheck.model.operations import AllCreate, AllFind
from snapcheck.model.properties import Broken
from snapcheck.model.scope import Scope
from snapcheck.model.setup import Semantics
from snapcheck.model.snapshot import SnapshotInfo
from snapcheck.model.space import Move, Space
from snapcheck.model.step import step
from snapcheck.model.tables import visited

_DEVICES, _VALUES, _SNAPSHOTS = 2, 2, 2  # of the scope where every group move is compared, at most; names: 1


class Compared(NamedTuple):
    """A group move that was compared, the way to it included, and what does not hold of it."""

    path: tuple[Move, ...]
    broken: Broken | None


class _End(NamedTuple):
    """How a walk ended: whether it stopped, at which device (the one that is named), and what it left."""

    stopped: bool
    named: str | None
    sn: SnapshotInfo | None
    devices: tuple[Device, ...]


def compared_with_step(scope: Scope, semantics: Semantics) -> Iterator[Compared]:
    """Yield every group move of the small scope within `scope`, compared."""
    small = replace(
        scope, devices=min(scope.devices, _DEVICES), names=1, values=min(scope.values, _VALUES),
        snapshots=min(scope.snapshots, _SNAPSHOTS),
    )  # fmt: skip
    space = Space(small)
    moves = [move for move in space.moves if move.device is None]
    for state in product(space.ways_of_one, repeat=small.devices):
        world, way = space.world_of(state, semantics), space.way_alone(state)
        for move in moves:
            ends = _visiting(world, move)
            if ends is not None:
                yield Compared((*way, move), _apart(move, ends, _stepping(world, move)))


def stopped(expected: Expected) -> bool:
    """Tell whether an answer means that a walk stopped somewhere, or that an operation failed."""
    errnos = expected.errnos
    return (errnos is not None and Errno.OK not in errnos) or expected.answer is False or expected.device is not None


def _visiting(world: World, move: Move) -> set[_End] | None:
    """Return the ends of visiting one device after the other: a driver may absorb a fault; None: no call to refuse."""
    end = _visits(world, move)
    plain = _visits(world, move._replace(refused="", at=None))
    return None if end is None or plain is None else {end, plain}


def _visits(world: World, move: Move) -> _End | None:
    devices, shared = list(world.devices.values()), None
    names_nobody = world.semantics is Semantics.MODERN and move.act.kind is AllFind  # it only says no
    for at, (name, device) in enumerate(world.devices.items()):
        visit = visited(move.act, device, move.refused if at == move.at else "", shared)
        if visit is None:
            return None
        devices[at], shared = visit.after, visit.shared
        if visit.stops:
            unmet = move.at is not None and move.at > at
            named = None if names_nobody else name
            return None if unmet else _End(stopped=True, named=named, sn=None, devices=tuple(devices))
    sn = shared if move.act.kind is AllCreate else None
    return _End(stopped=False, named=None, sn=sn, devices=tuple(devices))


def _stepping(world: World, move: Move) -> set[_End]:
    """Return the ends that the model's own step allows."""
    ends: set[_End] = set()
    for outcome in step(world, *move.on(world)):
        expected = outcome.expected
        failed = stopped(expected)
        sn = expected.sn[0] if expected.sn and not failed and move.act.kind is AllCreate else None
        lefts = [[each.state for each in outcome.devices.get(name, ())] or [old] for name, old in world.devices.items()]
        ends.update(_End(failed, expected.first_bad or expected.device, sn, left) for left in product(*lefts))
    return ends


def _apart(move: Move, visiting: set[_End], stepping: set[_End]) -> Broken | None:
    """Return the law that the group breaks where it does not end as the visits do."""
    if stepping == visiting:
        return None
    words = f"{move.act.words} on the group does not do what it does to one device after the other"
    if {end.devices for end in stepping} != {end.devices for end in visiting}:
        return Broken(Law.PREFIX_APPLIED, f"{words}: it leaves other devices")
    if {end[:2] for end in stepping} != {end[:2] for end in visiting}:
        return Broken(Law.RIGHT_CULPRIT, f"{words}: it names another device, or none")
    return Broken(Law.OUT_PARAMS, f"{words}: the struct holds something else")
