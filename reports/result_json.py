"""result.json: what a run concluded, for machines; the keys are a contract (docs/reference/result_json.md)."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, cast

from snapcheck.reports import codec
from snapcheck.reports.codec import CodecError, Json
from snapcheck.reports.files import write_whole
from snapcheck.reports.jsonl import Header, HistoryFile
from snapcheck.reports.verdict import (
    SCHEMA,
    Coverage,
    LawReport,
    PhaseCoverage,
    PhaseReport,
    RunResult,
    ViolationReport,
)

_RUN: Final = (
    "schema", "version", "verdict", "driver", "semantics", "seed", "devices", "seconds", "phases", "laws", "coverage",
    "violations",
)  # fmt: skip
_PHASE: Final = ("name", "histories", "steps", "seconds", "complete", "scope", "counts")
_LAW: Final = ("law", "checked", "violated", "not_observable")
_COVERAGE: Final = ("cells", "reached", "never", "phases")
_PHASE_COVERAGE: Final = ("name", "reached", "alone", "never")
_VIOLATION: Final = (
    "id", "law", "severity", "device", "operation", "summary", "operations", "faults", "phase", "found_after_s",
    "known", "replay", "cause", "shrunk", "reproduced",
)  # fmt: skip
_KEYS: Final[Mapping[type, tuple[str, ...]]] = {
    RunResult: _RUN, PhaseReport: _PHASE, LawReport: _LAW, Coverage: _COVERAGE, PhaseCoverage: _PHASE_COVERAGE,
    ViolationReport: _VIOLATION,
}  # fmt: skip


class ResultError(Exception):
    """A result.json that can not be used; the text is one line."""


def to_json(result: RunResult) -> Json:
    """Return exactly what result.json holds."""
    return _exactly(result)


def _exactly(value: object) -> Json:
    keys = _KEYS.get(type(value))
    if keys is not None:
        return {key: _exactly(getattr(value, key)) for key in keys}
    if isinstance(value, tuple):
        return [_exactly(each) for each in cast("Sequence[object]", value)]
    if isinstance(value, float):
        return round(value, 3)
    return codec.dump(value)


def write(path: Path, result: RunResult) -> None:
    """Write result.json, whole or not at all."""
    write_whole(path, (json.dumps(to_json(result), indent=1, ensure_ascii=True, allow_nan=False), "\n"))


def read(path: Path) -> RunResult:
    """Return what is in a result.json, or raise `ResultError` with one line that says what is wrong with it."""
    try:
        raw = cast("Json", json.loads(path.read_text(encoding="utf-8")))
        result = codec.load(RunResult, raw)
    except OSError as error:
        raise ResultError(f"{path}: {error.strerror or error}") from None
    except CodecError as error:
        raise ResultError(f"{path}: {error}") from None
    except (ValueError, RecursionError):
        raise ResultError(f"{path}: not JSON, so not a result.json") from None
    if result.schema != SCHEMA:
        raise ResultError(f"{path}: schema {result.schema} is not {SCHEMA}, the one that this version reads")
    for violation in result.violations:
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", violation.id):  # it names a file
            raise ResultError(f"{path}: {ascii(violation.id)[:40]} is no name of a violation")
    return result


def with_histories(result: RunResult, file: HistoryFile) -> RunResult:
    """Return `result` with what only history.jsonl holds: notes, coverage hits, and each violation's evidence."""
    return replace(
        result,
        notes=file.header.notes,
        coverage=_with_hits(result.coverage, file.header),
        violations=tuple(_joined(result.violations, file)),
    )


def _with_hits(coverage: Coverage, header: Header) -> Coverage:
    phases = tuple(replace(each, hits=header.hits_by_phase.get(each.name, {})) for each in coverage.phases)
    return replace(coverage, hits=header.hits, phases=phases)


def _joined(violations: Iterable[ViolationReport], file: HistoryFile) -> Iterable[ViolationReport]:
    for each in violations:
        found = file.find(each.id)
        if found is None:
            yield each
        else:
            yield replace(
                each, evidence=found.evidence, expected=found.expected, actual=found.actual, step=found.step,
                history=found.history,
            )  # fmt: skip
