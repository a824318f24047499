"""What exploring the model alone reports: how often each law was asked, and histories of the semantics asked for."""

from collections.abc import Iterator, Sequence

import pytest
from snapcheck.model import group
from snapcheck.model.group import Ask, Call, Ending, Stage, States, Then, Walk, walk
from snapcheck.model.law_names import Law
from snapcheck.model.operations import AllGoto
from snapcheck.model.scope import Scope
from snapcheck.model.setup import Semantics
from snapcheck.reports.verdict import Verdict
from snapcheck.stateful_tests.exploring import explore_model

PAIR = Scope(devices=2, names=1, values=2)


def checked(scope: Scope) -> dict[Law, int]:
    return {each.law: each.checked for each in explore_model(scope).result.laws}


def test_each_law_counts_the_transitions_that_it_has_something_to_say_of() -> None:
    counts, transitions = checked(PAIR), explore_model(PAIR).seen.transitions
    assert counts[Law.SNAPSHOT_IMMUTABLE] == transitions
    others = {law: count for law, count in counts.items() if law is not Law.SNAPSHOT_IMMUTABLE}
    assert all(0 < count < transitions for count in others.values())


def test_a_law_that_nothing_was_asked_of_was_checked_zero_times() -> None:
    no_create = Scope(devices=1, without=("create", "delete", "all-create", "all-delete"))
    assert (checked(no_create)[Law.SNAPSHOT_IMMUTABLE], checked(no_create)[Law.LIST_EXACT]) == (0, 0)
    alone = Scope(devices=1, without=("all-can", "all-find", "all-create", "all-goto", "all-delete"))
    assert checked(alone)[Law.RIGHT_CULPRIT] == checked(alone)[Law.PREFIX_APPLIED] == 0
    assert checked(alone)[Law.SUCCESS_MEANS_DONE] > 0


@pytest.mark.parametrize("semantics", list(Semantics))
def test_a_violation_has_a_history_of_the_semantics_that_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, semantics: Semantics
) -> None:
    monkeypatch.setitem(group.WALK_OF, AllGoto, (Call("goto", Then.GO_ON, Then.SKIP),))
    result = explore_model(PAIR, semantics=semantics).result
    assert result.verdict is Verdict.FAILED
    histories = [each.history for each in result.violations]
    assert {history.setup.semantics for history in histories if history is not None} == {semantics}


def _skips_the_first(stage: Stage, states: States, calls: Walk, nodes: Sequence[str], ask: Ask) -> Iterator[Ending]:
    """Walk past the first device: a rule that is wrong."""
    return walk(stage, states, calls, nodes[1:], ask)


def test_a_group_function_that_goes_wrong_between_devices_is_reported_with_a_history(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(group, "walk", _skips_the_first)
    result = explore_model(Scope(devices=3, names=2, values=2)).result
    assert result.verdict is Verdict.FAILED
    assert all(each.history is not None and each.history.steps for each in result.violations)
