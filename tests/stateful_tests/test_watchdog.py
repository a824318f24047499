"""An operation that does not end is ended; one that does is left alone."""

import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest
from snapcheck.stateful_tests.watchdog import HangError, watchdog


def loop_for(seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with suppress(Exception):  # what a careless driver might do
            sum(range(1000))


def test_a_loop_is_ended_even_when_the_driver_catches_every_exception() -> None:
    with watchdog(seconds_max=0.2) as dog:
        dog.begin()
        with pytest.raises(HangError):
            loop_for(30)


def test_an_operation_that_ends_in_time_is_left_alone_and_so_is_what_comes_after_it() -> None:
    with watchdog(seconds_max=0.4) as dog:
        dog.begin()
        loop_for(0.05)
        dog.end()
        loop_for(0.8)


def test_what_has_hung_once_is_not_waited_for_as_long_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snapcheck.stateful_tests.watchdog.AGAIN_SECONDS_MAX", 0.1)
    took: dict[str, list[float]] = {"open": [], "read": []}
    with watchdog(seconds_max=1.0) as dog:
        for kind in ("open", "open", "read"):
            begun = time.monotonic()
            with pytest.raises(HangError), dog.watching(kind):
                loop_for(30)
            took[kind].append(time.monotonic() - begun)
    assert took["open"][1] < took["open"][0]
    assert took["read"][0] >= 1.0


def deaf_at_first() -> None:
    with suppress(HangError):  # as Python does in a callback of its garbage collector
        loop_for(30)
    loop_for(30)


def test_an_operation_is_told_again_when_the_first_time_was_lost() -> None:
    with watchdog(seconds_max=0.2) as dog, dog.watching(), pytest.raises(HangError):
        deaf_at_first()


WAITS_FOR_A_LINE = """
import sys
from snapcheck.stateful_tests.watchdog import watchdog

with watchdog(seconds_max=1.0) as dog, dog.watching():
    print("begun", flush=True)
    sys.stdin.readline()
print("ended")
"""


def test_the_time_in_which_the_process_was_stopped_is_not_held_against_an_operation() -> None:
    command = [sys.executable, "-c", WAITS_FOR_A_LINE]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "begun\n"
    child.send_signal(signal.SIGSTOP)
    time.sleep(2.5)  # longer than the operation may take
    child.send_signal(signal.SIGCONT)
    assert child.communicate("go on\n", timeout=60)[0] == "ended\n"
