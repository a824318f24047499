"""The raw format: over a file it is a plain disk, over another driver it passes everything through.

Neither has snapshots. Over a driver the generic layer falls back to the child for them (SPEC A.0, D).
"""

from snapcheck.impl.blockfile import BlockFile
from snapcheck.impl.driver import CreateOptions
from snapcheck.impl.filter import WITHOUT_SNAPSHOTS, Filter, WithoutSnapshots


class Raw(Filter):
    """The raw format over a driver."""

    __slots__ = ()


class RawFile(WithoutSnapshots):
    """The raw format on a file: the file's bytes are the disk."""

    __slots__ = ("_disk", "_read_only", "capabilities")

    def __init__(self, disk: BlockFile, *, read_only: bool) -> None:
        self._disk = disk
        self._read_only = read_only
        self.capabilities = WITHOUT_SNAPSHOTS

    def close(self) -> None:
        if not self._read_only:
            self._disk.flush()

    def size(self) -> int:
        return self._disk.size()

    def read(self, offset: int, length: int) -> bytes:
        return self._disk.pread(offset, length, region="data")

    def write(self, offset: int, data: bytes) -> None:
        self._disk.pwrite(offset, data, region="data")

    def write_zeroes(self, offset: int, length: int) -> None:
        self._disk.pwrite(offset, bytes(length), region="data")

    def discard(self, offset: int, length: int) -> None:
        self._disk.discard(offset, length, region="data")

    def flush(self) -> None:
        self._disk.flush()

    def resize(self, size_bytes: int) -> None:
        self._disk.truncate(size_bytes)


def open_raw(disk: BlockFile, *, read_only: bool, create: CreateOptions | None) -> RawFile:
    """Open `disk` as it is, or give it a size first when `create` is given."""
    if create is not None:
        disk.truncate(0)
        disk.truncate(create.size_bytes)
    return RawFile(disk, read_only=read_only)
