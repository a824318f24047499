"""Writes the tables of docs/reference/seeded_bugs.md anew, from the catalogue."""

from pathlib import Path

from snapcheck.stateful_tests.seeded_bugs.table import with_tables

PAGE = Path(__file__).parent.parent / "docs/reference/seeded_bugs.md"

PAGE.write_text(with_tables(PAGE.read_text()))
print(f"{PAGE} is up to date")
