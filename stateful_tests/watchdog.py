"""Ending an operation that does not end: a driver that loops must not take the whole run with it."""

import ctypes
import threading
import time
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Final

OPERATION_SECONDS_MAX: Final = 20.0  # thousands of times what an operation on a small image takes
AGAIN_SECONDS_MAX: Final = 3.0  # for what has hung before: that it may take long need not be learned twice
_TICK_SECONDS: Final = 0.5
_REPEAT_SECONDS: Final = 1.0  # until an operation that was told to end is told again


class HangError(BaseException):
    """Raised inside an operation that took too long. No driver that catches `Exception` can swallow it."""


class Watchdog:
    """Watches the thread that made it: `begin` and `end` stand around each operation, and cost next to nothing.

    It reaches loops of Python code, with I/O or without. A call that blocks inside C code is out of its reach.
    An operation that goes on is told again: the first time may strike code whose exceptions Python drops, such as a
    callback of the garbage collector. Once it had to end one of a kind, the next ones of that kind get less time.
    Time in which the process was stopped, as a frozen container or SIGSTOP does, is nobody's.
    """

    __slots__ = ("_begun", "_ended", "_kind", "_seconds_max", "_stopped", "_thread_id")

    def __init__(self, *, seconds_max: float) -> None:
        self._begun: float | None = None
        self._kind = ""
        self._ended: set[str] = set()  # kinds
        self._seconds_max = seconds_max
        self._thread_id = threading.get_ident()
        self._stopped = threading.Event()

    def begin(self, kind: str = "") -> None:
        self._kind = kind
        self._begun = time.monotonic()

    def end(self) -> None:
        self._begun = None

    def watching(self, kind: str = "") -> "Watchdog":
        """Watch what is done in a `with`, which is of that kind."""
        self._kind = kind
        return self

    def __enter__(self) -> None:
        self.begin(self._kind)

    def __exit__(self, *_: object) -> None:
        self.end()

    def _bound(self) -> float:
        """Return how many seconds the operation may take that is watched now."""
        return min(self._seconds_max, AGAIN_SECONDS_MAX) if self._kind in self._ended else self._seconds_max

    def run(self) -> None:
        """Look at the clock until `stop`; this is the body of the watching thread."""
        told, told_at = -1.0, 0.0  # the operation that was told to end, by its beginning, and when
        pauses, tick = _Pauses(), min(_TICK_SECONDS, self._seconds_max / 4)
        while not self._stopped.wait(tick):
            begun, now = self._begun, time.monotonic()
            paused = pauses.seconds(begun, now, tick)
            if begun is None or now - begun - paused <= self._bound():
                continue
            if begun == told and now - told_at < _REPEAT_SECONDS:
                continue
            told, told_at = begun, now
            self._ended.add(self._kind)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._thread_id), ctypes.py_object(HangError))

    def stop(self) -> None:
        self._stopped.set()


class _Pauses:
    """How long the process was stopped while the operation went on that is watched now.

    The watching thread wakes late then, and no processor time was used meanwhile: C code that keeps the interpreter
    to itself makes it late too, but works, and is not forgiven.
    """

    __slots__ = ("_begun", "_paused", "_used", "_woken")

    def __init__(self) -> None:
        self._woken, self._used = time.monotonic(), time.process_time()
        self._begun: float | None = None
        self._paused = 0.0

    def seconds(self, begun: float | None, now: float, tick: float) -> float:
        """Note that the thread woke at `now`; return the seconds that the operation begun at `begun` did not have."""
        late, used = now - self._woken - tick, time.process_time() - self._used
        self._woken, self._used = now, self._used + used
        if begun != self._begun:
            self._begun, self._paused = begun, 0.0
        if late > tick and used < late / 2:
            self._paused += late
        return self._paused


def watching(dog: Watchdog | None, kind: str = "") -> AbstractContextManager[None]:
    """Watch what is done in a `with`, where there is a watchdog."""
    return _NOBODY if dog is None else dog.watching(kind)


_NOBODY: Final = nullcontext()


@contextmanager
def watchdog(*, seconds_max: float | None = None, impatient: bool = False) -> Generator[Watchdog]:
    """Lend a watchdog over the calling thread; its own thread is gone afterwards. It is `impatient` with what hung."""
    seconds = OPERATION_SECONDS_MAX if seconds_max is None else seconds_max
    dog = Watchdog(seconds_max=min(seconds, AGAIN_SECONDS_MAX) if impatient else seconds)
    thread = threading.Thread(target=dog.run, name="snapcheck-watchdog", daemon=True)
    thread.start()
    try:
        yield dog
    finally:
        dog.stop()
        thread.join()
