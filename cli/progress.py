"""What is seen while a run goes on: a bar where somebody watches, plain lines elsewhere. It goes to standard error."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol, TextIO

from snapcheck.cli.say import say
from snapcheck.reports.verdict import ViolationReport

if TYPE_CHECKING:
    from snapcheck.stateful_tests.run import Progress

LINE_EVERY_S: Final = 10.0


class RunListener(Protocol):
    """Whoever hears of a run while it goes on."""

    def on_phase(self, name: str, *, histories: int | None, seconds: float | None) -> None: ...
    def on_progress(self, progress: "Progress") -> None: ...
    def on_violation(self, violation: ViolationReport) -> None: ...


@contextmanager
def listener_for(stream: TextIO, *, progress: bool) -> Generator[RunListener]:
    """Lend the listener that fits `stream`: a bar on a terminal, lines elsewhere, silence without `progress`."""
    if not progress:
        yield Silence()
    elif not stream.isatty():
        yield Lines(stream)
    else:
        from snapcheck.cli.bar import Bar  # noqa: PLC0415  # rich takes a while, and only a terminal needs it

        with Bar(stream).shown() as bar:
            yield bar


def violation_line(violation: ViolationReport) -> str:
    """Return a violation in one line."""
    title = "known" if violation.known else violation.severity.value
    where = f" on {violation.device}" if violation.device else ""
    return f"{title}: {violation.law.value}{where}: {' '.join(violation.summary.split())}"


class Silence:
    """Hears everything and says nothing."""

    def on_phase(self, name: str, *, histories: int | None, seconds: float | None) -> None:
        pass

    def on_progress(self, progress: "Progress") -> None:
        pass

    def on_violation(self, violation: ViolationReport) -> None:
        pass


class Lines:
    """A line when a phase begins, one every ten seconds, and one for each violation."""

    def __init__(self, stream: TextIO, *, every_s: float = LINE_EVERY_S) -> None:
        self._stream = stream
        self._every_s = every_s
        self._said_s = 0.0

    def on_phase(self, name: str, *, histories: int | None, seconds: float | None) -> None:
        self._said_s = 0.0
        bounds = [f"{histories:,} histories"] if histories is not None else []
        bounds += [f"{seconds:.3g} s at most"] if seconds is not None else []
        say(f"{name}: {', '.join(bounds) or 'begins'}", to=self._stream)

    def on_progress(self, progress: "Progress") -> None:
        if progress.seconds - self._said_s >= self._every_s:
            self._said_s = progress.seconds
            say(progress_line(progress), to=self._stream)

    def on_violation(self, violation: ViolationReport) -> None:
        say(violation_line(violation), to=self._stream)


def progress_line(progress: "Progress") -> str:
    """Return how far a phase is, in one line."""
    return (
        f"{progress.phase}: {progress.histories:,} histories, {progress.steps:,} steps, {rate(progress)}, "
        f"{count(progress.violations)}, {progress.seconds:.0f} s"
    )


def rate(progress: "Progress") -> str:
    """Return how fast it goes."""
    return f"{progress.steps / progress.seconds:,.0f} steps/s" if progress.seconds else "- steps/s"


def count(violations: int) -> str:
    """Return a number of violations in words."""
    return f"{violations} violation{'' if violations == 1 else 's'}"
