"""The alphabet, performed: each operation becomes calls of the layers under test, and their outcome a Result.

The guest's own I/O runs in its I/O thread, everything else in the main thread; both take the device's AioContext.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final, NamedTuple, TypeVarTuple

from snapcheck.impl.callers import Callers, ClassicCalls, ModernCalls
from snapcheck.impl.checked import CrashError, Failure
from snapcheck.impl.device import Device, InFlight
from snapcheck.impl.driver import Out
from snapcheck.impl.generic import Node
from snapcheck.impl.group import OWNER, Bad, ClassicGroup, ModernGroup, Refusal
from snapcheck.impl.transaction import run_transaction
from snapcheck.model.content import vmstate_pattern
from snapcheck.model.errno import Errno
from snapcheck.model.history import UNWRITTEN, UNWRITTEN_INFO, Result
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
)
from snapcheck.model.setup import Semantics
from snapcheck.model.snapshot import NAME_BYTES_MAX, SnapshotInfo, cut_text

Ts = TypeVarTuple("Ts")
RunTransaction = Callable[[Mapping[str, Node], Sequence[SnapshotAction], SnapshotInfo], Refusal | None]

GUEST: Final = "iothread"
_OK: Final = Result()


class Parts(NamedTuple):
    """What a system is made of. Another part in place of one of these is how a bug is planted."""

    node: type[Node] = Node
    device: type[Device] = Device
    classic_group: type[ClassicGroup] = ClassicGroup
    modern_group: type[ModernGroup] = ModernGroup
    classic_calls: type[ClassicCalls] = ClassicCalls
    modern_calls: type[ModernCalls] = ModernCalls
    callers: type[Callers] = Callers
    transaction: RunTransaction = run_transaction


def answer(failure: Failure | None) -> Result:
    """Return the result of a function that has no error text."""
    return _OK if failure is None else Result(failure.errno)


def told(failure: Failure | None) -> Result:
    """Return the result of a function with an error text; an empty one is none."""
    return _OK if failure is None else Result(failure.errno, message=_message(failure))


def refused(refusal: Refusal | None) -> Result:
    """Return the result of a group operation or caller that names a device in its error text."""
    if refusal is None:
        return _OK
    return Result(refusal.errno, first_bad=refusal.device, message=refusal.message)


# Which method performs an operation. Functions, not bound methods: those would be made for each history, and keep it.
Table = Mapping[type[Operation], Callable[[Any, Any], Result]]


class Performer:
    """Performs operations on `devices`, the group operations as the profile has them."""

    def __init__(
        self, devices: Mapping[str, Device], in_flight: InFlight, *, semantics: Semantics, parts: Parts
    ) -> None:
        self._devices = devices
        self._nodes = {node.name: node for device in devices.values() for node in device.nodes}
        self._in_flight = in_flight
        self._transaction = parts.transaction
        roots = [device.root for device in devices.values()]
        all_devices = tuple(devices.values())
        if semantics is Semantics.MODERN:
            modern = parts.modern_group(roots, self._nodes)
            self._callers = parts.callers(parts.modern_calls(modern), all_devices)
            self._group: ClassicOperations | ModernOperations = ModernOperations(modern)
        else:
            classic = parts.classic_group(roots)
            self._callers = parts.callers(parts.classic_calls(classic), all_devices)
            self._group = ClassicOperations(classic)

    def perform(self, operation: Operation) -> Result:
        """Perform one operation. What a driver did that no driver may do is in `Result.crash`."""
        try:
            perform = self.TABLE.get(type(operation))
            result = self._group.perform(operation) if perform is None else perform(self, operation)
            if self._in_flight.waiting and type(operation) is not SubmitWrite:
                self._in_flight.land()
        except CrashError as crash:
            return Result(crash=str(crash))
        return result

    def _device(self, name: str) -> Device:
        assert name in self._devices, f"{name!r} is no root node"
        return self._devices[name]

    def _node(self, name: str) -> Node:
        assert name in self._nodes, f"{name!r} is no node"
        return self._nodes[name]

    # --- the guest --------------------------------------------------------------------------------
    def _as_guest(self, device: Device, call: Callable[[*Ts], Failure | None], *args: *Ts) -> Result:
        return answer(device.lock.held(GUEST, call, *args))

    def _write(self, operation: Write) -> Result:
        device = self._device(operation.device)
        return self._as_guest(device, device.write, operation.sector, operation.count, operation.tag)

    def _submit_write(self, operation: SubmitWrite) -> Result:
        device = self._device(operation.device)
        return self._as_guest(device, device.submit_write, operation)

    def _write_zeroes(self, operation: WriteZeroes) -> Result:
        device = self._device(operation.device)
        return self._as_guest(device, device.write_zeroes, operation.sector, operation.count)

    def _discard(self, operation: Discard) -> Result:
        device = self._device(operation.device)
        return self._as_guest(device, device.discard, operation.sector, operation.count)

    def _flush(self, operation: Flush) -> Result:
        device = self._device(operation.device)
        return self._as_guest(device, device.root.flush)

    def _resize(self, operation: Resize) -> Result:
        device = self._device(operation.device)
        return self._as_guest(device, device.resize, operation.sectors)

    def _vmstate_write(self, operation: VmstateWrite) -> Result:
        root = self._device(operation.device).root
        data = vmstate_pattern(tag=operation.tag, offset=operation.offset, length=operation.length)
        return answer(root.lock.held(OWNER, root.vmstate_write, operation.offset, data))

    def _vmstate_read(self, operation: VmstateRead) -> Result:
        root = self._device(operation.device).root
        data = root.lock.held(OWNER, root.vmstate_read, operation.offset, operation.length)
        return answer(data) if isinstance(data, Failure) else Result(data=data)

    # --- snapshot calls on one node ---------------------------------------------------------------
    def _can_snapshot(self, operation: CanSnapshot) -> Result:
        node = self._node(operation.device)
        return Result(answer=node.lock.held(OWNER, node.can_snapshot))

    def _find(self, operation: Find) -> Result:
        node, sn = self._node(operation.device), Out(UNWRITTEN_INFO)
        failure = node.lock.held(OWNER, node.snapshot_find, sn, operation.name)
        return Result(Errno.OK if failure is None else failure.errno, sn=sn.value)

    def _find_by_id_and_name(self, operation: FindByIdAndName) -> Result:
        node, sn = self._node(operation.device), Out(UNWRITTEN_INFO)
        call = node.snapshot_find_by_id_and_name
        found = node.lock.held(OWNER, call, operation.snapshot_id, operation.name, sn)
        if isinstance(found, Failure):
            return Result(answer=False, sn=sn.value, message=found.message)
        return Result(answer=found, sn=sn.value)

    def _create(self, operation: Create) -> Result:
        node = self._node(operation.device)
        sn = Out(new_info(operation, operation.name, operation.vm_state_size))
        failure = node.lock.held(OWNER, node.snapshot_create, sn)
        return Result(Errno.OK if failure is None else failure.errno, sn=sn.value)

    def _goto(self, operation: Goto) -> Result:
        node = self._node(operation.device)
        return told(node.lock.held(OWNER, node.snapshot_goto, operation.snapshot_id))

    def _delete(self, operation: Delete) -> Result:
        node = self._node(operation.device)
        return told(node.lock.held(OWNER, node.snapshot_delete, operation.snapshot_id, operation.name))

    def _list(self, operation: List) -> Result:
        node = self._node(operation.device)
        listed = node.lock.held(OWNER, node.snapshot_list)
        return answer(listed) if isinstance(listed, Failure) else Result(snapshots=tuple(listed))

    def _load_tmp(self, operation: LoadTmp) -> Result:
        node = self._node(operation.device)
        return told(node.lock.held(OWNER, node.snapshot_load_tmp, operation.snapshot_id, operation.name))

    def _load_tmp_by_id_or_name(self, operation: LoadTmpByIdOrName) -> Result:
        node = self._node(operation.device)
        return told(node.lock.held(OWNER, node.snapshot_load_tmp_by_id_or_name, operation.id_or_name))

    # --- callers ----------------------------------------------------------------------------------
    def _save_vm(self, operation: SaveVm) -> Result:
        return refused(self._callers.save_vm(operation))

    def _load_vm(self, operation: LoadVm) -> Result:
        state = self._callers.load_vm(operation.name)
        return refused(state) if isinstance(state, Refusal) else Result(data=state)

    def _del_vm(self, operation: DelVm) -> Result:
        return refused(self._callers.del_vm(operation.name))

    def _transact(self, operation: Transaction) -> Result:
        for action in operation.actions:
            self._device(action.device)
        return refused(self._transaction(self._nodes, operation.actions, new_info(operation, "", 0)))

    # --- the environment --------------------------------------------------------------------------
    def _add_bitmap(self, operation: AddBitmap) -> Result:
        node = self._node(operation.device)
        if node.driver is None:
            return Result(Errno.ENOMEDIUM)
        if operation.name in node.bitmaps:
            return Result(Errno.EEXIST)
        node.bitmaps.add(operation.name)
        return _OK

    def _remove_bitmap(self, operation: RemoveBitmap) -> Result:
        node = self._node(operation.device)
        if operation.name not in node.bitmaps:
            return Result(Errno.ENOENT)
        node.bitmaps.remove(operation.name)
        return _OK

    def _set_read_only(self, operation: SetReadOnly) -> Result:
        device = self._device(operation.device)
        return answer(device.lock.held(OWNER, device.set_read_only, operation.read_only))

    def _set_medium(self, operation: SetMedium) -> Result:
        device = self._device(operation.device)
        return answer(device.lock.held(OWNER, device.set_medium, operation.present))

    def _reopen(self, operation: Reopen) -> Result:
        device = self._device(operation.device)
        return answer(device.lock.held(OWNER, device.reopen))

    TABLE: ClassVar[Table] = {
        Write: _write, SubmitWrite: _submit_write, WriteZeroes: _write_zeroes, Discard: _discard, Flush: _flush,
        Resize: _resize, VmstateWrite: _vmstate_write, VmstateRead: _vmstate_read, CanSnapshot: _can_snapshot,
        Find: _find, FindByIdAndName: _find_by_id_and_name, Create: _create, Goto: _goto, Delete: _delete, List: _list,
        LoadTmp: _load_tmp, LoadTmpByIdOrName: _load_tmp_by_id_or_name, SaveVm: _save_vm, LoadVm: _load_vm,
        DelVm: _del_vm, Transaction: _transact, AddBitmap: _add_bitmap, RemoveBitmap: _remove_bitmap,
        SetReadOnly: _set_read_only, SetMedium: _set_medium, Reopen: _reopen,
    }  # fmt: skip


class ClassicOperations:
    """The group operations of the classic profile: first_bad_bs is a cell, and create has no error text."""

    def __init__(self, group: ClassicGroup) -> None:
        self._group = group

    def perform(self, operation: Operation) -> Result:
        """Perform one of them."""
        return self.TABLE[type(operation)](self, operation)

    def _all_can_snapshot(self, _: AllCanSnapshot) -> Result:
        bad: Bad = Out(UNWRITTEN)
        can = self._group.all_can_snapshot(bad)
        return Result(answer=can, first_bad=bad.value)

    def _all_find(self, operation: AllFind) -> Result:
        bad: Bad = Out(UNWRITTEN)
        failure = self._group.all_find_snapshot(operation.name, bad)
        return Result(_errno(failure), first_bad=bad.value)

    def _all_create(self, operation: AllCreate) -> Result:
        bad: Bad = Out(UNWRITTEN)
        sn = Out(new_info(operation, operation.name, 0))
        failure = self._group.all_create_snapshot(sn, operation.vmstate_device, operation.vm_state_size, bad)
        return Result(_errno(failure), first_bad=bad.value, sn=sn.value)

    def _all_goto(self, operation: AllGoto) -> Result:
        bad: Bad = Out(UNWRITTEN)
        failure = self._group.all_goto_snapshot(operation.name, bad)
        return Result(_errno(failure), first_bad=bad.value, message=_message(failure))

    def _all_delete(self, operation: AllDelete) -> Result:
        bad: Bad = Out(UNWRITTEN)
        failure = self._group.all_delete_snapshot(operation.name, bad)
        return Result(_errno(failure), first_bad=bad.value, message=_message(failure))

    def _all_find_vmstate_bs(self, _: AllFindVmstateBs) -> Result:
        node = self._group.all_find_vmstate_bs()
        return Result(device=None if node is None else node.name)

    TABLE: ClassVar[Table] = {
        AllCanSnapshot: _all_can_snapshot, AllFind: _all_find, AllCreate: _all_create, AllGoto: _all_goto,
        AllDelete: _all_delete, AllFindVmstateBs: _all_find_vmstate_bs,
    }  # fmt: skip


class ModernOperations:
    """The group operations of the modern profile: the device is named in the error text."""

    def __init__(self, group: ModernGroup) -> None:
        self._group = group

    def perform(self, operation: Operation) -> Result:
        """Perform one of them."""
        return self.TABLE[type(operation)](self, operation)

    def _all_can_snapshot(self, operation: AllCanSnapshot) -> Result:
        refusal = self._group.all_can_snapshot(operation.devices)
        if refusal is None:
            return Result(answer=True)
        return Result(answer=False, first_bad=refusal.device, message=refusal.message)

    def _all_find(self, operation: AllFind) -> Result:
        has = self._group.all_has_snapshot(operation.name, operation.devices)
        return refused(has) if isinstance(has, Refusal) else Result(answer=has)

    def _all_create(self, operation: AllCreate) -> Result:
        sn = Out(new_info(operation, operation.name, 0))
        refusal = self._group.all_create_snapshot(
            sn, operation.vmstate_device, operation.vm_state_size, operation.devices
        )
        if refusal is None:
            return Result(sn=sn.value)
        return Result(refusal.errno, first_bad=refusal.device, sn=sn.value, message=refusal.message)

    def _all_goto(self, operation: AllGoto) -> Result:
        return refused(self._group.all_goto_snapshot(operation.name, operation.devices))

    def _all_delete(self, operation: AllDelete) -> Result:
        return refused(self._group.all_delete_snapshot(operation.name, operation.devices))

    def _all_find_vmstate_bs(self, operation: AllFindVmstateBs) -> Result:
        node = self._group.all_find_vmstate_bs(operation.vmstate_device, operation.devices)
        return Result(message=node.message) if isinstance(node, Refusal) else Result(device=node.name)

    TABLE: ClassVar[Table] = {
        AllCanSnapshot: _all_can_snapshot, AllFind: _all_find, AllCreate: _all_create, AllGoto: _all_goto,
        AllDelete: _all_delete, AllFindVmstateBs: _all_find_vmstate_bs,
    }  # fmt: skip


def new_info(operation: Create | AllCreate | Transaction, name: str, vm_state_size: int) -> SnapshotInfo:
    """Return the struct that a caller fills for create: the name as far as its field holds it, and no id."""
    return SnapshotInfo(
        "", cut_text(name, bytes_max=NAME_BYTES_MAX), vm_state_size, operation.date_sec, operation.date_nsec,
        operation.vm_clock_nsec,
    )  # fmt: skip


def _errno(failure: Failure | None) -> Errno:
    return Errno.OK if failure is None else failure.errno


def _message(failure: Failure | None) -> str | None:
    return None if failure is None else failure.message or None
