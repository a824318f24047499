"""Which of the allowed outcomes explains a recorded step best, and which state that leaves each device in."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Final, NamedTuple

from snapcheck.model.device import Allowed, Device, Expected, Outcome, World
from snapcheck.model.facts import ALL_LAWS, Look
from snapcheck.model.history import Step
from snapcheck.model.law_names import Law
from snapcheck.model.match import HARD, Difference, answer_differences, errno_allowed, merged, state_differences


class Rank(NamedTuple):
    """How far a step is from an outcome: wrong answers, devices that do not fit, wrong out-parameters. Zeroes fit."""

    answers: int
    devices: int
    out_params: int


class Fit(NamedTuple):
    """An outcome beside a step: fields of the answer that are wrong, and by observed device what is nearest to it.

    `nearest` holds an allowed state and where it differs; `matches` all allowed states that do not differ.
    """

    outcome: Outcome
    wrong: tuple[str, ...]
    nearest: Mapping[str, tuple[Allowed, tuple[Difference, ...]]]
    matches: Mapping[str, Sequence[Allowed]]
    rank: Rank


_rank: Final = attrgetter("rank")


class Beside(NamedTuple):
    """What a step is held against: the state before it, and how much of it can be judged.

    struck      devices that met a fault at this step
    blurred     damaged devices: what they hold is not predicted
    vague       one of them takes part in the operation: the answer is not predicted either
    first_bad   the system names the first bad device
    data        it shows what it read of VM state
    """

    before: World
    struck: Collection[str] = ()
    blurred: Collection[str] = ()
    vague: bool = False
    first_bad: bool = True
    data: bool = True


def best_fits(step: Step, outcomes: Sequence[Outcome], beside: Beside) -> list[Fit]:
    """Return the outcomes that explain `step` best: the first of them, and all that explain it as well."""
    assert outcomes, f"the model allows nothing for {step.operation}"
    fits = [_fit(step, outcome, beside) for outcome in outcomes]
    best = min(fits, key=_rank)
    if best.rank.answers and best.rank.devices and step.result.errno:  # it failed where it must not: is it old or new?
        either = _fit(step, _old_or_new(beside.before, best.outcome.expected, outcomes), beside)
        return [min(best, either, key=_rank)]
    return [fit for fit in fits if fit.rank == best.rank]


def _fit(step: Step, outcome: Outcome, beside: Beside) -> Fit:
    wrong: tuple[str, ...] = ()
    if not beside.vague:
        wrong = answer_differences(
            outcome.expected, step.result, step.operation, first_bad=beside.first_bad, data=beside.data
        )
    nearest: dict[str, tuple[Allowed, tuple[Difference, ...]]] = {}
    matches: dict[str, Sequence[Allowed]] = {}
    misfits = 0
    for seen in step.observations:
        name = seen.device
        states = _states(outcome, name, beside.before)
        if name in beside.blurred:
            nearest[name] = (states[0], ())
            continue
        struck = name in beside.struck
        tried = [(allowed, state_differences(allowed.state, seen, struck=struck)) for allowed in states]
        nearest[name] = min(tried, key=_distance)
        fitting = [allowed for allowed, differences in tried if not differences]
        if fitting:
            matches[name] = fitting
        else:
            misfits += 1
    hard = len(HARD.intersection(wrong))
    soft = len(wrong) - hard
    if beside.vague and not errno_allowed(outcome.expected, step.result.errno):
        soft += 1  # not judged, but of a damaged device it is all that tells whether it was closed and opened
    return Fit(outcome, wrong, nearest, matches, Rank(hard, misfits, soft))


def _states(outcome: Outcome, name: str, before: World) -> tuple[Allowed, ...]:
    return outcome.devices.get(name) or (Allowed(before.devices[name]),)


def _distance(tried: tuple[Allowed, tuple[Difference, ...]]) -> tuple[int, bool]:
    """Fewest differences first; among equals the state that no rule has to explain."""
    return len(tried[1]), bool(tried[0].note)


def _old_or_new(before: World, expected: Expected, outcomes: Sequence[Outcome]) -> Outcome:
    """Return the outcome of an operation that failed although it must not: each device is old or as allowed."""
    states: dict[str, tuple[Allowed, ...]] = {}
    for outcome in outcomes:
        for name, allowed in outcome.devices.items():
            states[name] = (*states.get(name, (Allowed(before.devices[name]),)), *allowed)
    return Outcome(expected, states)


def looks_of(step: Step, fit: Fit, beside: Beside, binding: Mapping[str, frozenset[Law]]) -> dict[str, Look]:
    """Return the observed devices beside the states that `fit` has for them; `binding` names the laws that bind."""
    looks: dict[str, Look] = {}
    for seen in step.observations:
        name = seen.device
        if name in fit.nearest:
            allowed, differences = fit.nearest[name]
            looks[name] = Look(
                seen, beside.before.devices[name], allowed.state, allowed.note, differences,
                name in fit.outcome.devices, name in beside.struck, binding.get(name, ALL_LAWS),
            )  # fmt: skip
    return looks


def next_state(name: str, fits: Iterable[Fit], before: World) -> tuple[Device, bool]:
    """Return the state of a device after the step, and whether it is certain.

    Where several states are left, as nobody looked closely enough, it is one that stands for all of them, if there is
    one; states that no rule has to explain go first.
    """
    states: list[Device] = []
    for fit in fits:
        left = fit.matches.get(name) or _states(fit.outcome, name, before)
        plain = [allowed for allowed in left if not allowed.note or not allowed.state.present]
        states += [allowed.state for allowed in plain or left]
    if len(states) == 1:
        return states[0], True
    # A driver that died answers like a node that is gone; where the model has both, it is gone (W-26).
    states = [state for state in states if not state.present] or states
    state = merged(states)
    return (states[0], False) if state is None else (state, True)
