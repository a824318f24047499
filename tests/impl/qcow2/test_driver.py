"""Stories of the engine behind the driver contract."""

from collections.abc import Callable

import pytest
from snapcheck.fault_injection.plan import FaultPlan
from snapcheck.impl.blockfile import BlockError, MemoryFile
from snapcheck.impl.driver import CreateOptions, Driver, OpenDriver, Out
from snapcheck.impl.qcow2.driver import open_driver
from snapcheck.model.errno import Errno
from snapcheck.model.faults import Fails, IoFault
from snapcheck.model.history import Check, EventList
from snapcheck.model.snapshot import SnapshotInfo

OPTIONS = CreateOptions(65536, cluster_bytes=4096)
OPEN: OpenDriver = open_driver  # it is what the contract asks for


def formatted() -> tuple[MemoryFile, Driver]:
    disk = MemoryFile()
    return disk, OPEN(disk, read_only=False, create=OPTIONS)


def errno_of(call: Callable[[], object]) -> Errno:
    with pytest.raises(BlockError) as caught:
        call()
    return caught.value.errno


def test_it_declares_everything() -> None:
    can = formatted()[1].capabilities
    assert can.format == "qcow2"
    assert all((can.snapshots, can.goto, can.load_tmp, can.vmstate, can.resize, can.discard, can.clone, can.check))


def test_a_formatted_disk_opens_again_with_what_was_written() -> None:
    disk, driver = formatted()
    driver.write(512, b"x" * 512)
    driver.resize(131072)
    driver.vmstate_write(3, b"state")
    driver.flush()
    driver.close()
    again = open_driver(disk, read_only=True, create=None)
    assert again.size() == 131072
    assert again.read(0, 1536) == bytes(512) + b"x" * 512 + bytes(512)
    assert again.vmstate_read(0, 10) == b"\0\0\0state\0\0"
    assert again.check() == Check()


def test_a_disk_can_be_formatted_to_be_read_only() -> None:
    driver = open_driver(MemoryFile(), read_only=True, create=OPTIONS)
    assert errno_of(lambda: driver.write(0, b"x")) is Errno.EPERM
    assert driver.read(0, 1) == b"\0"


def test_the_chosen_id_is_in_the_cell_and_nothing_else_of_it_changes() -> None:
    _, driver = formatted()
    cell = Out(SnapshotInfo("whatever", "a", 0, 5, 6, 7))
    driver.snapshot_create(cell)
    assert cell.value == SnapshotInfo("1", "a", 0, 5, 6, 7)
    assert driver.snapshot_list() == [cell.value]


def test_the_chosen_id_is_in_the_cell_on_failure_too() -> None:
    plan, medium = FaultPlan(EventList()), MemoryFile()
    driver = open_driver(plan.wrap_file("d0", medium), read_only=False, create=OPTIONS)
    driver.write(0, b"x")
    plan.arm([IoFault("d0", "write", Fails(Errno.ENOSPC))])
    cell = Out(SnapshotInfo("unwritten", "a"))
    assert errno_of(lambda: driver.snapshot_create(cell)) is Errno.ENOSPC
    assert cell.value == SnapshotInfo("1", "a")
    assert driver.snapshot_list() == []


def test_a_disk_that_holds_no_image_is_an_error_that_says_so() -> None:
    with pytest.raises(BlockError, match="magic") as caught:
        open_driver(MemoryFile("m", b"not an image"), read_only=False, create=None)
    assert caught.value.errno is Errno.EINVAL


@pytest.mark.parametrize("cluster_bytes", [-4096, 0, 256, 1000, 4 << 20])
def test_a_cluster_size_that_can_not_be_is_refused(cluster_bytes: int) -> None:
    options = CreateOptions(65536, cluster_bytes=cluster_bytes)
    with pytest.raises(BlockError, match=r"cluster_bytes: .*expected a power of two") as caught:
        open_driver(MemoryFile(), read_only=False, create=options)
    assert caught.value.errno is Errno.EINVAL


def test_guest_io_answers_as_the_alphabet_says() -> None:
    disk, driver = formatted()
    assert errno_of(lambda: driver.read(65536, 512)) is Errno.EIO
    assert errno_of(lambda: driver.write(65024, bytes(1024))) is Errno.EIO
    driver.close()
    reader = open_driver(disk, read_only=True, create=None)
    for call in (
        lambda: reader.write(0, b"x"), lambda: reader.write_zeroes(0, 512), lambda: reader.discard(0, 512),
        lambda: reader.vmstate_write(0, b"x"), lambda: reader.snapshot_create(Out(SnapshotInfo())),
    ):  # fmt: skip
        assert errno_of(call) is Errno.EPERM
    assert errno_of(lambda: reader.resize(0)) is Errno.EACCES
    assert errno_of(lambda: reader.snapshot_goto("1")) is Errno.ENOENT
    assert errno_of(lambda: reader.snapshot_delete("1", None)) is Errno.ENOENT


def test_a_dead_driver_refuses_every_call_until_it_is_opened_again() -> None:
    plan, medium = FaultPlan(EventList()), MemoryFile()
    file = plan.wrap_file("d0", medium)
    driver = open_driver(file, read_only=False, create=OPTIONS)
    driver.write(0, b"x")
    # given the header can not be written, nor put back
    plan.arm([IoFault("d0", "write", Fails(), region="header", times=0)])
    assert errno_of(lambda: driver.snapshot_create(Out(SnapshotInfo(name="a")))) is Errno.EIO
    plan.disarm()
    for call in (
        driver.flush, driver.snapshot_list, driver.check, lambda: driver.read(0, 1), lambda: driver.write(0, b"y"),
        lambda: driver.vmstate_read(0, 1), lambda: driver.snapshot_goto("1"), lambda: driver.resize(0),
        lambda: driver.snapshot_load_tmp("1", None),
    ):  # fmt: skip
        with pytest.raises(BlockError, match="open it again"):
            call()
    driver.close()
    again = open_driver(file, read_only=False, create=None)
    assert again.read(0, 1) == b"x"
    assert again.snapshot_list() == []


def test_a_clone_goes_its_own_way() -> None:
    driver = open_driver(MemoryFile(), read_only=False, create=OPTIONS)
    driver.write(0, b"x")
    twin = driver.clone()
    twin.snapshot_create(Out(SnapshotInfo(name="a")))
    twin.write(0, b"y")
    assert (driver.read(0, 1), list(driver.snapshot_list())) == (b"x", [])
    assert twin.check() == driver.check() == Check()


def test_the_checker_of_an_image_that_was_wrecked_below_it_is_an_error() -> None:
    disk, driver = formatted()
    disk.pwrite(0, b"wrecked")
    assert errno_of(driver.check) is Errno.EINVAL
