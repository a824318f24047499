"""Suiting a step to a system: what is drawn for any of them, in the form in which this one can have it.

A system whose calls can not be made to fail meets a failing I/O of the same device instead; one whose disks know few
errors gets one of those; one that saves a state of its own does not take orders about its size and date.
"""

from dataclasses import replace
from typing import Final

from snapcheck.model.errno import Errno
from snapcheck.model.facts import root_of
from snapcheck.model.faults import CallFault, DropsUnflushed, Fails, Fault, IoFault, LandsButFails, Short
from snapcheck.model.history import Abilities
from snapcheck.model.operations import (
    AddBitmap,
    Create,
    Delete,
    Goto,
    LoadTmp,
    LoadTmpByIdOrName,
    Operation,
    RemoveBitmap,
    SaveVm,
    Transaction,
)
from snapcheck.model.setup import DeviceSpec, Setup
from snapcheck.model.snapshot import NAME_BYTES_MAX, cut_text

_NAME: Final = "vm"  # where the clock would have made one
_NODE_OPERATIONS: Final = (AddBitmap, RemoveBitmap, Create, Goto, Delete, LoadTmp, LoadTmpByIdOrName)


def suited_setup(setup: Setup, abilities: Abilities) -> Setup:
    """Return `setup` as the system can use it: one that saves a state of its own loads no pattern of the harness."""
    if not abilities.vmstate_bytes:
        return setup
    return replace(setup, devices=tuple(map(_without_states, setup.devices)))


def _without_states(spec: DeviceSpec) -> DeviceSpec:
    if not any(snapshot.vm_state_size for snapshot in spec.snapshots):
        return spec
    return replace(spec, snapshots=tuple(replace(snapshot, vm_state_size=0) for snapshot in spec.snapshots))


def suited_operation(operation: Operation, abilities: Abilities) -> Operation:
    """Return `operation` as the system can perform it."""
    size = abilities.vmstate_bytes
    if size is not None and isinstance(operation, SaveVm):
        name = operation.name if operation.name is not None else _NAME
        return SaveVm(_name(name, abilities), vm_state_size=size)
    if size is not None and isinstance(operation, Transaction):
        actions = (replace(action, name=_name(action.name, abilities)) for action in operation.actions)
        return Transaction(tuple(actions))
    if size is not None and isinstance(operation, Create):
        operation = Create(operation.device, _name(operation.name, abilities))
    if not abilities.ids and isinstance(operation, Delete):
        operation = Delete(operation.device, None, operation.name or operation.snapshot_id or "")
    if not abilities.children and isinstance(operation, _NODE_OPERATIONS):
        return replace(operation, device=root_of(operation.device))
    return operation


def _name(text: str, abilities: Abilities) -> str:
    """Return a name that is still UTF-8 when it is cut to its field, where the system shows no other."""
    cut = cut_text(text, bytes_max=NAME_BYTES_MAX)
    if abilities.any_bytes or cut.isprintable():
        return text
    return cut.encode("utf-8", "ignore").decode()


def suited_faults(faults: tuple[Fault, ...], abilities: Abilities) -> tuple[Fault, ...]:
    """Return `faults` as the system can meet them."""
    return tuple(_suited(fault, abilities) for fault in faults)


def _suited(fault: Fault, abilities: Abilities) -> Fault:
    if isinstance(fault, CallFault):
        if abilities.call_faults:
            return fault
        fault = IoFault(fault.device, "any", Fails(fault.errno), at=fault.at, times=fault.times)
    effect, errnos = fault.effect, abilities.errnos
    if errnos is None or not isinstance(effect, Fails | LandsButFails | Short | DropsUnflushed):
        return fault
    if effect.errno in errnos:
        return fault
    other = Errno.EPERM if effect.errno in {Errno.EROFS, Errno.EACCES} else Errno.EIO
    return replace(fault, effect=replace(effect, errno=other))
