"""Known and accepted divergences: a TOML file of laws that a driver is known to break, each with the reason.

    [[accept]]
    law = "no-leak"
    operation = "create"        # optional: any operation
    device = "d1"               # optional: any device
    outcome = "error"           # optional: what the operation answered: OK, error (any), crash, or an errno's name
    faults = "some"             # optional: whether a fault has struck on the way there: some or none
    matches = "[0-9]+ leaks"    # optional: a regular expression that is found in what the driver did, or in the summary
    reason = "tracked upstream as #123: the L1 copy is not freed after ENOSPC"

What matches stays in the report, is counted apart, and leaves verdict and exit status alone. The more of this an entry
says, the fewer new violations it takes for the old one.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, cast

from snapcheck.model.errno import Errno
from snapcheck.model.law_names import Law, Severity
from snapcheck.model.operations import KINDS
from snapcheck.reports.verdict import RunResult, Verdict, ViolationReport

_KEYS: Final = ("law", "operation", "device", "outcome", "faults", "matches", "reason")
_ANY_ERROR: Final = "error"
_CRASH: Final = "crash"
_OUTCOMES: Final = (_ANY_ERROR, _CRASH, *(errno.name for errno in Errno))
_SOME: Final = "some"


class KnownError(Exception):
    """A file of known divergences that can not be used; the text is one line that says what is wrong."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """One accepted divergence; what is None is not asked for."""

    law: Law
    reason: str
    operation: str | None = None
    device: str | None = None
    outcome: str | None = None
    faults: str | None = None
    matches: str | None = None

    def covers(self, violation: ViolationReport) -> bool:
        """Tell whether `violation` is what was accepted."""
        return (
            violation.law is self.law
            and self.operation in (None, violation.operation)
            and self.device in (None, violation.device)
            and (self.outcome is None or self.outcome in _outcomes_of(violation))
            and (self.faults is None or (self.faults == _SOME) is _was_struck(violation))
            and (self.matches is None or _is_found(self.matches, violation))
        )


def _outcomes_of(violation: ViolationReport) -> tuple[str, ...]:
    """Return the words for what the operation at hand answered; none when that was not recorded."""
    history = violation.history
    if history is None or violation.step >= len(history.steps):
        return ()
    result = history.steps[violation.step].result
    if result.crash is not None:
        return (_CRASH,)
    return (result.errno.name,) if result.errno is Errno.OK else (result.errno.name, _ANY_ERROR)


def _was_struck(violation: ViolationReport) -> bool:
    history = violation.history
    return bool(violation.faults) if history is None else any(step.met for step in history.steps)


def _is_found(pattern: str, violation: ViolationReport) -> bool:
    return any(re.search(pattern, text) is not None for text in (violation.actual, violation.summary))


def read(path: Path) -> tuple[Accepted, ...]:
    """Return what the file accepts, or raise `KnownError`."""
    try:
        content = cast("dict[str, object]", tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise KnownError(f"{path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise KnownError(f"{path}: not TOML: {str(error).splitlines()[0]}") from None
    entries = content.pop("accept", [])
    if content or not isinstance(entries, list):
        what = f"unknown key {next(iter(content))!a}" if content else "accept is no list"
        raise KnownError(f"{path}: {what}; write [[accept]] with law and reason, and what else it is to be known by")
    return tuple(
        _entry(f"{path}: accept number {number}", each) for number, each in enumerate(cast("list[object]", entries), 1)
    )


def _entry(where: str, raw: object) -> Accepted:
    if not isinstance(raw, dict):
        raise KnownError(f"{where} is no table; write [[accept]] above it")
    entry = cast("Mapping[str, object]", raw)
    for key, value in entry.items():
        if key not in _KEYS:
            raise KnownError(f"{where}: unknown key {key!a}; there are {', '.join(_KEYS)}")
        if not isinstance(value, str) or not value.strip():
            raise KnownError(f"{where}: {key} must be text that is not empty")
    for key in ("law", "reason"):
        if key not in entry:
            raise KnownError(f"{where}: {key} is missing")
    texts = cast("Mapping[str, str]", entry)
    _one_of(where, "law", texts["law"], [law.value for law in Law])
    if "operation" in texts:
        _one_of(where, "operation", texts["operation"], list(KINDS.values()))
    if "outcome" in texts:
        _one_of(where, "outcome", texts["outcome"], _OUTCOMES)
    if "faults" in texts:
        _one_of(where, "word for faults:", texts["faults"], (_SOME, "none"))
    _require_pattern(where, texts.get("matches", ""))
    return Accepted(
        Law(texts["law"]), texts["reason"], texts.get("operation"), texts.get("device"), texts.get("outcome"),
        texts.get("faults"), texts.get("matches"),
    )  # fmt: skip


def _require_pattern(where: str, text: str) -> None:
    try:
        re.compile(text)
    except re.error as error:
        raise KnownError(f"{where}: matches {text!a} is no regular expression: {error}") from None


def _one_of(where: str, what: str, name: str, names: Sequence[str]) -> None:
    if name not in names:
        raise KnownError(f"{where}: unknown {what} {name!a}; there are {', '.join(names)}")


def mark(violations: Iterable[ViolationReport], accepted: Sequence[Accepted]) -> tuple[ViolationReport, ...]:
    """Return `violations`, those that are covered marked as known."""
    return tuple(
        replace(each, known=True) if any(entry.covers(each) for entry in accepted) else each for each in violations
    )


def apply(result: RunResult, accepted: Sequence[Accepted]) -> RunResult:
    """Return `result` with what is known marked; a run that failed for known reasons alone has passed."""
    violations = mark(result.violations, accepted)
    counting = any(each.severity is Severity.ERROR and not each.known for each in violations)
    if violations == result.violations or counting or result.verdict is not Verdict.FAILED:
        return replace(result, violations=violations)
    return replace(result, violations=violations, verdict=Verdict.UNKNOWN if result.notes else Verdict.PASSED)
