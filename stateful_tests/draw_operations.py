"""Drawing an operation for the state that a history is in: the whole alphabet, aimed at what is there.

Names and ids are mostly those of snapshots that exist, ranges mostly lie inside the device, and what takes a device
out of the group (read-only, no medium) is undone soon, so that groups have several members most of the time.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import chain
from typing import Final

from snapcheck.model.content import TAG_MAX
from snapcheck.model.device import Device, World
from snapcheck.model.operations import (
    KINDS,
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
)
from snapcheck.model.setup import Kind, Semantics
from snapcheck.model.snapshot import ID_BYTES_MAX, NAME_BYTES_MAX, cut_text
from snapcheck.stateful_tests.chooser import CHOICES_MAX, Chooser, pick, weighted
from snapcheck.stateful_tests.draw_setups import HAS_IMAGE

NAMES: Final = ("a", "b", "s0", "1", "2", "", "\u00e9t\u00e9", "-x", "<script>", "n" * 255, "n" * 256, "\u00e9" * 128)
_NEW_NAMES: Final = ("a", "a", "a", "b", "b", "s0", "s0", *NAMES)
_TAGS: Final = tuple(range(1, 97))
_CLOCKS: Final = (  # (date_sec, date_nsec, vm_clock_nsec)
    (0, 0, 0), (1_700_000_000, 123_456_789, 987_654_321_000), (2**32 - 1, 999_999_999, 2**63 - 1),
)  # fmt: skip
_VMSTATE_CHUNKS: Final = (  # (offset, length) in bytes; most straddle a sector or a cluster, or end with one
    (0, 100), (100, 665), (0, 765), (765, 1), (511, 2), (513, 1000), (4095, 2), (1, 4096), (0, 5000),
    (0, 4096), (1000, 24), (32_700, 100),  # the last goes beyond what one table of a cluster of 512 bytes maps
)  # fmt: skip
_VMSTATE_SIZES: Final = (765, 765, 765, 0, 100, 1, 4097, 4096, 512)
_FULL: Final = 1 << 30
_RANGES: Final = tuple(  # (quarter of the device, sectors from there, length): cut to what the device has
    (quarter, delta, length)
    for length in (1, 8, 3, 16, _FULL)
    for quarter, delta in ((0, 0), (0, 1), (1, 0), (2, -1), (2, 0), (3, 3), (4, -8), (4, -1))
)
_OUTSIDE: Final = 2  # further choices: the last sector and one more, the sector behind the end
_SECTORS_MAX: Final = 256

Build = Callable[[Chooser, World], Operation]


def draw_operation(chooser: Chooser, world: World, *, kinds: Sequence[str] | None = None) -> Operation:
    """Draw one operation of the alphabet (of `kinds` only, as in Abilities.operations) for the state `world`."""
    read_only = absent = busy = False
    for device in world.devices.values():
        read_only = read_only or device.read_only
        absent = absent or not (device.present or device.spec.kind is Kind.EMPTY)
        busy = busy or bool(device.bitmaps or device.child_bitmaps)
    builders = _builders(None if kinds is None else tuple(kinds), read_only=read_only, absent=absent, busy=busy)
    return pick(chooser, builders)(chooser, world)


@lru_cache(maxsize=64)
def _builders(kinds: tuple[str, ...] | None, *, read_only: bool, absent: bool, busy: bool) -> tuple[Build, ...]:
    """Return the table to choose from.

    Where a device is out of the group, what brings it back comes up more often; where there is a dirty bitmap, what it
    forbids, as the next close look takes it away.
    """
    extra = (_WHEN_ABSENT if absent else (), _WHEN_READ_ONLY if read_only else (), _WHEN_BUSY if busy else ())
    alphabet = (*_ALPHABET, *chain.from_iterable(extra))[:CHOICES_MAX]
    table = tuple(build for operation, build in alphabet if kinds is None or KINDS[operation] in kinds)
    if not table:
        raise ValueError(f"no operation is left of the alphabet: the system performs only {kinds}")
    return table


# --- what is there --------------------------------------------------------------------------------
def listed_names(device: Device) -> list[str]:
    """Return the names of the device's snapshots as the API lists them."""
    if device.image is None:
        return []
    return [cut_text(snapshot.info.name, bytes_max=NAME_BYTES_MAX) for snapshot in device.image.snapshots]


def listed_ids(device: Device) -> list[str]:
    """Return the ids of the device's snapshots as the API lists them."""
    if device.image is None:
        return []
    return [cut_text(snapshot.info.id_str, bytes_max=ID_BYTES_MAX) for snapshot in device.image.snapshots]


def device_of(world: World, node: str) -> Device:
    """Return the device that `node` (a root node or a child) belongs to."""
    return world.devices[node.partition("/")[0]]


def _root(chooser: Chooser, world: World) -> str:
    return pick(chooser, tuple(world.devices))


def _nodes(world: World) -> list[str]:
    """Return the root nodes, twice, and the children."""
    children = [
        f"{name}/file"
        for name, device in world.devices.items()
        if device.spec.kind in HAS_IMAGE and device.spec.kind is not Kind.DRIVER
    ]
    return [*world.devices, *world.devices, *children]


def _node(chooser: Chooser, world: World) -> str:
    return pick(chooser, [*_nodes(world), *_delicate(world)])


def _delicate(world: World) -> list[str]:
    """Return the nodes on which a snapshot call meets a dirty bitmap or a guest request in flight, several times."""
    nodes: list[str] = []
    for name, device in world.devices.items():
        if device.bitmaps or device.in_flight:
            nodes += [name] * 4
        if device.child_bitmaps:
            nodes += [f"{name}/file"] * 4
    return nodes


def _mostly(likely: Sequence[str], *others: Sequence[str]) -> list[str]:
    """Return a table in which three of four entries are from `likely`, if there are any."""
    rest = [entry for entries in others for entry in entries[:12]]
    several = list(likely[:12])
    times = -(-3 * len(rest) // len(several)) if several else 0
    return [*several * times, *rest][:CHOICES_MAX]


def _known_name(chooser: Chooser, device: Device) -> str:
    return pick(chooser, _mostly(listed_names(device), listed_ids(device), NAMES[:8]))


def _id_or_name(chooser: Chooser, device: Device) -> str:
    return pick(chooser, _mostly([*listed_ids(device), *listed_names(device)], NAMES[:8]))


def _repeated(names: Sequence[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]


def _id_and_name(chooser: Chooser, device: Device, *, neither: bool) -> tuple[str | None, str | None]:
    pairs: list[tuple[str | None, str | None]] = []
    pairs += [(None, name) for name in _repeated(listed_names(device))[:2]] * 4
    for snapshot_id, name in list(zip(listed_ids(device), listed_names(device), strict=True))[:8]:
        pairs += [(snapshot_id, name), (snapshot_id, None), (None, name)] * 2
    pairs += [(None, "a"), ("1", None), ("1", "b"), ("", ""), (None, "")]
    return pick(chooser, [*pairs, (None, None)] if neither else pairs)


def _new_names(world: World) -> list[str]:
    """Return names to be given: fresh, taken already, or the id of a snapshot."""
    ids = [snapshot_id for device in world.devices.values() for snapshot_id in listed_ids(device)[:2]]
    return [*_fresh(world), *_NEW_NAMES, *ids, *stored_alike(world) * 4]


def stored_alike(world: World) -> list[str]:
    """Return a name for each of the longest that are there, which is another one and is stored as that (W-13)."""
    names = dict.fromkeys(name for device in world.devices.values() for name in listed_names(device))
    return [f"{name}-" for name in names if len(name.encode("utf-8", "surrogateescape")) == NAME_BYTES_MAX][:2]


def _fresh(world: World) -> list[str]:
    taken = {name for device in world.devices.values() for name in listed_names(device)}
    return [name for name in ("a", "b", "s0", "t1", "t2", "t3", f"u{len(taken)}") if name not in taken][:3]


def _group_name(chooser: Chooser, world: World) -> str:
    """Choose a name for a whole group: mostly one that all of its members have."""
    lists = [listed_names(world.devices[name]) for name in world.included]
    everywhere = [name for name in dict.fromkeys(lists[0]) if all(name in names for names in lists)] if lists else []
    somewhere = list(dict.fromkeys(name for names in lists for name in names))
    return pick(chooser, _mostly(everywhere, somewhere[:6], NAMES[:6]))


def _device_list(chooser: Chooser, world: World) -> tuple[str, ...] | None:
    """Choose the list of a modern group operation; the other profiles have none."""
    if world.semantics is not Semantics.MODERN:
        return None
    roots, members = tuple(world.devices), world.included
    lists = (members, roots[:1], roots[-1:], roots[::-1], roots[:1] * 2, tuple(_nodes(world)[len(roots) :]))
    return pick(chooser, (*(None,) * 8, *lists, (), ("nowhere",)))


# --- guest I/O ------------------------------------------------------------------------------------
def _sectors(device: Device) -> int:
    return device.spec.sectors if device.image is None else device.image.sectors


def _range(chooser: Chooser, device: Device) -> tuple[int, int]:
    """Choose (sector, count): inside the device but for two choices, which straddle its end and lie behind it."""
    sectors, choice = _sectors(device), chooser.index(len(_RANGES) + _OUTSIDE)
    if choice >= len(_RANGES) or sectors == 0:
        return max(0, sectors - (choice & 1)), 2
    quarter, delta, length = _RANGES[choice]
    sector = min(max(0, sectors * quarter // 4 + delta), sectors - 1)
    return sector, min(length, sectors - sector)


def _write(chooser: Chooser, world: World) -> Operation:
    name = _root(chooser, world)
    return Write(name, *_range(chooser, world.devices[name]), tag=pick(chooser, _TAGS))


def _submit_write(chooser: Chooser, world: World) -> Operation:
    name = _root(chooser, world)
    return SubmitWrite(name, *_range(chooser, world.devices[name]), tag=pick(chooser, _TAGS))


def _write_zeroes(chooser: Chooser, world: World) -> Operation:
    name = _root(chooser, world)
    return WriteZeroes(name, *_range(chooser, world.devices[name]))


def _discard(chooser: Chooser, world: World) -> Operation:
    name = _root(chooser, world)
    return Discard(name, *_range(chooser, world.devices[name]))


def _flush(chooser: Chooser, world: World) -> Operation:
    return Flush(_root(chooser, world))


def _resize(chooser: Chooser, world: World) -> Operation:
    name = _root(chooser, world)
    now = _sectors(world.devices[name])
    sizes = (
        now,
        now + 8,
        now - 8,
        now + 1,
        now - 1,
        2 * now,
        now // 2,
        16,
        64,
        128,
        world.devices[name].spec.sectors,
        0,
    )
    return Resize(name, min(max(0, pick(chooser, sizes)), _SECTORS_MAX))


def _vmstate_write(chooser: Chooser, world: World) -> Operation:
    name = _root(chooser, world)
    return VmstateWrite(name, *pick(chooser, _VMSTATE_CHUNKS), tag=pick(chooser, _TAGS))


def _vmstate_read(chooser: Chooser, world: World) -> Operation:
    return VmstateRead(_root(chooser, world), *pick(chooser, _VMSTATE_CHUNKS))


# --- snapshot calls on one device -----------------------------------------------------------------
def _can_snapshot(chooser: Chooser, world: World) -> Operation:
    return CanSnapshot(_node(chooser, world))


def _find(chooser: Chooser, world: World) -> Operation:
    node = _node(chooser, world)
    return Find(node, _known_name(chooser, device_of(world, node)))


def _find_by_id_and_name(chooser: Chooser, world: World) -> Operation:
    node = _node(chooser, world)
    return FindByIdAndName(node, *_id_and_name(chooser, device_of(world, node), neither=False))


def _create(chooser: Chooser, world: World) -> Operation:
    node = _node(chooser, world)
    image = device_of(world, node).image
    written = len(image.vmstate or b"") if image else 0
    size = pick(chooser, (0, 0, 0, written, written, 765, 100, 65_537))
    return Create(node, pick(chooser, _new_names(world)), size, *pick(chooser, _CLOCKS))


def _goto(chooser: Chooser, world: World) -> Operation:
    node = _node(chooser, world)
    return Goto(node, _id_or_name(chooser, device_of(world, node)))


def _delete(chooser: Chooser, world: World) -> Operation:
    node = _node(chooser, world)
    return Delete(node, *_id_and_name(chooser, device_of(world, node), neither=True))


def _list(chooser: Chooser, world: World) -> Operation:
    return List(_node(chooser, world))


def _read_only_node(chooser: Chooser, world: World) -> str:
    """Choose a node for load_tmp, which works on read-only ones."""
    nodes = _nodes(world)
    return pick(chooser, [*[node for node in nodes if device_of(world, node).read_only] * 4, *nodes])


def _load_tmp(chooser: Chooser, world: World) -> Operation:
    node = _read_only_node(chooser, world)
    return LoadTmp(node, *_id_and_name(chooser, device_of(world, node), neither=True))


def _load_tmp_by_id_or_name(chooser: Chooser, world: World) -> Operation:
    node = _read_only_node(chooser, world)
    return LoadTmpByIdOrName(node, _id_or_name(chooser, device_of(world, node)))


# --- group operations and callers -----------------------------------------------------------------
def _all_can_snapshot(chooser: Chooser, world: World) -> Operation:
    return AllCanSnapshot(_device_list(chooser, world))


def _all_find(chooser: Chooser, world: World) -> Operation:
    return AllFind(_group_name(chooser, world), _device_list(chooser, world))


def _all_create(chooser: Chooser, world: World) -> Operation:
    name = pick(chooser, _new_names(world))
    members = world.included
    nowhere: tuple[str | None, int] = (None, 0)
    stores = [(device, size) for device in (*members[:1] * 4, *world.devices) for size in (765, 100)]
    device, size = pick(chooser, [*[nowhere] * 4, *stores])
    return AllCreate(name, device, size, *pick(chooser, _CLOCKS), devices=_device_list(chooser, world))


def _all_goto(chooser: Chooser, world: World) -> Operation:
    return AllGoto(_group_name(chooser, world), _device_list(chooser, world))


def _all_delete(chooser: Chooser, world: World) -> Operation:
    return AllDelete(_group_name(chooser, world), _device_list(chooser, world))


def _all_find_vmstate_bs(chooser: Chooser, world: World) -> Operation:
    if world.semantics is not Semantics.MODERN:
        return AllFindVmstateBs()
    asked = pick(chooser, (None, None, None, *world.devices, "nowhere"))
    return AllFindVmstateBs(asked, _device_list(chooser, world))


def _save_vm(chooser: Chooser, world: World) -> Operation:
    name = pick(chooser, [*_new_names(world), None, None])
    return SaveVm(name, pick(chooser, _TAGS), pick(chooser, _VMSTATE_SIZES), *pick(chooser, _CLOCKS))


def _load_vm(chooser: Chooser, world: World) -> Operation:
    return LoadVm(_group_name(chooser, world))


def _del_vm(chooser: Chooser, world: World) -> Operation:
    return DelVm(_group_name(chooser, world))


def _transaction(chooser: Chooser, world: World) -> Operation:
    roots, members = tuple(world.devices), world.included or tuple(world.devices)
    lists = (members, members, members, members[::-1], roots, members[:1] * 2, roots[-1:], members[:1] * 2 + members)
    devices = pick(chooser, lists)
    names = [pick(chooser, [*_fresh(world) * 3, *_NEW_NAMES])]
    if len(set(devices)) < len(devices):  # two names on one device, so that both are created there
        names = pick(chooser, (names, [f"u{at}" for at in range(len(devices) - 1)] + names))
    actions = tuple(SnapshotAction(device, names[at % len(names)]) for at, device in enumerate(devices))
    return Transaction(actions, *pick(chooser, _CLOCKS))


# --- the environment ------------------------------------------------------------------------------
def _add_bitmap(chooser: Chooser, world: World) -> Operation:
    nodes = _nodes(world)[len(world.devices) :]  # roots and children alike
    return AddBitmap(pick(chooser, nodes), pick(chooser, ("bm0", "bm1")))


def _remove_bitmap(chooser: Chooser, world: World) -> Operation:
    there = [(name, bitmap) for name, device in world.devices.items() for bitmap in sorted(device.bitmaps)]
    there += [
        (f"{name}/file", bitmap) for name, device in world.devices.items() for bitmap in sorted(device.child_bitmaps)
    ]
    return RemoveBitmap(*pick(chooser, [*there[:20] * 4, *((name, "bm0") for name in world.devices)]))


def _set_read_only(chooser: Chooser, world: World) -> Operation:
    table = [(next(iter(world.devices)), False)]  # often what it is already
    for name, device in world.devices.items():
        table += [(name, False)] * 8 if device.read_only else [(name, True)]
    return SetReadOnly(*pick(chooser, table))


def _set_medium(chooser: Chooser, world: World) -> Operation:
    table = [(next(iter(world.devices)), True)]  # often what it is already
    for name, device in world.devices.items():
        gone = not device.present and device.spec.kind is not Kind.EMPTY
        table += [(name, True)] * 8 if gone else [(name, False)]
    return SetMedium(*pick(chooser, table))


def _reopen(chooser: Chooser, world: World) -> Operation:
    return Reopen(_root(chooser, world))


_ALPHABET: Final[tuple[tuple[type[Operation], Build], ...]] = weighted(
    (4, (Write, _write)), (3, (SubmitWrite, _submit_write)), (2, (WriteZeroes, _write_zeroes)),
    (2, (Discard, _discard)), (1, (Flush, _flush)), (2, (Resize, _resize)), (2, (VmstateWrite, _vmstate_write)),
    (2, (VmstateRead, _vmstate_read)),
    (1, (CanSnapshot, _can_snapshot)), (1, (List, _list)), (2, (Find, _find)),
    (2, (FindByIdAndName, _find_by_id_and_name)), (4, (Create, _create)), (3, (Goto, _goto)), (3, (Delete, _delete)),
    (1, (LoadTmp, _load_tmp)), (1, (LoadTmpByIdOrName, _load_tmp_by_id_or_name)),
    (1, (AllCanSnapshot, _all_can_snapshot)), (3, (AllFind, _all_find)), (9, (AllCreate, _all_create)),
    (8, (AllGoto, _all_goto)), (7, (AllDelete, _all_delete)), (1, (AllFindVmstateBs, _all_find_vmstate_bs)),
    (4, (SaveVm, _save_vm)), (4, (LoadVm, _load_vm)), (2, (DelVm, _del_vm)), (3, (Transaction, _transaction)),
    (1, (AddBitmap, _add_bitmap)), (2, (RemoveBitmap, _remove_bitmap)), (2, (SetReadOnly, _set_read_only)),
    (2, (SetMedium, _set_medium)), (2, (Reopen, _reopen)),
)  # fmt: skip
_WHEN_READ_ONLY: Final[tuple[tuple[type[Operation], Build], ...]] = weighted(
    (5, (SetReadOnly, _set_read_only)), (2, (LoadTmp, _load_tmp)), (1, (LoadTmpByIdOrName, _load_tmp_by_id_or_name))
)
_WHEN_ABSENT: Final[tuple[tuple[type[Operation], Build], ...]] = weighted((4, (SetMedium, _set_medium)))
_WHEN_BUSY: Final[tuple[tuple[type[Operation], Build], ...]] = weighted((4, (Goto, _goto)), (3, (AllGoto, _all_goto)))
assert len(_ALPHABET) + len(_WHEN_READ_ONLY) + len(_WHEN_ABSENT) <= CHOICES_MAX
assert max(_TAGS) <= TAG_MAX
