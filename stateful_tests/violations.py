"""The violations of a run: of each kind of failure the shortest, shrunk, told once, and marked when it is known."""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from snapcheck.impl.targets import Target
from snapcheck.model.crash_laws import CRASH_RULES
from snapcheck.model.history import History
from snapcheck.model.law_names import Law, Severity
from snapcheck.model.laws import RULES
from snapcheck.model.operations import kind_of
from snapcheck.reports.known import Accepted, mark
from snapcheck.reports.verdict import ViolationReport
from snapcheck.stateful_tests.shrink import Shrunk, shrink
from snapcheck.stateful_tests.units import Failure

VIOLATIONS_MAX: Final = 25  # different ones that are shrunk and shown; all are counted by their laws
_SHARES: Final = {Severity.ERROR: 1.0, Severity.WARNING: 0.1}  # of the time for one, as nobody waits for a warning
_SHARES_IN_ALL: Final = {Severity.ERROR: 6.0, Severity.WARNING: 0.2}  # of that time, for all of them together
_TELLING: Final = {law: place for place, law in enumerate((*CRASH_RULES, *RULES))}


@dataclass(slots=True)
class Violations:
    """What is told of a driver, in `told`, and remarks on what is not, in `notes`; `on_told` hears each at once.

    `seconds` is the time to shrink one error.
    """

    target: Target
    known: Sequence[Accepted]
    seconds: float
    on_told: Callable[[ViolationReport], None]
    told: list[ViolationReport] = field(default_factory=list[ViolationReport])
    notes: list[str] = field(default_factory=list[str])

    def shrink_all(self, failures: Sequence[Failure]) -> None:
        """Shrink and tell the shortest failure of each kind, errors first, as far as the time for it goes.

        What is known and what is not are kinds of their own: news does not hide behind what is old.
        """
        kinds: dict[tuple[tuple[str, str, str], bool], list[Failure]] = {}
        for failure in failures:
            kinds.setdefault((failure.kind, self._is_known(failure)), []).append(failure)
        ordered = sorted(kinds.items(), key=lambda kind: _errors_of_telling_laws_first(kind[1]))
        seconds, deadlines, interrupted = self.seconds, dict[Severity, float](), False
        for done, ((kind, known), alike) in enumerate(ordered):
            if len(self.told) == VIOLATIONS_MAX:
                self.notes.append(f"{len(ordered) - done} more kinds of violations are counted and not shown")
                return
            if self._is_told(*kind, known=known):
                continue
            best = min(alike, key=_length)
            severity, now = best.evidence[0].severity, time.monotonic()
            deadline = deadlines.setdefault(severity, now + _SHARES_IN_ALL[severity] * seconds)
            rest = sum(each[0].evidence[0].severity is severity for _, each in ordered[done:])
            share = max(0.0, min(seconds * _SHARES[severity], (deadline - now) / rest))
            shrunk = as_found(best) if interrupted else self._shrunk(best, share)
            if shrunk.interrupted:
                interrupted = True  # whoever waits wants the end, and the verdict all the same
                self.notes.append("interrupted while shrinking: what was left is shown as it was found")
            self.tell(best, shrunk, found_after_s=min(each.found_after_s for each in alike))

    def _shrunk(self, failure: Failure, seconds: float) -> Shrunk:
        try:
            return shrink(self.target, failure.history, failure.evidence, seconds=seconds)
        except KeyboardInterrupt:  # between two steps of it
            return as_found(failure)._replace(interrupted=True)

    def tell(self, failure: Failure, shrunk: Shrunk, *, found_after_s: float) -> None:
        """Add a violation, unless shrinking has shown that it is like another one."""
        violation = self._report(failure, shrunk, found_after_s=found_after_s)
        if self._is_told(violation.law.value, violation.operation, violation.severity.value, known=violation.known):
            return
        self.told.append(violation)
        self.on_told(violation)

    def _report(self, failure: Failure, shrunk: Shrunk, *, found_after_s: float = 0.0) -> ViolationReport:
        first = shrunk.evidence[0]
        identity = _identity(self.target.name, first.law, shrunk.history)
        blank = ViolationReport(
            id=identity, law=first.law, severity=first.severity, device="", operation="", summary="", operations=0,
            faults=0, phase=failure.phase, found_after_s=round(found_after_s, 3), known=False,
            replay=f"snapcheck replay {identity}",
        )  # fmt: skip
        return mark((described(blank, shrunk),), self.known)[0]

    def _is_known(self, failure: Failure) -> bool:
        """Tell whether a failure is known as it was found."""
        return bool(self.known) and self._report(failure, as_found(failure)).known

    def _is_told(self, law: str, operation: str, severity: str, *, known: bool) -> bool:
        """Tell whether a violation like that is told already: by itself, or beside another law that one step broke too.

        What stands beside a known divergence is told by itself: it need not be known.
        """
        for told in self.told:
            if told.operation == operation and told.severity.value == severity:
                beside = any(line.startswith(f"{law}: ") for line in told.evidence)
                if (told.law.value == law and told.known is known) or (beside and not told.known):
                    return True
        return False


def as_found(failure: Failure) -> Shrunk:
    """Return a failure that nobody has shrunk."""
    return Shrunk(failure.history, failure.evidence)


def described(violation: ViolationReport, shrunk: Shrunk) -> ViolationReport:
    """Return `violation` with what its shrunk history shows; its id stays."""
    first, others, history = shrunk.evidence[0], shrunk.evidence[1:], shrunk.history
    return replace(
        violation, device=first.device, operation=kind_of(history.steps[-1].operation), summary=first.summary,
        operations=len(history.steps), faults=sum(len(step.faults) for step in history.steps),
        evidence=tuple(f"{each.law.value}: {each.summary}" for each in others), expected=first.expected,
        actual=first.actual, step=len(history.steps) - 1, history=history, shrunk=shrunk.finished and shrunk.reproduced,
        reproduced=shrunk.reproduced,
    )  # fmt: skip


def _length(failure: Failure) -> int:
    return len(failure.history.steps)


def _errors_of_telling_laws_first(alike: Sequence[Failure]) -> tuple[bool, int, int]:
    first = alike[0].evidence[0]
    return first.severity is not Severity.ERROR, _TELLING[first.law], min(map(_length, alike))


def _identity(driver: str, law: Law, history: History) -> str:
    steps = [(step.operation, step.faults) for step in history.steps]
    cut = () if history.cut is None else (history.cut.devices, history.cut.after)
    text = repr((driver, law.value, history.setup, steps, *cut))
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=4).hexdigest()
