"""The file below an image: tables of big-endian words read and written through, barriers, and what a failure means.

Two rules make memory and medium agree after any failure:

* a table in memory changes only when its write succeeded; when it failed, what is on the medium is read back;
* where that can not be read either, the table is forgotten and read again when it is needed next, as far as nothing
  that is visible hangs on it (refcounts, COPIED bits); otherwise the image is dead: every later call is refused until
  it is opened again.
"""

import sys
from array import array
from typing import Final, TypeAlias

from snapcheck.impl.blockfile import BlockError, BlockFile

Words: TypeAlias = "array[int]"  # a table in the machine's byte order; never changed in place, so clones may share it
SWAP: Final = sys.byteorder == "little"


def decoded(raw: bytes, typecode: str) -> Words:
    """Return big-endian words as a table: typecode Q for 64 bits, H for 16."""
    words = array(typecode, raw)
    if SWAP:
        words.byteswap()
    return words


def encoded(words: Words) -> bytes:
    """Return a table as it is stored."""
    if SWAP:
        words = words[:]
        words.byteswap()
    return words.tobytes()


def padded(words: Words, count: int) -> Words:
    """Return `words` with zeroes behind them, `count` in all."""
    return words + array(words.typecode, bytes((count - len(words)) * words.itemsize))


class StoreError(BlockError):
    """A table could not be written, or only in part; `words` is the table on the medium now, None when nobody knows."""

    def __init__(self, cause: BlockError, words: "Words | None") -> None:
        self.words = words
        super().__init__(cause.errno, str(cause))


class Host:
    """The file below an image. It knows whether something is unflushed, and whether the image is dead."""

    __slots__ = ("_dead", "_unflushed", "file")

    def __init__(self, file: BlockFile) -> None:
        self.file = file
        self._unflushed = False
        self._dead: BlockError | None = None

    def clone(self) -> "Host":
        """Return a host over a clone of the file."""
        twin = Host(self.file.clone())
        twin._unflushed, twin._dead = self._unflushed, self._dead
        return twin

    # --- dead or alive ----------------------------------------------------------------------------
    @property
    def dead(self) -> bool:
        return self._dead is not None

    def require_alive(self) -> None:
        """Raise when nobody knows any more what is on the medium."""
        if self._dead is not None:
            raise BlockError(self._dead.errno, f"the image is closed after a failure ({self._dead}); open it again")

    def die(self, cause: BlockError) -> None:
        """Refuse everything from now on."""
        self._dead = self._dead or cause

    # --- bytes ------------------------------------------------------------------------------------
    def read(self, offset: int, length: int, region: str) -> bytes:
        return self.file.pread(offset, length, region=region)

    def write(self, offset: int, data: bytes, region: str) -> None:
        self._unflushed = True  # also when it fails: some of it may have landed
        self.file.pwrite(offset, data, region=region)

    def flush(self) -> None:
        self.file.flush()
        self._unflushed = False

    def barrier(self) -> None:
        """Make everything written so far durable before anything that is written later."""
        if self._unflushed:
            self.flush()

    # --- tables -----------------------------------------------------------------------------------
    def load(self, offset: int, count: int, typecode: str, region: str) -> Words:
        """Return `count` words from `offset` on."""
        return decoded(self.read(offset, count * array(typecode).itemsize, region), typecode)

    def store(self, offset: int, new: Words, low: int, high: int, region: str, *, old: Words) -> None:
        """Write words `low` to `high` of the table at `offset`, which was `old` and shall be `new`.

        On failure raises `StoreError` with the table as it is now, or without when that can not be read.
        """
        place, part = offset + low * new.itemsize, new[low:high]
        try:
            self.write(place, encoded(part), region)
        except BlockError as error:
            try:
                found = self.load(place, len(part), new.typecode, region)
            except BlockError:
                raise StoreError(error, None) from error
            raise StoreError(error, old[:low] + found + old[high:]) from error

    def publish(self, start: int, new: bytes, old: bytes) -> None:
        """Write header bytes from `start` on, which decide what the image is: durably, or not at all.

        Everything written before is made durable first. When the write or its flush fails it may have landed, so the
        old bytes are put back; the image is dead when that fails as well.
        """
        self.barrier()
        try:
            self.write(start, new, "header")
            self.flush()
        except BlockError as error:
            try:
                self.write(start, old, "header")
                self.flush()
            except BlockError:
                self.die(error)
            raise
