"""What a medium promises of unflushed writes, and the disk that a power cut leaves (model.power_cut).

Writes persist in whole sectors of 512 bytes, as the writer saw them: a write of a part of a sector takes along what
the rest of it held when it was issued, because that is what a page cache, or QEMU's alignment of requests, sends to
the medium. The length of a file is kept in bytes; a lost write that would have made it longer does not.
"""

import hashlib
from collections.abc import Iterator
from enum import StrEnum
from typing import Final, NamedTuple

from snapcheck.fault_injection.write_log import Entry, Sort, WriteLog
from snapcheck.impl.blockfile import MemoryFile
from snapcheck.model.content import SECTOR
from snapcheck.model.power_cut import Cut, Filling

_ZEROES: Final = bytes(SECTOR)


class Persistence(StrEnum):
    """What a medium promises of writes that were acknowledged and not flushed (docs/reference/crash_states.md)."""

    PREFIX = "prefix"  # they persist in order: a log-structured or battery-backed medium, or a file written through
    EPOCH = "epoch"  # any subset of those since the last flush: a disk with a volatile cache, a page cache
    SECTOR_TORN = "sector-torn"  # as epoch, and any subset of the sectors of one of these writes
    ONE_DROPPED = "one-dropped"  # all but one: the cheap part of epoch that finds a missing flush
    ONE_KEPT = "one-kept"  # one alone: the cheap part of epoch that finds what ran ahead
    TWO_DROPPED = "two-dropped"  # all but at most two
    NO_BARRIERS = "no-barriers"  # as epoch, and flushes do nothing: cache=unsafe, or a disk that lies


class SectorWrite(NamedTuple):
    """An entry as the medium sees it: whole sectors, and the length of the file that it leads to.

    `sectors` are numbers and contents in ascending order. `length` is None where the entry leaves the length alone
    or only makes the file as long as `end`.
    """

    entry: Entry
    sectors: tuple[tuple[int, bytes], ...]
    end: int
    length: int | None = None

    def length_after(self, length: int) -> int:
        """Return the file's length after the entry, which was `length` before."""
        return max(length, self.end) if self.length is None else self.length


def sector_writes(entries: Iterator[Entry], live: MemoryFile) -> Iterator[SectorWrite]:
    """Yield the entries as the medium sees them, flushes with no sectors; `live` becomes what they all lead to."""
    for entry in entries:
        before = live.size()
        apply(entry, live)
        if entry.sort is Sort.FLUSH:
            yield SectorWrite(entry, (), 0)
        elif entry.sort is Sort.TRUNCATE:
            yield SectorWrite(entry, _sectors(live, entry.offset, before), 0, entry.offset)
        else:
            end = entry.offset + entry.length
            grows = entry.sort is not Sort.DISCARD
            yield SectorWrite(entry, _sectors(live, entry.offset, end if grows else min(end, before)), end * grows)


def apply(entry: Entry, file: MemoryFile) -> None:
    """Do to `file` what the entry says."""
    match entry.sort:
        case Sort.WRITE:
            file.pwrite(entry.offset, entry.data)
        case Sort.ZEROES:
            file.pwrite(entry.offset, bytes(entry.length))
        case Sort.DISCARD:
            file.discard(entry.offset, entry.length)
        case Sort.TRUNCATE:
            file.truncate(entry.offset)
        case Sort.FLUSH:
            pass


def _sectors(file: MemoryFile, start: int, end: int) -> tuple[tuple[int, bytes], ...]:
    """Return number and content of each sector that the bytes from `start` to `end` touch."""
    if end <= start:
        return ()
    first, last = start // SECTOR, -(-end // SECTOR)
    raw = file.pread(first * SECTOR, (last - first) * SECTOR)
    return tuple((first + n, raw[n * SECTOR : (n + 1) * SECTOR]) for n in range(last - first))


def image_of(base: MemoryFile, log: WriteLog, cut: Cut) -> MemoryFile:
    """Return the disk that `cut` leaves; `base` is what it held when the log began."""
    image, lost = base.clone(), frozenset(cut.dropped)
    torn = {each.number: each.lost for each in cut.torn}
    length = base.size()
    before = (entry for entry in log.for_device(cut.device) if entry.number < cut.at)
    for write in sector_writes(before, base.clone()):
        number = write.entry.number
        if number in lost and cut.fill is Filling.OLD:
            continue
        missing = frozenset(torn.get(number, ())) if number not in lost else frozenset(range(len(write.sectors)))
        for place, (sector, content) in enumerate(write.sectors):
            if place not in missing:
                image.pwrite(sector * SECTOR, content)
            elif cut.fill is not Filling.OLD:
                image.pwrite(sector * SECTOR, filling(cut.fill, sector))
        length = write.length_after(length)
    image.truncate(length)
    return image


def filling(fill: Filling, sector: int) -> bytes:
    """Return what a lost sector holds instead; garbage is the same each time."""
    return _ZEROES if fill is Filling.ZERO else hashlib.shake_128(b"lost %d" % sector).digest(SECTOR)
