"""Getting units done: here, or in several processes. Progress comes in as it happens, answers as they are finished."""

import signal
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Event
from typing import Final, NamedTuple, Protocol

from snapcheck.stateful_tests.units import Answer, Unit

_TICK_SECONDS: Final = 0.2


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


def work_here(run: Run, units: Sequence[Unit], *, hear: Hear, take: Take) -> None:
    """Do the units one after the other. KeyboardInterrupt comes through once the unit at hand has given its answer."""
    for unit in units:
        answer = run(unit, Control(hear))
        take(answer)
        if answer.interrupted:
            raise KeyboardInterrupt


def work_in_processes(run: Run, units: Sequence[Unit], *, jobs: int, hear: Hear, take: Take) -> None:
    """Do the units in `jobs` processes. On KeyboardInterrupt each unit at hand ends with what it has."""
    context = get_context("spawn")  # a fork would copy the threads that draw the progress bar, and their locks
    ticks, stop = context.SimpleQueue(), context.Event()
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin_worker, initargs=(ticks, stop))
    with _shut_down(pool, stop):
        pending = {pool.submit(_work_in_worker, run, unit) for unit in units}
        try:
            _collect(pending, ticks, hear, take)
        except KeyboardInterrupt:
            stop.set()
            _collect({future for future in pending if not future.cancel()}, ticks, hear, take)
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
    _controls[:] = [_WorkerControl(ticks, stop)]


def _work_in_worker(run: Run, unit: Unit) -> Answer:
    return run(unit, _controls[0])
