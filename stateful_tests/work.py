"""Getting units done: here, or in several processes. Progress comes in as it happens, answers as they are finished."""

import ctypes
import os
import signal
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing import get_context, parent_process
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Event
from typing import Final, NamedTuple, Protocol

from snapcheck.stateful_tests.units import Answer, Unit

_TICK_SECONDS: Final = 0.2
_PR_SET_PDEATHSIG: Final = 1


class Tick(NamedTuple):
    """How far a unit is."""

    shard: int
    histories: int
    steps: int
    violations: int


class Control:
    """What a unit at work tells, and is told. This one is for a unit that runs in the caller's own process."""

    def __init__(self, tell: Callable[[Tick], None]) -> None:
        self.tell = tell

    def stop_asked(self) -> bool:
        """Tell whether the unit should come to its end: nobody waits for what it would still find."""
        return False


class Run(Protocol):
    """How a phase works on a unit."""

    def __call__(self, unit: Unit, control: Control) -> Answer: ...


Hear = Callable[[Tick], None]
Take = Callable[[Answer], None]


class Crew(Protocol):
    """Who gets units done. `seconds` is for all of them together; each gets an equal share of what is left of it."""

    def __call__(
        self, run: Run, units: Sequence[Unit], *, seconds: float | None, hear: Hear, take: Take
    ) -> None: ...  # fmt: skip


@contextmanager
def crew(jobs: int, work: Sequence[Run]) -> Generator[Crew]:
    """Lend a crew of `jobs` processes, ready for these kinds of work; for one job that is this process."""
    if jobs == 1:
        yield work_here
        return
    context = get_context("spawn")  # a fork would copy the threads that draw the progress bar, and their locks
    ticks, stop = context.SimpleQueue(), context.Event()
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin_worker, initargs=(ticks, stop))
    with _shut_down(pool, stop):
        # Starting a process takes longer than the first phase of a quick run has: it is nothing of that phase's time.
        wait([pool.submit(_import, *work) for _ in range(jobs)])
        yield _Pool(pool, jobs, ticks, stop).work


def work_here(run: Run, units: Sequence[Unit], *, seconds: float | None, hear: Hear, take: Take) -> None:
    """Do the units one after the other. KeyboardInterrupt comes through once the unit at hand has given its answer."""
    for unit, share in zip(units, _shares(len(units), jobs=1, seconds=seconds), strict=True):
        answer = run(share.of(unit), Control(hear))
        take(answer)
        if answer.interrupted:
            raise KeyboardInterrupt


class _Share(NamedTuple):
    """A unit's part of the time: what is left until `deadline` when it begins, shared by so many turns."""

    deadline: float | None
    turns: int

    def of(self, unit: Unit) -> Unit:
        if self.deadline is None:
            return unit
        return replace(unit, seconds=max(0.0, self.deadline - time.monotonic()) / self.turns)


def _shares(units: int, *, jobs: int, seconds: float | None) -> list[_Share]:
    deadline = None if seconds is None else time.monotonic() + seconds
    return [_Share(deadline, -(-left // jobs)) for left in range(units, 0, -1)]


class _Pool:
    def __init__(self, pool: ProcessPoolExecutor, jobs: int, ticks: "SimpleQueue[Tick]", stop: Event) -> None:
        self._pool = pool
        self._jobs = jobs
        self._ticks = ticks
        self._stop = stop

    def work(self, run: Run, units: Sequence[Unit], *, seconds: float | None, hear: Hear, take: Take) -> None:
        """Do the units in the processes. On KeyboardInterrupt each unit at hand ends with what it has."""
        shares = _shares(len(units), jobs=self._jobs, seconds=seconds)
        pending = {
            self._pool.submit(_work_in_worker, run, unit, share) for unit, share in zip(units, shares, strict=True)
        }
        try:
            _collect(pending, self._ticks, hear, take)
        except KeyboardInterrupt:
            self._stop.set()
            _collect({future for future in pending if not future.cancel()}, self._ticks, hear, take)
            raise


def _collect(pending: "set[Future[Answer]]", ticks: "SimpleQueue[Tick]", hear: Hear, take: Take) -> None:
    while pending:
        done, _ = wait(pending, timeout=_TICK_SECONDS)
        while not ticks.empty():
            hear(ticks.get())
        for future in done:
            pending.discard(future)
            take(future.result())


@contextmanager
def _shut_down(pool: ProcessPoolExecutor, stop: Event) -> Generator[None]:
    try:
        yield
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


# --- in a worker ----------------------------------------------------------------------------------
class _WorkerControl(Control):
    def __init__(self, ticks: "SimpleQueue[Tick]", stop: Event) -> None:
        super().__init__(ticks.put)
        self._stop = stop

    def stop_asked(self) -> bool:
        return self._stop.is_set()


_controls: list[Control] = []  # of this worker process: what its initializer was given


def _begin_worker(ticks: "SimpleQueue[Tick]", stop: Event) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says when to stop
    with suppress(AttributeError):  # where there is no such call a worker ends after its unit
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # a parent that is killed can not say it
    parent = parent_process()
    if parent is not None and parent.pid != os.getppid():
        os._exit(1)  # it was killed before this process could ask
    _controls[:] = [_WorkerControl(ticks, stop)]


def _import(*_work: Run) -> None:
    """Do nothing: what is handed to a process has been imported there."""


def _work_in_worker(run: Run, unit: Unit, share: _Share) -> Answer:
    return run(share.of(unit), _controls[0])
