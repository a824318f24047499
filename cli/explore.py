"""`snapcheck explore`: every state of the model in a scope; with --against, a driver driven through all of it."""

import os
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from snapcheck.cli.errors import UNKNOWN, CallError
from snapcheck.cli.progress import LINE_EVERY_S
from snapcheck.cli.run import RunCall, run_command, unwritable
from snapcheck.cli.say import say
from snapcheck.cli.summary import labelled, tell, width
from snapcheck.model import graph
from snapcheck.model.explore import estimate_words, require_room
from snapcheck.model.history import History
from snapcheck.model.scope import Scope, ScopeError, counted
from snapcheck.model.setup import Semantics
from snapcheck.reports import folder as report_folder
from snapcheck.reports import jsonl
from snapcheck.reports.files import write_whole
from snapcheck.reports.folder import GRAPH_DOT, GRAPH_SVG, GRAPHML, SUITE
from snapcheck.reports.verdict import EXIT_STATUS, Coverage, RunResult, Verdict
from snapcheck.stateful_tests.atlas import atlas_of, require_size
from snapcheck.stateful_tests.exploring import MODEL, ModelExplored, explore_model
from snapcheck.stateful_tests.phases import tour
from snapcheck.stateful_tests.run import snapcheck_version
from snapcheck.stateful_tests.suite import suite

SUITE_MAX: Final = 20_000  # transitions; a larger suite takes minutes to be written, and longer to be read
DRAWINGS: Final = {GRAPH_DOT: graph.dot, GRAPHML: graph.graphml, GRAPH_SVG: graph.svg}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExploreCall:
    """What was typed, not yet checked."""

    devices: int
    names: int
    values: int
    snapshots: int
    duplicates: bool
    merge: bool
    against: str | None
    semantics: Semantics
    out: Path
    quiet: bool
    progress: bool


def explore_command(call: ExploreCall) -> int:
    """Explore the scope, or tour a driver through it; write the report, say how it went, return the exit status."""
    try:
        scope = Scope(
            devices=call.devices, names=call.names, values=call.values, snapshots=call.snapshots,
            duplicates=call.duplicates,
        )  # fmt: skip
        if call.against is not None:
            if call.merge:
                raise CallError("--merge is for the model alone: a driver is to be driven through every state")
            require_size(scope)
            return _tour(call, scope, call.against)
        require_room(scope, bytes_max=room_bytes(), merged=call.merge)
    except ScopeError as error:
        raise CallError(str(error)) from None
    for line in () if call.quiet else labelled("estimate", estimate_words(scope, merged=call.merge), width()):
        say(line)
    return _explore(call, scope)


def _tour(call: ExploreCall, scope: Scope, driver: str) -> int:
    return run_command(
        RunCall(
            driver=driver, phases=tour.NAME, profile="default", seconds=None, histories=None, devices=scope.devices,
            seed=0, jobs=None, semantics=call.semantics, known=None, corpus=None, resume=False, out=call.out,
            quiet=call.quiet, progress=call.progress, scope=scope,
        )
    )  # fmt: skip


# --- the model alone ------------------------------------------------------------------------------
def _explore(call: ExploreCall, scope: Scope) -> int:
    _begin(call, scope)
    with _stoppable() as must_stop:
        tell_how_far = _Teller() if call.progress else _silent
        done = explore_model(scope, merged=call.merge, semantics=call.semantics, must_stop=must_stop, tell=tell_how_far)
    try:
        report_folder.write(call.out, done.result)
        drawn = done.result.verdict is Verdict.PASSED and not call.merge
        told = [*_seen(done), *((*_drawings(call.out, done), *_suite(call, done)) if drawn else ())]
    except OSError as error:
        raise unwritable(call.out, error, status=UNKNOWN) from None
    tell(done.result, call.out, quiet=call.quiet)
    for label, text in told if not call.quiet else ():
        for line in labelled(label, text, width(), whole_words=True):
            say(line)
    return EXIT_STATUS[done.result.verdict]


def _begin(call: ExploreCall, scope: Scope) -> None:
    unfinished = RunResult(
        version=snapcheck_version(), verdict=Verdict.UNKNOWN, driver=MODEL, semantics=call.semantics.value, seed=0,
        devices=scope.devices, seconds=0.0, phases=(), laws=(), coverage=Coverage(0, 0), violations=(),
        notes=("the exploration did not come to its end",),
    )  # fmt: skip
    try:
        report_folder.begin(call.out, unfinished)
    except OSError as error:
        raise unwritable(call.out, error) from None


def _seen(done: ModelExplored) -> Iterator[tuple[str, str]]:
    """Yield how much was seen of what has to be seen sometimes; a note says what was not."""
    seen = [words for words, depth in done.seen.reached.items() if depth is not None]
    yield "sometimes", f"{len(seen)} of {len(done.seen.reached)} kinds of states that matter were seen"


def _drawings(folder: Path, done: ModelExplored) -> Iterator[tuple[str, str]]:
    """Write the graph in every form that it is small enough for; yield what is to be said of it."""
    written: list[str] = []
    try:
        states = graph.state_graph(done.space)
        for name, draw in DRAWINGS.items():
            write_whole(folder / name, (f"{line}\n" for line in draw(states)))
            written.append(str(folder / name))
    except ScopeError as error:
        yield "graph", str(error)
    if written:
        yield "graph", ", ".join(written)


def _suite(call: ExploreCall, done: ModelExplored) -> Iterator[tuple[str, str]]:
    """Write the suite that takes every transition, unless it is too long; yield what is to be said of it."""
    if done.seen.transitions > SUITE_MAX:
        yield "suite", f"none: more than {SUITE_MAX:,} transitions are too many for a file"
        return
    histories: list[History] = list(suite(atlas_of(done.seen.scope), call.semantics))
    jsonl.write(call.out / SUITE, done.result, sample=histories)
    steps = sum(len(each.steps) for each in histories)
    long = f"{counted(len(histories), 'history', 'histories')}, {counted(steps, 'step')}"
    yield "suite", f"{call.out / SUITE}: {long}, with every transition"


# --- bounds, and what is seen meanwhile -----------------------------------------------------------
def room_bytes() -> int:
    """Return how much memory an exploration may take: three quarters of what is free."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return free * 3 // 4


@contextmanager
def _stoppable() -> Generator[Callable[[], bool]]:
    """Lend a function that tells whether somebody wants an end: then what was seen until there is reported."""
    asked: list[int] = []
    former = {each: signal.signal(each, lambda number, _: asked.append(number)) for each in _SIGNALS}
    try:
        yield lambda: bool(asked)
    finally:
        for each, handler in former.items():
            signal.signal(each, handler)


_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class _Teller:
    """Says every ten seconds how far it is."""

    def __init__(self) -> None:
        self._said = time.monotonic()

    def __call__(self, states: int, depth: int) -> None:
        now = time.monotonic()
        if now - self._said >= LINE_EVERY_S:
            self._said = now
            say(f"explore: {states:,} states, {depth} moves from the start", to=sys.stderr)


def _silent(_states: int, _depth: int) -> None:
    pass
