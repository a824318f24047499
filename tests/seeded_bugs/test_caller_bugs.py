"""Stories of bugs in savevm, loadvm, delvm and transactions, told without laws, model or phases."""

from typing import Any

import pytest
from snapcheck.model.errno import Errno
from snapcheck.model.faults import CallFault, Fails, IoFault
from snapcheck.model.history import Drain, Lock
from snapcheck.model.operations import (
    AllCanSnapshot,
    AllCreate,
    AllFind,
    Create,
    DelVm,
    LoadVm,
    SaveVm,
    SetMedium,
    SnapshotAction,
    SubmitWrite,
    Transaction,
    Write,
)
from snapcheck.model.setup import Kind

BROKEN_MEDIUM = IoFault("d0", "write", Fails(), at=1, times=0)


def died_of(result: Any) -> str:
    return str(result.crash or "")


def both(name: str) -> Transaction:
    return Transaction((SnapshotAction("d0", name), SnapshotAction("d1", name)))


# --- savevm ---------------------------------------------------------------------------------------
@pytest.mark.bug("nameless-crash")
def test_savevm_without_a_name_ends_the_process(tried: Any) -> None:
    assert tried.answer("crash", SaveVm(None)) == (None, "strcmp with NULL")


@pytest.mark.bug("nameless-stored")
def test_savevm_without_a_name_stores_one_that_nobody_can_load(tried: Any) -> None:
    def story(vm: Any) -> object:
        vm.all(SaveVm(None))
        return vm.names("d0")

    assert tried(story) == (["vm-19700101000000"], [""])


@pytest.mark.bug("close-ignored")
def test_savevm_succeeds_and_the_end_of_the_state_is_missing(tried: Any) -> None:
    def story(vm: Any) -> object:
        return vm.do(SaveVm("a"), IoFault("d0", "write", Fails(), region="data", at=2)).errno

    # The state comes in one piece on the correct code, so that its failure is the first one there.
    def first(vm: Any) -> object:
        return vm.do(SaveVm("a"), IoFault("d0", "write", Fails(), region="data", at=1)).errno

    assert tried(story, Kind.DRIVER).wrong is Errno.OK
    assert tried(first, Kind.DRIVER).right is Errno.EIO


@pytest.mark.bug("refusal-is-success")
def test_savevm_on_a_device_without_snapshots_is_success(tried: Any) -> None:
    def story(vm: Any) -> object:
        return vm.do(SaveVm("a")).errno, vm.names("d0")

    assert tried(story, Kind.DRIVER, Kind.PLAIN) == ((Errno.ENOTSUP, []), (Errno.OK, []))


@pytest.mark.bug("no-error-set")
def test_a_state_that_can_not_be_written_ends_the_process(tried: Any) -> None:
    def story(vm: Any) -> object:
        return died_of(vm.do(SaveVm("a"), BROKEN_MEDIUM))

    assert tried(story) == ("", "the error object is NULL")


@pytest.mark.bug("stuck-in-setup")
def test_no_savevm_works_after_one_that_failed(tried: Any) -> None:
    def story(vm: Any) -> object:
        return vm.do(SaveVm("a"), BROKEN_MEDIUM).errno, vm.do(SaveVm("a")).errno

    assert tried(story) == ((Errno.EIO, Errno.OK), (Errno.EIO, Errno.EBUSY))


@pytest.mark.bug("nested-lock")
def test_the_state_is_written_by_who_waits_for_the_lock(tried: Any) -> None:
    def story(vm: Any) -> object:
        vm.all(SaveVm("a"))
        return "blocked d0" in vm.story(Lock)

    assert tried(story) == (False, True)


@pytest.mark.bug("no-rollback")
def test_a_savevm_that_failed_leaves_a_snapshot_on_the_first_device(tried: Any) -> None:
    def story(vm: Any) -> object:
        vm.do(SaveVm("a"), CallFault("d1", "create"))
        return vm.names("d0")

    assert tried(story) == ([], ["a"])


# --- loadvm and delvm -----------------------------------------------------------------------------
@pytest.mark.bug("falls-through")
def test_the_machine_runs_on_disks_that_did_not_go_back(tried: Any) -> None:
    def story(vm: Any) -> object:
        vm.all(SaveVm("a"), Write("d1", 0, 1, 5))
        errno = vm.do(LoadVm("a"), CallFault("d1", "goto")).errno
        return errno, vm.content("d1")[0]

    assert tried(story) == ((Errno.EIO, 5), (Errno.OK, 5))


@pytest.mark.bug("cached-vmstate-bs")
def test_savevm_writes_to_a_device_that_was_unplugged(tried: Any) -> None:
    def story(vm: Any) -> object:
        vm.all(SaveVm("a"), SetMedium("d0", present=False))
        return vm.do(SaveVm("b")).errno

    assert tried(story) == (Errno.OK, Errno.ENOMEDIUM)


@pytest.mark.bug("other-vmstate-bs")
def test_loadvm_does_not_find_the_state_that_savevm_stored(tried: Any) -> None:
    def story(vm: Any) -> object:
        vm.all(SaveVm("a"))
        return vm.do(LoadVm("a")).errno

    assert tried(story) == (Errno.OK, Errno.EINVAL)


@pytest.mark.bug("undrained-callers")
def test_a_machine_is_saved_while_its_guest_writes(tried: Any) -> None:
    def story(vm: Any) -> object:
        vm.all(SubmitWrite("d1", 0, 8, 7), SaveVm("a"))
        return vm.story(Drain)[:1]

    assert tried(story) == (["drain d0 begin"], [])


# --- the group functions, as callers see them -----------------------------------------------------
@pytest.mark.bug("removable-skipped")
def test_a_removable_drive_has_no_snapshot_to_go_back_to(tried: Any) -> None:
    def story(vm: Any) -> object:
        vm.all(SaveVm("a"))
        return vm.names("d1")

    assert tried(story, Kind.DRIVER, Kind.RAW_OVER) == (["a"], [])


@pytest.mark.bug("can-hard-coded")
def test_a_plain_disk_is_said_to_take_snapshots(tried: Any) -> None:
    assert tried.answer("answer", AllCanSnapshot(), Kind.DRIVER, Kind.PLAIN) == (False, True)


@pytest.mark.bug("compared-by-id")
def test_two_snapshots_of_other_names_count_as_one(tried: Any) -> None:
    def story(vm: Any) -> object:
        vm.all(Create("d0", "a"), Create("d1", "b"))
        return vm.do(AllFind("a")).errno

    assert tried(story, Kind.DRIVER, Kind.DRIVER) == (Errno.ENOENT, Errno.OK)


@pytest.mark.bug("double-free")
def test_a_name_that_two_devices_do_not_have_ends_the_process(tried: Any) -> None:
    def story(vm: Any) -> object:
        vm.all(AllCreate("a"))
        return died_of(vm.do(DelVm("nowhere")))

    assert tried(story) == ("", "double free of the error object")


# --- transactions ---------------------------------------------------------------------------------
@pytest.mark.bug("not-aborted")
def test_a_transaction_that_failed_leaves_a_snapshot(tried: Any) -> None:
    def story(vm: Any) -> object:
        vm.do(both("a"), CallFault("d1", "create"))
        return vm.names("d0")

    assert tried(story) == ([], ["a"])


@pytest.mark.bug("undrained-action")
def test_a_snapshot_is_taken_while_the_guest_writes(tried: Any) -> None:
    def story(vm: Any) -> object:
        vm.all(SubmitWrite("d0", 0, 8, 7), both("a"))
        return vm.story(Drain)[:1]

    assert tried(story) == (["drain d0 begin"], [])
