"""Stories of transactions: all of the snapshots, or none and the name of the device whose action failed."""

from collections.abc import Callable
from typing import Any

import pytest
from snapcheck.model.errno import Errno
from snapcheck.model.faults import CallFault
from snapcheck.model.history import Call, Drain, Request
from snapcheck.model.operations import (
    Create,
    SetMedium,
    SetReadOnly,
    SnapshotAction,
    SubmitWrite,
    Transaction,
)
from snapcheck.model.setup import Kind

MakeBench = Callable[..., Any]
TWO = (Kind.DRIVER, Kind.RAW_OVER)


def both(name: str = "s") -> Transaction:
    return Transaction((SnapshotAction("d0", name), SnapshotAction("d1", name)), date_sec=7)


def test_a_transaction_takes_every_snapshot_with_its_clocks(bench: MakeBench) -> None:
    group = bench(*TWO)
    group.all(both())
    assert [group.look(device).memory.snapshots[0].date_sec for device in ("d0", "d1")] == [7, 7]


def test_the_checks_and_calls_of_one_action_in_order(bench: MakeBench) -> None:
    group = bench(*TWO)
    group.all(both())
    assert [call for call in group.calls() if call.endswith(" d0")] == [
        "can d0", "find_by_id_and_name d0", "list d0", "create d0",
    ]  # fmt: skip


def test_a_failure_undoes_what_was_created_and_names_its_device(bench: MakeBench) -> None:
    group = bench(*TWO)
    group.all(Create("d0", "x"))
    result = group.do(both(), CallFault("d1", "create", errno=Errno.ENOSPC))
    assert (result.errno, result.first_bad) == (Errno.ENOSPC, "d1")
    assert result.message.startswith("Failed to create snapshot 's' on device 'd1': ")
    assert [group.names(device) for device in ("d0", "d1")] == [["x"], []]
    assert group.unbalanced() == {}


def test_the_rollback_goes_backwards_by_the_ids_that_create_chose(bench: MakeBench) -> None:
    group = bench(Kind.DRIVER, Kind.DRIVER, Kind.PLAIN)
    actions = (*both().actions, SnapshotAction("d2", "s"))
    result = group.do(Transaction(actions))
    assert (result.errno, result.first_bad) == (Errno.ENOTSUP, "d2")
    assert [call for call in group.calls() if call.startswith("delete") and "driver" not in call] == [
        "delete d1", "delete d0",
    ]  # fmt: skip


def test_a_rollback_that_fails_is_not_told(bench: MakeBench) -> None:
    group = bench(*TWO)
    result = group.do(both(), CallFault("d1", "create"), CallFault("d0", "delete", errno=Errno.EPERM))
    assert (result.errno, result.first_bad) == (Errno.EIO, "d1")
    assert group.names("d0") == ["s"]


def test_two_snapshots_of_one_name_on_one_device_undo_each_other(bench: MakeBench) -> None:
    group = bench(Kind.DRIVER)
    result = group.do(Transaction((SnapshotAction("d0", "s"), SnapshotAction("d0", "s"))))
    assert result.message == "Snapshot with name 's' already exists on device 'd0'"
    assert (result.errno, group.names()) == (Errno.EEXIST, [])


def test_a_name_that_is_there_already_stays(bench: MakeBench) -> None:
    group = bench(*TWO)
    group.all(Create("d1", "s"))
    assert group.do(both()).first_bad == "d1"
    assert [group.names(device) for device in ("d0", "d1")] == [[], ["s"]]


def test_a_list_that_fails_is_an_error_and_no_miss(bench: MakeBench) -> None:
    group = bench(*TWO)
    result = group.do(both(), CallFault("d0", "list", errno=Errno.ENOMEM))
    assert (result.errno, result.first_bad) == (Errno.ENOMEM, "d0")
    assert "create d0" not in group.calls()


@pytest.mark.parametrize(
    ("before", "text"),
    [
        (SetReadOnly("d1", read_only=True), "Device 'd1' is read only"),
        (SetMedium("d1", present=False), "Device 'd1' has no medium"),
    ],
)
def test_a_device_that_can_not_take_part_fails_the_transaction(
    bench: MakeBench, before: SetReadOnly | SetMedium, text: str
) -> None:
    group = bench(*TWO)
    group.all(before)
    result = group.do(both())
    assert (result.message, result.first_bad, group.names("d0")) == (text, "d1", [])


def test_an_empty_name_is_refused(bench: MakeBench) -> None:
    result = bench(*TWO).do(both(""))
    assert result.message.startswith("Name is empty")
    assert result.first_bad == "d0"


def test_a_long_name_is_stored_cut_and_found_by_nobody(bench: MakeBench) -> None:
    group = bench(Kind.DRIVER)
    for _ in range(2):
        group.all(Transaction((SnapshotAction("d0", "n" * 256),)))
    assert group.names() == ["n" * 255] * 2


def test_devices_stay_drained_from_their_action_until_the_end(bench: MakeBench) -> None:
    group = bench(Kind.DRIVER, Kind.DRIVER)
    group.all(SubmitWrite("d1", 0, 1, 5))
    group.do(both(), CallFault("d1", "create"))
    story = group.story(Drain, Call, Request)
    landed, created = story.index("request d1 complete"), story.index("enter create d1")
    assert story.index("enter create d0") < landed < created
    assert story[-2:] == ["drain d0 end", "drain d1 end"]
