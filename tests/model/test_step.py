"""The front of the model: the start, requests in flight, reopening, damage, purity, and what it all must never be."""

import random

import pytest
from snapcheck.model.device import Content, Device, World
from snapcheck.model.errno import Errno
from snapcheck.model.faults import BitFlip, CallFault, Delay, Fails, Fault, IoFault, Lost
from snapcheck.model.operations import (
    OPERATIONS,
    AddBitmap,
    AllCreate,
    Create,
    Delete,
    Flush,
    Goto,
    List,
    LoadTmp,
    LoadVm,
    Operation,
    Reopen,
    Resize,
    SetMedium,
    SetReadOnly,
    SubmitWrite,
    Write,
)
from snapcheck.model.setup import DeviceSpec, Kind, PreparedSnapshot, Semantics, Setup
from snapcheck.model.step import reopened, start, step
from snapcheck.stateful_tests.chooser import RandomChooser
from snapcheck.stateful_tests.draw_operations import draw_operation
from snapcheck.stateful_tests.draw_setups import draw_setup

A = PreparedSnapshot("1", "a", 8, 11, vm_state_size=3)


def given(*kinds: Kind, read_only: bool = False) -> World:
    """Return a world of devices d0, d1 and so on, of 8 sectors with tag 9, each with a snapshot a where it can."""
    specs = (DeviceSpec(f"d{at}", kind, 8, 512, read_only, 9, (A,)) for at, kind in enumerate(kinds))
    return start(Setup(tuple(specs)))


def after(world: World, *operations: Operation) -> World:
    for operation in operations:
        (outcome,) = step(world, operation, ())
        states = {name: one.state for name, (one,) in outcome.devices.items()}
        world = World({**world.devices, **states}, world.semantics)
    return world


def content(world: World, name: str = "d0") -> Content:
    image = world.devices[name].image
    assert image is not None
    return image.content


# --- the start ------------------------------------------------------------------------------------
def test_a_history_starts_with_what_the_setup_says() -> None:
    world = given(Kind.DRIVER, Kind.PLAIN, Kind.EMPTY)
    image = world.devices["d0"].image
    assert image is not None
    assert (image.sectors, image.content, image.vmstate) == (8, Content(b"\x09" * 8), b"")
    assert (image.snapshots[0].info.name, image.snapshots[0].content.tags) == ("a", b"\x0b" * 8)
    assert len(image.snapshots[0].vmstate or b"") == 3
    plain, empty = world.devices["d1"], world.devices["d2"]
    assert plain.image is not None
    assert plain.image.snapshots == ()
    assert (empty.image, empty.present) == (None, False)


# --- requests in flight ---------------------------------------------------------------------------
def test_a_submitted_write_shows_only_after_the_next_operation_on_whatever_device() -> None:
    world = after(given(Kind.DRIVER, Kind.DRIVER), SubmitWrite("d0", 0, 2, 5))
    assert content(world) == Content(b"\x09" * 8)
    again = after(world, SubmitWrite("d0", 1, 2, 6))
    assert content(again) == Content(b"\x09" * 8)
    landed = after(again, List("d1"))
    assert content(landed) == Content(b"\x05\x06\x06" + b"\x09" * 5)
    assert landed.devices["d0"].in_flight == ()


def test_a_submitted_write_lands_after_the_work_of_the_next_operation() -> None:
    world = after(given(Kind.DRIVER), SubmitWrite("d0", 0, 8, 5))
    created = after(world, Create("d0", "x")).devices["d0"].image
    assert created is not None
    assert created.snapshots[1].content == Content(b"\x09" * 8)
    assert created.content == Content(b"\x05" * 8)
    assert content(after(world, Goto("d0", "1"))) == Content(b"\x05" * 8)
    assert content(after(world, Write("d0", 0, 8, 7))) == Content(b"\x05" * 8)
    assert content(after(world, Delete("d0", "1", None))) == Content(b"\x05" * 8)


def test_closing_a_device_drains_it_first() -> None:
    world = after(given(Kind.DRIVER), SubmitWrite("d0", 0, 8, 5))
    for closing in (Reopen("d0"), SetReadOnly("d0", read_only=True), SetMedium("d0", present=False)):
        assert content(after(world, closing)) == Content(b"\x05" * 8)


def test_a_submitted_write_is_refused_like_any_write() -> None:
    (outcome,) = step(given(Kind.DRIVER), SubmitWrite("d0", 7, 2, 1), ())
    assert outcome.expected.errnos == frozenset({Errno.EIO})
    (outcome,) = step(given(Kind.DRIVER, read_only=True), SubmitWrite("d0", 0, 2, 1), ())
    assert outcome.expected.errnos == frozenset({Errno.EPERM})
    (outcome,) = step(given(Kind.EMPTY), SubmitWrite("d0", 0, 2, 1), ())
    assert outcome.expected.errnos == frozenset({Errno.ENOMEDIUM})


def test_a_request_that_no_longer_fits_or_is_struck_leaves_each_sector_old_or_new() -> None:
    world = after(given(Kind.DRIVER, Kind.DRIVER), SubmitWrite("d0", 2, 6, 5))
    assert content(after(world, Resize("d0", 4))) == Content(b"\x09" * 4, ((2, b"\x05"), (3, b"\x05")))
    (outcome,) = step(world, List("d1"), (IoFault("d0", "write", Fails()),))
    (lost,) = outcome.devices["d0"]
    assert lost.state.image is not None
    assert [sector for sector, _ in lost.state.image.content.maybe] == [2, 3, 4, 5, 6, 7]
    assert outcome.expected.errnos == frozenset({Errno.OK})


def test_requests_of_a_node_that_died_are_lost() -> None:
    world = after(given(Kind.RAW_OVER), SubmitWrite("d0", 0, 1, 5))
    outcomes = step(world, Goto("d0", "1"), (IoFault("d0", "any", Fails(), times=0),))
    states = [each.state for outcome in outcomes for each in outcome.devices["d0"]]
    assert any(not state.present for state in states)
    assert all(state.in_flight == () for state in states)
    assert all(state.image is not None and state.image.content.maybe == ((0, b"\x05"),) for state in states)


# --- reopening ------------------------------------------------------------------------------------
def test_reopening_changes_nothing_of_a_device_that_has_nothing_to_lose() -> None:
    world = given(Kind.DRIVER, Kind.EMPTY)
    assert reopened(world, "d0") is world
    assert reopened(world, "d1") is world


def test_reopening_ends_views_and_takes_bitmaps_and_requests_with_it() -> None:
    world = after(given(Kind.RAW_OVER), AddBitmap("d0", "bm"), AddBitmap("d0/file", "bm"), SubmitWrite("d0", 0, 1, 5))
    anew = reopened(world, "d0").devices["d0"]
    assert (anew.bitmaps, anew.child_bitmaps, anew.in_flight) == (frozenset(), frozenset(), ())
    assert anew.image is not None
    assert anew.image.content.maybe == ((0, b"\x05"),)
    viewed = after(given(Kind.DRIVER, read_only=True), LoadTmp("d0", "1", None))
    assert reopened(viewed, "d0") == given(Kind.DRIVER, read_only=True)


# --- faults and damage ----------------------------------------------------------------------------
def test_a_device_that_met_damage_is_damaged_even_when_the_operation_leaves_it_alone() -> None:
    world = given(Kind.DRIVER, Kind.DRIVER)
    for operation in (Flush("d0"), List("d1"), AllCreate("x")):
        for outcome in step(world, operation, (IoFault("d0", "read", BitFlip(1)),)):
            assert all(each.state.damaged for each in outcome.devices["d0"])
            assert not any(each.state.damaged for each in outcome.devices.get("d1", ()))


def test_unknown_devices_are_a_bug_of_the_caller() -> None:
    with pytest.raises(KeyError):
        step(given(Kind.DRIVER), Flush("nowhere"), ())
    with pytest.raises(AssertionError):
        step(given(Kind.DRIVER), List("d0/file"), ())


# --- whatever happens -----------------------------------------------------------------------------
def walk(seed: int, semantics: Semantics) -> list[tuple[World, Operation]]:
    """Return the steps of a random history, each with the world before it."""
    chooser = RandomChooser(random.Random(seed))  # noqa: S311  # a seed makes it the same each time
    world = start(draw_setup(chooser, semantics=semantics))
    steps: list[tuple[World, Operation]] = []
    for _ in range(40):
        operation = draw_operation(chooser, world)
        steps.append((world, operation))
        outcome = step(world, operation, ())[0]
        states = {name: allowed[0].state for name, allowed in outcome.devices.items()}
        world = World({**world.devices, **states}, world.semantics)
    return steps


@pytest.mark.parametrize("semantics", list(Semantics))
def test_without_faults_there_is_one_outcome_with_one_new_state_for_each_device_that_changes(
    semantics: Semantics,
) -> None:
    kinds: set[type[Operation]] = set()
    for seed in range(25):
        for world, operation in walk(seed, semantics):
            outcome, *others = step(world, operation, ())
            kinds.add(type(operation))
            unsure = any(device.spec.unshared for device in world.devices.values())  # zeroes may take room, or not
            assert others == [] or unsure or type(operation) is LoadVm  # where an id is another one's name
            for name, allowed in outcome.devices.items():
                assert len(allowed) == 1
                assert allowed[0].state is not world.devices[name]
                assert allowed[0].note == ""
                assert sound(allowed[0].state)
    assert kinds == set(OPERATIONS)


def sound(device: Device) -> bool:
    """Tell whether a state makes sense: content as long as the size, a view only where nothing can be written."""
    image = device.image
    if image is None:
        return not device.present
    fits = len(image.content.tags) == image.sectors and all(at < image.sectors for at, _ in image.content.maybe)
    return fits and (image.view is None or (device.read_only and device.present))


ALL_SORTS: tuple[Fault, ...] = (
    IoFault("d0", "any", Fails(Errno.ENOSPC), times=0), IoFault("d1", "write", Fails()), IoFault("d0", "any", Delay(5)),
    CallFault("d0", "create"), CallFault("d1", "goto"), CallFault("d0", "delete"), CallFault("d1", "find"),
    CallFault("d0", "list"), CallFault("d0", "load_tmp"), IoFault("d2", "write", Lost()),
)  # fmt: skip


@pytest.mark.parametrize("semantics", list(Semantics))
def test_faults_only_add_outcomes_and_never_many(semantics: Semantics) -> None:
    for seed in range(25, 40):
        for world, operation in walk(seed, semantics):
            met = tuple(fault for fault in ALL_SORTS[:-1] if fault.device in world.devices)
            plain, struck = step(world, operation, ()), step(world, operation, met)
            assert 1 <= len(struck) <= 40
            assert all(sound(each.state) for outcome in struck for left in outcome.devices.values() for each in left)
            answers = [outcome.expected for outcome in struck]
            assert plain[0].expected in answers or plain[0].expected.errnos != frozenset({Errno.OK})


def test_nothing_that_was_given_is_changed() -> None:
    for world, operation in walk(7, Semantics.MODERN):
        before = (hash(tuple(world.devices.items())), dict(world.devices))
        step(world, operation, tuple(fault for fault in ALL_SORTS if fault.device in world.devices))
        assert before == (hash(tuple(world.devices.items())), dict(world.devices))
