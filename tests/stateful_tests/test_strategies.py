"""What the generators reach, how often, and that they do it again: stories over a few thousand draws."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, Phase, find, seed, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from hypothesis.strategies import SearchStrategy
from snapcheck.fault_injection.watch import is_sensible
from snapcheck.model.device import Content, Device, Image, Snapshot, World
from snapcheck.model.errno import Errno
from snapcheck.model.faults import CALLS, IO_KINDS, REGIONS, CallFault, Effect, Family, Fault, IoFault, family
from snapcheck.model.operations import (
    KINDS,
    OPERATIONS,
    AllCreate,
    AllDelete,
    AllFind,
    AllGoto,
    Create,
    Delete,
    DelVm,
    FindByIdAndName,
    Goto,
    LoadTmp,
    LoadVm,
    Operation,
    Resize,
    SaveVm,
    SetMedium,
    SetReadOnly,
    SnapshotAction,
    Transaction,
    VmstateWrite,
    Write,
    kind_of,
)
from snapcheck.model.setup import DeviceSpec, Kind, PreparedSnapshot, Semantics, Setup
from snapcheck.model.snapshot import SnapshotInfo
from snapcheck.stateful_tests.chooser import CHOICES_MAX, RandomChooser, pick, weighted
from snapcheck.stateful_tests.draw_faults import draw_faults, targets_of
from snapcheck.stateful_tests.draw_operations import draw_operation
from snapcheck.stateful_tests.draw_setups import HAS_IMAGE, draw_setup
from snapcheck.stateful_tests.strategies import Situation, faults, operations, setups, steps

GROUPS = (AllFind, AllCreate, AllGoto, AllDelete, SaveVm, LoadVm, DelVm, Transaction)
Drawn = tuple[World, Operation, tuple[Fault, ...]]


# --- a toy of the model, just good enough to give the generators states to draw for ----------------
def world_of(setup: Setup) -> World:
    return World({spec.name: device_from(spec) for spec in setup.devices}, setup.semantics)


def device_from(spec: DeviceSpec) -> Device:
    image = Image(spec.sectors, Content(bytes([spec.tag]) * spec.sectors), snapshots=tuple(map(stored, spec.snapshots)))
    empty = spec.kind is Kind.EMPTY
    return Device(spec, None if empty else image, read_only=spec.read_only, present=not empty)


def stored(snapshot: PreparedSnapshot) -> Snapshot:
    info = SnapshotInfo(snapshot.id_str, snapshot.name, snapshot.vm_state_size)
    return Snapshot(info, snapshot.sectors, Content(bytes([snapshot.tag]) * snapshot.sectors))


def toy_step(world: World, operation: Operation) -> World:  # noqa: PLR0911  # one for each kind that it knows
    match operation:
        case Create(device=node, name=name):
            return with_new(world, [node.partition("/")[0]], name)
        case AllCreate(name=name) | SaveVm(name=str(name)):
            return with_new(world, world.included, name)
        case Transaction(actions=actions):
            return with_new(world, [action.device for action in actions], actions[0].name)
        case AllDelete(name=name) | DelVm(name=name):
            return without(world, world.included, name)
        case Delete(device=node, name=str(name)):
            return without(world, [node.partition("/")[0]], name)
        case SetReadOnly(device=node, read_only=read_only):
            return changed(world, world.devices[node]._replace(read_only=read_only))
        case SetMedium(device=node, present=present) if world.devices[node].image is not None:
            return changed(world, world.devices[node]._replace(present=present))
        case _:
            return world


def changed(world: World, device: Device) -> World:
    return World({**world.devices, device.spec.name: device}, world.semantics)


def with_new(world: World, names: Iterator[str] | list[str] | tuple[str, ...], name: str) -> World:
    for device in [world.devices[each] for each in names]:
        if device.spec.kind in HAS_IMAGE and device.image is not None and len(device.image.snapshots) < 8:
            info = SnapshotInfo(str(len(device.image.snapshots) + 1), name)
            snapshots = (*device.image.snapshots, Snapshot(info, device.image.sectors, device.image.content))
            world = changed(world, device._replace(image=device.image._replace(snapshots=snapshots)))
    return world


def without(world: World, names: list[str] | tuple[str, ...], name: str) -> World:
    for device in [world.devices[each] for each in names]:
        if device.image is not None:
            snapshots = tuple(snapshot for snapshot in device.image.snapshots if snapshot.info.name != name)
            world = changed(world, device._replace(image=device.image._replace(snapshots=snapshots)))
    return world


def walk(semantics: Semantics, *, histories: int = 250, steps_each: int = 30) -> list[Drawn]:
    chooser = RandomChooser(Random(1))  # noqa: S311  # chance for a test, no secret
    drawn: list[Drawn] = []
    for _ in range(histories):
        world = world_of(draw_setup(chooser, semantics=semantics))
        for _ in range(steps_each):
            operation = draw_operation(chooser, world)
            drawn.append((world, operation, draw_faults(chooser, world, operation, regions=REGIONS)))
            world = toy_step(world, operation)
    return drawn


@pytest.fixture(scope="module")
def drawn() -> list[Drawn]:
    return walk(Semantics.CLASSIC)


@pytest.fixture(scope="module")
def drawn_modern() -> list[Drawn]:
    return walk(Semantics.MODERN, histories=80)


def faults_of(drawn: list[Drawn]) -> list[Fault]:
    return [fault for _, _, armed in drawn for fault in armed]


# --- setups -----------------------------------------------------------------------------------------
def draw_setups(count: int = 3000) -> list[Setup]:
    chooser = RandomChooser(Random(2))  # noqa: S311  # chance for a test, no secret
    return [draw_setup(chooser) for _ in range(count)]


def test_setups_have_one_to_four_devices_of_every_kind_size_and_condition() -> None:
    drawn = draw_setups()
    specs = [spec for setup in drawn for spec in setup.devices]
    assert {len(setup.devices) for setup in drawn} == {1, 2, 3, 4}
    assert {spec.kind for spec in specs} == set(Kind)
    assert {spec.cluster_bytes for spec in specs} == {512, 4096, 65536}
    assert {spec.read_only for spec in specs} == {False, True}
    assert 0 in {spec.sectors for spec in specs}
    assert all(spec.sectors <= 128 for spec in specs)
    assert all(not spec.snapshots for spec in specs if spec.kind not in HAS_IMAGE)


def test_prepared_images_have_the_odd_ids_and_names_and_some_devices_have_none() -> None:
    drawn = draw_setups()
    snapshots = [snapshot for setup in drawn for spec in setup.devices for snapshot in spec.snapshots]
    assert {"4294967297", "18446744073709551615", "x"} <= {snapshot.id_str for snapshot in snapshots}
    assert {255, 256} <= {len(snapshot.name) for snapshot in snapshots}
    assert any(snapshot.extra for snapshot in snapshots)
    assert any(
        spec.snapshots and spec.snapshots[0].sectors != spec.sectors for setup in drawn for spec in setup.devices
    )
    assert any(
        len({name(s) for s in spec.snapshots}) < len(spec.snapshots) for setup in drawn for spec in setup.devices
    )
    assert any(len({bool(spec.snapshots) for spec in setup.devices}) == 2 for setup in drawn)


def name(snapshot: PreparedSnapshot) -> str:
    return snapshot.name


def test_setups_in_which_nothing_is_included_are_drawn_but_rare() -> None:
    share = sum(not world_of(setup).included for setup in draw_setups()) / 3000
    assert 0 < share < 0.1


def test_without_prepared_images_and_with_a_bound_on_devices_setups_keep_to_it() -> None:
    chooser = RandomChooser(Random(3))  # noqa: S311  # chance for a test, no secret
    for _ in range(300):
        setup = draw_setup(chooser, devices_max=2, qcow2_prepared=False)
        assert len(setup.devices) <= 2
        assert not any(spec.snapshots for spec in setup.devices)


def test_the_simplest_setup_is_one_small_writable_device_with_nothing_on_it() -> None:
    assert shrunk(setups()) == Setup((DeviceSpec("d0", sectors=16),))


def shrunk(strategy: SearchStrategy[Setup]) -> Setup:
    return find(strategy, lambda _: True, settings=settings(database=None))


# --- operations -------------------------------------------------------------------------------------
def test_every_operation_of_the_alphabet_is_drawn(drawn: list[Drawn]) -> None:
    counts = Counter(kind_of(operation) for _, operation, _ in drawn)
    assert set(counts) == set(KINDS.values())
    assert min(counts.values()) >= 20


def test_names_are_those_that_exist_and_the_odd_ones(drawn: list[Drawn]) -> None:
    given = {operation.name for _, operation, _ in drawn if isinstance(operation, Create | AllCreate | SaveVm)}
    assert {"a", "b", "s0", "1", "2", "", "-x", "<script>", "\u00e9t\u00e9", "n" * 255, "n" * 256, None} <= given
    asked = [(world, op.name) for world, op, _ in drawn if isinstance(op, AllGoto | AllDelete)]
    everywhere = [(world, name) for world, name in asked if common_names(world)]
    hits = sum(name in common_names(world) for world, name in everywhere)
    assert hits / len(everywhere) > 0.6


def common_names(world: World) -> set[str]:
    sets = [
        {snapshot.info.name for snapshot in image.snapshots}
        for image in (world.devices[each].image for each in world.included)
        if image is not None
    ]
    return sets[0].intersection(*sets) if sets else set()


def test_ids_and_names_come_alone_and_together_and_never_both_absent_where_that_aborts(drawn: list[Drawn]) -> None:
    given = {
        (type(op), op.snapshot_id is None, op.name is None)
        for _, op, _ in drawn
        if isinstance(op, Delete | LoadTmp | FindByIdAndName)
    }
    assert {
        (kind, *pair) for kind in (Delete, LoadTmp) for pair in ((True, True), (True, False), (False, True))
    } <= given
    assert (FindByIdAndName, True, True) not in given


def test_children_are_addressed_by_snapshot_calls_and_by_nothing_else(drawn: list[Drawn]) -> None:
    child_calls = {kind_of(op) for _, op, _ in drawn if "/" in getattr(op, "device", "")}
    assert {"create", "goto", "delete", "list", "add-bitmap"} <= child_calls
    assert not child_calls & {"write", "resize", "reopen", "set-medium", "set-read-only"}


def test_writes_lie_inside_the_device_but_for_a_few_at_its_end(drawn: list[Drawn]) -> None:
    writes = [(world.devices[op.device].image, op) for world, op, _ in drawn if isinstance(op, Write)]
    outside = sum(op.sector + op.count > image.sectors for image, op in writes if image is not None)
    assert 0 < outside < len(writes) / 5
    assert all(op.count > 0 and op.sector >= 0 and 1 <= op.tag <= 254 for _, op in writes)


def test_resizes_grow_shrink_and_stay_small(drawn: list[Drawn]) -> None:
    ways = Counter(
        (op.sectors > image.sectors) - (op.sectors < image.sectors)
        for image, op in ((world.devices[op.device].image, op) for world, op, _ in drawn if isinstance(op, Resize))
        if image is not None
    )
    assert set(ways) == {-1, 0, 1}
    assert all(op.sectors <= 256 for _, op, _ in drawn if isinstance(op, Resize))


def test_most_group_operations_have_two_or_more_members(drawn: list[Drawn]) -> None:
    groups = [world for world, op, _ in drawn if isinstance(op, GROUPS)]
    assert len(groups) > len(drawn) * 0.35
    assert sum(len(world.included) >= 2 for world in groups) / len(groups) > 0.6
    assert any(not world.included for world in groups)


def test_only_the_modern_profile_has_device_lists(drawn: list[Drawn], drawn_modern: list[Drawn]) -> None:
    assert {getattr(op, "devices", None) for _, op, _ in drawn} == {None}
    lists = {op.devices for _, op, _ in drawn_modern if isinstance(op, AllFind | AllCreate | AllGoto | AllDelete)}
    assert {None, (), ("nowhere",), ("d0",), ("d0", "d0"), ("d0", "d1", "d2")} <= lists
    assert any("/" in node for listed in lists for node in listed or ())


def test_transactions_act_on_all_on_one_twice_and_backwards(drawn: list[Drawn]) -> None:
    orders = {tuple(action.device for action in op.actions) for _, op, _ in drawn if isinstance(op, Transaction)}
    assert {("d0",), ("d0", "d0"), ("d0", "d1"), ("d1", "d0"), ("d0", "d1", "d2")} <= orders


def test_some_transactions_take_snapshots_of_two_names_on_one_device_and_then_of_another(drawn: list[Drawn]) -> None:
    lists = [op.actions for _, op, _ in drawn if isinstance(op, Transaction)]
    twice = [actions for actions in lists if len({each.name for each in actions[:2]}) == 2]
    assert any({each.device for each in actions} == {"d0", "d1"} for actions in twice)
    assert all(actions[0].device == actions[1].device for actions in twice)


def test_vm_state_ends_within_a_cluster_and_with_one_and_takes_more_than_one_table(drawn: list[Drawn]) -> None:
    ends = {op.offset + op.length for _, op, _ in drawn if isinstance(op, VmstateWrite)}
    ends |= {op.vm_state_size for _, op, _ in drawn if isinstance(op, SaveVm)}
    for cluster_bytes in (512, 4096):
        assert any(end and end % cluster_bytes == 0 for end in ends)
        assert any(end % cluster_bytes for end in ends)
    assert any(end > 512 // 8 * 512 for end in ends)


def test_only_the_kinds_that_a_system_can_perform_are_drawn() -> None:
    chooser = RandomChooser(Random(4))  # noqa: S311  # chance for a test, no secret
    world = world_of(draw_setup(chooser))
    seen = {kind_of(draw_operation(chooser, world, kinds=["create", "all-delete"])) for _ in range(200)}
    assert seen == {"create", "all-delete"}
    with pytest.raises(ValueError, match="no operation is left"):
        draw_operation(chooser, world, kinds=["fly"])


# --- faults -----------------------------------------------------------------------------------------
def test_every_fault_makes_sense_and_strikes_a_device_that_is_there(drawn: list[Drawn]) -> None:
    for world, _, armed in drawn:
        for fault in armed:
            assert is_sensible(fault), fault
            assert fault.device in world.devices


def test_every_effect_kind_region_function_and_errno_is_drawn(drawn: list[Drawn], drawn_modern: list[Drawn]) -> None:
    all_of_them = [*faults_of(drawn), *faults_of(drawn_modern)]
    io = [fault for fault in all_of_them if isinstance(fault, IoFault)]
    calls = [fault for fault in all_of_them if isinstance(fault, CallFault)]
    assert {type(fault.effect) for fault in io} == set(Effect.__args__)
    assert {fault.kind for fault in io} == set(IO_KINDS)
    assert {fault.region for fault in io} == {"", *REGIONS}
    assert {fault.times for fault in io} == {0, 1, 2}
    assert set(range(1, 25)) == {fault.at for fault in io}
    assert {fault.function for fault in calls} == set(CALLS)
    assert {fault.times for fault in calls} >= {0, 1}
    wanted = {"ENOSPC", "EIO", "ENOMEM", "EPERM", "EACCES", "EROFS", "ENOMEDIUM", "ETIMEDOUT", "EAGAIN"}
    assert wanted <= {fault.errno.name for fault in calls}
    assert IoFault in {type(f) for f in all_of_them if isinstance(f, IoFault) and vanishes(f)}


def vanishes(fault: IoFault) -> bool:
    return fault.kind == "any" and fault.times == 0 and getattr(fault.effect, "errno", None) is Errno.ENOMEDIUM


def test_a_third_of_the_group_operations_have_two_members_and_a_fault_aimed_at_one(drawn: list[Drawn]) -> None:
    groups = [each for each in drawn if isinstance(each[1], GROUPS)]
    aimed = sum(
        len(world.included) >= 2 and any(fault.device in targets_of(world, op).calls for fault in armed)
        for world, op, armed in groups
    )
    assert aimed / len(groups) >= 0.4  # some miss in the end: an I/O fault may wait for an I/O that never comes


def test_two_in_five_operations_on_a_group_that_call_drivers_meet_a_call_fault(drawn: list[Drawn]) -> None:
    groups = [
        (op, armed, targets_of(world, op)) for world, op, armed in drawn
        if isinstance(op, GROUPS) and len(world.included) >= 2 and targets_of(world, op).calls
    ]  # fmt: skip
    sure = sum(
        any(
            isinstance(fault, CallFault) and fault.at == 1 and fault.function in targets.calls.get(fault.device, ())
            for fault in armed
        )
        for _, armed, targets in groups
    )
    assert sure / len(groups) >= 0.4


def test_each_device_position_is_struck_as_often_as_the_others(drawn: list[Drawn]) -> None:
    positions = Counter(
        tuple(targets_of(world, op).calls).index(fault.device)
        for world, op, armed in drawn
        if isinstance(op, AllCreate) and len(targets_of(world, op).calls) == 3
        for fault in armed
        if isinstance(fault, CallFault)
    )
    assert set(positions) == {0, 1, 2}
    assert max(positions.values()) < 1.6 * min(positions.values())


def test_errors_are_far_more_frequent_than_damage_and_some_steps_meet_two_faults(drawn: list[Drawn]) -> None:
    families = Counter(family(fault) for fault in faults_of(drawn))
    assert 0 < families[Family.DAMAGE] < families[Family.ERROR] / 15
    assert families[Family.DELAY] > 0
    assert {len(armed) for _, _, armed in drawn} == {0, 1, 2}


def test_a_device_that_is_damaged_already_is_the_one_to_be_damaged_again() -> None:
    chooser = RandomChooser(Random(5))  # noqa: S311  # chance for a test, no secret
    world = world_of(Setup(tuple(DeviceSpec(f"d{number}") for number in range(3))))
    world = changed(world, world.devices["d1"]._replace(damaged=True))
    armed = [fault for _ in range(3000) for fault in draw_faults(chooser, world, AllCreate("a"))]
    assert {fault.device for fault in armed if family(fault) is Family.DAMAGE} == {"d1"}
    assert {fault.device for fault in armed if family(fault) is Family.ERROR} == {"d0", "d1", "d2"}


def test_faults_are_aimed_at_what_the_operation_will_do() -> None:
    a = PreparedSnapshot("1", "a", sectors=16, tag=1)
    world = world_of(
        Setup((
            DeviceSpec("d0", snapshots=(a,)), DeviceSpec("d1", Kind.EMPTY), DeviceSpec("d2"),
            DeviceSpec("d3", snapshots=(a,)),
        ))
    )  # fmt: skip
    assert targets_of(world, AllFind("a")).calls == {"d0": ("find",), "d2": ("find",)}  # it stops at the first miss
    assert targets_of(world, AllDelete("a")).calls == {
        "d0": ("find", "delete"),
        "d2": ("find",),
        "d3": ("find", "delete"),
    }
    assert targets_of(world, AllDelete("a")).io == ("d0", "d3")
    assert targets_of(world, LoadVm("a")).calls == {"d0": ("find",), "d2": ("find",)}
    assert targets_of(world, Goto("d0", "a")).calls == {"d0": ("goto",)}
    assert targets_of(world, Goto("d1", "a")) == ({}, ())
    taken = Transaction((SnapshotAction("d2", "a"), SnapshotAction("d0", "a")))
    assert targets_of(world, taken).calls == {"d2": ("list", "create", "delete"), "d0": ("list",)}


# --- shrinking, speed, and the same again -----------------------------------------------------------
def test_an_operation_and_its_faults_shrink_to_the_simple_ones() -> None:
    world = world_of(Setup((DeviceSpec("d0"), DeviceSpec("d1"))))
    quiet = settings(database=None)
    assert find(operations(world), lambda op: isinstance(op, AllCreate), settings=quiet) == AllCreate("a")
    assert find(faults(world, AllCreate("a")), lambda _: True, settings=quiet) == ()
    culprit = find(faults(world, AllCreate("a")), lambda armed: any(f.device == "d1" for f in armed), settings=quiet)
    assert culprit == (CallFault("d1", "create"),)


def test_tables_are_short_enough_to_be_drawn_the_same_everywhere() -> None:
    class Measuring:
        longest = 0
        drawn = 0

        def index(self, n: int, /) -> int:
            self.longest, self.drawn = max(self.longest, n), self.drawn + 1
            return int(rng.random() * n)

    rng, chooser = Random(6), Measuring()  # noqa: S311  # chance for a test, no secret
    worlds = [world for world, _, _ in walk(Semantics.MODERN, histories=40)]
    chooser.drawn = 0
    for world in worlds:
        operation = draw_operation(chooser, world)
        draw_faults(chooser, world, operation, regions=REGIONS)
    assert chooser.longest <= CHOICES_MAX
    assert chooser.drawn / len(worlds) < 8
    with pytest.raises(AssertionError):
        weighted((CHOICES_MAX + 1, "too long"))
    assert pick(chooser, ("only one",)) == "only one"


def test_every_operation_is_in_the_table_of_the_alphabet() -> None:
    chooser = RandomChooser(Random(7))  # noqa: S311  # chance for a test, no secret
    world = world_of(draw_setup(chooser))
    for operation in OPERATIONS:
        assert type(draw_operation(chooser, world, kinds=[KINDS[operation]])) is operation


QUIET = settings(
    max_examples=15, stateful_step_count=20, database=None, deadline=None, phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)  # fmt: skip


def test_a_state_machine_draws_for_its_own_situation_and_the_same_again() -> None:
    assert machine_steps() == machine_steps()
    assert len(machine_steps()) > 200


def machine_steps() -> list[str]:
    taken: list[str] = []

    class Machine(RuleBasedStateMachine):
        situation: Situation

        @initialize(setup=setups(devices_max=3))
        def start(self, setup: Setup) -> None:
            self.situation = Situation(world_of(setup), regions=REGIONS)

        @rule(step=steps())
        def perform(self, step: tuple[Operation, tuple[Fault, ...]]) -> None:
            taken.append(repr(step))
            operation, _ = step
            self.situation = self.situation._replace(world=toy_step(self.situation.world, operation))

    run_state_machine_as_test(seed(7)(Machine), settings=QUIET)
    return taken


DRAW_AND_PRINT = """
import hashlib
from hypothesis import Phase, given, seed, settings
from snapcheck.model.setup import DeviceSpec, Setup
from snapcheck.stateful_tests.strategies import setups
{imports}
digest = hashlib.sha256()
@seed(3)
@settings(max_examples=200, database=None, phases=[Phase.generate])
@given(setups())
def draw(setup):
    digest.update(repr(setup).encode())
draw()
print(digest.hexdigest())
"""


def test_equal_seeds_draw_the_same_in_every_process_whatever_is_imported(tmp_path: Path) -> None:
    numbers = ", ".join(str(number) for number in range(900))
    (tmp_path / "many_constants.py").write_text(f"NUMBERS = ({numbers})\n")
    digests = {
        subprocess.run(
            [sys.executable, "-c", DRAW_AND_PRINT.format(imports=imports)],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            cwd=tmp_path,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for imports, hash_seed in (("", "0"), ("import many_constants", "1"))
    }
    assert len(digests) == 1
