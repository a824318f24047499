"""A filter over a driver: everything that is not about snapshots passes through to what is below.

It has no snapshots of its own, so the generic layer falls back to its child for them (SPEC A.0).
"""

from collections.abc import Sequence
from typing import Final, NoReturn

from snapcheck.impl.blockfile import BlockError
from snapcheck.impl.driver import Capabilities, Driver, Out
from snapcheck.model.errno import Errno
from snapcheck.model.history import Check
from snapcheck.model.snapshot import SnapshotInfo


class WithoutSnapshots:
    """The part of a driver that one without snapshots, VM state and checker has: nobody calls it."""

    __slots__ = ()

    def snapshot_create(self, sn: Out[SnapshotInfo]) -> None:
        _refuse(sn)

    def snapshot_goto(self, snapshot_id: str) -> None:
        _refuse(snapshot_id)

    def snapshot_delete(self, snapshot_id: str | None, name: str | None) -> None:
        _refuse(snapshot_id, name)

    def snapshot_list(self) -> Sequence[SnapshotInfo]:
        _refuse()

    def snapshot_load_tmp(self, snapshot_id: str | None, name: str | None) -> None:
        _refuse(snapshot_id, name)

    def vmstate_read(self, offset: int, length: int) -> bytes:
        _refuse(offset, length)

    def vmstate_write(self, offset: int, data: bytes) -> None:
        _refuse(offset, data)

    def check(self) -> Check:
        _refuse()


def _refuse(*_: object) -> NoReturn:
    raise BlockError(Errno.ENOTSUP, "this driver declares no such capability")


WITHOUT_SNAPSHOTS: Final = Capabilities(snapshots=False, goto=False, load_tmp=False, vmstate=False)


class Filter(WithoutSnapshots):
    """A driver over the driver `below`, which is a node of its own and is closed by whoever opened it."""

    __slots__ = ("_below", "capabilities")

    def __init__(self, below: Driver) -> None:
        below.size()  # opening asks for the length, as QEMU's drivers do: it fails when nothing below answers (A.5 g)
        able = below.capabilities
        self._below = below
        self.capabilities = Capabilities(
            snapshots=False, goto=False, load_tmp=False, vmstate=False, resize=able.resize, discard=able.discard
        )

    def close(self) -> None:
        pass

    def size(self) -> int:
        return self._below.size()

    def read(self, offset: int, length: int) -> bytes:
        return self._below.read(offset, length)

    def write(self, offset: int, data: bytes) -> None:
        self._below.write(offset, data)

    def write_zeroes(self, offset: int, length: int) -> None:
        self._below.write_zeroes(offset, length)

    def discard(self, offset: int, length: int) -> None:
        self._below.discard(offset, length)

    def flush(self) -> None:
        self._below.flush()

    def resize(self, size_bytes: int) -> None:
        self._below.resize(size_bytes)
