"""What a phase keeps of the histories that it made: counts of everything, events of violations and of a sample."""

import gc
import time
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from snapcheck.model.facts import Evidence
from snapcheck.model.history import History
from snapcheck.model.law_names import Law, Severity
from snapcheck.reports.reproducer import questions
from snapcheck.stateful_tests.journal import Entry, Journal
from snapcheck.stateful_tests.session import Session
from snapcheck.stateful_tests.units import Answer, Failure, Unit
from snapcheck.stateful_tests.work import Control, Tick

SAMPLE: Final = 2  # passing histories kept of each unit
TELL_SECONDS: Final = 0.2
SAME_KIND_MAX: Final = 3  # failures kept of one kind; the shortest of them is worth shrinking most
_COLLECT_AFTER: Final = 70_000  # objects more than before
_NO_CELLS: Final[Mapping[str, int]] = {}


class Gatherer:
    """Adds up what the histories of one unit showed."""

    def __init__(self, unit: Unit, control: Control, journal: Journal | None = None) -> None:
        self.answer = Answer(unit)
        self._control = control
        self._journal = journal
        self._told = 0.0
        self._begun = time.monotonic()
        self._kinds: dict[tuple[str, str, str], int] = {}
        self._counted: Counter[str] = Counter()  # what the journal has of the answer's counts
        self._failures = 0  # and of its failures
        for entry in self.before.values():
            self._restore(entry)

    @property
    def before(self) -> Mapping[str, Entry]:
        """The histories that an earlier run of this unit has done, by what the phase knows them by."""
        return {} if self._journal is None else self._journal.entries

    def next_number(self) -> int:
        """Return the first number that no earlier history was known by, where numbers count up."""
        return max((int(case.partition(".")[0]) + 1 for case in self.before), default=0)

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
        """Keep what the last step showed."""
        self.keep(session.history, evidence)

    def keep(self, whole: History, evidence: Sequence[Evidence]) -> None:
        """Keep what the end of a history showed, each law by itself, unless enough of its kind is kept."""
        if not evidence:
            return
        history = replace(whole, steps=list(whole.steps))
        for first in evidence:
            others = tuple(each for each in evidence if each is not first)
            self.keep_failure(Failure(self.answer.unit.phase, (first, *others), history, self.seconds))

    def keep_failure(self, failure: Failure) -> None:
        """Count a failure, and keep it unless enough of its kind is kept."""
        seen = self._kinds[failure.kind] = self._kinds.get(failure.kind, 0) + 1
        self.answer.counts["violations" if failure.evidence[0].severity is Severity.ERROR else "warnings"] += 1
        if seen <= SAME_KIND_MAX:
            self.answer.failures.append(failure)

    def ended(self, session: Session, *, case: str, note: tuple[str, ...] = ()) -> None:
        """Count a whole history, which the phase knows by `case`; `note` is for the phase itself, should it go on."""
        answer, judge = self.answer, session.judge
        answer.counts.update(session.counts)
        answer.abilities = session.abilities
        if judge.lost:
            answer.counts["devices not predicted to the end"] += len(judge.lost)
        if len(answer.sample) < SAMPLE and len(session.history.steps) > 1 and not session.over:
            answer.sample.append(session.history)
        steps = len(session.history.steps) - session.taken_over
        self.add(
            session.digest.of(session.history), steps=steps, laws=judge.counts, cells=judge.cells, case=case, note=note
        )

    def add(  # what a history is counted by
        self, digest: str, *, steps: int, laws: Mapping[Law, list[int]], case: str,
        cells: Mapping[str, int] = _NO_CELLS, note: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        """Count a whole history by what is known of it; its failures and counts are in the answer already."""
        answer = self.answer
        answer.histories += 1
        answer.steps += steps
        answer.add_laws(laws)
        answer.cells.update(cells)
        answer.digests.append(digest)
        if self._journal is not None:
            self._journal.append(self._entry(steps, laws, cells, case, note))
        now = self.seconds
        if now - self._told > TELL_SECONDS:
            self._told = now
            self.tell()

    def _entry(
        self, steps: int, laws: Mapping[Law, list[int]], cells: Mapping[str, int], case: str, note: tuple[str, ...]
    ) -> Entry:
        """Return what has come to the answer since the last entry."""
        answer = self.answer
        counts = answer.counts - self._counted
        # What was answered is worked out again when it is shrunk, and would make the journal ten times as long.
        failures = tuple(replace(each, history=questions(each.history)) for each in answer.failures[self._failures :])
        self._counted, self._failures = answer.counts.copy(), len(answer.failures)
        return Entry(
            answer.digests[-1], steps, round(self.seconds, 3), case, note,
            {law.value: count for law, (count, _) in laws.items() if count},
            {law.value: count for law, (_, count) in laws.items() if count},
            dict(cells), dict(counts), failures,
        )  # fmt: skip

    def _restore(self, entry: Entry) -> None:
        answer = self.answer
        answer.histories += 1
        answer.steps += entry.steps
        answer.digests.append(entry.digest)
        for law in Law:
            answer.laws[law][0] += entry.checked.get(law.value, 0)
            answer.laws[law][1] += entry.violated.get(law.value, 0)
        answer.cells.update(entry.cells)
        answer.counts.update(entry.counts)
        answer.failures += entry.failures
        for failure in entry.failures:
            self._kinds[failure.kind] = self._kinds.get(failure.kind, 0) + 1
        self._counted, self._failures = answer.counts.copy(), len(answer.failures)
        self._begun = min(self._begun, time.monotonic() - entry.seconds)

    def tell(self) -> None:
        """Say how far the unit is."""
        answer = self.answer
        self._control.tell(Tick(answer.unit.shard, answer.histories, answer.steps, answer.counts["violations"]))

    def skipped(self) -> None:
        """Count a setup that the system can not build."""
        self.answer.counts["setups skipped"] += 1


@contextmanager
def gathering(unit: Unit, control: Control) -> Generator[Gatherer]:
    """Lend a gatherer for a unit, with its journal if it has one; the answer knows then how long it took."""
    with rare_collections():
        if unit.journal is None:
            gatherer = Gatherer(unit, control)
            yield gatherer
        else:
            with Journal(Path(unit.journal)) as journal:
                gatherer = Gatherer(unit, control, journal)
                yield gatherer
    gatherer.answer.seconds = gatherer.seconds


@contextmanager
def rare_collections() -> Generator[None]:
    """Look for garbage in cycles a hundred times less often: histories are large, and hardly anything has cycles.

    With the interpreter's own thresholds a quarter of a walk's time goes into looking through histories that live.
    """
    former = gc.get_threshold()
    gc.set_threshold(_COLLECT_AFTER, *former[1:])
    try:
        yield
    finally:
        gc.set_threshold(*former)
