"""Smaller histories to try in the place of one: without devices and faults, with plainer operations, names and sizes.

Each generator yields candidates that are smaller by a fixed measure, so that taking one after the other ends. Whether a
candidate still shows what is sought is not known here (shrink.py).
"""

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Final

from snapcheck.model.errno import Errno
from snapcheck.model.facts import root_of
from snapcheck.model.faults import CallFault, Fails, Fault
from snapcheck.model.history import History, Purpose, Step
from snapcheck.model.operations import Operation, SaveVm, Transaction
from snapcheck.model.setup import DeviceSpec, Kind, Setup
from snapcheck.model.snapshot import NAME_BYTES_MAX, cut_text

_SECTORS_SMALL: Final = 16


def ends(history: History) -> Iterator[History]:
    """Keep the last steps only, the fewest first: most of a long history has nothing to do with its end."""
    length = 1
    while length < len(history.steps):
        yield with_steps(history, history.steps[-length:])
        length *= 2


def without_faults(history: History) -> Iterator[History]:
    """Take one fault away."""
    for at, step in enumerate(history.steps):
        for index in range(len(step.faults)):
            left = (*step.faults[:index], *step.faults[index + 1 :])
            yield _with_step(history, at, replace(step, faults=left))


def _with_plain_purposes(history: History) -> Iterator[History]:
    """Take a step that was a retry or a probe for one of its own; the last one may need to be what it is."""
    for at, step in enumerate(history.steps):
        if step.purpose is not Purpose.EXPLORE:
            yield _with_step(history, at, replace(step, purpose=Purpose.EXPLORE))


def _with_simpler_faults(history: History) -> Iterator[History]:
    for at, step in enumerate(history.steps):
        for index, fault in enumerate(step.faults):
            for simpler in _simpler_fault(fault):
                faults = (*step.faults[:index], simpler, *step.faults[index + 1 :])
                yield _with_step(history, at, replace(step, faults=faults))


def _simpler_fault(fault: Fault) -> Iterator[Fault]:
    if fault.times != 1:
        yield replace(fault, times=1)
    for at in dict.fromkeys((1, fault.at // 2, fault.at - 1)):
        if 1 <= at < fault.at:
            yield replace(fault, at=at)
    if isinstance(fault, CallFault):
        if fault.errno is not Errno.EIO:
            yield CallFault(fault.device, fault.function, fault.at, fault.times)
    else:
        if fault.region:
            yield replace(fault, region="")
        if isinstance(fault.effect, Fails) and fault.effect != Fails():
            yield replace(fault, effect=Fails())


def without_devices(history: History) -> Iterator[History]:
    """Take one device away, with what was done on it alone."""
    devices = history.setup.devices
    for spec in devices[::-1]:
        if len(devices) == 1:
            return
        left = tuple(each for each in devices if each is not spec)
        steps = [_without_device(step, spec.name) for step in history.steps]
        if steps[-1] is not None:
            yield replace(
                history, setup=replace(history.setup, devices=left), steps=[s for s in steps if s is not None]
            )


def _without_device(step: Step, name: str) -> Step | None:
    """Return the step without a device: None when nothing of it is left."""
    operation = step.operation
    faults = tuple(fault for fault in step.faults if root_of(fault.device) != name)
    if isinstance(operation, Transaction):
        actions = tuple(action for action in operation.actions if root_of(action.device) != name)
        return replace(step, operation=replace(operation, actions=actions), faults=faults) if actions else None
    device = getattr(operation, "device", None)
    if device is not None:
        return None if root_of(device) == name else replace(step, faults=faults)
    changes: dict[str, object] = {}
    if getattr(operation, "vmstate_device", None) == name:
        changes["vmstate_device"] = None
    listed: tuple[str, ...] | None = getattr(operation, "devices", None)
    if listed is not None:
        changes["devices"] = tuple(each for each in listed if root_of(each) != name)
    smaller = _changed(operation, **changes)
    return replace(step, operation=smaller, faults=faults)


def _with_simpler_devices(history: History) -> Iterator[History]:
    for at, spec in enumerate(history.setup.devices):
        for simpler in _simpler_device(spec):
            devices = (*history.setup.devices[:at], simpler, *history.setup.devices[at + 1 :])
            yield replace(history, setup=Setup(devices, history.setup.semantics))


def _simpler_device(spec: DeviceSpec) -> Iterator[DeviceSpec]:
    if spec.damage:  # it was done to this image and no other
        for index in range(len(spec.damage)):
            yield replace(spec, damage=(*spec.damage[:index], *spec.damage[index + 1 :]))
        return
    if spec.kind is not Kind.DRIVER:
        yield replace(spec, kind=Kind.DRIVER)
    if spec.snapshots:
        yield replace(spec, snapshots=())
        for index in range(len(spec.snapshots) if len(spec.snapshots) > 1 else 0):
            yield replace(spec, snapshots=(*spec.snapshots[:index], *spec.snapshots[index + 1 :]))
    if spec.read_only:
        yield replace(spec, read_only=False)
    if spec.unshared:
        yield replace(spec, unshared=False)
    if spec.packed:
        yield replace(spec, packed=False)
    if spec.unfinished:
        yield replace(spec, unfinished=None)
    if spec.tag:
        yield replace(spec, tag=0)
    if spec.sectors > _SECTORS_SMALL:
        yield replace(spec, sectors=_SECTORS_SMALL)
    if spec.cluster_bytes != _CLUSTER_PLAIN:
        yield replace(spec, cluster_bytes=_CLUSTER_PLAIN)


def _with_simpler_operations(history: History) -> Iterator[History]:
    for at, step in enumerate(history.steps):
        for simpler in _simpler_operation(step.operation):
            yield _with_step(history, at, replace(step, operation=simpler))


def _simpler_operation(operation: Operation) -> Iterator[Operation]:
    """Yield the operation with one of its fields at its plainest."""
    for spec in fields(operation):
        plain, now = _PLAIN.get(spec.name), getattr(operation, spec.name)
        if spec.name == "devices" and now is not None:
            yield _changed(operation, devices=None)
        elif (
            spec.name in _PLAIN
            and now != plain
            and not (spec.name == "vm_state_size" and isinstance(operation, SaveVm))
        ):
            yield _changed(operation, **{spec.name: plain})


_PLAIN: Final = {
    "sector": 0, "count": 1, "tag": 1, "vm_state_size": 0, "date_sec": 0, "date_nsec": 0, "vm_clock_nsec": 0,
    "offset": 0, "length": 1, "vmstate_device": None,
}  # fmt: skip
_CLUSTER_PLAIN: Final = 4096


def _with_plain_names(history: History) -> Iterator[History]:
    """Give one name another, plainer one, everywhere at once."""
    used = list(dict.fromkeys(_names(history)))
    for name in used:
        for plain in _PLAIN_NAMES:
            if plain == name:
                break
            if plain not in used:
                yield _renamed(history, name, plain)


_PLAIN_NAMES: Final = ("a", "b", "c")
_NAME_FIELDS: Final = ("name", "snapshot_id", "id_or_name")


def _names(history: History) -> Iterator[str]:
    for step in history.steps:
        parts = step.operation.actions if isinstance(step.operation, Transaction) else (step.operation,)
        for part in parts:
            name = getattr(part, "name", None)
            if isinstance(name, str):
                yield _listed(name)


def _renamed(history: History, old: str, new: str) -> History:
    steps = [replace(step, operation=_with_name(step.operation, old, new)) for step in history.steps]
    devices = tuple(
        replace(
            spec, snapshots=tuple(replace(sn, name=new) if _listed(sn.name) == old else sn for sn in spec.snapshots)
        )
        for spec in history.setup.devices
    )
    return replace(history, setup=Setup(devices, history.setup.semantics), steps=steps)


def _listed(name: str) -> str:
    return cut_text(name, bytes_max=NAME_BYTES_MAX)


def _with_name(operation: Operation, old: str, new: str) -> Operation:
    if isinstance(operation, Transaction):
        actions = tuple(replace(each, name=new) if _listed(each.name) == old else each for each in operation.actions)
        return replace(operation, actions=actions)
    texts = {name: getattr(operation, name, None) for name in _NAME_FIELDS}
    changes = {name: new for name, text in texts.items() if text is not None and _listed(text) == old}
    return _changed(operation, **changes)


def _changed(operation: Operation, **changes: object) -> Operation:
    """Return the operation with these of its fields changed."""
    return replace(operation, **changes) if changes else operation  # type: ignore[arg-type]  # fields that it has


def with_steps(history: History, steps: list[Step]) -> History:
    """Return a history of the same devices with these steps."""
    return replace(history, steps=steps)


def _with_step(history: History, at: int, step: Step) -> History:
    return replace(history, steps=[*history.steps[:at], step, *history.steps[at + 1 :]])


PASSES: Final = (
    without_devices, without_faults, _with_simpler_devices, _with_simpler_operations,
    _with_simpler_faults, _with_plain_purposes, _with_plain_names,
)  # fmt: skip
