"""Bugs planted in the calls on one node: finding, deleting, going back, loading for a look (BUGS section 4)."""

from snapcheck.impl.checked import CheckedDriver, CrashError, Failure
from snapcheck.impl.device import Device
from snapcheck.impl.driver import Out
from snapcheck.impl.generic import Node
from snapcheck.impl.perform import GUEST, Parts
from snapcheck.model.errno import Errno
from snapcheck.model.operations import SubmitWrite
from snapcheck.model.snapshot import SnapshotInfo
from snapcheck.stateful_tests.seeded_bugs.planting import in_layers


def _either(node: Node, text: str) -> SnapshotInfo | None:
    """Return the first snapshot that has `text` as its id or as its name."""
    listed = node.snapshot_list()
    infos = () if isinstance(listed, Failure) else listed
    return next((info for info in infos if text in (info.id_str, info.name)), None)


# --- ids and names --------------------------------------------------------------------------------
class _FindsIdsToo(Node):
    """Takes the argument for an id or a name, whichever comes first: savevm 1 deletes another's snapshot."""

    __slots__ = ()

    def _find(self, sn: Out[SnapshotInfo], name: str) -> Failure | None:
        found = _either(self, name)
        if found is None:
            return Failure(Errno.ENOENT, f"there is no snapshot {name!r}")
        sn.value = found
        return None


class _DeletesByOneString(Node):
    """Does not tell an id from a name: whatever has the text as one of them goes."""

    __slots__ = ()

    def _delete_drained(self, driver: CheckedDriver, snapshot_id: str | None, name: str | None) -> Failure | None:
        found = _either(self, name or snapshot_id or "")
        pair = (snapshot_id, name) if found is None else (found.id_str, found.name)
        return super()._delete_drained(driver, *pair)


class _LoadsByOneString(Node):
    """Does not tell an id from a name when it loads a snapshot for a look."""

    __slots__ = ()

    def _load_tmp(self, snapshot_id: str | None, name: str | None) -> Failure | None:
        found = _either(self, name or snapshot_id or "")
        pair = (snapshot_id, name) if found is None else (found.id_str, found.name)
        return super()._load_tmp(*pair)


id_or_name = in_layers("bdrv_snapshot_find matches ids as well as names", Parts(node=_FindsIdsToo))
delete_by_one_string = in_layers("delete does not tell ids from names", Parts(node=_DeletesByOneString))
load_by_one_string = in_layers("load_tmp does not tell ids from names", Parts(node=_LoadsByOneString))


# --- going back on the fallback -------------------------------------------------------------------
class _LosesTheChild(Node):
    """Opens the node again without the options that name its child."""

    __slots__ = ()

    def _goto_below(self, driver: CheckedDriver, child: Node, snapshot_id: str) -> Failure | None:
        failure = super()._goto_below(driver, child, snapshot_id)
        self.child = None
        return failure


class _CallsTheMissingCallback(Node):
    """Calls the close callback of a driver that need not have one."""

    __slots__ = ()

    def _goto_below(self, driver: CheckedDriver, child: Node, snapshot_id: str) -> Failure | None:
        if self.format_name == "filter":
            raise CrashError("call of NULL: the filter has no close callback")
        return super()._goto_below(driver, child, snapshot_id)


class _StaysClosed(Node):
    """Goes back below, and leaves the node closed: its driver can not be opened over a child."""

    __slots__ = ()

    def _goto_below(self, driver: CheckedDriver, child: Node, snapshot_id: str) -> Failure | None:
        failure = super()._goto_below(driver, child, snapshot_id)
        self.driver, self.child = None, None
        child.close()
        return failure


child_lost = in_layers("goto opens the node again without its child", Parts(node=_LosesTheChild))
null_callback = in_layers("goto calls a close callback that is not there", Parts(node=_CallsTheMissingCallback))
node_left_closed = in_layers("goto on a fallback leaves the node closed", Parts(node=_StaysClosed))


# --- checks in front of the driver ----------------------------------------------------------------
class _IgnoresBitmaps(Node):
    """Goes back although dirty bitmaps describe the content that is there."""

    __slots__ = ()

    def _goto(self, snapshot_id: str) -> Failure | None:
        bitmaps, self.bitmaps = self.bitmaps, set()
        try:
            return super()._goto(snapshot_id)
        finally:
            self.bitmaps = bitmaps


class _GivesNoReason(Node):
    """Fails to go back, and does not say why."""

    __slots__ = ()

    def _goto(self, snapshot_id: str) -> Failure | None:
        failure = super()._goto(snapshot_id)
        return failure and Failure(failure.errno, "")


class _IgnoresReadOnly(Node):
    """Looks at the mode that was configured, not at the one that the node is in."""

    __slots__ = ()

    def _can(self) -> bool:
        if self.driver is None or not self.inserted:
            return False
        return self.driver.capabilities.snapshots or (self.child is not None and self.child.can_snapshot())


bitmaps_ignored = in_layers("goto leaves dirty bitmaps that describe other content", Parts(node=_IgnoresBitmaps))
no_reason = in_layers("goto fails without an error text", Parts(node=_GivesNoReason))
read_only_ignored = in_layers("can_snapshot says yes on a node that can not be written", Parts(node=_IgnoresReadOnly))


# --- guest requests -------------------------------------------------------------------------------
class _NoDrain:
    """A drained section that waits for nothing."""

    def drained_begin(self) -> None:
        pass

    def drained_end(self) -> None:
        pass


class _DeletesUndrained(Node):
    """Deletes while guest writes are in flight."""

    __slots__ = ()

    def _delete(self, snapshot_id: str | None, name: str | None) -> Failure | None:
        drains, self.drains = self.drains, _NoDrain()
        try:
            return super()._delete(snapshot_id, name)
        finally:
            self.drains = drains


class _NeedsTheLockToDrain(Device):
    """Waits for requests whose I/O thread wants the AioContext that the one who waits is holding."""

    __slots__ = ()

    def land(self, request: SubmitWrite) -> None:
        self.lock.held(GUEST, super().land, request)


undrained_delete = in_layers("delete runs while guest writes are in flight", Parts(node=_DeletesUndrained))
drain_under_lock = in_layers("a drain waits for who wants the lock that is held", Parts(device=_NeedsTheLockToDrain))


# --- what a C program dies of ---------------------------------------------------------------------
class _PassesAStaleError(Node):
    """Hands the error object of a goto that failed to the next look-up, which asserts that it is unset."""

    __slots__ = ("_stale",)

    def _goto(self, snapshot_id: str) -> Failure | None:
        failure = super()._goto(snapshot_id)
        self._stale = failure is not None
        return failure

    def _find_by_id_and_name(self, snapshot_id: str | None, name: str | None, sn: Out[SnapshotInfo]) -> bool | Failure:
        if getattr(self, "_stale", False):
            raise CrashError("assertion: the error object is set already")
        return super()._find_by_id_and_name(snapshot_id, name, sn)


class _FreesWhatListLeft(Node):
    """Frees the array of a list that failed, which never set the pointer to it."""

    __slots__ = ()

    def _find(self, sn: Out[SnapshotInfo], name: str) -> Failure | None:
        if isinstance(self.snapshot_list(), Failure):
            raise CrashError("free of a pointer that was never set")
        return super()._find(sn, name)


stale_error = in_layers("a look-up gets the error object of a failed goto", Parts(node=_PassesAStaleError))
garbage_freed = in_layers("find frees garbage when the list fails", Parts(node=_FreesWhatListLeft))
