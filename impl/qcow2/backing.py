"""Backing files: what an image shows where nothing is mapped in itself."""

from pathlib import Path
from typing import Final, Protocol

from snapcheck.impl.blockfile import BlockFile

CHAIN_MAX: Final = 16  # images above one another; more is a circle, or might as well be one
FORMATS: Final = ("qcow2", "raw")


class Backing(Protocol):
    """What is below an image: it is read and never written."""

    @property
    def size_bytes(self) -> int: ...
    def read(self, offset: int, length: int) -> bytes: ...
    def close(self) -> None: ...


class RawBacking:
    """A backing file that is the content itself. With it goes the file, when it is closed."""

    __slots__ = ("_file", "size_bytes")

    def __init__(self, file: BlockFile) -> None:
        self._file = file
        self.size_bytes = file.size()

    def read(self, offset: int, length: int) -> bytes:
        return self._file.pread(offset, length, region="data")

    def close(self) -> None:
        self._file.close()


def path_of(name: str, image: Path) -> Path:
    """Return the file that an image means by a backing file's name: relative to where the image is."""
    return image.parent / name.removeprefix("file:")
