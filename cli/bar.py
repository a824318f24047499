"""The progress bar: phase, share done, histories, speed and violations, in one line of a terminal."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress
from snapcheck.cli.progress import count, rate, violation_line
from snapcheck.cli.say import printable
from snapcheck.reports.verdict import ViolationReport
from snapcheck.stateful_tests.run import Progress


class Bar:
    """A bar on a terminal, for the phase at hand; violations scroll by above it."""

    def __init__(self, stream: TextIO) -> None:
        self._bars = RichProgress(
            TextColumn("{task.description}"), BarColumn(bar_width=None), TextColumn("{task.fields[told]}"),
            TimeElapsedColumn(), console=Console(file=stream), expand=True, transient=True,
        )  # fmt: skip
        self._task: TaskID | None = None
        self._share: Callable[[Progress], float] = _nothing

    @contextmanager
    def shown(self) -> "Generator[Bar]":
        """Draw the bar as long as the block runs."""
        with self._bars:
            yield self

    def on_phase(self, name: str, *, histories: int | None, seconds: float | None) -> None:
        if self._task is not None:
            self._bars.remove_task(self._task)
        bounded = histories is not None or seconds is not None
        self._share = _share_of(histories, seconds)
        self._task = self._bars.add_task(name, total=1.0 if bounded else None, told="")

    def on_progress(self, progress: Progress) -> None:
        if self._task is None:
            return
        told = f"{progress.histories:,} histories  {rate(progress)}  {count(progress.violations)}"
        self._bars.update(self._task, completed=self._share(progress), told=told)

    def on_violation(self, violation: ViolationReport) -> None:
        self._bars.console.print(printable(violation_line(violation)), markup=False, highlight=False)


class CountBar:
    """A bar on a terminal for so many things to do; what is worth a line scrolls by above it."""

    def __init__(self, stream: TextIO, what: str) -> None:
        self._bars = RichProgress(
            TextColumn(what), BarColumn(bar_width=None), TextColumn("{task.completed:.0f} of {task.total:.0f}"),
            TimeElapsedColumn(), console=Console(file=stream), expand=True, transient=True,
        )  # fmt: skip
        self._task: TaskID | None = None

    @contextmanager
    def shown(self) -> "Generator[CountBar]":
        """Draw the bar as long as the block runs."""
        with self._bars:
            yield self

    def count(self, done: int, *, of: int, line: str) -> None:
        """Say that `done` are done; `line` is shown above the bar unless it is empty."""
        if self._task is None:
            self._task = self._bars.add_task("", total=of)
        self._bars.update(self._task, completed=done)
        if line:
            self._bars.console.print(printable(line), markup=False, highlight=False)


def _nothing(_: Progress) -> float:
    return 0.0


def _share_of(histories: int | None, seconds: float | None) -> Callable[[Progress], float]:
    """Return how to tell the share that is done: by whichever bound will be reached first."""

    def share(progress: Progress) -> float:
        done = progress.histories / histories if histories else 0.0
        spent = progress.seconds / seconds if seconds else 0.0
        return min(1.0, max(done, spent))

    return share
