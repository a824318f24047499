"""A block file that obeys a plan of faults; intact bytes are kept apart from the damage.

The model of a faulty medium, and why it loses no more than that:

* A sector (512 bytes) is written whole or not at all. A write may be cut between two sectors (Short, Torn), never
  inside one: that is what disks promise, and what formats that update a header in place build upon.
* An I/O that reports an error had no effect (Fails), all of its effect (LandsButFails), or that of its first sectors
  (Short). A reported error never damages bytes that the I/O was not about.
* What is acknowledged may still be wrong, in exactly the ways of `model/faults.py` (Torn, Lost, Misdirected, BitFlip,
  Fill, DropsUnflushed). At least one sector of the struck write then differs from what was asked for: a tear drops
  the last sector at least, so a write inside one sector is lost whole. Only the struck write's own sectors and, when
  it is misdirected, those where it lands are touched.
* A flush that drops what was not flushed loses the latest writes, discards and truncates since the last flush, at
  most `UNFLUSHED_MAX` of them: a cache is finite, and what is older has reached the medium by itself.
* Reads are never lost or late; one may come back with a flipped bit, the medium itself is then intact.

The wrapped file holds what a driver sees, damage included. Beside it stands, sector by sector, what the medium would
hold if no fault had damaged it. A good write over a damaged sector clears the damage there; `heal` puts the intact
bytes back everywhere. Errors leave nothing behind, so there is nothing to heal after them.
"""

import hashlib
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

from snapcheck.fault_injection.watch import Site
from snapcheck.impl.blockfile import BlockError, BlockFile
from snapcheck.model.content import SECTOR
from snapcheck.model.errno import Errno
from snapcheck.model.faults import (
    BitFlip,
    DropsUnflushed,
    Effect,
    Fails,
    Fill,
    LandsButFails,
    Lost,
    Misdirected,
    Short,
    Torn,
)
from snapcheck.model.history import Io

UNFLUSHED_MAX: Final = 256


class Change(NamedTuple):
    """A write of `data`, a discard of `length` bytes, or a truncate to `offset` bytes."""

    kind: str
    offset: int
    length: int
    data: bytes = b""

    def span(self, size: int) -> tuple[int, int]:
        """Return from where to where the bytes of a file of `size` bytes may change."""
        if self.kind == "truncate":
            return self.offset, max(self.offset, size)
        end = self.offset + self.length
        return (self.offset, end) if self.kind == "write" else (self.offset, max(self.offset, min(end, size)))

    def size_after(self, size: int) -> int:
        """Return what the size of a file of `size` bytes becomes."""
        if self.kind == "truncate":
            return self.offset
        return max(size, self.offset + self.length) if self.kind == "write" and self.length else size


class Outcome(NamedTuple):
    """What becomes of a change: what lands, what should have landed (given what is reported), and what is reported."""

    landed: Change | None
    wanted: Change | None
    errno: Errno = Errno.OK


def outcome(change: Change, effect: Effect | None, *, size: int) -> Outcome:  # noqa: PLR0911  # one for each effect
    """Return what becomes of `change` to a file of `size` bytes under `effect`."""
    match effect:
        case Fails(errno=errno):
            return Outcome(None, None, errno)
        case LandsButFails(errno=errno):
            return Outcome(change, change, errno)
        case Short(sectors=sectors, errno=errno):
            kept = _first_sectors(change, sectors)
            return Outcome(kept, kept, errno)
        case Torn(sectors=sectors):
            return Outcome(_first_sectors(change, sectors), change)
        case Lost():
            return Outcome(None, change)
        case Misdirected(sectors=sectors):
            return Outcome(_moved(change, sectors), change)
        case BitFlip(bit=bit):
            return Outcome(change._replace(data=_flipped(change.data, bit)), change)
        case Fill(garbage=garbage):
            return Outcome(_filled(change, garbage=garbage, size=size), change)
        case _:
            return Outcome(change, change)


def _first_sectors(change: Change, sectors: int) -> Change:
    """Keep the first `sectors` sectors that a write touches, and never the last one."""
    first, end = _sectors(change.offset, change.offset + change.length)
    kept = min(sectors, end - first - 1)
    length = (first + kept) * SECTOR - change.offset if kept > 0 else 0
    return change._replace(length=length, data=change.data[:length])


def _moved(change: Change, sectors: int) -> Change:
    there = change.offset + sectors * SECTOR
    return change._replace(offset=there if there >= 0 else change.offset - sectors * SECTOR)


def _flipped(data: bytes, bit: int) -> bytes:
    if not data:
        return data
    place, bit = divmod(bit % (len(data) * 8), 8)
    return data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]


def _filled(change: Change, *, garbage: bool, size: int) -> Change:
    first, end = _sectors(change.offset, change.offset + change.length)
    start, stop = first * SECTOR, min(end * SECTOR, change.size_after(size))
    fill = b"".join(_garbage(number) if garbage else bytes(SECTOR) for number in range(first, end))
    return Change("write", start, stop - start, fill[: stop - start])


def _garbage(sector: int) -> bytes:
    """Return bytes that nobody wrote, the same ones each time."""
    return hashlib.shake_128(b"garbage %d" % sector).digest(SECTOR)


def _sectors(start: int, end: int) -> tuple[int, int]:
    """Return the numbers of the first sector and of the one after the last of the bytes from `start` to `end`."""
    return (start // SECTOR, -(-end // SECTOR)) if end > start else (0, 0)


class Damage:
    """What `file` would hold if no fault had damaged it, kept by sectors where that differs from what it holds."""

    __slots__ = ("_file", "_sectors", "_size")

    def __init__(self, file: BlockFile) -> None:
        self._file = file
        self._sectors: dict[int, bytes] = {}
        self._size: int | None = None

    @property
    def any(self) -> bool:
        """Tell whether there is a difference."""
        return bool(self._sectors) or self._size is not None

    def watch(self, act: Callable[[], None], *, span: tuple[int, int], wanted: Change | None) -> None:
        """Let `act` change the bytes of `span`, and keep apart what `wanted` would have made of the intact file."""
        size = self._file.size() if self._size is None else self._size
        spans = [span] if wanted is None else [span, wanted.span(max(size, self._file.size()))]
        intact = {number: bytearray(self._intact(number)) for part in spans for number in range(*_sectors(*part))}
        if wanted is not None:
            _patch(intact, wanted, spans[-1])
            size = wanted.size_after(size)
        act()
        for number, sector in intact.items():
            kept = bytes(sector)
            if kept == self._file.pread(number * SECTOR, SECTOR):
                self._sectors.pop(number, None)
            else:
                self._sectors[number] = kept
        self._size = None if size == self._file.size() else size

    def heal(self) -> None:
        """Put the intact bytes back."""
        size = self._file.size() if self._size is None else self._size
        for number, sector in sorted(self._sectors.items()):
            self._file.pwrite(number * SECTOR, sector)
        if self._file.size() != size:
            self._file.truncate(size)
        self._sectors.clear()
        self._size = None

    def _intact(self, number: int) -> bytes:
        kept = self._sectors.get(number)
        return self._file.pread(number * SECTOR, SECTOR) if kept is None else kept


def _patch(sectors: dict[int, bytearray], change: Change, span: tuple[int, int]) -> None:
    """Carry out `change`, which changes the bytes of `span`, on `sectors`; what is not written becomes zeroes."""
    start, end = span
    data = change.data if change.kind == "write" else bytes(end - start)
    for number in range(*_sectors(start, end)):
        low, high = max(start, number * SECTOR), min(end, (number + 1) * SECTOR)
        base = number * SECTOR
        sectors[number][low - base : high - base] = data[low - start : high - start]


_Unflushed = tuple[int, bytes, int]  # what a change replaced: where, the bytes, and the size before


class FaultyFile:
    """A block file that emits its I/O and meets the faults that its plan has armed for `device`.

    `damaged` says whether the medium holds anything else than it should, given what was reported. `clone` gives a
    plain copy of what is visible now, without plan and without events.
    """

    __slots__ = ("_damage", "_emit", "_inner", "_site", "_unflushed", "damaged", "device", "name")

    def __init__(self, site: Site, inner: BlockFile) -> None:
        self.device = site.device
        self.name = inner.name
        self._site = site
        self._emit = site.recorder.emit
        self._inner = inner
        self._damage = Damage(inner)
        self.damaged = False
        self._unflushed: deque[_Unflushed] = deque(maxlen=UNFLUSHED_MAX)

    def heal(self) -> None:
        """Take all damage away. Whoever has the file open and keeps parts of it in memory should open it anew."""
        self._damage.heal()
        self.damaged = False
        self._unflushed.clear()

    def size(self) -> int:
        return self._inner.size()

    def clone(self) -> BlockFile:
        return self._inner.clone()

    def close(self) -> None:
        self._inner.close()

    # --- reads and writes have a short way, for when nothing is armed and nothing is damaged ----------
    def pread(self, offset: int, length: int, *, region: str = "") -> bytes:
        effect = self._site.io_struck("read", region) if self._site.io else None
        if isinstance(effect, Fails | LandsButFails):
            raise self._refusal("read", offset, length, region, effect.errno)
        try:
            data = self._inner.pread(offset, length, region=region)
        except BlockError as error:
            self._emit(Io(self.device, "read", offset, length, region, error.errno))
            raise
        self._emit(Io(self.device, "read", offset, length, region))
        return _flipped(data, effect.bit) if isinstance(effect, BitFlip) else data

    def pwrite(self, offset: int, data: bytes, *, region: str = "") -> None:
        inner, length = self._inner, len(data)
        if self._site.io or self.damaged:
            self._change(Change("write", offset, length, bytes(data)), region)
            return
        try:
            self._unflushed.append((offset, inner.pread(offset, length), inner.size()))
            inner.pwrite(offset, data, region=region)
        except BlockError as error:
            self._emit(Io(self.device, "write", offset, length, region, error.errno))
            raise
        self._emit(Io(self.device, "write", offset, length, region))

    def discard(self, offset: int, length: int, *, region: str = "") -> None:
        self._change(Change("discard", offset, length), region)

    def truncate(self, size: int) -> None:
        self._change(Change("truncate", size, 0), "")

    def _change(self, change: Change, region: str) -> None:
        """Let happen of `change` what the armed faults leave of it, and report what they say."""
        effect = self._site.io_struck(change.kind, region) if self._site.io else None
        landed, wanted, errno = outcome(change, effect, size=self._inner.size())
        try:
            if landed is not wanted or (self.damaged and wanted is not None):
                span = (0, 0) if landed is None else landed.span(self._inner.size())
                self._watch(partial(self._land, landed, region), span=span, wanted=wanted)
            else:
                self._land(landed, region)
        except BlockError as error:
            self._emit(Io(self.device, change.kind, change.offset, change.length, region, error.errno))
            raise
        if errno is not Errno.OK:
            raise self._refusal(change.kind, change.offset, change.length, region, errno)
        self._emit(Io(self.device, change.kind, change.offset, change.length, region))

    def _watch(self, act: Callable[[], None], *, span: tuple[int, int], wanted: Change | None) -> None:
        self._damage.watch(act, span=span, wanted=wanted)
        self.damaged = self._damage.any

    def _land(self, change: Change | None, region: str) -> None:
        if change is None:
            return
        inner = self._inner
        size = inner.size()
        start, end = change.span(size)
        self._unflushed.append((start, inner.pread(start, end - start), size))
        if change.kind == "write":
            inner.pwrite(change.offset, change.data, region=region)
        elif change.kind == "discard":
            inner.discard(change.offset, change.length, region=region)
        else:
            inner.truncate(change.offset)

    def _refusal(self, kind: str, offset: int, length: int, region: str, errno: Errno) -> BlockError:
        self._emit(Io(self.device, kind, offset, length, region, errno))
        return BlockError(errno, f"{errno.name} injected into a {kind} below {self.device}")

    # --- flushes --------------------------------------------------------------------------------------
    def flush(self) -> None:
        effect = self._site.io_struck("flush", "") if self._site.io else None
        if isinstance(effect, DropsUnflushed):
            self._drop_unflushed()
        elif not isinstance(effect, Fails):
            self._flush_inner()
        if isinstance(effect, Fails | LandsButFails | DropsUnflushed):
            raise self._refusal("flush", 0, 0, "", effect.errno)
        self._emit(Io(self.device, "flush", 0, 0))

    def _flush_inner(self) -> None:
        try:
            self._inner.flush()
        except BlockError as error:
            self._emit(Io(self.device, "flush", 0, 0, "", error.errno))
            raise
        self._unflushed.clear()

    def _drop_unflushed(self) -> None:
        """Undo the changes since the last flush, the latest first."""
        while self._unflushed:
            offset, before, size = self._unflushed.pop()
            span = (offset, max(offset + len(before), self._inner.size()))
            self._watch(partial(self._put_back, offset, before, size), span=span, wanted=None)

    def _put_back(self, offset: int, before: bytes, size: int) -> None:
        if before:
            self._inner.pwrite(offset, before)
        if self._inner.size() != size:
            self._inner.truncate(size)
