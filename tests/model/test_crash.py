"""What a power cut may leave: the last flushed or any later value, snapshots old or new, a group's prefix.

Then each law of power cuts, where it holds and where it is broken, on small hand-made remains.
"""

from collections.abc import Sequence

import pytest
from snapcheck.model import crash_laws
from snapcheck.model.crash import Course, Remains, begin, changes_of, course, differences, stages_that_fit
from snapcheck.model.crash_laws import CutFacts
from snapcheck.model.device import World
from snapcheck.model.facts import Evidence, error
from snapcheck.model.history import After, Check, Level, Observation, SnapshotContent, View
from snapcheck.model.law_names import Law
from snapcheck.model.operations import (
    AllCreate,
    AllDelete,
    AllGoto,
    Create,
    Delete,
    Discard,
    Flush,
    Goto,
    Operation,
    Reopen,
    Resize,
    SaveVm,
    SnapshotAction,
    SubmitWrite,
    Transaction,
    Write,
)
from snapcheck.model.power_cut import Cut, Filling
from snapcheck.model.setup import DeviceSpec, Kind, Setup
from snapcheck.model.snapshot import SnapshotInfo
from snapcheck.model.step import start, step


def small(*names: str) -> World:
    return start(Setup(tuple(DeviceSpec(name, sectors=4, tag=9) for name in names or ("d0",))))


def after(world: World, operation: Operation) -> World:
    changed = {name: states[0].state for name, states in step(world, operation, ())[0].devices.items()}
    return World({**world.devices, **changed}, world.semantics)


def cut_during(world: World, *operations: Operation) -> tuple[World, Course]:
    """Return the state before the last operation, and the stages that it goes through."""
    stages = Course((begin(world),), frozenset())
    before = world
    for operation in operations:
        before, stages = world, course(stages.stages[-1], world, operation)
        world = after(world, operation)
    return before, stages


def seen(content: bytes, *snapshots: tuple[str, bytes], device: str = "d0") -> Observation:
    infos = tuple(SnapshotInfo(str(number), name) for number, (name, _) in enumerate(snapshots, 1))
    held = tuple(SnapshotContent(tags, len(tags)) for _, tags in snapshots)
    view = View(infos, len(content), content)
    return Observation(device, Level.FULL, view, view, held)


def left_by(world: World, *operations: Operation) -> Remains:
    """Return what may be left of d0 when the power goes right after these."""
    return cut_during(world, *operations)[1].stages[-1]["d0"]


# --- the active layer -----------------------------------------------------------------------------
def test_a_sector_holds_what_was_flushed_or_any_later_value() -> None:
    left = left_by(small(), Write("d0", 0, 1, 1), Flush("d0"), Write("d0", 0, 1, 2), Write("d0", 0, 2, 3))
    assert left.content == (b"\1\2\3", b"\x09\3", b"\x09", b"\x09")


def test_a_flush_makes_the_last_value_the_only_one() -> None:
    left = left_by(small(), Write("d0", 0, 1, 1), Write("d0", 0, 1, 2), Flush("d0"))
    assert left.content[0] == b"\2"


def test_an_image_that_was_closed_and_opened_holds_what_was_written_before() -> None:
    left = left_by(small(), Write("d0", 0, 1, 1), Resize("d0", 6), Reopen("d0"), Write("d0", 1, 1, 2))
    assert left.sizes == (6,)
    assert left.content[:2] == (b"\1", b"\x09\2")


def test_a_discard_leaves_the_old_value_or_zeroes() -> None:
    assert set(left_by(small(), Discard("d0", 0, 1)).content[0]) == {9, 0}


def test_a_resize_that_was_not_flushed_leaves_either_size() -> None:
    left = left_by(small(), Resize("d0", 6))
    assert left.sizes == (4, 6)
    assert left.content[4] == b"\0"
    assert [image.sectors for image in left.images()] == [4, 6]


def test_what_was_cut_off_may_come_back_and_what_grew_again_is_zeroes() -> None:
    left = left_by(small(), Resize("d0", 2), Resize("d0", 4))
    assert left.sizes == (2, 4)
    assert set(left.content[3]) == {9, 0}


# --- snapshots ------------------------------------------------------------------------------------
def test_a_create_that_has_returned_is_durable_although_guest_writes_are_not() -> None:
    left = left_by(small(), Write("d0", 0, 1, 1), Create("d0", "a"))
    assert [snapshot.info.name for snapshot in left.snapshots] == ["a"]
    assert left.snapshots[0].content.tags == b"\1\x09\x09\x09"
    assert left.content[0] == b"\x09\1"


def test_a_goto_that_has_returned_leaves_nothing_of_what_was_written_before() -> None:
    left = left_by(small(), Create("d0", "a"), Write("d0", 0, 4, 1), Goto("d0", "a"))
    assert set(left.content) == {b"\x09"}


def test_the_operation_at_work_shows_old_or_new_and_never_a_third_state() -> None:
    before, stages = cut_during(small(), Create("d0", "a"), Write("d0", 0, 4, 1), Flush("d0"), Goto("d0", "a"))
    a = ("a", b"\x09" * 4)

    def fits(content: bytes) -> frozenset[int]:
        return stages_that_fit(stages, before.devices["d0"], seen(content, a))

    assert fits(b"\1" * 4) == {0}
    assert fits(b"\x09" * 4) == {1}
    assert fits(b"\1\1\x09\x09") == frozenset()


def test_the_difference_is_told_from_the_size_that_comes_nearest() -> None:
    before, stages = cut_during(small(), Resize("d0", 6))
    found = differences(stages.stages[-1]["d0"], before.devices["d0"], seen(b"\x09\x09\5\x09"))
    assert [(bad.expected, bad.actual) for bad in found] == [("sector 2: tag 9", "sector 2: tag 5")] * 2


def test_a_snapshot_that_lost_data_fits_no_stage() -> None:
    before, stages = cut_during(small(), Create("d0", "a"), Delete("d0", "1", None))
    broken = seen(b"\x09" * 4, ("a", b"\0\x09\x09\x09"))
    assert stages_that_fit(stages, before.devices["d0"], broken) == frozenset()


# --- groups ---------------------------------------------------------------------------------------
def names(world: World, operation: Operation) -> list[tuple[str, int]]:
    """Return which device changes when, and how many snapshots it has then."""
    return [
        (change.device, len(change.after.image.snapshots) if change.after.image else 0)
        for change in changes_of(world, operation)
    ]


def test_a_group_operation_changes_one_device_after_the_other() -> None:
    world = small("d0", "d1")
    assert names(world, AllCreate("a")) == [("d0", 1), ("d1", 1)]
    assert len(cut_during(world, AllCreate("a"))[1].stages) == 3


def test_savevm_drops_the_old_snapshot_everywhere_before_it_takes_the_new_one_anywhere() -> None:
    world = after(small("d0", "d1"), AllCreate("a"))
    assert names(world, SaveVm("a")) == [("d0", 0), ("d1", 0), ("d0", 1), ("d1", 1)]


def test_savevm_that_ends_as_it_began_drops_and_takes_a_snapshot_all_the_same() -> None:
    world = after(small(), SaveVm("a"))
    assert after(world, SaveVm("a")) == world
    assert names(world, SaveVm("a")) == [("d0", 0), ("d0", 1)]
    before, stages = cut_during(world, SaveVm("a"))
    assert stages_that_fit(stages, before.devices["d0"], seen(b"\x09" * 4)) == {1}


def test_savevm_drops_the_first_of_two_snapshots_of_its_name_and_keeps_the_other() -> None:
    world = after(after(small(), Create("d0", "a")), Create("d0", "a"))
    assert names(world, SaveVm("a")) == [("d0", 1), ("d0", 2)]


def test_a_transaction_that_fails_takes_back_what_it_created() -> None:
    world = after(small("d0", "d1"), Create("d1", "a"))
    operation = Transaction((SnapshotAction("d0", "a"), SnapshotAction("d1", "a")))
    assert names(world, operation) == [("d0", 1), ("d0", 0)]


def test_a_transaction_takes_two_snapshots_of_one_device_one_after_the_other_and_so_takes_them_back() -> None:
    world = after(small("d0", "d1"), Create("d1", "a"))
    two = (SnapshotAction("d0", "a"), SnapshotAction("d0", "b"))
    assert names(world, Transaction(two)) == [("d0", 1), ("d0", 2)]
    refused = Transaction((*two, SnapshotAction("d1", "a")))
    assert names(world, refused) == [("d0", 1), ("d0", 2), ("d0", 1), ("d0", 0)]


def test_a_group_goto_that_stops_half_way_has_changed_the_devices_before() -> None:
    world = after(small("d0", "d1"), Create("d0", "a"))
    assert names(after(world, Write("d0", 0, 1, 1)), AllGoto("a")) == [("d0", 1)]


def test_a_device_without_the_snapshot_is_no_stage_of_a_group_delete() -> None:
    world = after(small("d0", "d1"), Create("d1", "a"))
    before, stages = cut_during(world, AllDelete("a"))
    assert len(stages.stages) == 2
    assert stages.changing == {"d1"}
    assert stages_that_fit(stages, before.devices["d0"], seen(b"\x09" * 4)) == {0, 1}


def test_devices_that_keep_no_image_of_the_driver_are_not_judged() -> None:
    kinds: Sequence[Kind] = (Kind.DRIVER, Kind.PLAIN, Kind.EMPTY, Kind.RAW_OVER)
    setup = Setup(tuple(DeviceSpec(f"d{number}", kind, sectors=4) for number, kind in enumerate(kinds)))
    assert set(begin(start(setup))) == {"d0", "d3"}


def test_a_request_in_flight_lands_before_or_after_what_an_operation_does_and_is_durable_by_nothing() -> None:
    world, request = small(), SubmitWrite("d0", 0, 2, 7)
    left = left_by(world, request, Write("d0", 1, 1, 8))
    assert [set(sector) for sector in left.content] == [{9, 7}, {9, 7, 8}, {9}, {9}]
    assert [set(sector) for sector in left_by(world, request, Flush("d0")).content] == [{9, 7}, {9, 7}, {9}, {9}]
    assert left_by(world, request, Flush("d0"), Flush("d0")).content == (b"\7", b"\7", b"\x09", b"\x09")
    before, stages = cut_during(world, request, Create("d0", "a"))
    landed, third = b"\7\7\x09\x09", b"\7\6\x09\x09"
    assert 0 in stages_that_fit(stages, before.devices["d0"], seen(landed))
    assert stages_that_fit(stages, before.devices["d0"], seen(landed, ("a", landed))) == set()
    assert stages_that_fit(stages, before.devices["d0"], seen(landed, ("a", OLD))) == {stages.last}
    assert stages_that_fit(stages, before.devices["d0"], seen(third)) == set()


OLD, NEW = b"\x09" * 4, b"\1" * 4
HELD = None


def facts(world: World, operation: Operation, observed: Observation, *, returned: bool = False) -> CutFacts:
    stages = course(begin(world), world, operation)
    device = world.devices[observed.device]
    fitting = stages_that_fit(stages, device, observed)
    return CutFacts("the operation", device, stages, returned, observed, fitting)


def answers(law: Law, given: CutFacts) -> list[Evidence | None]:
    return [evidence for asked, evidence in crash_laws.judge(given) if asked is law]


def the_evidence(law: Law, given: CutFacts) -> Evidence:
    (evidence,) = answers(law, given)
    assert evidence is not None
    return evidence


def unreadable(reason: str) -> Observation:
    view = View(errors=(f"open: {reason}",))
    return Observation("d0", Level.FULL, view, check=Check(messages=("l1_table: it is not there",)))


def reverted() -> World:
    """Return a device that is about to go back from NEW to OLD."""
    return after(after(small(), Create("d0", "a")), Write("d0", 0, 4, 1))


A = ("a", OLD)


# --- the laws, of one device -----------------------------------------------------------------------------------
def test_opens_holds_for_what_can_be_read() -> None:
    assert answers(Law.OPENS, facts(small(), Create("d0", "a"), seen(OLD))) == [HELD]


def test_opens_is_broken_by_an_image_that_is_refused() -> None:
    evidence = the_evidence(Law.OPENS, facts(small(), Create("d0", "a"), unreadable("EINVAL")))
    assert evidence.summary == "a cut during the operation leaves d0 so that it does not open"
    assert evidence.actual == "open: EINVAL; l1_table: it is not there"


def test_no_crash_tells_a_driver_that_died_from_one_that_refused() -> None:
    given = facts(small(), Create("d0", "a"), unreadable("died: KeyError"))
    assert the_evidence(Law.NO_CRASH, given).actual == "open: died: KeyError"
    assert answers(Law.OPENS, given) == []


def test_no_hang_tells_a_driver_that_did_not_answer_from_one_that_died() -> None:
    given = facts(small(), Create("d0", "a"), unreadable("hang: it did not end"))
    assert the_evidence(Law.NO_HANG, given).actual == "open: hang: it did not end"
    assert answers(Law.NO_CRASH, given) == answers(Law.OPENS, given) == []
    assert answers(Law.NO_HANG, facts(small(), Create("d0", "a"), unreadable("died: KeyError"))) == [HELD]


def test_durable_holds_when_what_has_returned_is_there() -> None:
    assert answers(Law.DURABLE, facts(small(), Create("d0", "a"), seen(OLD, A), returned=True)) == [HELD]


def test_durable_is_broken_when_a_create_that_has_returned_is_gone() -> None:
    evidence = the_evidence(Law.DURABLE, facts(small(), Create("d0", "a"), seen(OLD), returned=True))
    assert evidence.summary == "a cut after the operation loses what d0 had made durable"
    assert (evidence.expected, evidence.actual) == ("[1:'a']", "[]")


def test_durable_is_broken_when_a_flush_that_has_returned_did_not_keep_a_write() -> None:
    world = after(small(), Write("d0", 0, 4, 1))
    assert the_evidence(Law.DURABLE, facts(world, Flush("d0"), seen(OLD), returned=True)).expected == "sector 0: tag 1"


def test_atomic_op_holds_for_the_old_state_and_for_the_new_one() -> None:
    for content in (OLD, NEW):
        assert answers(Law.ATOMIC_OP, facts(reverted(), Goto("d0", "a"), seen(content, A))) == [HELD]


def test_atomic_op_is_broken_by_a_third_state() -> None:
    world = after(reverted(), Flush("d0"))
    evidence = the_evidence(Law.ATOMIC_OP, facts(world, Goto("d0", "a"), seen(b"\1\1\x09\x05", A)))
    assert evidence.summary == "a cut during the operation leaves d0 neither old nor new"
    assert evidence.expected == "sector 2: tag 1 or sector 0: tag 9"


def test_no_corruption_is_asked_after_a_cut_too_and_leaks_are_none() -> None:
    observed = seen(OLD)
    leaking = Observation("d0", Level.FULL, observed.memory, observed.disk, (), Check(leaks=3))
    corrupt = Observation("d0", Level.FULL, observed.memory, observed.disk, (), Check(1, messages=("cluster 7",)))
    assert answers(Law.NO_CORRUPTION, facts(small(), Create("d0", "a"), leaking)) == [HELD]
    assert the_evidence(Law.NO_CORRUPTION, facts(small(), Create("d0", "a"), corrupt)).actual == "1: cluster 7"


# --- several devices ------------------------------------------------------------------------------
def group() -> Course:
    world = small("d0", "d1")
    return course(begin(world), world, AllCreate("a"))


def test_group_cut_holds_for_a_prefix() -> None:
    for d0, d1 in (({0}, {0, 1}), ({1, 2}, {0, 1}), ({1, 2}, {2})):
        assert crash_laws.group_cut(group(), "all-create", {"d0": frozenset(d0), "d1": frozenset(d1)}) is HELD


def test_group_cut_is_broken_when_a_later_device_is_ahead_of_an_earlier_one() -> None:
    evidence = crash_laws.group_cut(group(), "all-create", {"d0": frozenset({0}), "d1": frozenset({2})})
    assert evidence is not None
    assert (evidence.device, evidence.actual) == ("d0", "d0 old, d1 new")


# --- going on -------------------------------------------------------------------------------------
def test_repair_is_safe_is_broken_by_whatever_repairing_or_opening_loses() -> None:
    found = error(Law.DURABLE, "d0", "a snapshot is gone", "[1:'a']", "[]")
    for after_cut in (After.REPAIR, After.OPEN):
        assert crash_laws.going_on(after_cut, "a cut", "d0", found).law is Law.REPAIR_IS_SAFE


def test_safe_to_use_is_broken_by_whatever_using_it_further_breaks() -> None:
    found = error(Law.SNAPSHOT_IMMUTABLE, "d0", "write changed a snapshot", "tag 1", "tag 2")
    evidence = crash_laws.going_on(After.USE, "a cut during create", "d0", found)
    assert (evidence.law, evidence.summary) == (
        Law.SAFE_TO_USE, "a cut during create, then write changed a snapshot",
    )  # fmt: skip


# --- where they bind ------------------------------------------------------------------------------
@pytest.mark.parametrize("persistence", ["prefix", "epoch", "sector-torn", "one-dropped", "one-kept", "two-dropped"])
def test_the_laws_bind_under_every_medium_that_keeps_what_was_flushed(persistence: str) -> None:
    assert crash_laws.binds(persistence, Cut("d0", 3, (1,)))


def test_under_lying_flushes_and_garbage_only_dying_and_hanging_is_a_violation() -> None:
    assert not crash_laws.binds("no-barriers", Cut("d0", 3))
    assert not crash_laws.binds("epoch", Cut("d0", 3, (1,), fill=Filling.GARBAGE))
    given = facts(small(), Create("d0", "a"), unreadable("EINVAL"))
    free = CutFacts(
        given.what, given.device, given.course, returned=False, seen=given.seen, fitting=given.fitting, bound=False
    )
    assert list(crash_laws.judge(free)) == [(Law.NO_CRASH, HELD), (Law.NO_HANG, HELD)]


@pytest.mark.parametrize("law", list(crash_laws.CRASH_RULES))
def test_every_law_of_power_cuts_has_its_stories_and_says_what_it_is(law: Law) -> None:
    begins = (f"test_{law.name.lower()}_holds", f"test_{law.name.lower()}_is_broken")
    stories = [begin for begin in begins if any(name.startswith(begin) for name in globals())]
    assert stories[-1:] == [begins[1]]
    assert crash_laws.CRASH_RULES[law].says
