"""Violations that most likely have one cause, side by side.

One bug breaks several laws in several operations. Nobody can know that from outside, but it shows: two violations are
put together when they are of one law, when the step that broke one law broke the other's too, or when the same
operations under the same kinds of faults lead to both. Errors, warnings and what is known are kept apart.
"""

from collections.abc import Sequence
from dataclasses import replace

from snapcheck.model.facts import WALKS
from snapcheck.model.faults import CallFault, Fault
from snapcheck.model.law_names import Severity
from snapcheck.model.operations import kind_of
from snapcheck.reports.verdict import ViolationReport


def grouped(violations: Sequence[ViolationReport]) -> tuple[ViolationReport, ...]:
    """Return the violations by their likely causes: errors first, then the shortest, then what does least.

    So too within a group: one device before several, and what is wrong by itself before what is after a power cut.

    `cause` of each is the id of the first of its group.
    """
    groups: list[list[ViolationReport]] = []
    for violation in sorted(violations, key=_most_telling_first):
        near = [group for group in groups if any(_alike(violation, other) for other in group)]
        groups = [group for group in groups if group not in near]
        groups.append([*(each for group in near for each in group), violation])
    ordered = [sorted(group, key=_most_telling_first) for group in groups]
    ordered.sort(key=lambda group: _most_telling_first(group[0]))
    return tuple(replace(each, cause=group[0].id) for group in ordered for each in group)


def _most_telling_first(violation: ViolationReport) -> tuple[bool, bool, int, int, int]:
    is_milder = violation.severity is not Severity.ERROR
    return violation.known, is_milder, violation.operations, violation.faults, _reach(violation)


def _reach(violation: ViolationReport) -> int:
    """Return how much lies between the driver and what was seen: least in an operation on one device."""
    history = violation.history
    if history is None or not history.steps:
        return 1
    return 2 if history.cut is not None else int(isinstance(history.steps[-1].operation, WALKS))


def _alike(one: ViolationReport, other: ViolationReport) -> bool:
    if (one.severity, one.known) != (other.severity, other.known):
        return False
    if one.law is other.law or one.law.value in _beside(other) or other.law.value in _beside(one):
        return True
    way = _way_to(one)
    return bool(way) and way == _way_to(other)


def _beside(violation: ViolationReport) -> frozenset[str]:
    """Return the names of the laws that the same step broke too."""
    return frozenset(line.partition(":")[0] for line in violation.evidence)


def _way_to(violation: ViolationReport) -> tuple[object, ...]:
    """Return the history without names, devices, numbers and errnos; empty when it was not recorded."""
    steps = violation.history.steps if violation.history is not None else ()
    return tuple((kind_of(step.operation), tuple(map(_kind_of_fault, step.faults))) for step in steps)


def _kind_of_fault(fault: Fault) -> tuple[str, str]:
    if isinstance(fault, CallFault):
        return fault.function, "call"
    return fault.kind, type(fault.effect).__name__
