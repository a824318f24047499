"""savevm, loadvm, delvm (SPEC C.1 to C.3) and transactions (C.6), in each profile where they differ."""

from dataclasses import replace

import pytest
from snapcheck.model.content import vmstate_pattern
from snapcheck.model.device import ANY_ERROR, Allowed, Expected, Outcome, World
from snapcheck.model.errno import Errno
from snapcheck.model.faults import CallFault, Fails, IoFault, Lost
from snapcheck.model.operations import (
    AddBitmap,
    DelVm,
    LoadVm,
    Operation,
    SaveVm,
    SnapshotAction,
    SubmitWrite,
    Transaction,
    VmstateWrite,
    Write,
)
from snapcheck.model.setup import DeviceSpec, Kind, PreparedSnapshot, Semantics, Setup
from snapcheck.model.snapshot import SnapshotInfo
from snapcheck.model.step import start, step

CLASSIC, MODERN = Semantics.CLASSIC, Semantics.MODERN
WENT_WELL = Expected(message=False)
A = PreparedSnapshot("1", "a", 8, 11)
A_VM = PreparedSnapshot("1", "a", 8, 11, vm_state_size=20)


# --- given ----------------------------------------------------------------------------------------
def spec(*snapshots: PreparedSnapshot, kind: Kind = Kind.DRIVER, read_only: bool = False) -> DeviceSpec:
    return DeviceSpec("", kind, 8, 512, read_only, 9, snapshots)


def given(*specs: DeviceSpec, semantics: Semantics = CLASSIC) -> World:
    """Return a world of devices that are named d0, d1 and so on."""
    return start(Setup(tuple(replace(each, name=f"d{at}") for at, each in enumerate(specs)), semantics))


def only(world: World, operation: Operation) -> Outcome:
    (outcome,) = step(world, operation, ())
    return outcome


def answer(world: World, operation: Operation) -> Expected:
    return only(world, operation).expected


def failed(node: str | None) -> Expected:
    """Return the answer of a caller that fails and names `node`."""
    return Expected(ANY_ERROR, first_bad=node, message=True)


def after(world: World, *operations: Operation) -> World:
    for operation in operations:
        states = {name: one.state for name, (one,) in only(world, operation).devices.items()}
        world = World({**world.devices, **states}, world.semantics)
    return world


def infos(world: World, outcome: Outcome) -> dict[str, list[list[tuple[str, str, int]]]]:
    """Return by device the lists of (id, name, VM state size) that it may have in `outcome`."""
    found: dict[str, list[list[tuple[str, str, int]]]] = {}
    for name, device in world.devices.items():
        images = [each.state.image for each in outcome.devices.get(name, (Allowed(device),))]
        found[name] = [[(sn.info.id_str, sn.info.name, sn.info.vm_state_size) for sn in image.snapshots]
                       for image in images if image is not None]  # fmt: skip
    return found


def tags(world: World, outcome: Outcome, name: str) -> list[bytes]:
    images = [each.state.image for each in outcome.devices.get(name, (Allowed(world.devices[name]),))]
    return [image.content.tags for image in images if image is not None]


# --- savevm (C.1) ---------------------------------------------------------------------------------
def test_savevm_puts_the_vm_state_on_the_first_device_and_a_snapshot_on_all() -> None:
    world = given(spec(read_only=True), spec(A), spec())
    outcome = only(world, SaveVm("x", 3, 765, 1, 2, 4))
    assert outcome.expected == WENT_WELL
    assert infos(world, outcome) == {"d0": [[]], "d1": [[("1", "a", 0), ("2", "x", 765)]], "d2": [[("1", "x", 0)]]}
    (owner,) = outcome.devices["d1"]
    assert owner.state.image is not None
    assert owner.state.image.vmstate == b""
    assert owner.state.image.snapshots[1].vmstate == vmstate_pattern(tag=3, offset=0, length=765)
    assert owner.state.image.snapshots[1].info == SnapshotInfo("2", "x", 765, 1, 2, 4)


@pytest.mark.parametrize("semantics", list(Semantics))
def test_savevm_deletes_the_old_snapshot_of_that_name_first(semantics: Semantics) -> None:
    world = given(spec(A_VM, replace(A, id_str="2")), spec(A), semantics=semantics)
    assert infos(world, only(world, SaveVm("a"))) == {
        "d0": [[("2", "a", 0), ("3", "a", 765)]], "d1": [[("1", "a", 0)]],
    }  # fmt: skip


def test_savevm_without_a_name_makes_one_of_the_clock_and_deletes_nothing() -> None:
    world = given(spec(A))
    outcome = only(world, SaveVm(None, date_sec=1_700_000_000))
    assert infos(world, outcome) == {"d0": [[("1", "a", 0), ("2", "vm-20231114221320", 765)]]}


def test_savevm_refuses_when_a_device_can_not_or_nobody_can() -> None:
    for semantics in Semantics:
        plain = given(spec(A), spec(kind=Kind.PLAIN), semantics=semantics)
        assert only(plain, SaveVm("a")) == Outcome(failed("d1"), {})
        nobody = given(spec(kind=Kind.EMPTY), semantics=semantics)
        assert only(nobody, SaveVm("a")) == Outcome(failed(None), {})


def test_savevm_with_a_name_that_is_too_long_never_overwrites_it() -> None:
    world = after(given(spec()), SaveVm("n" * 256), SaveVm("n" * 256))
    image = world.devices["d0"].image
    assert image is not None
    assert [sn.info.name for sn in image.snapshots] == ["n" * 255] * 2
    assert answer(world, LoadVm("n" * 256)) == failed("d0")


def test_a_savevm_that_fails_half_way_leaves_what_it_did_and_only_the_modern_one_rolls_back() -> None:
    fault = CallFault("d1", "create")
    specs = spec(A), spec(A), spec(A)
    classic, modern = given(*specs), given(*specs, semantics=MODERN)
    stopped, done = step(classic, SaveVm("a"), (fault,))
    assert (stopped.expected, done.expected) == (failed("d1"), WENT_WELL)
    assert infos(classic, stopped) == {"d0": [[("1", "a", 765)]], "d1": [[]], "d2": [[]]}
    rolled_back, _ = step(modern, SaveVm("a"), (fault,))
    assert rolled_back.expected == failed("d1")
    assert infos(modern, rolled_back) == {"d0": [[]], "d1": [[]], "d2": [[]]}


def test_a_modern_rollback_takes_the_first_of_that_name_which_may_be_an_older_one() -> None:
    twice = spec(A, replace(A, id_str="2"))
    world = given(twice, spec(), semantics=MODERN)
    rolled_back, _ = step(world, SaveVm("a"), (CallFault("d1", "create"),))
    assert infos(world, rolled_back)["d0"] == [[("3", "a", 765)]]


def test_a_modern_rollback_that_is_struck_itself_may_leave_a_snapshot() -> None:
    world = given(spec(), spec(), semantics=MODERN)
    outcomes = step(world, SaveVm("x"), (CallFault("d1", "create"), CallFault("d0", "delete")))
    left = [infos(world, each)["d0"] for each in outcomes if each.expected == failed("d1")]
    assert [[("1", "x", 765)]] in left
    assert [[]] in left


def test_a_savevm_whose_vm_state_can_not_be_written_names_nobody_and_creates_nothing() -> None:
    world = given(spec(A), spec())
    outcomes = step(world, SaveVm("x"), (IoFault("d0", "write", Fails(Errno.ENOSPC)),))
    (unnamed,) = [each for each in outcomes if each.expected == failed(None)]
    assert infos(world, unnamed) == {"d0": [[("1", "a", 0)]], "d1": [[]]}


def test_an_empty_vm_state_is_flushed_too() -> None:
    world = given(spec(A))
    outcomes = step(world, SaveVm("x", vm_state_size=0), (IoFault("d0", "flush", Fails(Errno.EIO)),))
    assert failed(None) in [each.expected for each in outcomes]


def test_savevm_lets_requests_land_before_the_snapshot_and_a_refused_one_at_the_end() -> None:
    world = after(given(spec(), spec()), SubmitWrite("d0", 0, 8, 5), SubmitWrite("d1", 0, 8, 6))
    saved = after(world, SaveVm("x"))
    for name, tag in (("d0", 5), ("d1", 6)):
        image = saved.devices[name].image
        assert image is not None
        assert image.snapshots[0].content.tags == bytes((tag,)) * 8
        assert saved.devices[name].in_flight == ()
    refused = after(given(spec(), spec(kind=Kind.PLAIN)), SubmitWrite("d0", 0, 8, 5))
    outcome = only(refused, SaveVm("x"))
    assert outcome.expected == failed("d1")
    assert tags(refused, outcome, "d0") == [b"\x05" * 8]


# --- loadvm (C.2) ---------------------------------------------------------------------------------
def test_loadvm_reverts_all_and_gives_back_the_vm_state() -> None:
    world = after(given(spec(), spec()), SaveVm("x", 3), Write("d0", 0, 8, 2), Write("d1", 0, 8, 2))
    outcome = only(world, LoadVm("x"))
    assert outcome.expected == Expected(data=vmstate_pattern(tag=3, offset=0, length=765), message=False)
    assert tags(world, outcome, "d0") == tags(world, outcome, "d1") == [b"\x09" * 8]


def test_loadvm_wants_it_on_every_device_and_modern_names_nobody() -> None:
    specs = spec(A_VM), spec()
    assert only(given(*specs), LoadVm("a")) == Outcome(failed("d1"), {})
    assert only(given(*specs, semantics=MODERN), LoadVm("a")) == Outcome(failed(None), {})
    assert answer(given(spec(A_VM), spec(A, kind=Kind.PLAIN)), LoadVm("a")) == failed("d1")


@pytest.mark.parametrize("semantics", list(Semantics))
def test_loadvm_refuses_a_snapshot_without_vm_state_and_a_world_without_devices(semantics: Semantics) -> None:
    world = given(spec(A), spec(A_VM), semantics=semantics)
    assert only(world, LoadVm("a")) == Outcome(failed(None), {})
    assert answer(given(spec(kind=Kind.EMPTY), semantics=semantics), LoadVm("a")) == failed(None)


@pytest.mark.parametrize("semantics", list(Semantics))
def test_a_loadvm_that_fails_half_way_leaves_the_first_devices_reverted(semantics: Semantics) -> None:
    world = after(given(spec(A_VM), spec(A), spec(A), semantics=semantics), AddBitmap("d1", "bm"))
    outcome = only(world, LoadVm("a"))
    assert outcome.expected == failed("d1")
    assert outcome.devices.keys() == {"d0"}
    assert tags(world, outcome, "d0") == [b"\x0b" * 8]


def test_loadvm_finds_by_name_but_the_driver_takes_the_id() -> None:
    world = given(spec(PreparedSnapshot("1", "2", 8, 11), PreparedSnapshot("2", "1", 8, 12, vm_state_size=20)))
    unread, loaded = step(world, LoadVm("1"), ())  # 7.2 says "Not a migration stream": it may look at what it reads
    assert (unread.expected, loaded.expected) == (failed(None), Expected(data=bytes(20), message=False))
    assert tags(world, unread, "d0") == tags(world, loaded, "d0") == [b"\x0b" * 8]


def test_requests_in_flight_land_before_loadvm_reverts() -> None:
    world = after(given(spec(A_VM)), SubmitWrite("d0", 0, 8, 5))
    assert tags(world, only(world, LoadVm("a")), "d0") == [b"\x0b" * 8]


def test_a_loadvm_under_faults_fails_at_each_step_that_was_struck() -> None:
    world = given(spec(A_VM), spec(A))
    unfound, unsized, loaded = step(world, LoadVm("a"), (CallFault("d0", "find"),))
    assert unfound.expected == failed("d0")
    assert unsized.expected == Expected(ANY_ERROR)  # found before, but not on the vmstate device: errp is left unset
    assert loaded.expected.errnos == frozenset({Errno.OK})
    outcomes = step(world, LoadVm("a"), (IoFault("d0", "read", Fails(Errno.EIO)),))
    unread = [each for each in outcomes if each.expected == failed(None)]
    assert [tags(world, each, "d1") for each in unread] == [[b"\x0b" * 8]]


# --- delvm (C.3) ----------------------------------------------------------------------------------
def test_delvm_deletes_where_it_is_and_succeeds_when_it_is_nowhere() -> None:
    for semantics in Semantics:
        world = given(spec(A), spec(), semantics=semantics)
        outcome = only(world, DelVm("a"))
        assert outcome.expected == WENT_WELL
        assert outcome.devices.keys() == {"d0"}
        assert only(world, DelVm("nowhere")) == Outcome(WENT_WELL, {})


def test_only_a_modern_delvm_asks_first_who_can() -> None:
    specs = spec(A), spec(kind=Kind.PLAIN)
    assert only(given(*specs), DelVm("a")).devices.keys() == {"d0"}
    assert only(given(*specs, semantics=MODERN), DelVm("a")) == Outcome(failed("d1"), {})


def test_a_delvm_that_fails_names_the_device_and_stops_there() -> None:
    world = given(spec(A), spec(A), spec(A))
    stopped, done = step(world, DelVm("a"), (CallFault("d1", "delete"),))
    assert (stopped.expected, done.expected) == (failed("d1"), WENT_WELL)
    assert infos(world, stopped) == {"d0": [[]], "d1": [[("1", "a", 0)]], "d2": [[("1", "a", 0)]]}


# --- transactions (C.6) ---------------------------------------------------------------------------
def both(name: str = "x", *devices: str) -> Transaction:
    return Transaction(tuple(SnapshotAction(device, name) for device in devices or ("d0", "d1")), 5, 6, 7)


def test_a_transaction_creates_on_every_device_of_its_actions() -> None:
    world = given(spec(), spec(A, kind=Kind.RAW_OVER), spec())
    outcome = only(world, both())
    assert outcome.expected == WENT_WELL
    assert infos(world, outcome) == {"d0": [[("1", "x", 0)]], "d1": [[("1", "a", 0), ("2", "x", 0)]], "d2": [[]]}
    (made,) = outcome.devices["d0"]
    assert made.state.image is not None
    assert made.state.image.snapshots[0].info == SnapshotInfo("1", "x", 0, 5, 6, 7)


@pytest.mark.parametrize("semantics", list(Semantics))
@pytest.mark.parametrize(
    "refusing",
    [spec(read_only=True), spec(kind=Kind.PLAIN), spec(kind=Kind.EMPTY), spec(replace(A, name="x"))],
    ids=["read-only", "plain", "empty", "taken"],
)
def test_a_refused_action_undoes_those_before_it(refusing: DeviceSpec, semantics: Semantics) -> None:
    world = given(spec(A), refusing, semantics=semantics)
    assert only(world, both()) == Outcome(failed("d1"), {})


def test_a_transaction_refuses_an_empty_name() -> None:
    assert only(given(spec(), spec()), both("")) == Outcome(failed("d0"), {})


def test_a_second_action_of_that_name_on_one_device_fails_and_the_first_is_undone() -> None:
    world = given(spec(A), spec())
    assert only(world, both("x", "d0", "d0")) == Outcome(failed("d0"), {})
    different = Transaction((SnapshotAction("d0", "x"), SnapshotAction("d0", "y"), SnapshotAction("d1", "")))
    assert only(world, different) == Outcome(failed("d1"), {})


def test_a_long_name_may_be_taken_twice_as_the_check_sees_it_in_full() -> None:
    world = after(given(spec()), both("n" * 256, "d0"), both("n" * 256, "d0"))
    image = world.devices["d0"].image
    assert image is not None
    assert [sn.info.name for sn in image.snapshots] == ["n" * 255] * 2


def test_a_create_that_fails_leaves_no_trace_of_a_transaction() -> None:
    world = given(spec(A), spec(A), spec(A))
    stopped, done = step(world, both("x", "d0", "d1", "d2"), (CallFault("d1", "create"),))
    assert stopped == Outcome(failed("d1"), {})
    assert done.expected == WENT_WELL


def test_a_list_that_fails_refuses_the_action() -> None:
    world = given(spec(), spec())
    stopped, _ = step(world, both(), (CallFault("d1", "list"),))
    assert stopped == Outcome(failed("d1"), {})


def test_a_rollback_that_is_struck_may_leave_what_it_could_not_delete() -> None:
    world = given(spec(), spec())
    stopped, _ = step(world, both(), (CallFault("d1", "create"), CallFault("d0", "delete")))
    assert infos(world, stopped) == {"d0": [[], [("1", "x", 0)]], "d1": [[]]}


def test_what_a_transaction_could_not_undo_as_errors_went_on_keeps_its_reason() -> None:
    long = "n" * 256  # searched for in full and stored cut, so that a second one is taken on the same device (W-13)
    world = given(spec())
    twice = Transaction((SnapshotAction("d0", long), SnapshotAction("d0", long)))
    outcomes = step(world, twice, (IoFault("d0", "any", Fails(), at=15, times=0),))
    both = [
        allowed
        for outcome in outcomes
        if outcome.expected.errnos == ANY_ERROR
        for allowed in outcome.devices.get("d0", ())
        if allowed.state.image is not None and len(allowed.state.image.snapshots) == 2
    ]
    assert both, "no driver can take back what a header write published when all that follows fails"
    assert all(allowed.note for allowed in both)


def test_requests_in_flight_land_before_the_snapshots_of_a_transaction() -> None:
    world = after(given(spec()), SubmitWrite("d0", 0, 8, 5), both("x", "d0"))
    image = world.devices["d0"].image
    assert image is not None
    assert image.snapshots[0].content.tags == b"\x05" * 8


# --- damage ---------------------------------------------------------------------------------------
def test_the_vm_state_goes_to_the_next_device_when_a_damaged_first_one_can_not() -> None:
    world = given(spec(), spec())
    outcomes = step(world, SaveVm("x"), (IoFault("d0", "write", Lost()),))
    sizes = {infos(world, each)["d1"][0][-1][2] for each in outcomes if each.expected == WENT_WELL}
    assert sizes == {0, 765}


def test_vm_state_that_was_longer_before_is_not_promised_after_a_savevm() -> None:
    world = after(given(spec()), VmstateWrite("d0", 0, 900, 1), SaveVm("x"))
    image = world.devices["d0"].image
    assert image is not None
    assert image.vmstate is None
