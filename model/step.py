"""The front of the model: the state that a history starts in, what an operation may do to it, and what a reopen does.

Around every operation lies what docs/reference/alphabet.md says of guest requests in flight: they land when it has done
its work, on whatever device they are.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from snapcheck.model.callers import del_vm, load_vm, save_vm, transaction
from snapcheck.model.device import Allowed, Device, Outcome, World
from snapcheck.model.facts import root_of
from snapcheck.model.faults import Family, Fault, family
from snapcheck.model.group import (
    Outcomes,
    Stage,
    Struck,
    all_can_snapshot,
    all_create,
    all_delete,
    all_find,
    all_find_vmstate_bs,
    all_goto,
)
from snapcheck.model.guest import landed
from snapcheck.model.operations import (
    AllCanSnapshot,
    AllCreate,
    AllDelete,
    AllFind,
    AllFindVmstateBs,
    AllGoto,
    DelVm,
    LoadVm,
    Operation,
    SaveVm,
    SubmitWrite,
    Transaction,
)
from snapcheck.model.replies import blows_of, closed
from snapcheck.model.semantics import FALLS_BACK, LOCAL, new_device
from snapcheck.model.setup import Setup

_SEVERAL: Mapping[type[Operation], Callable[[Stage, Any], Outcomes]] = {
    AllCanSnapshot: all_can_snapshot, AllFind: all_find, AllCreate: all_create, AllGoto: all_goto,
    AllDelete: all_delete, AllFindVmstateBs: all_find_vmstate_bs,
    SaveVm: save_vm, LoadVm: load_vm, DelVm: del_vm, Transaction: transaction,
}  # fmt: skip
_NOTHING_STRUCK: Final[Struck] = {}


def start(setup: Setup) -> World:
    """Return the state that a history of `setup` starts in."""
    return World({spec.name: new_device(spec) for spec in setup.devices}, setup.semantics)


def step(world: World, operation: Operation, met: Sequence[Fault]) -> Sequence[Outcome]:
    """Return what `operation` may answer and leave in the state `world`; never empty.

    `met` are the faults that really struck. Without any the outcome is one, unless a damaged device takes part.
    """
    struck = blows_of(met) if met else _NOTHING_STRUCK
    wrecked = {root_of(fault.device) for fault in met if family(fault) is Family.DAMAGE} if met else ()
    before = _with_damage(world, wrecked) if wrecked else world
    stage = Stage(before, struck)
    several = _SEVERAL.get(type(operation))
    outcomes = several(stage, operation) if several else _local(stage, operation)
    if wrecked:
        outcomes = tuple(_adding(outcome, before, wrecked) for outcome in outcomes)
    if type(operation) is not SubmitWrite and any(device.in_flight for device in world.devices.values()):
        outcomes = tuple(_landed(outcome, stage) for outcome in outcomes)
    return outcomes


def _local(stage: Stage, operation: Any) -> Outcomes:  # noqa: ANN401  # one of LOCAL's keys
    node: str = operation.device
    name = root_of(node)
    device = stage.world.devices[name]
    assert node == name or device.spec.kind in FALLS_BACK, f"{node} is no node of this history"
    replies = LOCAL[type(operation)](device, operation, stage.blow(name))
    return tuple(Outcome(expected, {name: states} if states else {}) for expected, states in replies)


# --- damage ---------------------------------------------------------------------------------------
def _with_damage(world: World, names: set[str]) -> World:
    """Return `world` where these devices met a fault that may lose acknowledged data."""
    damaged = {
        name: device._replace(damaged=True) if name in names else device for name, device in world.devices.items()
    }
    return World(damaged, world.semantics)


def _adding(outcome: Outcome, world: World, names: set[str]) -> Outcome:
    """Return `outcome` with these devices as they are in `world`, where it does not change them."""
    return Outcome(outcome.expected, {**{name: (Allowed(world.devices[name]),) for name in names}, **outcome.devices})


# --- requests in flight ---------------------------------------------------------------------------
def _landed(outcome: Outcome, stage: Stage) -> Outcome:
    """Return `outcome` after the guest requests that are still in flight have landed."""
    devices = dict(outcome.devices)
    for name, device in stage.world.devices.items():
        if device.in_flight:
            blow = stage.blow(name)
            states = devices.get(name) or (Allowed(device),)
            devices[name] = tuple(Allowed(landed(allowed.state, blow), allowed.note) for allowed in states)
    return Outcome(outcome.expected, devices)


def reopened(world: World, name: str) -> World:
    """Return the state after a clean close and open of a device, as a full observation does it.

    Views end, bitmaps go, and requests in flight land; whether they did, only a look at the device can tell.
    """
    device = world.devices[name]
    if not device.present or not (_has_view(device) or device.bitmaps or device.child_bitmaps or device.in_flight):
        return world
    anew = closed(landed(device, None, surely=False), read_only=device.read_only, present=True)
    return World({**world.devices, name: anew}, world.semantics)


def _has_view(device: Device) -> bool:
    return device.image is not None and device.image.view is not None
