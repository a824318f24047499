"""Where the sweep starts: a few small groups of devices, empty ones and such as have been at work."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from snapcheck.model.facts import root_of
from snapcheck.model.operations import (
    KINDS,
    AddBitmap,
    AllCreate,
    AllGoto,
    Create,
    LoadTmp,
    Operation,
    Resize,
    SaveVm,
    SnapshotAction,
    SubmitWrite,
    Transaction,
    VmstateWrite,
    Write,
    kind_of,
)
from snapcheck.model.setup import DeviceSpec, Kind, PreparedSnapshot, Semantics, Setup
from snapcheck.model.snapshot import NAME_BYTES_MAX
from snapcheck.stateful_tests.draw_setups import HAS_IMAGE

_SECTORS: Final = 16  # two clusters of 4096 bytes
_CLUSTER_SECTORS: Final = 8
_LARGER: Final = _SECTORS + _CLUSTER_SECTORS
_TAG: Final = 9
_LONGEST: Final = "n" * NAME_BYTES_MAX


@dataclass(frozen=True, slots=True)
class Start:
    """A setup, and what was done on it before anything is tried."""

    setup: Setup
    before: tuple[Operation, ...] = ()


def starting_points(
    *, devices_max: int, semantics: Semantics, prepared: bool, kinds: Sequence[str] | None = None
) -> tuple[Start, ...]:
    """Return where to start, the simplest first, on at most three devices.

    `prepared` says whether the driver opens qcow2 images that the harness prepared, `kinds` what the system performs:
    what it does not is left out.
    """
    usable = (point for point in _POINTS if prepared or not needs_images(point))
    able = (_fitted(point, devices_max, kinds) for point in usable)
    return tuple(dict.fromkeys(replace(each, setup=replace(each.setup, semantics=semantics)) for each in able))


def _fitted(point: Start, devices_max: int, kinds: Sequence[str] | None) -> Start:
    """Return a point with fewer devices, and with what a system that performs `kinds` can do on them."""
    left = point.setup.devices[:devices_max]
    names = {spec.name for spec in left}
    there = (each for each in point.before if root_of(getattr(each, "device", left[0].name)) in names)
    return performed(Start(replace(point.setup, devices=left), tuple(there)), kinds)


def performed(point: Start, kinds: Sequence[str] | None) -> Start:
    """Return a point with what a system that performs `kinds` can do in the place of what was done before."""
    if kinds is None:
        return point
    taken = (each for operation in point.before for each in _taken(operation, point.setup, kinds))
    return replace(point, before=tuple(each for each in taken if kind_of(each) in kinds))


def _taken(operation: Operation, setup: Setup, kinds: Sequence[str]) -> tuple[Operation, ...]:
    """Return what takes the same snapshots, but for VM state: the operation, savevm, a transaction, or creates."""
    if kind_of(operation) in kinds or not isinstance(operation, AllCreate | SaveVm | Create):
        return (operation,)
    name = operation.name or ""
    plain = isinstance(operation, Create) and not operation.vm_state_size
    if KINDS[SaveVm] in kinds and not plain:  # with VM state, or nobody could load it
        return (SaveVm(name),)
    if isinstance(operation, Create):
        devices = [operation.device]
    else:
        devices = [each.name for each in setup.devices if each.kind in HAS_IMAGE]
    if KINDS[Transaction] in kinds:
        return (Transaction(tuple(SnapshotAction(device, name) for device in devices)),)
    return tuple(Create(device, name) for device in devices)


def needs_images(point: Start) -> bool:
    """Tell whether images have to be prepared for it."""
    return any(spec.snapshots or spec.packed or spec.unshared or spec.unfinished for spec in point.setup.devices)


def _spec(number: int, kind: Kind = Kind.DRIVER, *, snapshots: tuple[PreparedSnapshot, ...] = ()) -> DeviceSpec:
    return DeviceSpec(f"d{number}", kind, sectors=_SECTORS, tag=_TAG, snapshots=snapshots)


def _group(*kinds: Kind) -> Setup:
    return Setup(tuple(_spec(number, kind) for number, kind in enumerate(kinds)))


def _overwritten(*devices: str) -> tuple[Operation, ...]:
    """Return writes after which a snapshot shares one cluster with the active state, and not the other.

    All with one tag: devices that are alike need not be tried one by one.
    """
    return tuple(Write(device, 0, _CLUSTER_SECTORS, 20) for device in devices)


def _image(snapshot_id: str, name: str, tag: int, *, sectors: int = _SECTORS) -> PreparedSnapshot:
    return PreparedSnapshot(snapshot_id, name, sectors=sectors, tag=tag, date_sec=1_600_000_000)


_CROSSED: Final = (_image("1", "2", 11), _image("2", "1", 12), _image("3", "a", 11))
_SAVED: Final = SaveVm("a", vm_state_size=4096)  # as much as a cluster
_PAIR: Final = (Kind.DRIVER, Kind.DRIVER)
_THREE: Final = (Kind.DRIVER, Kind.DRIVER, Kind.DRIVER)
_POINTS: Final = (
    # nothing on them
    Start(_group(*_PAIR)),
    # one snapshot everywhere
    Start(_group(*_THREE), (AllCreate("a"), *_overwritten("d0", "d1", "d2"))),
    # ids beyond 32 bits, taken at another size, larger and smaller, and names that are another's id; a size that ends
    # within a cluster, of which something was cut off; one of two snapshots shown by a device that is only read
    Start(
        Setup((
            _spec(0, snapshots=(_image("4294967297", "a", 11, sectors=_LARGER),)),
            _spec(1, snapshots=(_image("1", "2", 11), _image("2", "1", 12, sectors=_CLUSTER_SECTORS))),
            replace(_spec(2, snapshots=(_image("1", "a", 11), _image("2", "b", 12, sectors=_LARGER))), read_only=True),
        )),
        (Resize("d1", _SECTORS - 1), LoadTmp("d2", "1", None)),
    ),
    # two snapshots, one with VM state that ends with a cluster, and VM state that no snapshot holds
    Start(
        _group(*_PAIR),
        (_SAVED, *_overwritten("d0", "d1"), AllCreate("b"), *_overwritten("d1"), VmstateWrite("d1", 0, 765, 30)),
    ),
    # compressed clusters
    Start(
        Setup((
            replace(_spec(0), packed=True),
            replace(_spec(1, snapshots=(_image("1", "a", 11),)), packed=True),
        ))
    ),
    # a snapshot that the device in the middle has not, and one with a name that is as long as can be
    Start(
        _group(*_THREE),
        (Create("d0", "a"), Create("d1", "b"), Create("d2", "a"), Create("d0", _LONGEST), *_overwritten("d0", "d1")),
    ),
    # nodes over others
    Start(_group(Kind.RAW_OVER, Kind.FILTER_OVER, Kind.DRIVER), (AllCreate("a"), *_overwritten("d0", "d1", "d2"))),
    # dirty bitmaps: on a child, on a root over another, and on one that has the snapshots itself
    Start(
        _group(Kind.RAW_OVER, Kind.FILTER_OVER, Kind.DRIVER),
        (AllCreate("a"), AddBitmap("d0/file", "bm0"), AddBitmap("d1", "bm0"), AddBitmap("d2", "bm0")),
    ),
    # guest requests in flight
    Start(
        _group(*_PAIR),
        (AllCreate("a"), SubmitWrite("d0", 0, _CLUSTER_SECTORS, 30), SubmitWrite("d1", 0, _CLUSTER_SECTORS, 30)),
    ),
    # one that is left out, with names that are another's id, and one that refuses
    Start(
        Setup((
            _spec(0, snapshots=(_image("1", "a", 11),)),
            replace(_spec(1, snapshots=_CROSSED), read_only=True),
            DeviceSpec("d2", Kind.EMPTY),
        ))
    ),
    Start(_group(Kind.DRIVER, Kind.PLAIN, Kind.DRIVER)),
    # one in which nothing can be shared
    Start(Setup((_spec(0), replace(_spec(1), unshared=True), _spec(2)))),
    # three snapshots whose tables are not of one length, and back at the first: small clusters, another size, VM state
    # that takes more than one table of the second level
    Start(
        Setup((replace(_spec(0), sectors=64, cluster_bytes=512), _spec(1))),
        (AllCreate("a"), SaveVm("b", vm_state_size=33_000), Resize("d0", 72), AllCreate("c"), AllGoto("a")),
    ),
)  # fmt: skip
