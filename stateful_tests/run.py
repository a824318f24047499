"""A whole run: the phases as units of work, their answers added up, violations shrunk, and the verdict.

    finished = run_driver(find_target("qcow2"), RunOptions(profile=Profile.QUICK), listener)

Units are plain data and so are their answers, so that `jobs` processes give the same histories as one.
"""

import math
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from snapcheck.impl.targets import Target, TargetError
from snapcheck.model.crash_laws import CRASH_RULES
from snapcheck.model.history import Abilities, History
from snapcheck.model.law_names import Law, Severity
from snapcheck.model.laws import is_observable
from snapcheck.model.scope import Scope
from snapcheck.model.setup import Semantics
from snapcheck.reports.causes import grouped
from snapcheck.reports.digests import Shard
from snapcheck.reports.known import Accepted
from snapcheck.reports.verdict import LawReport, PhaseReport, RunResult, Verdict, ViolationReport
from snapcheck.stateful_tests.corpus import NAME as NAME_OF_CORPUS
from snapcheck.stateful_tests.corpus import Corpus, Entry
from snapcheck.stateful_tests.coverage import cells_of, coverage
from snapcheck.stateful_tests.goals import declared, missed
from snapcheck.stateful_tests.phases import crash, images, stateful, sweep, tour, walk
from snapcheck.stateful_tests.replay import Replayed, ReplayState, replay
from snapcheck.stateful_tests.shrink import SECONDS_DEFAULT
from snapcheck.stateful_tests.units import SHARDS, Answer, Failure, Profile, Unit
from snapcheck.stateful_tests.violations import Violations, as_found
from snapcheck.stateful_tests.work import Crew, Run, Tick, crew

# In the order in which they run: what is exhaustive first, what is random with the time that is left.
RUNNERS: Final[Mapping[str, Run]] = {
    images.NAME: images.run, sweep.NAME: sweep.run, tour.NAME: tour.run, walk.NAME: walk.run,
    stateful.NAME: stateful.run, crash.NAME: crash.run,
}  # fmt: skip
PHASES: Final = tuple(RUNNERS)
_WEIGHTS: Final = {  # how time and histories are shared
    images.NAME: 2, sweep.NAME: 10, tour.NAME: 3, walk.NAME: 3, stateful.NAME: 2, crash.NAME: 4,
}  # fmt: skip
_EXHAUSTIVE: Final = frozenset({sweep.NAME, crash.NAME})  # up to a length
# The laws that phases which do not check all but those of power cuts do check.
_LAWS_OF: Final = {images.NAME: images.LAWS, tour.NAME: tour.LAWS, crash.NAME: crash.LAWS}
SAMPLE_MAX: Final = 4
DEVICES_MAX: Final = 8


SECONDS: Final = {Profile.QUICK: 10.0, Profile.DEFAULT: 60.0, Profile.DEEP: 600.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What to run. `seconds` is the budget of all phases together, and so is `histories`, which no time limits then.

    The phases share `histories` exactly; only a phase that has no more of them does fewer, and that is when all do.
    A violation is shrunk for `shrink_seconds` at most, all errors for six times as long, all warnings for a fifth.
    `scope` is for the tour, which takes all the time that it needs then; without one the profile has its own.
    In the folder `journals` each history is noted as it ends; those that are noted there already are not done again.
    """

    phases: tuple[str, ...] = PHASES
    profile: Profile = Profile.DEFAULT
    seconds: float | None = None
    histories: int | None = None
    devices: int = 3
    scope: Scope | None = None
    seed: int = 0
    semantics: Semantics = Semantics.CLASSIC
    jobs: int = 1
    known: tuple[Accepted, ...] = ()
    corpus: Corpus | None = None
    journals: Path | None = None
    shrink_seconds: float = SECONDS_DEFAULT


class Progress(NamedTuple):
    """How far a phase is."""

    phase: str
    histories: int
    steps: int
    seconds: float
    violations: int


class Listener(Protocol):
    """Whoever wants to hear about a run while it goes on."""

    def on_phase(self, name: str, *, histories: int | None, seconds: float | None) -> None: ...
    def on_progress(self, progress: Progress) -> None: ...
    def on_violation(self, violation: ViolationReport) -> None: ...


class Silent:
    """A listener that pays no attention."""

    def on_phase(self, name: str, *, histories: int | None, seconds: float | None) -> None:
        pass

    def on_progress(self, progress: Progress) -> None:
        pass

    def on_violation(self, violation: ViolationReport) -> None:
        pass


class Finished(NamedTuple):
    """A run's result, and a sample of passing histories with all their events. `whole`: nothing broke it off.

    `shards` have the digests of all histories, in the order of phases and shards.
    """

    result: RunResult
    sample: tuple[History, ...]
    whole: bool = True
    shards: tuple[Shard, ...] = ()


@dataclass(slots=True)
class _Run:
    """What a run has gathered so far."""

    target: Target
    options: RunOptions
    listener: Listener
    violations: Violations
    begun: float = field(default_factory=time.monotonic)
    phases: list[PhaseReport] = field(default_factory=list[PhaseReport])
    laws: dict[Law, list[int]] = field(default_factory=lambda: {law: [0, 0] for law in Law})
    cells: dict[str, Counter[str]] = field(default_factory=dict[str, Counter[str]])  # by phase
    failures: list[Failure] = field(default_factory=list[Failure])
    sample: list[History] = field(default_factory=list[History])
    shards: list[Shard] = field(default_factory=list[Shard])
    abilities: Abilities | None = None
    notes: list[str] = field(default_factory=list[str])
    whole: bool = False

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.begun


def run_driver(target: Target, options: RunOptions, listener: Listener) -> Finished:
    """Run the phases on a driver and return what they showed.

    Never raises for what a driver does: one that can not be started, and a run that is interrupted, give a result with
    a note, and verdict unknown unless there are violations.
    """
    violations = Violations(target, options.known, options.shrink_seconds, listener.on_violation)
    run = _Run(target, options, listener, violations)
    try:
        if options.corpus is not None:
            _replay_corpus(run, options.corpus)
        with crew(options.jobs, [RUNNERS[name] for name in options.phases]) as workers:
            for at, name in enumerate(options.phases):
                _run_phase(run, name, share_of(options.phases[at:]), workers)
        run.whole = True
    except TargetError as error:
        run.notes.append(f"the driver could not be started: {error}")
    except KeyboardInterrupt:
        run.notes.append("interrupted: what had been done until then is reported")
    except Exception as error:  # noqa: BLE001  # a failure of the harness is a verdict too: unknown
        run.notes.append(f"the harness itself failed: {where(error)}")
    run.violations.shrink_all(run.failures)
    result = _result(run)
    if options.corpus is not None:
        result = _extend_corpus(options.corpus, result)
    shards = sorted(run.shards, key=lambda each: (options.phases.index(each.phase), each.number))
    return Finished(result, tuple(run.sample[:SAMPLE_MAX]), run.whole, tuple(shards))


def where(error: Exception) -> str:
    """Return an unexpected exception on one line, with the place that raised it."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    text = " ".join(str(error).split()) or "no text"
    return f"{type(error).__name__} in {last.name} ({Path(last.filename).name}:{last.lineno}): {text[:300]}"


# --- phases ---------------------------------------------------------------------------------------
def share_of(names: Sequence[str]) -> Fraction:
    """Return which part of what is left is for the first of these phases."""
    weights = [_WEIGHTS.get(name, 1) for name in names]
    return Fraction(weights[0], sum(weights))


def _run_phase(run: _Run, name: str, share: Fraction, workers: Crew) -> None:
    options = run.options
    seconds, histories = _budget(run, name, share)
    run.listener.on_phase(name, histories=histories, seconds=seconds)
    begun, answers, ticks = time.monotonic(), list[Answer](), dict[int, Tick]()

    def hear(tick: Tick) -> None:
        ticks[tick.shard] = tick
        done = [*ticks.values()]
        progress = Progress(
            name, sum(t.histories for t in done), sum(t.steps for t in done), time.monotonic() - begun,
            sum(t.violations for t in done),
        )  # fmt: skip
        run.listener.on_progress(progress)

    def take(answer: Answer) -> None:
        answers.append(answer)
        _add(run, answer)
        hear(Tick(answer.unit.shard, answer.histories, answer.steps, answer.counts["violations"]))

    units = tuple(_units(run.target, options, name, histories))
    try:
        workers(RUNNERS[name], units, seconds=seconds, hear=hear, take=take)
    finally:
        run.phases.append(_phase_report(name, answers, time.monotonic() - begun, options))
    if name == walk.NAME:
        _require_goals(run)
    if name == tour.NAME and options.scope is not None and not run.phases[-1].complete:
        counts = run.phases[-1].counts
        run.notes.append(f"the tour took {counts[tour.TAKEN]:,} of {counts[tour.IN_SCOPE]:,} transitions")


def _budget(run: _Run, name: str, share: Fraction) -> tuple[float | None, int | None]:
    """Return the seconds and the histories of a phase: its share of what the phases before it left.

    It gets half of its share of the whole time at least: where they took longer than theirs, the run does too.
    """
    options, seconds, histories = run.options, None, None
    unlimited = options.histories is not None or options.scope is not None
    if options.seconds is not None or not unlimited:
        in_all = SECONDS[options.profile] if options.seconds is None else options.seconds
        weights = [_WEIGHTS.get(each, 1) for each in options.phases]
        least = in_all * _WEIGHTS.get(name, 1) / sum(weights) / 2
        seconds = max(least, (in_all - run.seconds) * float(share))
    if options.histories is not None:
        histories = math.ceil((options.histories - sum(phase.histories for phase in run.phases)) * share)
    return seconds, histories


def _units(target: Target, options: RunOptions, name: str, histories: int | None) -> Iterator[Unit]:
    """Split a phase into its shards; histories are dealt out."""
    for shard in range(SHARDS):
        dealt = None if histories is None else histories // SHARDS + (shard < histories % SHARDS)
        yield Unit(
            driver=target.name, phase=name, semantics=options.semantics, devices=options.devices, seed=options.seed,
            shard=shard, histories=dealt, seconds=None, profile=options.profile, scope=options.scope,
            journal=None if options.journals is None else str(options.journals / f"{name}-{shard}.jsonl"),
        )  # fmt: skip


def _require_goals(run: _Run) -> None:
    """Note which goals the walk has missed: it can not vouch for what it never tried."""
    kinds = None if run.abilities is None else run.abilities.operations
    goals = declared(run.options.profile, devices=run.options.devices, kinds=kinds)
    never = missed(goals, run.phases[-1].counts)
    if never:
        run.notes.append(f"the walk never saw: {'; '.join(never)}; more histories or seconds may do it")


def _add(run: _Run, answer: Answer) -> None:
    for law, (checked, violated) in answer.laws.items():
        run.laws[law][0] += checked
        run.laws[law][1] += violated
    run.cells.setdefault(answer.unit.phase, Counter()).update(answer.cells)
    run.failures += answer.failures
    run.sample += answer.sample
    run.shards.append(Shard(answer.unit.phase, answer.unit.shard, answer.digests))
    run.abilities = run.abilities or answer.abilities
    if run.abilities is None and answer.histories:  # all of them were done by an earlier run
        run.abilities = run.target.abilities


def _phase_report(name: str, answers: Sequence[Answer], seconds: float, options: RunOptions) -> PhaseReport:
    counts: Counter[str] = Counter()
    for answer in answers:
        counts.update(answer.counts)
    whole = len(answers) == SHARDS and not any(answer.interrupted for answer in answers)
    length = min((answer.length for answer in answers), default=0)
    complete = whole and (name not in _EXHAUSTIVE or length > 0) and not counts[crash.SAMPLED]
    if name == tour.NAME:
        counts.update(dict.fromkeys(tour.COUNTS, 0))
        complete = whole and counts[tour.TAKEN] == counts[tour.IN_SCOPE]
    scope = next((each.scope for each in answers if each.scope), _scope(name, options, length, counts))
    return PhaseReport(
        name, sum(a.histories for a in answers), sum(a.steps for a in answers), seconds, complete, scope,
        dict(sorted(counts.items())),
    )  # fmt: skip


def _scope(name: str, options: RunOptions, length: int, counts: Counter[str]) -> str:
    """Return what a phase has covered, in words; of an exhaustive one, what it has covered or was to cover at least."""
    if name == images.NAME:
        return images.SCOPE
    if name == sweep.NAME:
        return sweep.scope(options.profile, devices=options.devices, length=max(1, length))
    if name == crash.NAME:
        return crash.scope(options.profile, devices=options.devices, length=length, counts=counts)
    if name == tour.NAME:
        return "every transition"
    steps = walk.STEPS_MAX if name == walk.NAME else stateful.STEPS_MAX
    broken_off = f"; {stateful.FLAKY}: {counts[stateful.FLAKY]:,}" if counts[stateful.FLAKY] else ""
    return f"random histories of up to {steps} operations, 1 to {options.devices} devices, {SHARDS} shards{broken_off}"


# --- the corpus -----------------------------------------------------------------------------------
def _replay_corpus(run: _Run, corpus: Corpus) -> None:
    """Replay what failed once: what still does is a violation of this run, what does not is dropped."""
    run.listener.on_phase(NAME_OF_CORPUS, histories=len(corpus.entries), seconds=None)
    begun, counts, steps = time.monotonic(), Counter[str](), 0
    for entry in corpus.entries:
        done, failure = _replayed(run.target, entry)
        steps += len(done.history.steps)
        counts[done.state.value.lower()] += 1
        if done.state is ReplayState.FIXED:
            corpus.drop(entry)
        elif failure is None:
            kept = "can not be run" if done.state is ReplayState.CANNOT_RUN else "may be mended or not, and is kept"
            run.notes.append(f"{entry.path.name} of the corpus {kept}: {'; '.join(done.text.splitlines())}")
        else:
            seen = as_found(failure)._replace(finished=True, reproduced=True)
            run.violations.tell(failure, seen, found_after_s=0.0)
    run.phases.append(
        PhaseReport(
            NAME_OF_CORPUS, len(corpus.entries), steps, time.monotonic() - begun, complete=True,
            scope=f"what is in {corpus.folder}", counts=dict(sorted(counts.items())),
        )
    )  # fmt: skip


def _replayed(target: Target, entry: Entry) -> tuple[Replayed, Failure | None]:
    """Replay what is in a file; return how it went, and the failure that it still shows."""
    done = replay(target, entry.history, reproduced=entry.reproduced)
    if done.state is not ReplayState.STILL_FAILS:
        return done, None
    return done, Failure(NAME_OF_CORPUS, done.evidence, done.history, 0.0)


def _extend_corpus(corpus: Corpus, result: RunResult) -> RunResult:
    """Add what this run found, and say in the corpus' phase what became of its files."""
    added = corpus.add(result)
    phases = list(result.phases)
    for at, phase in enumerate(phases):
        if phase.name == NAME_OF_CORPUS:
            counts = {**phase.counts, "added": added.files}
            told = [f"{counts.get(word, 0)} {words}" for word, words in _CORPUS_WORDS.items()]
            told += [f"{counts[word]} {words}" for word, words in _CORPUS_DOUBTS.items() if word in counts]
            told += [f"left out: {', '.join(added.left_out)}"] if added.left_out else []
            phases[at] = replace(phase, counts=counts, scope=f"{phase.scope}: {', '.join(told)}")
    return replace(result, phases=tuple(phases))


_CORPUS_WORDS: Final = {"still fails": "still failing", "fixed": "fixed and dropped", "added": "added"}
_CORPUS_DOUBTS: Final = {
    word.value.lower(): f"kept, as {words}"
    for word, words in (
        (ReplayState.CANNOT_TELL, "nobody can tell"), (ReplayState.CANNOT_RUN, "they can not be run"),
    )
}  # fmt: skip


# --- the result -----------------------------------------------------------------------------------
def _result(run: _Run) -> RunResult:
    options, abilities = run.options, run.abilities or Abilities()
    hidden = {law for law in Law if not is_observable(law, abilities)}
    if not abilities.prepared_images and not run.laws[Law.REPAIR_IS_SAFE][0]:
        hidden.add(Law.REPAIR_IS_SAFE)  # nobody here repairs its images, and its own opens wrote nothing
    laws = tuple(LawReport(law, run.laws[law][0], run.laws[law][1], not_observable=law in hidden) for law in Law)
    expected = _laws_of(options.phases, devices=options.devices)
    unchecked = [each.law.value for each in laws if each.law in expected and not (each.checked or each.not_observable)]
    if unchecked and run.phases and not run.notes:
        way_out = "; more histories or seconds may do it" if options.scope is None else "; a larger scope may do it"
        run.notes.append(f"never checked, though observable: {', '.join(unchecked)}{way_out}")
    return RunResult(
        version=snapcheck_version(), verdict=_verdict(run), driver=run.target.name, semantics=options.semantics.value,
        seed=options.seed, devices=options.devices, seconds=round(run.seconds, 3), phases=tuple(run.phases), laws=laws,
        coverage=coverage(run.cells, cells_of(options.devices, abilities.operations, options.semantics)),
        violations=grouped(run.violations.told), notes=(*run.notes, *run.violations.notes),
    )  # fmt: skip


def _laws_of(phases: Sequence[str], *, devices: int) -> tuple[Law, ...]:
    """Return the laws that some of these phases must have checked, on groups of up to so many devices."""
    usual = tuple(law for law in Law if law not in CRASH_RULES)
    asked = {law for name in phases for law in _LAWS_OF.get(name, usual)}
    if devices == 1:
        asked.discard(Law.GROUP_CUT)
    return tuple(law for law in Law if law in asked)


def _verdict(run: _Run) -> Verdict:
    if any(each.severity is Severity.ERROR and not each.known for each in run.violations.told):
        return Verdict.FAILED
    return Verdict.UNKNOWN if run.notes or run.violations.notes else Verdict.PASSED


def snapcheck_version() -> str:
    """Return the installed version."""
    try:
        return version("snapcheck")
    except PackageNotFoundError:
        return "0+unknown"
