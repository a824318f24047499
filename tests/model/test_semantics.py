"""What one device may answer and become: the decision tables of SPEC H row by row, then sizes, faults and the rest."""

from dataclasses import replace

import pytest
from snapcheck.model.content import vmstate_pattern
from snapcheck.model.device import ANY_ERROR, Allowed, Content, Device, Expected, Image, Outcome, World
from snapcheck.model.errno import Errno
from snapcheck.model.faults import BitFlip, CallFault, Delay, Fails, Fault, IoFault, LandsButFails
from snapcheck.model.history import UNWRITTEN_INFO
from snapcheck.model.operations import (
    AddBitmap,
    AllCreate,
    CanSnapshot,
    Create,
    Delete,
    Discard,
    Find,
    FindByIdAndName,
    Flush,
    Goto,
    List,
    LoadTmp,
    LoadTmpByIdOrName,
    Operation,
    RemoveBitmap,
    Reopen,
    Resize,
    SetMedium,
    SetReadOnly,
    VmstateRead,
    VmstateWrite,
    Write,
    WriteZeroes,
)
from snapcheck.model.semantics import next_id, strtoul
from snapcheck.model.setup import DeviceSpec, Kind, PreparedSnapshot, Semantics, Setup
from snapcheck.model.snapshot import SnapshotInfo
from snapcheck.model.step import start, step

OK, ENOENT, EINVAL, EIO = Errno.OK, Errno.ENOENT, Errno.EINVAL, Errno.EIO
ENOSPC, ENOMEDIUM, ENOTSUP, EBUSY, EPERM = Errno.ENOSPC, Errno.ENOMEDIUM, Errno.ENOTSUP, Errno.EBUSY, Errno.EPERM
REFUSED = frozenset({Errno.EPERM, Errno.EACCES, Errno.EROFS})
WRITE_FAILS = IoFault("d0", "write", Fails(ENOSPC))
ALL_FAIL = IoFault("d0", "any", Fails(EIO), times=0)


# --- given ----------------------------------------------------------------------------------------
def prepared(*entries: tuple[str, str], sectors: int = 8) -> tuple[PreparedSnapshot, ...]:
    """Return snapshots of (id, name); the content of number n (from 1 on) has tag 10 + n."""
    return tuple(PreparedSnapshot(id_str, name, sectors, 10 + at) for at, (id_str, name) in enumerate(entries, 1))


def given(
    *snapshots: PreparedSnapshot,
    kind: Kind = Kind.DRIVER,
    read_only: bool = False,
    semantics: Semantics = Semantics.CLASSIC,
) -> World:
    """Return a world with one device of 8 sectors with tag 9."""
    return start(Setup((DeviceSpec("d0", kind, 8, 512, read_only, 9, snapshots),), semantics))


def after(world: World, *operations: Operation) -> World:
    """Return the world after operations that have one outcome each, and one state in it."""
    for operation in operations:
        outcome = only(world, operation)
        states = {name: only_state(allowed) for name, allowed in outcome.devices.items()}
        world = World({**world.devices, **states}, world.semantics)
    return world


def only(world: World, operation: Operation) -> Outcome:
    (outcome,) = step(world, operation, ())
    return outcome


def only_state(allowed: tuple[Allowed, ...]) -> Device:
    (one,) = allowed
    return one.state


def answer(world: World, operation: Operation) -> Expected:
    """Return the only answer, of an operation that must leave the device alone when it fails."""
    outcome = only(world, operation)
    if outcome.expected.errnos is not None and OK not in outcome.expected.errnos:
        assert outcome.devices == {}
    return outcome.expected


def errno(world: World, operation: Operation) -> Errno:
    errnos = answer(world, operation).errnos
    assert errnos is not None
    (one,) = errnos
    return one


def image(world: World) -> Image:
    found = world.devices["d0"].image
    assert found is not None
    return found


def names(device: Device) -> list[str]:
    assert device.image is not None
    return [snapshot.info.name for snapshot in device.image.snapshots]


def under(world: World, operation: Operation, *faults: Fault) -> dict[frozenset[Errno], list[tuple[Device, str]]]:
    """Return what is allowed under faults: by errnos the states with their notes, the one from before where none is."""
    found: dict[frozenset[Errno], list[tuple[Device, str]]] = {}
    for outcome in step(world, operation, faults):
        assert outcome.expected.errnos is not None
        states = outcome.devices.get("d0") or (Allowed(world.devices["d0"]),)
        found.setdefault(outcome.expected.errnos, []).extend((each.state, each.note) for each in states)
    return found


SUCCESS = frozenset({OK})
A_AND_B = prepared(("1", "a"), ("2", "b"))
EMPTY = start(Setup((DeviceSpec("d0", Kind.EMPTY),)))
LOCAL_CALLS = (
    Create("d0", "x"), Goto("d0", "a"), Delete("d0", "1", "a"), List("d0"), LoadTmp("d0", "1", None),
    LoadTmpByIdOrName("d0", "a"),
)  # fmt: skip


# --- no medium, nothing below that can (first column of H) ----------------------------------------
@pytest.mark.parametrize("call", LOCAL_CALLS)
def test_every_call_on_a_device_without_a_medium_answers_enomedium(call: Operation) -> None:
    out = after(given(*A_AND_B), SetMedium("d0", present=False))
    assert errno(out, call) is ENOMEDIUM
    assert errno(EMPTY, call) is ENOMEDIUM


@pytest.mark.parametrize("call", LOCAL_CALLS[:4])
def test_a_plain_device_supports_no_snapshots(call: Operation) -> None:
    assert errno(given(kind=Kind.PLAIN), call) is ENOTSUP


def test_find_flattens_every_error_of_the_list_to_enoent_and_leaves_sn_alone() -> None:
    for world in (EMPTY, given(kind=Kind.PLAIN), given(*A_AND_B)):
        expected = answer(world, Find("d0", "x"))
        assert expected.errnos == frozenset({ENOENT})
        assert expected.sn == (UNWRITTEN_INFO,)


# --- can (A.3) ------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", [Kind.DRIVER, Kind.RAW_OVER, Kind.FILTER_OVER])
def test_can_needs_a_medium_and_a_writable_node_and_a_driver_here_or_below(kind: Kind) -> None:
    world = given(kind=kind)
    assert answer(world, CanSnapshot("d0")).answer is True
    assert answer(after(world, SetReadOnly("d0", read_only=True)), CanSnapshot("d0")).answer is False
    assert answer(after(world, SetMedium("d0", present=False)), CanSnapshot("d0")).answer is False
    assert answer(given(kind=Kind.PLAIN), CanSnapshot("d0")).answer is False
    assert answer(EMPTY, CanSnapshot("d0")).answer is False


# --- find (A.1, A.2) ------------------------------------------------------------------------------
def test_find_matches_names_only_and_takes_the_first() -> None:
    world = given(*prepared(("1", "2"), ("2", "1"), ("3", "1")))
    assert answer(world, Find("d0", "1")).sn == (SnapshotInfo("2", "1"),)
    assert errno(world, Find("d0", "3")) is ENOENT


def test_find_goes_by_the_names_as_they_are_listed() -> None:
    world = given(*prepared(("1", "n" * 300)))
    assert answer(world, Find("d0", "n" * 255)).sn == (SnapshotInfo("1", "n" * 255),)
    assert errno(world, Find("d0", "n" * 300)) is ENOENT


def test_find_by_id_and_name_wants_all_that_is_given_in_one_entry() -> None:
    world = given(*prepared(("1", "a"), ("2", "b"), ("2", "c")))
    assert answer(world, FindByIdAndName("d0", "2", None)).sn == (SnapshotInfo("2", "b"),)
    assert answer(world, FindByIdAndName("d0", "2", "c")).sn == (SnapshotInfo("2", "c"),)
    assert answer(world, FindByIdAndName("d0", None, "a")).answer is True
    miss = answer(world, FindByIdAndName("d0", "1", "c"))
    assert (miss.answer, miss.message, miss.sn) == (False, False, (UNWRITTEN_INFO,))


def test_find_by_id_and_name_sets_errp_exactly_when_the_list_fails() -> None:
    assert answer(given(), FindByIdAndName("d0", "1", None)).message is False
    for world in (EMPTY, given(kind=Kind.PLAIN)):
        expected = answer(world, FindByIdAndName("d0", "1", None))
        assert (expected.answer, expected.message) == (False, True)


def test_find_by_id_and_name_asserts_that_something_is_given() -> None:
    with pytest.raises(AssertionError):
        step(given(), FindByIdAndName("d0", None, None), ())


# --- list (A.7, B.5) ------------------------------------------------------------------------------
def test_list_shows_texts_cut_to_their_fields_also_on_a_read_only_device() -> None:
    world = given(*prepared(("i" * 200, "\u00e9" * 200)), read_only=True)
    shown = answer(world, List("d0")).snapshots
    assert shown is not None
    assert shown[0].id_str == "i" * 127
    assert len(shown[0].name.encode("utf-8", "surrogateescape")) == 255


# --- create (A.4, B.2) ----------------------------------------------------------------------------
def test_create_appends_an_entry_that_holds_content_size_and_clocks() -> None:
    world = given(*A_AND_B)
    outcome = only(world, Create("d0", "x", 0, 1, 2, 3))
    assert outcome.expected.sn == (SnapshotInfo("3", "x", 0, 1, 2, 3),)
    new = only_state(outcome.devices["d0"])
    assert new.image is not None
    assert names(new) == ["a", "b", "x"]
    made = new.image.snapshots[2]
    assert (made.info, made.sectors, made.content) == (SnapshotInfo("3", "x", 0, 1, 2, 3), 8, Content(b"\x09" * 8))
    assert new.image.snapshots[:2] == image(world).snapshots
    assert new.image.content == image(world).content


@pytest.mark.parametrize(
    ("ids", "chosen"),
    [
        ((), "1"), (("1", "7", "3"), "8"), (("x",), "1"), (("x", "7"), "8"), (("4294967297",), "4294967298"),
        (("18446744073709551615",), "0"), (("9" * 127,), "0"), (("-1",), "0"), (("-2",), "18446744073709551615"),
        ((" 12abc",), "13"), (("+5",), "6"), (("- 5",), "1"), (("0" * 30 + "4",), "5"), (("9" * 5000,), "0"),
    ],
)  # fmt: skip
def test_the_new_id_is_the_largest_strtoul_plus_one_and_wraps_to_zero(ids: tuple[str, ...], chosen: str) -> None:
    world = given(*prepared(*((id_str, "a") for id_str in ids)))
    assert answer(world, Create("d0", "x")).sn == (SnapshotInfo(chosen, "x"),)
    assert next_id(image(world).snapshots) == chosen


def test_strtoul_saturates_whatever_the_sign() -> None:
    assert strtoul("-18446744073709551616") == 2**64 - 1
    assert strtoul("18446744073709551614") == 2**64 - 2


def test_an_id_comes_back_after_the_newest_snapshot_was_deleted() -> None:
    world = after(given(*A_AND_B), Delete("d0", "2", None))
    assert answer(world, Create("d0", "x")).sn == (SnapshotInfo("2", "x"),)


def test_duplicate_and_empty_names_are_created_and_long_ones_are_cut() -> None:
    world = after(given(*A_AND_B), Create("d0", "a"), Create("d0", ""), Create("d0", "n" * 256))
    assert names(world.devices["d0"]) == ["a", "b", "a", "", "n" * 255]


def test_a_full_table_refuses_another_snapshot_before_an_id_is_chosen() -> None:
    world = given(*prepared(("1", "a")))
    device = world.devices["d0"]
    full = image(world)._replace(snapshots=image(world).snapshots * 65536)
    expected = answer(World({"d0": device._replace(image=full)}), Create("d0", "x"))
    assert (expected.errnos, expected.sn) == (frozenset({Errno.EFBIG}), (SnapshotInfo("", "x"),))


def test_where_nothing_can_be_shared_a_snapshot_of_what_takes_room_is_refused() -> None:
    full = start(Setup((DeviceSpec("d0", sectors=8, tag=9, unshared=True),)))
    empty = start(Setup((DeviceSpec("d0", sectors=8, unshared=True),)))
    assert errno(full, Create("d0", "a")) is EINVAL
    assert answer(full, Create("d0", "a")).sn == (SnapshotInfo("1", "a"),)
    assert {outcome.expected.errnos for outcome in step(empty, Create("d0", "a"), ())} == {
        frozenset({OK}), frozenset({EINVAL}),
    }  # fmt: skip
    (outcome,) = step(after(empty, Write("d0", 0, 1, 5)), AllCreate("a"), ())
    assert (outcome.expected.first_bad, outcome.devices) == ("d0", {})


def test_where_nothing_can_be_shared_goto_may_be_refused_by_the_vm_state_that_it_would_bring_back() -> None:
    def created(world: World, sn: Create) -> World:
        taken = next(each for each in step(world, sn, ()) if each.expected.errnos == frozenset({OK}))
        return World({"d0": only_state(taken.devices["d0"])}, world.semantics)

    empty = start(Setup((DeviceSpec("d0", sectors=8, unshared=True),)))
    without = created(empty, Create("d0", "a"))
    kept = created(after(empty, VmstateWrite("d0", 0, 100, 3)), Create("d0", "a", 100))
    assert [outcome.expected.errnos for outcome in step(without, Goto("d0", "a"), ())] == [frozenset({OK})]
    assert {outcome.expected.errnos for outcome in step(kept, Goto("d0", "a"), ())} == {
        frozenset({OK}), frozenset({EINVAL}),
    }  # fmt: skip


def test_create_without_a_driver_leaves_the_id_in_sn_alone() -> None:
    assert answer(EMPTY, Create("d0", "x", 5)).sn == (SnapshotInfo("", "x", 5),)
    assert answer(given(kind=Kind.PLAIN), Create("d0", "x", 5)).sn == (SnapshotInfo("", "x", 5),)


def test_the_vm_state_that_a_snapshot_keeps_leaves_the_active_state() -> None:
    wrote = after(given(), VmstateWrite("d0", 0, 100, 3))
    kept = after(wrote, Create("d0", "x", 0))
    assert image(kept).vmstate == image(wrote).vmstate
    taken = after(wrote, Create("d0", "x", 100))
    assert image(taken).vmstate == b""
    assert image(taken).snapshots[0].vmstate == vmstate_pattern(tag=3, offset=0, length=100)
    assert image(after(wrote, Create("d0", "x", 99))).vmstate is None


# --- goto (A.5, B.3) ------------------------------------------------------------------------------
def test_goto_brings_back_content_size_and_vm_state_and_keeps_the_list() -> None:
    world = after(given(), VmstateWrite("d0", 0, 50, 1), Create("d0", "s", 50), Write("d0", 0, 8, 2), Resize("d0", 4))
    back = image(after(world, Goto("d0", "1")))
    assert (back.sectors, back.content) == (8, Content(b"\x09" * 8))
    assert back.vmstate == vmstate_pattern(tag=1, offset=0, length=50)
    assert back.snapshots == image(world).snapshots


def test_goto_looks_through_all_ids_before_any_name() -> None:
    world = given(*prepared(("1", "2"), ("2", "1")))
    assert image(after(world, Goto("d0", "1"))).content == Content(b"\x0b" * 8)
    assert image(after(world, Goto("d0", "2"))).content == Content(b"\x0c" * 8)
    assert errno(world, Goto("d0", "3")) is ENOENT


def test_goto_and_delete_compare_the_texts_as_they_are_stored() -> None:
    world = given(*prepared(("1", "n" * 300)))
    assert errno(world, Goto("d0", "n" * 255)) is ENOENT
    assert errno(world, Delete("d0", "1", "n" * 255)) is ENOENT
    assert image(after(world, Goto("d0", "n" * 300))).content == Content(b"\x0b" * 8)
    assert names(after(world, Delete("d0", None, "n" * 300)).devices["d0"]) == []


def test_goto_refuses_a_device_with_bitmaps_before_it_looks_for_the_snapshot() -> None:
    world = after(given(), AddBitmap("d0", "bm"))
    assert errno(world, Goto("d0", "nowhere")) is EBUSY
    assert errno(after(given(kind=Kind.PLAIN), AddBitmap("d0", "bm")), Goto("d0", "1")) is EBUSY
    assert errno(after(world, RemoveBitmap("d0", "bm")), Goto("d0", "nowhere")) is ENOENT


@pytest.mark.parametrize("kind", [Kind.RAW_OVER, Kind.FILTER_OVER])
def test_the_bitmaps_of_each_level_refuse_a_goto_through_the_fallback(kind: Kind) -> None:
    world = given(*A_AND_B, kind=kind)
    assert errno(after(world, AddBitmap("d0", "bm")), Goto("d0", "1")) is EBUSY
    below = after(world, AddBitmap("d0/file", "bm"))
    assert errno(below, Goto("d0", "1")) is EBUSY
    assert errno(below, Goto("d0/file", "1")) is EBUSY
    above = after(world, AddBitmap("d0", "bm"), Goto("d0/file", "1"))
    assert image(above).content == Content(b"\x0b" * 8)


@pytest.mark.parametrize("kind", [Kind.RAW_OVER, Kind.FILTER_OVER])
def test_create_goto_delete_find_and_list_fall_back_to_the_child(kind: Kind) -> None:
    world = after(given(*A_AND_B, kind=kind), Create("d0", "x"), Goto("d0", "a"), Delete("d0", "2", "b"))
    assert names(world.devices["d0"]) == ["a", "x"]
    assert image(world).content == Content(b"\x0b" * 8)
    assert answer(world, Find("d0", "x")).errnos == SUCCESS
    assert answer(world, List("d0")).snapshots == answer(world, List("d0/file")).snapshots


def test_errp_is_set_exactly_on_failure_of_goto_delete_and_load_tmp() -> None:
    world, read_only = given(*A_AND_B), given(*A_AND_B, read_only=True)
    assert answer(world, Goto("d0", "1")).message is False
    assert answer(world, Delete("d0", "1", None)).message is False
    assert answer(read_only, LoadTmp("d0", "1", None)).message is False
    for failing in (Goto("d0", "x"), Delete("d0", "x", None), Delete("d0", None, None), LoadTmp("d0", "1", None)):
        assert answer(world, failing).message is True


# --- delete (A.6, B.4) ----------------------------------------------------------------------------
def test_delete_takes_exactly_the_first_entry_that_matches_all_that_is_given() -> None:
    world = given(*prepared(("1", "a"), ("2", "a"), ("2", "b")))
    assert names(after(world, Delete("d0", None, "a")).devices["d0"]) == ["a", "b"]
    assert names(after(world, Delete("d0", "2", "b")).devices["d0"]) == ["a", "a"]
    assert errno(world, Delete("d0", "1", "b")) is ENOENT
    left = image(after(world, Delete("d0", "2", None)))
    assert [snapshot.info.id_str for snapshot in left.snapshots] == ["1", "2"]
    assert left.content == image(world).content


def test_delete_without_id_and_name_is_einval_but_enomedium_comes_first() -> None:
    assert errno(given(*A_AND_B), Delete("d0", None, None)) is EINVAL
    assert errno(given(kind=Kind.PLAIN), Delete("d0", None, None)) is EINVAL
    assert errno(EMPTY, Delete("d0", None, None)) is ENOMEDIUM


# --- a read-only driver ---------------------------------------------------------------------------
def test_a_read_only_driver_refuses_to_change_its_snapshots() -> None:
    world = given(*A_AND_B, read_only=True)
    created = answer(world, Create("d0", "x"))
    assert created.errnos == REFUSED
    assert created.sn == (SnapshotInfo("", "x"), SnapshotInfo("3", "x"))
    assert answer(world, Goto("d0", "1")).errnos == REFUSED
    assert answer(world, Goto("d0", "x")).errnos == REFUSED | {ENOENT}
    assert answer(world, Delete("d0", "1", None)).errnos == REFUSED
    assert answer(world, Delete("d0", "x", None)).errnos == REFUSED | {ENOENT}
    assert errno(after(world, AddBitmap("d0", "bm")), Goto("d0", "1")) is EBUSY


# --- load_tmp (A.8, A.9) --------------------------------------------------------------------------
def test_load_tmp_wants_an_id_or_a_name_then_a_read_only_node_then_a_driver() -> None:
    read_only = given(*A_AND_B, read_only=True)
    assert errno(read_only, LoadTmp("d0", None, None)) is EINVAL
    assert errno(given(*A_AND_B), LoadTmp("d0", "x", None)) is EINVAL
    assert errno(given(kind=Kind.PLAIN), LoadTmp("d0", "1", None)) is EINVAL
    assert errno(given(kind=Kind.PLAIN, read_only=True), LoadTmp("d0", "1", None)) is ENOTSUP
    assert errno(read_only, LoadTmp("d0", "1", "b")) is ENOENT


@pytest.mark.parametrize("kind", [Kind.RAW_OVER, Kind.FILTER_OVER])
def test_load_tmp_does_not_fall_back_but_works_on_the_child(kind: Kind) -> None:
    world = given(*A_AND_B, kind=kind, read_only=True)
    assert errno(world, LoadTmp("d0", "1", None)) is ENOTSUP
    view = image(after(world, LoadTmp("d0/file", "1", None))).view
    assert view is not None
    assert view.content == Content(b"\x0b" * 8)


def test_load_tmp_shows_a_snapshot_until_the_device_is_closed_and_changes_nothing() -> None:
    world = given(*A_AND_B, read_only=True)
    seen = after(world, LoadTmp("d0", "1", None), LoadTmp("d0", None, "b"))
    assert image(seen)._replace(view=None) == image(world)
    assert image(seen).view is image(world).snapshots[1]
    assert image(after(seen, Reopen("d0"))).view is None
    assert image(after(seen, SetReadOnly("d0", read_only=False))).view is None
    assert image(after(seen, SetMedium("d0", present=False))).view is None


def test_load_tmp_by_id_or_name_tries_the_name_after_enoent_and_einval_only() -> None:
    world = given(*prepared(("1", "2"), ("2", "1"), ("3", "x")), read_only=True)
    by_id = image(after(world, LoadTmpByIdOrName("d0", "1"))).view
    by_name = image(after(world, LoadTmpByIdOrName("d0", "x"))).view
    assert by_id is image(world).snapshots[0]
    assert by_name is image(world).snapshots[2]
    assert errno(world, LoadTmpByIdOrName("d0", "y")) is ENOENT
    assert errno(given(*A_AND_B), LoadTmpByIdOrName("d0", "1")) is EINVAL
    assert errno(given(kind=Kind.PLAIN, read_only=True), LoadTmpByIdOrName("d0", "1")) is ENOTSUP


# --- guest I/O ------------------------------------------------------------------------------------
def test_guest_io_checks_the_medium_then_read_only_then_bounds() -> None:
    for far in (Write("d0", 7, 2, 1), WriteZeroes("d0", 7, 2), Discard("d0", 7, 2)):
        assert errno(EMPTY, far) is ENOMEDIUM
        assert errno(given(read_only=True), far) is EPERM
        assert errno(given(), far) is EIO
    assert errno(given(read_only=True), Resize("d0", 4)) is Errno.EACCES
    assert errno(EMPTY, Resize("d0", 4)) is ENOMEDIUM
    assert errno(given(read_only=True), VmstateWrite("d0", 0, 1, 1)) is EPERM
    assert errno(given(kind=Kind.PLAIN), VmstateWrite("d0", 0, 1, 1)) is ENOTSUP
    assert errno(given(kind=Kind.PLAIN), VmstateRead("d0", 0, 1)) is ENOTSUP
    assert errno(EMPTY, Flush("d0")) is ENOMEDIUM
    assert errno(given(read_only=True), Flush("d0")) is OK


def test_writes_zero_and_stamp_sectors_and_a_discard_leaves_them_open() -> None:
    world = after(given(), Write("d0", 1, 2, 5), WriteZeroes("d0", 2, 2), Discard("d0", 0, 4))
    assert image(world).content == Content(b"\x09\x05\0\0\x09\x09\x09\x09", ((0, b"\0"), (1, b"\0")))
    assert image(after(world, Write("d0", 0, 1, 7))).content.maybe == ((1, b"\0"),)


def test_a_resize_cuts_or_adds_zeroes_and_leaves_snapshots_alone() -> None:
    world = after(given(*A_AND_B), Discard("d0", 7, 1), Resize("d0", 4))
    assert (image(world).sectors, image(world).content) == (4, Content(b"\x09" * 4))
    grown = after(world, Resize("d0", 6))
    assert image(grown).content == Content(b"\x09" * 4 + b"\0\0")
    assert image(grown).snapshots == image(given(*A_AND_B)).snapshots


def test_vm_state_reads_as_zeroes_where_nothing_was_written_and_a_resize_may_move_it() -> None:
    world = after(given(), VmstateWrite("d0", 2, 3, 1))
    data = answer(world, VmstateRead("d0", 0, 8)).data
    assert data == b"\0\0" + vmstate_pattern(tag=1, offset=2, length=3) + b"\0\0\0"
    assert answer(after(world, Resize("d0", 4)), VmstateRead("d0", 0, 8)).data is None
    assert answer(after(given(), Resize("d0", 4)), VmstateRead("d0", 0, 2)).data == b"\0\0"


def test_vm_state_under_load_tmp_is_the_snapshots_unless_the_sizes_differ() -> None:
    stored = PreparedSnapshot("1", "a", 8, 3, vm_state_size=4)
    seen = after(given(stored, read_only=True), LoadTmp("d0", "1", None))
    assert answer(seen, VmstateRead("d0", 0, 4)).data == vmstate_pattern(tag=3, offset=0, length=4)
    other = after(given(replace(stored, sectors=24), read_only=True), LoadTmp("d0", "1", None))
    assert answer(other, VmstateRead("d0", 0, 4)).data is None


# --- the environment ------------------------------------------------------------------------------
def test_bitmaps_are_added_once_and_removed_once_at_each_node() -> None:
    world = after(given(kind=Kind.RAW_OVER), AddBitmap("d0", "bm"))
    assert errno(world, AddBitmap("d0", "bm")) is Errno.EEXIST
    assert errno(world, RemoveBitmap("d0/file", "bm")) is ENOENT
    both = after(world, AddBitmap("d0/file", "bm")).devices["d0"]
    assert (both.bitmaps, both.child_bitmaps) == (frozenset({"bm"}), frozenset({"bm"}))
    assert errno(EMPTY, AddBitmap("d0", "bm")) is ENOMEDIUM


@pytest.mark.parametrize("closing", [Reopen("d0"), SetReadOnly("d0", read_only=False), SetMedium("d0", present=True)])
def test_what_closes_a_device_takes_the_bitmaps_of_both_nodes_with_it(closing: Operation) -> None:
    world = after(given(kind=Kind.RAW_OVER), AddBitmap("d0", "bm"), AddBitmap("d0/file", "bm"), closing)
    assert world == given(kind=Kind.RAW_OVER)


def test_without_a_medium_read_only_is_remembered_and_a_reopen_fails() -> None:
    out = after(given(), SetMedium("d0", present=False), SetMedium("d0", present=False))
    assert errno(out, Reopen("d0")) is ENOMEDIUM
    back = after(out, SetReadOnly("d0", read_only=True), SetMedium("d0", present=True)).devices["d0"]
    assert (back.present, back.read_only) == (True, True)
    for refused in (Reopen("d0"), SetReadOnly("d0", read_only=True), SetMedium("d0", present=True)):
        assert errno(EMPTY, refused) is ENOMEDIUM
    assert errno(EMPTY, SetMedium("d0", present=False)) is OK


# --- under faults (G, BUGS 7) ---------------------------------------------------------------------
def test_a_delay_changes_nothing() -> None:
    world = given(*A_AND_B)
    slow = IoFault("d0", "any", Delay(10), times=0)
    assert step(world, Create("d0", "x"), (slow,)) == step(world, Create("d0", "x"), ())


def test_a_failed_create_leaves_the_old_list_and_the_chosen_id() -> None:
    world = given(*A_AND_B)
    failed = [
        each for each in step(world, Create("d0", "x"), (WRITE_FAILS,)) if each.expected.errnos == frozenset({ENOSPC})
    ]
    assert [(each.expected.sn, each.devices) for each in failed] == [((SnapshotInfo("3", "x"),), {})]


def test_a_create_call_that_was_not_made_leaves_sn_alone() -> None:
    failed = step(given(*A_AND_B), Create("d0", "x"), (CallFault("d0", "create", errno=EIO),))[1]
    assert failed.expected.sn == (SnapshotInfo("", "x"),)
    assert failed.devices == {}


def test_a_fault_may_be_absorbed() -> None:
    world = given(*A_AND_B)
    allowed = under(world, Create("d0", "x"), WRITE_FAILS)
    assert allowed.keys() == {SUCCESS, frozenset({ENOSPC})}
    assert names(allowed[SUCCESS][0][0]) == ["a", "b", "x"]


def test_a_create_that_could_not_be_undone_may_be_there_with_a_note() -> None:
    failed = under(given(), Create("d0", "x"), ALL_FAIL)[frozenset({EIO})]
    assert [(names(state), bool(note)) for state, note in failed] == [([], False), (["x"], True)]


def test_a_failed_goto_is_old_or_with_a_note_new_and_a_call_that_was_not_made_is_old() -> None:
    world = given(*A_AND_B)
    failed = under(world, Goto("d0", "1"), WRITE_FAILS)[frozenset({ENOSPC})]
    assert [(state, note) for state, note in failed] == [
        (world.devices["d0"], ""), (after(world, Goto("d0", "1")).devices["d0"], "B.3"),
    ]  # fmt: skip
    not_made = under(world, Goto("d0", "1"), CallFault("d0", "goto", errno=ENOSPC))
    assert not_made[frozenset({ENOSPC})] == [(world.devices["d0"], "")]


def test_a_failed_delete_is_old_or_with_a_note_new() -> None:
    world = given(*A_AND_B)
    failed = under(world, Delete("d0", "1", None), WRITE_FAILS)[frozenset({ENOSPC})]
    assert [(names(state), note) for state, note in failed] == [(["a", "b"], ""), (["b"], "B.4")]


def test_a_goto_through_the_fallback_may_leave_a_dead_node_whose_image_is_old_or_new() -> None:
    world = after(given(*A_AND_B, kind=Kind.RAW_OVER), AddBitmap("d0/file", "bm"), RemoveBitmap("d0/file", "bm"))
    failed = under(world, Goto("d0", "1"), ALL_FAIL)[frozenset({EIO})]
    dead = [state for state, note in failed if note == "W-26"]
    assert dead
    assert not any(state.present for state in dead)
    assert {state.image.content.tags[0] for state in dead if state.image} == {9, 11}
    gone = World({"d0": dead[0]})
    assert errno(gone, List("d0")) is ENOMEDIUM
    assert errno(gone, List("d0/file")) is ENOMEDIUM
    assert after(gone, SetMedium("d0", present=True)).devices["d0"].present


def test_a_goto_call_that_fails_leaves_the_fallback_open() -> None:
    world = given(*A_AND_B, kind=Kind.FILTER_OVER)
    allowed = under(world, Goto("d0", "1"), CallFault("d0", "goto", errno=EIO))
    assert all(state.present for states in allowed.values() for state, _ in states)


def test_a_bitmap_refuses_before_any_fault_of_the_driver_counts() -> None:
    world = after(given(*A_AND_B), AddBitmap("d0", "bm"))
    assert under(world, Goto("d0", "1"), WRITE_FAILS).keys() == {frozenset({EBUSY})}


def test_a_find_under_a_fault_is_a_miss_or_as_ever_and_a_list_fails() -> None:
    world = given(*A_AND_B)
    assert under(world, Find("d0", "a"), CallFault("d0", "find", errno=EIO)).keys() == {SUCCESS, frozenset({ENOENT})}
    assert under(world, List("d0"), CallFault("d0", "list", errno=EIO)).keys() == {SUCCESS, frozenset({EIO})}
    denied = step(world, FindByIdAndName("d0", "1", None), (CallFault("d0", "list", errno=EIO),))[1]
    assert (denied.expected.answer, denied.expected.message) == (False, True)


def test_a_load_tmp_whose_id_failed_with_enoent_may_show_the_name() -> None:
    world = given(*prepared(("1", "2"), ("2", "1")), read_only=True)
    call = LoadTmpByIdOrName("d0", "1")
    shown = under(world, call, CallFault("d0", "load_tmp", errno=ENOENT))[SUCCESS]
    assert {state.image.view.info.id_str for state, _ in shown if state.image and state.image.view} == {"1", "2"}
    allowed = under(world, call, CallFault("d0", "load_tmp", errno=EIO))
    assert {state.image.view.info.id_str for state, _ in allowed[SUCCESS] if state.image and state.image.view} == {"1"}
    assert allowed[frozenset({EIO})] == [(world.devices["d0"], "")]


def test_a_failed_guest_write_leaves_each_sector_old_or_new() -> None:
    world = given()
    ((torn, note),) = under(world, Write("d0", 0, 2, 5), WRITE_FAILS)[frozenset({ENOSPC})]
    assert torn.image is not None
    assert torn.image.content == Content(b"\x09" * 8, ((0, b"\x05"), (1, b"\x05")))
    assert note == ""


def test_a_failed_resize_is_old_unless_it_could_not_be_undone() -> None:
    world = given()

    def sizes(*faults: Fault) -> list[int]:
        failed = [states for errnos, states in under(world, Resize("d0", 4), *faults).items() if OK not in errnos]
        return [state.image.sectors for states in failed for state, _ in states if state.image]

    assert sizes(WRITE_FAILS) == [8]
    assert sizes(ALL_FAIL) == [8, 4]
    assert sizes(IoFault("d0", "truncate", LandsButFails(EIO))) == [8, 4]


def test_a_failed_vm_state_write_leaves_the_guest_data_alone() -> None:
    world = given()
    ((state, _),) = under(world, VmstateWrite("d0", 0, 9, 1), WRITE_FAILS)[frozenset({ENOSPC})]
    assert state.image is not None
    assert (state.image.vmstate, state.image.content) == (None, image(world).content)


def test_a_failed_reopen_leaves_the_device_open_anew_or_without_a_medium() -> None:
    world = after(given(), AddBitmap("d0", "bm"))
    for operation in (Reopen("d0"), SetReadOnly("d0", read_only=True), SetMedium("d0", present=True)):
        failed = under(world, operation, ALL_FAIL)[frozenset({EIO})]
        assert [(state.present, state.bitmaps) for state, _ in failed] == [(True, frozenset()), (False, frozenset())]
    out = under(world, SetMedium("d0", present=False), ALL_FAIL)[frozenset({EIO})]
    assert [state.present for state, _ in out] == [False]


def test_several_faults_allow_the_error_of_each() -> None:
    faults = (CallFault("d0", "delete", errno=Errno.EAGAIN), WRITE_FAILS)
    assert under(given(*A_AND_B), Delete("d0", "1", None), *faults).keys() == {
        SUCCESS, frozenset({Errno.EAGAIN, ENOSPC}),
    }  # fmt: skip


def test_a_damaged_device_may_answer_anything_and_is_told_by_its_errno() -> None:
    world = given(*A_AND_B)
    outcomes = step(world, SetReadOnly("d0", read_only=True), (IoFault("d0", "read", BitFlip(3)),))
    by_errnos = {outcome.expected.errnos: only_state(outcome.devices["d0"]) for outcome in outcomes}
    assert by_errnos[SUCCESS].read_only
    assert by_errnos[ANY_ERROR].present
    assert all(state.damaged for state in by_errnos.values())
    flushed = step(world, Flush("d0"), (IoFault("d0", "read", BitFlip(3)),))
    assert all(only_state(outcome.devices["d0"]).damaged for outcome in flushed)


@pytest.mark.parametrize("semantics", list(Semantics))
def test_one_device_behaves_the_same_in_every_profile(semantics: Semantics) -> None:
    classic, other = given(*A_AND_B), given(*A_AND_B, semantics=semantics)
    for call in (*LOCAL_CALLS, Resize("d0", 4), CanSnapshot("d0"), Find("d0", "a")):
        assert step(classic, call, ()) == step(other, call, ())
