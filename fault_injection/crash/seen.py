"""What a disk shows that a power cut left: opened as a user would, listed, read and checked.

`see` is the plain judge, through the engine alone, one disk at a time: the oracle of the fast one (fast.py).
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from snapcheck.impl.blockfile import BlockError, MemoryFile
from snapcheck.impl.qcow2 import guest, snapshots
from snapcheck.impl.qcow2.check import inspect
from snapcheck.impl.qcow2.image import Image
from snapcheck.impl.qcow2.layout import DIRTY, ImageError, SnapshotEntry
from snapcheck.impl.qcow2.state import State, read_front
from snapcheck.model.content import FOREIGN, SECTOR, tags_of
from snapcheck.model.history import Check, SnapshotContent, View

CONTENT_BYTES_MAX: Final = 1 << 26  # a wrecked image may claim to be of any size
_KNOWN_MAX: Final = 8  # contents that are remembered,
_KNOWN_BYTES_MAX: Final = 1 << 22  # of so many bytes
_FOREIGN_SECTORS: Final = bytes([FOREIGN]) + b"+"  # in tags

NOTHING: Final = View()


@dataclass(frozen=True, slots=True)
class Held:
    """What the active state or a snapshot holds. `digest` tells contents apart, whatever they are made of.

    content  a tag for each sector (model.content), None where it could not be read, and `error` says why
    vmstate  the VM state of a snapshot that has some
    """

    digest: str = ""
    content: bytes | None = None
    vmstate: bytes | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """What opening, listing, reading and checking a disk showed.

    error   why it does not open, "" where it does; nothing else was seen then
    view    the list, the size in sectors, and the active content
    contents  what each snapshot holds, in the order of the list
    digests  what tells contents apart, whatever they are made of: the active one, then each snapshot's
    check   corruptions, leaks and missing COPIED bits; a disk with its dirty bit set is judged after the open that
            repairs it
    """

    error: str = ""
    view: View = NOTHING
    contents: tuple[SnapshotContent, ...] = ()
    digests: tuple[str, ...] = ()
    check: Check | None = None

    @property
    def outline(self) -> "Seen":
        """Return the same without what makes no difference: how many leaks and corruptions there are, and where."""
        check = self.check
        if check is None:
            return self
        some = Check(min(check.corruptions, 1), min(check.leaks, 1), min(check.copied_missing, 1))
        return replace(self, check=some)


class Known:
    """Contents that were read lately. Most disks hold what others do, and to compare is quicker than to hash."""

    def __init__(self) -> None:
        self._lately: list[tuple[bytes, bytes, Held]] = []

    def held(self, pieces: Sequence[bytes], vmstate: bytes) -> Held:
        """Return a content, in pieces, and a VM state as what they hold."""
        for place, (raw, known_vmstate, found) in enumerate(self._lately):
            if _is_made_of(raw, pieces) and known_vmstate == vmstate:
                self._lately.insert(0, self._lately.pop(place))
                return found
        raw = b"".join(pieces)
        tags = tags_of(raw.ljust(_sectors(len(raw)) * SECTOR, b"\0"))
        new = Held(_digest(raw, tags, vmstate), tags, vmstate or None)
        if len(raw) + len(vmstate) <= _KNOWN_BYTES_MAX:
            self._lately = [(raw, vmstate, new), *self._lately[: _KNOWN_MAX - 1]]
        return new


def _digest(raw: bytes, tags: bytes, vmstate: bytes) -> str:
    """Return what tells a content and a VM state apart: the tags say all but what is in foreign sectors."""
    digest = hashlib.sha256(b"%d %d " % (len(raw), len(vmstate)) + tags + vmstate)
    for foreign in re.finditer(_FOREIGN_SECTORS, tags):
        digest.update(memoryview(raw)[foreign.start() * SECTOR : foreign.end() * SECTOR])
    return digest.hexdigest()[:16]


def _is_made_of(raw: bytes, pieces: Sequence[bytes]) -> bool:
    """Tell whether `raw` is these pieces; nothing is copied for it."""
    place = 0
    for piece in pieces:
        if not raw.startswith(piece, place):
            return False
        place += len(piece)
    return place == len(raw)


def see(disk: MemoryFile, known: Known | None = None) -> Seen:
    """Return what `disk` shows; it is left as it is. Who looks at many disks may pass what is `known` of others."""
    disk = disk.clone()
    try:
        front = read_front(disk)
        if front.header.incompatible & DIRTY:
            Image.open(disk).close()
            front = read_front(disk)
        state = State(disk, read_only=False, front=front)
    except (ImageError, BlockError) as error:
        return Seen(error=str(error))
    return seen(state, check_of(disk), known or Known())


def check_of(disk: MemoryFile) -> Check:
    """Return what the full check of the engine says."""
    try:
        return inspect(disk).as_check()
    except (ImageError, BlockError) as error:
        return Check(corruptions=1, messages=(str(error),))


def seen(state: State, check: Check, known: Known) -> Seen:
    """Return what an open image shows."""
    others = [held(state, known, entry) for entry in state.snapshot_table.entries]
    return shown(state, held(state, known), others, check)


def shown(state: State, active: Held, others: Sequence[Held], check: Check) -> Seen:
    """Return what an open image shows, of which it is known what the active state and the snapshots hold."""
    return Seen(
        view=View(
            tuple(snapshots.listed(state)), _sectors(state.header.size), active.content,
            (f"content: {active.error}",) if active.error else (),
        ),
        contents=tuple(
            SnapshotContent(each.content, _sectors(entry.disk_size), each.vmstate, each.error)
            for each, entry in zip(others, state.snapshot_table.entries, strict=True)
        ),
        digests=(active.digest, *(each.digest for each in others)),
        check=check,
    )  # fmt: skip


def held(state: State, known: Known, entry: SnapshotEntry | None = None) -> Held:
    """Return what the active state, or the snapshot of `entry`, holds; a snapshot under its own size."""
    active, tables = (state.tables.l1, state.tables.l1_offset), state.tables
    size = state.header.size if entry is None else entry.disk_size
    vmstate_bytes = 0 if entry is None else entry.info.vm_state_size
    if size + vmstate_bytes > CONTENT_BYTES_MAX:
        return Held(error="EFBIG")
    try:
        if entry is not None:
            tables.l1 = state.snapshot_l1(entry)
        pieces = tuple(guest.pieces(state, 0, size)) if size else ()
        vmstate = _vmstate(state, size, vmstate_bytes)
    except BlockError as error:
        return Held(error=error.errno.name)
    finally:
        tables.l1, tables.l1_offset = active
    return known.held(pieces, vmstate)


def _vmstate(state: State, size: int, length: int) -> bytes:
    """Return the VM state of the tree at hand, which begins behind a virtual size of `size`."""
    span = state.header.l2_span
    return guest.read(state, -(-size // span) * span, length) if length else b""


def _sectors(size: int) -> int:
    return -(-size // SECTOR)
