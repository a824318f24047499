"""The coverage matrix: what a step reaches, which cells there are, and what is said of those that nobody reached."""

from collections import Counter

import pytest
from snapcheck.impl.targets import find_target
from snapcheck.model.faults import CallFault, Fails, IoFault, Lost
from snapcheck.model.operations import AddBitmap, AllCreate, AllGoto, Create, Goto, Operation, SetMedium, SetReadOnly
from snapcheck.model.setup import DeviceSpec, Kind, PreparedSnapshot, Semantics, Setup
from snapcheck.stateful_tests.cells import STATES, parts_of
from snapcheck.stateful_tests.coverage import cells_of, coverage
from snapcheck.stateful_tests.phases import stateful, sweep, walk
from snapcheck.stateful_tests.session import Session
from snapcheck.stateful_tests.units import Unit
from snapcheck.stateful_tests.work import Control, Run

QCOW2 = find_target("qcow2")
THREE = Setup((DeviceSpec("d0", sectors=16), DeviceSpec("d1", Kind.RAW_OVER, sectors=16), DeviceSpec("d2", sectors=16)))


def reached(*operations: Operation, setup: Setup = THREE) -> Counter[str]:
    with Session(QCOW2, setup) as session:
        for operation in operations:
            session.step(operation)
        return session.judge.cells


# --- what a step reaches --------------------------------------------------------------------------
def test_without_a_fault_each_device_that_takes_part_reaches_a_cell() -> None:
    cells = reached(SetReadOnly("d1", read_only=True), AllCreate("s"), AllGoto("s"))
    assert cells["set-read-only x none x root x no snapshot"] == 1
    assert [cell for cell in cells if cell.startswith("all-")] == [
        "all-create x none x first x no snapshot", "all-create x none x last x no snapshot",
        "all-goto x none x first x one snapshot", "all-goto x none x last x one snapshot",
    ]  # fmt: skip


def test_a_fault_that_was_met_reaches_one_and_the_devices_beside_it_none() -> None:
    with Session(QCOW2, THREE) as session:
        session.step(AllCreate("s"), (CallFault("d1", "create"), IoFault("d2", "write", Fails(), at=500)))
        assert dict(session.judge.cells) == {"all-create x create-call x middle x no snapshot": 1}


def test_a_damaged_device_reaches_nothing() -> None:
    with Session(QCOW2, THREE) as session:
        session.step(Create("d0", "s"), (IoFault("d0", "write", Lost()),))
        session.step(Create("d0", "t"))
        assert dict(session.judge.cells) == {"create x damage x root x no snapshot": 1}


@pytest.mark.parametrize(("node", "role"), [("d1", "root"), ("d1/file", "child")])
def test_a_child_is_another_role_than_its_root(node: str, role: str) -> None:
    cells = reached(Create("d1/file", "s"), AddBitmap("d1/file", "bm0"), Goto(node, "s"))
    assert [cell for cell in cells if cell.startswith("goto")] == [f"goto x none x {role} x dirty bitmap"]


@pytest.mark.parametrize(("ids", "names", "state"), [
    ("1", "a", "one snapshot"), ("12", "ab", "several snapshots"), ("11", "ab", "repeated id or name"),
    ("12", "aa", "repeated id or name"),
])  # fmt: skip
def test_ids_and_names_that_repeat_are_a_state_of_their_own(ids: str, names: str, state: str) -> None:
    pairs = zip(ids, names, strict=True)
    snapshots = tuple(PreparedSnapshot(each, name, sectors=16, tag=3) for each, name in pairs)
    cells = reached(SetMedium("d0", present=True), setup=Setup((DeviceSpec("d0", sectors=16, snapshots=snapshots),)))
    assert dict(cells) == {f"set-medium x none x root x {state}": 1}


# --- which cells there are ------------------------------------------------------------------------
def test_no_cell_is_declared_that_nobody_can_reach() -> None:
    cells = set(cells_of(3, None, Semantics.CLASSIC))
    assert "goto x goto-call x child x dirty bitmap" in cells
    assert "goto x goto-call x root x dirty bitmap" not in cells  # EBUSY before the driver is asked
    assert "write x write-error x root x read-only" not in cells
    assert not any("no medium" in cell and cell.startswith("save-vm") for cell in cells)
    assert {parts_of(cell)[-1] for cell in cells} == set(STATES)


def test_fewer_devices_have_fewer_roles() -> None:
    roles = [
        {parts_of(cell)[2] for cell in cells_of(devices, ("all-goto",), Semantics.CLASSIC)} for devices in (1, 2, 3)
    ]
    assert roles == [{"only"}, {"only", "first", "last"}, {"only", "first", "middle", "last"}]


@pytest.mark.parametrize("semantics", list(Semantics))
@pytest.mark.parametrize(("run", "histories"), [(sweep.run, 300), (walk.run, 6), (stateful.run, 20)])
def test_what_the_phases_reach_was_declared(run: Run, histories: int, semantics: Semantics) -> None:
    unit = Unit(
        driver="qcow2", phase="any", semantics=semantics, devices=3, seed=3, shard=1, histories=histories, seconds=None
    )
    answer = run(unit, Control(lambda _tick: None))
    assert len(answer.cells) > 50
    assert answer.cells.keys() - set(cells_of(3, None, semantics)) == set()


# --- what is said of it ---------------------------------------------------------------------------
def test_cells_that_begin_alike_are_said_in_one_where_none_was_reached() -> None:
    possible = ("a x f x r x s", "a x f x r x t", "a x g x r x s", "b x f x r x s")
    hits = {"sweep": Counter({"a x f x r x s": 2}), "walk": Counter({"a x f x r x s": 1, "b x f x r x s": 1})}
    told = coverage(hits, possible)
    assert (told.cells, told.reached, told.never) == (4, 2, ("a x f x r x t", "a x g"))
    assert dict(told.hits) == {"a x f x r x s": 3, "a x f x r x t": 0, "a x g x r x s": 0, "b x f x r x s": 1}
    assert [(phase.name, phase.reached, phase.alone) for phase in told.phases] == [("sweep", 1, 0), ("walk", 2, 1)]
    assert told.phases[0].never == ("a x f x r x t", "a x g", "b")


def test_a_cell_that_nobody_expected_counts_all_the_same() -> None:
    told = coverage({"walk": Counter({"a x f x r x s": 1})}, ())
    assert (told.cells, told.reached, told.never) == (1, 1, ())
