"""The regression corpus: a folder of failures that were found once, each a small file to be reviewed like code.

A file is a reproducer (reports/reproducer.py): the history spelled as constructor calls, in a pytest function that
fails while the driver breaks the law. It is read by its syntax tree, never executed.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from snapcheck.model.history import History
from snapcheck.model.law_names import Severity
from snapcheck.reports import reproducer
from snapcheck.reports.files import write_whole
from snapcheck.reports.verdict import RunResult, ViolationReport

NAME: Final = "corpus"  # of the phase that replays it
_PATTERN: Final = "test_*.py"


class Entry(NamedTuple):
    """A file, and the history in it."""

    path: Path
    history: History


@dataclass(frozen=True, slots=True)
class Corpus:
    """A folder and what is in it; a folder that is not there yet is an empty one."""

    folder: Path
    entries: tuple[Entry, ...] = ()

    def add(self, result: RunResult, violations: Iterable[ViolationReport]) -> int:
        """Write a file for each violation that needs one, and return how many: errors that nobody has accepted."""
        added = 0
        for violation in violations:
            path = self.folder / f"test_{violation.law.value.replace('-', '_')}_{violation.id}.py"
            telling = violation.severity is Severity.ERROR and not violation.known
            if telling and violation.history is not None and not path.exists():
                self.folder.mkdir(parents=True, exist_ok=True)
                write_whole(path, (reproducer.source(result, violation, violation.history),))
                added += 1
        return added

    def drop(self, entry: Entry) -> None:
        """Remove the file of a failure that is none any more."""
        entry.path.unlink(missing_ok=True)


def read(folder: Path) -> Corpus:
    """Return the corpus in `folder`; `HistoryError` names a file that does not belong there."""
    if not folder.exists():
        return Corpus(folder)
    paths = sorted(path for path in folder.iterdir() if path.match(_PATTERN))
    return Corpus(folder, tuple(Entry(path, reproducer.read(path)[1]) for path in paths))
