"""The file below an image: tables of big-endian words read and written through, barriers, and what a failure means.

Two rules make memory and medium agree after any failure:

* a table in memory changes only when its write succeeded; when it failed, what is on the medium is read back;
* where that can not be read either, the table is forgotten and read again when it is needed next, as far as nothing
  that is visible hangs on it (refcounts, COPIED bits); otherwise the image is dead: every later call is refused until
  it is opened again.
"""

import sys
from array import array
from copy import copy
from typing import Final, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray
from snapcheck.impl.blockfile import BlockError, BlockFile

Words: TypeAlias = "array[int]"  # a table in the machine's byte order; never changed in place, so clones may share it
SWAP: Final = sys.byteorder == "little"


class Codec:
    """How the words of a table are stored: big-endian in 8 to 64 bits each, or several to a byte, the first one lowest.

    In memory each word is an element of an array, of at least one byte.
    """

    __slots__ = ("bits", "typecode")

    def __init__(self, bits: int) -> None:
        self.bits = bits
        self.typecode = {16: "H", 32: "I", 64: "Q"}.get(bits, "B")

    @property
    def per_byte(self) -> int:
        """Return how many words share a byte; where it is 1 a word has one or more."""
        return 8 // self.bits or 1

    @property
    def dtype(self) -> "np.dtype[np.unsignedinteger]":
        """Return what numpy calls a word in memory."""
        return np.dtype(f"u{max(self.bits // 8, 1)}")

    def decode(self, raw: bytes) -> Words:
        """Return the words that `raw` holds."""
        if self.bits < 8:
            shifts = np.arange(0, 8, self.bits, dtype=np.uint8)
            spread = np.frombuffer(raw, dtype=np.uint8)[:, None] >> shifts
            return array("B", (spread & np.uint8((1 << self.bits) - 1)).tobytes())
        words = array(self.typecode, raw)
        if SWAP and self.bits > 8:
            words.byteswap()
        return words

    def encode(self, words: Words) -> bytes:
        """Return a table as it is stored. Where words share a byte their number fills whole bytes."""
        if self.bits < 8:
            shifts = np.arange(0, 8, self.bits, dtype=np.uint8)
            parts = np.frombuffer(words, dtype=np.uint8).reshape(-1, self.per_byte) << shifts
            joined: NDArray[np.uint8] = np.bitwise_or.reduce(parts, axis=1)
            return joined.tobytes()
        if SWAP and self.bits > 8:
            words = words[:]
            words.byteswap()
        return words.tobytes()

    def array(self, raw: bytes) -> "NDArray[np.unsignedinteger]":
        """Return the words that `raw` holds, as numpy has them."""
        if self.bits < 8:
            return np.frombuffer(self.decode(raw), dtype=np.uint8)
        return np.frombuffer(raw, dtype=self.dtype.newbyteorder(">"))

    def words(self, numbers: "NDArray[np.unsignedinteger]") -> Words:
        """Return numbers of this width as a table."""
        return array(self.typecode, numbers.astype(self.dtype).tobytes())

    def size(self, count: int) -> int:
        """Return the bytes that `count` words take."""
        return count * self.bits // 8


WORDS64: Final = Codec(64)


def decoded(raw: bytes) -> Words:
    """Return big-endian 64-bit words as a table."""
    return WORDS64.decode(raw)


def encoded(words: Words) -> bytes:
    """Return a table of 64-bit words as it is stored."""
    return WORDS64.encode(words)


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

    def clone(self) -> Self:
        """Return a host over a clone of the file."""
        twin = copy(self)
        twin.file = self.file.clone()
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
        # Not the error itself: with its traceback it would keep all that was under way.
        self._dead = self._dead or BlockError(cause.errno, str(cause))

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
    def load(self, offset: int, count: int, region: str, codec: Codec = WORDS64) -> Words:
        """Return `count` words from `offset` on."""
        return codec.decode(self.read(offset, codec.size(count), region))

    def store(
        self, offset: int, new: Words, low: int, high: int, region: str, *, old: Words, codec: Codec = WORDS64
    ) -> None:
        """Write words `low` to `high` of the table at `offset`, which was `old` and shall be `new`.

        On failure raises `StoreError` with the table as it is now, or without when that can not be read.
        """
        if codec.per_byte > 1:
            low, high = low // codec.per_byte * codec.per_byte, -(-high // codec.per_byte) * codec.per_byte
        place, part = offset + codec.size(low), new[low:high]
        try:
            self.write(place, codec.encode(part), region)
        except BlockError as error:
            try:
                found = self.load(place, len(part), region, codec)
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
