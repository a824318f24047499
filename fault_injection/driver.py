"""A driver that obeys a plan of faults.

The model of a failing driver call: the call is *not made*, and answers an errno. So nothing of it is done, nothing is
damaged, and the driver below does not know of it; a caller can not tell it from a driver that refused at once. Errors
half way through a call come from I/O faults below the driver (disk.py), never from here.

A list call is a `find` while the generic layer is inside bdrv_snapshot_find of the device (SPEC A.1), else a `list`.
Only the calls of `model.faults.CALLS` are met; guest I/O, VM state and close pass through untouched.
"""

from collections.abc import Sequence
from typing import cast

from snapcheck.fault_injection.watch import Site
from snapcheck.impl.blockfile import BlockError
from snapcheck.impl.driver import Clonable, Driver, Out
from snapcheck.model.history import Check
from snapcheck.model.snapshot import SnapshotInfo


class FaultyDriver:
    """A driver whose snapshot calls meet the faults that its plan has armed for `device`."""

    __slots__ = ("_driver", "_site", "capabilities", "device")

    def __init__(self, site: Site, driver: Driver) -> None:
        self.device = site.device
        self.capabilities = driver.capabilities
        self._site = site
        self._driver = driver

    def snapshot_create(self, sn: Out[SnapshotInfo]) -> None:
        if self._site.calls:
            self._strike("create")
        self._driver.snapshot_create(sn)

    def snapshot_goto(self, snapshot_id: str) -> None:
        if self._site.calls:
            self._strike("goto")
        self._driver.snapshot_goto(snapshot_id)

    def snapshot_delete(self, snapshot_id: str | None, name: str | None) -> None:
        if self._site.calls:
            self._strike("delete")
        self._driver.snapshot_delete(snapshot_id, name)

    def snapshot_list(self) -> Sequence[SnapshotInfo]:
        if self._site.calls:
            self._strike("find" if self._site.finding else "list")
        return self._driver.snapshot_list()

    def snapshot_load_tmp(self, snapshot_id: str | None, name: str | None) -> None:
        if self._site.calls:
            self._strike("load_tmp")
        self._driver.snapshot_load_tmp(snapshot_id, name)

    def _strike(self, function: str) -> None:
        errno = self._site.call_struck(function)
        if errno is not None:
            raise BlockError(errno, f"{errno.name} injected into {function} of {self.device}")

    # --- what no fault meets --------------------------------------------------------------------------
    def close(self) -> None:
        self._driver.close()

    def size(self) -> int:
        return self._driver.size()

    def read(self, offset: int, length: int) -> bytes:
        return self._driver.read(offset, length)

    def write(self, offset: int, data: bytes) -> None:
        self._driver.write(offset, data)

    def write_zeroes(self, offset: int, length: int) -> None:
        self._driver.write_zeroes(offset, length)

    def discard(self, offset: int, length: int) -> None:
        self._driver.discard(offset, length)

    def flush(self) -> None:
        self._driver.flush()

    def resize(self, size_bytes: int) -> None:
        self._driver.resize(size_bytes)

    def vmstate_read(self, offset: int, length: int) -> bytes:
        return self._driver.vmstate_read(offset, length)

    def vmstate_write(self, offset: int, data: bytes) -> None:
        self._driver.vmstate_write(offset, data)

    def check(self) -> Check:
        return self._driver.check()

    def clone(self) -> Driver:
        return cast("Clonable", self._driver).clone()  # only a driver that declares it is asked
