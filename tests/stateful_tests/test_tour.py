"""The tour takes every transition of a small scope on a real driver, and says how many it took."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from snapcheck.impl.blockfile import BlockFile, MemoryFile
from snapcheck.impl.driver import System
from snapcheck.impl.local import LocalSystem
from snapcheck.impl.qcow2.driver import open_driver
from snapcheck.impl.targets import Target, find_target
from snapcheck.model.history import Abilities, Recorder
from snapcheck.model.law_names import Severity
from snapcheck.model.scope import Scope, ScopeError
from snapcheck.model.setup import Semantics
from snapcheck.model.space import Space
from snapcheck.reports.verdict import RunResult, Verdict
from snapcheck.stateful_tests.atlas import Atlas, Cover, atlas_of
from snapcheck.stateful_tests.phases import tour
from snapcheck.stateful_tests.run import RunOptions, Silent, run_driver
from snapcheck.stateful_tests.seeded_bugs import CATALOGUE, SeededBug
from snapcheck.stateful_tests.units import SHARDS, Answer, Profile, Unit
from snapcheck.stateful_tests.work import Control

SMALL = Scope(devices=2, names=1, values=2)
TINY = Scope(devices=1, names=1, values=2)
ALONE = Scope(devices=1, names=2, values=2)


def answer_to(
    driver: str = "qcow2", *, shard: int = 0, scope: Scope | None = SMALL, semantics: Semantics = Semantics.CLASSIC,
    histories: int | None = None, journal: Path | None = None, profile: Profile = Profile.QUICK,
) -> Answer:  # fmt: skip
    unit = Unit(
        driver=driver, phase=tour.NAME, semantics=semantics, devices=3, seed=0, shard=shard, histories=histories,
        seconds=None, profile=profile, scope=scope, journal=None if journal is None else str(journal),
    )  # fmt: skip
    return tour.run(unit, Control(lambda _tick: None))


def all_of(driver: str = "qcow2", *, scope: Scope = SMALL, semantics: Semantics = Semantics.CLASSIC) -> Counter[str]:
    counts: Counter[str] = Counter()
    for shard in range(SHARDS):
        counts += answer_to(driver, shard=shard, scope=scope, semantics=semantics).counts
    return counts


def toured(driver: str, **options: object) -> RunResult:
    asked = RunOptions(phases=(tour.NAME,), **options)  # type: ignore[arg-type]  # a test's short way
    return run_driver(find_target(driver), asked, Silent()).result


# --- every transition -----------------------------------------------------------------------------
@pytest.mark.parametrize("semantics", list(Semantics))
def test_the_engine_agrees_with_the_model_at_every_transition(semantics: Semantics) -> None:
    counts = all_of(semantics=semantics)
    assert (counts[tour.IN_SCOPE], counts[tour.TAKEN], counts[tour.DISAGREEING]) == (1_552, 1_552, 0)
    assert counts["states in scope"] == 36


def test_snapshots_of_one_name_are_told_apart_by_their_ids() -> None:
    counts = all_of(scope=Scope(devices=1, names=1, values=2, duplicates=True))
    assert counts[tour.TAKEN] == counts[tour.IN_SCOPE] > 300
    assert counts[tour.DISAGREEING] == 0


def test_a_result_says_complete_only_when_all_were_taken() -> None:
    whole, part = toured("qcow2", scope=TINY), toured("qcow2", scope=TINY, histories=9)
    assert (whole.verdict, whole.phases[0].complete, whole.notes) == (Verdict.PASSED, True, ())
    assert whole.phases[0].scope == f"every transition of {TINY.words}"
    assert (part.verdict, part.phases[0].complete) == (Verdict.UNKNOWN, False)
    taken = part.phases[0].counts[tour.TAKEN]
    assert part.notes == (f"the tour took {taken} of {whole.phases[0].counts[tour.TAKEN]} transitions",)


def test_a_profile_is_toured_on_as_many_devices_as_there_are() -> None:
    assert [each.devices for each in tour.scopes_of(Profile.QUICK, devices=3, asked=None)] == [1, 2]
    assert {each.devices for each in tour.scopes_of(Profile.DEEP, devices=1, asked=None)} == {1}
    assert max(each.devices for each in tour.scopes_of(Profile.DEEP, devices=8, asked=None)) == 3


def test_equal_calls_give_equal_histories() -> None:
    assert answer_to(scope=TINY, shard=1).digests == answer_to(scope=TINY, shard=1).digests != []


# --- bugs -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["wrong-culprit", "stale-first-bad", "innocent-touched", "lock-kept"])
def test_a_bug_in_the_group_functions_is_found(name: str) -> None:
    bug: SeededBug = next(each for each in CATALOGUE if each.name == name)
    answer = answer_to(bug.driver, shard=1)
    errors = [each for each in answer.failures if each.evidence[0].severity is Severity.ERROR]
    assert bug.law in {each.evidence[0].law for each in errors}
    assert answer.counts[tour.DISAGREEING] > 0
    assert answer.counts[tour.TAKEN] == answer.counts[tour.IN_SCOPE]  # one that disagrees was taken all the same


def counts_for_ids(entries: Sequence[object]) -> str:
    """Give out ids by a rule that is wrong: one more than there are snapshots, not one more than the largest id."""
    return str(len(entries) + 1)


def test_ids_that_are_counted_are_found_where_the_ids_have_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    right = all_of(scope=ALONE)
    monkeypatch.setattr("snapcheck.impl.qcow2.snapshots.next_id", counts_for_ids)
    wrong = all_of(scope=ALONE)
    assert (right[tour.DISAGREEING], right[tour.AGAIN] > 0) == (0, True)
    assert wrong[tour.DISAGREEING] > 0


def test_ids_that_are_counted_are_found_on_walks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tour, "find_target", own_target)
    monkeypatch.setattr("snapcheck.impl.qcow2.snapshots.next_id", counts_for_ids)
    assert all_of("own", scope=ALONE)[tour.DISAGREEING] > 0


# --- drivers that can less ------------------------------------------------------------------------
class _OwnStorage(LocalSystem):
    @property
    def abilities(self) -> Abilities:
        return replace(super().abilities, io=False, prepared_images=False)


def keeps_its_own(disks: Sequence[BlockFile], *, semantics: str, recorder: Recorder) -> System:
    """Return a system that leaves the disks that it was given alone: nobody can copy what it holds."""
    own = [MemoryFile(f"d{at}") for at in range(len(disks))]
    return _OwnStorage(open_driver, own, semantics=semantics, recorder=recorder)


def own_target(name: str) -> Target:
    return Target(name, "a system of its own", factory=keeps_its_own)


class _WritesOnly(LocalSystem):
    @property
    def abilities(self) -> Abilities:
        return replace(super().abilities, operations=("write",))


def writes_only(disks: Sequence[BlockFile], *, semantics: str, recorder: Recorder) -> System:
    return _WritesOnly(open_driver, disks, semantics=semantics, recorder=recorder)


def writing_target(name: str) -> Target:
    return Target(name, "it only writes", factory=writes_only)


def test_a_system_that_only_writes_is_toured_by_its_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tour, "find_target", writing_target)
    counts = all_of("writes", scope=SMALL)
    assert counts[tour.TAKEN] == counts[tour.IN_SCOPE] == 8
    assert counts[tour.DISAGREEING] == 0


def test_a_driver_that_can_not_be_copied_is_sent_on_walks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tour, "find_target", own_target)
    answer = answer_to("own", shard=2)
    counts = answer.counts
    assert counts[tour.TAKEN] == counts[tour.IN_SCOPE] > 80
    assert counts[tour.DISAGREEING] == 0
    assert answer.scope.endswith("no call refused")
    assert 1 < answer.histories < 10


# --- going on -------------------------------------------------------------------------------------
def test_a_tour_that_was_broken_off_goes_on(tmp_path: Path) -> None:
    whole, journal = answer_to(scope=TINY), tmp_path / "journal.jsonl"
    first = answer_to(scope=TINY, histories=whole.histories // 2, journal=journal)
    assert 0 < first.counts[tour.TAKEN] < whole.counts[tour.TAKEN]
    second = answer_to(scope=TINY, journal=journal)
    assert (second.counts[tour.TAKEN], second.histories) == (whole.counts[tour.TAKEN], whole.histories)
    assert second.digests == whole.digests


def test_walks_that_were_broken_off_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tour, "find_target", own_target)
    monkeypatch.setattr(tour, "_STEPS_MAX", 20)
    whole, journal = answer_to("own"), tmp_path / "journal.jsonl"
    answer_to("own", histories=whole.histories - 1, journal=journal)
    assert answer_to("own", journal=journal).counts[tour.TAKEN] == whole.counts[tour.TAKEN]


# --- the map --------------------------------------------------------------------------------------
def test_the_way_to_a_state_leads_there() -> None:
    atlas = Atlas(Space(SMALL))
    for state in atlas.states:
        at = atlas.space.start
        for move in atlas.way(state):
            transition = atlas.space.transition(at, move)
            assert transition is not None
            assert transition.after is not None
            at = transition.after
        assert at == state
    assert len(atlas.states) == 36
    assert max(len(atlas.way(state)) for state in atlas.states) == 5


def test_covering_walks_take_each_transition_once_as_something_new() -> None:
    atlas = Atlas(Space(SMALL))
    cover, state, fresh, legs = Cover(atlas, atlas.states), atlas.space.start, 0, 0
    while (leg := cover.next(state)) is not None:
        fresh, legs = fresh + leg.fresh, legs + 1
        assert leg.transition in atlas.transitions(state)
        state = leg.transition.after or state
    assert cover.done
    assert fresh == 1_552
    assert legs < 1.25 * fresh  # few are taken twice


def test_a_scope_that_is_too_large_to_be_driven_through_is_refused() -> None:
    with pytest.raises(ScopeError, match=r"456,976 states .* too many to drive a driver through"):
        atlas_of(Scope(devices=4, names=2))
