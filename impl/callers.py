"""savevm, loadvm and delvm: orders of group calls (SPEC C.1 to C.3).

Each is written once, in the order of the specification; what differs between 5.1 (classic: texts made from
first_bad_bs, no rollback) and 7.2 (modern: texts made by the group functions, and a rollback) is in two subclasses.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final, Protocol

from snapcheck.impl.checked import Failure
from snapcheck.impl.driver import Out
from snapcheck.impl.generic import Drains, Node
from snapcheck.impl.group import OWNER, Bad, ClassicGroup, ModernGroup, Refusal
from snapcheck.model.content import vmstate_pattern
from snapcheck.model.errno import Errno
from snapcheck.model.history import UNWRITTEN
from snapcheck.model.operations import SaveVm
from snapcheck.model.snapshot import NAME_BYTES_MAX, SnapshotInfo, cut_text

VM_STATE_BYTES_MAX: Final = 1 << 26  # a damaged table may claim any size; a state of that size is no state
DISK_ONLY: Final = Refusal(Errno.EINVAL, "This is a disk-only snapshot. Revert to it offline using qemu-img")


@contextmanager
def all_drained(devices: Sequence[Drains]) -> Generator[None]:
    """Keep every device drained."""
    for device in devices:
        device.drained_begin()
    try:
        yield
    finally:
        for device in devices:
            device.drained_end()


class GroupCalls(Protocol):
    """The group calls as a caller makes them: each answers with a refusal in the caller's own words."""

    def require_can(self) -> Refusal | None: ...
    def delete_old(self, name: str) -> Refusal | None: ...
    def find_vmstate_bs(self) -> Node | Refusal: ...
    def create(self, sn: Out[SnapshotInfo], vmstate_bs: Node, vm_state_size: int) -> Refusal | None: ...
    def require_all_have(self, name: str) -> Refusal | None: ...
    def goto(self, name: str) -> Refusal | None: ...
    def delete(self, name: str) -> Refusal | None: ...


class ClassicCalls:
    """The group calls of 5.1: `first_bad_bs` goes into the texts; what create did on some devices stays (W-06)."""

    __slots__ = ("_group",)

    def __init__(self, group: ClassicGroup) -> None:
        self._group = group

    def require_can(self) -> Refusal | None:
        bad: Bad = Out(UNWRITTEN)
        if self._group.all_can_snapshot(bad):
            return None
        return Refusal(Errno.ENOTSUP, f"Device '{bad.value}' is writable but does not support snapshots", bad.value)

    def delete_old(self, name: str) -> Refusal | None:
        return self._delete(name, "Error while deleting snapshot on device '{}': ")

    def find_vmstate_bs(self) -> Node | Refusal:
        node = self._group.all_find_vmstate_bs()
        return Refusal(Errno.ENOTSUP, "No block device can accept snapshots") if node is None else node

    def create(self, sn: Out[SnapshotInfo], vmstate_bs: Node, vm_state_size: int) -> Refusal | None:
        bad: Bad = Out(UNWRITTEN)
        failure = self._group.all_create_snapshot(sn, vmstate_bs.name, vm_state_size, bad)
        return failure and Refusal(failure.errno, f"Error while creating snapshot on '{bad.value}'", bad.value)

    def require_all_have(self, name: str) -> Refusal | None:
        bad: Bad = Out(UNWRITTEN)
        failure = self._group.all_find_snapshot(name, bad)
        text = f"Device '{bad.value}' does not have the requested snapshot '{name}'"
        return failure and Refusal(failure.errno, text, bad.value)

    def goto(self, name: str) -> Refusal | None:
        bad: Bad = Out(UNWRITTEN)
        failure = self._group.all_goto_snapshot(name, bad)
        if failure is None:
            return None
        text = f"Could not load snapshot '{name}' on '{bad.value}': {failure.message}"
        return Refusal(failure.errno, text, bad.value)

    def delete(self, name: str) -> Refusal | None:
        return self._delete(name, "deleting snapshot on device '{}': ")

    def _delete(self, name: str, prefix: str) -> Refusal | None:
        bad: Bad = Out(UNWRITTEN)
        failure = self._group.all_delete_snapshot(name, bad)
        return failure and Refusal(failure.errno, prefix.format(bad.value) + failure.message, bad.value)


class ModernCalls:
    """The group calls of 7.2, over all included devices: a create that fails is rolled back, delvm asks first."""

    __slots__ = ("_group",)

    def __init__(self, group: ModernGroup) -> None:
        self._group = group

    def require_can(self) -> Refusal | None:
        return self._group.all_can_snapshot(None)

    def delete_old(self, name: str) -> Refusal | None:
        return self._group.all_delete_snapshot(name, None)

    def find_vmstate_bs(self) -> Node | Refusal:
        return self._group.all_find_vmstate_bs(None, None)

    def create(self, sn: Out[SnapshotInfo], vmstate_bs: Node, vm_state_size: int) -> Refusal | None:
        refusal = self._group.all_create_snapshot(sn, vmstate_bs.name, vm_state_size, None)
        if refusal is not None:
            self._group.all_delete_snapshot(sn.value.name, None)  # errors of the rollback are ignored
        return refusal

    def require_all_have(self, name: str) -> Refusal | None:
        has = self._group.all_has_snapshot(name, None)
        if isinstance(has, Refusal):
            return has
        text = f"Snapshot '{name}' does not exist in one or more devices"
        return None if has else Refusal(Errno.ENOENT, text)

    def goto(self, name: str) -> Refusal | None:
        return self._group.all_goto_snapshot(name, None)

    def delete(self, name: str) -> Refusal | None:
        return self.require_can() or self._group.all_delete_snapshot(name, None)


class Callers:
    """The three commands, over whichever group calls. The virtual machine runs before and after each of them."""

    __slots__ = ("_calls", "_devices")

    def __init__(self, calls: GroupCalls, devices: Sequence[Drains]) -> None:
        self._calls = calls
        self._devices = devices

    def save_vm(self, operation: SaveVm) -> Refusal | None:
        """Snapshot every included device, the machine's state on the first; the old one of that name goes first."""
        calls, name = self._calls, operation.name
        refusal = calls.require_can() or (None if name is None else calls.delete_old(name))
        if refusal is not None:
            return refusal
        vmstate_bs = calls.find_vmstate_bs()
        if isinstance(vmstate_bs, Refusal):
            return vmstate_bs
        with all_drained(self._devices):
            size = operation.vm_state_size
            state = vmstate_pattern(tag=operation.tag, offset=0, length=size)
            failure = vmstate_bs.lock.held(OWNER, self._write_state, vmstate_bs, state)
            if failure is not None:
                return Refusal(failure.errno, f"Error while writing VM state: {failure.message}")
            return calls.create(Out(_new_info(operation)), vmstate_bs, size)

    def _write_state(self, node: Node, state: bytes) -> Failure | None:
        """Write the machine's state; closing its file flushes, and an error of that counts (5.1)."""
        failure = node.vmstate_write(0, state) if state else None
        return failure or node.flush()

    def load_vm(self, name: str) -> bytes | Refusal:
        """Take every included device back, and return the machine's state from the first."""
        calls = self._calls
        refusal = calls.require_can() or calls.require_all_have(name)
        if refusal is not None:
            return refusal
        vmstate_bs = calls.find_vmstate_bs()
        if isinstance(vmstate_bs, Refusal):
            return vmstate_bs
        sn = Out(SnapshotInfo())
        missing = vmstate_bs.lock.held(OWNER, vmstate_bs.snapshot_find, sn, name)
        if missing is not None:
            return Refusal(missing.errno, missing.message)
        size = sn.value.vm_state_size
        if not size:
            return DISK_ONLY
        with all_drained(self._devices):
            refusal = calls.goto(name)
        return refusal or vmstate_bs.lock.held(OWNER, _load_state, vmstate_bs, size)

    def del_vm(self, name: str) -> Refusal | None:
        """Delete what has that name on any included device; a name that is nowhere is success."""
        return self._calls.delete(name)


def _load_state(node: Node, size: int) -> bytes | Refusal:
    absurd = Failure(Errno.EINVAL, "the VM state is too large")
    state = node.vmstate_read(0, size) if size <= VM_STATE_BYTES_MAX else absurd
    if isinstance(state, Failure):
        return Refusal(state.errno, f"Error {state.errno.value} while loading VM state")
    return state


def _new_info(operation: SaveVm) -> SnapshotInfo:
    name = operation.name
    if name is None:
        name = datetime.fromtimestamp(operation.date_sec, UTC).strftime("vm-%Y%m%d%H%M%S")
    return SnapshotInfo(
        name=cut_text(name, bytes_max=NAME_BYTES_MAX), date_sec=operation.date_sec, date_nsec=operation.date_nsec,
        vm_clock_nsec=operation.vm_clock_nsec,
    )  # fmt: skip
