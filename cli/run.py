"""`snapcheck run`: from the words of the command line to a report."""

import math
import os
import signal
import sys
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from snapcheck.cli import resume
from snapcheck.cli.errors import UNKNOWN, CallError
from snapcheck.cli.progress import RunListener, listener_for
from snapcheck.cli.summary import tell
from snapcheck.cli.targets import target_of
from snapcheck.impl.targets import WHERE_QEMU, Target
from snapcheck.model.scope import Scope
from snapcheck.model.setup import Semantics
from snapcheck.reports import findings, known
from snapcheck.reports import folder as report_folder
from snapcheck.reports.jsonl import HistoryError
from snapcheck.reports.known import Accepted, KnownError
from snapcheck.reports.verdict import EXIT_STATUS, Coverage, RunResult, Verdict
from snapcheck.stateful_tests import corpus
from snapcheck.stateful_tests.corpus import Corpus
from snapcheck.stateful_tests.run import DEVICES_MAX, PHASES, Finished, RunOptions, run_driver
from snapcheck.stateful_tests.shrink import SECONDS_DEFAULT
from snapcheck.stateful_tests.units import Profile


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCall:
    """What was typed, not yet checked."""

    driver: str
    phases: str | None
    profile: str
    seconds: float | None
    histories: int | None
    devices: int
    seed: int
    jobs: int | None
    semantics: Semantics | None
    known: Path | None
    corpus: Path | None
    resume: bool
    out: Path
    quiet: bool
    progress: bool
    shrink_seconds: float = SECONDS_DEFAULT
    findings: Path | None = None
    scope: Scope | None = None  # of the tour, from snapcheck explore --against


def use_qemu(where: Path | None) -> None:
    """Take QEMU's programs from there, also in processes that are started later."""
    if where is None:
        return
    _require(where.exists(), f"--qemu {where}: there is no such folder or program")
    os.environ[WHERE_QEMU] = str(where.absolute())


def run_command(call: RunCall) -> int:
    """Verify the driver, write the report, say how it went, and return the exit status."""
    options = options_of(call)
    target = target_of(call.driver)
    call = replace(call, semantics=semantics_of(call, target))
    options = replace(options, semantics=call.semantics or Semantics.CLASSIC)
    options = replace(options, journals=_begin(call, options))
    try:
        with _listening(call) as listener, terminable():
            finished = run_driver(target, options, listener)
    except Exception as error:
        _write(call, Finished(_nothing_known(call, f"snapcheck itself failed: {type(error).__name__}: {error}"), ()))
        raise
    _write(call, finished)
    if finished.whole:
        resume.forget(call.out)
    _require_a_start(finished.result)
    tell(finished.result, call.out, quiet=call.quiet)
    _write_findings(call, finished.result)
    return EXIT_STATUS[finished.result.verdict]


def _require_a_start(result: RunResult) -> None:
    """Raise when the driver could not be started: there is nothing to tell but why; result.json says so too."""
    if result.notes and not result.violations and not any(phase.histories for phase in result.phases):
        raise CallError(result.notes[0], status=UNKNOWN)


@contextmanager
def terminable() -> Generator[None]:
    """Take SIGTERM for a Ctrl-C: a CI that gives up wants the report of what was done as well."""
    former = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)


def _listening(call: RunCall) -> AbstractContextManager[RunListener]:
    return listener_for(sys.stderr, progress=call.progress)


# --- what was typed -------------------------------------------------------------------------------
def options_of(call: RunCall) -> RunOptions:
    """Return the options of the run, or raise `CallError` for the first that can not be."""
    _require(1 <= call.devices <= DEVICES_MAX, f"--devices {call.devices}: a group has 1 to {DEVICES_MAX} devices")
    _require(call.jobs is None or call.jobs >= 1, f"--jobs {call.jobs}: give 1 or more")
    _require(call.seed >= 0, f"--seed {call.seed}: give 0 or more")
    _require(call.histories is None or call.histories >= 1, f"--histories {call.histories}: give 1 or more")
    _require(
        call.seconds is None or (call.seconds > 0 and math.isfinite(call.seconds)),
        f"--seconds {call.seconds}: give a number above 0",
    )
    _require(
        call.shrink_seconds >= 0 and math.isfinite(call.shrink_seconds),
        f"--shrink-seconds {call.shrink_seconds}: give a number, 0 to show violations as they were found",
    )
    return RunOptions(
        phases=phases_of(call.phases), profile=profile_of(call.profile), seconds=call.seconds,
        histories=call.histories, devices=call.devices, seed=call.seed,
        jobs=cores() if call.jobs is None else call.jobs,
        known=_known_of(call.known), corpus=_corpus_of(call.corpus), scope=call.scope,
        shrink_seconds=call.shrink_seconds,
    )  # fmt: skip


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def _require(holds: bool, text: str) -> None:  # noqa: FBT001  # reads like an assertion
    if not holds:
        raise CallError(text)


def phases_of(text: str | None) -> tuple[str, ...]:
    """Return the phases that `text` lists, each once; all of them when it is None."""
    if text is None:
        return PHASES
    names = [name.strip() for name in text.split(",") if name.strip()]
    there_is = f"there is: {', '.join(PHASES)}"
    _require(bool(names), f"--phases names no phase; {there_is}")
    for name in names:
        _require(name in PHASES, f"--phases: {name!a} is no phase; {there_is}")
    return tuple(dict.fromkeys(names))


def semantics_of(call: RunCall, target: Target) -> Semantics:
    """Return the profile to judge by: what was asked for, or that of the driver."""
    asked, only = call.semantics, target.semantics
    if only is not None and asked not in {None, only}:
        raise CallError(f"--semantics {asked}: {target.name} is judged by {only}; leave --semantics out")
    return asked or only or Semantics.CLASSIC


def profile_of(text: str) -> Profile:
    """Return the profile of that name."""
    names = [each.value for each in Profile]
    _require(text in names, f"--profile {text!a}: there is {', '.join(names)}")
    return Profile(text)


def _known_of(path: Path | None) -> tuple[Accepted, ...]:
    try:
        return () if path is None else known.read(path)
    except KnownError as error:
        raise CallError(f"--known {error}") from None


def _corpus_of(path: Path | None) -> Corpus | None:
    try:
        return None if path is None else corpus.read(path)
    except HistoryError as error:
        raise CallError(f"--corpus {error}; mend the file, or take it out") from None
    except OSError as error:
        raise CallError(f"--corpus {path}: {error.strerror or error}; name a folder") from None


# --- the report -----------------------------------------------------------------------------------
def _begin(call: RunCall, options: RunOptions) -> Path:
    """Make the folder of the report ready, and return the one for the journals."""
    same = {
        "version": version("snapcheck"), "driver": call.driver, "semantics": options.semantics.value,
        "seed": options.seed, "devices": options.devices, "profile": options.profile.value,
        "phases": list(options.phases), "histories": options.histories,
        "scope": None if options.scope is None else options.scope.words,
    }  # fmt: skip
    try:
        journals = resume.begin(call.out, same, resume=call.resume)
        report_folder.begin(call.out, _nothing_known(call, "the run did not come to its end"))
    except OSError as error:
        raise unwritable(call.out, error) from None
    return journals


def _write(call: RunCall, finished: Finished) -> None:
    try:
        report_folder.write(call.out, finished.result, sample=finished.sample, shards=finished.shards)
    except OSError as error:
        raise unwritable(call.out, error, status=UNKNOWN) from None


def _write_findings(call: RunCall, result: RunResult) -> None:
    if call.findings is None:
        return
    try:
        findings.write(call.findings, result)
    except OSError as error:
        why = error.strerror or str(error)
        text = f"--findings {call.findings}: can not write there: {why}; name another folder"
        raise CallError(text, status=UNKNOWN) from None


def unwritable(folder: Path, error: OSError, *, status: int = 2) -> CallError:
    """Return what to say when a report can not be written."""
    why = error.strerror or str(error)
    return CallError(f"--out {folder}: can not write the report there: {why}; name another folder", status=status)


def _nothing_known(call: RunCall, note: str) -> RunResult:
    """Return the result of a run that can say nothing of the driver."""
    return RunResult(
        version=version("snapcheck"), verdict=Verdict.UNKNOWN, driver=call.driver,
        semantics=(call.semantics or Semantics.CLASSIC).value,
        seed=call.seed, devices=call.devices, seconds=0.0, phases=(), laws=(), coverage=Coverage(0, 0),
        violations=(), notes=(note,),
    )  # fmt: skip
