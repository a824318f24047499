"""history.jsonl: the recorded histories of a run, one line each, enough to replay and to draw the pages again.

The schema is written down in docs/reference/history_schema.md. Line 1 says what made the file; every further line is
one history, with the violation that it shows if it shows one.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar, cast

from snapcheck.model.history import FaultMet, History, PowerCut, Step
from snapcheck.model.law_names import Law
from snapcheck.model.operations import Operation
from snapcheck.model.setup import Setup
from snapcheck.reports import codec
from snapcheck.reports.codec import CodecError, Json
from snapcheck.reports.files import write_whole
from snapcheck.reports.verdict import RunResult, ViolationReport

SCHEMA: Final = 1
T = TypeVar("T")


class HistoryError(Exception):
    """A history file that can not be used; the text is one line that names the line and what is wrong there."""


@dataclass(frozen=True, slots=True)
class Header:
    """Line 1: what made the file, and what result.json has no place for: `notes`, and the coverage matrix.

    `hits` has every cell, `hits_by_phase` those that each phase reached.
    """

    schema: int
    version: str
    driver: str
    seed: int = 0
    notes: tuple[str, ...] = ()
    hits: dict[str, int] = field(default_factory=dict[str, int])
    hits_by_phase: dict[str, dict[str, int]] = field(default_factory=dict[str, dict[str, int]])


@dataclass(frozen=True, slots=True)
class Recorded:
    """One history and, when it shows a violation, what the pages say about it; `law` is None in a passing sample.

    `reproduced` is false where no replay has shown that violation yet.
    """

    id: str
    history: History
    law: Law | None = None
    device: str = ""
    step: int = 0
    evidence: tuple[str, ...] = ()
    expected: str = ""
    actual: str = ""
    reproduced: bool = True


@dataclass(frozen=True, slots=True)
class HistoryFile:
    """All of a history.jsonl."""

    header: Header
    records: tuple[Recorded, ...]

    def find(self, identity: str) -> Recorded | None:
        """Return the record called `identity`, or None."""
        return next((record for record in self.records if record.id == identity), None)


# --- writing --------------------------------------------------------------------------------------
def write(path: Path, result: RunResult, *, sample: Sequence[History] = ()) -> None:
    """Write the histories of `result`'s violations, then `sample` of passing ones."""
    lines = (_line(value) for value in (_header(result), *_records(result.violations, sample)))
    write_whole(path, lines, encoding="ascii")


def _header(result: RunResult) -> Header:
    coverage = result.coverage
    by_phase = {phase.name: dict(phase.hits) for phase in coverage.phases}
    return Header(
        SCHEMA, result.version, result.driver, result.seed, result.notes, dict(coverage.hits), by_phase
    )  # fmt: skip


def _records(violations: Sequence[ViolationReport], sample: Sequence[History]) -> Iterator[Recorded]:
    for each in violations:
        if each.history is not None:
            yield Recorded(
                each.id, each.history, each.law, each.device, each.step, each.evidence, each.expected, each.actual,
                each.reproduced,
            )  # fmt: skip
    for number, history in enumerate(sample, 1):
        yield Recorded(f"passed-{number}", history)


def _line(value: object) -> str:
    return json.dumps(codec.dump(value), ensure_ascii=True, separators=(",", ":")) + "\n"


# --- reading --------------------------------------------------------------------------------------
def read(path: Path) -> HistoryFile:
    """Return what is in the file, or raise `HistoryError` with one line that says what is wrong and where."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise HistoryError(f"{path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise HistoryError(f"{path}: not a text file, so not a history.jsonl") from None
    header = _read_line(path, 1, lines[0], _header_of)
    records = tuple(
        _read_line(path, number, line, _record_of) for number, line in enumerate(lines[1:], 2) if line.strip()
    )
    return HistoryFile(header, records)


def _read_line(path: Path, number: int, line: str, build: Callable[[Json], T]) -> T:
    try:
        return build(cast("Json", json.loads(line, parse_constant=_no_constant)))
    except CodecError as error:
        raise HistoryError(f"{path}, line {number}: {error}") from None
    except (ValueError, RecursionError) as error:
        what = error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__
        raise HistoryError(f"{path}, line {number}: not JSON ({what})") from None


def _no_constant(name: str) -> None:
    raise CodecError("", f"{name} is no number")


def _header_of(raw: Json) -> Header:
    if not isinstance(raw, dict) or "schema" not in raw:
        raise CodecError("", 'no {"schema": ...} here, so this is not a history.jsonl')
    if raw["schema"] != SCHEMA:
        raise CodecError("schema", f"{ascii(raw['schema'])[:20]} is not {SCHEMA}, the one that this version reads")
    return codec.load(Header, raw)


def _record_of(raw: Json) -> Recorded:
    record = codec.load(Recorded, raw)
    check_history(record.history)
    if record.law is not None and not 0 <= record.step < len(record.history.steps):
        raise CodecError("step", f"{record.step} is not one of {len(record.history.steps)} steps")
    return record


# --- what types alone do not say ------------------------------------------------------------------
def check_history(history: History, where: str = "history") -> None:
    """Raise `CodecError` when the parts of `history` do not fit together: a replay would stumble over them."""
    names = _node_names(history.setup, f"{where}.setup")
    for index, step in enumerate(history.steps):
        place = f"{where}.steps[{index}]"
        for device in (*_named_by(step.operation), *(fault.device for fault in step.faults)):
            if device not in names:
                raise CodecError(place, f"{ascii(device)[:40]} is no device of this setup")
        _check_indices(step, place)
    if history.cut is not None:
        _check_cut(history, history.cut, {device.name for device in history.setup.devices}, f"{where}.cut")


def _check_cut(history: History, cut: PowerCut, names: set[str], where: str) -> None:
    if not history.steps:
        raise CodecError(where, "the power can not go during the last of no steps")
    named = {each.device for part in (cut.devices, cut.seen, cut.log) for each in part}
    for device in sorted(named - names):
        raise CodecError(where, f"{ascii(device)[:40]} is no device of this setup")
    for sent in cut.log:
        if sent.step is not None and not 0 <= sent.step < len(history.steps):
            raise CodecError(where, f"step {sent.step} is not one of {len(history.steps)} steps")


def _node_names(setup: Setup, where: str) -> set[str]:
    roots = [device.name for device in setup.devices]
    if not roots or len(set(roots)) != len(roots):
        raise CodecError(f"{where}.devices", "needs one device or more, each with a name of its own")
    return {*roots, *(f"{root}/file" for root in roots)}


def _named_by(operation: Operation) -> tuple[str, ...]:
    actions: tuple[object, ...] = getattr(operation, "actions", ())
    return tuple(str(name) for each in (operation, *actions) if (name := getattr(each, "device", None)) is not None)


def _check_indices(step: Step, where: str) -> None:
    numbers: list[int] = [*step.skipped, *(event.fault for event in step.events if isinstance(event, FaultMet))]
    if any(not 0 <= number < len(step.faults) for number in numbers):
        raise CodecError(where, f"speaks of a fault that is not among its {len(step.faults)}")
