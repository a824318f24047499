"""The sweep is exhaustive: every place where a fault can strike, every operation, each state once."""

from collections import Counter
from dataclasses import replace
from types import ModuleType

import pytest
from snapcheck.impl.checked import Failure as Refusal
from snapcheck.impl.generic import Node
from snapcheck.impl.perform import Parts
from snapcheck.impl.targets import Target, find_target
from snapcheck.model.errno import Errno
from snapcheck.model.faults import CallFault, Fails, Fault, IoFault, LandsButFails
from snapcheck.model.history import Care, Io, Step
from snapcheck.model.law_names import Severity
from snapcheck.model.operations import (
    KINDS,
    AddBitmap,
    AllCreate,
    Create,
    Delete,
    Discard,
    Goto,
    LoadTmp,
    Operation,
    Resize,
    SubmitWrite,
    Transaction,
    Write,
    kind_of,
)
from snapcheck.model.setup import DeviceSpec, Kind, Semantics, Setup
from snapcheck.model.step import start
from snapcheck.stateful_tests.draw_faults import Targets
from snapcheck.stateful_tests.fault_places import Blow, Place, faults_at, places_behind, places_of
from snapcheck.stateful_tests.phases import sweep, walk
from snapcheck.stateful_tests.seeded_bugs import CANARY, SeededBug
from snapcheck.stateful_tests.seeded_bugs.planting import in_layers
from snapcheck.stateful_tests.session import Session
from snapcheck.stateful_tests.small_operations import expected, like_an_earlier_one, small_operations
from snapcheck.stateful_tests.starting_points import Start, starting_points
from snapcheck.stateful_tests.units import SHARDS, Answer, Failure, Profile, Unit
from snapcheck.stateful_tests.work import Control

QCOW2 = find_target("qcow2")
SILENT = Control(lambda _tick: None)
PAIR = Setup((DeviceSpec("d0", sectors=16, tag=9), DeviceSpec("d1", sectors=16, tag=9)))


def answer_to(
    driver: str = "qcow2", *, shard: int = 0, histories: int | None = None, devices: int = 2,
    profile: Profile = Profile.QUICK, semantics: Semantics = Semantics.CLASSIC, seconds: float | None = None,
) -> Answer:  # fmt: skip
    asked = Unit(
        driver=driver, phase=sweep.NAME, semantics=semantics, devices=devices, seed=0, shard=shard,
        histories=histories, seconds=seconds, profile=profile,
    )  # fmt: skip
    return sweep.run(asked, SILENT)


def errors_of(answer: Answer) -> list[Failure]:
    return [failure for failure in answer.failures if failure.evidence[0].severity is Severity.ERROR]


def trial_of(operation: Operation) -> Step:
    with Session(QCOW2, PAIR) as session:
        session.step(operation)
        return session.history.steps[-1]


# --- places ---------------------------------------------------------------------------------------
def test_every_io_and_every_call_of_an_operation_is_a_place() -> None:
    trial = trial_of(AllCreate("s"))
    places = {(place.device, place.word): place.times for place in places_of(trial, QCOW2.abilities, Targets({}, ()))}
    seen = Counter((event.device, event.kind) for event in trial.events if isinstance(event, Io))
    assert seen["d1", "write"] > 1
    assert {place: times for place, times in places.items() if place[1] in ("read", "write", "flush")} == seen
    assert (places["d0", "create"], places["d1", "create"]) == (1, 1)


def test_a_list_that_looks_for_a_snapshot_is_a_find() -> None:
    with Session(QCOW2, PAIR) as session:
        session.step(Create("d0", "a"))
        session.step(next(each for each in small_operations(session.world) if kind_of(each) == "find"))
        found = session.history.steps[-1]
    assert Place("d0", "find", 1) in places_of(found, QCOW2.abilities, Targets({}, ()))


def test_each_place_is_struck_in_every_way_that_fits_it() -> None:
    blows = (Blow(), Blow(0, Errno.ENOSPC), Blow(lands=True))
    assert list(faults_at(Place("d0", "write", 3), 2, blows)) == [
        IoFault("d0", "write", Fails(), at=2), IoFault("d0", "write", Fails(Errno.ENOSPC), at=2, times=0),
        IoFault("d0", "write", LandsButFails(), at=2),
    ]  # fmt: skip
    assert len(list(faults_at(Place("d0", "read", 3), 2, blows))) == 2
    assert list(faults_at(Place("d0", "create", 1), 1, blows[:1])) == [CallFault("d0", "create")]


def test_a_second_fault_strikes_what_came_by_after_the_first() -> None:
    # Given a create whose first write of the header landed and failed, so that the old one was put back
    with Session(QCOW2, PAIR) as session:
        session.step(Create("d0", "a"), (IoFault("d0", "write", LandsButFails(), "header"),))
        struck = session.history.steps[-1]
    # When it is asked where a second fault can strike
    behind = {place.word: place for place in places_behind(struck, QCOW2.abilities, Targets({}, ()))}
    # Then it is what came after the write that failed: that of the old header and those of lower counts
    writes = [event.region for event in struck.events if isinstance(event, Io) and event.kind == "write"]
    at = behind["write"].first - 1
    assert writes[:at].count("header") == 1
    assert writes[at - 1 : at + 1] == ["header", "header"]
    assert behind["write"].times == len(writes)
    assert "create" not in behind


def test_every_fault_of_a_sweep_strikes(monkeypatch: pytest.MonkeyPatch) -> None:
    struck: list[tuple[Operation, tuple[Fault, ...], tuple[Fault, ...]]] = []
    step = Session.step

    def listening(self: Session, operation: Operation, faults: tuple[Fault, ...] = (), **how: object) -> object:
        found = step(self, operation, faults, **how)  # type: ignore[arg-type]  # passed on as it came
        if faults:
            struck.append((operation, faults, self.history.steps[-1].met))
        return found

    monkeypatch.setattr(Session, "step", listening)
    answer = answer_to(histories=150)
    assert len(struck) > 100
    # Without a fault all is performed anew, and what was not flushed before is flushed by the operation: a flush that
    # does not come by in a case which takes up a checkpoint.
    missed = [fault for _, faults, met in struck if not met for fault in faults]
    assert all(isinstance(fault, IoFault) and fault.kind == "flush" for fault in missed)
    assert answer.counts["faults that struck nothing"] == len(missed) < len(struck) // 20


def test_calls_of_a_group_are_struck_twice_before_any_io_is(monkeypatch: pytest.MonkeyPatch) -> None:
    struck: list[tuple[Fault, ...]] = []
    step = Session.step

    def listening(self: Session, operation: Operation, faults: tuple[Fault, ...] = (), **how: object) -> object:
        struck.extend([faults] if faults else [])
        return step(self, operation, faults, **how)  # type: ignore[arg-type]  # passed on as it came

    monkeypatch.setattr(Session, "step", listening)
    answer_to(profile=Profile.DEFAULT, seconds=20.0, histories=450)
    first_io = next(at for at, faults in enumerate(struck) if any(isinstance(each, IoFault) for each in faults))
    assert any(len(faults) == 2 for faults in struck[:first_io])


# --- operations -----------------------------------------------------------------------------------
@pytest.mark.parametrize("semantics", list(Semantics))
def test_every_operation_is_tried_from_some_starting_point(semantics: Semantics) -> None:
    tried: set[str] = set()
    for point in starting_points(devices_max=3, semantics=semantics, prepared=True):
        with Session(QCOW2, point.setup) as session:
            for operation in point.before:
                assert session.step(operation) == []
            tried |= {kind_of(operation) for operation in small_operations(session.world)}
    assert tried == set(KINDS.values())


@pytest.mark.parametrize("kinds", [("save-vm", "transaction", "write"), ("transaction", "write"), ("create", "write")])
def test_a_system_without_group_functions_starts_from_the_same_snapshots(kinds: tuple[str, ...]) -> None:
    def names(point: Start) -> dict[str, list[str]]:
        with Session(QCOW2, point.setup) as session:
            for operation in point.before:
                session.step(operation)
            devices = session.world.devices.items()
            return {name: [each.info.name for each in one.image.snapshots] for name, one in devices if one.image}

    points = starting_points(devices_max=3, semantics=Semantics.MODERN, prepared=True, kinds=kinds)
    usual = starting_points(devices_max=3, semantics=Semantics.MODERN, prepared=True)
    assert [names(point) for point in points] == [names(point) for point in usual]


def test_devices_that_are_alike_count_as_one_for_operations_on_one() -> None:
    alike = small_operations(start(PAIR))
    different = small_operations(start(Setup((PAIR.devices[0], DeviceSpec("d1", Kind.RAW_OVER, sectors=16, tag=9)))))
    assert {getattr(operation, "device", "d0") for operation in alike} == {"d0"}
    assert {getattr(operation, "device", "d0") for operation in different} == {"d0", "d1", "d1/file"}


def struck_in(point: Start) -> list[Operation]:
    with Session(QCOW2, point.setup) as session:
        for operation in point.before:
            session.step(operation)
        operations = small_operations(session.world)
        alike = like_an_earlier_one(session.world, operations, whatever_way=False)
    return [operation for operation in operations if operation not in alike]


def test_every_way_through_a_driver_is_struck_once() -> None:
    # Given three devices that are alike, with one snapshot
    struck = struck_in(starting_points(devices_max=3, semantics=Semantics.CLASSIC, prepared=True)[1])
    # When those operations are left out that do what another one does
    # Then each way to name the snapshot is still among them
    deletes = {(each.snapshot_id, each.name) for each in struck if isinstance(each, Delete)}
    assert {("1", None), ("1", "a"), (None, "a")} <= deletes
    assert {each.snapshot_id for each in struck if isinstance(each, Goto)} == {"1", "a", "n"}
    loads = {(each.snapshot_id, each.name) for each in struck if isinstance(each, LoadTmp)}
    assert loads == {("1", None), (None, "a")}


def test_a_child_is_struck_as_well_as_the_node_over_it() -> None:
    over = Setup((DeviceSpec("d0", Kind.RAW_OVER, sectors=16), DeviceSpec("d1", Kind.RAW_OVER, sectors=16, tag=9)))
    struck = struck_in(Start(over, (AllCreate("a"),)))
    for kind in (Create, Goto, Delete):
        nodes = Counter(each.device for each in struck if isinstance(each, kind))
        assert nodes["d0"]
        assert nodes["d1"]
        assert nodes["d0/file"]  # one child is enough
        assert not nodes["d1/file"]


@pytest.mark.parametrize("profile", [Profile.QUICK, Profile.DEFAULT, Profile.DEEP])
def test_single_operations_go_to_smaller_and_to_larger_snapshots(profile: Profile) -> None:
    points = starting_points(devices_max=3, semantics=Semantics.CLASSIC, prepared=True)
    taken = [
        (snapshot.sectors, spec.sectors)
        for point in points[: sweep.REACHES[profile].points]
        for spec in point.setup.devices
        for snapshot in spec.snapshots
    ]
    assert any(then < now for then, now in taken)
    assert any(then > now for then, now in taken)


@pytest.mark.parametrize("profile", [Profile.QUICK, Profile.DEFAULT, Profile.DEEP])
def test_single_operations_grow_a_device_that_was_cut_off_within_a_cluster(profile: Profile) -> None:
    points = starting_points(devices_max=3, semantics=Semantics.CLASSIC, prepared=True)
    cut: list[Resize] = []
    for point in points[: sweep.REACHES[profile].points]:
        clusters = {spec.name: spec.cluster_bytes // 512 for spec in point.setup.devices}
        sizes = {spec.name: spec.sectors for spec in point.setup.devices if spec.tag}
        cut += [
            each
            for each in point.before
            if isinstance(each, Resize) and each.sectors < sizes[each.device] and each.sectors % clusters[each.device]
        ]
    assert cut


@pytest.mark.parametrize("profile", [Profile.QUICK, Profile.DEFAULT, Profile.DEEP])
def test_single_operations_go_to_a_device_that_is_only_read_and_shows_a_snapshot(profile: Profile) -> None:
    points = starting_points(devices_max=3, semantics=Semantics.CLASSIC, prepared=True)
    read_only = {
        (number, spec.name) for number, point in enumerate(points) for spec in point.setup.devices if spec.read_only
    }
    shown = {
        (number, each.device)
        for number, point in enumerate(points[: sweep.REACHES[profile].points])
        for each in point.before
        if isinstance(each, LoadTmp)
    }
    assert shown & read_only


def test_a_device_is_discarded_in_part_and_as_a_whole() -> None:
    world = start(PAIR)
    image = world.devices["d0"].image
    assert image is not None
    counts = {each.count for each in small_operations(world) if isinstance(each, Discard)}
    assert image.sectors in counts
    assert any(0 < count < image.sectors for count in counts)


def test_a_transaction_that_is_refused_has_two_snapshots_of_one_device_to_take_back() -> None:
    point = starting_points(devices_max=3, semantics=Semantics.TRANSACTIONAL, prepared=True)[1]
    with Session(QCOW2, point.setup) as session:
        for operation in point.before:
            session.step(operation)
        refused = [
            each
            for each in small_operations(session.world)
            if isinstance(each, Transaction) and Errno.OK not in (expected(session.world, each).expected.errnos or ())
        ]
    assert any(
        each.actions[0].device == each.actions[1].device and each.actions[0].name != each.actions[1].name
        for each in refused
    )


def test_only_what_the_system_performs_is_tried() -> None:
    assert {kind_of(each) for each in small_operations(start(PAIR), kinds=("write", "list"))} == {"write", "list"}


def test_a_run_on_fewer_devices_starts_from_fewer() -> None:
    points = starting_points(devices_max=1, semantics=Semantics.MODERN, prepared=True)
    assert points
    assert {len(point.setup.devices) for point in points} == {1}
    assert {point.setup.semantics for point in points} == {Semantics.MODERN}


# --- the whole phase ------------------------------------------------------------------------------
def test_shards_share_the_cases_and_each_ends_by_itself() -> None:
    answers = [answer_to(shard=shard, devices=1) for shard in range(SHARDS)]
    assert {answer.length for answer in answers} == {1}
    assert not any(answer.out_of_time for answer in answers)
    assert [errors_of(answer) for answer in answers] == [[]] * SHARDS
    assert sum(answer.histories for answer in answers) > 300
    assert answer_to(shard=3, devices=1).digests == answers[3].digests
    for answer in answers:
        counts = answer.counts
        assert counts[sweep.RUN] == answer.histories
        assert counts[sweep.GENERATED] == counts[sweep.RUN] + counts[sweep.SKIPPED]


def test_longer_sequences_come_when_the_short_ones_are_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sweep.REACHES, Profile.DEFAULT, sweep.Reach(3, 3, 2, (Blow(),)))
    answer = answer_to(shard=1, devices=1, profile=Profile.DEFAULT)
    assert answer.length == 2
    assert answer.counts["states, length 2"] > 0
    assert answer.counts["states reached before"] > 0
    assert errors_of(answer) == []


@pytest.mark.parametrize(
    "bug",
    [
        "mapping:stale_place",  # what the driver keeps in its memory is wrong, and what a snapshot holds changes
        "sizes:seek_ignored",  # VM state is read from its middle
        "generic:load_by_one_string",  # a name is the id of another snapshot
    ],
)
def test_what_no_fault_is_needed_for_shows_before_the_first_fault(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a sweep that tries nothing longer than one operation, and no fault
    monkeypatch.setitem(sweep.REACHES, Profile.DEFAULT, replace(sweep.REACHES[Profile.DEFAULT], length=0))
    driver = f"snapcheck.stateful_tests.seeded_bugs.{bug}"
    # When it runs on a driver whose bug is in a success
    answers = [answer_to(driver, shard=shard, devices=3, profile=Profile.DEFAULT) for shard in range(SHARDS)]
    # Then the bug is found
    assert any(errors_of(answer) for answer in answers)
    assert not any(step.faults for answer in answers for each in answer.failures for step in each.history.steps)


def test_time_that_runs_out_ends_it_with_what_it_has() -> None:
    answer = answer_to(histories=7)
    assert (answer.histories, answer.length, answer.out_of_time) == (7, 0, True)


def test_a_sweep_that_ends_early_says_out_of_how_many() -> None:
    # Given how many cases of length 1 a shard has
    whole = answer_to(devices=1)
    # When its time is over before it has tried them all
    counts = answer_to(devices=1, histories=whole.histories - 9).counts
    # Then it knows how many there are
    assert counts[sweep.RUN] == whole.histories - 9
    assert counts[sweep.GENERATED] == whole.counts[sweep.GENERATED]


@pytest.mark.parametrize("bug", CANARY, ids=lambda bug: bug.name)
def test_the_sweep_alone_finds_each_bug_of_the_canary(bug: SeededBug) -> None:
    for shard in range(SHARDS):
        answer = answer_to(bug.driver, shard=shard, devices=3, semantics=bug.semantics, histories=120)
        if errors_of(answer):
            break
    else:
        pytest.fail(f"{bug.name} was not found")


# --- checkpoints ----------------------------------------------------------------------------------
def test_a_history_is_taken_up_from_a_checkpoint_as_if_it_had_never_stopped() -> None:
    with Session(QCOW2, PAIR) as session:
        session.step(AllCreate("a"))
        session.step(Write("d0", 0, 8, 20), everywhere=True)
        checkpoint = session.checkpoint()
        key = session.state_key()
    assert checkpoint is not None
    for _ in range(2):  # the first one leaves no trace in the second
        with Session(QCOW2, checkpoint) as again:
            assert again.state_key() == key
            assert again.step(Delete("d0", None, "a"), everywhere=True) == []
            assert [kind_of(step.operation) for step in again.history.steps] == ["all-create", "write", "delete"]
            assert again.taken_over == 2
            assert again.state_key() != key


def test_what_is_not_on_the_disks_can_not_be_taken_up() -> None:
    with Session(QCOW2, PAIR) as session:
        assert session.checkpoint() is None  # nobody has looked
        session.step(SubmitWrite("d0", 0, 1, 5))
        assert session.checkpoint() is None
        session.finish()
        assert session.checkpoint() is not None
    with Session(QCOW2, PAIR, care=Care.LIGHT) as session:
        session.step(Write("d0", 0, 1, 5))
        session.finish()
        assert session.checkpoint() is None  # nothing was closed


# --- what a close look takes away -----------------------------------------------------------------
class _NoBusyChild(Node):
    """Lets the child of a fallback go back although it has dirty bitmaps."""

    __slots__ = ()

    def _goto(self, snapshot_id: str) -> Refusal | None:
        if "/" in self.name:
            self.bitmaps.clear()
        return super()._goto(snapshot_id)


NO_BUSY_CHILD = in_layers("a busy child goes back", Parts(node=_NoBusyChild))


def no_busy_child(_name: str) -> Target:
    return NO_BUSY_CHILD


def found_in(phase: ModuleType, *, histories: int) -> bool:
    """Tell whether a phase finds the bug, in some shard."""
    units = (
        Unit(
            driver="planted", phase="any", semantics=Semantics.CLASSIC, devices=3, seed=0, shard=shard,
            histories=histories, seconds=None,
        )
        for shard in range(SHARDS)
    )  # fmt: skip
    return any(errors_of(phase.run(unit, SILENT)) for unit in units)


def test_the_sweep_finds_a_goto_that_overlooks_the_bitmaps_of_a_child(monkeypatch: pytest.MonkeyPatch) -> None:
    def with_bitmaps(**asked: object) -> tuple[Start, ...]:
        points = starting_points(**asked)  # type: ignore[arg-type]  # passed on as it came
        return tuple(point for point in points if AddBitmap in map(type, point.before))

    monkeypatch.setattr(sweep, "find_target", no_busy_child)
    monkeypatch.setattr(sweep, "starting_points", with_bitmaps)
    assert found_in(sweep, histories=40)


def test_the_walk_finds_a_goto_that_overlooks_the_bitmaps_of_a_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "find_target", no_busy_child)
    assert found_in(walk, histories=12)


def test_a_bitmap_is_still_there_when_the_next_operation_of_a_sequence_is_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sweep.REACHES, Profile.DEFAULT, sweep.Reach(1, 1, 2, (Blow(),)))
    answer = answer_to(devices=1, profile=Profile.DEFAULT)
    assert answer.counts["states, length 2"] > 0
    assert any(cell.endswith("x dirty bitmap") for cell in answer.cells)
