"""Bugs planted in the generic and group layers and in the callers, each a few lines in one place."""

from snapcheck.impl.callers import ModernCalls
from snapcheck.impl.checked import Failure
from snapcheck.impl.driver import Out
from snapcheck.impl.generic import Node
from snapcheck.impl.group import OWNER, Bad, ClassicGroup, Refusal, Walk
from snapcheck.impl.local import LocalSystem
from snapcheck.impl.perform import Parts
from snapcheck.impl.qcow2.driver import open_driver
from snapcheck.impl.targets import Target
from snapcheck.model.errno import Errno
from snapcheck.model.faults import REGIONS
from snapcheck.model.snapshot import SnapshotInfo


def planted(what: str, parts: Parts) -> Target:
    """Return the qcow2 engine under layers of which some part is replaced."""
    layers = type("PlantedSystem", (LocalSystem,), {"parts": parts})
    return Target("planted", what, open_driver, layers=layers, regions=REGIONS)


# --- who is named ---------------------------------------------------------------------------------
class _NamesTheFirst(ClassicGroup):
    """Names the first device of the walk, whichever failed."""

    __slots__ = ()

    def _each(self, call: Walk, first_bad_bs: Bad, *, also: str | None = None) -> Failure | None:
        failure = super()._each(call, first_bad_bs, also=also)
        if failure is not None:
            first_bad_bs.value = next(self._walk(also)).name
        return failure


class _LeavesTheLast(ClassicGroup):
    """Leaves the device that it looked at last in first_bad_bs when all went well."""

    __slots__ = ()

    def _each(self, call: Walk, first_bad_bs: Bad, *, also: str | None = None) -> Failure | None:
        failure = super()._each(call, first_bad_bs, also=also)
        if failure is None:
            first_bad_bs.value = next((node.name for node in reversed([*self._walk(also)])), None)
        return failure


# --- who is touched -------------------------------------------------------------------------------
class _GoesOn(ClassicGroup):
    """Goes on to the devices behind the one that failed, and reports the first failure all the same."""

    __slots__ = ()

    def _each(self, call: Walk, first_bad_bs: Bad, *, also: str | None = None) -> Failure | None:
        first: Failure | None = None
        for node in self._walk(also):
            failure = node.lock.held(OWNER, call, node)
            if failure is not None and first is None:
                first, first_bad_bs.value = failure, node.name
        if first is None:
            first_bad_bs.value = None
        return first


# --- locks ----------------------------------------------------------------------------------------
class _KeepsTheLock(ClassicGroup):
    """Leaves the function on an error before the device's AioContext is given back (B59, 2a9170bcd4)."""

    __slots__ = ()

    def _each(self, call: Walk, first_bad_bs: Bad, *, also: str | None = None) -> Failure | None:
        for node in self._walk(also):
            node.lock.acquire(OWNER)
            failure = call(node)
            if failure is not None:
                first_bad_bs.value = node.name
                return failure
            node.lock.release(OWNER)
        first_bad_bs.value = None
        return None


# --- what is found --------------------------------------------------------------------------------
class _FindsIdsToo(Node):
    """Takes the argument for an id or a name, whichever comes first: savevm 1 deletes another's snapshot (B55)."""

    __slots__ = ()

    def _find(self, sn: Out[SnapshotInfo], name: str) -> Failure | None:
        listed = self.snapshot_list()
        for info in () if isinstance(listed, Failure) else listed:
            if name in (info.id_str, info.name):
                sn.value = info
                return None
        return Failure(Errno.ENOENT, f"there is no snapshot {name!r}")


# --- callers --------------------------------------------------------------------------------------
class _RollsNothingBack(ModernCalls):
    """Leaves the snapshots that savevm took before one device failed (B77, before 2a909dc430)."""

    __slots__ = ()

    def create(self, sn: Out[SnapshotInfo], vmstate_bs: Node, vm_state_size: int) -> Refusal | None:
        return self._group.all_create_snapshot(sn, vmstate_bs.name, vm_state_size, None)


wrong_culprit = planted("first_bad_bs names the first device of the walk", Parts(classic_group=_NamesTheFirst))
stale_first_bad = planted("first_bad_bs is not NULL on success", Parts(classic_group=_LeavesTheLast))
innocent_touched = planted("a walk goes on after a failure", Parts(classic_group=_GoesOn))
lock_kept = planted("an AioContext is not released on the error path", Parts(classic_group=_KeepsTheLock))
id_or_name = planted("bdrv_snapshot_find matches ids as well as names", Parts(node=_FindsIdsToo))
no_rollback = planted("savevm leaves what it created before it failed", Parts(modern_calls=_RollsNothingBack))
