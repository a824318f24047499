"""Phase crash: every seeded bug of power cuts is found, shrunk and replayed, and the engine has none of them."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from snapcheck.fault_injection.crash.cuts import Persistence, apply, image_of
from snapcheck.impl.blockfile import BlockError, BlockFile, MemoryFile
from snapcheck.impl.driver import CreateOptions, Driver
from snapcheck.impl.generic import Node
from snapcheck.impl.group import ClassicGroup
from snapcheck.impl.local import LocalSystem
from snapcheck.impl.perform import Parts
from snapcheck.impl.qcow2 import Image, inspect, repair
from snapcheck.impl.qcow2.driver import Qcow2Driver
from snapcheck.impl.qcow2.driver import open_driver as open_qcow2
from snapcheck.impl.qcow2.layout import DIRTY, OFFSET_MASK
from snapcheck.impl.qcow2.prepare import prepared_image
from snapcheck.impl.targets import Target, find_target
from snapcheck.model.errno import Errno
from snapcheck.model.history import After
from snapcheck.model.law_names import Law
from snapcheck.model.match import died_of
from snapcheck.model.operations import (
    AllCreate,
    AllGoto,
    Create,
    Delete,
    Flush,
    Goto,
    Operation,
    Reopen,
    Write,
    kind_of,
)
from snapcheck.model.setup import DeviceSpec, Semantics, Setup, Unfinished
from snapcheck.model.step import start as first_state
from snapcheck.reports import reproducer, timeline
from snapcheck.reports.verdict import Verdict
from snapcheck.reports.words import cut_words
from snapcheck.stateful_tests.gather import Gatherer
from snapcheck.stateful_tests.phases import crash
from snapcheck.stateful_tests.power_cuts.again import cut_again
from snapcheck.stateful_tests.power_cuts.going_on import GoingOn, remnant
from snapcheck.stateful_tests.power_cuts.judging import CutJudge, Found, Left, Plan, judge_recorded
from snapcheck.stateful_tests.power_cuts.recording import Recorded, Recording, record
from snapcheck.stateful_tests.power_cuts.seeing import eyes_of, observation
from snapcheck.stateful_tests.power_cuts.workloads import CHANGING_KINDS, STARTS, crash_operations, starts
from snapcheck.stateful_tests.replay import ReplayState, how_to_open, replay, write_disks
from snapcheck.stateful_tests.run import RunOptions, Silent, run_driver
from snapcheck.stateful_tests.seeded_bugs import POWER_CUTS, SeededBug
from snapcheck.stateful_tests.seeded_bugs.planting import Insider
from snapcheck.stateful_tests.shrink import Shrunk, shrink
from snapcheck.stateful_tests.units import SHARDS, Answer, Failure, Profile, Unit
from snapcheck.stateful_tests.watchdog import Watchdog, watchdog
from snapcheck.stateful_tests.work import Control

ENGINE = find_target("qcow2")
SMALL = Setup((DeviceSpec("d0", sectors=16, cluster_bytes=512, tag=9),))
PAIR = Setup(tuple(DeviceSpec(name, sectors=16, cluster_bytes=512, tag=9) for name in ("d0", "d1")))
PER_SHARD = 6  # all of length 1 on the first images; a quick run has the time for more
OPERATIONS_MAX = 4
HANGS_AFTER = 1.5  # seconds: on a busy machine what does not hang may take some tenths
LOST_MAX = 2


def answer_to(
    driver: str = "qcow2", *, shard: int = 0, histories: int | None = PER_SHARD, journal: Path | None = None
) -> Answer:
    unit = Unit(
        driver=driver, phase=crash.NAME, semantics=Semantics.CLASSIC, devices=2, seed=3, shard=shard,
        histories=histories, seconds=None, profile=Profile.QUICK, journal=None if journal is None else str(journal),
    )  # fmt: skip
    return crash.run(unit, Control(lambda _: None))


def recording_of(target: Target, setup: Setup, *operations: Operation) -> Recording:
    recording = record(target, setup, operations).recording
    assert recording is not None
    return recording


def judged(judge: CutJudge, persistence: Persistence = Persistence.EPOCH) -> list[Found | Left]:
    return [*judge.judge(Plan((persistence,), 1 << 7))]


def leaking(judge: CutJudge) -> Left:
    """Return a disk on which clusters leak, of those that are left."""
    disks = (each for each in judged(judge) if isinstance(each, Left))
    return next(each for each in disks if each.observed.check is not None and each.observed.check.leaks)


# --- the seeded bugs ------------------------------------------------------------------------------
def found_by_the_phase(bug: SeededBug) -> Failure:
    """Return a failure that shows the law that the bug breaks."""
    for shard in range(SHARDS):
        for failure in answer_to(bug.driver, shard=shard).failures:
            if failure.evidence[0].law is bug.law:
                return failure
    pytest.fail(f"{bug.name} was not found")


@pytest.mark.parametrize("bug", POWER_CUTS, ids=lambda bug: bug.name)
def test_a_seeded_bug_is_found_and_shrunk(bug: SeededBug) -> None:
    failure = found_by_the_phase(bug)
    shrunk = shrink(find_target(bug.driver), failure.history, failure.evidence, seconds=60)
    assert shrunk.evidence[0].law is bug.law
    assert len(shrunk.history.steps) <= OPERATIONS_MAX
    assert shrunk.history.cut is not None
    assert sum(len(each.dropped) for each in shrunk.history.cut.devices) <= LOST_MAX


def test_a_quick_run_soon_tries_what_follows_a_write_over_shared_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: set[tuple[str, ...]] = set()

    def noted(target: Target, setup: Setup, operations: Sequence[Operation], *, dog: Watchdog) -> Recorded:
        tried.add(tuple(kind_of(each) for each in operations[-2:]))
        return record(target, setup, operations, dog=dog)

    monkeypatch.setattr(crash, "record", noted)
    for shard in range(SHARDS):
        answer_to(shard=shard)
    assert {("write", then) for then in ("flush", "create", "goto", "delete")} <= tried


def test_the_five_bugs_of_the_list_are_there() -> None:
    assert {bug.row for bug in POWER_CUTS} == {"B01", "B02", "B04", "B06", "B15"}


@pytest.fixture(scope="module")
def lowered_early() -> Shrunk:
    """A cut during a delete that lowers counts too early."""
    target = find_target(POWER_CUTS[0].driver)
    recording = recording_of(target, SMALL, Create("d0", "a"), Delete("d0", "1", None))
    found = next(each for each in judged(CutJudge(recording)) if isinstance(each, Found))
    history = recording.history
    history.cut = found.cut
    return shrink(target, history, (found.evidence,), seconds=60)


def test_a_reproducer_replays_the_cut_and_passes_on_a_driver_that_is_right(
    lowered_early: Shrunk, tmp_path: Path
) -> None:
    options = RunOptions(phases=(crash.NAME,), profile=Profile.QUICK, histories=24, shrink_seconds=0.4)
    result = run_driver(find_target(POWER_CUTS[0].driver), options, Silent()).result
    assert result.verdict is Verdict.FAILED
    reproducer.write(tmp_path, result)
    violation = next(each for each in result.violations if each.law is Law.NO_CORRUPTION)
    driver, history, _ = reproducer.read(tmp_path / f"{violation.id}.py")
    again = replay(find_target(driver), history, law=violation.law)
    assert again.state is ReplayState.STILL_FAILS
    assert lowered_early.history.cut is not None
    assert again.history.cut is not None
    assert cut_words(again.history.cut) in again.text
    assert replay(ENGINE, history).state is ReplayState.FIXED


def test_the_disk_that_a_cut_leaves_is_written_and_shows_the_damage(lowered_early: Shrunk, tmp_path: Path) -> None:
    (path,) = write_disks(find_target(POWER_CUTS[0].driver), lowered_early.history, tmp_path / "disks")
    assert path.name == "d0.qcow2"
    assert inspect(MemoryFile("d0", path.read_bytes())).corruptions


def test_a_phase_that_is_interrupted_counts_the_laws_that_it_found_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    keep_failure = Gatherer.keep_failure

    def interrupted(gatherer: Gatherer, failure: Failure) -> None:
        keep_failure(gatherer, failure)
        raise KeyboardInterrupt

    monkeypatch.setattr(Gatherer, "keep_failure", interrupted)
    answer = next(each for shard in range(SHARDS) if (each := answer_to(POWER_CUTS[0].driver, shard=shard)).failures)
    assert answer.interrupted
    assert answer.laws[answer.failures[0].evidence[0].law][1] > 0


class _Impatient(Control):
    """Asks for the end after it was asked so many times."""

    def __init__(self, patience: int) -> None:
        super().__init__(lambda _: None)
        self.left = patience

    def stop_asked(self) -> bool:
        self.left -= 1
        return self.left < 0


LATE = Unit(
    driver="qcow2", phase=crash.NAME, semantics=Semantics.CLASSIC, devices=2, seed=3, shard=0, histories=None,
    seconds=None, profile=Profile.QUICK,
)  # fmt: skip


def test_a_workload_is_broken_off_when_time_is_up_and_counts_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given how often somebody asks for the time while the disks of the first workload are judged
    patient = _Impatient(1 << 20)
    monkeypatch.setattr(crash, "_SECONDS_MIN", 0.0)
    whole = crash.run(replace(LATE, histories=1), patient)
    asked = (1 << 20) - patient.left
    # When it is up in the midst of that, or while it is gone on with some of them
    early, late = crash.run(LATE, _Impatient(asked // 2)), crash.run(LATE, _Impatient(asked - 1))
    # Then that workload is no history either way, and nothing counts as judged that was not
    for answer in (early, late):
        assert (answer.histories, answer.digests, answer.out_of_time, answer.length) == (0, [], True, 0)
        assert answer.counts[crash.BROKEN_OFF] == 1
    assert early.counts[timeline.ENUMERATED] == early.laws[Law.OPENS][0] == 0
    assert late.counts[timeline.ENUMERATED] == whole.counts[timeline.ENUMERATED]
    assert 0 < late.laws[Law.OPENS][0] <= whole.laws[Law.OPENS][0]


def test_a_workload_that_takes_no_longer_than_most_is_finished_however_late_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(crash, "_SECONDS_MIN", 600.0)
    answer = crash.run(LATE, _Impatient(1))
    assert (answer.histories, answer.out_of_time, answer.counts[crash.BROKEN_OFF]) == (1, True, 0)
    assert answer.counts == answer_to(histories=1).counts


# --- the engine -----------------------------------------------------------------------------------
def test_the_engine_passes_with_every_law_of_power_cuts_checked() -> None:
    options = RunOptions(phases=(crash.NAME,), profile=Profile.QUICK, histories=32, devices=2)
    result = run_driver(ENGINE, options, Silent()).result
    assert [each.summary for each in result.violations] == []
    assert result.verdict is Verdict.PASSED, result.notes
    assert {each.law for each in result.laws if each.checked} >= set(crash.LAWS)
    (phase,) = result.phases
    assert {"enumerated", "distinct", "judged", "workloads"} <= phase.counts.keys()
    assert not phase.complete
    assert phase.scope.startswith(
        "a cut at every place of some sequences of length 1 and 2 from 13 images on 1 to 2 devices"
    )
    gone_on_with, needed = phase.counts[crash.GONE_ON_WITH], phase.counts[crash.DISKS] - phase.counts[crash.NO_NEED]
    assert 0 < gone_on_with < needed
    assert phase.scope.endswith(f"going on with {gone_on_with} of {needed} disks that differ in what is read")


def test_the_scope_says_which_sequences_were_all_cut_and_which_in_part() -> None:
    def told(profile: Profile, length: int) -> str:
        return crash.scope(profile, devices=1, length=length, counts={}).partition(" from ")[0].partition(" of ")[2]

    assert told(Profile.QUICK, 0) == "some sequences of length 1 and 2"
    assert told(Profile.QUICK, 1) == "all sequences of length 1 and some of length 2"
    assert [told(Profile.DEEP, length) for length in range(4)] == [
        "some sequences of length 1", "all sequences of length 1 and some of length 2",
        "all sequences of length 2 and some of length 3", "all sequences of length 3",
    ]  # fmt: skip


def test_once_all_workloads_of_a_length_were_judged_it_is_gone_on_with_every_disk_that_they_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_more(*_: object, **__: object) -> Setup:
        raise KeyboardInterrupt

    reach = replace(crash.REACHES[Profile.DEFAULT], points=2, length=1, go_on=1)
    monkeypatch.setitem(crash.REACHES, Profile.QUICK, reach)
    monkeypatch.setattr(crash, "draw_setup", no_more)  # random histories come after that
    first = answer_to(histories=None, journal=tmp_path / "journal")
    counts = first.counts
    assert first.length == 1
    assert counts[crash.GONE_ON_WITH] > counts["workloads"]
    assert counts[crash.GONE_ON_WITH] + counts[crash.NO_NEED] == counts[crash.DISKS]
    again = answer_to(histories=None, journal=tmp_path / "journal")
    assert again.digests == first.digests
    assert again.counts == first.counts


def test_equal_seeds_give_equal_histories_and_a_journal_keeps_them(tmp_path: Path) -> None:
    first, second = answer_to(shard=2), answer_to(shard=2, journal=tmp_path / "journal")
    assert first.digests == second.digests
    assert first.counts == second.counts
    again = answer_to(shard=2, journal=tmp_path / "journal")
    assert again.digests == first.digests
    assert again.counts == first.counts


@pytest.mark.parametrize("persistence", list(Persistence))
def test_two_devices_are_left_at_one_stage_of_a_group_operation(persistence: Persistence) -> None:
    recording = recording_of(ENGINE, PAIR, AllCreate("a"), Write("d0", 0, 4, 3), Write("d1", 0, 4, 3), AllGoto("a"))
    judge = CutJudge(recording)
    assert not [each for each in judged(judge, persistence) if isinstance(each, Found)]
    binding = persistence is not Persistence.NO_BARRIERS
    assert (judge.laws[Law.GROUP_CUT][0] > 0) is binding


# --- bugs that other laws show --------------------------------------------------------------------
class _Backwards(ClassicGroup):
    """Goes through the devices from the last to the first."""

    __slots__ = ()

    def _walk(self, also: str | None = None) -> Iterator[Node]:
        return reversed([*super()._walk(also)])  # type: ignore[return-value]  # iterated, no more


def test_group_cut_is_broken_when_a_group_goes_backwards() -> None:
    layers = type("Planted", (LocalSystem,), {"parts": Parts(classic_group=_Backwards)})
    target = Target("backwards", "a group that goes backwards", open_qcow2, layers=layers)
    found = [each for each in judged(CutJudge(recording_of(target, PAIR, AllCreate("a")))) if isinstance(each, Found)]
    assert {each.evidence.law for each in found} == {Law.GROUP_CUT}
    assert found[0].evidence.actual == "d0 old, d1 new"
    assert len(found[0].cut.devices) == 2
    history = replace(record(target, PAIR, (AllCreate("a"),)).session.history, cut=found[0].cut)
    assert judge_recorded(history) == (found[0].evidence,)
    again = replay(target, history, law=Law.GROUP_CUT)
    assert again.state is ReplayState.STILL_FAILS
    hint = how_to_open((Path("d0.qcow2"), Path("d1.qcow2")), target, found[0].cut)
    assert hint.endswith("compare them with `qemu-img snapshot -l d0.qcow2` and `qemu-img snapshot -l d1.qcow2`")
    assert replay(ENGINE, history).state is ReplayState.FIXED


class _ClosedInHaste(Image):
    """Forgets to flush when it is closed."""

    __slots__ = ()

    def close(self) -> None:
        self._state.settle()


class _Hasty(Qcow2Driver):
    __slots__ = ()
    image_type = _ClosedInHaste


def test_what_was_closed_is_durable() -> None:
    hasty = Target("hasty", "closes in haste", _Hasty.open)
    for target, law in ((ENGINE, set[Law]()), (hasty, {Law.DURABLE})):
        recording = recording_of(target, SMALL, Write("d0", 0, 4, 3), Reopen("d0"))
        found = [each for each in judged(CutJudge(recording)) if isinstance(each, Found)]
        assert {each.evidence.law for each in found} == law


def test_a_file_alone_decides_what_a_cut_broke(lowered_early: Shrunk) -> None:
    assert judge_recorded(lowered_early.history)[0] == lowered_early.evidence[0]


def test_a_file_that_names_a_medium_of_another_version_is_replayed_all_the_same(lowered_early: Shrunk) -> None:
    cut = lowered_early.history.cut
    assert cut is not None
    history = replace(lowered_early.history, cut=replace(cut, persistence="moonlight"))
    assert replay(find_target(POWER_CUTS[0].driver), history).state is ReplayState.STILL_FAILS


def _went_wrong_before(disk: BlockFile) -> bool:
    return disk.size() > 0 and inspect(disk).leaks > 0


def sweeps_up_carelessly(disk: BlockFile, *, read_only: bool, create: CreateOptions | None) -> Driver:
    """Open an image; where clusters leak all counts are forgotten first, and then made anew."""
    if create is None and not read_only and _went_wrong_before(disk):
        block = Image.open(disk, read_only=True).header.refcount_table_offset
        place = int.from_bytes(disk.pread(block, 8), "big")
        disk.pwrite(place, bytes(512), region="refcount-block")
        disk.flush()
        repair(disk)
    return open_qcow2(disk, read_only=read_only, create=create)


class _WritesInPlace(Insider):
    """Writes over clusters wherever they are, shared or not."""

    __slots__ = ()

    def write(self, offset: int, data: bytes) -> None:
        state = self._state
        for place in range(0, len(data), 512):
            host = state.tables.entry((offset + place) >> 9) & OFFSET_MASK
            if host:
                state.host.write(host, data[place : place + 512], "data")
            else:
                super().write(offset + place, data[place : place + 512])


def forgets_to_copy(disk: BlockFile, *, read_only: bool, create: CreateOptions | None) -> Driver:
    """Open an image; where clusters leak nothing is copied any more."""
    careless = create is None and not read_only and _went_wrong_before(disk)
    opened = _WritesInPlace if careless else Qcow2Driver
    return opened.open(disk, read_only=read_only, create=create)


def gone_on_with(target: Target, *operations: Operation) -> list[Found]:
    judge, going_on = CutJudge(recording_of(target, SMALL, *operations)), GoingOn()
    return [
        found
        for left in judged(judge)
        if isinstance(left, Left)
        for witness in left.judged.witnesses
        for found in going_on.go_on(remnant(judge, left, witness))
    ]


def test_repair_is_safe_is_broken_when_opening_can_not_be_cut() -> None:
    target = Target("careless", "opens carelessly", sweeps_up_carelessly)
    found = gone_on_with(target, Create("d0", "a"), Goto("d0", "a"))
    assert {each.evidence.law for each in found} == {Law.REPAIR_IS_SAFE}
    assert {each.cut.after for each in found} == {After.OPEN}
    assert all(each.cut.again is not None for each in found)


def trusts_counts_too_early(disk: BlockFile, *, read_only: bool, create: CreateOptions | None) -> Driver:
    """Open an image; where counts are stale it says first that they are not, and puts them right then."""
    if create is None and not read_only and disk.pread(79, 1)[0] & DIRTY:
        disk.pwrite(79, bytes(1), region="header")
        disk.flush()
        repair(disk)
    return open_qcow2(disk, read_only=read_only, create=create)


def test_a_first_open_that_writes_is_cut_itself() -> None:
    start = dict(STARTS)["counts written lazily"]
    for target, laws in (
        (ENGINE, set[Law]()),
        (Target("hasty", "trusts counts too early", trusts_counts_too_early), {Law.NO_CORRUPTION, Law.REPAIR_IS_SAFE}),
    ):
        judge, going_on = CutJudge(recording_of(target, start.setup, *start.before, Flush("d0"))), GoingOn()
        seen = judged(judge)
        opened_again = [
            found
            for left in seen
            if isinstance(left, Left) and left.sound
            for witness in left.judged.witnesses
            for found in going_on.go_on(remnant(judge, left, witness))
        ]
        found = [*(each for each in seen if isinstance(each, Found)), *opened_again]
        assert {each.evidence.law for each in found} == laws
        assert {each.cut.after for each in opened_again} == ({After.OPEN} if laws else set())
        assert all("a second cut corrupts the image" in each.evidence.summary for each in opened_again)
        assert all("refcount 0, references 1" in each.evidence.actual for each in opened_again)
        assert going_on.laws[Law.REPAIR_IS_SAFE][0] > len(going_on.tried)  # the opens besides the repairs


@pytest.mark.parametrize("what", Unfinished)
def test_what_is_left_to_the_first_open_is_put_right_by_it_and_not_by_whoever_only_reads(what: Unfinished) -> None:
    disk = prepared_image(replace(SMALL.devices[0], unfinished=what))
    before = disk.clone()
    Image.open(disk, read_only=True).close()
    assert disk.pread(0, disk.size()) == before.pread(0, before.size())
    Image.open(disk).close()
    assert disk.pread(0, disk.size()) != before.pread(0, before.size())
    assert inspect(disk).corruptions == 0
    header = Image.open(disk, read_only=True).header
    assert not header.incompatible & DIRTY
    assert not header.autoclear


def test_safe_to_use_is_broken_when_a_driver_writes_over_what_a_snapshot_holds() -> None:
    target = Target("forgetful", "forgets to copy", forgets_to_copy)
    found = gone_on_with(target, Create("d0", "a"), Goto("d0", "a"))
    assert {each.evidence.law for each in found} == {Law.SAFE_TO_USE}
    assert all(each.cut.then for each in found)
    history = recording_of(target, SMALL, Create("d0", "a"), Goto("d0", "a")).history
    again = replay(target, replace(history, cut=found[0].cut), law=Law.SAFE_TO_USE)
    assert again.state is ReplayState.STILL_FAILS
    assert "the disk is used further: write d0 sector=0 " in again.text
    assert again.history.cut is not None
    assert "as it was before it was used further" in how_to_open((Path("d0.qcow2"),), target, again.history.cut)


def test_going_on_with_what_the_engine_leaves_breaks_nothing() -> None:
    found = gone_on_with(ENGINE, Create("d0", "a"), Write("d0", 0, 4, 3), Create("d0", "b"), Goto("d0", "a"))
    assert found == []


def test_an_open_that_writes_nothing_does_not_count_for_repair_is_safe() -> None:
    judge, going_on = CutJudge(recording_of(ENGINE, SMALL, Create("d0", "a"), Goto("d0", "a"))), GoingOn()
    left = leaking(judge)
    assert [*going_on.go_on(remnant(judge, left, left.judged.cut))] == []
    assert going_on.laws[Law.SAFE_TO_USE] == [1, 0]
    assert going_on.laws[Law.REPAIR_IS_SAFE] == [1, 0]  # the repair alone


# --- workloads ------------------------------------------------------------------------------------
def test_the_images_start_as_their_names_say() -> None:
    by_name = dict(STARTS)

    def image(name: str) -> Image:
        start = by_name[name]
        recording = recording_of(ENGINE, start.setup, *start.before)
        return Image.open(recording.bases["d0"]) if len(start.before) == 1 else Image.open(_last_disk(recording))

    assert image("full L1").header.l1_size * 8 == 512
    assert image("L1 of more than a sector").header.l1_size * 8 > 512
    assert len(image("many snapshots").snapshots) == 8
    assert image("clusters of 64 KiB").header.cluster_bytes == 65536
    assert image("VM state").snapshots[0].info.vm_state_size


@pytest.mark.parametrize(("name", "region"), [
    ("refcount block about to grow", "refcount-block"), ("refcount table about to grow", "refcount-table"),
])  # fmt: skip
def test_what_is_about_to_grow_does_with_the_next_write_to_a_shared_image(name: str, region: str) -> None:
    start = dict(STARTS)[name]
    operations = (*start.before, Create("d0", "a"), Write("d0", 0, 4, 3))
    recording = recording_of(ENGINE, start.setup, *operations)
    place = recording.bases["d0"].size()
    grown = [each for each in recording.log.entries if each.region == region and each.offset >= place]
    assert grown


def _last_disk(recording: Recording) -> MemoryFile:
    disk = recording.bases["d0"].clone()
    for entry in recording.log.for_device("d0"):
        apply(entry, disk)
    return disk


def test_a_cut_is_told_at_the_moment_at_which_it_was_judged_and_with_all_that_it_loses() -> None:
    recording = recording_of(ENGINE, SMALL, Create("d0", "a"), Write("d0", 0, 16, 3))
    judge = CutJudge(recording)
    left = [each for each in judged(judge) if isinstance(each, Left)]
    early = [each for each in left if each.returned and each.judged.cut.at < recording.returned]
    assert early
    for each in left:
        (told,) = judge.power_cut((each,)).devices
        assert judge.power_cut((each,)).returned is (told.at >= recording.returned) is each.returned
        disks = [image_of(recording.bases["d0"], recording.log, cut) for cut in (told, each.judged.cut)]
        assert len({disk.pread(0, disk.size()) for disk in disks}) == 1
    assert all(judge.power_cut((each,)).devices[0].at == recording.returned for each in early)


def test_who_runs_by_default_starts_from_every_image() -> None:
    assert crash.REACHES[Profile.DEFAULT].points == len(STARTS)


def test_a_system_that_takes_snapshots_by_savevm_and_transactions_starts_from_groups_and_shared_clusters_too() -> None:
    kinds = ("write", "flush", "resize", "save-vm", "transaction")
    points = starts(devices_max=3, semantics=Semantics.MODERN, kinds=kinds)
    before = {kind_of(operation) for point in points for operation in point.before}
    assert before == {"write", "flush", "resize", "save-vm", "transaction"}
    assert {len(point.setup.devices) for point in points} == {1, 2, 3}


def test_a_run_that_gets_no_further_than_two_workloads_has_cut_a_group_in_two() -> None:
    options = RunOptions(phases=(crash.NAME,), profile=Profile.QUICK, histories=2)
    result = run_driver(ENGINE, options, Silent()).result
    assert next(each for each in result.laws if each.law is Law.GROUP_CUT).checked


def test_what_changes_nothing_is_not_cut() -> None:
    for start in starts(devices_max=3, semantics=Semantics.CLASSIC)[:3]:
        operations = crash_operations(first_state(start.setup))
        assert operations
        assert all(kind_of(operation) in CHANGING_KINDS for operation in operations)


def test_a_driver_that_keeps_its_own_format_is_judged_by_its_own_eyes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[2] / "examples" / "python-driver")
    judge = CutJudge(recording_of(find_target("toydriver:open_driver"), SMALL, Create("d0", "a"), Goto("d0", "a")))
    left = [each for each in judged(judge) if isinstance(each, Left)]
    assert len(left) >= 2
    assert judge.laws[Law.ATOMIC_OP][0] + judge.laws[Law.DURABLE][0] > 0
    assert not any(each.broken for each in left)


def dies_after_a_cut(disk: BlockFile, *, read_only: bool, create: CreateOptions | None) -> Driver:
    """Open an image; where clusters leak it dies of that."""
    if create is None and _went_wrong_before(disk):
        raise KeyError("a cluster that nobody knows")
    return open_qcow2(disk, read_only=read_only, create=create)


def test_a_driver_that_dies_of_what_a_cut_left_is_told_from_one_that_refuses() -> None:
    target = Target("mortal", "dies after a cut", dies_after_a_cut)
    look = eyes_of(target)
    recording = recording_of(ENGINE, SMALL, Create("d0", "a"), Goto("d0", "a"))
    left = leaking(CutJudge(recording))
    seen = look(image_of(recording.bases["d0"], recording.log, left.judged.cut))
    assert "KeyError" in died_of(observation("d0", seen, target))


@pytest.mark.parametrize(("failure", "law"), [
    (KeyError("a cluster that nobody knows"), Law.NO_CRASH), (BlockError(Errno.EINVAL, "leaks"), Law.OPENS),
])  # fmt: skip
def test_a_driver_that_does_not_open_what_a_cut_left_is_found_by_using_it(failure: Exception, law: Law) -> None:
    def opened(disk: BlockFile, *, read_only: bool, create: CreateOptions | None) -> Driver:
        if create is None and _went_wrong_before(disk):
            raise failure
        return open_qcow2(disk, read_only=read_only, create=create)

    target = Target("choosy", "does not open after a cut", opened)
    operations = (Create("d0", "a"), Goto("d0", "a"))
    found = gone_on_with(target, *operations)
    assert {each.evidence.law for each in found} == {law}
    history = replace(recording_of(target, SMALL, *operations).history, cut=found[0].cut)
    assert replay(target, history, law=law).state is ReplayState.STILL_FAILS
    assert replay(ENGINE, history, law=law).state is ReplayState.FIXED


def hangs_after_a_cut(disk: BlockFile, *, read_only: bool, create: CreateOptions | None) -> Driver:
    """Open an image; where clusters leak it looks for something for ever."""
    while create is None and _went_wrong_before(disk):
        pass
    return open_qcow2(disk, read_only=read_only, create=create)


def test_a_driver_that_hangs_when_it_opens_what_a_cut_left_is_ended() -> None:
    target = Target("lost", "hangs after a cut", hangs_after_a_cut)
    judge = CutJudge(recording_of(ENGINE, SMALL, Create("d0", "a"), Goto("d0", "a")))
    judge.recording = replace(judge.recording, target=target)
    left = leaking(judge)
    with watchdog(seconds_max=HANGS_AFTER) as dog:
        (found,) = GoingOn(dog).go_on(remnant(judge, left, left.judged.cut))
    assert found.evidence.law is Law.NO_HANG
    assert "hangs" in found.evidence.actual


@pytest.fixture
def never_ready(monkeypatch: pytest.MonkeyPatch) -> Target:
    """A driver with a format of its own, which waits for ever where something lies that its table does not know."""
    monkeypatch.chdir(Path(__file__).parents[2] / "examples" / "python-driver")
    toy = find_target("toydriver:open_driver").open_driver
    assert toy is not None

    def opened(disk: BlockFile, *, read_only: bool, create: CreateOptions | None) -> Driver:
        driver = toy(disk, read_only=read_only, create=create)
        inside: Any = driver  # of the toy
        known = {0, inside._place[0] >> 12, *inside._table.slots()}
        while create is None and any(
            disk.pread(slot << 12, 1 << 12).strip(b"\0") for slot in range(3, 8) if slot not in known
        ):
            pass
        return driver

    return Target("never ready", "waits for ever", opened)


def test_a_look_that_does_not_end_is_told_once_and_no_more_disks_are_looked_at(never_ready: Target) -> None:
    recording = recording_of(find_target("toydriver:open_driver"), SMALL, Create("d0", "a"), Write("d0", 0, 4, 3))
    recording = replace(recording, target=never_ready)
    with watchdog(seconds_max=HANGS_AFTER) as dog:
        judge = CutJudge(recording, dog=dog)
        found = [each for each in judged(judge) if isinstance(each, Found)]
        assert judge.hung
        assert judge.laws[Law.NO_HANG][1] == 1
        assert [each.evidence.law for each in found] == [Law.NO_HANG]
        again = cut_again(never_ready, replace(recording.history, cut=found[0].cut), law=Law.NO_HANG, dog=dog)
    assert again.evidence[0].law is Law.NO_HANG


def test_a_look_that_does_not_end_while_the_disk_is_used_further_is_told_as_that(never_ready: Target) -> None:
    recording = recording_of(find_target("toydriver:open_driver"), SMALL, Create("d0", "a"))
    judge = CutJudge(recording)
    left = next(each for each in judged(judge) if isinstance(each, Left) and not each.judged.cut.at)
    judge.recording = replace(recording, target=never_ready)
    with watchdog(seconds_max=HANGS_AFTER) as dog:
        (found,) = GoingOn(dog).go_on(remnant(judge, left, left.judged.cut))
    assert found.evidence.law is Law.NO_HANG
    assert "look" in found.evidence.actual
