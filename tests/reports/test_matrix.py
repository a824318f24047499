"""The matrix as tables of squares: one for each role, as dark as the share of its cells that was reached."""

from snapcheck.reports.matrix import FAULTS, STATES, matrix_of
from snapcheck.reports.verdict import Coverage

HITS = {
    "goto x none x root x bare": 900, "goto x none x root x bitmap": 1, "goto x none x child x bare": 0,
    "goto x flush-error x root x bare": 0, "goto x flush-error x root x bitmap": 2, "odd": 3,
    "list x none x root x bare": 1,
}  # fmt: skip
COVERAGE = Coverage(6, 4, (), HITS)


def heats(across: int) -> dict[str, list[list[str | None]]]:
    rows = matrix_of(COVERAGE, across=across).rows
    return {row.operation: [[each and each.heat for each in column] for column in row.columns] for row in rows}


def test_a_square_is_a_role_and_there_is_none_where_there_is_no_cell() -> None:
    assert matrix_of(COVERAGE, across=FAULTS).columns == ("flush-error", "none")
    assert heats(FAULTS) == {"goto": [["h3", None], ["h5", "never"]], "list": [[], ["h5"]]}


def test_the_same_cells_by_the_state_before() -> None:
    assert matrix_of(COVERAGE, across=STATES).columns == ("bare", "bitmap")
    assert heats(STATES) == {"goto": [["h3", "never"], ["h5", None]], "list": [["h5"], []]}


def test_a_square_says_what_of_it_was_never_reached() -> None:
    (flushes, _), *_ = (row.columns for row in matrix_of(COVERAGE, across=FAULTS).rows)
    assert flushes[0] is not None
    assert flushes[0].title == "goto x flush-error x root: 1 of 2 reached; never: bare"
