"""Bugs planted in the engine's snapshot table: ids, names, errnos, and what memory says after a failure."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from snapcheck.impl.blockfile import BlockError
from snapcheck.impl.driver import Out
from snapcheck.impl.qcow2 import snapshots
from snapcheck.impl.qcow2.driver import Qcow2Driver
from snapcheck.impl.qcow2.layout import SnapshotEntry, strtoul, with_id
from snapcheck.impl.qcow2.state import State
from snapcheck.model.errno import Errno
from snapcheck.model.snapshot import SnapshotInfo, cut_text
from snapcheck.stateful_tests.seeded_bugs.planting import Insider, in_engine

_NAME_BYTES_KEPT: Final = 127


# --- ids, names, entries --------------------------------------------------------------------------
class _CountsIn32Bits(Qcow2Driver):
    """The next id is worked out in a type of 32 bits."""

    __slots__ = ()

    def snapshot_create(self, sn: Out[SnapshotInfo]) -> None:
        largest = max((strtoul(entry.info.id_str) & 0xFFFFFFFF for entry in self._image.snapshots), default=0)
        sn.value = with_id(sn.value, str(largest + 1 & 0xFFFFFFFF))
        self._image.add_snapshot(sn.value)


class _CutsNames(Qcow2Driver):
    """Stores as much of a name as an id may have."""

    __slots__ = ()

    def snapshot_create(self, sn: Out[SnapshotInfo]) -> None:
        whole = sn.value.name
        sn.value = replace(sn.value, name=cut_text(whole, bytes_max=_NAME_BYTES_KEPT))
        try:
            super().snapshot_create(sn)
        finally:
            sn.value = replace(sn.value, name=whole)


class _PacksEntries(State):
    """Writes the entries without the gaps that make each start at a multiple of 8."""

    __slots__ = ()

    def packed(self, entries: Sequence[SnapshotEntry]) -> bytes:
        return b"".join(entry.pack() for entry in entries)


class _PutsTheNewFirst(Insider):
    """Puts a new snapshot at the front of the list."""

    __slots__ = ()

    def snapshot_create(self, sn: Out[SnapshotInfo]) -> None:
        super().snapshot_create(sn)
        entries = self._state.snapshot_table.entries
        entries.insert(0, entries.pop())


narrow_id = in_engine("snapshot ids are counted in 32 bits", driver=_CountsIn32Bits)
name_cut_short = in_engine("names are cut at 127 bytes", driver=_CutsNames)
entries_packed = in_engine("entries of the snapshot table are not aligned", state=_PacksEntries)
new_first = in_engine("a new snapshot comes first in the list", driver=_PutsTheNewFirst)


# --- after a failure ------------------------------------------------------------------------------
class _CountsTheFailed(Insider):
    """After a create that failed the list is one entry too long."""

    __slots__ = ()

    def snapshot_create(self, sn: Out[SnapshotInfo]) -> None:
        try:
            super().snapshot_create(sn)
        except BlockError:
            header = self._state.header
            garbage = SnapshotEntry(SnapshotInfo(), header.l1_offset, header.l1_size, header.size)
            self._state.snapshot_table.entries.append(garbage)
            raise


class _ForgetsTheDeleted(Insider):
    """Takes an entry out of the list in memory first, and does not put it back when the table can not be written."""

    __slots__ = ()

    def snapshot_delete(self, snapshot_id: str | None, name: str | None) -> None:
        try:
            super().snapshot_delete(snapshot_id, name)
        except BlockError as error:
            if error.errno is not Errno.ENOENT and not self._image.dead:
                self._state.snapshot_table.entries.pop(snapshots.find(self._state, snapshot_id, name))
            raise


class _LosesTheErrno(Qcow2Driver):
    """Returns -1 for whatever went wrong."""

    __slots__ = ()

    def snapshot_create(self, sn: Out[SnapshotInfo]) -> None:
        try:
            super().snapshot_create(sn)
        except BlockError as error:
            raise BlockError(Errno.EPERM, str(error)) from error


class _StaysBusy(Qcow2Driver):
    """After a create that failed, all later ones are refused until the image is opened again."""

    __slots__ = ("_busy",)

    def snapshot_create(self, sn: Out[SnapshotInfo]) -> None:
        if getattr(self, "_busy", False):
            raise BlockError(Errno.EBUSY, "a snapshot is being taken")
        self._busy = True
        super().snapshot_create(sn)
        self._busy = False


count_not_restored = in_engine("a failed create leaves an entry in the list in memory", driver=_CountsTheFailed)
deleted_in_memory = in_engine("a failed delete takes the entry out of the list in memory", driver=_ForgetsTheDeleted)
errno_lost = in_engine("create returns -1 instead of the errno", driver=_LosesTheErrno)
busy_for_ever = in_engine("a create that failed blocks all later ones", driver=_StaysBusy)


# --- nothing there --------------------------------------------------------------------------------
class _MissingIsDeleted(Qcow2Driver):
    """Reports success for a delete of what is not there."""

    __slots__ = ()

    def snapshot_delete(self, snapshot_id: str | None, name: str | None) -> None:
        try:
            super().snapshot_delete(snapshot_id, name)
        except BlockError as error:
            if error.errno is not Errno.ENOENT:
                raise


class _DeletesNothing(Qcow2Driver):
    """Has a delete that does nothing."""

    __slots__ = ()

    def snapshot_delete(self, snapshot_id: str | None, name: str | None) -> None:
        pass


class _NeedsContent(Qcow2Driver):
    """Can not take a snapshot of an empty disk: there is nothing to count."""

    __slots__ = ()

    def snapshot_create(self, sn: Out[SnapshotInfo]) -> None:
        if not self._image.size_bytes:
            raise BlockError(Errno.EINVAL, "an update of zero refcounts")
        super().snapshot_create(sn)


class _NeedsEntries(Qcow2Driver):
    """Can not list nothing: it allocates an array of no bytes."""

    __slots__ = ()

    def snapshot_list(self) -> Sequence[SnapshotInfo]:
        listed = super().snapshot_list()
        if not listed:
            raise BlockError(Errno.ENOMEM, "an allocation of 0 bytes")
        return listed


missing_deleted = in_engine("a delete of a missing snapshot is success", driver=_MissingIsDeleted)
delete_is_a_stub = in_engine("delete does nothing and reports success", driver=_DeletesNothing)
empty_disk_refused = in_engine("an empty disk can have no snapshot", driver=_NeedsContent)
empty_list_fails = in_engine("a list without snapshots fails", driver=_NeedsEntries)
