"""Several devices: who takes part, where a walk stops, who is named, and what is left behind (SPEC A.10, A.11)."""

from dataclasses import replace

import pytest
from snapcheck.model import group
from snapcheck.model.device import ANY_ERROR, Allowed, Device, Expected, Outcome, World
from snapcheck.model.errno import Errno
from snapcheck.model.faults import CallFault, Fails, IoFault, Lost
from snapcheck.model.group import Ask, Call, Stage, Then, walk
from snapcheck.model.operations import (
    AddBitmap,
    AllCanSnapshot,
    AllCreate,
    AllDelete,
    AllFind,
    AllFindVmstateBs,
    AllGoto,
    Operation,
    SetMedium,
    SetReadOnly,
    Write,
)
from snapcheck.model.setup import DeviceSpec, Kind, PreparedSnapshot, Semantics, Setup
from snapcheck.model.snapshot import SnapshotInfo
from snapcheck.model.step import start, step

OK, ENOENT, EIO = Errno.OK, Errno.ENOENT, Errno.EIO
SUCCESS = frozenset({OK})
CLASSIC, MODERN = Semantics.CLASSIC, Semantics.MODERN
A, B = PreparedSnapshot("1", "a", 8, 11), PreparedSnapshot("2", "b", 8, 12)


# --- given ----------------------------------------------------------------------------------------
def spec(*snapshots: PreparedSnapshot, kind: Kind = Kind.DRIVER, read_only: bool = False) -> DeviceSpec:
    return DeviceSpec("", kind, 8, 512, read_only, 9, snapshots)


def given(*specs: DeviceSpec, semantics: Semantics = CLASSIC) -> World:
    """Return a world of devices that are named d0, d1 and so on."""
    return start(Setup(tuple(replace(each, name=f"d{at}") for at, each in enumerate(specs)), semantics))


def modern(*specs: DeviceSpec) -> World:
    return given(*specs, semantics=MODERN)


def only(world: World, operation: Operation) -> Outcome:
    (outcome,) = step(world, operation, ())
    return outcome


def answer(world: World, operation: Operation) -> Expected:
    return only(world, operation).expected


def after(world: World, *operations: Operation) -> World:
    for operation in operations:
        states = {name: one.state for name, (one,) in only(world, operation).devices.items()}
        world = World({**world.devices, **states}, world.semantics)
    return world


def ids(device: Device) -> list[str]:
    assert device.image is not None
    return [snapshot.info.id_str for snapshot in device.image.snapshots]


def lists(world: World, outcome: Outcome) -> dict[str, list[list[str]]]:
    """Return by device the lists of ids that it may have in `outcome`."""
    return {
        name: [ids(each.state) for each in outcome.devices.get(name, (Allowed(device),))]
        for name, device in world.devices.items()
        if device.image is not None
    }


def sizes(outcome: Outcome) -> dict[str, int]:
    """Return by device the VM state size of its newest snapshot."""
    found: dict[str, int] = {}
    for name, (one,) in outcome.devices.items():
        assert one.state.image is not None
        found[name] = one.state.image.snapshots[-1].info.vm_state_size
    return found


THREE = (spec(A, B), spec(A, B), spec(A, B))
NOBODY = (spec(kind=Kind.EMPTY), spec(A, read_only=True))


# --- who takes part -------------------------------------------------------------------------------
@pytest.mark.parametrize("semantics", list(Semantics))
def test_read_only_and_empty_devices_are_left_out_and_are_no_errors(semantics: Semantics) -> None:
    world = given(spec(A), spec(A, read_only=True), spec(kind=Kind.EMPTY), spec(A), semantics=semantics)
    world = after(world, Write("d0", 0, 8, 2), Write("d3", 0, 8, 2))
    assert answer(world, AllCanSnapshot()).answer is True
    for operation in (AllCreate("x"), AllGoto("a"), AllDelete("a")):
        outcome = only(world, operation)
        assert outcome.expected.errnos == SUCCESS
        assert outcome.expected.first_bad is None
        assert outcome.devices.keys() == {"d0", "d3"}


def test_a_device_whose_medium_is_out_is_left_out_too() -> None:
    world = after(given(*THREE), SetMedium("d1", present=False), SetReadOnly("d2", read_only=True))
    assert only(world, AllDelete("a")).devices.keys() == {"d0"}


def test_with_nobody_in_the_walk_everything_is_true_and_done() -> None:
    world = given(*NOBODY)
    assert answer(world, AllCanSnapshot()) == Expected(answer=True)
    assert answer(world, AllFind("a")) == Expected()
    assert answer(world, AllDelete("a")) == Expected(message=False)
    assert answer(world, AllGoto("a")) == Expected(message=False)
    created = answer(world, AllCreate("x", None, 7))
    assert created.errnos == SUCCESS
    assert set(created.sn or ()) == {SnapshotInfo("", "x"), SnapshotInfo("", "x", 7)}


def test_a_device_outside_the_walk_stays_the_same_object() -> None:
    world = given(spec(A), spec(A, read_only=True))
    assert after(world, AllDelete("a")).devices["d1"] is world.devices["d1"]


# --- can, find ------------------------------------------------------------------------------------
def test_all_can_names_the_first_device_that_can_not() -> None:
    world = given(spec(), spec(kind=Kind.PLAIN), spec(kind=Kind.PLAIN))
    assert answer(world, AllCanSnapshot()) == Expected(answer=False, first_bad="d1")
    world = modern(spec(), spec(kind=Kind.PLAIN))
    assert answer(world, AllCanSnapshot()) == Expected(answer=False, first_bad="d1", message=True)


def test_all_find_misses_at_the_first_device_without_it_and_modern_names_nobody() -> None:
    specs = spec(A, B), spec(A), spec()
    assert answer(given(*specs), AllFind("b")) == Expected(frozenset({ENOENT}), first_bad="d1")
    assert answer(given(*specs[:2]), AllFind("a")) == Expected()
    assert answer(given(spec(A), spec(kind=Kind.PLAIN)), AllFind("a")).first_bad == "d1"
    assert answer(modern(*specs), AllFind("b")) == Expected(answer=False, message=False)
    assert answer(modern(*specs[:2]), AllFind("a")) == Expected(answer=True, message=False)


# --- create ---------------------------------------------------------------------------------------
def test_all_create_leaves_the_last_id_in_the_shared_sn() -> None:
    outcome = only(given(spec(), spec(A, B), spec(A)), AllCreate("x", "d0", 765, 1, 2, 3))
    assert outcome.expected == Expected(sn=(SnapshotInfo("2", "x", 0, 1, 2, 3),))
    assert sizes(outcome) == {"d0": 765, "d1": 0, "d2": 0}


def test_the_size_stays_in_sn_when_vm_state_bs_comes_last() -> None:
    outcome = only(given(spec(), spec()), AllCreate("x", "d1", 765))
    assert outcome.expected.sn == (SnapshotInfo("1", "x", 765),)
    assert sizes(outcome) == {"d0": 0, "d1": 765}


def test_vm_state_bs_is_used_even_when_it_is_not_included() -> None:
    world = given(spec(), spec(A, read_only=True), spec())
    outcome = only(world, AllCreate("x", "d1", 765))
    assert outcome.expected.errnos == frozenset({Errno.EPERM, Errno.EACCES, Errno.EROFS})
    assert outcome.expected.first_bad == "d1"
    assert lists(world, outcome) == {"d0": [["1"]], "d1": [["1"]], "d2": [[]]}
    empty = only(given(spec(kind=Kind.EMPTY), spec()), AllCreate("x", "d0", 765))
    assert empty.expected == Expected(frozenset({Errno.ENOMEDIUM}), first_bad="d0", sn=(SnapshotInfo("", "x", 765),))


def test_a_vm_state_bs_that_the_walk_does_not_reach_stores_nothing_and_is_no_error() -> None:
    outcome = only(given(spec(kind=Kind.RAW_OVER)), AllCreate("x", "d0/file", 765))
    assert outcome.expected.errnos == SUCCESS
    assert sizes(outcome) == {"d0": 0}
    listed = AllCreate("x", "d1", 765, devices=("d0",))
    assert sizes(only(modern(spec(), spec()), listed)) == {"d0": 0}


def test_all_create_does_not_roll_back_and_keeps_the_stale_id_in_sn() -> None:
    world = given(spec(A), spec(kind=Kind.PLAIN), spec())
    outcome = only(world, AllCreate("x", "d1", 7))
    assert outcome.expected == Expected(frozenset({Errno.ENOTSUP}), first_bad="d1", sn=(SnapshotInfo("2", "x", 7),))
    assert lists(world, outcome) == {"d0": [["1", "2"]], "d1": [[]], "d2": [[]]}


def test_a_modern_error_has_a_text_and_loses_its_errno() -> None:
    world = modern(spec(A), spec(kind=Kind.PLAIN))
    for operation in (AllCreate("x"), AllGoto("a")):
        expected = answer(world, operation)
        assert (expected.errnos, expected.first_bad, expected.message) == (ANY_ERROR, "d1", True)
    assert answer(world, AllDelete("a")).message is False


# --- goto, delete ---------------------------------------------------------------------------------
def test_all_goto_stops_at_the_first_failure_and_earlier_devices_stay_reverted() -> None:
    world = after(given(*THREE), AddBitmap("d1", "bm"))
    outcome = only(world, AllGoto("a"))
    assert outcome.expected == Expected(frozenset({Errno.EBUSY}), first_bad="d1", message=True)
    assert outcome.devices.keys() == {"d0"}
    ((reverted,),) = outcome.devices.values()
    assert reverted.state.image is not None
    assert reverted.state.image.content.tags == b"\x0b" * 8


def test_all_goto_does_not_ask_first_and_the_driver_takes_ids_for_names() -> None:
    world = given(spec(PreparedSnapshot("1", "2", 8, 11), PreparedSnapshot("2", "1", 8, 12)), spec(B))
    assert answer(world, AllFind("1")).first_bad == "d1"
    outcome = only(world, AllGoto("1"))
    assert (outcome.expected.errnos, outcome.expected.first_bad) == (frozenset({ENOENT}), "d1")
    (reverted,) = outcome.devices["d0"]
    assert reverted.state.image is not None
    assert reverted.state.image.content.tags == b"\x0b" * 8


def test_all_delete_takes_the_first_of_that_name_and_skips_those_without_it() -> None:
    twice = spec(A, PreparedSnapshot("5", "a", 8, 13))
    world = given(twice, spec(B), spec(kind=Kind.PLAIN), spec(A))
    outcome = only(world, AllDelete("a"))
    assert outcome.expected == Expected(message=False)
    assert lists(world, outcome) == {"d0": [["5"]], "d1": [["2"]], "d2": [[]], "d3": [[]]}
    assert only(world, AllDelete("nowhere")) == Outcome(Expected(message=False), {})


def test_all_delete_finds_by_the_listed_name_but_the_driver_misses_what_is_stored_longer() -> None:
    world = given(spec(A), spec(PreparedSnapshot("1", "n" * 300, 8, 11)))
    outcome = only(world, AllDelete("n" * 255))
    assert outcome.expected == Expected(frozenset({ENOENT}), first_bad="d1", message=True)
    assert answer(world, AllDelete("n" * 300)) == Expected(message=False)


# --- the vmstate node -----------------------------------------------------------------------------
def test_the_vmstate_node_is_the_first_included_one_that_can() -> None:
    specs = spec(kind=Kind.EMPTY), spec(read_only=True), spec(kind=Kind.PLAIN), spec(), spec()
    assert answer(given(*specs), AllFindVmstateBs()) == Expected(device="d3")
    assert answer(given(*specs[:3]), AllFindVmstateBs()) == Expected()
    assert answer(modern(*specs), AllFindVmstateBs()) == Expected(device="d3", message=False)
    assert answer(modern(*specs[:3]), AllFindVmstateBs()) == Expected(message=True)


def test_a_modern_vmstate_node_is_asked_for_by_name_inside_the_walk() -> None:
    world = modern(spec(), spec(kind=Kind.RAW_OVER), spec(kind=Kind.PLAIN))
    assert answer(world, AllFindVmstateBs("d1")).device == "d1"
    assert answer(world, AllFindVmstateBs("d2")) == Expected(message=True)
    assert answer(world, AllFindVmstateBs("nowhere")) == Expected(message=True)
    assert answer(world, AllFindVmstateBs("d1", ("d0",))) == Expected(message=True)
    assert answer(world, AllFindVmstateBs("d1/file", ("d0", "d1/file"))).device == "d1/file"
    assert answer(given(spec(), spec()), AllFindVmstateBs("d1", ("d1",))).device == "d0"


# --- a modern list --------------------------------------------------------------------------------
def test_a_modern_list_replaces_the_included_test_and_its_order_counts() -> None:
    world = modern(spec(A), spec(A, read_only=True), spec(A, kind=Kind.RAW_OVER), spec(kind=Kind.EMPTY))
    assert answer(world, AllFind("a", ("d1", "d2/file"))).answer is True
    assert answer(world, AllCanSnapshot(("d0", "d1"))).first_bad == "d1"
    assert answer(world, AllCanSnapshot(("d3",))).first_bad == "d3"
    outcome = only(world, AllDelete("a", ("d2/file", "d1", "d0")))
    assert outcome.expected.first_bad == "d1"
    assert outcome.devices.keys() == {"d2"}


def test_a_modern_list_with_a_node_twice_is_walked_twice() -> None:
    world = modern(spec(A, kind=Kind.RAW_OVER))
    created = only(world, AllCreate("x", devices=("d0", "d0/file", "d0")))
    assert lists(world, created) == {"d0": [["1", "2", "3", "4"]]}
    deleted = only(world, AllDelete("a", ("d0", "d0")))
    assert deleted.expected.errnos == SUCCESS


@pytest.mark.parametrize("devices", [(), ("nowhere",), ("d0", "nowhere"), ("d0/file",)])
def test_a_modern_list_that_is_empty_or_unknown_fails_and_names_nobody(devices: tuple[str, ...]) -> None:
    world = modern(spec(A))
    for operation in (AllCreate("x", devices=devices), AllGoto("a", devices), AllDelete("a", devices)):
        assert only(world, operation) == Outcome(Expected(ANY_ERROR, message=True), {})
    assert answer(world, AllCanSnapshot(devices)).answer is False
    assert answer(world, AllFind("a", devices)).errnos == ANY_ERROR
    assert answer(world, AllFindVmstateBs(None, devices)) == Expected(None, message=True)


def test_the_other_profiles_have_no_lists() -> None:
    for semantics in (CLASSIC, Semantics.TRANSACTIONAL):
        world = given(spec(A), spec(A), semantics=semantics)
        assert only(world, AllDelete("a", ("d1",))) == only(world, AllDelete("a"))


# --- under faults ---------------------------------------------------------------------------------
def test_any_device_that_was_struck_may_be_the_first_that_fails() -> None:
    world = given(*THREE)
    faults = CallFault("d0", "create"), CallFault("d2", "create", errno=Errno.ENOSPC)
    outcomes = step(world, AllCreate("x"), faults)
    assert [(each.expected.first_bad, each.expected.errnos) for each in outcomes] == [
        ("d0", frozenset({EIO})), ("d2", frozenset({Errno.ENOSPC})), (None, SUCCESS),
    ]  # fmt: skip
    assert [lists(world, each) for each in outcomes] == [
        {"d0": [["1", "2"]], "d1": [["1", "2"]], "d2": [["1", "2"]]},
        {"d0": [["1", "2", "3"]], "d1": [["1", "2", "3"]], "d2": [["1", "2"]]},
        {"d0": [["1", "2", "3"]], "d1": [["1", "2", "3"]], "d2": [["1", "2", "3"]]},
    ]
    assert outcomes[0].expected.sn == (SnapshotInfo("", "x"),)
    assert outcomes[1].expected.sn == (SnapshotInfo("3", "x"),)


def test_a_failed_find_skips_the_device_in_a_delete_and_is_a_miss_in_a_find() -> None:
    world = given(*THREE)
    fault = CallFault("d1", "find")
    (deleted,) = step(world, AllDelete("a"), (fault,))
    assert deleted.expected == Expected(message=False)
    assert lists(world, deleted) == {"d0": [["2"]], "d1": [["1", "2"], ["2"]], "d2": [["2"]]}
    missed, found = step(world, AllFind("a"), (fault,))
    assert (missed.expected.errnos, missed.expected.first_bad) == (frozenset({ENOENT}), "d1")
    assert found.expected == Expected()


def test_the_culprit_of_a_failed_delete_is_old_or_new_and_later_devices_are_untouched() -> None:
    world = given(*THREE)
    stopped, done = step(world, AllDelete("a"), (IoFault("d1", "flush", Fails(Errno.ENOSPC)),))
    assert stopped.expected == Expected(frozenset({Errno.ENOSPC}), first_bad="d1", message=True)
    assert lists(world, stopped) == {"d0": [["2"]], "d1": [["1", "2"], ["2"]], "d2": [["1", "2"]]}
    assert done.expected.errnos == SUCCESS


def test_a_fault_never_multiplies_the_outcomes_of_other_devices() -> None:
    world = given(*(spec(A, B) for _ in range(12)))
    faults = tuple(IoFault(f"d{at}", "any", Fails(EIO), times=0) for at in range(12))
    assert len(step(world, AllDelete("a"), faults)) == 13
    assert len(step(world, AllCreate("x"), faults)) == 13


def test_a_damaged_device_may_stop_the_walk_or_not_and_all_others_stay_exact() -> None:
    world = given(*THREE)
    outcomes = step(world, AllDelete("a"), (IoFault("d1", "write", Lost()),))
    assert {each.expected.first_bad for each in outcomes} == {None, "d1"}
    for each in outcomes:
        assert lists(world, each)["d0"] == [["2"]]
        assert lists(world, each)["d2"] == ([["2"]] if each.expected.first_bad is None else [["1", "2"]])
        assert all(allowed.state.damaged for allowed in each.devices["d1"])


# --- the functions are data -----------------------------------------------------------------------
def test_another_table_walks_the_same_way() -> None:
    """An explorer, or a seeded bug, changes the data and not the walk."""
    careless = (Call("goto", Then.GO_ON, Then.SKIP),)
    world = given(spec(A), spec(B), spec(A))
    (end,) = walk(Stage(world, {}), {}, careless, ("d0", "d1", "d2"), Ask("a"))
    assert end.node is None
    assert end.states.keys() == {"d0", "d2"}


def test_every_table_names_calls_that_exist() -> None:
    tables = group.ALL_CAN, group.ALL_FIND, group.ALL_CREATE, group.ALL_GOTO, group.ALL_DELETE, group.FIND_VMSTATE_BS
    assert {call.function for table in tables for call in table} == group.CALLS.keys()
