"""Stories of bugs that the harness was blind to, told without laws, model or phases."""

from typing import Any

import pytest
from snapcheck.impl.blockfile import BlockFile
from snapcheck.impl.qcow2 import Image
from snapcheck.model.content import vmstate_pattern
from snapcheck.model.history import Drain
from snapcheck.model.operations import (
    Create,
    Resize,
    SnapshotAction,
    Transaction,
    VmstateRead,
    VmstateWrite,
)
from snapcheck.model.setup import DeviceSpec, Kind, PreparedSnapshot

ONE = Kind.DRIVER
FOREIGN = PreparedSnapshot("1", "a", sectors=16, tag=11, extra=b"\xee" * 24)


# --- sizes ----------------------------------------------------------------------------------------
@pytest.mark.bug("tail-bared")
def test_what_was_cut_off_within_a_cluster_comes_back(tried: Any) -> None:
    def story(one: Any) -> object:
        one.all(Resize("d0", 15), Resize("d0", 24))
        return one.content()[14:16]

    assert tried(story, ONE) == (b"\x09\0", b"\x09\x09")


@pytest.mark.bug("vmstate-at-boundary")
def test_a_state_as_large_as_a_cluster_is_not_where_it_was_written(tried: Any) -> None:
    def story(one: Any) -> object:
        one.all(VmstateWrite("d0", 0, 4096, 5))
        return one.do(VmstateRead("d0", 0, 4096)).data == vmstate_pattern(tag=5, offset=0, length=4096)

    assert tried(story, ONE) == (True, False)


# --- the snapshot table ---------------------------------------------------------------------------
@pytest.mark.bug("extra-dropped")
def test_what_a_later_version_stored_is_gone_once_another_snapshot_is_taken(tried: Any) -> None:
    def extra(disk: BlockFile) -> int:
        with Image.open(disk, read_only=True) as image:
            return len(image.snapshots[0].extra)

    def story(one: Any) -> object:
        one.all(Create("d0", "b"))
        return extra(one.disks[0])

    assert tried(story, DeviceSpec("d0", sectors=16, tag=9, snapshots=(FOREIGN,))) == (24, 0)


# --- transactions ---------------------------------------------------------------------------------
@pytest.mark.bug("one-struct-each")
def test_of_two_snapshots_on_one_device_one_is_left_when_a_third_is_refused(tried: Any) -> None:
    def story(group: Any) -> object:
        group.all(Create("d1", "taken"))
        actions = (SnapshotAction("d0", "a"), SnapshotAction("d0", "b"), SnapshotAction("d1", "taken"))
        assert group.do(Transaction(actions)).errno
        return group.names("d0")

    assert tried(story) == ([], ["a"])


@pytest.mark.bug("left-drained")
def test_the_guest_of_a_device_that_was_refused_waits_for_ever(tried: Any) -> None:
    def story(group: Any) -> object:
        group.all(Create("d0", "taken"))
        group.do(Transaction((SnapshotAction("d0", "taken"),)))
        return group.story(Drain)

    assert tried(story) == (["drain d0 begin", "drain d0 end"], ["drain d0 begin"])
