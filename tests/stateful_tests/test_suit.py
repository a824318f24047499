import pytest
from snapcheck.model.errno import Errno
from snapcheck.model.faults import BitFlip, CallFault, Fails, Fault, IoFault, Lost
from snapcheck.model.history import Abilities
from snapcheck.model.operations import AddBitmap, Create, Delete, Goto, Operation, SaveVm, SnapshotAction, Transaction
from snapcheck.model.setup import DeviceSpec, PreparedSnapshot, Setup
from snapcheck.stateful_tests.suit import suited_faults, suited_operation, suited_setup

FEW = Abilities(
    call_faults=False,
    errnos=(Errno.EIO, Errno.EPERM, Errno.ENOSPC),
    children=False,
    any_bytes=False,
    vmstate_bytes=765,
    ids=False,
)


@pytest.mark.parametrize(
    ("drawn", "suited"),
    [
        (SaveVm(None, 3, 100, 1, 2, 3), SaveVm("vm", vm_state_size=765)),
        (SaveVm("a" * 254 + "\u00e9"), SaveVm("a" * 254)),
        (SaveVm("\u00e9t\u00e9"), SaveVm("\u00e9t\u00e9")),
        (Transaction((SnapshotAction("d0", "a"),), 5, 6, 7), Transaction((SnapshotAction("d0", "a"),))),
        (AddBitmap("d0/file", "bm0"), AddBitmap("d0", "bm0")),
        (Goto("d0/file", "a"), Goto("d0", "a")),
        (Create("d0", "a", 100, 5, 6, 7), Create("d0", "a")),
        (Delete("d0", "1", None), Delete("d0", None, "1")),
    ],
)
def test_an_operation_comes_in_the_form_that_the_system_can_perform(drawn: Operation, suited: Operation) -> None:
    assert suited_operation(drawn, FEW) == suited
    assert suited_operation(drawn, Abilities()) is drawn


@pytest.mark.parametrize(
    ("drawn", "suited"),
    [
        (CallFault("d1", "create", 2, 0, Errno.ENOSPC), IoFault("d1", "any", Fails(Errno.ENOSPC), at=2, times=0)),
        (IoFault("d1", "write", Fails(Errno.EROFS), times=0), IoFault("d1", "write", Fails(Errno.EPERM), times=0)),
        (IoFault("d1", "any", Fails(Errno.ENOMEDIUM)), IoFault("d1", "any", Fails(Errno.EIO))),
        (IoFault("d1", "write", Lost()), IoFault("d1", "write", Lost())),
        (IoFault("d1", "read", BitFlip(3)), IoFault("d1", "read", BitFlip(3))),
    ],
)
def test_a_fault_comes_in_the_form_that_the_system_can_meet(drawn: Fault, suited: Fault) -> None:
    assert suited_faults((drawn,), FEW) == (suited,)
    assert suited_faults((drawn,), Abilities()) == (drawn,)


def test_a_system_that_saves_a_state_of_its_own_starts_with_none_of_the_harness() -> None:
    with_state = PreparedSnapshot("1", "a", sectors=16, tag=11, vm_state_size=100)
    drawn = Setup((DeviceSpec("d0", snapshots=(with_state,)), DeviceSpec("d1")))
    suited = suited_setup(drawn, FEW)
    assert [snapshot.vm_state_size for snapshot in suited.devices[0].snapshots] == [0]
    assert suited.devices[1] is drawn.devices[1]
    assert suited_setup(drawn, Abilities()) is drawn
