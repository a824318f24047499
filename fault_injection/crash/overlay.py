"""Crash states as disks that can be read, without making a copy of each: what was there, and the columns over it."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray
from snapcheck.fault_injection.crash.columns import Columns
from snapcheck.impl.blockfile import MemoryFile
from snapcheck.model.content import SECTOR


class NeedsPlainError(Exception):
    """Something that only the plain judge can take: it writes, or is of a kind that has no tables here."""


class Read(NamedTuple):
    """A range of bytes that was read."""

    region: str
    offset: int
    length: int


class Places:
    """Where the sectors of the columns are."""

    def __init__(self, columns: Columns) -> None:
        self.columns = columns
        found = sorted(
            (sector, number, place)
            for number, column in enumerate(columns.columns)
            for place, sector in enumerate(column.sectors)
        )
        self._sectors = [sector for sector, _, _ in found]
        self._where = [(number, place) for _, number, place in found]

    def within(self, offset: int, length: int) -> Sequence[tuple[int, tuple[int, int]]]:
        """Return the sectors of columns among the bytes of a range: each with its column and its place there."""
        low = bisect_left(self._sectors, offset // SECTOR)
        high = bisect_left(self._sectors, -(-(offset + length) // SECTOR))
        return list(zip(self._sectors[low:high], self._where[low:high], strict=True))

    def patched(self, offset: int, length: int, versions: Sequence[int] | Mapping[int, int], *, size: int) -> bytes:
        """Return a range of bytes where columns have these `versions`; behind `size`, the file's end, are zeroes."""
        raw = self.columns.base.pread(offset, length)
        changed = self.within(offset, length)
        if changed:
            patched = bytearray(raw)
            for sector, (number, place) in changed:
                content = self.columns.columns[number].contents[versions[number]][place]
                start = sector * SECTOR - offset
                low, high = max(start, 0), min(start + SECTOR, length)
                patched[low:high] = content[low - start : high - start]
            raw = bytes(patched)
        return raw if offset + length <= size else raw[: max(size - offset, 0)].ljust(length, b"\0")

    def columns_within(self, offset: int, length: int) -> tuple[int, ...]:
        """Return the columns that have a part in a range of bytes."""
        return tuple(dict.fromkeys(number for _, (number, _) in self.within(offset, length)))

    def by_cluster(self, cluster_bits: int) -> dict[int, tuple[int, ...]]:
        """Return by cluster which columns have a part in it; clusters that never change are left out."""
        found: dict[int, dict[int, None]] = {}
        shift = cluster_bits - (SECTOR.bit_length() - 1)
        for sector, (number, _) in zip(self._sectors, self._where, strict=True):
            found.setdefault(sector >> shift, {})[number] = None
        return {cluster: tuple(numbers) for cluster, numbers in found.items()}


class Overlay:
    """One crash state as a block file that can be read only; it notes what was read. Writing is `NeedsPlainError`."""

    def __init__(self, places: Places, row: NDArray[np.uint16]) -> None:
        self.name = "crash state"
        self._places = places
        self._columns = places.columns
        self._row: list[int] = row.tolist()
        self.reads: list[Read] = []

    def size(self) -> int:
        return self._columns.lengths[self._row[-1]]

    def pread(self, offset: int, length: int, *, region: str = "") -> bytes:
        self.reads.append(Read(region, offset, length))
        return self._places.patched(offset, length, self._row, size=self.size())

    def pwrite(self, offset: int, data: bytes, *, region: str = "") -> None:  # noqa: ARG002  # the protocol's
        _refuse()

    def discard(self, offset: int, length: int, *, region: str = "") -> None:  # noqa: ARG002  # the protocol's
        _refuse()

    def flush(self) -> None:
        _refuse()

    def truncate(self, size: int) -> None:  # noqa: ARG002  # the protocol's
        _refuse()

    def clone(self) -> MemoryFile:
        """Return the state as a disk of its own."""
        disk = self._columns.base.clone()
        for column, version in zip(self._columns.columns, self._row, strict=False):
            if version:
                for sector, content in zip(column.sectors, column.contents[version], strict=True):
                    disk.pwrite(sector * SECTOR, content)
        disk.truncate(self.size())
        return disk

    def close(self) -> None:
        pass


def _refuse() -> NoReturn:
    raise NeedsPlainError
