"""Stories of savevm, loadvm and delvm: the order of their group calls, whom they name, what stays when they fail."""

from collections.abc import Callable
from typing import Any

import pytest
from snapcheck.model.content import vmstate_pattern
from snapcheck.model.errno import Errno
from snapcheck.model.faults import CallFault, Fails, IoFault
from snapcheck.model.history import Call, Drain, Request
from snapcheck.model.operations import (
    AllCreate,
    Create,
    Delete,
    DelVm,
    LoadVm,
    Operation,
    SaveVm,
    SetReadOnly,
    SubmitWrite,
    VmstateRead,
    Write,
)
from snapcheck.model.setup import Kind

MakeBench = Callable[..., Any]
BOTH = pytest.mark.parametrize("semantics", ["classic", "modern"])


# --- savevm ---------------------------------------------------------------------------------------
@BOTH
def test_savevm_and_loadvm_bring_disks_and_vm_state_back(bench: MakeBench, semantics: str) -> None:
    vm = bench(Kind.DRIVER, Kind.RAW_OVER, semantics=semantics)
    vm.all(SaveVm("s", tag=3, vm_state_size=765), Write("d0", 0, 16, 5), Write("d1", 0, 16, 5))
    assert [vm.look(device).memory.snapshots[0].vm_state_size for device in ("d0", "d1")] == [765, 0]
    assert vm.do(LoadVm("s")).data == vmstate_pattern(tag=3, offset=0, length=765)
    assert [vm.content(device) for device in ("d0", "d1")] == [b"\x09" * 16] * 2


def test_after_savevm_the_vm_state_is_in_the_snapshot_only(bench: MakeBench) -> None:
    vm = bench(Kind.DRIVER)
    vm.all(SaveVm("s"))
    assert vm.do(VmstateRead("d0", 0, 765)).data == bytes(765)


@BOTH
def test_savevm_replaces_what_had_that_name(bench: MakeBench, semantics: str) -> None:
    vm = bench(Kind.DRIVER, Kind.DRIVER, semantics=semantics)
    vm.all(Create("d0", "x"), SaveVm("s"), SaveVm("s"))
    assert [vm.names(device) for device in ("d0", "d1")] == [["x", "s"], ["s"]]


def test_the_order_of_savevm(bench: MakeBench) -> None:
    vm = bench(Kind.DRIVER, Kind.DRIVER)
    vm.all(SaveVm("s"))
    own = [call for call in vm.calls() if "driver" not in call and not call.startswith("list")]
    assert own == ["can d0", "can d1", "find d0", "find d1", "can d0", "create d0", "create d1"]


def test_a_savevm_without_a_name_makes_one_of_the_clock_and_deletes_nothing(bench: MakeBench) -> None:
    vm = bench(Kind.DRIVER)
    vm.all(SaveVm(None, date_sec=1_700_000_000))
    assert vm.names() == ["vm-20231114221320"]
    assert "find d0" not in vm.calls()


def test_a_long_name_is_searched_in_full_and_stored_cut(bench: MakeBench) -> None:
    vm = bench(Kind.DRIVER)
    vm.all(SaveVm("n" * 300), SaveVm("n" * 300))
    assert vm.names() == ["n" * 255] * 2
    assert vm.do(LoadVm("n" * 300)).errno is not Errno.OK


@BOTH
def test_a_writable_device_without_snapshots_forbids_savevm_and_loadvm(bench: MakeBench, semantics: str) -> None:
    vm = bench(Kind.DRIVER, Kind.PLAIN, semantics=semantics)
    for operation in (SaveVm("s"), LoadVm("s")):
        result = vm.do(operation)
        assert result.message == "Device 'd1' is writable but does not support snapshots"
        assert (result.first_bad, result.errno is Errno.OK) == ("d1", False)


@BOTH
def test_without_any_device_there_is_nowhere_to_put_the_vm_state(bench: MakeBench, semantics: str) -> None:
    result = bench(Kind.EMPTY, semantics=semantics).do(SaveVm("s"))
    assert (result.errno is Errno.OK, result.first_bad) == (False, None)
    assert result.message


def test_the_old_snapshot_is_gone_before_the_new_one_is_tried(bench: MakeBench) -> None:
    vm = bench(Kind.DRIVER, Kind.DRIVER)
    vm.all(SaveVm("s"))
    result = vm.do(SaveVm("s"), CallFault("d0", "create"))
    assert (result.first_bad, result.message) == ("d0", "Error while creating snapshot on 'd0'")
    assert [vm.names(device) for device in ("d0", "d1")] == [[], []]


def test_a_failed_classic_savevm_leaves_what_it_created(bench: MakeBench) -> None:
    vm = bench(Kind.DRIVER, Kind.DRIVER)
    assert vm.do(SaveVm("s"), CallFault("d1", "create")).first_bad == "d1"
    assert [vm.names(device) for device in ("d0", "d1")] == [["s"], []]


def test_a_failed_modern_savevm_is_rolled_back(bench: MakeBench) -> None:
    vm = bench(Kind.DRIVER, Kind.DRIVER, semantics="modern")
    result = vm.do(SaveVm("s"), CallFault("d1", "create"))
    assert (result.first_bad, result.message) == ("d1", "Could not create snapshot 's' on 'd1'")
    assert [vm.names(device) for device in ("d0", "d1")] == [[], []]


def test_a_rollback_that_fails_changes_neither_answer_nor_culprit(bench: MakeBench) -> None:
    vm = bench(Kind.DRIVER, Kind.DRIVER, semantics="modern")
    result = vm.do(SaveVm("s"), CallFault("d1", "create"), CallFault("d0", "delete"))
    assert result.first_bad == "d1"
    assert vm.names("d0") == ["s"]


def test_a_failed_delete_of_the_old_one_ends_savevm(bench: MakeBench) -> None:
    vm = bench(Kind.DRIVER, Kind.DRIVER)
    vm.all(SaveVm("s"))
    result = vm.do(SaveVm("s"), CallFault("d1", "delete", errno=Errno.ENOSPC))
    assert result.message.startswith("Error while deleting snapshot on device 'd1': ")
    assert (result.errno, result.first_bad) == (Errno.ENOSPC, "d1")
    assert "create d0" not in vm.calls()


@pytest.mark.parametrize("kind", ["write", "flush"])
def test_vm_state_that_can_not_be_written_or_flushed_fails_savevm_and_names_nobody(bench: MakeBench, kind: str) -> None:
    vm = bench(Kind.DRIVER)
    result = vm.do(SaveVm("s"), IoFault("d0", kind, Fails(Errno.ENOSPC), times=0))
    assert (result.errno, result.first_bad) == (Errno.ENOSPC, None)
    assert vm.names() == []
    assert vm.story(Drain)[-1] == "drain d0 end"
    assert vm.unbalanced() == {}


# --- drained --------------------------------------------------------------------------------------
@pytest.mark.parametrize("operation", [SaveVm("s"), LoadVm("s")])
def test_all_requests_land_before_any_device_is_changed(bench: MakeBench, operation: Operation) -> None:
    vm = bench(Kind.DRIVER, Kind.DRIVER)
    if isinstance(operation, LoadVm):
        vm.all(SaveVm("s"))
    vm.all(SubmitWrite("d1", 0, 1, 5), SubmitWrite("d0", 0, 1, 6), SubmitWrite("d1", 1, 1, 7))
    vm.all(operation)
    function = "create" if isinstance(operation, SaveVm) else "goto"
    story = vm.story(Request, Call)
    assert max(at for at, words in enumerate(story) if "complete" in words) < story.index(f"enter {function} d0 driver")


@pytest.mark.parametrize("fault", [CallFault("d1", "create"), CallFault("d0", "create")])
def test_every_drained_section_ends_when_savevm_fails(bench: MakeBench, fault: CallFault) -> None:
    vm = bench(Kind.DRIVER, Kind.DRIVER)
    vm.do(SaveVm("s"), fault)
    assert vm.story(Drain) == ["drain d0 begin", "drain d1 begin", "drain d0 end", "drain d1 end"]


# --- loadvm ---------------------------------------------------------------------------------------
def test_loadvm_needs_the_snapshot_on_every_device(bench: MakeBench) -> None:
    vm = bench(Kind.DRIVER, Kind.DRIVER)
    vm.all(SaveVm("s"), Delete("d1", None, "s"))
    result = vm.do(LoadVm("s"))
    text = "Device 'd1' does not have the requested snapshot 's'"
    assert (result.errno, result.first_bad, result.message) == (Errno.ENOENT, "d1", text)


def test_the_modern_loadvm_names_nobody_for_a_missing_snapshot(bench: MakeBench) -> None:
    vm = bench(Kind.DRIVER, Kind.DRIVER, semantics="modern")
    result = vm.do(LoadVm("s"))
    assert (result.errno is Errno.OK, result.first_bad) == (False, None)
    assert result.message


@BOTH
def test_loadvm_refuses_a_snapshot_without_vm_state(bench: MakeBench, semantics: str) -> None:
    vm = bench(Kind.DRIVER, semantics=semantics)
    vm.all(AllCreate("s"))
    result = vm.do(LoadVm("s"))
    assert (result.errno, result.first_bad) == (Errno.EINVAL, None)
    assert result.message.startswith("This is a disk-only snapshot.")
    assert "goto d0" not in vm.calls()


@BOTH
def test_a_loadvm_that_fails_half_way_names_the_device_and_leaves_the_rest(bench: MakeBench, semantics: str) -> None:
    vm = bench(Kind.DRIVER, Kind.DRIVER, semantics=semantics)
    vm.all(SaveVm("s"), Write("d0", 0, 16, 5), Write("d1", 0, 16, 5))
    result = vm.do(LoadVm("s"), CallFault("d1", "goto"))
    assert result.message.startswith("Could not load snapshot 's' on 'd1': ")
    assert result.first_bad == "d1"
    assert [vm.content(device) for device in ("d0", "d1")] == [b"\x09" * 16, b"\x05" * 16]


def test_vm_state_that_can_not_be_read_fails_loadvm_with_the_disks_reverted(bench: MakeBench) -> None:
    vm = bench(Kind.DRIVER)
    vm.all(SaveVm("s"), Write("d0", 0, 16, 5))
    result = vm.do(LoadVm("s"), IoFault("d0", "read", Fails(Errno.EIO), region="data"))
    assert (result.errno, result.message) == (Errno.EIO, "Error -5 while loading VM state")
    assert vm.content() == b"\x09" * 16


def test_read_only_devices_are_not_reverted(bench: MakeBench) -> None:
    vm = bench(Kind.DRIVER, Kind.DRIVER)
    vm.all(SaveVm("s"), Write("d1", 0, 16, 5), SetReadOnly("d1", read_only=True), LoadVm("s"))
    assert vm.content("d1") == b"\x05" * 16


# --- delvm ----------------------------------------------------------------------------------------
@BOTH
def test_delvm_deletes_everywhere_and_a_name_that_is_nowhere_is_success(bench: MakeBench, semantics: str) -> None:
    vm = bench(Kind.DRIVER, Kind.DRIVER, semantics=semantics)
    vm.all(SaveVm("s"), DelVm("s"), DelVm("s"))
    assert [vm.names(device) for device in ("d0", "d1")] == [[], []]


@BOTH
def test_delvm_names_the_device_whose_delete_failed(bench: MakeBench, semantics: str) -> None:
    vm = bench(Kind.DRIVER, Kind.DRIVER, semantics=semantics)
    vm.all(SaveVm("s"))
    result = vm.do(DelVm("s"), CallFault("d1", "delete"))
    assert result.first_bad == "d1"
    assert "'d1': " in result.message


def test_only_the_modern_delvm_asks_whether_all_can(bench: MakeBench) -> None:
    assert bench(Kind.PLAIN).do(DelVm("s")).errno is Errno.OK
    assert bench(Kind.PLAIN, semantics="modern").do(DelVm("s")).first_bad == "d0"
