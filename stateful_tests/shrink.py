"""The shortest history that still shows a violation: steps, faults, devices, names and sizes made smaller together.

A candidate counts only when it breaks the same law by the same operation, at the same severity and in the same role of
device. Each pass takes the first candidate that still shows it and goes on from there, until no pass finds any or time
is up; the best so far is always at hand, and shrinking that goes on from there later. A long history is cut down while
devices are looked at as little as shows it; the closest look, which tells the step that did it, comes when it is short.
What only shows while less is looked at stays as short as it is, and its history says how to look at it (`care`).
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from snapcheck.impl.driver import UnsupportedSetupError
from snapcheck.impl.targets import Target, TargetError
from snapcheck.model.facts import Evidence, root_of
from snapcheck.model.history import Call, Care, History, Purpose, Step
from snapcheck.model.law_names import Law, Severity
from snapcheck.model.operations import kind_of
from snapcheck.stateful_tests.replay import Ran, Telling, cares_of, run_again
from snapcheck.stateful_tests.smaller import PASSES, ends, with_steps, without_devices, without_faults

SECONDS_DEFAULT: Final = 10.0
_CLOSEST_FIRST: Final = tuple(Care)[::-1]
_ROUGHLY: Final = (Care.LATE, Care.LIVE, Care.USUAL)  # the less is looked at, the faster a candidate is tried
_SHORT: Final = 4  # steps; a history like that needs no rough cut
READABLE: Final = 16  # steps; a longer history helps nobody,
_PATIENCE: Final = 4  # so that where there are few seconds it gets so many times as long,
_PATIENCE_SECONDS_MAX: Final = 4.0  # up to these


class Sought(NamedTuple):
    """What makes two violations the same one: law, operation, severity, and what the device is to the operation."""

    law: Law
    operation: str
    severity: Severity
    role: str | None  # "" where no device is named, else whether the operation "reached" it or it lies "beside";
    # None where nobody knows


class Shrunk(NamedTuple):
    """The best so far: its history as it went, and the evidence of its last step, what was sought first.

    `finished` says whether nothing smaller was found, rather than time having run out; `reproduced` whether it was run
    again and has shown it, looked at as closely as its history says; `interrupted` that somebody asked for the end
    (KeyboardInterrupt).
    """

    history: History
    evidence: tuple[Evidence, ...]
    finished: bool = False
    reproduced: bool = False
    interrupted: bool = False


def sought_in(evidence: Evidence, step: Step) -> Sought:
    """Return what to look for, given evidence and the step that gave it."""
    return Sought(evidence.law, kind_of(step.operation), evidence.severity, _role(evidence.device, step))


def _role(device: str, step: Step) -> str:
    if not device:
        return ""
    own = getattr(step.operation, "device", None)
    calls = (event.device for event in step.events if isinstance(event, Call))
    reached = {root_of(own)} if own is not None else set(calls)
    return "reached" if root_of(device) in reached else "beside"


def shrink(
    target: Target, history: History, evidence: tuple[Evidence, ...], *, seconds: float = SECONDS_DEFAULT
) -> Shrunk:
    """Return the shortest history found that shows the first of `evidence`, which the last step of `history` gave.

    One that is still too long to be read when a short time is up gets some seconds more. With no seconds it is
    `history` itself, replayed. Given what an earlier call returned, it goes on from there.
    """
    try:
        return _Shrinker(target, seconds).run(history, evidence)
    except TargetError:  # it dies of opening these devices, so that no history of them can be run at all
        return Shrunk(history, evidence, finished=True)


class _Shrinker:
    def __init__(self, target: Target, seconds: float) -> None:
        self._target = target
        self._begun = time.monotonic()
        self._seconds = seconds
        self._seconds_if_long = max(seconds, min(_PATIENCE * seconds, _PATIENCE_SECONDS_MAX))
        self._care = Care.USUAL
        self._tried: set[str] = set()
        self._sought: Sought

    def run(self, history: History, evidence: tuple[Evidence, ...]) -> Shrunk:
        """Go round the passes until none of them helps."""
        self._best = Shrunk(history, evidence)
        try:
            self._seek(evidence[0])
            if self._late():
                self._reproduce(cares_of(history))
            else:
                self._cut_and_look()
            while self._round():
                pass
        except KeyboardInterrupt:
            return self._best._replace(interrupted=True)
        return self._best._replace(finished=not self._late())

    def _seek(self, evidence: Evidence) -> None:
        """Run the history as it is: what it answers says what to look for; one from a journal has no answers."""
        history = self._best.history
        self._sought = sought_in(evidence, history.steps[-1])
        if history.cut is not None or history.answered:
            return
        for care in dict.fromkeys((*cares_of(history), *_ROUGHLY)):
            ran = self._run(history, care=care, telling=self._same_operation)
            if ran.evidence:
                self._best = Shrunk(ran.history, ran.evidence, reproduced=True)
                self._sought = sought_in(ran.evidence[0], ran.history.steps[-1])
                return
        self._sought = self._sought._replace(role=None)

    def _same_operation(self, evidence: Evidence, step: Step) -> bool:
        return self._same_law(evidence, step) and kind_of(step.operation) == self._sought.operation

    def _same_law(self, evidence: Evidence, _: Step) -> bool:
        return evidence.law is self._sought.law and evidence.severity is self._sought.severity

    def _is_sought(self, evidence: Evidence, step: Step) -> bool:
        if evidence.law is not self._sought.law:
            return False
        seen = sought_in(evidence, step)
        return (seen if self._sought.role is not None else seen._replace(role=None)) == self._sought

    def _cut_and_look(self) -> None:
        """Cut a long history with the least care that shows it; then look as closely as shows what is left."""
        whole = self._best.history
        is_long = len(whole.steps) > _SHORT and whole.cut is None
        for care in dict.fromkeys((*_ROUGHLY, *cares_of(whole))) if is_long else ():
            self._care = care
            if self._take(whole):
                self._leave_out()
                break
        self._reproduce(_CLOSEST_FIRST if whole.cut is None else cares_of(whole))

    def _leave_out(self) -> None:
        self._pass(ends)
        self._leave_steps_out()
        self._pass(without_devices)
        self._pass(without_faults)

    def _reproduce(self, cares: Sequence[Care]) -> None:
        """Look at the best in the first of these ways that shows it; looking closely tells which step did it."""
        found = self._best
        for care in cares:
            self._care = care
            if found.reproduced and found.history.care is care:
                return  # it is known to
            if self._take(found.history, even_late=True):
                return
            # Perhaps another operation did it, and the last one only showed it.
            if care is Care.CLOSE and self._take_another(found):
                return
        self._care = cares_of(found.history)[0]

    def _take_another(self, found: Shrunk) -> bool:
        ran = self._run(found.history, care=Care.CLOSE, telling=self._same_law)
        if not ran.evidence or ran.history.steps[-1].purpose is not Purpose.EXPLORE:
            return False
        self._sought = sought_in(ran.evidence[0], ran.history.steps[-1])
        return self._take(ran.history, even_late=True)

    def _round(self) -> bool:
        """Do each pass once, and tell whether another round may help."""
        before = self._best
        self._pass(ends)
        self._leave_steps_out()
        for candidates in PASSES:
            self._pass(candidates)
        return self._best is not before and not self._late()

    def _pass(self, candidates: "Callable[[History], Iterator[History]]") -> None:
        """Take the first smaller history that still shows it, over and over."""
        while any(self._take(candidate) for candidate in candidates(self._best.history)):
            pass

    def _leave_steps_out(self) -> None:
        """Leave steps out, the longest runs first, from behind; the last step, which shows it, stays."""
        length = len(self._best.history.steps) - 1
        while length and not self._late():
            start = len(self._best.history.steps) - 1 - length
            while start >= 0:
                history = self._best.history
                self._take(with_steps(history, [*history.steps[:start], *history.steps[start + length :]]))
                start = min(start, len(self._best.history.steps) - 1) - length
            length //= 2

    def _run(self, history: History, *, care: Care, telling: Telling) -> Ran:
        """Run a history; what is known to hang is not waited for as long as the first time."""
        law = self._sought.law
        return run_again(self._target, history, care=care, telling=telling, law=law, impatient=law is Law.NO_HANG)

    def _late(self) -> bool:
        is_long = len(self._best.history.steps) > READABLE
        return time.monotonic() - self._begun > (self._seconds_if_long if is_long else self._seconds)

    def _take(self, candidate: History, *, even_late: bool = False) -> bool:
        """Run a candidate, unless time is up; when it shows what is sought it is the best from now on."""
        if self._late() and not even_late:
            return False
        key = f"{self._care} {candidate.setup} {[(s.operation, s.faults, s.purpose) for s in candidate.steps]}"
        if key in self._tried:
            return False
        self._tried.add(key)
        try:
            ran = self._run(candidate, care=self._care, telling=self._is_sought)
        except (UnsupportedSetupError, AssertionError):
            return False  # no history at all: an operation is left without its device, for example
        if ran.evidence:
            self._best = Shrunk(ran.history, ran.evidence, reproduced=True)
        return bool(ran.evidence)
