"""Ending an operation that does not end: a driver that loops must not take the whole run with it."""

import ctypes
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

OPERATION_SECONDS_MAX: Final = 20.0  # thousands of times what an operation on a small image takes
_TICK_SECONDS: Final = 0.5


class HangError(BaseException):
    """Raised inside an operation that took too long. No driver that catches `Exception` can swallow it."""


class Watchdog:
    """Watches the thread that made it: `begin` and `end` stand around each operation, and cost next to nothing.

    It reaches loops of Python code, with I/O or without. A call that blocks inside C code is out of its reach.
    """

    __slots__ = ("_begun", "_seconds_max", "_stopped", "_thread_id")

    def __init__(self, *, seconds_max: float) -> None:
        self._begun: float | None = None
        self._seconds_max = seconds_max
        self._thread_id = threading.get_ident()
        self._stopped = threading.Event()

    def begin(self) -> None:
        self._begun = time.monotonic()

    def end(self) -> None:
        self._begun = None

    def run(self) -> None:
        """Look at the clock until `stop`; this is the body of the watching thread."""
        while not self._stopped.wait(min(_TICK_SECONDS, self._seconds_max / 4)):
            begun = self._begun
            if begun is not None and time.monotonic() - begun > self._seconds_max:
                self._begun = None
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._thread_id), ctypes.py_object(HangError))

    def stop(self) -> None:
        self._stopped.set()


@contextmanager
def watchdog(*, seconds_max: float | None = None) -> Generator[Watchdog]:
    """Lend a watchdog over the calling thread; its own thread is gone afterwards."""
    dog = Watchdog(seconds_max=OPERATION_SECONDS_MAX if seconds_max is None else seconds_max)
    thread = threading.Thread(target=dog.run, name="snapcheck-watchdog", daemon=True)
    thread.start()
    try:
        yield dog
    finally:
        dog.stop()
        thread.join()
