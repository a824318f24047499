"""Phase `crash`: the power goes during an operation, or right after it, and every state that may be left is judged.

Bounded and exhaustive first: all sequences of operations that change something, up to a length, from images that are
about to grow, shared by snapshots, resized (power_cuts/workloads.py). The power goes during the last operation of each
sequence: cuts during earlier ones are the cases of a shorter sequence. Then, with the time that is left, random
histories like those of phase walk.

What may be left is enumerated by fault_injection/crash, and what of it is allowed says model/crash.py. Some of the
disks are used further, repaired, and opened with a second cut.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice
from random import Random
from typing import Final, NamedTuple, TypeVar

from snapcheck.fault_injection.crash.cuts import Persistence
from snapcheck.impl.driver import UnsupportedSetupError
from snapcheck.impl.targets import find_target
from snapcheck.model.history import History
from snapcheck.model.law_names import Law
from snapcheck.model.operations import Operation, Write
from snapcheck.model.power_cut import Cut, Filling
from snapcheck.model.setup import Setup
from snapcheck.reports import timeline
from snapcheck.stateful_tests.chooser import RandomChooser
from snapcheck.stateful_tests.digest import digest, digest_of
from snapcheck.stateful_tests.draw_operations import draw_operation
from snapcheck.stateful_tests.draw_setups import draw_setup
from snapcheck.stateful_tests.gather import Gatherer, gathering
from snapcheck.stateful_tests.power_cuts.going_on import GoingOn, remnant
from snapcheck.stateful_tests.power_cuts.judging import CutJudge, Found, Left, Plan, in_turn, witnesses_of
from snapcheck.stateful_tests.power_cuts.recording import Recorded, Recording, record
from snapcheck.stateful_tests.power_cuts.workloads import CHANGING_KINDS, PAIRED, STARTS, Workload, sequences, starts
from snapcheck.stateful_tests.session import Session
from snapcheck.stateful_tests.units import SHARDS, Answer, Profile, Unit
from snapcheck.stateful_tests.watchdog import Watchdog, watchdog
from snapcheck.stateful_tests.work import Control

T = TypeVar("T")
NAME: Final = "crash"
SAMPLED: Final = "workloads whose states were sampled"
DISKS: Final = "sound disks left"
GONE_ON_WITH: Final = "sound disks left, gone on with"
NO_NEED: Final = "sound disks left, clean or gone on with before"
BROKEN_OFF: Final = "workloads broken off"  # time was up in their midst; the laws that they were asked are counted
LAWS: Final = (
    Law.NO_CRASH, Law.NO_HANG, Law.OPENS, Law.NO_CORRUPTION, Law.DURABLE, Law.ATOMIC_OP, Law.GROUP_CUT,
    Law.SAFE_TO_USE, Law.REPAIR_IS_SAFE,
)  # fmt: skip
_STEPS_MAX: Final = 12  # of a random history
_SECONDS_MIN: Final = 2.0  # that a workload gets, however late it is: most need less, and are whole then
_LOOKED_AT: Final = 4  # disks that are made for one that is gone on with
_REST: Final = (1 << 6, 1 << 20)  # with so many of those put off it is gone on in each round
_BEYOND: Final = (Persistence.ONE_DROPPED, Persistence.ONE_KEPT, Persistence.TWO_DROPPED, Persistence.PREFIX)


@dataclass(frozen=True, slots=True)
class Reach:
    """How far a profile goes.

    points   from how many starting images
    length   of the sequences
    plans    what is enumerated for each
    go_on    with how many of the disks that one sequence leaves it is gone on, under each plan
    rest     with the others as well, once all sequences of that length were judged
    pairs    some sequences of two operations are among those of one
    """

    points: int
    length: int
    plans: tuple[Plan, ...]
    go_on: int
    rest: bool = True
    pairs: bool = False


_EPOCH: Final = Plan((Persistence.EPOCH, *_BEYOND), 1 << 10)
_TORN: Final = Plan((Persistence.SECTOR_TORN,), 1 << 9)
_LYING: Final = Plan((Persistence.NO_BARRIERS,), 1 << 7)  # nothing is promised there but that nobody dies
_GARBAGE: Final = Plan((Persistence.EPOCH,), 1 << 7, fill=Filling.GARBAGE)
_ALL_OF: Final = frozenset({_EPOCH})  # plans that are to be exhaustive; of the others some states are enough
REACHES: Final = {
    Profile.QUICK: Reach(len(STARTS) - 2, 1, (_EPOCH,), 1, rest=False, pairs=True),
    Profile.DEFAULT: Reach(len(STARTS), 2, (_EPOCH, _TORN), 2),
    Profile.DEEP: Reach(len(STARTS), 3, (_EPOCH, _TORN, _LYING, _GARBAGE), 2),
}  # fmt: skip


def scope(profile: Profile, *, devices: int, length: int, counts: Mapping[str, int]) -> str:
    """Return what was done when every sequence of up to `length` operations was (0: none), and it came to `counts`."""
    reach = REACHES[profile]
    groups = "1 device" if devices == 1 else f"1 to {min(devices, 3)} devices"
    models = ", ".join(dict.fromkeys(_words(plan) for plan in reach.plans))
    gone, needed = counts.get(GONE_ON_WITH, 0), counts.get(DISKS, 0) - counts.get(NO_NEED, 0)
    which = f"{_which(reach, length)} from {reach.points} images on {groups}"
    further = f"going on with {gone:,} of {needed:,} disks that differ in what is read"
    return f"a cut at every place of {which}, {models}, {further}"


def _which(reach: Reach, length: int) -> str:
    """Return which sequences were cut when all of up to `length` operations were."""
    some = [*range(length + 1, min(length + 1, reach.length) + 1), *((2,) if reach.pairs else ())]
    told = [f"all sequences of length {length}"] if length else []
    told += [f"some{'' if length else ' sequences'} of length {' and '.join(map(str, some))}"] if some else []
    return " and ".join(told)


def _words(plan: Plan) -> str:
    model = plan.persistence[0].value if plan.fill is Filling.OLD else f"lost sectors with {plan.fill.value}"
    if plan in _ALL_OF:
        return f"{model} (what breaks a law is told as the simplest part of it that does, like {_BEYOND[0].value})"
    return f"up to {plan.bound} states of {model}"


def run(unit: Unit, control: Control) -> Answer:
    """Run this shard's workloads, the short ones first. `Answer.length` says up to which length all were run.

    Raises `TargetError` for a driver that can not be started. On KeyboardInterrupt it ends with what it has.
    """
    with gathering(unit, control) as gatherer, watchdog() as dog:
        crash = _Crash(unit, gatherer, dog)
        try:
            crash.run()
        except _Stopped:
            gatherer.answer.out_of_time = True
        except KeyboardInterrupt:
            gatherer.answer.interrupted = True
    return gatherer.answer


class _Stopped(Exception):  # noqa: N818  # no error
    """Time, or the number of histories that was asked for, has run out."""


class _Went(NamedTuple):
    """How going on with disks ended: how many were looked at, and whether something did not end."""

    looked_at: int
    hung: bool = False


def _one_in_three(some: Iterator[T], every: Iterator[T]) -> Iterator[T]:
    """Yield what both do: two of `every`, then one of `some`, and so on."""
    for number in count():
        try:
            yield next(every if number % 3 < 2 else some)
        except StopIteration:
            break
    yield from every
    yield from some


def _disks_of(left: Sequence[Left]) -> int:
    return sum(len(each.judged.witnesses) for each in left)


class _Crash:
    def __init__(self, unit: Unit, gatherer: Gatherer, dog: Watchdog) -> None:
        self._unit = unit
        self._gatherer = gatherer
        self._dog = dog
        self._target = find_target(unit.driver)
        self._able = self._target.abilities
        self._reach = REACHES[unit.profile]
        self._going_on = GoingOn(dog)
        self._begun = 0.0  # the workload at hand, in seconds of the unit
        self._rest: dict[str, tuple[str, ...]] = {}  # by case: under each plan the first disk that is not gone on with

    def run(self) -> None:
        """Run all workloads of this shard, then random histories, until `_Stopped` is raised."""
        if not self._able.io or not self._able.reopen:
            self._gatherer.answer.counts["no power cuts: the driver's disks can not be listened to"] += 1
            return
        for length in range(1, self._reach.length + 1):
            for workload in self._workloads(length):
                self._try(workload.setup, workload.operations)
            self._gatherer.answer.length = length
            for most in _REST if self._reach.rest else ():
                for workload in self._workloads(length):
                    self._go_on_with_rest(workload, most)
        for number in count():
            self._random(number)

    # --- exhaustive -------------------------------------------------------------------------------
    def _workloads(self, length: int) -> Iterator[Workload]:
        """Yield this shard's sequences of `length` operations; of longer ones those with one parent together.

        Of length 1 each image has its first operation before any has its second: a short run sees them all.
        """
        points = starts(
            devices_max=self._unit.devices, semantics=self._unit.semantics, kinds=self._able.operations,
            prepared=self._able.prepared_images,
        )  # fmt: skip
        parents = sequences(points[: self._reach.points], length - 1, kinds=self._able.operations)
        if length == 1:
            every = in_turn([[*parent.children(kinds=self._able.operations)] for parent in parents])
            if self._reach.pairs:
                every = _one_in_three(self._pairs(), every)
            yield from islice(every, self._unit.shard, None, SHARDS)
        else:
            for parent in islice(parents, self._unit.shard, None, SHARDS):
                yield from parent.children(kinds=self._able.operations)

    def _pairs(self) -> Iterator[Workload]:
        """Yield a write, unflushed, and whatever may follow it, over clusters that snapshots share."""
        semantics, kinds = self._unit.semantics, self._able.operations
        points = starts(devices_max=1, semantics=semantics, kinds=kinds, called=PAIRED)
        for parent in sequences(points, 1, kinds=kinds):
            if isinstance(parent.operations[-1], Write):
                yield from parent.children(kinds=self._able.operations)

    # --- random -----------------------------------------------------------------------------------
    def _random(self, number: int) -> None:
        """Try a random history, from the seed that belongs to its number."""
        rng = Random(f"{self._unit.seed}/{self._unit.shard}/{NAME}/{number}")  # noqa: S311  # the same again, not secret
        chooser = RandomChooser(rng)
        setup = draw_setup(
            chooser, semantics=self._unit.semantics, devices_max=self._unit.devices,
            qcow2_prepared=self._target.format == "qcow2",
        )  # fmt: skip
        # Whether a create succeeds where nothing can be shared is not always known before it is made.
        setup = replace(setup, devices=tuple(replace(spec, unshared=False) for spec in setup.devices))
        kinds = tuple(kind for kind in CHANGING_KINDS if self._able.operations is None or kind in self._able.operations)
        workload = Workload(setup)
        for _ in range(rng.randint(1, _STEPS_MAX)):
            workload = workload.then(draw_operation(chooser, workload.world, kinds=kinds))
        self._gatherer.answer.counts["random histories"] += 1
        self._try(setup, workload.operations)

    # --- one workload -----------------------------------------------------------------------------
    def _try(self, setup: Setup, operations: tuple[Operation, ...]) -> None:
        """Record one workload and judge every cut during its last operation, unless an earlier run has done so."""
        case = digest_of(repr((setup, operations)))
        if case in self._gatherer.before:
            self._rest[case] = self._gatherer.before[case].note
            return
        if self._gatherer.must_stop():
            raise _Stopped
        self._begun = self._gatherer.seconds
        rest: tuple[str, ...] = ()
        try:
            recorded = record(self._target, setup, operations, dog=self._dog)
        except UnsupportedSetupError:
            self._gatherer.skipped()
            return
        self._gatherer.heard(recorded.session, recorded.found)
        self._gatherer.answer.counts["workloads"] += 1
        if recorded.recording is not None:
            try:
                rest = self._rest[case] = self._cut(recorded.recording, recorded)
            except (KeyboardInterrupt, _Stopped):  # what was found so far stays, and is counted
                self._gatherer.answer.counts[BROKEN_OFF] += 1
                self._gatherer.answer.add_laws(recorded.session.judge.counts)
                raise
        self._gatherer.ended(recorded.session, case=case, note=rest)

    def _cut(self, recording: Recording, recorded: Recorded) -> tuple[str, ...]:
        """Judge what a cut may leave under each plan of the profile, and go on with some of it.

        Return where to go on later, for each plan, nothing when it was gone on with all. Once something does not end,
        that is enough of this workload: the next thing may not end either.
        """
        rest: list[str] = []
        more, most = False, self._reach.go_on
        for plan in self._reach.plans:
            judge = CutJudge(recording, seed=self._unit.seed, dog=self._dog, each=self._require_time)
            try:
                left = self._sound(judge, plan)
            finally:
                self._count(recorded.session, judge)
            self._gatherer.answer.counts[SAMPLED] += plan in _ALL_OF and not judge.funnel.exhaustive
            try:
                went = self._go_on(judge, islice(witnesses_of(left), _LOOKED_AT * most), most=most)
            finally:
                self._add_laws(recorded.session, self._going_on.take_laws())
            if judge.hung or went.hung:
                return ()
            rest.append(str(went.looked_at))
            more = more or went.looked_at < _disks_of(left)
        return tuple(rest) if more else ()

    def _sound(self, judge: CutJudge, plan: Plan) -> list[Left]:
        """Keep what speaks against the driver, count and return what is left that may be gone on with."""
        left: list[Left] = []
        try:
            for found in judge.judge(plan):
                if isinstance(found, Found):
                    self._keep(judge.recording, found)
                elif found.sound:
                    left.append(found)
        finally:
            self._gatherer.answer.counts[DISKS] += _disks_of(left)
        return [] if judge.hung else left

    def _require_time(self) -> None:
        """Break a workload off when time is up, but for one that has only begun."""
        if self._gatherer.seconds - self._begun > _SECONDS_MIN and self._gatherer.must_stop():
            raise _Stopped

    def _go_on(self, judge: CutJudge, ways: Iterable[tuple[Left, Cut]], *, most: int) -> _Went:
        """Go on with `most` of the disks that were left, those new to this shard."""
        going_on, counts = self._going_on, self._gatherer.answer.counts
        looked_at = gone_on_with = 0
        for each, witness in ways:
            if gone_on_with == most:
                break
            self._require_time()
            before = len(going_on.tried)
            hung = False
            for found in going_on.go_on(remnant(judge, each, witness)):
                self._keep(judge.recording, found)
                hung = hung or found.evidence.law is Law.NO_HANG
            new = len(going_on.tried) > before
            counts[GONE_ON_WITH if new else NO_NEED] += 1
            looked_at, gone_on_with = looked_at + 1, gone_on_with + new
            if hung:
                return _Went(looked_at, hung=True)
        return _Went(looked_at)

    def _go_on_with_rest(self, workload: Workload, most: int) -> None:
        """Go on with up to `most` disks under each plan that a workload left and that were put off, if any were.

        An earlier run may have done so.
        """
        case = digest_of(repr((workload.setup, workload.operations)))
        rest, rest_case = self._rest.get(case, ()), f"{case} {most}"
        if rest_case in self._gatherer.before:
            self._rest[case] = self._gatherer.before[rest_case].note
        elif rest:
            self._begun = -_SECONDS_MIN  # it had its time when it was cut
            recorded = record(self._target, workload.setup, workload.operations, dog=self._dog)
            if recorded.recording is None:  # it went another way this time
                return
            try:
                self._rest[case] = self._rest_of(recorded.recording, rest, most)
            except (KeyboardInterrupt, _Stopped):
                self._gatherer.answer.add_laws(self._going_on.take_laws())
                raise
            history, laws = recorded.session.history, self._going_on.take_laws()
            self._gatherer.add(
                digest(history), steps=len(history.steps), laws=laws, case=rest_case, note=self._rest[case]
            )

    def _rest_of(self, recording: Recording, rest: tuple[str, ...], most: int) -> tuple[str, ...]:
        """Go on with more disks, and return where to go on after that; nothing when all were gone on with."""
        after: list[str] = []
        more = False
        for plan, start in zip(self._reach.plans, map(int, rest), strict=True):
            judge = CutJudge(recording, seed=self._unit.seed, dog=self._dog, each=self._require_time)
            left = [each for each in judge.judge(plan) if isinstance(each, Left) and each.sound]
            went = self._go_on(judge, islice(witnesses_of(left), start, None), most=most)
            if judge.hung or went.hung:
                return ()
            after.append(str(start + went.looked_at))
            more = more or start + went.looked_at < _disks_of(left)
        return tuple(after) if more else ()

    def _keep(self, recording: Recording, found: Found) -> None:
        whole = recording.history
        self._gatherer.keep(History(whole.setup, whole.steps, whole.abilities, found.cut), (found.evidence,))

    def _count(self, session: Session, judge: CutJudge) -> None:
        self._add_laws(session, judge.laws)
        counts, funnel = self._gatherer.answer.counts, judge.funnel
        counts[timeline.ENUMERATED] += funnel.enumerated
        counts[timeline.DISTINCT] += funnel.distinct
        counts[timeline.DISTINCT_IN_WHAT_IS_READ] += funnel.read_set_distinct
        counts[timeline.JUDGED] += funnel.judged

    def _add_laws(self, session: Session, laws: Mapping[Law, list[int]]) -> None:
        for law, (checked, violated) in laws.items():
            session.judge.counts[law][0] += checked
            session.judge.counts[law][1] += violated
