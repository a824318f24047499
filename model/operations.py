"""The alphabet: each operation is a small frozen value; phases draw them, systems perform them, the model steps.

Positions are in 512-byte sectors, VM state is in bytes. `device` names a root node (`d0`) or a child (`d0/file`).
`devices` of a group operation is the list of the modern profile; None means all that are included (A.10).
"""

from dataclasses import dataclass
from typing import Final


# --- guest I/O on one device ----------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Write:
    """A guest writes `tag` (1 to 254) over `count` sectors and waits for it."""

    device: str
    sector: int
    count: int
    tag: int


@dataclass(frozen=True, slots=True)
class SubmitWrite:
    """A guest submits a write and does not wait: it lands when its device is drained, else after the next operation.

    Nothing of it shows before that. It is lost silently when it fails. It belongs to the device's root node.
    """

    device: str
    sector: int
    count: int
    tag: int


@dataclass(frozen=True, slots=True)
class WriteZeroes:
    """A guest zeroes `count` sectors."""

    device: str
    sector: int
    count: int


@dataclass(frozen=True, slots=True)
class Discard:
    """A guest discards `count` sectors; afterwards each of them reads as zeroes (unmap) or as before."""

    device: str
    sector: int
    count: int


@dataclass(frozen=True, slots=True)
class Flush:
    """A guest flushes its device."""

    device: str


@dataclass(frozen=True, slots=True)
class Resize:
    """The virtual size becomes `sectors`; what is new reads as zeroes."""

    device: str
    sectors: int


@dataclass(frozen=True, slots=True)
class VmstateWrite:
    """Store `length` bytes of `vmstate_pattern(tag, offset, length)` at byte `offset` of the active VM state area."""

    device: str
    offset: int
    length: int
    tag: int


@dataclass(frozen=True, slots=True)
class VmstateRead:
    """Read `length` bytes at byte `offset` of the active VM state area."""

    device: str
    offset: int
    length: int


# --- snapshot calls on one device (SPEC A.1 to A.9) -----------------------------------------------
@dataclass(frozen=True, slots=True)
class CanSnapshot:
    """bdrv_can_snapshot."""

    device: str


@dataclass(frozen=True, slots=True)
class Find:
    """bdrv_snapshot_find."""

    device: str
    name: str


@dataclass(frozen=True, slots=True)
class FindByIdAndName:
    """bdrv_snapshot_find_by_id_and_name; at least one of the two is given (both absent is an assertion, A.2)."""

    device: str
    snapshot_id: str | None
    name: str | None


@dataclass(frozen=True, slots=True)
class Create:
    """bdrv_snapshot_create; the fields are those that the caller puts into `sn`."""

    device: str
    name: str
    vm_state_size: int = 0
    date_sec: int = 0
    date_nsec: int = 0
    vm_clock_nsec: int = 0


@dataclass(frozen=True, slots=True)
class Goto:
    """bdrv_snapshot_goto; the driver looks for the id first, then the name."""

    device: str
    snapshot_id: str


@dataclass(frozen=True, slots=True)
class Delete:
    """bdrv_snapshot_delete."""

    device: str
    snapshot_id: str | None
    name: str | None


@dataclass(frozen=True, slots=True)
class List:
    """bdrv_snapshot_list."""

    device: str


@dataclass(frozen=True, slots=True)
class LoadTmp:
    """bdrv_snapshot_load_tmp."""

    device: str
    snapshot_id: str | None
    name: str | None


@dataclass(frozen=True, slots=True)
class LoadTmpByIdOrName:
    """bdrv_snapshot_load_tmp_by_id_or_name."""

    device: str
    id_or_name: str


# --- group operations (SPEC A.10) -----------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class AllCanSnapshot:
    """bdrv_all_can_snapshot."""

    devices: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class AllFind:
    """bdrv_all_find_snapshot (modern: bdrv_all_has_snapshot)."""

    name: str
    devices: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class AllCreate:
    """bdrv_all_create_snapshot; `vmstate_device` is vm_state_bs, which gets `vm_state_size`."""

    name: str
    vmstate_device: str | None = None
    vm_state_size: int = 0
    date_sec: int = 0
    date_nsec: int = 0
    vm_clock_nsec: int = 0
    devices: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class AllGoto:
    """bdrv_all_goto_snapshot."""

    name: str
    devices: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class AllDelete:
    """bdrv_all_delete_snapshot."""

    name: str
    devices: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class AllFindVmstateBs:
    """bdrv_all_find_vmstate_bs; `vmstate_device` is the node asked for by name (modern only)."""

    vmstate_device: str | None = None
    devices: tuple[str, ...] | None = None


# --- callers (SPEC C) -----------------------------------------------------------------------------
OWN_STATE_TAG: Final = 1  # what stands for the state of a system that saves one of its own


@dataclass(frozen=True, slots=True)
class SaveVm:
    """savevm; None asks for a name made of the clock. The VM's state is `vmstate_pattern(tag, 0, vm_state_size)`."""

    name: str | None
    tag: int = OWN_STATE_TAG
    vm_state_size: int = 765
    date_sec: int = 0
    date_nsec: int = 0
    vm_clock_nsec: int = 0


@dataclass(frozen=True, slots=True)
class LoadVm:
    """loadvm; the answer's `data` is the VM state that was read back."""

    name: str


@dataclass(frozen=True, slots=True)
class DelVm:
    """delvm."""

    name: str


@dataclass(frozen=True, slots=True)
class SnapshotAction:
    """One action of a transaction: blockdev-snapshot-internal-sync of `name` on `device`."""

    device: str
    name: str


@dataclass(frozen=True, slots=True)
class Transaction:
    """Several creates that are rolled back when one fails (C.6)."""

    actions: tuple[SnapshotAction, ...]
    date_sec: int = 0
    date_nsec: int = 0
    vm_clock_nsec: int = 0


# --- the environment ------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class AddBitmap:
    """A dirty bitmap is attached to the node; goto then refuses with EBUSY (A.5)."""

    device: str
    name: str


@dataclass(frozen=True, slots=True)
class RemoveBitmap:
    """The dirty bitmap goes away; ENOENT when there is none of that name."""

    device: str
    name: str


@dataclass(frozen=True, slots=True)
class SetReadOnly:
    """The device is closed and opened again read-only (or writable); a loaded load_tmp view ends."""

    device: str
    read_only: bool


@dataclass(frozen=True, slots=True)
class SetMedium:
    """The medium is taken out (the node's drv becomes NULL) or put back in (it is opened again)."""

    device: str
    present: bool


@dataclass(frozen=True, slots=True)
class Reopen:
    """The device is closed cleanly and opened again; its bitmaps are gone, as they are not persistent."""

    device: str


GuestIo = Write | SubmitWrite | WriteZeroes | Discard | Flush | Resize | VmstateWrite | VmstateRead
LocalSnapshot = CanSnapshot | Find | FindByIdAndName | Create | Goto | Delete | List | LoadTmp | LoadTmpByIdOrName
Group = AllCanSnapshot | AllFind | AllCreate | AllGoto | AllDelete | AllFindVmstateBs
Caller = SaveVm | LoadVm | DelVm | Transaction
Environment = AddBitmap | RemoveBitmap | SetReadOnly | SetMedium | Reopen
Operation = GuestIo | LocalSnapshot | Group | Caller | Environment


def kind_of(operation: Operation) -> str:
    """Return the operation's name in reports and history files: `AllDelete` is `all-delete`."""
    return KINDS[type(operation)]


def _dashed(name: str) -> str:
    return "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("-")


OPERATIONS: tuple[type[Operation], ...] = (
    Write, SubmitWrite, WriteZeroes, Discard, Flush, Resize, VmstateWrite, VmstateRead,
    CanSnapshot, Find, FindByIdAndName, Create, Goto, Delete, List, LoadTmp, LoadTmpByIdOrName,
    AllCanSnapshot, AllFind, AllCreate, AllGoto, AllDelete, AllFindVmstateBs,
    SaveVm, LoadVm, DelVm, Transaction, AddBitmap, RemoveBitmap, SetReadOnly, SetMedium, Reopen,
)  # fmt: skip
KINDS: dict[type[Operation], str] = {operation: _dashed(operation.__name__) for operation in OPERATIONS}
