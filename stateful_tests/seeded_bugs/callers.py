"""Bugs planted in savevm, loadvm, delvm and transactions (BUGS section 5)."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

from snapcheck.impl.callers import Callers, ClassicCalls, GroupCalls, ModernCalls
from snapcheck.impl.checked import CrashError, Failure
from snapcheck.impl.driver import Out
from snapcheck.impl.generic import Drains, Node
from snapcheck.impl.group import OWNER, Bad, ClassicGroup, Refusal, delete_by_name
from snapcheck.impl.perform import GUEST, Parts
from snapcheck.impl.transaction import Action, run_transaction
from snapcheck.model.errno import Errno
from snapcheck.model.operations import SaveVm
from snapcheck.model.snapshot import SnapshotInfo
from snapcheck.stateful_tests.seeded_bugs.planting import in_layers


# --- savevm ---------------------------------------------------------------------------------------
class _NeedsAName(Callers):
    """Looks for the old snapshot by a name that is NULL."""

    __slots__ = ()

    def save_vm(self, operation: SaveVm) -> Refusal | None:
        if operation.name is None:
            raise CrashError("strcmp with NULL")
        return super().save_vm(operation)


class _StoresNoName(Callers):
    """Stores an empty name where none is given; it can not be loaded by any."""

    __slots__ = ()

    def save_vm(self, operation: SaveVm) -> Refusal | None:
        return super().save_vm(replace(operation, name=operation.name or ""))


class _IgnoresTheClose(Callers):
    """Writes the end of the state when its file is closed, and does not look whether that went well."""

    __slots__ = ()

    def _write_state(self, node: Node, state: bytes) -> Failure | None:
        failure = node.vmstate_write(0, state[:-512]) if state[:-512] else None
        if failure is None:
            node.vmstate_write(max(0, len(state) - 512), state[-512:])
            node.flush()
        return failure


class _RefusalIsSuccess(Callers):
    """Returns false, which is 0, which is success, when snapshots can not be taken."""

    __slots__ = ()

    def save_vm(self, operation: SaveVm) -> Refusal | None:
        return None if self._calls.require_can() is not None else super().save_vm(operation)


class _SetsNoError(Callers):
    """Fails to write the state without an error object, which the caller reads all the same."""

    __slots__ = ()

    def _write_state(self, node: Node, state: bytes) -> Failure | None:
        if super()._write_state(node, state) is not None:
            raise CrashError("the error object is NULL")
        return None


class _StaysInSetup(Callers):
    """Is in the middle of a savevm for ever after one that failed."""

    __slots__ = ("_stuck",)

    def save_vm(self, operation: SaveVm) -> Refusal | None:
        if getattr(self, "_stuck", False):
            return Refusal(Errno.EBUSY, "There's a migration process in progress")
        refusal = super().save_vm(operation)
        self._stuck = refusal is not None
        return refusal


class _NestsTheLock(Callers):
    """Writes the state in another thread, which wants the AioContext that this one is holding."""

    __slots__ = ()

    def _write_state(self, node: Node, state: bytes) -> Failure | None:
        return node.lock.held(GUEST, super()._write_state, node, state)


class _RollsNothingBack(ModernCalls):
    """Leaves the snapshots that savevm took before one device failed (B77, before 2a909dc430)."""

    __slots__ = ()

    def create(self, sn: Out[SnapshotInfo], vmstate_bs: Node, vm_state_size: int) -> Refusal | None:
        return self._group.all_create_snapshot(sn, vmstate_bs.name, vm_state_size, None)


nameless_crash = in_layers("savevm without a name looks for NULL", Parts(callers=_NeedsAName))
nameless_stored = in_layers("savevm without a name stores an empty one", Parts(callers=_StoresNoName))
close_ignored = in_layers("an error at the close of the VM state is ignored", Parts(callers=_IgnoresTheClose))
refusal_is_success = in_layers("a savevm that is refused is success", Parts(callers=_RefusalIsSuccess))
no_error_set = in_layers("a failed write of the VM state sets no error", Parts(callers=_SetsNoError))
stuck_in_setup = in_layers("a failed savevm blocks all later ones", Parts(callers=_StaysInSetup))
nested_lock = in_layers("the VM state is written by who waits for the lock", Parts(callers=_NestsTheLock))
no_rollback = in_layers("savevm leaves what it created before it failed", Parts(modern_calls=_RollsNothingBack))


# --- loadvm and delvm -----------------------------------------------------------------------------
class _FallsThrough(ClassicCalls):
    """Goes on to load the machine's state although a device could not go back."""

    __slots__ = ()

    def goto(self, name: str) -> Refusal | None:
        super().goto(name)
        return None


class _Caches(ClassicCalls):
    """Keeps the first vmstate device that it found, whatever becomes of it."""

    __slots__ = ("_cached",)

    def find_vmstate_bs(self) -> Node | Refusal:
        found: Node | Refusal = getattr(self, "_cached", None) or super().find_vmstate_bs()
        if isinstance(found, Node):
            self._cached = found
        return found


class _ChoosesTheLast(ClassicCalls):
    """Takes the last device that can for the one with the VM state."""

    __slots__ = ()

    def find_vmstate_bs(self) -> Node | Refusal:
        able = [node for node in self._group.roots if node.can_snapshot()]
        return able[-1] if able else super().find_vmstate_bs()


class _LoadsFromTheLast(Callers):
    """Chooses the device with the VM state by another rule than savevm."""

    __slots__ = ()

    def load_vm(self, name: str) -> bytes | Refusal:
        assert isinstance(self._calls, ClassicCalls)
        group = self._calls._group  # pyright: ignore[reportPrivateUsage]  # a seeded bug breaks in
        return Callers(_ChoosesTheLast(group), self._devices).load_vm(name)


class _DrainsNothing(Callers):
    """Reverts and saves while the guest's requests are in flight."""

    __slots__ = ()

    def __init__(self, calls: GroupCalls, _devices: Sequence[Drains]) -> None:
        super().__init__(calls, ())


falls_through = in_layers("loadvm goes on after a goto that failed", Parts(classic_calls=_FallsThrough))
cached_vmstate_bs = in_layers("the vmstate device is looked for once", Parts(classic_calls=_Caches))
other_vmstate_bs = in_layers("loadvm chooses another vmstate device than savevm", Parts(callers=_LoadsFromTheLast))
undrained_callers = in_layers("savevm and loadvm drain no device", Parts(callers=_DrainsNothing))


# --- the group functions, as callers see them -----------------------------------------------------
class _LeavesOutTheRemovable(ClassicGroup):
    """Leaves out drives that can change; here those whose node lies over another."""

    __slots__ = ()

    def _walk(self, also: str | None = None) -> Iterator[Node]:
        return (node for node in super()._walk(also) if node.layer is None)


class _AllCan(ClassicGroup):
    """Says that all devices can take snapshots, and asks none."""

    __slots__ = ()

    def all_can_snapshot(self, first_bad_bs: Bad) -> bool:
        first_bad_bs.value = None
        return True


class _ComparesIds(ClassicGroup):
    """Takes a snapshot for the same one on each device when it has the same id there."""

    __slots__ = ()

    def all_find_snapshot(self, name: str, first_bad_bs: Bad) -> Failure | None:
        sn = Out(SnapshotInfo())

        def find(node: Node) -> Failure | None:
            if not sn.value.id_str:
                return node.snapshot_find(sn, name)
            found = node.snapshot_find_by_id_and_name(sn.value.id_str, None, Out(SnapshotInfo()))
            return None if found is True else Failure(Errno.ENOENT, f"there is no snapshot {name!r}")

        return self._each(find, first_bad_bs)


class _FreesTheErrorTwice(ClassicGroup):
    """Frees the error of a look-up, and frees it again at the next device that has no such snapshot."""

    __slots__ = ()

    def all_delete_snapshot(self, name: str, first_bad_bs: Bad) -> Failure | None:
        missing: list[str] = []

        def delete(node: Node) -> Failure | None:
            if node.snapshot_find(Out(SnapshotInfo()), name) is None:
                return delete_by_name(node, name)
            missing.append(node.name)
            if len(missing) > 1:
                raise CrashError("double free of the error object")
            return None

        return self._each(delete, first_bad_bs)


removable_skipped = in_layers("removable drives are left out", Parts(classic_group=_LeavesOutTheRemovable))
can_hard_coded = in_layers("every device is said to support snapshots", Parts(classic_group=_AllCan))
compared_by_id = in_layers("snapshots with one id count as one snapshot", Parts(classic_group=_ComparesIds))
double_free = in_layers("the error of a missing snapshot is freed twice", Parts(classic_group=_FreesTheErrorTwice))


# --- transactions ---------------------------------------------------------------------------------
class _AbortsNothing(Action):
    """Leaves what it created when another action fails."""

    __slots__ = ()

    def abort(self) -> None:
        pass


class _DrainsNoDevice(Action):
    """Takes the snapshot while the guest's requests are in flight."""

    __slots__ = ()

    def prepare(self) -> Refusal | None:
        node = self._node
        return node.lock.held(OWNER, self._create, node) if node.inserted else super().prepare()


def _transaction(kind: type[Action]) -> Parts:
    return Parts(transaction=partial(run_transaction, kind=kind))


not_aborted = in_layers("a transaction that fails leaves its snapshots", _transaction(_AbortsNothing))
undrained_action = in_layers("a transaction does not drain its devices", _transaction(_DrainsNoDevice))
