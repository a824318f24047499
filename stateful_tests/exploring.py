"""Exploring the model alone, and what that says: a result like that of a run on a driver."""

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from snapcheck.model.explore import Explored, Violation, explore
from snapcheck.model.law_names import Law, Severity
from snapcheck.model.operations import AllCreate, AllDelete, AllFindVmstateBs, Create, Delete, kind_of
from snapcheck.model.product import Ended
from snapcheck.model.properties import ALWAYS
from snapcheck.model.scope import Scope, snapshots_of
from snapcheck.model.setup import Semantics
from snapcheck.model.space import Space, is_group, path_words
from snapcheck.reports.verdict import Coverage, LawReport, PhaseReport, RunResult, Verdict, ViolationReport
from snapcheck.stateful_tests.run import snapcheck_version
from snapcheck.stateful_tests.suite import history_of

NAME: Final = "explore"
MODEL: Final = "the model"
STATES: Final = "states"
TRANSITIONS: Final = "transitions"
DEPTH: Final = "depth"
STANDS_FOR: Final = "states when the order of the devices counts"
LEAVING: Final = "transitions that lead out of the scope"


class ModelExplored(NamedTuple):
    """What exploring a scope concluded, what was seen, and the space that was explored."""

    result: RunResult
    seen: Explored
    space: Space


def explore_model(
    scope: Scope,
    *,
    merged: bool = False,
    semantics: Semantics = Semantics.CLASSIC,
    must_stop: Callable[[], bool] = lambda: False,
    tell: Callable[[int, int], None] = lambda _states, _depth: None,
) -> ModelExplored:
    """Explore a scope; what is seen is the same in every profile.

    The verdict is unknown when it was stopped, or when something interesting was never seen.
    """
    begun = time.monotonic()
    space = Space(scope)
    seen = explore(space, merged=merged, semantics=semantics, must_stop=must_stop, tell=tell)
    seconds = time.monotonic() - begun
    violations = tuple(_report(space, each, semantics, seconds) for each in seen.violations)
    notes = _notes(seen)
    verdict = Verdict.FAILED if violations else Verdict.UNKNOWN if notes else Verdict.PASSED
    result = RunResult(
        version=snapcheck_version(), verdict=verdict, driver=MODEL, semantics=semantics.value, seed=0,
        devices=scope.devices, seconds=round(seconds, 3), phases=(_phase(seen, seconds),), laws=_laws(space, seen),
        coverage=Coverage(0, 0), violations=violations, notes=notes,
    )  # fmt: skip
    return ModelExplored(result, seen, space)


def _laws(space: Space, seen: Explored) -> tuple[LawReport, ...]:
    """Return how many transitions each law was asked of, those where it has something to say, and how many broke it."""
    broken = [each.broken.law for each in seen.violations]
    snapshots = any(map(snapshots_of, space.tables.states))
    checked: Counter[Law] = Counter({Law.OUT_PARAMS: seen.compared})
    for ended, count in seen.endings.items():
        checked.update(dict.fromkeys(_asked(ended, snapshots=snapshots), count))
    return tuple(
        LawReport(law, max(checked[law], broken.count(law)), broken.count(law), not_observable=False) for law in ALWAYS
    )


def _asked(ended: Ended, *, snapshots: bool) -> Iterator[Law]:
    """Yield the laws that have something to say of a transition that ended so; `snapshots`: there are some at all."""
    kind, group, failed = ended.act.kind, is_group(ended.act), ended.bad is not None
    if snapshots:
        yield Law.SNAPSHOT_IMMUTABLE
    if kind in {Create, Delete, AllCreate, AllDelete}:
        yield Law.LIST_EXACT
    if kind is AllFindVmstateBs:
        return
    if failed:
        yield Law.ERROR_MEANS_UNCHANGED
    if group and (failed or ended.refused):
        yield from (Law.RIGHT_CULPRIT, Law.STOPS_AT_FIRST)
    if group and ended.act.name and ended.bad != 0:
        yield Law.PREFIX_APPLIED
    if not group and not failed:
        yield Law.SUCCESS_MEANS_DONE


def _notes(seen: Explored) -> tuple[str, ...]:
    stopped = () if seen.complete else (f"stopped when {seen.states:,} states had been seen, not all there are",)
    missed = seen.missed if seen.complete else ()  # what was not looked at may be there
    return (*stopped, *((f"never seen: {'; '.join(missed)}",) if missed else ()))


def _phase(seen: Explored, seconds: float) -> PhaseReport:
    counts = {STATES: seen.states, TRANSITIONS: seen.transitions, DEPTH: seen.depth, LEAVING: seen.leaving}
    if seen.stands_for != seen.states:
        counts[STANDS_FOR] = seen.stands_for
    counts |= {f"sometimes: {words}": 1 for words, depth in seen.reached.items() if depth is not None}
    return PhaseReport(NAME, 0, seen.transitions, round(seconds, 3), seen.complete, seen.scope.words, counts)


def _report(space: Space, violation: Violation, semantics: Semantics, seconds: float) -> ViolationReport:
    """Return a violation with its path as a history: it can be replayed on a driver, and shows what that does there."""
    history = history_of(space, violation.path, semantics)
    last, broken, words = violation.path[-1], violation.broken, path_words(violation.path)
    identity = hashlib.blake2b(f"{broken.law.value} {words}".encode(), digest_size=4).hexdigest()
    return ViolationReport(
        id=identity, law=broken.law, severity=Severity.ERROR, device="" if last.device is None else f"d{last.device}",
        operation=kind_of(history.steps[-1].operation), summary=broken.words, operations=len(history.steps),
        faults=sum(len(step.faults) for step in history.steps), phase=NAME, found_after_s=round(seconds, 3),
        known=False, replay=f"snapcheck replay {identity} --driver qcow2", evidence=(f"path: {words}",),
        step=len(history.steps) - 1, history=history,
    )  # fmt: skip
