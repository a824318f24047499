"""The damage that each seeded bug of power cuts does, shown without the harness: the writes by hand, a cut, a look."""

from collections.abc import Callable, Iterator

import pytest
from snapcheck.fault_injection.write_log import LoggedFile, Sort, WriteLog
from snapcheck.impl.blockfile import BlockError, MemoryFile
from snapcheck.impl.driver import CreateOptions, Driver, Out
from snapcheck.impl.qcow2 import Image, ImageError, inspect
from snapcheck.impl.targets import find_target
from snapcheck.model.snapshot import SnapshotInfo

CLUSTER = 4096
SIZE = 8 * CLUSTER
OLD, NEW = b"o" * SIZE, b"n" * SIZE


def opened(name: str, disk: LoggedFile | MemoryFile, *, create: bool) -> Driver:
    target = find_target(name if name == "qcow2" else f"snapcheck.stateful_tests.seeded_bugs.power_cuts:{name}")
    assert target.open_driver is not None
    options = CreateOptions(SIZE, CLUSTER) if create else None
    return target.open_driver(disk, read_only=False, create=options)


def recorded(name: str, act: Callable[[Driver], None]) -> tuple[MemoryFile, WriteLog]:
    """Return a disk that has snapshots `a` of OLD and `b`, and what `act` sends down to it."""
    disk = MemoryFile("d0")
    driver = opened(name, disk, create=True)
    driver.write(0, OLD)
    for snapshot in ("a", "b"):
        driver.snapshot_create(Out(SnapshotInfo(name=snapshot)))
        driver.write(0, NEW)
    driver.close()
    base, log = disk.clone(), WriteLog()
    act(opened(name, LoggedFile(log, disk), create=False))
    return base, log


def prefixes(base: MemoryFile, log: WriteLog, *, without: str = "") -> Iterator[MemoryFile]:
    """Yield the disk after each part of the log that a cut may leave, without the first write to region `without`."""
    disk = base.clone()
    lost = next((entry for entry in log.entries if without and entry.region == without), None)
    for entry in log.entries:
        if entry is lost:
            continue
        if entry.sort is Sort.WRITE:
            disk.pwrite(entry.offset, entry.data)
        elif entry.sort is Sort.DISCARD:
            disk.discard(entry.offset, entry.length)
        yield disk.clone()


def corrupt(disk: MemoryFile) -> bool:
    return inspect(disk).corruptions > 0


def refused(disk: MemoryFile) -> bool:
    try:
        Image.open(disk)
    except (ImageError, BlockError):
        return True
    return False


def listed(disk: MemoryFile) -> list[str]:
    with Image.open(disk, read_only=True) as image:
        return [info.name for info in image.snapshot_list()]


def lost_its_content(disk: MemoryFile) -> bool:
    """Tell whether snapshot `a` is listed and does not hold what it held."""
    if "a" not in listed(disk):
        return False
    with Image.open(disk, read_only=True) as image:
        image.snapshot_load_tmp(None, "a")
        return image.read(0, SIZE) != OLD


def delete_a(driver: Driver) -> None:
    driver.snapshot_delete(None, "a")


def goto_a(driver: Driver) -> None:
    driver.snapshot_goto("a")


def create_c(driver: Driver) -> None:
    driver.snapshot_create(Out(SnapshotInfo(name="c")))


# --- the stories ----------------------------------------------------------------------------------
@pytest.mark.bug("lowered-before-delete")
def test_counts_are_lowered_while_the_snapshot_is_still_listed() -> None:
    """B01: the clusters of a snapshot that is still there count as free."""
    base, log = recorded("lowered_before_delete", delete_a)
    assert any(corrupt(disk) and "a" in listed(disk) for disk in prefixes(base, log))


@pytest.mark.bug("old-tree-dropped-first")
def test_the_active_state_refers_to_clusters_that_count_as_free() -> None:
    """B02: the old tree is let go of before the header points to the new one."""
    base, log = recorded("old_tree_dropped_first", goto_a)
    assert any(corrupt(disk) for disk in prefixes(base, log))


@pytest.mark.bug("counts-not-flushed")
def test_the_header_lands_and_the_raised_counts_do_not() -> None:
    """B04: nothing is flushed in between, so the medium may take the header first."""
    base, log = recorded("counts_not_flushed", goto_a)
    header = next(entry.number for entry in log.entries if entry.region == "header")
    assert all(entry.sort is not Sort.FLUSH for entry in log.entries[:header])
    last = [*prefixes(base, log, without="refcount-block")][header]
    assert corrupt(last)


@pytest.mark.bug("header-written-twice")
def test_the_count_is_that_of_a_table_and_the_place_that_of_another() -> None:
    """B06: with one write landed, the table has an entry more than it has bytes."""
    base, log = recorded("header_written_twice", create_c)
    wrong = [disk for disk in prefixes(base, log) if refused(disk) or listed(disk) not in (["a", "b"], ["a", "b", "c"])]
    assert wrong


@pytest.mark.bug("discarded-before-delete")
def test_a_snapshot_that_is_still_listed_has_lost_its_data() -> None:
    """B15: the disk was told that clusters hold nothing before the table let go of them."""
    base, log = recorded("discarded_before_delete", delete_a)
    assert any(lost_its_content(disk) for disk in prefixes(base, log))


@pytest.mark.parametrize("act", [delete_a, goto_a, create_c])
def test_the_engine_itself_does_none_of_this(act: Callable[[Driver], None]) -> None:
    base, log = recorded("qcow2", act)
    for disk in prefixes(base, log):
        assert not refused(disk)
        assert not corrupt(disk)
        assert not lost_its_content(disk)
        assert listed(disk) in (["a", "b"], ["b"], ["a", "b", "c"])
