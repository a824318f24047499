"""`snapcheck bugs`: the seeded bugs, hunted, and a scoreboard of who found what."""

import json
import math
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, TextIO

from snapcheck.cli.errors import UNKNOWN, CallError
from snapcheck.cli.run import cores, profile_of, terminable
from snapcheck.cli.say import say
from snapcheck.reports import scoreboard
from snapcheck.reports.scoreboard import FAULTS_MAX, OPERATIONS_MAX, Hunter, Score, Scoreboard
from snapcheck.stateful_tests.hunt import HuntOptions, hunt_all
from snapcheck.stateful_tests.seeded_bugs import CATALOGUE, SeededBug

ALL_FOUND: Final = 0
MISSED: Final = 1
_HEAD: Final = f"{'bug':<23} {'found by law':<21} {'phase':<8} {'of':>3} {'s':>4} op flt hypo rand"
_NAMES_MAX: Final = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class BugsCall:
    """What was typed, not yet checked."""

    only: str | None
    seconds: float | None
    profile: str
    jobs: int | None
    seed: int
    baselines: bool
    as_json: bool
    out: Path | None
    progress: bool


def bugs_command(call: BugsCall) -> int:
    """Hunt the bugs, say how it went, and return the exit status: 0 when all were found, 1 when some were not."""
    bugs, options = _bugs_of(call.only), _options_of(call)
    _begin(call.out)
    with _listening(call) as listener, terminable():
        board = hunt_all(bugs, options, listener)
    if call.out is not None:
        _write(call.out, board)
    if call.as_json:
        say(json.dumps(scoreboard.to_json(board), indent=1))
    else:
        for line in lines(board):
            say(line)
    return _status(board)


def _status(board: Scoreboard) -> int:
    if board.not_hunted or any(score.trouble for score in board.scores):
        return UNKNOWN
    return MISSED if board.missed else ALL_FOUND


# --- what was typed -------------------------------------------------------------------------------
def _bugs_of(only: str | None) -> tuple[SeededBug, ...]:
    """Return the bugs that are named, by their own name, their row or their subject; all without a name."""
    if only is None:
        return CATALOGUE
    words = [word.strip().replace("_", "-") for word in only.split(",") if word.strip()]
    if not words:
        raise CallError("--only names no bug; names, rows and subjects are in docs/reference/seeded_bugs.md")
    for word in words:
        if not any(_is_meant(bug, word) for bug in CATALOGUE):
            raise CallError(f"--only: {word!a} is no seeded bug, no row and no subject; {_there_is()}")
    return tuple(bug for bug in CATALOGUE if any(_is_meant(bug, word) for word in words))


def _is_meant(bug: SeededBug, word: str) -> bool:
    return word in (bug.name, bug.row, bug.subject.replace("_", "-"))


def _there_is() -> str:
    subjects = ", ".join(dict.fromkeys(bug.subject.replace("_", "-") for bug in CATALOGUE))
    return f"subjects: {subjects}; bugs: {', '.join(bug.name for bug in CATALOGUE[:4])}, ..."


def _options_of(call: BugsCall) -> HuntOptions:
    if call.seconds is not None and not (call.seconds > 0 and math.isfinite(call.seconds)):
        raise CallError(f"--seconds {call.seconds}: give a number above 0")
    if call.jobs is not None and call.jobs < 1:
        raise CallError(f"--jobs {call.jobs}: give 1 or more")
    if call.seed < 0:
        raise CallError(f"--seed {call.seed}: give 0 or more")
    return HuntOptions(
        profile=profile_of(call.profile), seconds=call.seconds, seed=call.seed,
        jobs=cores() if call.jobs is None else call.jobs, baselines=call.baselines,
    )  # fmt: skip


def _begin(folder: Path | None) -> None:
    """Make the folder now: whoever has waited an hour does not want to hear that there is none."""
    try:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CallError(f"--out {folder}: {error.strerror or error}; name another folder") from None


def _write(folder: Path, board: Scoreboard) -> None:
    try:
        scoreboard.write(folder, board)
    except OSError as error:
        raise CallError(f"--out {folder}: can not write there: {error.strerror or error}", status=UNKNOWN) from None


# --- while it runs --------------------------------------------------------------------------------
class _Hears(Protocol):
    def on_score(self, score: Score, *, done: int, of: int) -> None: ...


@contextmanager
def _listening(call: BugsCall) -> Generator[_Hears]:
    """Lend a listener: a bar on a terminal, a line for each bug elsewhere, silence without progress."""
    if not call.progress:
        yield _Silence()
    elif not sys.stderr.isatty():
        yield _Lines(sys.stderr)
    else:
        from snapcheck.cli.bar import CountBar  # noqa: PLC0415  # rich takes a while, and only a terminal needs it

        with CountBar(sys.stderr, "bugs").shown() as bar:
            yield _Above(bar)


class _Silence:
    def on_score(self, score: Score, *, done: int, of: int) -> None:
        pass


class _Lines:
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def on_score(self, score: Score, *, done: int, of: int) -> None:
        say(f"{done} of {of}: {in_words(score)}", to=self._stream)


class _CountsUp(Protocol):
    def count(self, done: int, *, of: int, line: str) -> None: ...


class _Above:
    """Shows what was missed above the bar, and moves it on."""

    def __init__(self, bar: _CountsUp) -> None:
        self._bar = bar

    def on_score(self, score: Score, *, done: int, of: int) -> None:
        self._bar.count(done, of=of, line="" if score.catches else in_words(score))


def in_words(score: Score) -> str:
    """Return what came of a bug, in one line."""
    best = score.best
    if best is None:
        return f"{score.bug}: {score.trouble or 'not found'}"
    return f"{score.bug}: found by {best.by} after {best.seconds:.2f} s, law {best.law.value}"


# --- the scoreboard -------------------------------------------------------------------------------
def lines(board: Scoreboard) -> Iterator[str]:
    """Yield the scoreboard: a line for each bug, and the sums, in 80 columns."""
    yield _HEAD
    for score in board.scores:
        yield _row(score)
    yield ""
    yield from _sums(board)


def _row(score: Score) -> str:
    best, shortest = score.best, score.reproducer
    if best is None:
        found = "not found" if not score.trouble else "unknown"
        cells = f"{found:<21} {'':8} {'0/' + str(len(score.tried)):>3} {'':4} {'':2} {'':3}"
    else:
        of = f"{len(score.catches)}/{len(score.tried)}"
        long = ("-", "-") if shortest is None else (str(shortest.operations), str(shortest.faults))
        cells = f"{best.law.value:<21} {best.by:<8} {of:>3} {_seconds(best.seconds):>4} {long[0]:>2} {long[1]:>3}"
    times = [_seconds(each.seconds) if each else "-" for each in score.baselines.values()]
    return f"{score.bug:<23} {cells} {' '.join(f'{each:>4}' for each in times)}".rstrip()


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f}" if seconds < 10 else f"{seconds:.0f}"


def _sums(board: Scoreboard) -> Iterator[str]:
    done, found, late = len(board.scores), len(board.found), len(board.not_hunted)
    broken_off = f", broken off: {late} not tried" if late else ""
    yield f"found      {found} of {done}{broken_off}, {board.by_several} of them by two phases or more"
    if board.missed:
        yield f"missed     {_names(board.missed)}"
    for score in board.scores:
        if score.trouble:
            yield f"trouble    {score.bug}: {score.trouble}"
    if board.median_seconds is not None:
        yield f"time       median {_seconds(board.median_seconds)} s, of at most {board.seconds_each:g} s each"
    short, known = board.short
    if known:
        yield f"shortest   {short} of {known} reproducers have at most {OPERATIONS_MAX} operations, {FAULTS_MAX} faults"
    for hunter in board.hunters():
        yield _hunter_line(hunter)


def _hunter_line(hunter: Hunter) -> str:
    middle = "" if hunter.median_seconds is None else f", median {_seconds(hunter.median_seconds)} s"
    alone = "; a baseline" if hunter.baseline else f", {hunter.alone} by it alone"
    return f"{hunter.name:<10} {hunter.found} of {hunter.tried}{middle}{alone}"


def _names(scores: Sequence[Score]) -> str:
    names = [score.bug for score in scores[:_NAMES_MAX]]
    return ", ".join([*names, *((f"and {len(scores) - _NAMES_MAX} more",) if len(scores) > _NAMES_MAX else ())])
