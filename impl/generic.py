"""The snapshot calls on one node (SPEC A.0 to A.9): the checks in front of a driver, and the fallback to a child.

A node without a driver has no medium (QEMU's drv == NULL). Every call is shown to the recorder: entered and returned,
here and in the driver below. This is under test: it follows the specification and knows nothing of the model.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final, Protocol, TypeVar, TypeVarTuple

from snapcheck.impl.checked import CheckedDriver, Failure, open_layer
from snapcheck.impl.driver import Driver, Out
from snapcheck.model.errno import Errno
from snapcheck.model.history import Call, Lock, Recorder
from snapcheck.model.snapshot import SnapshotInfo

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

NO_MEDIUM: Final = Failure(Errno.ENOMEDIUM, "No medium found")
_NOT_SUPPORTED: Final = Failure(Errno.ENOTSUP, "Operation not supported")
_NEITHER: Final = Failure(Errno.EINVAL, "snapshot_id and name are both NULL")

# The same few events come again and again, and most of a history's memory is events.
call_event: Final = lru_cache(maxsize=1024)(Call)
lock_event: Final = lru_cache(maxsize=256)(Lock)


class AioContext:
    """Who may work on a device. The owner may acquire it again; others are recorded as blocked, and never wait."""

    __slots__ = ("_depth", "_device", "_owner", "_recorder")

    def __init__(self, device: str, recorder: Recorder) -> None:
        self._device = device
        self._recorder = recorder
        self._owner: str | None = None
        self._depth = 0

    def acquire(self, owner: str) -> None:
        if self._owner not in (None, owner):
            self._recorder.emit(lock_event(self._device, "blocked", owner))
            return
        self._owner = owner
        self._depth += 1
        self._recorder.emit(lock_event(self._device, "acquire", owner))

    def release(self, owner: str) -> None:
        """Give it back; who was blocked has nothing to give back."""
        if self._owner != owner:
            return
        self._depth -= 1
        if not self._depth:
            self._owner = None
        self._recorder.emit(lock_event(self._device, "release", owner))

    def held(self, owner: str, call: Callable[[*Ts], T], *args: *Ts) -> T:
        """Call with the context held, and give it back whatever comes of it."""
        self.acquire(owner)
        try:
            return call(*args)
        finally:
            self.release(owner)


class Drains(Protocol):
    """A device whose guest requests can be waited for: none is in flight inside a drained section."""

    def drained_begin(self) -> None: ...
    def drained_end(self) -> None: ...


class Node:
    """One node of a device: the root, or the child that it falls back to.

    format_name what the driver is called in error texts
    layer       opens the driver of a node that lies over a child; None where the driver has a file of its own
    driver      None without a medium
    child       the node that A.0 falls back to, None while it is detached
    bitmaps     names of the dirty bitmaps
    """

    __slots__ = (
        "bitmaps",
        "child",
        "device",
        "drains",
        "driver",
        "format_name",
        "layer",
        "lock",
        "name",
        "read_only",
        "recorder",
    )

    def __init__(
        self, name: str, *, format_name: str, lock: AioContext, drains: Drains, recorder: Recorder,
        layer: Callable[[Driver], Driver] | None = None,
    ) -> None:  # fmt: skip
        self.name = name
        self.device = name.partition("/")[0]
        self.format_name = format_name
        self.layer = layer
        self.lock = lock
        self.drains = drains
        self.recorder = recorder
        self.driver: CheckedDriver | None = None
        self.child: Node | None = None
        self.read_only = False
        self.bitmaps: set[str] = set()

    # --- opening and closing ----------------------------------------------------------------------
    def attach(self, child: "Node") -> Failure | None:
        """Open this node's own driver over `child`, which is open."""
        assert self.layer is not None
        assert child.driver is not None
        opened = open_layer(self.layer, child.driver)
        if isinstance(opened, Failure):
            return opened
        self.driver, self.child = opened, child
        return None

    def close(self) -> Failure | None:
        """Close the driver; dirty bitmaps go with it."""
        driver, self.driver, self.child = self.driver, None, None
        self.bitmaps.clear()
        return None if driver is None else driver.close()

    @property
    def inserted(self) -> bool:
        """Whether there is a medium, here and in the child (SPEC A.3)."""
        return self.driver is not None and (self.child is None or self.child.inserted)

    # --- can_snapshot (A.3) -----------------------------------------------------------------------
    def can_snapshot(self) -> bool:
        """Tell whether snapshots can be taken: by this node's driver or, if it has no such function, by the child."""
        self._enter("can")
        can = self._can()
        self.recorder.emit(
            call_event(self.device, self.name, "can", "generic", "return", Errno.OK if can else Errno.ENOTSUP)
        )
        return can

    def _can(self) -> bool:
        if self.driver is None or not self.inserted or self.read_only:
            return False
        return self.driver.capabilities.snapshots or (self.child is not None and self.child.can_snapshot())

    # --- create (A.4) -----------------------------------------------------------------------------
    def snapshot_create(self, sn: Out[SnapshotInfo]) -> Failure | None:
        """Take a snapshot as `sn` says; the driver writes the id that it chose into `sn`."""
        self._enter("create")
        return self._leave("create", self._create(sn))

    def _create(self, sn: Out[SnapshotInfo]) -> Failure | None:
        driver = self.driver
        if driver is None:
            return NO_MEDIUM
        if driver.capabilities.snapshots:
            return self._call("create", driver.snapshot_create, sn)
        return _NOT_SUPPORTED if self.child is None else self.child.snapshot_create(sn)

    # --- goto (A.5) -------------------------------------------------------------------------------
    def snapshot_goto(self, snapshot_id: str) -> Failure | None:
        """Go back to a snapshot. Dirty bitmaps forbid it, at each level of the fallback separately."""
        self._enter("goto")
        return self._leave("goto", self._goto(snapshot_id))

    def _goto(self, snapshot_id: str) -> Failure | None:
        driver = self.driver
        if driver is None:
            return Failure(Errno.ENOMEDIUM, "Block driver is closed")
        if self.bitmaps:
            return Failure(Errno.EBUSY, "Device has active dirty bitmaps")
        if driver.capabilities.goto:
            failure = self._call("goto", driver.snapshot_goto, snapshot_id)
            return failure and Failure(failure.errno, f"Failed to load snapshot: {failure.message}")
        if self.child is not None:
            return self._goto_below(driver, self.child, snapshot_id)
        return Failure(Errno.ENOTSUP, "Block driver does not support snapshots")

    def _goto_below(self, driver: CheckedDriver, child: "Node", snapshot_id: str) -> Failure | None:
        """Close this node's driver, let the child go back, and open again, whatever came of it."""
        driver.close()
        self.child = None
        failure = child.snapshot_goto(snapshot_id)
        unopened = self.attach(child)
        if unopened is not None:  # the node is dead, and with it the child that nobody refers to any more (W-26)
            self.driver = None
            child.close()
        return failure or unopened

    # --- delete (A.6) -----------------------------------------------------------------------------
    def snapshot_delete(self, snapshot_id: str | None, name: str | None) -> Failure | None:
        """Delete a snapshot, while no guest request is in flight."""
        self._enter("delete")
        return self._leave("delete", self._delete(snapshot_id, name))

    def _delete(self, snapshot_id: str | None, name: str | None) -> Failure | None:
        if self.driver is None:
            return self._without_medium()
        if snapshot_id is None and name is None:
            return _NEITHER
        self.drains.drained_begin()
        try:
            return self._delete_drained(self.driver, snapshot_id, name)
        finally:
            self.drains.drained_end()

    def _delete_drained(self, driver: CheckedDriver, snapshot_id: str | None, name: str | None) -> Failure | None:
        if driver.capabilities.snapshots:
            return self._call("delete", driver.snapshot_delete, snapshot_id, name)
        if self.child is not None:
            return self.child.snapshot_delete(snapshot_id, name)
        return self._unsupported("internal snapshot deletion")

    # --- list and find (A.7, A.1, A.2) ------------------------------------------------------------
    def snapshot_list(self) -> Sequence[SnapshotInfo] | Failure:
        """Return the snapshots in the order of the table."""
        self._enter("list")
        listed = self._list()
        self._leave("list", listed if isinstance(listed, Failure) else None)
        return listed

    def _list(self) -> Sequence[SnapshotInfo] | Failure:
        driver = self.driver
        if driver is None:
            return NO_MEDIUM
        if driver.capabilities.snapshots:
            emit = self.recorder.emit
            emit(call_event(self.device, self.name, "list", "driver", "enter"))
            listed = driver.snapshot_list()
            errno = listed.errno if isinstance(listed, Failure) else Errno.OK
            emit(call_event(self.device, self.name, "list", "driver", "return", errno))
            return listed
        return _NOT_SUPPORTED if self.child is None else self.child.snapshot_list()

    def snapshot_find(self, sn: Out[SnapshotInfo], name: str) -> Failure | None:
        """Write the first snapshot of that name into `sn`. Every error looks like a miss, which leaves `sn` alone."""
        self._enter("find")
        return self._leave("find", self._find(sn, name))

    def _find(self, sn: Out[SnapshotInfo], name: str) -> Failure | None:
        listed = self.snapshot_list()
        if not isinstance(listed, Failure):
            for info in listed:
                if info.name == name:
                    sn.value = info
                    return None
        return Failure(Errno.ENOENT, f"there is no snapshot {name!r}")

    def snapshot_find_by_id_and_name(
        self, snapshot_id: str | None, name: str | None, sn: Out[SnapshotInfo]
    ) -> bool | Failure:
        """Write the first snapshot that matches all that is given into `sn`, and tell whether there is one."""
        assert snapshot_id is not None or name is not None, "a caller gives one of them (A.2)"
        self._enter("find_by_id_and_name")
        found = self._find_by_id_and_name(snapshot_id, name, sn)
        errno = found.errno if isinstance(found, Failure) else Errno.OK if found else Errno.ENOENT
        self.recorder.emit(call_event(self.device, self.name, "find_by_id_and_name", "generic", "return", errno))
        return found

    def _find_by_id_and_name(self, snapshot_id: str | None, name: str | None, sn: Out[SnapshotInfo]) -> bool | Failure:
        listed = self.snapshot_list()
        if isinstance(listed, Failure):
            return Failure(listed.errno, f"Failed to get a snapshot list: {listed.message}")
        for info in listed:
            if snapshot_id in (None, info.id_str) and name in (None, info.name):
                sn.value = info
                return True
        return False

    # --- load_tmp (A.8, A.9) ----------------------------------------------------------------------
    def snapshot_load_tmp(self, snapshot_id: str | None, name: str | None) -> Failure | None:
        """Show a snapshot's content until the node is closed; the node must be read-only, and no child helps out."""
        self._enter("load_tmp")
        return self._leave("load_tmp", self._load_tmp(snapshot_id, name))

    def _load_tmp(self, snapshot_id: str | None, name: str | None) -> Failure | None:
        driver = self.driver
        if driver is None:
            return self._without_medium()
        if snapshot_id is None and name is None:
            return _NEITHER
        if not self.read_only:
            return Failure(Errno.EINVAL, "Device is not readonly")
        if driver.capabilities.load_tmp:
            return self._call("load_tmp", driver.snapshot_load_tmp, snapshot_id, name)
        return self._unsupported("temporarily loading internal snapshots")

    def snapshot_load_tmp_by_id_or_name(self, id_or_name: str) -> Failure | None:
        """Try `id_or_name` as an id and, when that finds nothing or is refused as invalid, as a name."""
        failure = self.snapshot_load_tmp(id_or_name, None)
        if failure is not None and failure.errno in (Errno.ENOENT, Errno.EINVAL):
            return self.snapshot_load_tmp(None, id_or_name)
        return failure

    # --- VM state (B.9) and flush -----------------------------------------------------------------
    def vmstate_write(self, offset: int, data: bytes) -> Failure | None:
        """Write VM state; a driver that keeps none leaves it to the child."""
        driver = self.driver
        if driver is None:
            return NO_MEDIUM
        if self.read_only:
            return Failure(Errno.EPERM, "Device is read-only")
        if driver.capabilities.vmstate:
            return driver.vmstate_write(offset, data)
        return _NOT_SUPPORTED if self.child is None else self.child.vmstate_write(offset, data)

    def vmstate_read(self, offset: int, length: int) -> bytes | Failure:
        """Read VM state; a driver that keeps none leaves it to the child."""
        driver = self.driver
        if driver is None:
            return NO_MEDIUM
        if driver.capabilities.vmstate:
            return driver.vmstate_read(offset, length)
        return _NOT_SUPPORTED if self.child is None else self.child.vmstate_read(offset, length)

    def flush(self) -> Failure | None:
        """Make durable what was written."""
        return NO_MEDIUM if self.driver is None else self.driver.flush()

    # --- helpers ----------------------------------------------------------------------------------
    def _enter(self, function: str) -> None:
        self.recorder.emit(call_event(self.device, self.name, function, "generic", "enter"))

    def _leave(self, function: str, failure: Failure | None) -> Failure | None:
        errno = Errno.OK if failure is None else failure.errno
        self.recorder.emit(call_event(self.device, self.name, function, "generic", "return", errno))
        return failure

    def _call(self, function: str, method: Callable[[*Ts], Failure | None], *args: *Ts) -> Failure | None:
        """Call the driver, and show it to the recorder."""
        emit = self.recorder.emit
        emit(call_event(self.device, self.name, function, "driver", "enter"))
        failure = method(*args)
        errno = Errno.OK if failure is None else failure.errno
        emit(call_event(self.device, self.name, function, "driver", "return", errno))
        return failure

    def _without_medium(self) -> Failure:
        return Failure(Errno.ENOMEDIUM, f"Device '{self.name}' has no medium")

    def _unsupported(self, what: str) -> Failure:
        text = f"Block format '{self.format_name}' used by device '{self.name}' does not support {what}"
        return Failure(Errno.ENOTSUP, text)
