"""Side by side: the judge takes the model through the recorded steps of a history, and says where they part.

A history alone decides: judging one as it happens, and judging it from a file a year later, gives the same evidence.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from snapcheck.model.device import Content as Tags
from snapcheck.model.device import Device, Expected, Outcome, Snapshot, World
from snapcheck.model.errno import Errno
from snapcheck.model.facts import ALL_LAWS, Evidence, Judged, Look, Running, StepFacts, members, root_of
from snapcheck.model.faults import BINDING, Family, Fault, binding, family
from snapcheck.model.fit import Beside, Fit, Rank, best_fits, looks_of, next_state
from snapcheck.model.history import Abilities, Check, History, Step
from snapcheck.model.law_names import Law, Severity
from snapcheck.model.laws import RULES, Occasion, is_observable, occasion
from snapcheck.model.match import fallen_in, settled
from snapcheck.model.operations import kind_of
from snapcheck.model.setup import Setup
from snapcheck.model.step import reopened, start
from snapcheck.model.step import step as allowed_by_model
from snapcheck.model.trace import CHANGING_CALLS, Trace
from snapcheck.stateful_tests.cells import reached_by


@dataclass(frozen=True, slots=True)
class Found:
    """Evidence, and the step of the history that gave it."""

    step: int
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a whole history shows. `diverged` is the step after which the model could not follow, if there is one."""

    found: tuple[Found, ...]
    counts: Mapping[Law, list[int]]
    cells: Mapping[str, int]
    steps: int
    diverged: int | None = None

    @property
    def violated(self) -> bool:
        """Whether there is evidence of severity error."""
        return any(found.evidence.severity is Severity.ERROR for found in self.found)


def judge_history(history: History) -> Judgement:
    """Judge a recorded history, from its setup on."""
    judge = Judge(history.setup, history.abilities or Abilities())
    found: list[Found] = []
    diverged: int | None = None
    for index, step in enumerate(history.steps):
        found += [Found(index, evidence) for evidence in judge.judge(step)]
        if judge.diverged:
            diverged = index
            break
    return Judgement(tuple(found), judge.counts, judge.cells, judge.steps, diverged)


class Judge:
    """The model beside a running history.

    world      the model's state now; strategies draw names and sizes from it
    counts     by law: how often it was checked, and how often it was violated (warnings included)
    cells      the coverage matrix: how often each cell was reached (cells.py)
    diverged   the model could not follow a step: from there on nothing is judged
    lost       devices that may be in one of several states as nobody looked: they are not predicted any more
    """

    def __init__(self, setup: Setup, abilities: Abilities) -> None:
        self.world = start(setup)
        self.counts: dict[Law, list[int]] = {law: [0, 0] for law in Law}
        self.cells: Counter[str] = Counter()
        self.steps = 0
        self.diverged = False
        self.lost: set[str] = set()
        self._abilities = abilities
        self._running = Running()
        self._bindings: dict[str, frozenset[Law]] = {}  # of devices on which not all laws bind any more
        self._rules = _rules_at(abilities)

    @classmethod
    def taking_over(cls, setup: Setup, abilities: Abilities, world: World, checks: Mapping[str, Check]) -> "Judge":
        """Return a judge of devices that somebody else left in the state `world`.

        `checks` is what the checker says of them; leaks that they have, and COPIED bits that they miss, are warnings.
        """
        judge = cls(setup, abilities)
        judge.world = world
        judge._running.checks.update(checks)
        judge._running.troubled.update(checks)
        judge._running.failed.update(checks)
        return judge

    @property
    def certain(self) -> bool:
        """Whether every device is predicted: none is damaged, and the model could follow."""
        return not (self.diverged or self._bindings)

    def twin(self) -> "Judge":
        """Return a judge who stands where this one does, and has counted nothing yet."""
        twin = copy(self)
        twin.separate()
        return twin

    def separate(self) -> None:
        """Share nothing any more with the judge that this one was copied from."""
        self.counts = {law: [0, 0] for law in Law}
        self.cells = Counter()
        self.lost = set(self.lost)
        self._running = self._running.twin()
        self._bindings = dict(self._bindings)

    def judge(self, step: Step) -> list[Evidence]:
        """Advance by one recorded step and return the evidence against the driver, the most telling law first."""
        if self.diverged:
            return []
        trace = Trace(step.events, self._running.in_flight)
        self._meet(step, trace)
        facts, fits = self._facts(step, trace)
        for cell in reached_by(step, trace.struck, facts.walk, self.world):
            self.cells[cell] += 1
        self.steps += 1
        self._note_failures(facts)
        evidence = self._ask_laws(facts)
        if step.result.crash is not None:
            self.diverged = True
            return evidence
        if not evidence and facts.picked is None:
            evidence = [_unexplained(facts)]
            self._count(Law.RESULT, 0, 1)
        self.diverged = facts.differs
        self._advance(facts, fits)
        return evidence

    # --- what struck ------------------------------------------------------------------------------
    def _meet(self, step: Step, trace: Trace) -> None:
        for met in trace.struck:
            device, laws = root_of(met.device), binding(step.faults[met.fault])
            if laws != ALL_LAWS:
                self._bindings[device] = self._bindings.get(device, ALL_LAWS) & laws

    def _note_failures(self, facts: StepFacts) -> None:
        """Note on which devices leaks and missing COPIED flags have a failure to explain them."""
        step = facts.step
        if not facts.failed and not facts.trace.struck:
            return
        troubled = {root_of(met.device) for met in facts.trace.struck if _hurts(step.faults[met.fault])}
        if facts.failed:
            troubled.update(
                call.device for call in facts.trace.calls if call.failed and call.function in CHANGING_CALLS
            )
            if len(facts.walk) == 1 or not self._abilities.calls:
                troubled.update(facts.walk)
        if troubled:
            self._running.troubled |= troubled
            self._running.failed |= troubled

    # --- beside the model -------------------------------------------------------------------------
    def _facts(self, step: Step, trace: Trace) -> tuple[StepFacts, list[Fit]]:
        walk = members(step.operation, self.world)
        struck = {root_of(met.device) for met in trace.struck} if trace.struck else ()
        vague = bool(self._bindings) and not self._bindings.keys().isdisjoint(walk)
        beside = Beside(
            self.world,
            struck,
            self._bindings.keys(),
            vague,
            self._abilities.first_bad,
            self._abilities.vmstate_bytes is None,
        )
        outcomes: Sequence[Outcome] = ()
        fits = [_NOTHING_FITS]
        if step.result.crash is None:
            outcomes = allowed_by_model(self.world, step.operation, step.met if step.faults else ())
            fits = best_fits(step, outcomes, beside)
        looks = looks_of(step, fits[0], beside, self._bindings)
        facts = StepFacts(
            step, self._abilities, self.world, outcomes, fits[0].outcome, fits[0].wrong, walk, looks, trace,
            self._running, vague, bool(self._bindings), fallen_in(step.observations),
        )  # fmt: skip
        return facts, fits

    # --- the laws ---------------------------------------------------------------------------------
    def _ask_laws(self, facts: StepFacts) -> list[Evidence]:
        found: list[Evidence] = []
        rules = self._rules[occasion(facts.step)]
        if facts.step.result.crash is not None or facts.fallen is not None:
            rules = tuple(rule for rule in rules if rule[0] in _AFTER_A_CRASH)
        for law, judge in rules:
            checked, violated = 0, 0
            for evidence in judge(facts):
                checked += 1
                if evidence is not None:
                    violated += 1
                    found.append(evidence)
            if checked:
                self._count(law, checked, violated)
        return found

    def _count(self, law: Law, checked: int, violated: int) -> None:
        count = self.counts[law]
        count[0] += checked
        count[1] += violated

    # --- the next state ---------------------------------------------------------------------------
    def _advance(self, facts: StepFacts, fits: Sequence[Fit]) -> None:
        changed: dict[str, Device] = {}
        for name in dict.fromkeys(name for fit in fits for name in fit.outcome.devices):
            changed[name], certain = next_state(name, fits, self.world)
            if not certain:
                self.lost.add(name)
                self._bindings[name] = BINDING[Family.DAMAGE]
        for name, look in facts.looks.items():
            if not look.differences and name not in self._bindings:
                changed[name] = settled(changed.get(name) or look.before, look.seen)
        for name in self._bindings:
            state = changed.get(name) or self.world.devices[name]
            changed[name] = _as_seen(state, facts.looks.get(name))
        self._change(changed)
        for name, look in facts.looks.items():
            if look.seen.disk is not None:
                self._reopened(name, look)
        self._remember(facts)

    def _change(self, changed: Mapping[str, Device]) -> None:
        devices = self.world.devices
        if any(devices[name] is not state for name, state in changed.items()):
            self.world = World({**devices, **changed}, self.world.semantics)

    def _reopened(self, name: str, look: Look) -> None:
        """Follow a full observation, which closes the device and opens it again."""
        self.world = reopened(self.world, name)
        if look.state.in_flight and not look.differences and name not in self._bindings:
            on_disk = replace(look.seen, memory=look.seen.disk or look.seen.memory)
            self._change({name: settled(self.world.devices[name], on_disk)})

    def _remember(self, facts: StepFacts) -> None:
        running = self._running
        running.in_flight = {name: count for name, count in facts.trace.in_flight.items() if count}
        for sent in facts.trace.sent:
            if sent.kind != "flush":
                running.unflushed.add(sent.device)
            elif sent.errno == Errno.OK:
                running.unflushed.discard(sent.device)
        for name, look in facts.looks.items():
            if look.seen.disk is not None:
                running.in_flight.pop(name, None)  # closing a device drains it, and flushes it
                running.unflushed.discard(name)
            if look.seen.check is not None:
                running.checks[name] = look.seen.check
                running.troubled.discard(name)


# --- helpers --------------------------------------------------------------------------------------
_NOTHING_FITS: Final = Fit(Outcome(Expected(errnos=None), {}), (), {}, {}, Rank(0, 0, 0))
_AFTER_A_CRASH: Final = frozenset({Law.NO_CRASH, Law.NO_HANG})


_Rules = tuple[tuple[Law, Callable[[StepFacts], Judged]], ...]


class _RulesAt(dict[Occasion, _Rules]):
    """The laws to ask of a system at each kind of step, worked out when such a step first comes up."""

    def __init__(self, abilities: Abilities) -> None:
        super().__init__()
        self._observable = [(law, rule) for law, rule in RULES.items() if is_observable(law, abilities)]

    def __missing__(self, at: Occasion) -> _Rules:
        rules = self[at] = tuple((law, rule.judge) for law, rule in self._observable if rule.is_asked(at))
        return rules


_rules_at = lru_cache(maxsize=16)(_RulesAt)


def _hurts(fault: Fault) -> bool:
    return family(fault) is not Family.DELAY


def _as_seen(state: Device, look: Look | None) -> Device:
    """Return a damaged device as it looks: generators draw names from it, and nothing is promised of what it holds."""
    if not state.damaged:
        state = state._replace(damaged=True)
    if look is None or state.image is None:
        return state
    seen = look.seen
    view = seen.memory if seen.memory.snapshots is not None else seen.disk or seen.memory
    if view.snapshots is None:
        return state
    sectors = state.image.sectors if view.sectors is None else view.sectors
    snapshots = tuple(Snapshot(info, sectors, Tags(b""), None) for info in view.snapshots)
    image = state.image._replace(
        sectors=sectors, content=Tags(view.content or b""), vmstate=None, snapshots=snapshots, view=None
    )
    return state._replace(image=image)


def _unexplained(facts: StepFacts) -> Evidence:
    """Return evidence for a step that fits no allowed outcome although each law by itself found nothing."""
    where = ", ".join(facts.wrong)
    device = next((name for name, look in facts.looks.items() if look.differences), "")
    if device:
        bad = facts.looks[device].differences[0]
        where, expected, actual = f"{bad.part} of {device}", bad.expected, bad.actual
    else:
        wanted = [f"{name} {getattr(facts.nearest.expected, name)!r}" for name in facts.wrong]
        got = [f"{name} {getattr(facts.step.result, name)!r}" for name in facts.wrong]
        expected, actual = ", ".join(wanted), ", ".join(got)
    summary = f"{kind_of(facts.step.operation)} fits no outcome that the model allows: {where}"
    return Evidence(Law.RESULT, Severity.ERROR, device, summary, expected, actual)
