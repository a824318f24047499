"""The file of blocks below a driver: in memory, clonable by copy-on-write, and on disk."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol, TypeVar

from snapcheck.model.errno import Errno

CHUNK: Final = 65536
T = TypeVar("T")


class BlockError(Exception):
    """How block files and drivers answer with an error: a negative errno, and a text for people."""

    def __init__(self, errno: int, message: str = "") -> None:
        self.errno = Errno(-abs(errno))
        super().__init__(message or self.errno.name)


class BlockFile(Protocol):
    """A file that a driver keeps its image in; offsets and lengths are bytes, errors are raised as `BlockError`.

    Reading past the end gives zeroes; writing there makes the file longer; discarded bytes read as zeroes.
    `region` tells what the bytes are to the driver (`model.faults.REGIONS`); a driver that does not know leaves it out.
    """

    @property
    def name(self) -> str: ...
    def size(self) -> int: ...
    def pread(self, offset: int, length: int, *, region: str = "") -> bytes: ...
    def pwrite(self, offset: int, data: bytes, *, region: str = "") -> None: ...
    def discard(self, offset: int, length: int, *, region: str = "") -> None: ...
    def flush(self) -> None: ...
    def truncate(self, size: int) -> None: ...
    def clone(self) -> "BlockFile": ...
    def close(self) -> None: ...


class MemoryFile:
    """A block file in memory. `clone` is cheap: chunks are shared until one side writes to them."""

    __slots__ = ("_chunks", "_owned", "_size", "name")

    def __init__(self, name: str = "memory", data: bytes = b"") -> None:
        self.name = name
        self._size = 0
        self._chunks: dict[int, bytearray] = {}
        self._owned: set[int] = set()
        if data:
            self.pwrite(0, data)

    def size(self) -> int:
        return self._size

    def pread(self, offset: int, length: int, *, region: str = "") -> bytes:  # noqa: ARG002  # the protocol's hint
        assert offset >= 0
        assert length >= 0
        number, start = divmod(offset, CHUNK)
        if start + length <= CHUNK:
            return self._piece(number, start, length)
        pieces: list[bytes] = []
        while length:
            step = min(length, CHUNK - start)
            pieces.append(self._piece(number, start, step))
            number, start, length = number + 1, 0, length - step
        return b"".join(pieces)

    def _piece(self, number: int, start: int, length: int) -> bytes:
        chunk = self._chunks.get(number)
        return bytes(length) if chunk is None else bytes(memoryview(chunk)[start : start + length])

    def pwrite(self, offset: int, data: bytes, *, region: str = "") -> None:  # noqa: ARG002  # the protocol's hint
        assert offset >= 0
        end = offset + len(data)
        number, start = divmod(offset, CHUNK)
        if start + len(data) <= CHUNK:
            if data:
                self._own(number)[start : start + len(data)] = data
        else:
            view, done = memoryview(data), 0
            while done < len(data):
                step = min(len(data) - done, CHUNK - start)
                self._own(number)[start : start + step] = view[done : done + step]
                number, start, done = number + 1, 0, done + step
        self._size = max(self._size, end)

    def _own(self, number: int) -> bytearray:
        """Return chunk `number`, made private to this file so that it can be written."""
        chunk = self._chunks.get(number)
        if number not in self._owned:
            chunk = bytearray(CHUNK) if chunk is None else bytearray(chunk)
            self._chunks[number] = chunk
            self._owned.add(number)
        assert chunk is not None
        return chunk

    def discard(self, offset: int, length: int, *, region: str = "") -> None:  # noqa: ARG002  # the protocol's hint
        end = min(offset + length, self._size)
        while offset < end:
            number, start = divmod(offset, CHUNK)
            step = min(end - offset, CHUNK - start)
            if step == CHUNK:
                self._chunks.pop(number, None)
                self._owned.discard(number)
            elif number in self._chunks:
                self._own(number)[start : start + step] = bytes(step)
            offset += step

    def flush(self) -> None:
        pass

    def truncate(self, size: int) -> None:
        if size < self._size:
            self.discard(size, self._size - size)
        self._size = size

    def clone(self) -> "MemoryFile":
        twin = MemoryFile(self.name)
        twin._size = self._size
        twin._chunks = self._chunks.copy()
        self._owned.clear()  # what was private is shared now
        return twin

    def close(self) -> None:
        pass


class DiskFile:
    """A block file on disk. `sync=False` leaves flushes to the kernel: for speed, where no power cut is judged."""

    def __init__(self, path: Path, *, create: bool = False, read_only: bool = False, sync: bool = True) -> None:
        flags = os.O_RDONLY if read_only else os.O_RDWR | (os.O_CREAT if create else 0)
        self.name = str(path)
        self._sync = sync
        self._fd = self._answer(lambda: os.open(path, flags, 0o644))

    @staticmethod
    def _answer(call: Callable[[], T]) -> T:
        try:
            return call()
        except OSError as error:
            raise BlockError(error.errno or Errno.EIO, str(error)) from error

    def size(self) -> int:
        return self._answer(lambda: os.fstat(self._fd).st_size)

    def pread(self, offset: int, length: int, *, region: str = "") -> bytes:  # noqa: ARG002  # the protocol's hint
        got = self._answer(lambda: os.pread(self._fd, length, offset))
        return got if len(got) == length else got + bytes(length - len(got))

    def pwrite(self, offset: int, data: bytes, *, region: str = "") -> None:  # noqa: ARG002  # the protocol's hint
        self._answer(lambda: self._pwrite_all(memoryview(data), offset))

    def _pwrite_all(self, view: memoryview, offset: int) -> None:
        while view:
            done = os.pwrite(self._fd, view, offset)
            view, offset = view[done:], offset + done

    def discard(self, offset: int, length: int, *, region: str = "") -> None:
        length = min(length, self.size() - offset)
        if length > 0:
            self.pwrite(offset, bytes(length), region=region)

    def flush(self) -> None:
        if self._sync:
            self._answer(lambda: os.fdatasync(self._fd))

    def truncate(self, size: int) -> None:
        self._answer(lambda: os.ftruncate(self._fd, size))

    def clone(self) -> MemoryFile:
        """Return a copy in memory: what is tried on it never touches the disk."""
        return MemoryFile(self.name, self.pread(0, self.size()))

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
