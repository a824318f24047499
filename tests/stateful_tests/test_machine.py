"""The state machine as others use it: a TestCase that passes on a good driver, and shrinks what a bad one does."""

import unittest

import pytest
from snapcheck.impl.targets import TargetError
from snapcheck.stateful_tests.broken import LawBrokenError
from snapcheck.stateful_tests.machine import snapshot_test_case


class TestTheEngine(snapshot_test_case("qcow2", histories=15)):  # type: ignore[misc]  # a class made at run time
    """What a driver author writes."""


def failure_of(driver: str) -> str:
    class Broken(snapshot_test_case(driver, histories=60)):  # type: ignore[misc]  # a class made at run time
        pass

    with pytest.raises(LawBrokenError) as caught:
        unittest.defaultTestLoader.loadTestsFromTestCase(Broken).debug()
    return str(caught.value) + "\n".join(getattr(caught.value, "__notes__", []))


def test_a_bad_driver_fails_with_the_law_and_the_shortest_steps() -> None:
    text = failure_of("snapcheck.stateful_tests.seeded_bugs.group:lock_kept")
    assert "law locks-balanced is broken" in text
    assert "assert_holds(driver='snapcheck.stateful_tests.seeded_bugs.group:lock_kept'" in text
    assert text.count("Step(") == 1


def test_an_unknown_driver_is_one_clear_error() -> None:
    with pytest.raises(TargetError, match="no driver 'qcow3'"):
        snapshot_test_case("qcow3")
