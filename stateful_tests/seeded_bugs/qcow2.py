"""Bugs planted in the qcow2 engine, each a few lines in one place."""

from snapcheck.impl.blockfile import BlockError, BlockFile
from snapcheck.impl.driver import CreateOptions, Out
from snapcheck.impl.qcow2 import driver as engine
from snapcheck.impl.qcow2.driver import Qcow2Driver
from snapcheck.impl.qcow2.layout import SnapshotEntry, strtoul, with_id
from snapcheck.impl.targets import Target
from snapcheck.model.faults import REGIONS
from snapcheck.model.snapshot import SnapshotInfo


def planted(what: str, driver: type[Qcow2Driver]) -> Target:
    """Return the engine with another class in front of its images."""

    def open_driver(disk: BlockFile, *, read_only: bool, create: CreateOptions | None) -> Qcow2Driver:
        opened = engine.open_driver(disk, read_only=read_only, create=create)
        return driver(opened._image)  # pyright: ignore[reportPrivateUsage]  # a seeded bug breaks into the engine

    return Target("planted", what, open_driver, regions=REGIONS)


class _CountsTheFailed(Qcow2Driver):
    """After a create that failed the list is one entry too long (B08, 84757f7e67)."""

    __slots__ = ()

    def snapshot_create(self, sn: Out[SnapshotInfo]) -> None:
        try:
            super().snapshot_create(sn)
        except BlockError:
            state = self._image._state  # pyright: ignore[reportPrivateUsage]  # a seeded bug breaks into the engine
            garbage = SnapshotEntry(SnapshotInfo(), state.header.l1_offset, state.header.l1_size, state.header.size)
            state.snapshot_table.entries.append(garbage)
            raise


class _CountsIn32Bits(Qcow2Driver):
    """The next id is worked out in a type of 32 bits (B27, 00c49b21e7)."""

    __slots__ = ()

    def snapshot_create(self, sn: Out[SnapshotInfo]) -> None:
        largest = max((strtoul(entry.info.id_str) & 0xFFFFFFFF for entry in self._image.snapshots), default=0)
        sn.value = with_id(sn.value, str(largest + 1 & 0xFFFFFFFF))
        self._image.add_snapshot(sn.value)


count_not_restored = planted("a failed create leaves an entry in the list in memory", _CountsTheFailed)
narrow_id = planted("snapshot ids are counted in 32 bits", _CountsIn32Bits)
