"""Hunting seeded bugs: who found one and when is told, and what was not found, or not tried, never counts as found."""

from collections.abc import Callable

import pytest
from snapcheck.model.law_names import Law
from snapcheck.reports.scoreboard import Score
from snapcheck.stateful_tests import hunt as hunting
from snapcheck.stateful_tests.hunt import HYPOTHESIS, HuntOptions, hunt, hunt_all
from snapcheck.stateful_tests.phases import images, stateful, walk
from snapcheck.stateful_tests.seeded_bugs import CATALOGUE, SeededBug
from snapcheck.stateful_tests.units import Profile

EASY, ALSO_EASY = "culprit-not-cleared", "lock-not-taken"  # every operation on a group shows these
HARMLESS = SeededBug("snapcheck.impl.qcow2.driver:open_driver", Law.RESULT)
BRIEF = HuntOptions(profile=Profile.QUICK, seconds=6, baselines=False)


def bug_named(name: str) -> SeededBug:
    return next(bug for bug in CATALOGUE if bug.name == name)


class Keeps:
    def __init__(self, act: Callable[[], None] = lambda: None) -> None:
        self.heard: list[tuple[str, int, int]] = []
        self._act = act

    def on_score(self, score: Score, *, done: int, of: int) -> None:
        self.heard.append((score.bug, done, of))
        self._act()


def test_each_phase_by_itself_and_each_baseline_finds_an_easy_bug() -> None:
    score = hunt(bug_named(EASY), HuntOptions(profile=Profile.QUICK, seconds=6))
    assert {walk.NAME, stateful.NAME} <= {each.by for each in score.catches}
    assert {each.law for each in score.catches} == {Law.OUT_PARAMS}
    assert all(0 <= each.seconds < 6 for each in score.catches)
    assert score.reproducer is not None
    assert (score.reproducer.operations, score.reproducer.faults) == (1, 0)
    assert set(score.baselines) == {HYPOTHESIS, "random"}
    assert all(score.baselines.values())
    assert not score.trouble


def test_a_phase_that_can_not_reach_the_layers_is_not_asked_about_them() -> None:
    assert images.NAME not in hunt(bug_named(EASY), BRIEF).tried


def test_what_is_no_bug_is_not_found() -> None:
    score = hunt(HARMLESS, HuntOptions(profile=Profile.QUICK, seconds=2))
    assert images.NAME in score.tried
    assert score.catches == ()
    assert score.best is None
    assert score.reproducer is None
    assert not any(score.baselines.values())


def test_a_failure_of_the_harness_is_told_and_is_no_find(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_: object) -> None:
        raise ZeroDivisionError("by accident")

    monkeypatch.setattr(hunting, "_search", breaks)
    score = hunt(bug_named(EASY), BRIEF)
    assert score.catches == ()
    assert "ZeroDivisionError in breaks" in score.trouble


def test_several_processes_hunt_and_the_scores_stand_in_the_order_of_the_bugs() -> None:
    bugs, listener = (bug_named(EASY), bug_named(ALSO_EASY)), Keeps()
    board = hunt_all(bugs, HuntOptions(profile=Profile.QUICK, seconds=6, baselines=False, jobs=2), listener)
    assert [score.bug for score in board.scores] == [EASY, ALSO_EASY]
    assert {name for name, _, _ in listener.heard} == {EASY, ALSO_EASY}
    assert [(done, of) for _, done, of in listener.heard] == [(1, 2), (2, 2)]


def test_who_is_interrupted_keeps_what_there_is() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    board = hunt_all((bug_named(EASY), bug_named(ALSO_EASY)), BRIEF, Keeps(interrupt))
    assert [score.bug for score in board.scores] == [EASY]
    assert board.not_hunted == (ALSO_EASY,)
