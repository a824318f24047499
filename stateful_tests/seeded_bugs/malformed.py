"""Bugs planted in how the engine takes images that are not what they claim to be (BUGS section 3)."""

from typing import Self

from snapcheck.impl.blockfile import BlockError, BlockFile
from snapcheck.impl.driver import CreateOptions
from snapcheck.impl.qcow2 import snapshots
from snapcheck.impl.qcow2.driver import Qcow2Driver
from snapcheck.impl.qcow2.host import Words
from snapcheck.impl.qcow2.layout import ENTRY_BYTES_MIN, HEADER_BYTES, Header, ImageError, SnapshotEntry
from snapcheck.impl.qcow2.state import Parts, State
from snapcheck.impl.qcow2.tables import Tables
from snapcheck.stateful_tests.seeded_bugs.planting import Insider, in_engine


def _header_of(disk: BlockFile) -> Header | None:
    """Return what the header says, unchecked; None for one that can not even be parsed."""
    try:
        return Header.parse(disk.pread(0, HEADER_BYTES))
    except ImageError:
        return None


class _BelievesTheCount(Qcow2Driver):
    """Makes room for as many entries as the header says there are, before anything is checked."""

    __slots__ = ()

    @classmethod
    def open(cls, disk: BlockFile, *, read_only: bool, create: CreateOptions | None) -> Self:
        header = _header_of(disk) if create is None else None
        if header is not None:
            disk.pread(header.snapshots_offset, header.snapshot_count * ENTRY_BYTES_MIN)
        return super().open(disk, read_only=read_only, create=create)


class _CleansUpWhatIsNotThere(Qcow2Driver):
    """Has the count of snapshots when opening fails, and not yet the array that it would free."""

    __slots__ = ()

    @classmethod
    def open(cls, disk: BlockFile, *, read_only: bool, create: CreateOptions | None) -> Self:
        try:
            return super().open(disk, read_only=read_only, create=create)
        except BlockError as error:
            header = _header_of(disk)
            if header is not None and header.snapshot_count:
                raise MemoryError("NULL[0]") from error
            raise


class _LoadsUnchecked(Insider):
    """Loads a snapshot's L1 table for a look, however large it claims to be."""

    __slots__ = ()

    def snapshot_load_tmp(self, snapshot_id: str | None, name: str | None) -> None:
        state = self._state
        entry = state.snapshot_table.entries[snapshots.find(state, snapshot_id, name)]
        state.tables.load_l1(entry.l1_offset, entry.l1_size)
        super().snapshot_load_tmp(snapshot_id, name)


class _TrustsEntries(State):
    """Goes back to and deletes snapshots whose L1 table can not be where they say."""

    __slots__ = ()

    def snapshot_l1(self, entry: SnapshotEntry) -> Words:
        return self.tables.load_l1(entry.l1_offset, entry.l1_size)


class _TrustsPointers(Tables):
    """Follows pointers that are no multiple of the cluster size, or lie beyond everything that is counted."""

    __slots__ = ()

    def _require_cluster(self, offset: int, kind: str, target: str) -> None:
        pass


count_believed = in_engine("the number of snapshots is believed", driver=_BelievesTheCount)
null_cleanup = in_engine("a failed open frees what was never allocated", driver=_CleansUpWhatIsNotThere)
load_unchecked = in_engine("load_tmp reads an L1 table of any size", driver=_LoadsUnchecked)
l1_unchecked = in_engine("a snapshot's L1 table is not checked", state=_TrustsEntries)
pointers_unchecked = in_engine("pointers to tables and data are not checked", parts=Parts(tables=_TrustsPointers))
