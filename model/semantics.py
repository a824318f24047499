"""One device: what each operation may answer there, and which states it may leave (SPEC A.0 to A.9, B).

Read replies.py before it, which says what a reply is and what faults do, and guest.py, which has the guest's own I/O;
then this from top to bottom: the snapshot calls, the environment. A function takes the device as it is and gives the
replies that are allowed. Without a fault that is one. An undamaged root node and its child have the same medium, so
only what differs between them looks at `node`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from snapcheck.model.content import ZERO, vmstate_pattern
from snapcheck.model.device import Allowed, Content, Device, Expected, Image, Snapshot
from snapcheck.model.errno import Errno
from snapcheck.model.guest import GUEST, landed
from snapcheck.model.history import UNWRITTEN_INFO
from snapcheck.model.operations import (
    AddBitmap,
    CanSnapshot,
    Create,
    Delete,
    Find,
    FindByIdAndName,
    Goto,
    List,
    LoadTmp,
    LoadTmpByIdOrName,
    Operation,
    RemoveBitmap,
    Reopen,
    SetMedium,
    SetReadOnly,
)
from snapcheck.model.replies import (
    DONE,
    NO_ERRORS,
    NOT_UNDONE,
    SAID,
    WRECK,
    Blow,
    Replies,
    Reply,
    closed,
    failure,
    image_of,
    refusal,
)
from snapcheck.model.setup import DeviceSpec, Kind
from snapcheck.model.snapshot import ID_BYTES_MAX, NAME_BYTES_MAX, SnapshotInfo, as_listed, cut_text

ULONG_MAX: Final = 2**64 - 1
SNAPSHOTS_MAX: Final = 65536  # SPEC B.2 step 1
READ_ONLY_ERRORS: Final = frozenset({Errno.EPERM, Errno.EACCES, Errno.EROFS})  # what a read-only driver may answer
FALLS_BACK: Final = frozenset({Kind.RAW_OVER, Kind.FILTER_OVER})  # SPEC A.0: nodes without snapshots of their own

# Why a device may be new although the operation failed, or dead; and NOT_UNDONE.
AFTER_COMMIT: Final = "B.3"  # goto failed after the active L1 was replaced
AFTER_REMOVAL: Final = "B.4"  # delete failed after the entry left the table
CLOSED_NODE: Final = "W-26"  # goto on the fallback could not open the node again


# --- the snapshot list (SPEC A.1 to A.3, A.7) -----------------------------------------------------
def _falls_back(device: Device, node: str) -> bool:
    """Tell whether a snapshot call on `node` ends at its child (SPEC A.0)."""
    return device.spec.kind in FALLS_BACK and node == device.spec.name


def _listed_name(info: SnapshotInfo) -> str:
    """Return the name as the API lists it: what is longer than its field can never be found in full (SPEC A.1)."""
    return cut_text(info.name, bytes_max=NAME_BYTES_MAX)


def _listed_id(info: SnapshotInfo) -> str:
    return cut_text(info.id_str, bytes_max=ID_BYTES_MAX)


def _list_refused(device: Device) -> Errno | None:
    """Return why the node has no list; a read-only one has."""
    if not device.present:
        return Errno.ENOMEDIUM
    return Errno.ENOTSUP if device.spec.kind is Kind.PLAIN else None


def can_snapshot(device: Device) -> bool:
    """bdrv_can_snapshot: medium, writable, a driver that can create, here or below (SPEC A.3). It asks no driver."""
    return device.present and not device.read_only and device.spec.kind is not Kind.PLAIN


def _can(device: Device, operation: CanSnapshot, blow: Blow | None) -> Replies:  # noqa: ARG001  # the table's shape
    return (Reply(Expected(answer=can_snapshot(device))),)


def _list(device: Device, operation: List, blow: Blow | None) -> Replies:  # noqa: ARG001  # the table's shape
    refused = _list_refused(device)
    if refused is not None:
        return refusal(refused)
    done = Reply(Expected(snapshots=tuple(as_listed(snapshot.info) for snapshot in image_of(device).snapshots)))
    errors = blow.errors("list") if blow is not None else NO_ERRORS
    return (done, failure(errors)) if errors else (done,)


_MISS: Final = Reply(Expected(frozenset({Errno.ENOENT}), sn=(UNWRITTEN_INFO,)))


def find(device: Device, name: str, blow: Blow | None) -> Replies:
    """bdrv_snapshot_find: the first entry of that name, and `sn` filled; every error is a miss (SPEC A.1, W-09)."""
    snapshot = None if _list_refused(device) is not None else by_listed_name(device, name)
    if snapshot is None:
        return (_MISS,)
    hit = Reply(Expected(sn=(as_listed(snapshot.info),)))
    return (hit, _MISS) if blow is not None and blow.errors("find") else (hit,)


def by_listed_name(device: Device, name: str) -> Snapshot | None:
    """Return the first snapshot that is listed under that name."""
    for snapshot in image_of(device).snapshots:
        if _listed_name(snapshot.info) == name:
            return snapshot
    return None


def _find(device: Device, operation: Find, blow: Blow | None) -> Replies:
    return find(device, operation.name, blow)


_NO_LIST: Final = Reply(Expected(answer=False, sn=(UNWRITTEN_INFO,), message=True))
_ABSENT: Final = Reply(Expected(answer=False, sn=(UNWRITTEN_INFO,), message=False))


def find_by_id_and_name(device: Device, snapshot_id: str | None, name: str | None, blow: Blow | None) -> Replies:
    """bdrv_snapshot_find_by_id_and_name: errp tells a list that failed from an entry that is not there (SPEC A.2)."""
    assert snapshot_id is not None or name is not None, "the C function asserts this"
    if _list_refused(device) is not None:
        return (_NO_LIST,)
    reply = _ABSENT
    for snapshot in image_of(device).snapshots:
        info = snapshot.info
        if (snapshot_id is None or _listed_id(info) == snapshot_id) and (name is None or _listed_name(info) == name):
            reply = Reply(Expected(answer=True, sn=(as_listed(info),), message=False))
            break
    return (reply, _NO_LIST) if blow is not None and blow.errors("list") else (reply,)


def _find_by_id_and_name(device: Device, operation: FindByIdAndName, blow: Blow | None) -> Replies:
    return find_by_id_and_name(device, operation.snapshot_id, operation.name, blow)


# --- create (SPEC A.4, B.2) -----------------------------------------------------------------------
def create(device: Device, sn: SnapshotInfo, blow: Blow | None) -> Replies:
    """bdrv_snapshot_create: the driver writes the id that it chose into the caller's struct `sn`, on failure too."""
    if not device.present:
        return (_not_created(frozenset({Errno.ENOMEDIUM}), sn),)
    if device.spec.kind is Kind.PLAIN:
        return (_not_created(frozenset({Errno.ENOTSUP}), sn),)
    image = image_of(device)
    if len(image.snapshots) >= SNAPSHOTS_MAX:
        return (_not_created(frozenset({Errno.EFBIG}), sn),)
    chosen = _with_id(sn, next_id(image.snapshots))
    if device.read_only:
        errors = blow.errors("create") if blow is not None else NO_ERRORS
        return (_not_created(READ_ONLY_ERRORS | errors, sn, chosen),)
    done = Reply(Expected(sn=in_struct(chosen)), (Allowed(_created(device, chosen, blow)),))
    failures = () if blow is None else _create_failed(device, sn, chosen, done, blow)
    if not device.spec.unshared:
        return done, *failures
    # What takes room can not be shared (B.2 step 9). Zeroes may take some, as whoever was written to may.
    refused = _not_created(frozenset({Errno.EINVAL}), chosen)
    return (refused, *failures) if _takes_room(image) else (done, refused, *failures)


def _takes_room(image: Image) -> bool:
    """Tell whether the active state surely holds something else than zeroes; VM state may go over to the snapshot."""
    unsure = {sector for sector, others in image.content.maybe if ZERO in others}
    written = (sector for sector, tag in enumerate(image.content.tags) if tag != ZERO)
    return any(sector not in unsure for sector in written)


def _created(device: Device, chosen: SnapshotInfo, blow: Blow | None) -> Device:
    """Return `device` with the snapshot at the end of its list; the VM state that it keeps leaves the active state."""
    image = image_of(device)
    stored = as_listed(chosen)  # the caller's buffer holds no more of the name (SPEC C.1 step 7)
    snapshot = Snapshot(stored, image.sectors, image.content, image.vmstate)
    vmstate, size = image.vmstate, stored.vm_state_size
    if vmstate and size:
        # Dropping it is the last thing that create does, and its result is ignored (B.2 step 11).
        vmstate = b"" if len(vmstate) <= size and not (blow is not None and blow.io) else None
    return device._replace(image=image._replace(vmstate=vmstate, snapshots=(*image.snapshots, snapshot)))


def _create_failed(device: Device, sn: SnapshotInfo, chosen: SnapshotInfo, done: Reply, blow: Blow) -> Replies:
    """Return the failures: list and content as before (SPEC G.2), unless what was published could not be taken back."""
    replies: list[Reply] = []
    if blow.io:
        states = (Allowed(device), Allowed(done.states[0].state, NOT_UNDONE)) if blow.lasting else ()
        replies.append(Reply(_not_created(blow.io, chosen).expected, states))
    not_called = blow.calls.get("create")
    if not_called:
        replies.append(_not_created(not_called, sn))
    return tuple(replies)


def _not_created(errnos: frozenset[Errno], *structs: SnapshotInfo) -> Reply:
    return Reply(Expected(errnos, sn=tuple(held for sn in structs for held in in_struct(sn))))


def in_struct(sn: SnapshotInfo) -> tuple[SnapshotInfo, ...]:
    """Return how a caller's struct may look: a harness may keep more of a name than the C buffer does."""
    cut = as_listed(sn)
    return (sn,) if cut is sn else (sn, cut)


def _with_id(sn: SnapshotInfo, id_str: str) -> SnapshotInfo:
    return SnapshotInfo(id_str, sn.name, sn.vm_state_size, sn.date_sec, sn.date_nsec, sn.vm_clock_nsec)


def next_id(snapshots: Sequence[Snapshot]) -> str:
    """Return the id that a new snapshot gets: the largest number among the stored ids, plus one; it wraps to "0"."""
    largest = max((strtoul(snapshot.info.id_str) for snapshot in snapshots), default=0)
    return str(largest + 1 & ULONG_MAX)


_NUMBER: Final = re.compile(r"[ \t\n\v\f\r]*([+-]?)([0-9]+)")


@lru_cache(maxsize=4096)
def strtoul(text: str) -> int:
    """Return what C makes of `text` in base 10 with 64 bits: 0 for no number, ULONG_MAX for one that is too large."""
    found = _NUMBER.match(text)
    if found is None:
        return 0
    digits = found[2].lstrip("0")
    value = int(digits or "0") if len(digits) <= 20 else ULONG_MAX + 1
    if value > ULONG_MAX:
        return ULONG_MAX
    return -value & ULONG_MAX if found[1] == "-" else value


def _create(device: Device, operation: Create, blow: Blow | None) -> Replies:
    return create(
        device,
        SnapshotInfo(
            "", operation.name, operation.vm_state_size, operation.date_sec, operation.date_nsec,
            operation.vm_clock_nsec,
        ),
        blow,
    )  # fmt: skip


# --- goto (SPEC A.5, B.3) -------------------------------------------------------------------------
def goto(device: Device, node: str, text: str, blow: Blow | None) -> Replies:
    """bdrv_snapshot_goto: medium, bitmaps, then the driver, which looks for the id first and then for the name."""
    if not device.present:
        return refusal(Errno.ENOMEDIUM, message=True)
    if node != device.spec.name:
        return _driver_goto(device, text, blow, busy=bool(device.child_bitmaps))
    if device.bitmaps:
        return refusal(Errno.EBUSY, message=True)
    if device.spec.kind is Kind.PLAIN:
        return refusal(Errno.ENOTSUP, message=True)
    if not _falls_back(device, node):
        return _driver_goto(device, text, blow, busy=False)
    return _reopened_around(device, _driver_goto(device, text, blow, busy=bool(device.child_bitmaps)), blow)


def _driver_goto(device: Device, text: str, blow: Blow | None, *, busy: bool) -> Replies:
    """Return what goto does at the node that has the snapshots; `busy` says whether that node has bitmaps."""
    if busy:
        return refusal(Errno.EBUSY, message=True)
    errors = blow.errors("goto") if blow is not None else NO_ERRORS
    snapshot = by_id_or_name(device, text)
    if device.read_only or snapshot is None:
        return (failure(_lookup_errors(device, snapshot) | errors, message=True),)
    new = Allowed(_reverted(device, snapshot))
    done = Reply(SAID, (new,))
    # Where nothing can be shared, VM state that is a snapshot's can not be the active state's as well (B.3 step 7).
    alone = device.spec.unshared and snapshot.vmstate != b""
    refused = refusal(Errno.EINVAL, message=True) if alone else ()
    if not errors:
        return done, *refused
    states = (Allowed(device), Allowed(new.state, AFTER_COMMIT)) if blow is not None and blow.io else ()
    return done, *refused, Reply(Expected(errors, message=True), states)


def by_id_or_name(device: Device, text: str) -> Snapshot | None:
    """Return the first snapshot with that id, else the first with that name; by the texts as stored (B.3 step 2)."""
    snapshots = image_of(device).snapshots
    for snapshot in snapshots:
        if snapshot.info.id_str == text:
            return snapshot
    return next((snapshot for snapshot in snapshots if snapshot.info.name == text), None)


def _lookup_errors(device: Device, found: Snapshot | None) -> frozenset[Errno]:
    """Return what a driver answers that may not write, or does not find the snapshot, or both."""
    absent = frozenset({Errno.ENOENT}) if found is None else NO_ERRORS
    return absent | READ_ONLY_ERRORS if device.read_only else absent


def _reverted(device: Device, snapshot: Snapshot) -> Device:
    """Return `device` with the snapshot's content, size and VM state; its list is as it was (SPEC G.3)."""
    image = image_of(device)
    return device._replace(image=Image(snapshot.sectors, snapshot.content, snapshot.vmstate, image.snapshots))


def _reopened_around(device: Device, replies: Replies, blow: Blow | None) -> Replies:
    """Return `replies` of the child where opening the node again may have failed as well: then it is dead (A.5.4 g)."""
    if blow is None or blow is WRECK or not blow.io:  # a damaged device is taken to be there, whatever it is
        return replies
    around: list[Reply] = []
    for reply in replies:
        states = reply.states or (Allowed(device),)
        dead = tuple(Allowed(_dead(allowed.state), CLOSED_NODE) for allowed in states)
        if reply.failed:
            around.append(Reply(reply.expected, (*states, *dead)))
        else:
            around += (reply, Reply(Expected(blow.io, message=True), dead))
    return tuple(around)


def _dead(device: Device) -> Device:
    """Return `device` as a node whose driver is closed: everything answers ENOMEDIUM; its child is gone with it."""
    return closed(device, read_only=device.read_only, present=False)


def _goto(device: Device, operation: Goto, blow: Blow | None) -> Replies:
    return goto(device, operation.device, operation.snapshot_id, blow)


# --- delete (SPEC A.6, B.4) -----------------------------------------------------------------------
def delete(device: Device, snapshot_id: str | None, name: str | None, blow: Blow | None) -> Replies:
    """bdrv_snapshot_delete: the driver takes the first entry that matches what is given, by the texts as stored."""
    if not device.present:
        return refusal(Errno.ENOMEDIUM, message=True)
    if snapshot_id is None and name is None:
        return refusal(Errno.EINVAL, message=True)
    if device.spec.kind is Kind.PLAIN:
        return refusal(Errno.ENOTSUP, message=True)
    errors = blow.errors("delete") if blow is not None else NO_ERRORS
    place = _place_of(image_of(device).snapshots, snapshot_id, name)
    if device.read_only or place is None:
        found = None if place is None else image_of(device).snapshots[place]
        return (failure(_lookup_errors(device, found) | errors, message=True),)
    new = Allowed(_without(device, place))
    done = Reply(SAID, (new,))
    if not errors:
        return (done,)
    states = (Allowed(device), Allowed(new.state, AFTER_REMOVAL)) if blow is not None and blow.io else ()
    return done, Reply(Expected(errors, message=True), states)


def _place_of(snapshots: Sequence[Snapshot], snapshot_id: str | None, name: str | None) -> int | None:
    """Return the index of the first entry that matches: both id and name where both are given."""
    for place, snapshot in enumerate(snapshots):
        info = snapshot.info
        if snapshot_id in {None, info.id_str} and name in {None, info.name}:
            return place
    return None


def _without(device: Device, place: int) -> Device:
    image = image_of(device)
    snapshots = image.snapshots[:place] + image.snapshots[place + 1 :]
    return device._replace(image=image._replace(snapshots=snapshots))


def _delete(device: Device, operation: Delete, blow: Blow | None) -> Replies:
    return delete(device, operation.snapshot_id, operation.name, blow)


# --- load_tmp (SPEC A.8, A.9, B.5) ----------------------------------------------------------------
def load_tmp(device: Device, node: str, snapshot_id: str | None, name: str | None, blow: Blow | None) -> Replies:
    """bdrv_snapshot_load_tmp: only on a read-only node that has the snapshots itself; there is no fallback."""
    if not device.present:
        return refusal(Errno.ENOMEDIUM, message=True)
    if (snapshot_id is None and name is None) or not device.read_only:
        return refusal(Errno.EINVAL, message=True)
    if device.spec.kind is Kind.PLAIN or _falls_back(device, node):
        return refusal(Errno.ENOTSUP, message=True)
    errors = blow.errors("load_tmp") if blow is not None else NO_ERRORS
    image = image_of(device)
    place = _place_of(image.snapshots, snapshot_id, name)
    if place is None:
        return (failure(errors | {Errno.ENOENT}, message=True),)
    shown = device._replace(image=image._replace(view=image.snapshots[place]))
    done = Reply(SAID, (Allowed(shown),))
    return (done, failure(errors, message=True)) if errors else (done,)


def _load_tmp(device: Device, operation: LoadTmp, blow: Blow | None) -> Replies:
    return load_tmp(device, operation.device, operation.snapshot_id, operation.name, blow)


_TRY_THE_NAME: Final = frozenset({Errno.ENOENT, Errno.EINVAL})


def _load_tmp_by_id_or_name(device: Device, operation: LoadTmpByIdOrName, blow: Blow | None) -> Replies:
    """Try the id; after ENOENT or EINVAL, and only then, the name: the last attempt's answer counts (SPEC A.9)."""
    replies: list[Reply] = []
    for reply in load_tmp(device, operation.device, operation.id_or_name, None, blow):
        errnos = reply.expected.errnos or NO_ERRORS
        again = errnos & _TRY_THE_NAME
        if errnos - again:
            replies.append(Reply(Expected(errnos - again, message=reply.expected.message), reply.states))
        if again:
            replies += load_tmp(device, operation.device, None, operation.id_or_name, blow)
    return tuple(dict.fromkeys(replies)) if len(replies) > 1 else tuple(replies)


# --- the environment ------------------------------------------------------------------------------
def _bitmaps(device: Device, node: str) -> frozenset[str]:
    return device.bitmaps if node == device.spec.name else device.child_bitmaps


def _with_bitmaps(device: Device, node: str, bitmaps: frozenset[str]) -> Replies:
    is_root = node == device.spec.name
    new = device._replace(bitmaps=bitmaps) if is_root else device._replace(child_bitmaps=bitmaps)
    return (Reply(DONE, (Allowed(new),)),)


def _add_bitmap(device: Device, operation: AddBitmap, blow: Blow | None) -> Replies:  # noqa: ARG001  # no I/O
    if not device.present:
        return refusal(Errno.ENOMEDIUM)
    bitmaps = _bitmaps(device, operation.device)
    if operation.name in bitmaps:
        return refusal(Errno.EEXIST)
    return _with_bitmaps(device, operation.device, bitmaps | {operation.name})


def _remove_bitmap(device: Device, operation: RemoveBitmap, blow: Blow | None) -> Replies:  # noqa: ARG001  # no I/O
    bitmaps = _bitmaps(device, operation.device)
    if operation.name not in bitmaps:
        return refusal(Errno.ENOENT)
    return _with_bitmaps(device, operation.device, bitmaps - {operation.name})


def _reopen(device: Device, operation: Reopen, blow: Blow | None) -> Replies:  # noqa: ARG001  # the table's shape
    if not device.present:
        return refusal(Errno.ENOMEDIUM)
    return _opened(device, blow, read_only=device.read_only)


def _set_read_only(device: Device, operation: SetReadOnly, blow: Blow | None) -> Replies:
    if device.image is None:
        return refusal(Errno.ENOMEDIUM)
    if not device.present:  # remembered until there is a medium
        return (Reply(DONE, (Allowed(closed(device, read_only=operation.read_only, present=False)),)),)
    return _opened(device, blow, read_only=operation.read_only)


def _set_medium(device: Device, operation: SetMedium, blow: Blow | None) -> Replies:
    if operation.present:
        if device.image is None:
            return refusal(Errno.ENOMEDIUM)
        return _opened(device, blow, read_only=device.read_only)
    if not device.present:
        return (Reply(DONE),)
    out = (Allowed(closed(landed(device, blow), read_only=device.read_only, present=False)),)
    return (Reply(DONE, out),) if blow is None or not blow.io else (Reply(DONE, out), Reply(Expected(blow.io), out))


def _opened(device: Device, blow: Blow | None, *, read_only: bool) -> Replies:
    """Return what closing a device and opening it may do; one that could not be opened stays without a medium."""
    drained = landed(device, blow)
    opened = Allowed(closed(drained, read_only=read_only, present=True))
    done = Reply(DONE, (opened,))
    if blow is None or not blow.io:
        return (done,)
    if blow is WRECK:  # nobody looks at it: it is taken to be there and writable, so that a group may touch it
        return done, Reply(Expected(blow.io), (Allowed(closed(drained, read_only=False, present=True)),))
    return done, Reply(Expected(blow.io), (opened, Allowed(closed(drained, read_only=read_only, present=False))))


# --- all of them ----------------------------------------------------------------------------------
LOCAL: Final[Mapping[type[Operation], Callable[[Device, Any, Blow | None], Replies]]] = {
    **GUEST,
    CanSnapshot: _can, Find: _find, FindByIdAndName: _find_by_id_and_name, Create: _create, Goto: _goto,
    Delete: _delete, List: _list, LoadTmp: _load_tmp, LoadTmpByIdOrName: _load_tmp_by_id_or_name,
    AddBitmap: _add_bitmap, RemoveBitmap: _remove_bitmap, SetReadOnly: _set_read_only, SetMedium: _set_medium,
    Reopen: _reopen,
}  # fmt: skip


def new_device(spec: DeviceSpec) -> Device:
    """Return a device as its history begins: with what `spec` says is on its image beforehand."""
    if spec.kind is Kind.EMPTY:
        return Device(spec, None, spec.read_only, present=False)
    has_snapshots = spec.kind is not Kind.PLAIN
    snapshots = tuple(
        Snapshot(
            SnapshotInfo(sn.id_str, sn.name, sn.vm_state_size, sn.date_sec, sn.date_nsec, sn.vm_clock_nsec),
            sn.sectors,
            Content(bytes((sn.tag,)) * sn.sectors),
            vmstate_pattern(tag=sn.tag, offset=0, length=sn.vm_state_size),
            sn.extra,
        )
        for sn in (spec.snapshots if has_snapshots else ())
    )
    image = Image(spec.sectors, Content(bytes((spec.tag,)) * spec.sectors), snapshots=snapshots)
    return Device(spec, image, spec.read_only)
