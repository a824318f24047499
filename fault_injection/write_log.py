"""Everything that drivers send down to their disks, in one global order: what a power cut is tried on.

    log = WriteLog()
    disks = [LoggedFile(log, disk, "d0"), LoggedFile(log, other, "d1")]
    log.step = 0
    ...                     # the first operation
    log.mark("answered", step=0)

Block files are synchronous, so entry n had been acknowledged to the driver before entry n + 1 was issued, whatever
device it went to. A *position* is a number of entries: it lies before the entry of that number. What was answered at
a mark is known to the user wherever the position of a cut is the mark's or a later one.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from snapcheck.impl.blockfile import BlockFile


class Sort(StrEnum):
    """What was sent down."""

    WRITE = "write"
    ZEROES = "zeroes"  # a write of zeroes, kept without its data
    DISCARD = "discard"  # reads as zeroes afterwards
    FLUSH = "flush"
    TRUNCATE = "truncate"


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that was sent down, in bytes.

    number  its place in the order over all devices, from 0 on
    step    the index of the operation that caused it, None before the first one
    offset  of a truncate: the new size of the file
    fua     it was durable by itself when it was acknowledged
    region  what the bytes are to the driver (model.faults.REGIONS), "" when it did not say
    """

    number: int
    device: str
    step: int | None
    sort: Sort
    offset: int = 0
    length: int = 0
    data: bytes = b""
    fua: bool = False
    region: str = ""


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened between two entries: `number` entries had been issued before it."""

    number: int
    text: str
    step: int | None = None


@dataclass(slots=True)
class WriteLog:
    """What was sent down by all devices. `step` is the operation that whatever comes next belongs to."""

    entries: list[Entry] = field(default_factory=list[Entry])
    marks: list[Mark] = field(default_factory=list[Mark])
    step: int | None = None

    @property
    def position(self) -> int:
        """Return how many entries there are: where a power cut would be that came now."""
        return len(self.entries)

    def mark(self, text: str, *, step: int | None = None) -> None:
        """Note that something happened at this position."""
        self.marks.append(Mark(self.position, text, step))

    def add(
        self, device: str, sort: Sort, offset: int = 0, length: int = 0, *,
        data: bytes = b"", fua: bool = False, region: str = "",
    ) -> None:  # fmt: skip
        """Append an entry of the step at hand."""
        self.entries.append(Entry(len(self.entries), device, self.step, sort, offset, length, data, fua, region))

    def for_device(self, device: str) -> Iterator[Entry]:
        """Yield the entries of one device."""
        return (entry for entry in self.entries if entry.device == device)

    @property
    def devices(self) -> tuple[str, ...]:
        """Return the devices that sent anything down, in the order of their first entries."""
        return tuple(dict.fromkeys(entry.device for entry in self.entries))


class LoggedFile:
    """A block file that notes in a log what changes it; reads are not noted, nor what the file below refused.

    `device` is the name in the log, the file's own one by default. A clone is not logged.
    """

    __slots__ = ("_inner", "_log", "device", "name")

    def __init__(self, log: WriteLog, inner: BlockFile, device: str | None = None) -> None:
        self._log = log
        self._inner = inner
        self.name = inner.name
        self.device = inner.name if device is None else device

    def size(self) -> int:
        return self._inner.size()

    def pread(self, offset: int, length: int, *, region: str = "") -> bytes:
        return self._inner.pread(offset, length, region=region)

    def pwrite(self, offset: int, data: bytes, *, region: str = "") -> None:
        self._inner.pwrite(offset, data, region=region)
        if data:
            self._log.add(self.device, Sort.WRITE, offset, len(data), data=bytes(data), region=region)

    def discard(self, offset: int, length: int, *, region: str = "") -> None:
        self._inner.discard(offset, length, region=region)
        self._log.add(self.device, Sort.DISCARD, offset, length, region=region)

    def flush(self) -> None:
        self._inner.flush()
        self._log.add(self.device, Sort.FLUSH)

    def truncate(self, size: int) -> None:
        self._inner.truncate(size)
        self._log.add(self.device, Sort.TRUNCATE, size)

    def clone(self) -> BlockFile:
        return self._inner.clone()

    def close(self) -> None:
        self._inner.close()
