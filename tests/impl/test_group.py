"""Stories of the group functions: who is visited, where they stop, whom they name, and when locks are held."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from snapcheck.model.errno import Errno
from snapcheck.model.faults import CallFault
from snapcheck.model.history import Call, Lock, Result
from snapcheck.model.operations import (
    AddBitmap,
    AllCanSnapshot,
    AllCreate,
    AllDelete,
    AllFind,
    AllFindVmstateBs,
    AllGoto,
    Create,
    Delete,
    List,
    Operation,
    SetMedium,
    SetReadOnly,
    Write,
)
from snapcheck.model.setup import DeviceSpec, Kind

MakeBench = Callable[..., Any]
THREE = (Kind.DRIVER, Kind.RAW_OVER, Kind.FILTER_OVER)
NAMED = [AllCreate("s"), AllGoto("s"), AllDelete("s"), AllFind("s")]
FUNCTION: dict[type[Operation], str] = {AllCreate: "create", AllGoto: "goto", AllDelete: "delete", AllFind: "find"}


def prepared(make: MakeBench, operation: Operation, *, semantics: str = "classic") -> Any:  # noqa: ANN401  # a Bench
    """Three devices that have the snapshot "s", unless it is going to be created."""
    group = make(*THREE, semantics=semantics)
    if not isinstance(operation, AllCreate):
        group.all(AllCreate("s"))
    return group


# --- the walk (A.10) ------------------------------------------------------------------------------
@pytest.mark.parametrize("operation", NAMED)
@pytest.mark.parametrize("semantics", ["classic", "modern", "transactional"])
def test_every_included_device_is_called_in_order_and_success_names_nobody(
    bench: MakeBench, operation: Operation, semantics: str
) -> None:
    group = prepared(bench, operation, semantics=semantics)
    result = group.do(operation)
    assert (result.errno, result.first_bad) == (Errno.OK, None)
    function = FUNCTION[type(operation)]
    called = [call for call in group.calls() if call in {f"{function} d{at}" for at in range(3)}]
    assert called == [f"{function} d0", f"{function} d1", f"{function} d2"]


@pytest.mark.parametrize("operation", NAMED)
def test_read_only_and_empty_devices_are_left_out_and_are_no_errors(bench: MakeBench, operation: Operation) -> None:
    group = bench(Kind.EMPTY, Kind.DRIVER, Kind.DRIVER, Kind.DRIVER)
    if not isinstance(operation, AllCreate):
        group.all(AllCreate("s"))
    group.all(SetReadOnly("d1", read_only=True), SetMedium("d2", present=False))
    assert group.do(operation).errno is Errno.OK
    assert {event.device for event in group.events} == {"d3"}


def test_with_no_device_at_all_everything_is_true(bench: MakeBench) -> None:
    group = bench(Kind.EMPTY)
    assert group.do(AllCanSnapshot()) == Result(answer=True)
    assert group.do(AllFind("s")) == Result()
    assert group.do(AllDelete("s")) == Result()
    assert group.do(AllFindVmstateBs()) == Result()


def test_all_can_names_the_first_that_can_not(bench: MakeBench) -> None:
    group = bench(Kind.DRIVER, Kind.PLAIN, Kind.PLAIN)
    result = group.do(AllCanSnapshot())
    assert (result.errno, result.answer, result.first_bad) == (Errno.OK, False, "d1")
    assert group.calls() == ["can d0", "can d1"]


# --- failures -------------------------------------------------------------------------------------
@pytest.mark.parametrize("operation", [AllCreate("s"), AllGoto("s"), AllDelete("s")])
@pytest.mark.parametrize("bad", [0, 1, 2])
@pytest.mark.parametrize("semantics", ["classic", "modern"])
def test_the_first_failure_stops_the_walk_is_named_and_gives_its_lock_back(
    bench: MakeBench, operation: Operation, bad: int, semantics: str
) -> None:
    group = prepared(bench, operation, semantics=semantics)
    function = FUNCTION[type(operation)]
    result = group.do(operation, CallFault(f"d{bad}", function, errno=Errno.ENOSPC))
    assert result.errno is (Errno.ENOSPC if semantics == "classic" else Errno.EPERM), "6.0 and later return -1"
    assert result.first_bad == f"d{bad}"
    assert {event.device for event in group.events if isinstance(event, Call)} == {f"d{at}" for at in range(bad + 1)}
    assert group.unbalanced() == {}


@pytest.mark.parametrize("operation", NAMED)
def test_a_lock_is_held_exactly_around_the_devices_own_call(bench: MakeBench, operation: Operation) -> None:
    group = prepared(bench, operation)
    group.do(operation)
    story = group.story(Lock, Call)
    for device in ("d0", "d1", "d2"):
        own = [at for at, words in enumerate(story) if device in words]
        assert story[own[0]] == f"acquire {device}"
        assert story[own[-1]] == f"release {device}"
        assert own == list(range(own[0], own[-1] + 1)), "nobody else is called meanwhile"


def test_the_devices_before_the_failure_keep_what_was_done(bench: MakeBench) -> None:
    group = bench(*THREE)
    group.do(AllCreate("s"), CallFault("d1", "create"))
    assert [group.names(f"d{at}") for at in range(3)] == [["s"], [], []]
    group = prepared(bench, AllDelete("s"))
    group.do(AllDelete("s"), CallFault("d1", "delete"))
    assert [group.names(f"d{at}") for at in range(3)] == [[], ["s"], ["s"]]


def test_a_bitmap_stops_goto_after_earlier_devices_were_reverted(bench: MakeBench) -> None:
    group = prepared(bench, AllGoto("s"))
    group.all(*(Write(f"d{at}", 0, 16, 5) for at in range(3)), AddBitmap("d1", "bm"))
    result = group.do(AllGoto("s"))
    assert (result.errno, result.first_bad, result.message) == (
        Errno.EBUSY, "d1", "Device has active dirty bitmaps",
    )  # fmt: skip
    assert [group.content(f"d{at}") for at in range(3)] == [b"\x09" * 16, b"\x05" * 16, b"\x05" * 16]


def test_a_find_that_fails_makes_delete_skip_the_device_and_succeed(bench: MakeBench) -> None:
    group = prepared(bench, AllDelete("s"))
    result = group.do(AllDelete("s"), CallFault("d1", "find"))
    assert (result.errno, result.first_bad) == (Errno.OK, None)
    assert [group.names(f"d{at}") for at in range(3)] == [[], ["s"], []]


def test_delete_takes_the_first_of_that_name_only(bench: MakeBench) -> None:
    group = bench(Kind.DRIVER)
    group.all(Create("d0", "s"), Create("d0", "s"), AllDelete("s"))
    assert [info.id_str for info in group.look().memory.snapshots] == ["2"]


def test_all_find_needs_the_name_everywhere_and_names_the_first_miss(bench: MakeBench) -> None:
    group = prepared(bench, AllFind("s"))
    group.all(Delete("d1", None, "s"))
    result = group.do(AllFind("s"))
    assert (result.errno, result.first_bad, result.message) == (Errno.ENOENT, "d1", None)


# --- the shared sn (A.10.5) -----------------------------------------------------------------------
def test_sn_ends_with_the_id_of_the_last_device_and_no_vm_state(bench: MakeBench) -> None:
    group = bench(*THREE)
    group.all(Create("d2", "other"))
    result = group.do(AllCreate("s", "d0", 765))
    assert (result.sn.id_str, result.sn.vm_state_size) == ("2", 0)
    assert [group.look(f"d{at}").memory.snapshots[-1].vm_state_size for at in range(3)] == [765, 0, 0]


def test_sn_keeps_the_size_if_the_vmstate_device_comes_last(bench: MakeBench) -> None:
    assert bench(*THREE).do(AllCreate("s", "d2", 765)).sn.vm_state_size == 765


def test_sn_shows_how_far_the_walk_came(bench: MakeBench) -> None:
    group = bench(*THREE)
    group.all(Create("d0", "x"), Create("d0", "y"))
    result = group.do(AllCreate("s"), CallFault("d1", "create"))
    assert (result.errno, result.sn.id_str) == (Errno.EIO, "3")


def test_the_vmstate_device_is_used_even_if_it_is_not_included(bench: MakeBench) -> None:
    group = bench(Kind.DRIVER, Kind.DRIVER)
    group.all(SetReadOnly("d1", read_only=True))
    result = group.do(AllCreate("s", "d1", 765))
    assert result.errno in {Errno.EPERM, Errno.EACCES, Errno.EROFS}
    assert (result.first_bad, result.sn.vm_state_size) == ("d1", 765)


def test_the_first_included_device_that_can_stores_the_vm_state(bench: MakeBench) -> None:
    group = bench(Kind.EMPTY, Kind.PLAIN, Kind.DRIVER, Kind.RAW_OVER)
    assert group.do(AllFindVmstateBs()).device == "d2"
    group.all(SetReadOnly("d2", read_only=True))
    assert group.do(AllFindVmstateBs()).device == "d3"


# --- the modern group functions (A.11) ------------------------------------------------------------
@pytest.mark.parametrize(
    ("operation", "text"),
    [
        (AllCreate("s"), "Could not create snapshot 's' on 'd1'"),
        (AllGoto("s"), "Could not load snapshot 's' on 'd1': "),
        (AllDelete("s"), "Could not delete snapshot 's' on 'd1': "),
    ],
)
def test_the_modern_text_names_the_device(bench: MakeBench, operation: Operation, text: str) -> None:
    group = prepared(bench, operation, semantics="modern")
    result = group.do(operation, CallFault("d1", FUNCTION[type(operation)]))
    assert result.message.startswith(text)


def test_the_modern_all_can_says_which_device_is_writable_and_can_not(bench: MakeBench) -> None:
    result = bench(Kind.DRIVER, Kind.PLAIN, semantics="modern").do(AllCanSnapshot())
    text = "Device 'd1' is writable but does not support snapshots"
    assert result == Result(answer=False, first_bad="d1", message=text)


def test_the_modern_all_find_answers_no_and_names_nobody(bench: MakeBench) -> None:
    group = prepared(bench, AllFind("s"), semantics="modern")
    assert group.do(AllFind("s")) == Result(answer=True)
    assert group.do(AllFind("t")) == Result(answer=False)


@pytest.mark.parametrize("operation", [*NAMED, AllCanSnapshot()])
@pytest.mark.parametrize(
    ("devices", "text"),
    [((), "At least one device is required for snapshot"), (("d0", "nowhere"), "No block device node 'nowhere'")],
)
def test_a_list_that_is_empty_or_names_nobody_known_is_refused_before_anything_is_done(
    bench: MakeBench, operation: Any, devices: tuple[str, ...], text: str  # noqa: ANN401  # any that has a list
) -> None:  # fmt: skip
    group = bench(*THREE, semantics="modern")
    result = group.do(replace(operation, devices=devices))
    assert (result.message, result.first_bad) == (text, None)
    assert result.errno is not Errno.OK or result.answer is False
    assert group.calls() == []


def test_a_list_replaces_the_test_for_included(bench: MakeBench) -> None:
    group = bench(*THREE, semantics="modern")
    group.all(AllCreate("s", devices=("d2", "d1/file")))
    assert group.calls() == [
        "create d2", "create d2/file", "create d2/file driver", "create d1/file", "create d1/file driver",
    ]  # fmt: skip
    group.all(SetReadOnly("d0", read_only=True))
    result = group.do(AllCreate("t", devices=("d0",)))
    assert (result.first_bad, result.errno) == ("d0", Errno.EPERM)


def test_a_device_that_is_listed_twice_is_processed_twice(bench: MakeBench) -> None:
    group = bench(Kind.DRIVER, semantics="modern")
    group.all(AllCreate("s", devices=("d0", "d0")))
    assert group.names() == ["s", "s"]


def test_a_child_in_the_list_is_named_itself(bench: MakeBench) -> None:
    group = bench(Kind.RAW_OVER, semantics="modern")
    assert group.do(AllGoto("s", devices=("d0/file",))).first_bad == "d0/file"


@pytest.mark.parametrize(
    ("asked", "devices", "device", "message"),
    [
        (None, None, "d1", None),
        ("d2", None, "d2", None),
        ("d0", None, None, "vmstate block device 'd0' does not support snapshots"),
        ("nowhere", None, None, "vmstate block device 'nowhere' does not exist"),
        ("d1", ("d2",), None, "vmstate block device 'd1' does not exist"),
        (None, ("d0",), None, "no block device can store vmstate for snapshot"),
        (None, (), None, "At least one device is required for snapshot"),
    ],
)
def test_the_modern_search_for_the_vmstate_device(
    bench: MakeBench, asked: str | None, devices: tuple[str, ...] | None, device: str | None, message: str | None
) -> None:
    group = bench(Kind.PLAIN, Kind.DRIVER, Kind.DRIVER, semantics="modern")
    assert group.do(AllFindVmstateBs(asked, devices)) == Result(device=device, message=message)


def test_the_classic_profile_knows_no_list(bench: MakeBench) -> None:
    group = bench(Kind.DRIVER, Kind.DRIVER)
    group.all(AllCreate("s", devices=("d0",)))
    assert group.do(List("d1")).snapshots == (group.look("d0").memory.snapshots[0],)


def test_setups_with_specs_keep_their_names(bench: MakeBench) -> None:
    group = bench(DeviceSpec("root", sectors=8), DeviceSpec("data", Kind.PLAIN, sectors=8))
    assert group.do(AllCanSnapshot()).first_bad == "data"
