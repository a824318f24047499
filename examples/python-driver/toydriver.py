"""A small block driver with internal snapshots: replace its parts by yours, and keep `snapcheck run` green.

The image is made of slots of 4 KiB. Slot 0 holds the superblock, which says where the table is; the table says in
which slot each chunk of the disk lies, now and in each snapshot. A change goes into free slots, then a new table does,
then the superblock, which is one sector, switches over to it: so every error leaves the old state or the new one.
Which slots are free is not stored anywhere: it follows from the table.
"""

import json
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Final
from zlib import crc32

from snapcheck.impl.driver import BlockError, BlockFile, Capabilities, CreateOptions, Out
from snapcheck.model.errno import Errno
from snapcheck.model.history import Check
from snapcheck.model.snapshot import SnapshotInfo, as_listed

SLOT: Final = 4096
VMSTATE: Final = 1 << 40  # where the VM state begins, in the same space of offsets as the disk
SUPERBLOCK: Final = struct.Struct(">8sQQI")  # magic, offset of the table, its length and its checksum
MAGIC: Final = b"toydriver"[:8].ljust(8, b"\0")

Chunks = dict[int, int]  # which slot holds a chunk; a chunk that has none reads as zeroes


@dataclass(frozen=True)
class Snapshot:
    """A table entry, and what it holds."""

    info: SnapshotInfo
    size: int
    chunks: Chunks


@dataclass(frozen=True)
class Table:
    """All that there is to know of an image."""

    size: int
    chunks: Chunks
    snapshots: tuple[Snapshot, ...] = ()

    def slots(self) -> set[int]:
        """Return the slots that hold data."""
        return {*self.chunks.values(), *(slot for each in self.snapshots for slot in each.chunks.values())}

    def pack(self) -> bytes:
        """Return the table as it is stored."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def parse(cls, raw: bytes) -> "Table":
        """Return what `pack` stored."""
        data = json.loads(raw)
        snapshots = tuple(
            Snapshot(SnapshotInfo(**each["info"]), each["size"], _chunks(each["chunks"])) for each in data["snapshots"]
        )
        return cls(data["size"], _chunks(data["chunks"]), snapshots)


def _chunks(raw: dict[str, int]) -> Chunks:
    return {int(chunk): slot for chunk, slot in raw.items()}  # the keys of JSON are text


def open_driver(disk: BlockFile, *, read_only: bool, create: CreateOptions | None) -> "Driver":
    """Open the image on `disk`, or make a new one first: what snapcheck calls."""
    driver = Driver(disk, read_only=read_only)
    if create is None:
        driver.load()
    else:
        driver.publish(Table(create.size_bytes, {}))
    return driver


class Driver:
    """One open device; `snapcheck.impl.driver.Driver` says what each method must do."""

    capabilities = Capabilities()

    def __init__(self, disk: BlockFile, *, read_only: bool) -> None:
        self._disk = disk
        self._read_only = read_only
        self._in_doubt = False  # whether the superblock may point at a table that was given up
        self._place = (0, 0, 0)  # offset, length and checksum of the table
        self._table = Table(0, {})
        self._view: Chunks | None = None  # what load_tmp shows until the device is closed

    # --- the table ----------------------------------------------------------------------------------
    def load(self) -> None:
        """Read the table."""
        magic, *place = SUPERBLOCK.unpack(self._disk.pread(0, SUPERBLOCK.size, region="header"))
        offset, length, checksum = place
        if magic != MAGIC or not 0 < length <= self._disk.size():
            raise BlockError(Errno.EINVAL, "this is no image of toydriver")
        raw = self._disk.pread(offset, length, region="snapshot-table")
        if crc32(raw) != checksum:
            raise BlockError(Errno.EINVAL, "the table is damaged")
        self._place = (offset, length, checksum)
        self._table = Table.parse(raw)

    def publish(self, table: Table) -> None:
        """Make `table` the valid one; after an error the old one is, in memory and on disk."""
        raw = table.pack()
        place = (SLOT * self._free_slots(-(-len(raw) // SLOT), besides=table.slots())[0], len(raw), crc32(raw))
        self._disk.pwrite(place[0], raw, region="snapshot-table")
        self._disk.flush()  # the table has to be there before anything points at it
        try:
            self._point_at(place)
            self._disk.flush()
        except BlockError:
            self._in_doubt = True  # an error does not tell whether the superblock landed
            with suppress(BlockError):
                self._settle()
            raise
        self._table, self._place = table, place

    def _point_at(self, place: tuple[int, int, int]) -> None:
        sector = SUPERBLOCK.pack(MAGIC, *place).ljust(512, b"\0")
        self._disk.pwrite(0, sector, region="header")

    def _settle(self) -> None:
        """Make the superblock say what is so in memory, if there is any doubt; nothing else is written before that."""
        if self._in_doubt:
            self._point_at(self._place)
            self._in_doubt = False

    def _free_slots(self, count: int, *, besides: set[int]) -> range:
        """Return the first `count` slots in a row that neither the valid table nor `besides` use."""
        offset, length, _ = self._place
        used = self._table.slots() | besides | {0, *range(offset // SLOT, -(-(offset + length) // SLOT))}
        first = 1
        while clash := used.intersection(range(first, first + count)):
            first = max(clash) + 1
        return range(first, first + count)

    # --- chunks -------------------------------------------------------------------------------------
    def _require_writable(self) -> None:
        if self._read_only:
            raise BlockError(Errno.EPERM, "the image is read-only")
        self._settle()

    def _load(self, offset: int, length: int) -> bytes:
        chunks = self._table.chunks if self._view is None else self._view
        return b"".join(
            self._disk.pread(chunks[chunk] * SLOT + start, count, region="data") if chunk in chunks else bytes(count)
            for chunk, start, count in _pieces(offset, length)
        )

    def _store(self, offset: int, data: bytes) -> None:
        """Write in place what no snapshot holds, the rest into new slots."""
        self._require_writable()
        frozen = {slot for each in self._table.snapshots for slot in each.chunks.values()}
        chunks, done = self._table.chunks.copy(), 0
        for chunk, start, count in _pieces(offset, len(data)):
            piece, slot = data[done : done + count], chunks.get(chunk)
            if slot is not None and slot not in frozen:
                self._disk.pwrite(slot * SLOT + start, piece, region="data")
            else:
                old = self._load(chunk * SLOT, SLOT)
                chunks[chunk] = self._free_slots(1, besides=set(chunks.values()))[0]
                whole = old[:start] + piece + old[start + count :]
                self._disk.pwrite(chunks[chunk] * SLOT, whole, region="data")
            done += count
        if chunks != self._table.chunks:
            self.publish(replace(self._table, chunks=chunks))

    # --- guest I/O ----------------------------------------------------------------------------------
    def close(self) -> None:
        self.flush()

    def size(self) -> int:
        return self._table.size

    def read(self, offset: int, length: int) -> bytes:
        return self._load(offset, length)

    def write(self, offset: int, data: bytes) -> None:
        self._store(offset, data)

    def write_zeroes(self, offset: int, length: int) -> None:
        self._store(offset, bytes(length))

    def discard(self, offset: int, length: int) -> None:
        self._store(offset, bytes(length))

    def flush(self) -> None:
        self._settle()
        self._disk.flush()

    def resize(self, size_bytes: int) -> None:
        self._require_writable()
        end = -(-size_bytes // SLOT)
        chunks = {chunk: slot for chunk, slot in self._table.chunks.items() if chunk < end or chunk >= VMSTATE // SLOT}
        if size_bytes % SLOT and end - 1 in chunks:  # what lies behind the end must not come back when it grows
            kept = self._load((end - 1) * SLOT, size_bytes % SLOT)
            chunks[end - 1] = self._free_slots(1, besides=set())[0]
            self._disk.pwrite(chunks[end - 1] * SLOT, kept.ljust(SLOT, b"\0"), region="data")
        self.publish(replace(self._table, size=size_bytes, chunks=chunks))

    def vmstate_read(self, offset: int, length: int) -> bytes:
        return self._load(VMSTATE + offset, length)

    def vmstate_write(self, offset: int, data: bytes) -> None:
        self._store(VMSTATE + offset, data)

    # --- snapshots ----------------------------------------------------------------------------------
    def snapshot_create(self, sn: Out[SnapshotInfo]) -> None:
        """Keep the chunks as they are; the VM state belongs to the snapshot from now on."""
        self._require_writable()
        table = self._table
        newest = max((int(each.info.id_str) for each in table.snapshots), default=0)
        sn.value = replace(sn.value, id_str=str(newest + 1))
        snapshot = Snapshot(sn.value, table.size, table.chunks)
        moved = range(VMSTATE // SLOT, -(-(VMSTATE + sn.value.vm_state_size) // SLOT))
        left = {chunk: slot for chunk, slot in table.chunks.items() if chunk not in moved}
        self.publish(Table(table.size, left, (*table.snapshots, snapshot)))

    def snapshot_goto(self, snapshot_id: str) -> None:
        self._require_writable()
        by_id = [each for each in self._table.snapshots if each.info.id_str == snapshot_id]
        snapshot = by_id[0] if by_id else self._find(None, snapshot_id)
        self.publish(replace(self._table, size=snapshot.size, chunks=snapshot.chunks))

    def snapshot_delete(self, snapshot_id: str | None, name: str | None) -> None:
        self._require_writable()
        gone = self._find(snapshot_id, name)
        kept = tuple(each for each in self._table.snapshots if each is not gone)
        self.publish(replace(self._table, snapshots=kept))

    def snapshot_list(self) -> Sequence[SnapshotInfo]:
        return [as_listed(each.info) for each in self._table.snapshots]

    def snapshot_load_tmp(self, snapshot_id: str | None, name: str | None) -> None:
        self._view = self._find(snapshot_id, name).chunks

    def _find(self, snapshot_id: str | None, name: str | None) -> Snapshot:
        """Return the first snapshot that has the id and the name, as far as they are given."""
        for each in self._table.snapshots:
            if snapshot_id in (None, each.info.id_str) and name in (None, each.info.name):
                return each
        raise BlockError(Errno.ENOENT, "no such snapshot")

    def check(self) -> Check:
        raise BlockError(Errno.ENOTSUP, "there is no checker")  # capabilities say so, and nobody calls it


def _pieces(offset: int, length: int) -> Iterator[tuple[int, int, int]]:
    """Yield the chunks of a range: number, first byte in it, and how many."""
    while length:
        chunk, start = divmod(offset, SLOT)
        count = min(length, SLOT - start)
        yield chunk, start, count
        offset, length = offset + count, length - count
