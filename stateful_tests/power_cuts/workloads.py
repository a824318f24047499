"""What power cuts are tried on: images that are about to change in some way, and everything that changes them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from snapcheck.model.device import World
from snapcheck.model.errno import Errno
from snapcheck.model.operations import (
    KINDS,
    AllCreate,
    AllDelete,
    AllGoto,
    Create,
    Delete,
    DelVm,
    Discard,
    Flush,
    Goto,
    LoadVm,
    Operation,
    Reopen,
    Resize,
    SaveVm,
    SubmitWrite,
    Transaction,
    VmstateWrite,
    Write,
    WriteZeroes,
)
from snapcheck.model.setup import DeviceSpec, PreparedSnapshot, Semantics, Setup, Unfinished
from snapcheck.model.step import start as first_state
from snapcheck.stateful_tests.small_operations import expected, like_an_earlier_one, small_operations
from snapcheck.stateful_tests.starting_points import Start, needs_images, performed

_TAG: Final = 9
_GROUPS: Final = (AllCreate, AllGoto, AllDelete, LoadVm, DelVm, Transaction)
_CHANGES: Final = (
    Write, WriteZeroes, Discard, Flush, Resize, VmstateWrite, Create, Goto, Delete, SaveVm, Reopen, *_GROUPS,
)  # fmt: skip
CHANGING_KINDS: Final = tuple(KINDS[kind] for kind in _CHANGES)


# --- where they start -----------------------------------------------------------------------------
def _one(*before: Operation, sectors: int = 64, cluster_bytes: int = 512, tag: int = _TAG) -> Start:
    """Return one device on which `before` was done and flushed."""
    spec = DeviceSpec("d0", sectors=sectors, cluster_bytes=cluster_bytes, tag=tag)
    return Start(Setup((spec,)), (*before, Flush("d0")))


def _group(devices: int, *before: Operation) -> Start:
    specs = tuple(DeviceSpec(f"d{number}", sectors=16, cluster_bytes=512, tag=_TAG) for number in range(devices))
    return Start(Setup(specs), (*before, *(Flush(spec.name) for spec in specs)))


def _unfinished(what: Unfinished) -> Start:
    """Return a device that the first open has to put right: nothing was done to it since."""
    snapshot = PreparedSnapshot("1", "a", sectors=16, tag=20)
    spec = DeviceSpec("d0", sectors=16, cluster_bytes=512, tag=_TAG, snapshots=(snapshot,), unfinished=what)
    return Start(Setup((spec,)))


def _in_flight(point: Start) -> Start:
    """Return a point with a guest write in flight on each device, over clusters that snapshots share."""
    names = (spec.name for spec in point.setup.devices)
    return replace(point, before=(*point.before, *(SubmitWrite(name, 0, 4, 30) for name in names)))


def _many(count: int) -> Iterator[Operation]:
    for number in range(count):
        yield Write("d0", number, 1, 20 + number)
        yield Create("d0", f"s{number}")


_SHARED: Final = (Create("d0", "a"), Write("d0", 0, 8, 20), Create("d0", "b"), Write("d0", 32, 4, 21))
_SHARED_BY_ALL: Final = (AllCreate("a"), Write("d0", 0, 4, 20), Write("d1", 0, 4, 20))
# An L1 of two sectors, each with an entry that differs from that of a snapshot: half of one table is none of the two.
_BOTH_SECTORS: Final = (Write("d0", 4150, 2, 20), Create("d0", "a"), Write("d0", 0, 2, 30), Write("d0", 4150, 2, 31))
PAIRED: Final = "shared clusters"  # the image on which a write is followed by something else at once
# In words, the simplest first. With clusters of 512 bytes an L1 entry maps 32 KiB, a cluster has 64 of them, a block
# counts 256 clusters, and a table of one cluster has 64 blocks: 8 MiB.
STARTS: Final = (
    ("empty", _one(tag=0, sectors=16)),
    ("two devices", _group(2, *_SHARED_BY_ALL)),
    (PAIRED, _one(*_SHARED)),
    ("VM state", _one(VmstateWrite("d0", 0, 765, 30), Create("d0", "a", 765), Write("d0", 0, 8, 20), sectors=16)),
    ("counts written lazily", _unfinished(Unfinished.COUNTS)),
    ("an extension that is not known", _unfinished(Unfinished.EXTENSION)),
    ("writes in flight", _in_flight(_group(2, *_SHARED_BY_ALL))),
    ("refcount block about to grow", _one(sectors=246)),
    ("after a resize", _one(*_SHARED[:2], Resize("d0", 88), Write("d0", 80, 4, 22))),
    ("full L1", _one(Write("d0", 0, 2, 20), Create("d0", "a"), Write("d0", 4090, 2, 21), sectors=4096, tag=0)),
    ("L1 of more than a sector", _one(*_BOTH_SECTORS, sectors=4160, tag=0)),
    ("many snapshots", _one(*_many(8), sectors=16)),
    ("clusters of 64 KiB", _one(*_SHARED, sectors=256, cluster_bytes=65536)),
    ("three devices", _group(3, *_SHARED_BY_ALL, Write("d2", 0, 4, 20))),
    ("refcount table about to grow", _one(sectors=16054)),
)  # fmt: skip


def starts(
    *, devices_max: int, semantics: Semantics, prepared: bool = True, kinds: Sequence[str] | None = None,
    called: str | None = None,
) -> tuple[Start, ...]:  # fmt: skip
    """Return where workloads start, for groups of up to `devices_max`, on a system that performs `kinds`.

    `prepared` says whether the driver opens qcow2 images that the harness prepared, `called` which one is wanted.
    """
    usable = (start for name, start in STARTS if called in {None, name} and (prepared or not needs_images(start)))
    fit = (performed(start, kinds) for start in usable if len(start.setup.devices) <= devices_max)
    return tuple(replace(start, setup=replace(start.setup, semantics=semantics)) for start in fit)


# --- what is done ---------------------------------------------------------------------------------
class Workload:
    """A setup, what is done on it, and the state after that, as the model has it."""

    __slots__ = ("operations", "setup", "world")

    def __init__(self, setup: Setup, operations: tuple[Operation, ...] = (), world: World | None = None) -> None:
        self.setup = setup
        self.operations = operations
        self.world = first_state(setup) if world is None else world

    def then(self, operation: Operation) -> "Workload":
        """Return it with one operation more."""
        changed = {name: states[0].state for name, states in expected(self.world, operation).devices.items()}
        world = World({**self.world.devices, **changed}, self.world.semantics)
        return Workload(self.setup, (*self.operations, operation), world)

    def children(self, *, kinds: Sequence[str] | None = None) -> "Iterator[Workload]":
        """Yield it with one operation more that is worth a cut, on a system that performs `kinds`."""
        for operation in crash_operations(self.world, kinds=kinds):
            yield self.then(operation)


def sequences(points: Iterable[Start], length: int, *, kinds: Sequence[str] | None = None) -> Iterator[Workload]:
    """Yield all sequences of `length` operations from these points; those with one parent together."""
    if length:
        for parent in sequences(points, length - 1, kinds=kinds):
            yield from parent.children(kinds=kinds)
        return
    for point in points:
        workload = Workload(point.setup)
        for operation in point.before:
            workload = workload.then(operation)
        yield workload


def crash_operations(world: World, *, kinds: Sequence[str] | None = None) -> tuple[Operation, ...]:
    """Return the operations that are worth a cut in the state `world`: those that change something, each once.

    On several devices those of the group come first: no other start has them, and a short run may get no further.
    """
    group = len(world.devices) > 1
    every = [
        operation
        for operation in small_operations(world, kinds=kinds)
        if isinstance(operation, _CHANGES)
        and (group or not isinstance(operation, _GROUPS))
        and (isinstance(operation, Transaction) or _succeeds(world, operation))
    ]
    alike = like_an_earlier_one(world, every)
    once = (operation for operation in every if operation not in alike)
    return tuple(sorted(once, key=lambda operation: not isinstance(operation, _GROUPS)))


def _succeeds(world: World, operation: Operation) -> bool:
    errnos = expected(world, operation).expected.errnos
    return errnos is not None and Errno.OK in errnos
