"""Whom an operation named as the first bad device, and whom its recorded calls point at."""

from dataclasses import dataclass

from snapcheck.model.history import UNWRITTEN, History, Step
from snapcheck.model.setup import Semantics
from snapcheck.model.trace import Trace
from snapcheck.reports import words
from snapcheck.reports.verdict import ViolationReport


@dataclass(frozen=True, slots=True)
class Culprit:
    """Whom first_bad_bs names, and whom the recorded calls point at; `nobody` for NULL."""

    named: str
    deserved: str
    why: str

    @property
    def agrees(self) -> bool:
        return self.named == self.deserved


def of_violation(report: ViolationReport) -> Culprit | None:
    """Return the culprits at the step of a violation; None where its history was not recorded."""
    history = report.history
    if history is None or not 0 <= report.step < len(history.steps):
        return None
    return of_step(history.steps[report.step], history)


def of_step(step: Step, history: History) -> Culprit | None:
    """Return the culprits of one step; None where its operation names nobody by its nature."""
    if not words.names_culprit(step.operation) or step.result.first_bad == UNWRITTEN or not step.events:
        return None
    modern = history.setup.semantics is Semantics.MODERN
    call = Trace(step.events, {}).culprit(step.operation, modern=modern)
    if call is None:
        return Culprit(step.result.first_bad or "nobody", "nobody", "no call that counts failed")
    why = f"its {call.function} answered {words.errno_words(call.errno)} first"
    return Culprit(step.result.first_bad or "nobody", call.node, why)
