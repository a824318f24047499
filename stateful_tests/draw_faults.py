"""Drawing the faults of a step: aimed at what its operation is going to do, so that most of them are really met.

For that it is worked out, roughly, which devices an operation reaches and which driver functions it calls there
(SPEC A.1 to A.10, C). Being wrong here costs a fault that strikes nothing, never a wrong verdict.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from itertools import chain
from typing import Final, NamedTuple

from snapcheck.model.device import Device, World
from snapcheck.model.errno import Errno
from snapcheck.model.faults import (
    BitFlip,
    CallFault,
    Delay,
    DropsUnflushed,
    Effect,
    Fails,
    Fault,
    Fill,
    IoFault,
    LandsButFails,
    Lost,
    Misdirected,
    Short,
    Torn,
)
from snapcheck.model.operations import (
    OPERATIONS,
    AllCanSnapshot,
    AllCreate,
    AllDelete,
    AllFind,
    AllFindVmstateBs,
    AllGoto,
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
    Reopen,
    Resize,
    SaveVm,
    SetMedium,
    SetReadOnly,
    Transaction,
    VmstateRead,
    VmstateWrite,
    Write,
    WriteZeroes,
)
from snapcheck.model.setup import Kind
from snapcheck.stateful_tests.cells import fault_word
from snapcheck.stateful_tests.chooser import Chooser, pick, weighted
from snapcheck.stateful_tests.draw_operations import device_of, listed_names
from snapcheck.stateful_tests.draw_setups import HAS_IMAGE

ERRNOS: Final = weighted(
    (4, Errno.EIO), (4, Errno.ENOSPC), (2, Errno.EPERM), (2, Errno.ENOMEM), (1, Errno.EACCES), (2, Errno.EROFS),
    (2, Errno.ENOMEDIUM), (2, Errno.ETIMEDOUT), (1, Errno.EAGAIN), (1, Errno.ENOENT), (1, Errno.EINVAL),
    (1, Errno.EBUSY), (1, Errno.ENOTSUP), (1, Errno.EFBIG), (1, Errno.EEXIST), (1, Errno.ERANGE),
)  # fmt: skip
_AT: Final = weighted((20, 1), (11, 2), (6, 3), (4, 4), (3, 5), (2, 6), *((1, at) for at in range(7, 25)))
_AT_OF_FEW: Final = (1, 1, 1, 2, 2, 3)  # flushes, discards and truncates are few
_FEW: Final = frozenset({"flush", "discard", "truncate"})
_CALL_COUNTS: Final = weighted((12, (1, 1)), (4, (1, 0)), (1, (1, 2)), (1, (2, 1)))  # (at, times)


class Targets(NamedTuple):
    """What faults can be aimed at: the functions that are called, by device, and the devices that do I/O."""

    calls: Mapping[str, tuple[str, ...]]
    io: tuple[str, ...]


class _Blow(NamedTuple):
    """What an I/O fault does to which kind of I/O; `effect` takes an errno, or is ready as it is."""

    kind: str
    effect: Callable[[Errno], Effect] | Effect
    times: int | None = None  # None: to be drawn


def _short(sectors: int) -> Callable[[Errno], Effect]:
    return lambda errno: Short(sectors, errno)


_ERRORS: Final = weighted(
    (6, _Blow("write", Fails)), (6, _Blow("any", Fails)), (2, _Blow("read", Fails)), (4, _Blow("flush", Fails)),
    (3, _Blow("discard", Fails)), (5, _Blow("truncate", Fails)),
    (2, _Blow("write", LandsButFails)), (1, _Blow("flush", LandsButFails)), (1, _Blow("any", LandsButFails)),
    *((1, _Blow("write", _short(sectors))) for sectors in (0, 1, 2, 3)),
    (2, _Blow("any", Fails(Errno.ENOMEDIUM), 0)),  # the medium vanishes
    (2, _Blow("write", Fails(Errno.EROFS), 0)),  # it turns read-only
)  # fmt: skip
_DAMAGES: Final = weighted(
    *((1, _Blow("write", Torn(sectors))) for sectors in (1, 0, 2)),
    (2, _Blow("write", Lost())), (1, _Blow("discard", Lost())), (1, _Blow("truncate", Lost())),
    (1, _Blow("any", Lost())),
    *((1, _Blow("write", Misdirected(sectors))) for sectors in (1, -1, 8)),
    *((1, _Blow("read", BitFlip(bit))) for bit in (0, 63, 1000)),
    *((1, _Blow("write", BitFlip(bit))) for bit in (0, 63, 1000)),
    (1, _Blow("write", Fill())), (1, _Blow("write", Fill(garbage=True))), (3, _Blow("flush", DropsUnflushed)),
)  # fmt: skip
_DELAYS: Final = (_Blow("any", Delay(1_000_000)), _Blow("flush", Delay(10**10)), _Blow("any", Delay(10**9), 0))
_READS: Final = (VmstateRead, LoadTmp, LoadTmpByIdOrName)  # these write nothing that could be struck
_DISCARDS: Final = (Discard, Delete, AllDelete, DelVm)


def _is_aimed(blow: _Blow, operation: type[Operation]) -> bool:
    """Tell whether an operation does I/O of the kind that the blow strikes, as far as any driver does."""
    if operation in _READS:
        return blow.kind == "read" or (blow.kind == "any" and blow.effect != Lost())
    if blow.kind == "truncate":
        return operation is Resize
    return blow.kind != "discard" or operation in _DISCARDS


_BLOWS: Final[Mapping[type[Operation], Mapping[str, tuple[_Blow, ...]]]] = {
    operation: {
        word: tuple(blow for blow in blows if _is_aimed(blow, operation))
        for word, blows in (("error", _ERRORS), ("damage", _DAMAGES), ("delay", _DELAYS))
    }
    for operation in OPERATIONS
}

# How a step is hit, one word for each fault. The first entry is where shrinking ends.
_GROUP_SHAPES: Final = weighted(
    (5, ()), (53, ("call",)), (31, ("error",)), (4, ("call", "call")), (2, ("call", "error")), (1, ("error", "error")),
    (2, ("damage",)), (1, ("delay",)),
)  # fmt: skip
_SNAPSHOT_SHAPES: Final = weighted(
    (50, ()), (12, ("call",)), (32, ("error",)), (1, ("call", "error")), (2, ("error", "error")), (1, ("damage",)),
    (1, ("delay",)),
)  # fmt: skip
_GUEST_SHAPES: Final = weighted((80, ()), (17, ("error",)), (1, ("damage",)), (1, ("delay",)))
_GROUPS: Final = (AllFind, AllCreate, AllGoto, AllDelete, SaveVm, LoadVm, DelVm, Transaction)
_GUEST: Final = (
    Write, WriteZeroes, Discard, Flush, Resize, VmstateWrite, VmstateRead, Reopen, SetReadOnly, SetMedium,
)  # fmt: skip


def draw_faults(
    chooser: Chooser, world: World, operation: Operation, *, regions: tuple[str, ...] = ()
) -> tuple[Fault, ...]:
    """Draw the faults that `operation` is to meet in the state `world`; mostly none or one.

    `regions` are the names that the driver gives to parts of its image (model.faults.REGIONS, or none of them).
    """
    targets = targets_of(world, operation)
    if not targets.calls and not targets.io:
        return ()
    shape = pick(chooser, _shapes(operation))
    blows = _BLOWS[type(operation)]
    faults: list[Fault] = []
    for word in shape:
        if (word == "call" and targets.calls) or not targets.io:
            faults.append(_draw_call_fault(chooser, targets))
        else:  # once a device is damaged, damaging it again costs no law
            damaged = tuple(name for name in targets.io if world.devices[name].damaged) if word == "damage" else ()
            blow = blows["error" if word == "call" else word]
            faults.append(_draw_io_fault(chooser, damaged or targets.io, blow, regions))
    return tuple(faults)


def _shapes(operation: Operation) -> tuple[tuple[str, ...], ...]:
    if isinstance(operation, _GROUPS):
        return _GROUP_SHAPES
    return _GUEST_SHAPES if isinstance(operation, _GUEST) else _SNAPSHOT_SHAPES


def _draw_call_fault(chooser: Chooser, targets: Targets) -> CallFault:
    device = pick(chooser, tuple(targets.calls))
    function = pick(chooser, targets.calls[device])
    errno = pick(chooser, ERRNOS)
    at, times = pick(chooser, _CALL_COUNTS)
    return CallFault(device, function, at, times, errno)


def _draw_io_fault(
    chooser: Chooser, devices: tuple[str, ...], blows: tuple[_Blow, ...], regions: tuple[str, ...]
) -> IoFault:
    device, blow = pick(chooser, devices), pick(chooser, blows)
    effect = blow.effect(pick(chooser, ERRNOS)) if callable(blow.effect) else blow.effect
    at = pick(chooser, _AT_OF_FEW if blow.kind in _FEW else _AT)
    if blow.times is not None:
        return IoFault(device, blow.kind, effect, at=at, times=blow.times)
    times, region = pick(chooser, _spread(() if blow.kind in {"flush", "truncate"} else regions))
    return IoFault(device, blow.kind, effect, region, at, times)


@lru_cache(maxsize=64)
def _spread(regions: tuple[str, ...]) -> tuple[tuple[int, str], ...]:
    """Return (times, region): once, from then on, or twice; anywhere, or in one region only."""
    anywhere = [(1, "")] * 10 + [(0, "")] * 6 + [(2, "")] * 2
    return (*anywhere, *((1, region) for region in regions), *((0, region) for region in regions[:4]))


# --- what an operation is going to do -------------------------------------------------------------
_LOCAL_CALLS: Final[Mapping[type[Operation], str]] = {
    Find: "find", FindByIdAndName: "list", List: "list", Create: "create", Goto: "goto", Delete: "delete",
    LoadTmp: "load_tmp", LoadTmpByIdOrName: "load_tmp",
}  # fmt: skip
_IN_MEMORY: Final = frozenset({"find", "list"})  # these read no image


class _Visit(NamedTuple):
    """What a group operation calls on a device that has the snapshot, and on one that has not; where it goes on."""

    there: tuple[str, ...]
    absent: tuple[str, ...]
    on_if_there: bool = True
    on_if_absent: bool = True


_VISITS: Final[Mapping[type[Operation], _Visit]] = {
    AllFind: _Visit(("find",), ("find",), on_if_absent=False),
    AllCreate: _Visit(("create",), ("create",)),
    AllGoto: _Visit(("goto",), ("goto",), on_if_absent=False),
    AllDelete: _Visit(("find", "delete"), ("find",)),
    DelVm: _Visit(("find", "delete"), ("find",)),
    SaveVm: _Visit(("find", "delete", "create"), ("find", "create")),
    LoadVm: _Visit(("find", "goto"), ("find",), on_if_absent=False),
    Transaction: _Visit(("list",), ("list", "create", "delete"), on_if_there=False),
}


def targets_of(world: World, operation: Operation) -> Targets:
    """Return what the faults of `operation` can be aimed at."""
    if isinstance(operation, _GROUPS):
        return _group_targets(world, operation)
    if isinstance(operation, AllCanSnapshot | AllFindVmstateBs):
        return Targets({}, ())  # these look at nodes and call no driver
    if isinstance(operation, SetMedium):
        return Targets({}, (operation.device,) if world.devices[operation.device].spec.kind is not Kind.EMPTY else ())
    function = _LOCAL_CALLS.get(type(operation))
    if function is not None or isinstance(operation, _GUEST):
        return _local(world, operation.device, function or "", io=function not in _IN_MEMORY)
    return Targets({}, ())


def _local(world: World, node: str, function: str, *, io: bool) -> Targets:
    name, device = node.partition("/")[0], device_of(world, node)
    if not device.present or device.spec.kind is Kind.EMPTY:
        return Targets({}, ())
    calls = {name: (function,)} if function and device.spec.kind in HAS_IMAGE else {}
    return Targets(calls, (name,) if io else ())


def _group_targets(world: World, operation: Operation) -> Targets:
    walk = _walk(world, operation)
    if isinstance(operation, SaveVm | LoadVm) and not all(world.devices[n].spec.kind in HAS_IMAGE for n in walk):
        return Targets({}, ())  # all_can_snapshot refuses
    calls: dict[str, tuple[str, ...]] = {}
    for name in walk:
        functions, goes_on = _visit(operation, world.devices[name])
        if functions:
            calls[name] = functions
        if not goes_on:
            if isinstance(operation, LoadVm):
                calls = dict.fromkeys(calls, ("find",))  # nothing is reverted unless all have it
            break
    return Targets(calls, tuple(name for name, functions in calls.items() if not _IN_MEMORY.issuperset(functions)))


def _walk(world: World, operation: Operation) -> tuple[str, ...]:
    """Return the devices that a group operation visits, in order."""
    if isinstance(operation, Transaction):
        return tuple(dict.fromkeys(action.device for action in operation.actions))
    listed = operation.devices if isinstance(operation, AllFind | AllCreate | AllGoto | AllDelete) else None
    if listed is None:
        return world.included
    roots = [node.partition("/")[0] for node in listed]
    return tuple(root for root in roots if root in world.devices)


def _visit(operation: Operation, device: Device) -> tuple[tuple[str, ...], bool]:
    """Return the driver functions that a group operation calls on `device`, and whether it goes on from there."""
    if device.spec.kind not in HAS_IMAGE or not device.present:
        return (), isinstance(operation, AllDelete | DelVm)  # find fails there, and they skip it
    if isinstance(operation, AllGoto) and device.bitmaps:
        return (), False  # EBUSY before the driver is asked
    visit = _VISITS[type(operation)]
    if _name_of(operation) in listed_names(device):
        return visit.there, visit.on_if_there
    return visit.absent, visit.on_if_absent


def _name_of(operation: Operation) -> str | None:
    match operation:
        case Transaction(actions=actions):
            return actions[0].name
        case AllFind(name=name) | AllCreate(name=name) | AllGoto(name=name) | AllDelete(name=name):
            return name
        case SaveVm(name=name) | LoadVm(name=name) | DelVm(name=name):
            return name
        case _:
            return None


# --- what can be drawn at all -----------------------------------------------------------------------
def fault_words(operation: type[Operation]) -> tuple[str, ...]:
    """Return the words (`fault_word`) of all faults that can be drawn for an operation: columns of the matrix."""
    if operation in (AllCanSnapshot, AllFindVmstateBs):
        return ()
    function = _LOCAL_CALLS.get(operation)
    visit = _VISITS.get(operation)
    calls = set(visit.there + visit.absent) if visit else {function} if function else set[str]()
    faults: list[Fault] = [CallFault("", call) for call in sorted(calls)]
    if operation in _GUEST or calls - _IN_MEMORY:
        faults += [
            IoFault("", blow.kind, blow.effect(Errno.EIO) if callable(blow.effect) else blow.effect)
            for blow in chain.from_iterable(_BLOWS[operation].values())
        ]
    return tuple(dict.fromkeys(map(fault_word, faults)))
