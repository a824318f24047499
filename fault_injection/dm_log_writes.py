"""The write log of Linux's dm-log-writes target, version 1, which QEMU's blklogwrites writes as well: read and written.

Little-endian. The first sector of the log is its superblock: magic, version, number of entries, bytes of a sector.
Then each entry has a sector of its own: the first sector that it is about, how many, flags, bytes of data that follow
in that very sector (the text of a mark); the sectors that it writes come behind it. A recorder that never flushed
leaves the superblock zero: then entries go on to the end of the file, or to a sector that is zero.

The format knows nothing of the length of a file, of operations or of regions: a truncate is written as a discard of
what it cuts off, a write of a part of a sector as one of the whole sector, a step as the text of its mark.
"""

import re
import struct
from collections.abc import Iterator
from io import BytesIO
from itertools import groupby
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from snapcheck.fault_injection.crash.cuts import SectorWrite, sector_writes
from snapcheck.fault_injection.write_log import Mark, Sort, WriteLog
from snapcheck.impl.blockfile import MemoryFile
from snapcheck.model.content import SECTOR

MAGIC: Final = 0x6A736677736872
VERSION: Final = 1
FLUSH, FUA, DISCARD, MARK, METADATA = 1, 2, 4, 8, 16

_SUPER: Final = struct.Struct("<QQQI")
_ENTRY: Final = struct.Struct("<QQQQ")
_FLAGS: Final = FLUSH | FUA | DISCARD | MARK | METADATA
_SECTOR_BYTES: Final = tuple(1 << bits for bits in range(9, 17))
_OFFSET_MAX: Final = 1 << 62
_STEP: Final = re.compile(r"(.*) \(step (\d+)\)")


class LogError(Exception):
    """The file is no such log, or not a whole one; the text says what stands against it."""


class _Raw(NamedTuple):
    """An entry as it is stored: the first sector and how many, in sectors of the log."""

    first: int
    sectors: int
    flags: int
    text: bytes
    data: bytes


def read_log(path: Path, *, device: str) -> WriteLog:
    """Return what the log file holds, as what `device` sent down; `LogError` when it is no whole log."""
    with path.open("rb") as file:
        return read_from(file, device=device)


def read_from(file: BinaryIO, *, device: str) -> WriteLog:
    """Return what a log holds, as what `device` sent down; `LogError` when it is no whole log."""
    log = WriteLog()
    entries, sector_bytes = _superblock(file.read(SECTOR))
    file.seek(sector_bytes)
    for number, raw in enumerate(_entries(file, entries, sector_bytes)):
        _add(log, device, raw, sector_bytes, number)
    return log


def _superblock(raw: bytes) -> tuple[int | None, int]:
    """Return how many entries there are, None when nobody wrote it down, and the bytes of a sector."""
    if len(raw) < _SUPER.size:
        raise LogError(f"{len(raw)} bytes are too few for a dm-log-writes log, which begins with a superblock")
    magic, version, entries, sector_bytes = _SUPER.unpack_from(raw)
    if not any(raw):
        return None, SECTOR
    if magic != MAGIC:
        raise LogError(
            f"not a dm-log-writes log: it begins with {raw[:8].hex()}, not {MAGIC.to_bytes(8, 'little').hex()}"
        )
    if version != VERSION:
        raise LogError(f"dm-log-writes version {version}, expected {VERSION}")
    if sector_bytes not in _SECTOR_BYTES:
        raise LogError(f"sectors of {sector_bytes} bytes, expected a power of two from 512 to 65536")
    return entries, sector_bytes


def _entries(file: BinaryIO, count: int | None, sector_bytes: int) -> Iterator[_Raw]:
    number = 0
    while count is None or number < count:
        head = file.read(sector_bytes)
        if count is None and not any(head):
            return
        if len(head) < sector_bytes:
            raise LogError(_cut_off(number, count))
        sector, sectors, flags, text_bytes = _ENTRY.unpack_from(head)
        if flags & ~_FLAGS or (sector + sectors) * sector_bytes > _OFFSET_MAX:
            raise LogError(f"entry {number} makes no sense (flags {flags:#x}, sector {sector}): the log is damaged")
        text = head[_ENTRY.size : _ENTRY.size + text_bytes] if flags & MARK else b""
        length = 0 if flags & (DISCARD | MARK) else sectors * sector_bytes
        data = _data(file, length)
        if data is None:
            raise LogError(_cut_off(number, count))
        yield _Raw(sector, sectors, flags, text, data)
        number += 1


def _data(file: BinaryIO, length: int) -> bytes | None:
    """Return the next bytes, None when there are not so many."""
    if length > SECTOR << 16:  # ask first: a damaged log may claim anything
        here = file.tell()
        if file.seek(0, 2) - here < length:
            return None
        file.seek(here)
    data = file.read(length)
    return data if len(data) == length else None


def _cut_off(number: int, count: int | None) -> str:
    promised = "" if count is None else f" of {count}"
    return f"the log is cut off in entry {number}{promised}; record it again, and let the recorder finish"


def _add(log: WriteLog, device: str, raw: _Raw, sector_bytes: int, number: int) -> None:
    """Add what an entry stands for: a flush comes before the data that it was sent with."""
    offset, length = raw.first * sector_bytes, raw.sectors * sector_bytes
    if raw.flags & MARK:
        log.marks.append(_mark(log.position, raw.text))
        return
    if raw.flags & FLUSH:
        log.add(device, Sort.FLUSH)
    if raw.flags & DISCARD:
        log.add(device, Sort.DISCARD, offset, length)
    elif length:
        is_zero = not raw.data.strip(b"\0")
        log.add(
            device, Sort.ZEROES if is_zero else Sort.WRITE, offset, length, data=b"" if is_zero else raw.data,
            fua=bool(raw.flags & FUA),
        )  # fmt: skip
    elif not raw.flags & (FLUSH | FUA):
        raise LogError(f"entry {number} makes no sense (it writes nothing): the log is damaged")


def _mark(position: int, text: bytes) -> Mark:
    words = text.rstrip(b"\0").decode("utf-8", "backslashreplace")
    found = _STEP.fullmatch(words)
    return Mark(position, found[1], int(found[2])) if found else Mark(position, words)


# --- writing --------------------------------------------------------------------------------------
def write_log(log: WriteLog, base: MemoryFile, *, device: str) -> bytes:
    """Return the log of one device as a file; `base` is what its disk held when the log began."""
    out = BytesIO()
    marks = [*log.marks, Mark(log.position, "")]  # the last one stops the search
    entries = 0
    out.write(bytes(SECTOR))
    for write in sector_writes(log.for_device(device), base.clone()):
        while marks[0].number <= write.entry.number and len(marks) > 1:
            entries += _put_mark(out, marks.pop(0))
        entries += _put(out, write)
    for mark in marks[:-1]:
        entries += _put_mark(out, mark)
    return _SUPER.pack(MAGIC, VERSION, entries, SECTOR).ljust(SECTOR, b"\0") + out.getvalue()[SECTOR:]


def _put_mark(out: BytesIO, mark: Mark) -> int:
    text = (mark.text if mark.step is None else f"{mark.text} (step {mark.step})").encode()[: SECTOR - _ENTRY.size]
    _put_entry(out, 0, 0, MARK, text)
    return 1


def _put(out: BytesIO, write: SectorWrite) -> int:
    """Write one entry, as several where its sectors do not lie together; return how many there are."""
    if write.entry.sort is Sort.FLUSH:
        _put_entry(out, 0, 0, FLUSH)
        return 1
    runs = list(_runs(write))
    for first, contents in runs:
        discarded = contents[0] is None
        _put_entry(out, first, len(contents), DISCARD if discarded else FUA if write.entry.fua else 0)
        out.write(b"".join(content for content in contents if content is not None))
    return len(runs)


def _runs(write: SectorWrite) -> Iterator[tuple[int, list[bytes | None]]]:
    """Yield sectors that lie together: the first one's number and their contents, None for what is discarded."""
    frees = write.entry.sort in (Sort.DISCARD, Sort.TRUNCATE)
    told = [(sector, None if frees and not any(content) else content) for sector, content in write.sectors]
    for _, run in groupby(enumerate(told), lambda each: (each[1][0] - each[0], each[1][1] is None)):
        sectors = [each for _, each in run]
        yield sectors[0][0], [content for _, content in sectors]


def _put_entry(out: BytesIO, sector: int, count: int, flags: int, text: bytes = b"") -> None:
    out.write((_ENTRY.pack(sector, count, flags, len(text)) + text).ljust(SECTOR, b"\0"))
