"""Stories of snapshots: ids, names, sizes, VM state, and the rules of the look-ups (SPEC B.2 to B.6)."""

from collections.abc import Callable
from functools import partial

import pytest
from snapcheck.fault_injection.plan import FaultPlan
from snapcheck.impl.blockfile import BlockError, BlockFile, MemoryFile
from snapcheck.impl.qcow2.check import ClusterKind
from snapcheck.impl.qcow2.image import Image
from snapcheck.impl.qcow2.layout import Header
from snapcheck.impl.qcow2.state import read_header
from snapcheck.model.errno import Errno
from snapcheck.model.history import EventList, Io
from snapcheck.model.snapshot import SnapshotInfo

CLUSTER = 4096


@pytest.fixture
def image() -> Image:
    image = Image.create(MemoryFile(), size_bytes=16 * CLUSTER, cluster_bytes=CLUSTER)
    image.write(0, b"0" * CLUSTER)
    return image


def errno_of(call: Callable[[], object]) -> Errno:
    with pytest.raises(BlockError) as caught:
        call()
    return caught.value.errno


def names(image: Image) -> list[tuple[str, str]]:
    return [(entry.id_str, entry.name) for entry in image.snapshot_list()]


def take(image: Image, name: str, fill: bytes = b"") -> None:
    if fill:
        image.write(0, fill * CLUSTER)
    image.snapshot_create(SnapshotInfo(name=name))


def test_ids_are_the_largest_plus_one_and_come_back_when_the_newest_goes(image: Image) -> None:
    for name in "abc":
        take(image, name)
    image.snapshot_delete("2", None)
    image.snapshot_delete("3", None)
    take(image, "d")
    assert names(image) == [("1", "a"), ("2", "d")]


def test_names_may_repeat_or_be_empty_and_too_long_ones_are_cut(image: Image) -> None:
    for name in ("a", "a", "", "n" * 300):
        take(image, name)
    assert names(image) == [("1", "a"), ("2", "a"), ("3", ""), ("4", "n" * 255)]
    assert image.snapshots[3].info.name == "n" * 255


def test_ids_and_names_that_are_stored_longer_are_listed_cut_and_found_in_full(image: Image) -> None:
    image.add_snapshot(SnapshotInfo("i" * 200, "n" * 300))
    assert names(image) == [("i" * 127, "n" * 255)]
    assert errno_of(lambda: image.snapshot_delete("i" * 127, None)) is Errno.ENOENT
    image.snapshot_delete("i" * 200, "n" * 300)
    assert names(image) == []


def test_goto_takes_the_id_first_and_then_the_name(image: Image) -> None:
    take(image, "2", b"1")
    take(image, "1", b"2")
    take(image, "x", b"3")
    for text, content in (("1", b"1"), ("2", b"2"), ("x", b"3")):
        image.snapshot_goto(text)
        assert image.read(0, 1) == content
    assert errno_of(lambda: image.snapshot_goto("nobody")) is Errno.ENOENT


def test_delete_wants_all_that_is_given_in_one_entry(image: Image) -> None:
    take(image, "a")
    take(image, "b")
    take(image, "a")
    assert errno_of(lambda: image.snapshot_delete("1", "b")) is Errno.ENOENT
    image.snapshot_delete(None, "a")
    assert names(image) == [("2", "b"), ("3", "a")]
    image.snapshot_delete("3", "a")
    assert names(image) == [("2", "b")]


def test_goto_brings_content_size_and_vm_state_back(image: Image) -> None:
    image.vmstate_write(0, b"state")
    image.snapshot_create(SnapshotInfo(name="a", vm_state_size=5))
    assert image.vmstate_read(0, 5) == bytes(5)  # the snapshot keeps it
    image.resize(40 * CLUSTER)
    image.write(39 * CLUSTER, b"z" * CLUSTER)
    image.snapshot_goto("a")
    assert (image.size_bytes, image.read(0, 1), image.vmstate_read(0, 5)) == (16 * CLUSTER, b"0", b"state")
    assert names(image) == [("1", "a")]
    assert image.check().clean


def test_everything_about_a_snapshot_survives_a_reopen() -> None:
    file = MemoryFile()
    info = SnapshotInfo("", "\udcff\u00e9", 5 << 30, 2**32 - 1, 999_999_999, 2**63 - 1)
    with Image.create(file, size_bytes=65536, cluster_bytes=CLUSTER) as image:
        stored = image.snapshot_create(info)
        image.add_snapshot(SnapshotInfo("x", "b"), extra=b"\xee" * 30)
        image.snapshot_create(SnapshotInfo(name="c"))
        image.snapshot_delete(None, "c")
    with Image.open(file) as image:
        assert image.snapshot_list() == [stored, SnapshotInfo("x", "b")]
        assert image.snapshots[1].extra == b"\xee" * 30


def test_deleting_frees_all_that_only_the_snapshot_held(image: Image) -> None:
    before = image.check().cluster_counts()
    image.write(0, b"1" * (4 * CLUSTER))
    take(image, "a")
    image.write(0, b"2" * (4 * CLUSTER))
    image.discard(CLUSTER, 3 * CLUSTER)
    image.snapshot_delete(None, "a")
    report = image.check()
    assert report.clean, report.problems
    assert {**report.cluster_counts(), ClusterKind.FREE: 0} == {**before, ClusterKind.FREE: 0}


def test_load_tmp_shows_a_snapshot_until_the_image_is_closed_and_writes_nothing() -> None:
    file = MemoryFile()
    with Image.create(file, size_bytes=65536, cluster_bytes=CLUSTER) as image:
        take(image, "a", b"1")
        take(image, "b", b"2")
        assert errno_of(lambda: image.snapshot_load_tmp("1", None)) is Errno.EINVAL
    before = file.pread(0, file.size())
    with Image.open(file, read_only=True) as image:
        image.snapshot_load_tmp("1", None)
        assert image.read(0, 1) == b"1"
        image.snapshot_load_tmp(None, "b")
        assert image.read(0, 1) == b"2"
        assert errno_of(lambda: image.snapshot_load_tmp("1", "b")) is Errno.ENOENT
        assert image.read(0, 1) == b"2"
    assert file.pread(0, file.size()) == before


def test_a_commit_is_one_header_write_between_two_flushes() -> None:
    """Whatever a power cut leaves of the rest, that write alone says which state it is (SPEC G.9)."""
    events = EventList()
    image = Image.create(FaultPlan(events).wrap_file("d0", MemoryFile()), size_bytes=65536, cluster_bytes=CLUSTER)
    image.write(0, b"x" * 65536)
    take(image, "a")
    acts: tuple[Callable[[], None], ...] = (
        lambda: take(image, "b"), lambda: image.snapshot_goto("a"), lambda: image.snapshot_delete(None, "b"),
        lambda: image.resize(5 * CLUSTER),
    )  # fmt: skip
    for act in acts:
        events.take()
        act()
        io = [(event.kind, event.region) for event in events.take() if isinstance(event, Io)]
        commit = io.index(("write", "header"))
        assert io.count(("write", "header")) == 1
        assert (io[commit - 1], io[commit + 1]) == (("flush", ""), ("flush", ""))
        lowered = [number for number, what in enumerate(io) if what == ("write", "refcount-block")]
        assert lowered[-1] > commit + 1  # counts are lowered behind the second flush


def test_a_snapshot_with_an_impossible_l1_table_can_neither_be_used_nor_do_harm(image: Image) -> None:
    take(image, "a")
    take(image, "b", b"1")
    file: BlockFile = image._state.host.file  # pyright: ignore[reportPrivateUsage]  # what is wrecked lies below
    header: Header = read_header(file)
    for field, value, errno in ((0, (100).to_bytes(8, "big"), Errno.EINVAL), (8, b"\xff" * 4, Errno.EFBIG)):
        wrecked = file.clone()
        wrecked.pwrite(header.snapshots_offset + field, value)
        with Image.open(wrecked) as there:
            assert errno_of(partial(there.snapshot_goto, "a")) is errno
            assert errno_of(partial(there.snapshot_delete, "1", None)) is errno
            there.snapshot_goto("b")
            assert names(there) == [("1", "a"), ("2", "b")]


def test_a_table_that_would_be_too_large_is_refused(image: Image) -> None:
    for _ in range(3):
        image.add_snapshot(SnapshotInfo("x", "n" * 65000))
    image._state.snapshot_table = image._state.snapshot_table._replace(  # pyright: ignore[reportPrivateUsage]
        entries=list(image.snapshots) * 400
    )
    assert errno_of(lambda: take(image, "a")) is Errno.EFBIG
