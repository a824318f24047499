"""The regression corpus: a folder of failures that were found once, each a small file to be reviewed like code.

A file is a reproducer (reports/reproducer.py): the history spelled as constructor calls, in a pytest function that
fails while the driver breaks the law. It is read by its syntax tree, never executed.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from snapcheck.model.history import History
from snapcheck.model.law_names import Severity
from snapcheck.reports import reproducer
from snapcheck.reports.files import write_whole
from snapcheck.reports.verdict import RunResult, ViolationReport
from snapcheck.stateful_tests.shrink import READABLE

NAME: Final = "corpus"  # of the phase that replays it
_PATTERN: Final = "test_*.py"


class Entry(NamedTuple):
    """A file, and the history in it."""

    path: Path
    history: History
    reproduced: bool = True


class Added(NamedTuple):
    """How many files a run added, and why others were not, in words."""

    files: int
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Corpus:
    """A folder and what is in it; a folder that is not there yet is an empty one."""

    folder: Path
    entries: tuple[Entry, ...] = ()

    def add(self, result: RunResult) -> Added:
        """Write a file for what `result` has found and nobody has accepted: the shortest error of each likely cause.

        A replay has to have shown it, in milliseconds; and what a file shows still needs no other.
        """
        there = {each.cause for each in result.violations if each.phase == NAME}
        new = [each for each in result.violations if each.phase != NAME and _is_telling(each)]
        reproduced = [each for each in new if each.reproduced]
        short = [each for each in reproduced if each.shrunk or each.operations <= READABLE]
        of_its_own = [*{each.cause: each for each in reversed(short) if each.cause not in there}.values()]
        left_out = {
            "of a likely cause that has a file": len(short) - len(of_its_own),
            f"longer than {READABLE} operations (replay ID --shrink, then copy its reproducer)": (
                len(reproduced) - len(short)
            ),
            "that no replay has shown": len(new) - len(reproduced),
        }
        files = sum(map(partial(self._write, result), of_its_own))
        return Added(files, tuple(f"{count} {words}" for words, count in left_out.items() if count))

    def _write(self, result: RunResult, violation: ViolationReport) -> bool:
        """Write a file, and tell whether it is a new one."""
        path = self.folder / f"test_{violation.law.value.replace('-', '_')}_{violation.id}.py"
        if violation.history is None or path.exists():
            return False
        self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(path, (reproducer.source(result, violation, violation.history),))
        return True

    def drop(self, entry: Entry) -> None:
        """Remove the file of a failure that is none any more."""
        entry.path.unlink(missing_ok=True)


def _is_telling(violation: ViolationReport) -> bool:
    return violation.severity is Severity.ERROR and not violation.known


def read(folder: Path) -> Corpus:
    """Return the corpus in `folder`; `HistoryError` names a file that does not belong there."""
    if not folder.exists():
        return Corpus(folder)
    paths = sorted(path for path in folder.iterdir() if path.match(_PATTERN))
    read_in = ((path, reproducer.read(path)) for path in paths)
    return Corpus(folder, tuple(Entry(path, each.history, each.reproduced) for path, each in read_in))
