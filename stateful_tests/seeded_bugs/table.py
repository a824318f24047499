"""The seeded bugs as tables in Markdown: what docs/reference/seeded_bugs.md holds between its marks."""

from collections.abc import Iterator
from itertools import groupby
from typing import Final

from snapcheck.impl.targets import find_target
from snapcheck.model.setup import Semantics
from snapcheck.stateful_tests.seeded_bugs import CATALOGUE, SeededBug
from snapcheck.stateful_tests.seeded_bugs.rows import LEFT_OUT, ROWS

BEGIN: Final = "<!-- tables: begin -->\n"
END: Final = "<!-- tables: end -->\n"
_TITLES: Final = {
    "group": "The group functions",
    "generic": "The calls on one node",
    "callers": "savevm, loadvm, delvm, transactions",
    "snapshot_table": "The engine: the snapshot table",
    "mapping": "The engine: refcounts, COPIED, tables",
    "sizes": "The engine: sizes and VM state",
    "malformed": "The engine: images that are not what they claim to be",
    "power_cuts": "Power cuts: what is on the disk in between",
    "conjunctions": "What needs several things at once",
    "blind_spots": "What no phase did, or no law asked",
}


def tables() -> str:
    """Return all tables: the bugs by subject, then the rows that are left out."""
    return "".join(f"{line}\n" for line in (*_bug_tables(), *_left_out_table()))


def with_tables(page: str) -> str:
    """Return `page` with the tables as they are now between its marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{tables()}{END}{after}"


def _bug_tables() -> Iterator[str]:
    for subject, bugs in groupby(sorted(CATALOGUE, key=_place), key=lambda bug: bug.subject):
        yield from (f"## {_TITLES[subject]}", "| bug | what is wrong | law | from |", "|---|---|---|---|")
        yield from map(_line, bugs)
        yield ""


def _place(bug: SeededBug) -> tuple[int, int]:
    return [*_TITLES].index(bug.subject), CATALOGUE.index(bug)


def _line(bug: SeededBug) -> str:
    row = ROWS.get(bug.row)
    source = "" if row is None else f"{bug.row}: {row.commits}{f' ({row.release})' if row.release else ''}"
    profile = "" if bug.semantics is Semantics.CLASSIC else f" ({bug.semantics.value})"
    law = f"[{bug.law.value}](../laws/{bug.law.value}.md)"
    return f"| `{bug.name}`{profile} | {find_target(bug.driver).what} | {law} | {source} |"


def _left_out_table() -> Iterator[str]:
    planted = {bug.row for bug in CATALOGUE}
    yield from ("## What is not here", "| row | what it was | why it is left out |", "|---|---|---|")
    for row, reason in LEFT_OUT.items():
        if row not in planted:
            source = f"{row}: {ROWS[row].commits}"
            yield f"| {source} | {ROWS[row].what} | {reason} |"
