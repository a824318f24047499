"""An image drawn in characters: what each of its clusters holds."""

from collections.abc import Iterator, Sequence
from typing import Final

from snapcheck.impl.qcow2.check import ClusterKind, Report

COLUMNS: Final = 64
ROWS_MAX: Final = 16

# In the order in which a square that stands for several clusters shows them: what is wrong, what is rare, what is not.
LETTERS: Final = {
    ClusterKind.CONFLICT: ("!", "two things in one place"),
    ClusterKind.LEAKED: ("?", "leaked"),
    ClusterKind.HEADER: ("H", "header"),
    ClusterKind.SNAPSHOT_TABLE: ("S", "snapshot table"),
    ClusterKind.REFCOUNT_TABLE: ("T", "refcount table"),
    ClusterKind.REFCOUNT_BLOCK: ("R", "refcount block"),
    ClusterKind.BITMAP: ("B", "dirty bitmaps"),
    ClusterKind.L1: ("1", "L1 table"),
    ClusterKind.L2: ("2", "L2 table"),
    ClusterKind.DATA: ("#", "data"),
    ClusterKind.SNAPSHOT_DATA: ("=", "data of snapshots only"),
    ClusterKind.FREE: (".", "free"),
}
_RANK: Final = {int(kind): rank for rank, kind in enumerate(LETTERS)}
_LETTER: Final = {int(kind): letter for kind, (letter, _) in LETTERS.items()}


def drawn(report: Report) -> Iterator[str]:
    """Yield the map, line by line, and below it the legend with counts."""
    kinds = report.kinds.tolist()
    each = max(1, -(-len(kinds) // (COLUMNS * ROWS_MAX)))  # clusters that one character stands for
    letters = "".join(_letter(kinds[start : start + each]) for start in range(0, len(kinds), each))
    digits = len(f"{report.file_bytes:x}")
    for start in range(0, len(letters), COLUMNS):
        offset = start * each * report.header.cluster_bytes
        yield f"  {offset:0{digits}x}  {letters[start : start + COLUMNS]}"
    yield f"  one character is {_clusters(each)} of {report.header.cluster_bytes:,} bytes"
    counts = report.cluster_counts()
    for kind, (letter, name) in LETTERS.items():
        if counts[kind]:
            yield f"  {letter} {name:<24} {counts[kind]:>10,}"


def _letter(kinds: Sequence[int]) -> str:
    return _LETTER[min(kinds, key=_RANK.__getitem__)]


def _clusters(count: int) -> str:
    return "one cluster" if count == 1 else f"{count:,} clusters"
