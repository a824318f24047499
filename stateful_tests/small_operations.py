"""The alphabet in small ranges: every operation that is worth a try in a state, each parameter with a few values.

Where random drawing has its pick (draw_operations.py), the sweep takes all of these. Devices that are alike but for
their name count as one for operations on a single device; group operations take part of the group as it is.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain

from snapcheck.model.device import Device, Outcome, World
from snapcheck.model.errno import Errno
from snapcheck.model.facts import root_of
from snapcheck.model.operations import (
    AddBitmap,
    AllCanSnapshot,
    AllCreate,
    AllDelete,
    AllFind,
    AllFindVmstateBs,
    AllGoto,
    CanSnapshot,
    Create,
    Delete,
    DelVm,
    Discard,
    Find,
    FindByIdAndName,
    Flush,
    Goto,
    List,
    LoadTmp,
    LoadTmpByIdOrName,
    LoadVm,
    Operation,
    RemoveBitmap,
    Reopen,
    Resize,
    SaveVm,
    SetMedium,
    SetReadOnly,
    SnapshotAction,
    SubmitWrite,
    Transaction,
    VmstateRead,
    VmstateWrite,
    Write,
    WriteZeroes,
    kind_of,
)
from snapcheck.model.setup import Semantics
from snapcheck.model.step import step as allowed_by_model
from snapcheck.stateful_tests.draw_operations import listed_ids, listed_names, stored_alike
from snapcheck.stateful_tests.draw_setups import HAS_IMAGE

FRESH = "n"
OTHER = "m"
_BITMAP = "bm0"
_VMSTATE_BYTES = 765
_VMSTATE_PART = (511, 254)  # from where in a state, and how much of it
_TAG = 90
_CLUSTER_SECTORS = 8
_NAMES_MAX = 3


def small_operations(world: World, *, kinds: Sequence[str] | None = None) -> tuple[Operation, ...]:
    """Return the operations to try in the state `world`, each once (of `kinds`, as in Abilities.operations)."""
    local = chain.from_iterable(_on_device(name, device) for name, device in _different(world))
    every = dict.fromkeys(chain(_on_group(world), local))
    return tuple(operation for operation in every if kinds is None or kind_of(operation) in kinds)


def expected(world: World, operation: Operation) -> Outcome:
    """Return what the model expects of an operation that meets no fault."""
    return allowed_by_model(world, operation, ())[0]


def like_an_earlier_one(
    world: World, operations: Iterable[Operation], *, whatever_way: bool = True
) -> frozenset[Operation]:
    """Return the operations that do the same as an earlier one of their kind, such as a delete by id and by name.

    With `whatever_way` false the first one that goes a way of its own through a driver (`way_of`) is not among them: of
    those that end alike on whichever device each way has one.
    """
    done: set[tuple[type[Operation], str]] = set()
    gone: set[tuple[type[Operation], frozenset[Errno] | None, tuple[str, ...]]] = set()
    alike: set[Operation] = set()
    for operation in operations:
        outcome = expected(world, operation)
        does = type(operation), repr(outcome)
        goes = type(operation), outcome.expected.errnos, way_of(world, operation)
        if does in done and (whatever_way or goes in gone):
            alike.add(operation)
        done.add(does)
        gone.add(goes)
    return frozenset(alike)


def way_of(world: World, operation: Operation) -> tuple[str, ...]:
    """Return what sends operations that do the same through different code of a driver.

    These are: which of id and name is given, whether the one text of a goto or a load is an id, and whether the node
    is another one's child.
    """
    given: tuple[str, ...] = ()
    match operation:
        case Delete(_, snapshot_id, name) | FindByIdAndName(_, snapshot_id, name) | LoadTmp(_, snapshot_id, name):
            given = "id" * (snapshot_id is not None), "name" * (name is not None)
        case Goto(device, text) | LoadTmpByIdOrName(device, text):
            given = ("id" * (text in listed_ids(world.devices[root_of(device)])),)
        case _:
            pass
    node = str(getattr(operation, "device", ""))
    return ("child" * (root_of(node) != node), *given)


def _different(world: World) -> Iterator[tuple[str, Device]]:
    """Yield the devices that are not like an earlier one."""
    seen: list[Device] = []
    for name, device in world.devices.items():
        nameless = device._replace(spec=replace(device.spec, name=""))
        if nameless not in seen:
            seen.append(nameless)
            yield name, device


# --- one device -----------------------------------------------------------------------------------
def _on_device(name: str, device: Device) -> Iterator[Operation]:
    yield from _guest(name, device)
    yield from _snapshots(name, device)
    if device.spec.kind in HAS_IMAGE and f"{name}/file" in _nodes(name, device):
        yield from _snapshots(f"{name}/file", device)
    yield from _environment(name, device)


def _nodes(name: str, device: Device) -> tuple[str, ...]:
    return (name, f"{name}/file") if device.spec.kind.value.endswith("-over") else (name,)


def _guest(name: str, device: Device) -> Iterator[Operation]:
    sectors = device.spec.sectors if device.image is None else device.image.sectors
    part = min(_CLUSTER_SECTORS, sectors)
    yield Write(name, 0, 1, _TAG)
    if part:
        yield Write(name, sectors - part, part, _TAG)
        yield WriteZeroes(name, 0, part)
        for count in dict.fromkeys((part, sectors)):  # some of it, and all: then a table has nothing left to map
            yield Discard(name, 0, count)
        yield SubmitWrite(name, 0, part, _TAG)
        yield Resize(name, sectors - part)
    yield Flush(name)
    yield Resize(name, sectors + _CLUSTER_SECTORS)
    yield VmstateWrite(name, 0, _VMSTATE_BYTES, _TAG)
    yield VmstateRead(name, 0, _VMSTATE_BYTES)
    yield VmstateRead(name, *_VMSTATE_PART)


def _snapshots(node: str, device: Device) -> Iterator[Operation]:
    names, ids = listed_names(device)[:_NAMES_MAX], listed_ids(device)[:_NAMES_MAX]
    yield CanSnapshot(node)
    yield List(node)
    yield Create(node, FRESH)
    yield Create(node, FRESH, _VMSTATE_BYTES)
    for name in names[:1]:
        yield Create(node, name)
    for name in (*names[:1], *ids[:1], FRESH):
        yield Find(node, name)
        yield Delete(node, None, name)
    for text in (*ids, *names[:1], FRESH):
        yield Goto(node, text)
    for snapshot_id, name in [*zip(ids, names, strict=True)][-1:]:
        yield Delete(node, snapshot_id, None)
        yield Delete(node, snapshot_id, name)
        yield FindByIdAndName(node, snapshot_id, name)
        yield LoadTmp(node, snapshot_id, None)
        yield LoadTmpByIdOrName(node, name)
    for name in names[:2]:
        yield LoadTmp(node, None, name)
    yield FindByIdAndName(node, None, FRESH)
    yield Delete(node, "1", FRESH)
    yield LoadTmpByIdOrName(node, FRESH)


def _environment(name: str, device: Device) -> Iterator[Operation]:
    for node in _nodes(name, device):
        yield AddBitmap(node, _BITMAP)
        yield RemoveBitmap(node, _BITMAP)
    yield SetReadOnly(name, not device.read_only)
    yield SetMedium(name, not device.present)
    yield Reopen(name)


# --- the group ------------------------------------------------------------------------------------
def _on_group(world: World) -> Iterator[Operation]:
    walks: tuple[tuple[str, ...] | None, ...] = (None,)
    if world.semantics is Semantics.MODERN:
        walks = (None, tuple(world.devices)[-1:], ("nowhere",))
    for devices in walks:
        yield from _walks(world, devices)
    yield from _callers(world)


def _walks(world: World, devices: tuple[str, ...] | None) -> Iterator[Operation]:
    names = _group_names(world)
    yield AllCanSnapshot(devices)
    yield AllFindVmstateBs(devices=devices)
    for name in names:
        yield AllFind(name, devices)
        yield AllGoto(name, devices)
        yield AllDelete(name, devices)
    for name in (FRESH, *names[:1]):
        yield AllCreate(name, devices=devices)
    store = (world.included or tuple(world.devices))[-1]
    yield AllCreate(FRESH, store, _VMSTATE_BYTES, devices=devices)


def _group_names(world: World) -> tuple[str, ...]:
    """Return names that all have, that some have, that are an id, and that nobody has."""
    names = dict.fromkeys(name for device in world.devices.values() for name in listed_names(device))
    ids = dict.fromkeys(each for device in world.devices.values() for each in listed_ids(device))
    return tuple(dict.fromkeys((*[*names][:_NAMES_MAX], *[*ids][:1], FRESH)))


def _callers(world: World) -> Iterator[Operation]:
    names = _group_names(world)
    for name in dict.fromkeys((FRESH, *names[:1])):
        yield SaveVm(name, _TAG)
    for name in names:
        yield LoadVm(name)
        yield DelVm(name)
    roots = world.included or tuple(world.devices)
    for name in dict.fromkeys((FRESH, *stored_alike(world)[:1])):
        yield Transaction(tuple(SnapshotAction(root, name) for root in roots))
    for name in names[:1]:  # what is refused comes behind two snapshots of one device, which have to go again
        taken = (SnapshotAction(roots[0], FRESH), SnapshotAction(roots[0], OTHER))
        yield Transaction((*taken, *(SnapshotAction(root, name) for root in roots)))
