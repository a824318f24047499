"""What a phase keeps of the histories that it made: counts of everything, events of violations and of a sample."""

import time
from collections.abc import Sequence
from typing import Final

from snapcheck.model.facts import Evidence
from snapcheck.model.history import History
from snapcheck.model.law_names import Severity
from snapcheck.stateful_tests.digest import digest
from snapcheck.stateful_tests.session import Session
from snapcheck.stateful_tests.units import Answer, Failure, Unit
from snapcheck.stateful_tests.work import Control, Tick

SAMPLE: Final = 2  # passing histories kept of each unit
TELL_SECONDS: Final = 0.2
SAME_KIND_MAX: Final = 3  # failures kept of one kind; the shortest of them is worth shrinking most


class Gatherer:
    """Adds up what the histories of one unit showed."""

    def __init__(self, unit: Unit, control: Control) -> None:
        self.answer = Answer(unit)
        self._control = control
        self._told = 0.0
        self._begun = time.monotonic()
        self._kinds: dict[tuple[str, str, str], int] = {}

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._begun

    def must_stop(self) -> bool:
        """Tell whether the unit has all its histories, or no time left, or is asked to end."""
        unit = self.answer.unit
        if unit.histories is not None and self.answer.histories >= unit.histories:
            return True
        return (unit.seconds is not None and self.seconds > unit.seconds) or self._control.stop_asked()

    def heard(self, session: Session, evidence: Sequence[Evidence]) -> None:
        """Keep what the last step showed, each law by itself, unless enough of its kind is kept."""
        if not evidence:
            return
        whole = session.history
        history = History(whole.setup, list(whole.steps), whole.abilities)
        for first in evidence:
            others = tuple(each for each in evidence if each is not first)
            failure = Failure(self.answer.unit.phase, (first, *others), history, self.seconds)
            seen = self._kinds[failure.kind] = self._kinds.get(failure.kind, 0) + 1
            self.answer.counts["violations" if first.severity is Severity.ERROR else "warnings"] += 1
            if seen <= SAME_KIND_MAX:
                self.answer.failures.append(failure)

    def ended(self, session: Session) -> None:
        """Count a whole history."""
        answer, judge = self.answer, session.judge
        answer.histories += 1
        answer.steps += len(session.history.steps) - session.taken_over
        answer.add_laws(judge.counts)
        answer.cells.update(judge.cells)
        answer.counts.update(session.counts)
        answer.digests.append(digest(session.history))
        answer.abilities = session.abilities
        if judge.lost:
            answer.counts["devices not predicted to the end"] += len(judge.lost)
        if len(answer.sample) < SAMPLE and len(session.history.steps) > 1 and not session.over:
            answer.sample.append(session.history)
        now = self.seconds
        if now - self._told > TELL_SECONDS:
            self._told = now
            self.tell()

    def tell(self) -> None:
        """Say how far the unit is."""
        answer = self.answer
        self._control.tell(Tick(answer.unit.shard, answer.histories, answer.steps, answer.counts["violations"]))

    def skipped(self) -> None:
        """Count a setup that the system can not build."""
        self.answer.counts["setups skipped"] += 1
