"""The coverage matrix as tables of squares, for report.html.

A cell is operation x fault x role x state (stateful_tests/cells.py). Each table has the operations down and one other
part across; a square is a role, and its colour says how many of the cells behind it were reached.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from snapcheck.reports.verdict import Coverage

PARTS: Final = 4
FAULTS: Final = 1  # what stands across
STATES: Final = 3
_ROLE: Final = 2
_SHADES: Final = 5


@dataclass(frozen=True, slots=True)
class Square:
    """The cells of one operation, column and role: how often each was hit, by what is not shown in the table."""

    name: str
    hits: Mapping[str, int]

    @property
    def heat(self) -> str:
        """The class of the square: none of its cells was reached, or one of five shades up to all of them."""
        reached = sum(map(bool, self.hits.values()))
        return f"h{-(-_SHADES * reached // len(self.hits))}" if reached else "never"

    @property
    def title(self) -> str:
        """What a reader is told who points at it."""
        never = [name for name, count in self.hits.items() if not count]
        told = f"{self.name}: {len(self.hits) - len(never)} of {len(self.hits)} reached"
        return f"{told}; never: {', '.join(never)}" if never else told


@dataclass(frozen=True, slots=True)
class Row:
    """An operation: its squares, column by column, each column with one for each role (None: there is no such cell)."""

    operation: str
    columns: tuple[tuple[Square | None, ...], ...]


@dataclass(frozen=True, slots=True)
class Matrix:
    """A table of squares."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]


def matrix_of(coverage: Coverage, *, across: int) -> Matrix:
    """Return the table with `FAULTS` or `STATES` across; names that are not of four parts are left out."""
    beside = STATES if across == FAULTS else FAULTS
    squares: dict[tuple[str, str], dict[str, dict[str, int]]] = defaultdict(lambda: defaultdict(dict))
    for name, hits in coverage.hits.items():
        parts = name.split(" x ")
        if len(parts) == PARTS:
            squares[parts[0], parts[across]][parts[_ROLE]][parts[beside]] = hits
    columns = tuple(dict.fromkeys(column for _, column in squares))
    columns = tuple(sorted(columns)) if across == FAULTS else columns
    operations = dict.fromkeys(operation for operation, _ in squares)
    return Matrix(columns, tuple(_row(operation, columns, squares) for operation in operations))


def _row(
    operation: str, columns: Sequence[str], squares: Mapping[tuple[str, str], Mapping[str, Mapping[str, int]]]
) -> Row:
    mine = {column: squares.get((operation, column), {}) for column in columns}
    roles = tuple(dict.fromkeys(role for by_role in mine.values() for role in by_role))
    return Row(operation, tuple(_column(operation, column, mine[column], roles) for column in columns))


def _column(
    operation: str, column: str, by_role: Mapping[str, Mapping[str, int]], roles: Sequence[str]
) -> tuple[Square | None, ...]:
    if not by_role:
        return ()
    return tuple(
        Square(f"{operation} x {column} x {role}", by_role[role]) if role in by_role else None for role in roles
    )
