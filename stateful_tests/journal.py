"""The journal of a unit: a line for each history as it ends, so that a run that was killed can go on.

A line holds what the history adds to the unit's answer, and what the phase knows it by. It is with the operating
system as soon as the history ends: killing the process loses the histories under way, and nothing else. A last line
that was cut is no line.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import TextIOBase
from pathlib import Path
from types import TracebackType
from typing import Final, cast

from snapcheck.reports import codec
from snapcheck.reports.codec import CodecError, Json
from snapcheck.reports.jsonl import HistoryError
from snapcheck.stateful_tests.units import Failure


@dataclass(frozen=True, slots=True)
class Entry:
    """What one history adds to the answer. `case` is what its phase knows it by, `note` what it wants to remember."""

    digest: str
    steps: int
    seconds: float  # of the unit, until this history had ended
    case: str = ""
    note: tuple[str, ...] = ()
    checked: dict[str, int] = field(default_factory=dict[str, int])
    violated: dict[str, int] = field(default_factory=dict[str, int])
    cells: dict[str, int] = field(default_factory=dict[str, int])
    counts: dict[str, int] = field(default_factory=dict[str, int])
    failures: tuple[Failure, ...] = ()


class Journal:
    """The file of one unit. `entries` are those that are there already, by case and in order."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.entries: Final[Mapping[str, Entry]] = _read(path)
        self._file: TextIOBase | None = None

    def __enter__(self) -> "Journal":
        path = self._path
        path.parent.mkdir(parents=True, exist_ok=True)
        _cut_to_whole_lines(path)
        self._file = path.open("a", encoding="ascii")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def append(self, entry: Entry) -> None:
        """Write a line, and hand it to the operating system."""
        assert self._file is not None, "a journal is open while it is written"
        self._file.write(json.dumps(codec.dump(entry), ensure_ascii=True, separators=(",", ":")) + "\n")
        self._file.flush()


def _read(path: Path) -> dict[str, Entry]:
    if not path.exists():
        return {}
    whole, _, _ = path.read_text(encoding="ascii").rpartition("\n")
    entries = [_entry(path, number, line) for number, line in enumerate(whole.splitlines(), 1)]
    return {entry.case: entry for entry in entries}


def _entry(path: Path, number: int, line: str) -> Entry:
    try:
        return codec.load(Entry, cast("Json", json.loads(line)))
    except (CodecError, ValueError) as error:
        raise HistoryError(f"{path}, line {number}: {error}") from None


def _cut_to_whole_lines(path: Path) -> None:
    if path.exists():
        data = path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            path.write_bytes(data[:whole])
