"""What may be left when the power goes at the end of a recording, held against the model and the laws."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple, TypeVar

from snapcheck.fault_injection.crash.cuts import Persistence, image_of
from snapcheck.fault_injection.crash.judge import Judge, Judged, consistent
from snapcheck.fault_injection.crash.seen import Seen
from snapcheck.fault_injection.crash.states import Funnel
from snapcheck.fault_injection.write_log import Sort
from snapcheck.model import crash_laws
from snapcheck.model.crash import Course, begin, course, stages_that_fit
from snapcheck.model.crash_laws import CutFacts
from snapcheck.model.device import Device
from snapcheck.model.facts import Evidence
from snapcheck.model.history import HANG, Abilities, History, Observation, PowerCut
from snapcheck.model.law_names import Law
from snapcheck.model.match import died_of
from snapcheck.model.operations import kind_of
from snapcheck.model.power_cut import Cut, Filling, Sent
from snapcheck.stateful_tests.compare import Judge as StepJudge
from snapcheck.stateful_tests.power_cuts.recording import Recording
from snapcheck.stateful_tests.power_cuts.seeing import new_judge, observation
from snapcheck.stateful_tests.watchdog import Watchdog

_TOLD_MAX: Final = 3
T = TypeVar("T")


class Found(NamedTuple):
    """What speaks against the driver, and the cut that shows it."""

    evidence: Evidence
    cut: PowerCut


@dataclass(frozen=True, slots=True)
class Left:
    """What is left of one device, `before` the operation at work: states that look the same, as they were judged.

    persistence  the model of the medium under which they may be left; `bound` tells whether all laws bind there
    fitting      the stages of the operation that they may be in
    returned     the operation had returned; `broken`: they break a law
    """

    before: Device
    judged: Judged
    persistence: Persistence
    observed: Observation
    fitting: frozenset[int]
    returned: bool
    bound: bool
    broken: bool = False

    @property
    def device(self) -> str:
        return self.before.spec.name

    @property
    def sound(self) -> bool:
        """Whether it may be gone on with: it breaks nothing, and something is promised of it."""
        return self.bound and bool(self.fitting) and not self.broken


@dataclass(frozen=True, slots=True)
class Plan:
    """Which states are looked at: under which models of the medium, and how many of an epoch at most."""

    persistence: tuple[Persistence, ...]
    bound: int
    fill: Filling = Filling.OLD


@dataclass(slots=True)
class CutJudge:
    """Judges the cuts at the end of a recording.

    told_max  so much evidence is given of the same law on the same device; the rest is counted
    dog       ends a look that does not end
    each      is called for each handful of disks: what it raises ends the judging, and the funnel lacks that device
    hung      one had to be ended: no more disks are looked at
    laws      by law: how often it was checked, and how often it was broken
    funnel    how many states there were at each stage
    """

    recording: Recording
    seed: int = 0
    told_max: int = _TOLD_MAX
    dog: Watchdog | None = None
    each: Callable[[], None] | None = None
    hung: bool = False
    laws: dict[Law, list[int]] = field(default_factory=lambda: {law: [0, 0] for law in Law})
    funnel: Funnel = field(default_factory=Funnel)
    _fitting: dict[tuple[str, Seen], frozenset[int]] = field(default_factory=dict[tuple[str, Seen], frozenset[int]])
    _told: Counter[tuple[Law, str]] = field(default_factory=Counter[tuple[Law, str]])

    def judge(self, plan: Plan) -> Iterator[Found | Left]:
        """Yield what is left of each device, and what speaks against the driver, as it is found.

        A model of the medium that comes later in the plan is looked at only if those before it were not exhaustive.
        After a look that did not end nothing more is yielded.
        """
        for persistence in plan.persistence:
            before = Funnel()
            before.add(self.funnel)
            yield from self._judge(persistence, plan)
            if self.hung or self.funnel.possible - before.possible == self.funnel.enumerated - before.enumerated:
                return

    def _judge(self, persistence: Persistence, plan: Plan) -> Iterator[Found | Left]:
        left: dict[str, list[Left]] = {}
        for device in self.recording.devices:
            judge = new_judge(self.recording.target, self.dog, each=self.each)
            for judged in judge.judge(
                self.recording.log, self.recording.bases[device], device=device, persistence=persistence,
                fill=plan.fill, since=self.recording.since, bound=plan.bound, seed=self.seed,
            ):  # fmt: skip
                each = self._look(device, judged, persistence)
                left.setdefault(device, []).append(each)
                if each.broken:
                    yield from self._against(judge, each)
                yield each
            self.funnel.add(judge.funnel)
            if self.hung:
                return
        if len(self.recording.course.changing) > 1:
            yield from self._groups(left)

    # --- one device -------------------------------------------------------------------------------
    def _look(self, device: str, judged: Judged, persistence: Persistence) -> Left:
        """Ask the laws about states that look the same, and count what they say."""
        recording, seen = self.recording, judged.seen
        before, observed = recording.world.devices[device], observation(device, seen, recording.target)
        fitting = self._fitting.get((device, seen))
        if fitting is None:
            fitting = self._fitting[device, seen] = stages_that_fit(recording.course, before, observed)
        returned, bound = judged.until >= recording.returned, crash_laws.binds(persistence.value, judged.cut)
        left = Left(before, judged, persistence, observed, fitting, returned, bound)
        broken = False
        self.hung = self.hung or HANG in died_of(observed)
        for law, evidence in crash_laws.judge(self._facts(left)):
            self.laws[law][0] += 1
            self.laws[law][1] += evidence is not None
            broken = broken or evidence is not None
        return replace(left, broken=True) if broken else left

    def _facts(self, left: Left) -> CutFacts:
        course = self.recording.course
        return CutFacts(self.what, left.before, course, left.returned, left.observed, left.fitting, left.bound)

    @property
    def what(self) -> str:
        """The operation at work, in words."""
        return kind_of(self.recording.history.steps[-1].operation)

    def when(self, left: Left) -> str:
        """Return in words when the power went."""
        return self._facts(left).when

    def _against(self, judge: Judge, left: Left) -> Iterator[Found]:
        """Look once more at what breaks a law, closely and with all messages, and yield the evidence."""
        disk = image_of(self.recording.bases[left.device], self.recording.log, left.judged.cut)
        closely = replace(left, observed=observation(left.device, judge.look(disk), self.recording.target))
        for law, evidence in crash_laws.judge(self._facts(closely)):
            if evidence is not None and self._worth_telling(law, left.device):
                yield Found(evidence, self.power_cut((closely,)))

    def _worth_telling(self, law: Law, device: str) -> bool:
        self._told[law, device] += 1
        return self._told[law, device] <= self.told_max

    def power_cut(self, left: Sequence[Left]) -> PowerCut:
        """Return a cut that leaves this of the devices, at the moment at which that was judged."""
        at = self.moment(left)
        cuts = tuple(self.as_judged(each, each.judged.cut, at=at) for each in left)
        return PowerCut(
            left[0].persistence.value, cuts, returned=at >= self.recording.returned,
            seen=tuple(each.observed for each in left), log=sent(self.recording),
        )  # fmt: skip

    def moment(self, left: Sequence[Left]) -> int:
        """Return when the power goes that leaves all of these: after the operation, for one that was judged so."""
        earliest = consistent(each.judged for each in left).start
        return max(earliest, self.recording.returned) if len(left) == 1 and left[0].returned else earliest

    def as_judged(self, left: Left, witness: Cut, *, at: int) -> Cut:
        """Return `witness` as a cut before `at`, which leaves the same disk: what was sent in between is lost."""
        if witness.at >= at or witness.fill is not Filling.OLD:  # what is lost leaves its traces
            return witness
        between = self.recording.log.for_device(left.device)
        late = tuple(each.number for each in between if witness.at <= each.number < at and each.sort is not Sort.FLUSH)
        return replace(witness, at=at, dropped=(*witness.dropped, *late))

    # --- several devices --------------------------------------------------------------------------
    def _groups(self, left: dict[str, list[Left]]) -> Iterator[Found]:
        """Hold against each other what one and the same cut may leave of all devices."""
        for together in self._at_once(left):
            fitting = {each.device: each.fitting for each in together}
            evidence = crash_laws.group_cut(self.recording.course, self.what, fitting)
            self.laws[Law.GROUP_CUT][0] += 1
            if evidence is not None:
                self.laws[Law.GROUP_CUT][1] += 1
                if self._worth_telling(Law.GROUP_CUT, evidence.device):
                    yield Found(evidence, self.power_cut(together))

    def _at_once(self, left: dict[str, list[Left]]) -> list[tuple[Left, ...]]:
        """Return what may be left of all devices at one moment before the operation has returned."""
        together: list[tuple[Left, ...]] = [()]
        for device in self.recording.devices:
            spans = [each for each in _spans(left[device]) if each.fitting and each.bound]
            longer = [(*some, each) for some in together for each in spans]
            together = [each for each in longer if self._in_time(consistent(one.judged for one in each))]
        return together

    def _in_time(self, moments: range) -> bool:
        return len(moments) > 0 and moments.start < self.recording.returned


def _spans(left: Iterable[Left]) -> list[Left]:
    """Return one for each way to fit and each end of an epoch: the one that can be left earliest."""
    spans: dict[tuple[int, frozenset[int]], Left] = {}
    for each in left:
        key = each.judged.until, each.fitting
        best = spans.get(key)
        if best is None or each.judged.cut.at < best.judged.cut.at:
            spans[key] = each
    return list(spans.values())


def witnesses_of(left: Sequence[Left]) -> Iterator[tuple[Left, Cut]]:
    """Yield the cuts that leave different disks: the first of each kind, then the second of each, and so on."""
    return in_turn([_Pairs(each) for each in left])


class _Pairs(Sequence[tuple[Left, Cut]]):
    """The witnesses of states that look the same, beside them; a cut is made when it is looked at."""

    def __init__(self, left: Left) -> None:
        self._left = left

    def __len__(self) -> int:
        return len(self._left.judged.witnesses)

    def __getitem__(self, place: int) -> tuple[Left, Cut]:  # type: ignore[override]  # no slices
        return self._left, self._left.judged.witnesses[place]


def in_turn(rows: Sequence[Sequence[T]]) -> Iterator[T]:
    """Yield the first of each row, then the second of each that has one, and so on."""
    for place in range(max(map(len, rows), default=0)):
        for row in rows:
            if place < len(row):
                yield row[place]


def sent(recording: Recording) -> tuple[Sent, ...]:
    """Return the log of a recording without the data."""
    return tuple(
        Sent(each.number, each.device, each.step, each.sort.value, each.offset, each.length, each.region)
        for each in recording.log.entries
    )


def judge_recorded(history: History) -> tuple[Evidence, ...]:
    """Judge the cut that ended a history by what is recorded of it alone, as it was looked at right away."""
    cut, judge = history.cut, StepJudge(history.setup, history.abilities or Abilities())
    assert cut is not None, "the history was ended by a power cut"
    stages = Course((begin(judge.world),), frozenset())
    before = judge.world
    for step in history.steps:
        before = judge.world
        stages = course(stages.stages[-1], before, step.operation)
        judge.judge(step)
    what, found, fitting = kind_of(history.steps[-1].operation), list[Evidence](), dict[str, frozenset[int]]()
    for seen, survived in zip(cut.seen, cut.devices, strict=True):
        device = before.devices[seen.device]
        fitting[seen.device] = stages_that_fit(stages, device, seen)
        bound = crash_laws.binds(cut.persistence, survived)
        facts = CutFacts(what, device, stages, cut.returned, seen, fitting[seen.device], bound)
        found += [evidence for _, evidence in crash_laws.judge(facts) if evidence is not None]
    together = crash_laws.group_cut(stages, what, fitting) if len(fitting) > 1 and all(fitting.values()) else None
    return (*found, *((together,) if together is not None else ()))
