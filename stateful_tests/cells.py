"""The cells of the coverage matrix: operation x fault x role of a device x the state that it was in.

A step reaches one cell for each fault that a device met, or, where none was met, one for each device that took part.
What a damaged device does is not predicted, so it counts nowhere. `coverage.py` says which cells there are.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Final

from snapcheck.model.device import Device, World
from snapcheck.model.facts import WALKS, root_of
from snapcheck.model.faults import (
    BitFlip,
    CallFault,
    Delay,
    DropsUnflushed,
    Effect,
    Fails,
    Family,
    Fault,
    Fill,
    LandsButFails,
    Lost,
    Misdirected,
    Short,
    Torn,
    family,
)
from snapcheck.model.history import FaultMet, Step
from snapcheck.model.operations import Operation, kind_of

EFFECT_WORDS: Final[Mapping[type[Effect], str]] = {
    Fails: "error", LandsButFails: "lands-but-error", Short: "short", Torn: "torn", Lost: "lost",
    Misdirected: "misdirected", BitFlip: "bit-flip", Fill: "fill", DropsUnflushed: "drops-unflushed", Delay: "delay",
}  # fmt: skip
NO_FAULT: Final = "none"

# What a device is to an operation: the node that it is about or, in a group, where it stands in the walk.
ROOT: Final = "root"
CHILD: Final = "child"
ONLY: Final = "only"
FIRST: Final = "first"
MIDDLE: Final = "middle"
LAST: Final = "last"

# What a device was like: the first of these that holds.
NO_MEDIUM: Final = "no medium"
READ_ONLY: Final = "read-only"
IN_FLIGHT: Final = "request in flight"
BITMAP: Final = "dirty bitmap"
BARE: Final = "no snapshot"
ONE: Final = "one snapshot"
SEVERAL: Final = "several snapshots"
REPEATED: Final = "repeated id or name"
STATES: Final = (NO_MEDIUM, READ_ONLY, IN_FLIGHT, BITMAP, BARE, ONE, SEVERAL, REPEATED)


def fault_kind(fault: Fault) -> str:
    """Return what a fault is but for place and errno: `create-call`, `flush-error`, `write-torn`."""
    if isinstance(fault, CallFault):
        return f"{fault.function.replace('_', '-')}-call"
    return f"{fault.kind}-{EFFECT_WORDS[type(fault.effect)]}"


def fault_word(fault: Fault) -> str:
    """Return the word for a fault in the matrix: its kind; all damage is one, as nothing is predicted after any."""
    met = family(fault)
    return fault_kind(fault) if met is Family.ERROR else met.value


def state_class(device: Device) -> str:
    """Return which of `STATES` a device is in."""
    image = device.image
    if image is None or not device.present:
        return NO_MEDIUM
    if device.read_only:
        return READ_ONLY
    if device.in_flight:
        return IN_FLIGHT
    if device.bitmaps or device.child_bitmaps:
        return BITMAP
    snapshots = image.snapshots
    if len(snapshots) < 2:
        return ONE if snapshots else BARE
    ids, names = {each.info.id_str for each in snapshots}, {each.info.name for each in snapshots}
    return SEVERAL if len(ids) == len(names) == len(snapshots) else REPEATED


def role_of(operation: Operation, device: str, walk: Sequence[str]) -> str | None:
    """Return what `device` is to an operation whose walk this is; None when it takes no part."""
    if device not in walk:
        return None
    if not isinstance(operation, WALKS):
        return ROOT if operation.device == device else CHILD
    if len(walk) == 1:
        return ONLY
    return FIRST if device == walk[0] else LAST if device == walk[-1] else MIDDLE


@lru_cache(maxsize=1 << 14)
def cell(kind: str, fault: str, role: str, state: str) -> str:
    """Return the name of a cell, given the kind of its operation."""
    return f"{kind} x {fault} x {role} x {state}"


def parts_of(cell: str) -> tuple[str, ...]:
    """Return operation, fault, role and state of a cell."""
    return tuple(cell.split(" x "))


def reached_by(step: Step, struck: Sequence[FaultMet], walk: Sequence[str], before: World) -> list[str]:
    """Return the cells that a step reached from the state `before`; `struck` are the faults that it met."""
    operation, reached = step.operation, list[str]()
    for name, word in _places(step, struck) if struck else [(device, NO_FAULT) for device in walk]:
        device, role = before.devices.get(name), role_of(operation, name, walk)
        if device is not None and role is not None and not device.damaged:
            reached.append(cell(kind_of(operation), word, role, state_class(device)))
    return reached


def _places(step: Step, struck: Sequence[FaultMet]) -> Iterable[tuple[str, str]]:
    return dict.fromkeys((root_of(met.device), fault_word(step.faults[met.fault])) for met in struck)
