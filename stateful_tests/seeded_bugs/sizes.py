"""Bugs planted in the engine around sizes: that of the disk in a snapshot, and the VM state behind its end."""

from dataclasses import replace
from typing import Final

from snapcheck.impl.checked import Failure
from snapcheck.impl.driver import Out
from snapcheck.impl.generic import Node
from snapcheck.impl.perform import Parts
from snapcheck.impl.qcow2 import snapshots
from snapcheck.impl.qcow2.driver import Qcow2Driver
from snapcheck.impl.qcow2.image import Image
from snapcheck.model.snapshot import SnapshotInfo
from snapcheck.stateful_tests.seeded_bugs.planting import Insider, in_engine, in_layers

_SECTOR: Final = 512


# --- the disk -------------------------------------------------------------------------------------
class _KeepsTheSize(Insider):
    """Goes back without the size that the disk had: it was never stored."""

    __slots__ = ()

    def snapshot_goto(self, snapshot_id: str) -> None:
        entries, size = self._state.snapshot_table.entries, self._image.size_bytes
        entries[:] = [replace(entry, disk_size=size) for entry in entries]
        super().snapshot_goto(snapshot_id)


class _ResizesFirst(Insider):
    """Changes the size before it goes back, so that a failure in between leaves neither the old state nor the new."""

    __slots__ = ()

    def snapshot_goto(self, snapshot_id: str) -> None:
        entry = snapshots.find_by_id_or_name(self._state, snapshot_id)
        if not self._image.bitmaps:
            self._image.resize(entry.disk_size)
        super().snapshot_goto(snapshot_id)


size_not_stored = in_engine("goto does not bring the size back", driver=_KeepsTheSize)
resized_first = in_engine("goto changes the size before anything else", driver=_ResizesFirst)


# --- the VM state ---------------------------------------------------------------------------------
class _FillsWithZeroes(Image):
    """Writes whole sectors of VM state, and takes what is around the new bytes for zeroes."""

    __slots__ = ()

    def vmstate_write(self, offset: int, data: bytes) -> None:
        before = offset % _SECTOR
        super().vmstate_write(offset - before, bytes(before) + data + bytes(-(before + len(data)) % _SECTOR))


class _CopiesNothingBehindTheEnd(Image):
    """Copies nothing around a write to a shared cluster that lies behind the end of the disk."""

    __slots__ = ()

    def vmstate_write(self, offset: int, data: bytes) -> None:
        state, size = self._state, self._state.header.cluster_bytes
        start = self._vmstate_start(offset, len(data))
        if data and not state.tables.own_offset(start // size):
            before = start % size
            offset, data = offset - before, bytes(before) + data + bytes(-(before + len(data)) % size)
        super().vmstate_write(offset, data)


class _CountsStateIn16Bits(Qcow2Driver):
    """Keeps 16 bits of the size of the VM state; in the original 32, for machines of gigabytes."""

    __slots__ = ()

    def snapshot_create(self, sn: Out[SnapshotInfo]) -> None:
        whole = sn.value.vm_state_size
        sn.value = replace(sn.value, vm_state_size=whole & 0xFFFF)
        try:
            super().snapshot_create(sn)
        finally:
            sn.value = replace(sn.value, vm_state_size=whole)


class _SeeksNowhere(Node):
    """Reads VM state from its beginning, wherever it was to be read."""

    __slots__ = ()

    def vmstate_read(self, offset: int, length: int) -> bytes | Failure:
        return super().vmstate_read(min(offset, 0), length)


vmstate_zero_filled = in_engine("partial writes of VM state zero what is around", image=_FillsWithZeroes)
vmstate_not_copied = in_engine("shared VM state is not copied on write", image=_CopiesNothingBehindTheEnd)
narrow_vmstate_size = in_engine("the size of the VM state has 16 bits", driver=_CountsStateIn16Bits)
seek_ignored = in_layers("VM state is read from its beginning", Parts(node=_SeeksNowhere))
