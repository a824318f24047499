"""What can differ between the states that a power cut leaves: columns, each with a few versions.

A column is a set of sectors that always change together: the same writes touch them, and equal contents share a
version. Version 0 is what was there before. The last surviving write of a column decides its version, so a state is a
small row of version numbers. The length of the file is a column of its own, the last one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from snapcheck.fault_injection.crash.cuts import SectorWrite, filling
from snapcheck.impl.blockfile import MemoryFile
from snapcheck.model.content import SECTOR
from snapcheck.model.power_cut import Filling

Rows = NDArray[np.uint16]  # a row of version numbers for each state
VERSIONS_MAX: Final = 1 << 16


class Column(NamedTuple):
    """Sectors that change together, and their contents by version."""

    sectors: tuple[int, ...]
    contents: tuple[tuple[bytes, ...], ...]


class Effect(NamedTuple):
    """What a write does to a row: `columns` get these versions, whatever they had.

    `places` says where in the write the sectors of each column are (its first one).
    """

    columns: NDArray[np.intp]
    versions: Rows
    places: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of some writes over a base, and what each write does to them.

    survives  by write: what it does when it survives
    lost      by write: what it does when it is lost; empty where that leaves things as they were
    lengths   the lengths of the file, by version of the last column
    length_after  by write: the version of the length after it, by version before it
    """

    base: MemoryFile
    columns: tuple[Column, ...]
    survives: tuple[Effect, ...]
    lost: tuple[Effect, ...]
    lengths: tuple[int, ...]
    length_after: tuple[Rows, ...]

    @property
    def width(self) -> int:
        """Return how many versions make up a row."""
        return len(self.columns) + 1

    @property
    def versions_max(self) -> int:
        """Return how many versions the column with the most of them has."""
        return max(len(self.lengths), *(len(column.contents) for column in self.columns), 1)


def columns_of(writes: Sequence[SectorWrite], base: MemoryFile, *, fill: Filling, torn: bool) -> Columns:
    """Return the columns of `writes` over `base`; with `torn` each sector has a column of its own."""
    history = _history(writes, base, everything=fill is not Filling.OLD)
    by_signature: dict[object, list[int]] = {}
    contents: dict[int, dict[bytes, int]] = {}  # by sector: its contents, numbered
    for sector, changes in history.items():
        versions = {_old(base, sector): 0}
        signature = tuple((place, versions.setdefault(new, len(versions))) for place, new in changes)
        if fill is not Filling.OLD:
            versions.setdefault(filling(fill, sector), len(versions))
            signature = (*signature, (-1, versions[filling(fill, sector)]))
        if len(versions) > 1:
            contents[sector] = versions
            by_signature.setdefault((signature, sector) if torn else signature, []).append(sector)
    columns = tuple(_column(sectors, contents) for sectors in by_signature.values())
    column_of = {sector: number for number, column in enumerate(columns) for sector in column.sectors}
    survives = tuple(_effect(write, column_of, contents, None) for write in writes)
    lost = () if fill is Filling.OLD else tuple(_effect(write, column_of, contents, fill) for write in writes)
    lengths, length_after = _lengths(writes, base.size())
    return Columns(base, columns, survives, lost, lengths, length_after)


def _history(
    writes: Sequence[SectorWrite], base: MemoryFile, *, everything: bool
) -> dict[int, list[tuple[int, bytes]]]:
    """Return by sector which writes touch it, and what each puts there.

    Unless `everything` is wanted, writes are left out that put into a sector what no earlier one had changed: most of
    what is written whole, as caches do, is as it was.
    """
    history: dict[int, list[tuple[int, bytes]]] = {}
    for place, write in enumerate(writes):
        if not write.sectors:
            continue
        first = write.sectors[0][0]
        before = base.pread(first * SECTOR, len(write.sectors) * SECTOR)
        for at, (sector, content) in enumerate(write.sectors):
            known = history.get(sector)
            if known is not None:
                known.append((place, content))
            elif everything or content != before[at * SECTOR : (at + 1) * SECTOR]:
                history[sector] = [(place, content)]
    return history


def _old(base: MemoryFile, sector: int) -> bytes:
    return base.pread(sector * SECTOR, SECTOR)


def _column(sectors: list[int], contents: dict[int, dict[bytes, int]]) -> Column:
    return Column(tuple(sectors), tuple(zip(*(contents[sector] for sector in sectors), strict=True)))


def _effect(
    write: SectorWrite, column_of: dict[int, int], contents: dict[int, dict[bytes, int]], fill: Filling | None
) -> Effect:
    """Return what a write does that survives, or one whose sectors are lost and filled."""
    found: dict[int, tuple[int, int]] = {}  # by column: the version, and where in the write
    for place, (sector, content) in enumerate(write.sectors):
        column = column_of.get(sector)
        if column is not None and column not in found:
            found[column] = contents[sector][content if fill is None else filling(fill, sector)], place
    columns = np.array(list(found), dtype=np.intp)
    versions = np.array([version for version, _ in found.values()], dtype=np.uint16)
    return Effect(columns, versions, tuple(place for _, place in found.values()))


def _lengths(writes: Sequence[SectorWrite], length: int) -> tuple[tuple[int, ...], tuple[Rows, ...]]:
    """Return all lengths that the file may have, the first one first, and by write which follows on which."""
    known = {length: 0}
    for write in writes:
        for each in tuple(known):
            known.setdefault(write.length_after(each), len(known))
    lengths = tuple(known)
    after = tuple(np.array([known.get(w.length_after(each), 0) for each in lengths], dtype=np.uint16) for w in writes)
    return lengths, after
