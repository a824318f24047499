"""Known and accepted divergences: a TOML file of laws that a driver is known to break, each with the reason.

    [[accept]]
    law = "no-leak"
    operation = "create"        # optional: any operation
    device = "d1"               # optional: any device
    reason = "tracked upstream as #123: the L1 copy is not freed after ENOSPC"

What matches stays in the report, is counted apart, and leaves verdict and exit status alone.
"""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, cast

from snapcheck.model.law_names import Law, Severity
from snapcheck.model.operations import KINDS
from snapcheck.reports.verdict import RunResult, Verdict, ViolationReport

_KEYS: Final = ("law", "operation", "device", "reason")


class KnownError(Exception):
    """A file of known divergences that can not be used; the text is one line that says what is wrong."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """One accepted divergence; `operation` and `device` are None where any is meant."""

    law: Law
    reason: str
    operation: str | None = None
    device: str | None = None

    def covers(self, violation: ViolationReport) -> bool:
        """Tell whether `violation` is what was accepted."""
        return (
            violation.law is self.law
            and self.operation in (None, violation.operation)
            and self.device in (None, violation.device)
        )


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
        raise KnownError(f"{path}: {what}; write [[accept]] with law, operation, device and reason")
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
    return Accepted(Law(texts["law"]), texts["reason"], texts.get("operation"), texts.get("device"))


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
