"""What a run concluded, as data: exactly what result.json holds (DESIGN.md section 6), and the histories behind it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from snapcheck.model.history import History
from snapcheck.model.law_names import Law, Severity

SCHEMA: Final = 1
NOT_REPRODUCED: Final = "not reproduced: no replay of it has shown it so far"


class Verdict(StrEnum):
    """What a run says of the driver; unknown whenever the run could not tell."""

    PASSED = "passed"
    FAILED = "failed"
    UNKNOWN = "unknown"


EXIT_STATUS: Final = {Verdict.PASSED: 0, Verdict.FAILED: 1, Verdict.UNKNOWN: 3}


@dataclass(frozen=True, slots=True)
class PhaseReport:
    """What one phase did. `complete` speaks of `scope` and of nothing else."""

    name: str
    histories: int
    steps: int
    seconds: float
    complete: bool
    scope: str
    counts: Mapping[str, int] = field(default_factory=dict[str, int])


@dataclass(frozen=True, slots=True)
class LawReport:
    """How often a law was checked, and how often it was violated (warnings included)."""

    law: Law
    checked: int
    violated: int
    not_observable: bool


@dataclass(frozen=True, slots=True)
class PhaseCoverage:
    """What one phase reached of the matrix: how many cells, and how many of them that no other phase did."""

    name: str
    reached: int
    alone: int
    never: tuple[str, ...] = ()
    hits: Mapping[str, int] = field(default_factory=dict[str, int])  # for the pages: the cells reached, how often


@dataclass(frozen=True, slots=True)
class Coverage:
    """Cells of the matrix operation x fault x role of the device x its state before: how many, and how many reached.

    `never` names those that were not; `all-goto x flush-error x last` stands for all cells that begin like that.
    """

    cells: int
    reached: int
    never: tuple[str, ...] = ()
    hits: Mapping[str, int] = field(default_factory=dict[str, int])  # for the pages: every cell, how often
    phases: tuple[PhaseCoverage, ...] = ()


@dataclass(frozen=True, slots=True)
class ViolationReport:
    """One violation, shrunk: the fields of result.json, and what only the pages show (`evidence`, `history`).

    `cause` is the id of the violation that stands for all that most likely have the same cause (causes.py); `shrunk`
    says whether nothing smaller was found, rather than the time for it having run out, and `reproduced` whether a
    replay of `history` has shown it: what was seen once only may be due to what the driver remembered by then.
    """

    id: str
    law: Law
    severity: Severity
    device: str
    operation: str
    summary: str
    operations: int
    faults: int
    phase: str
    found_after_s: float
    known: bool
    replay: str
    cause: str = ""
    shrunk: bool = True
    reproduced: bool = True
    evidence: tuple[str, ...] = ()
    expected: str = ""  # what the model allows at the step, in words
    actual: str = ""  # what the driver did instead
    step: int = 0  # index of the violating step in `history`
    history: History | None = None


@dataclass(frozen=True, slots=True)
class RunResult:
    """A whole run. `notes` are the reasons for an unknown verdict and whatever else a person should know."""

    version: str
    verdict: Verdict
    driver: str
    semantics: str
    seed: int
    devices: int
    seconds: float
    phases: tuple[PhaseReport, ...]
    laws: tuple[LawReport, ...]
    coverage: Coverage
    violations: tuple[ViolationReport, ...]
    notes: tuple[str, ...] = ()
    schema: int = SCHEMA
