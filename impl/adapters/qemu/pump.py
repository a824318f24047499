"""Waiting: the one place where the adapter waits for QEMU, and serves what QEMU waits for meanwhile.

Everything runs in one thread: while a monitor command is under way the disks below QEMU are served from here. So what
reaches a disk is seen in its order, and nothing needs a lock.
"""

import os
import selectors
import socket
import subprocess
from collections.abc import Callable
from typing import Final, cast

SECONDS_MAX: Final = 2.5  # of silence: hundreds of times what QEMU takes for a whole operation on a small image
_TURN_SECONDS: Final = 0.5  # how long a turn may be deaf to signals


class StuckError(Exception):
    """What was waited for did not come."""


class Pump:
    """Sockets, and what is to be done when something arrives on one of them.

    `broken_off` says that the last wait had no end (a watchdog, a Ctrl-C): what it was for may still come.
    """

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self.broken_off = False

    def add(self, endpoint: socket.socket, arrived: Callable[[], None]) -> None:
        """Call `arrived` whenever there is something to read on `endpoint`, or its other end is gone."""
        self._selector.register(endpoint, selectors.EVENT_READ, arrived)

    def until_ended(self, process: "subprocess.Popen[bytes]", what: str) -> None:
        """Serve until a child process has ended."""
        ended = os.pidfd_open(process.pid)
        self._selector.register(ended, selectors.EVENT_READ, _nothing)
        try:
            self.until(lambda: process.poll() is not None, what)
        finally:
            self._selector.unregister(ended)
            os.close(ended)

    def drop(self, endpoint: socket.socket) -> None:
        """Close `endpoint`, and listen to it no more; one that was dropped before is left alone."""
        if endpoint.fileno() >= 0:
            self._selector.unregister(endpoint)
            endpoint.close()

    def until(self, done: Callable[[], bool], what: str, *, seconds: float | None = None) -> None:
        """Serve until `done`; `StuckError` names `what` was waited for when nothing at all comes for too long.

        Silence is counted in turns, so that the time in which the whole process was stopped is no silence.
        """
        silence_max = SECONDS_MAX if seconds is None else seconds
        turn, silence = min(_TURN_SECONDS, silence_max), 0.0
        self.broken_off = True
        while not done():
            arrived = self._selector.select(turn)
            silence = 0.0 if arrived else silence + turn
            for key, _ in arrived:
                cast("Callable[[], None]", key.data)()
            if silence >= silence_max:
                raise StuckError(f"{what} did not come, and nothing else did for {silence_max:g} seconds")
        self.broken_off = False

    def close(self) -> None:
        """Close all sockets."""
        for key in list(self._selector.get_map().values()):
            cast("socket.socket", key.fileobj).close()
        self._selector.close()


def _nothing() -> None:
    """Take note of the end of a process, which is asked for anyway."""
