"""An operation that does not end is ended; one that does is left alone."""

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
