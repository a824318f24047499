"""The suite: histories that take every transition, with the answers that the model expects."""

from pathlib import Path

import pytest
from snapcheck.impl.targets import find_target
from snapcheck.model.history import Abilities, History
from snapcheck.model.law_names import Severity
from snapcheck.model.scope import Scope
from snapcheck.model.setup import Semantics
from snapcheck.model.space import Move, Space, State
from snapcheck.reports import jsonl
from snapcheck.stateful_tests.atlas import Atlas, atlas_of
from snapcheck.stateful_tests.compare import Judge, judge_history
from snapcheck.stateful_tests.exploring import explore_model
from snapcheck.stateful_tests.replay import ReplayState, replay
from snapcheck.stateful_tests.suite import STEPS_MAX, history_of, suite

PAIR = Scope(devices=2, names=1, values=2)


def taken(history: History, atlas: Atlas) -> set[tuple[State, Move]]:
    """Return the transitions that a history takes, each as the state before it and the move."""
    judge, found = Judge(history.setup, history.abilities or Abilities()), set[tuple[State, Move]]()
    for step in history.steps:
        state = atlas.space.state_of(judge.world)
        assert state is not None
        moves = [each.move for each in atlas.transitions(state)]
        found.add((state, next(move for move in moves if move.on(judge.world) == (step.operation, step.faults))))
        judge.judge(step)
    return found


def test_the_suite_takes_every_transition() -> None:
    atlas = atlas_of(PAIR)
    histories = list(suite(atlas))
    different = {each for history in histories for each in taken(history, atlas)}
    assert len(different) == 1_552
    assert max(len(each.steps) for each in histories) <= STEPS_MAX


@pytest.mark.parametrize("semantics", list(Semantics))
def test_the_answers_of_the_suite_are_those_that_the_laws_ask_for(semantics: Semantics) -> None:
    for scope in (PAIR, Scope(devices=1, names=2), Scope(devices=1, duplicates=True)):
        for history in suite(atlas_of(scope), semantics):
            judged = judge_history(history)
            assert [each for each in judged.found if each.evidence.severity is Severity.ERROR] == []
            assert (judged.steps, judged.diverged) == (len(history.steps), None)


def test_a_driver_runs_the_suite_from_a_file(tmp_path: Path) -> None:
    path, done = tmp_path / "suite.jsonl", explore_model(Scope(devices=1, names=1))
    jsonl.write(path, done.result, sample=list(suite(atlas_of(done.seen.scope))))
    histories = [record.history for record in jsonl.read(path).records]
    assert histories
    for history in histories:
        assert replay(find_target("qcow2"), history).state is ReplayState.FIXED


def test_a_path_is_a_history() -> None:
    space = Space(PAIR)
    atlas = Atlas(space)
    way = atlas.way(atlas.states[-1])
    history = history_of(space, way)
    assert len(history.steps) == len(way) == 5
    assert history.setup == PAIR.setup()
