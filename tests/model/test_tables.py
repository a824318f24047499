"""One device in small: its states are those that the reference semantics lead to, and the tables say what they say."""

from dataclasses import replace

import pytest
from snapcheck.model import guest, semantics
from snapcheck.model.device import Content, Device, Snapshot
from snapcheck.model.law_names import Law
from snapcheck.model.operations import (
    KINDS,
    AllCreate,
    AllDelete,
    AllGoto,
    Create,
    Delete,
    Find,
    Goto,
    Operation,
    Write,
)
from snapcheck.model.scope import Act, Scope, ScopeError, without
from snapcheck.model.step import start, step
from snapcheck.model.tables import NOWHERE, Tables

SMALL = Scope(devices=1, names=2, values=2)
A, B = Act(Create, "a"), Act(Create, "b")


def follow(tables: Tables, *acts: Act) -> int:
    """Return the number of the state after these acts, from the start."""
    number = 0
    for act in acts:
        number = int(tables.local[act].plain.after[number])
    return number


# --- states ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("scope", "states"),
    [
        (Scope(devices=1, names=1, values=2), 6),
        (SMALL, 26),
        (Scope(devices=1, names=2, values=3), 75),
        (Scope(devices=1, names=2, values=2, snapshots=1), 10),
        (Scope(devices=1, names=2, values=2, duplicates=True), 42),
        (Scope(devices=1, names=3, values=2, snapshots=3), 158),
    ],
    ids=lambda value: value.words if isinstance(value, Scope) else "",
)
def test_the_semantics_lead_to_as_many_states_as_there_are(scope: Scope, states: int) -> None:
    assert len(Tables(scope).states) == states == scope.device_states


def test_ids_are_told_apart_by_their_rank_alone() -> None:
    (world, tables) = start(SMALL.setup()), Tables(SMALL)
    operations: list[Operation] = [Create("d0", "a"), Create("d0", "b"), Delete("d0", "1", None)]
    for operation in operations:
        (outcome,) = step(world, operation, ())
        world = replace(world, devices={"d0": outcome.devices["d0"][0].state})
    image = world.devices["d0"].image
    assert image is not None
    assert [each.info.id_str for each in image.snapshots] == ["2"]
    assert tables.number_of(world.devices["d0"]) == follow(tables, B) != follow(tables, A)


def test_the_order_of_the_list_is_kept() -> None:
    tables = Tables(SMALL)
    assert follow(tables, A, B) != follow(tables, B, A)
    assert follow(tables, A, B, Act(Delete, rank=1)) == follow(tables, B)


# --- tables ---------------------------------------------------------------------------------------
def test_each_act_has_a_table_for_success_and_for_a_refused_call() -> None:
    tables = Tables(SMALL)
    goto = tables.local[Act(Goto, "a")]
    written = follow(tables, A, Act(Write, value=1))
    assert int(goto.plain.after[written]) == follow(tables, A)
    assert not goto.plain.stops[written]
    assert int(goto.refused["goto"].after[written]) == written
    assert goto.refused["goto"].stops[written]
    assert goto.plain.stops[0]  # there is no such snapshot
    assert list(tables.group[Act(AllDelete, "a")].refused) == ["find", "delete"]


def test_a_call_that_is_not_made_is_not_refused() -> None:
    tables = Tables(SMALL)
    refused = tables.group[Act(AllDelete, "a")].refused
    assert (refused["find"].there[0], refused["delete"].there[0]) == (True, False)
    with_it = follow(tables, A)
    assert refused["delete"].there[with_it]
    assert not refused["find"].stops[with_it]  # a device whose list fails is skipped (W-08)


def test_what_there_is_no_room_for_leads_out_of_the_scope() -> None:
    tables = Tables(SMALL)
    again = tables.local[A].plain
    assert again.leaves[follow(tables, A)]  # a second one of that name
    assert int(again.after[follow(tables, A)]) == NOWHERE
    assert not again.leaves[follow(tables, B)]


def test_an_id_is_spoken_of_only_where_there_is_one() -> None:
    tables = Tables(SMALL)
    second = tables.local[Act(Goto, rank=2)].plain
    assert not second.there[follow(tables, A)]
    assert second.there[follow(tables, A, B)]


def test_what_a_system_does_not_perform_is_left_out() -> None:
    kinds = [word for word in KINDS.values() if word not in {"goto", "all-goto", "delete"}]
    scope = Scope(devices=1, without=without(kinds))
    assert scope.without == ("goto", "delete", "all-goto")
    assert {act.kind for act in Tables(scope).local}.isdisjoint({Goto, Delete})


# --- the rules ------------------------------------------------------------------------------------
def _keeps_the_content(device: Device, _snapshot: Snapshot) -> Device:
    """Go to a snapshot and keep the content: a rule that is wrong."""
    return device


def test_a_changed_rule_changes_the_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Tables(SMALL)
    monkeypatch.setattr(semantics, "_reverted", _keeps_the_content)
    after = Tables(SMALL)
    changed = {act for act in after.local if (before.local[act].plain.after != after.local[act].plain.after).any()}
    assert changed == {act for act in after.local if act.kind is Goto}
    assert (before.group[Act(AllGoto, "a")].plain.after != after.group[Act(AllGoto, "a")].plain.after).any()
    assert before.reasons == {}
    assert {broken.law for each in after.reasons.values() for broken in each} == {
        Law.SUCCESS_MEANS_DONE, Law.PREFIX_APPLIED,
    }  # fmt: skip


def _writes_into_snapshots(device: Device, content: Content) -> Device:
    """Let a guest's write change the device's snapshots as well: a rule that is wrong."""
    assert device.image is not None
    stamped = tuple(each._replace(content=content) for each in device.image.snapshots)
    return device._replace(image=device.image._replace(content=content, snapshots=stamped))


def test_a_rule_that_changes_a_snapshot_is_told_by_its_law(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest, "_with_content", _writes_into_snapshots)
    laws = {broken.law for each in Tables(SMALL).reasons.values() for broken in each}
    assert Law.SNAPSHOT_IMMUTABLE in laws


# --- scopes ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("asked", "what"),
    [
        ({"devices": 0}, "devices 0: give 1 to 8"),
        ({"names": 27}, "names 27: give 1 to 26"),
        ({"values": 0}, "values 0: give 1 to 254"),
        ({"snapshots": 10}, "snapshots 10: give 1 to 9"),
    ],
)
def test_a_scope_that_can_not_be_says_what_is_wrong(asked: dict[str, int], what: str) -> None:
    with pytest.raises(ScopeError, match=what):
        Scope(**asked)  # type: ignore[arg-type]  # what is wrong here is the number


def test_acts_are_called_by_names_that_people_know() -> None:
    words = {act.words for act in (*SMALL.acts(), *SMALL.group_acts())}
    assert {"write 0", "write 1", "create a", "goto #2", "delete b", "find a", "list", "all-create b"} <= words
    assert Find in {act.kind for act in SMALL.acts()}
    assert AllCreate in {act.kind for act in SMALL.group_acts()}
