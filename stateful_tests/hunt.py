"""Finding power: each seeded bug is hunted by each phase by itself, and by two baselines, under a budget of time.

    board = hunt_all(CATALOGUE, HuntOptions(profile=Profile.QUICK), listener)

A phase has the share of the budget that it has in a run, and ends with the first violation; so the time of a bug is
that of a phase alone, and the budget of a bug is what a run of that profile takes. A baseline has the whole budget.
Seconds are of processor time: how much else the machine has to do makes a hunt longer, and finds no less.
"""

import signal
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from typing import Final, NamedTuple, Protocol

from snapcheck.impl.local import LocalSystem
from snapcheck.impl.targets import find_target
from snapcheck.model.law_names import Severity
from snapcheck.model.operations import kind_of
from snapcheck.reports.scoreboard import Catch, Reproducer, Score, Scoreboard
from snapcheck.stateful_tests import uniform
from snapcheck.stateful_tests.phases import images, stateful
from snapcheck.stateful_tests.run import PHASES, RUNNERS, SECONDS, share_of, snapcheck_version, where
from snapcheck.stateful_tests.seeded_bugs import SeededBug
from snapcheck.stateful_tests.shrink import shrink
from snapcheck.stateful_tests.units import SHARDS, Failure, Profile, Unit
from snapcheck.stateful_tests.work import Control, Run, Tick

HYPOTHESIS: Final = "hypothesis"  # the baseline that is the stateful phase, with all the time there is
SHRINK_SECONDS: Final = 30.0  # of wall-clock
DEVICES: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class HuntOptions:
    """How to hunt. `seconds` is the budget of one bug; None: what a run of the profile takes."""

    profile: Profile = Profile.DEFAULT
    seconds: float | None = None
    seed: int = 0
    jobs: int = 1
    baselines: bool = True

    @property
    def seconds_each(self) -> float:
        return SECONDS[self.profile] if self.seconds is None else self.seconds


class Listener(Protocol):
    """Whoever wants to hear about each bug as it is done."""

    def on_score(self, score: Score, *, done: int, of: int) -> None: ...


# --- all bugs -------------------------------------------------------------------------------------
def hunt_all(bugs: Sequence[SeededBug], options: HuntOptions, listener: Listener) -> Scoreboard:
    """Hunt each bug, several at a time; on KeyboardInterrupt the scoreboard has those that are done."""
    scores: dict[str, Score] = {}

    def take(score: Score) -> None:
        scores[score.bug] = score
        listener.on_score(score, done=len(scores), of=len(bugs))

    try:
        with _hunters(options.jobs) as hunters:
            hunters(bugs, options, take)
    except KeyboardInterrupt:
        pass  # fewer scores than bugs: whoever reads the scoreboard sees that
    wanted = tuple(bug.name for bug in bugs)
    ordered = tuple(scores[name] for name in wanted if name in scores)
    return Scoreboard(snapcheck_version(), options.profile.value, options.seconds_each, options.seed, wanted, ordered)


class _Hunters(Protocol):
    def __call__(self, bugs: Sequence[SeededBug], options: HuntOptions, take: Callable[[Score], None]) -> None: ...


@contextmanager
def _hunters(jobs: int) -> Generator[_Hunters]:
    """Lend who hunts: this process, or several others."""
    if jobs == 1:
        yield _hunt_here
        return
    context = get_context("spawn")
    stop = context.Event()
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin_worker, initargs=(stop,))

    def hunt_there(bugs: Sequence[SeededBug], options: HuntOptions, take: Callable[[Score], None]) -> None:
        pending: list[Future[Score | None]] = [pool.submit(_hunt_in_worker, bug, options) for bug in bugs]
        for future in as_completed(pending):
            score = future.result()
            if score is not None:
                take(score)

    try:
        yield hunt_there
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def _hunt_here(bugs: Sequence[SeededBug], options: HuntOptions, take: Callable[[Score], None]) -> None:
    for bug in bugs:
        take(hunt(bug, options))


_stops: list[Event] = []  # of this worker process: what its initializer was given


def _begin_worker(stop: Event) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says when to stop
    _stops[:] = [stop]


def _hunt_in_worker(bug: SeededBug, options: HuntOptions) -> Score | None:
    """Hunt one bug in a worker; None when it was told to stop on the way."""
    try:
        return hunt(bug, options, stop_asked=_stops[0].is_set)
    except KeyboardInterrupt:
        return None


# --- one bug --------------------------------------------------------------------------------------
class _UntilFound(Control):
    """Asks a unit to end when it has a violation, when its time is over, or when nobody waits any more."""

    def __init__(self, seconds: float, stop_asked: Callable[[], bool]) -> None:
        super().__init__(self._hear)
        self._stop_asked = stop_asked
        self._begun = time.process_time()
        self._seconds_max = seconds
        self._found = False

    @property
    def seconds(self) -> float:
        return time.process_time() - self._begun

    def _hear(self, tick: Tick) -> None:
        self._found = self._found or tick.violations > 0

    def stop_asked(self) -> bool:
        return self._found or self.seconds > self._seconds_max or self._stop_asked()


class _Caught(NamedTuple):
    """A violation, and how long it took to see it."""

    failure: Failure
    seconds: float

    def by(self, name: str) -> Catch:
        operation = kind_of(self.failure.history.steps[-1].operation)
        return Catch(name, self.failure.evidence[0].law, operation, self.seconds)


def hunt(bug: SeededBug, options: HuntOptions, *, stop_asked: Callable[[], bool] = lambda: False) -> Score:
    """Hunt one bug by each phase and baseline. Raises KeyboardInterrupt when it is asked to stop.

    What goes wrong in the harness itself is the score's `trouble`.
    """
    target = find_target(bug.driver)
    phases = tuple(name for name in PHASES if name != images.NAME or target.layers is LocalSystem)
    score = Score(bug.name, target.what, bug.row, bug.law, phases, (), None)
    try:
        return _hunted(bug, options, score, stop_asked)
    except Exception as error:  # noqa: BLE001  # a failure of the harness is told, and ends this bug alone
        return replace(score, trouble=where(error))


def _hunted(bug: SeededBug, options: HuntOptions, score: Score, stop_asked: Callable[[], bool]) -> Score:
    unit = Unit(
        driver=bug.driver, phase="", semantics=bug.semantics, devices=DEVICES, seed=options.seed, shard=0,
        histories=None, seconds=None, profile=options.profile,
    )  # fmt: skip
    caught: dict[str, _Caught] = {}
    baselines: dict[str, Catch | None] = {}
    left = options.seconds_each
    for at, name in enumerate(PHASES):
        share = left * float(share_of(PHASES[at:]))
        left -= share
        if name not in score.tried:
            continue
        alone = options.baselines and name == stateful.NAME
        found = _search(RUNNERS[name], replace(unit, phase=name), options.seconds_each if alone else share, stop_asked)
        if alone:  # the same histories, whoever has the time for them
            baselines[HYPOTHESIS] = found and found.by(HYPOTHESIS)
        if found is not None and found.seconds <= share:
            caught[name] = found
    if options.baselines:
        found = _search(uniform.run, replace(unit, phase=uniform.NAME), options.seconds_each, stop_asked)
        baselines[uniform.NAME] = found and found.by(uniform.NAME)
    catches = tuple(each.by(name) for name, each in caught.items())
    return replace(score, catches=catches, baselines=baselines, reproducer=_shortest(bug, caught.values()))


def _search(run: Run, unit: Unit, seconds: float, stop_asked: Callable[[], bool]) -> _Caught | None:
    """Run the shards of a phase one after the other until one of them has a violation."""
    spent = 0.0
    for shard in range(SHARDS):
        control = _UntilFound((seconds - spent) / (SHARDS - shard), stop_asked)
        answer = run(replace(unit, shard=shard), control)
        if answer.interrupted or stop_asked():
            raise KeyboardInterrupt
        errors = [each for each in answer.failures if each.evidence[0].severity is Severity.ERROR]
        if errors:
            # What was found is told a little later, and wall-clock runs while others work: the less is nearer to it.
            first = min(control.seconds, *(each.found_after_s for each in errors))
            return _Caught(min(errors, key=_length), spent + first)
        spent += control.seconds
    return None


def _length(failure: Failure) -> int:
    return len(failure.history.steps)


def _shortest(bug: SeededBug, caught: Iterable[_Caught]) -> Reproducer | None:
    """Return the length of the shortest reproducer, made of the shortest history that showed the bug."""
    failure = min((each.failure for each in caught), key=_length, default=None)
    if failure is None:
        return None
    done = shrink(find_target(bug.driver), failure.history, failure.evidence, seconds=SHRINK_SECONDS)
    steps = done.history.steps
    return Reproducer(len(steps), sum(len(step.faults) for step in steps))
