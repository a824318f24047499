"""Stories of driver calls that are not made, and of plans that know what they can inject."""

from collections.abc import Sequence

import pytest
from snapcheck.fault_injection.plan import FaultPlan
from snapcheck.impl.blockfile import BlockError, BlockFile, MemoryFile
from snapcheck.impl.driver import Capabilities, CreateOptions, Driver, Out
from snapcheck.model.errno import Errno
from snapcheck.model.faults import BitFlip, CallFault, Fails, Fault, IoFault, Lost, Torn
from snapcheck.model.history import Call, Check, EventList, FaultMet, Recorder
from snapcheck.model.snapshot import SnapshotInfo


class Shelf:
    """A small driver: keeps snapshots as a list of their entries, and data in a bytearray."""

    capabilities = Capabilities(vmstate=False)

    def __init__(self) -> None:
        self.data = bytearray(1024)
        self.entries: list[SnapshotInfo] = []

    def close(self) -> None:
        self.entries = []

    def size(self) -> int:
        return len(self.data)

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self.data[offset : offset + length])

    def write(self, offset: int, data: bytes) -> None:
        self.data[offset : offset + len(data)] = data

    def write_zeroes(self, offset: int, length: int) -> None:
        self.write(offset, bytes(length))

    def discard(self, offset: int, length: int) -> None:
        self.write(offset, bytes(length))

    def flush(self) -> None:
        raise BlockError(Errno.ENOTSUP)

    def resize(self, size_bytes: int) -> None:
        self.data = self.data[:size_bytes].ljust(size_bytes, b"\0")

    def snapshot_create(self, sn: Out[SnapshotInfo]) -> None:
        self.entries.append(sn.value)

    def snapshot_goto(self, snapshot_id: str) -> None:
        if not any(snapshot_id in (entry.id_str, entry.name) for entry in self.entries):
            raise BlockError(Errno.ENOENT)

    def snapshot_delete(self, snapshot_id: str | None, name: str | None) -> None:
        self.entries = [entry for entry in self.entries if name != entry.name and snapshot_id != entry.id_str]

    def snapshot_list(self) -> Sequence[SnapshotInfo]:
        return self.entries

    def snapshot_load_tmp(self, snapshot_id: str | None, name: str | None) -> None:
        self.snapshot_goto(snapshot_id or name or "")

    def vmstate_read(self, offset: int, length: int) -> bytes:
        raise NotImplementedError(offset, length)

    def vmstate_write(self, offset: int, data: bytes) -> None:
        raise NotImplementedError(offset, data)

    def check(self) -> Check:
        return Check(leaks=len(self.entries))


def create(driver: Driver, name: str) -> None:
    driver.snapshot_create(Out(SnapshotInfo(id_str="7", name=name)))


def errno_of_list(driver: Driver) -> Errno:
    try:
        driver.snapshot_list()
    except BlockError as error:
        return error.errno
    return Errno.OK


def find(recorder: Recorder, driver: Driver) -> Errno:
    """Do what bdrv_snapshot_find does, as far as a recorder sees it: find calls list, list calls the driver."""
    recorder.emit(Call("d0", "d0", "find", "generic", "enter"))
    recorder.emit(Call("d0", "d0", "list", "generic", "enter"))
    errno = errno_of_list(driver)
    recorder.emit(Call("d0", "d0", "list", "generic", "return", errno))
    recorder.emit(Call("d0", "d0", "find", "generic", "return", Errno.ENOENT if errno else Errno.OK))
    return errno


@pytest.mark.parametrize("function", ["create", "goto", "delete", "list", "load_tmp"])
def test_the_struck_call_is_not_made_and_the_next_one_is(function: str) -> None:
    events = EventList()
    plan, shelf = FaultPlan(events), Shelf()
    driver = plan.wrap_driver("d0", shelf)
    create(driver, "s")
    plan.arm([CallFault("d0", function, errno=Errno.ETIMEDOUT)])
    with pytest.raises(BlockError) as caught:
        call(driver, function)
    assert caught.value.errno is Errno.ETIMEDOUT
    assert [entry.name for entry in shelf.entries] == ["s"]
    call(driver, function)
    assert events.take() == [FaultMet("d0", 0)]


def call(driver: Driver, function: str) -> None:
    match function:
        case "create":
            create(driver, "t")
        case "goto":
            driver.snapshot_goto("s")
        case "delete":
            driver.snapshot_delete("7", None)
        case "list":
            driver.snapshot_list()
        case _:
            driver.snapshot_load_tmp("7", None)


def test_a_fault_on_find_spares_list_and_a_fault_on_list_spares_find() -> None:
    plan = FaultPlan(EventList())
    driver = plan.wrap_driver("d0", Shelf())
    plan.arm([CallFault("d0", "find", times=0), CallFault("d1", "find", times=0)])
    assert errno_of_list(driver) is Errno.OK
    assert find(plan.recorder, driver) is Errno.EIO
    assert errno_of_list(driver) is Errno.OK
    plan.arm([CallFault("d0", "list", times=0)])
    assert find(plan.recorder, driver) is Errno.OK
    assert errno_of_list(driver) is Errno.EIO


def test_a_find_on_one_device_does_not_turn_the_list_of_another_into_a_find() -> None:
    plan = FaultPlan(EventList())
    other = plan.wrap_driver("d1", Shelf())
    plan.arm([CallFault("d1", "find", times=0)])
    plan.recorder.emit(Call("d0", "d0", "find", "generic", "enter"))
    assert errno_of_list(other) is Errno.OK


def test_the_plans_recorder_passes_every_event_on() -> None:
    events = EventList()
    plan = FaultPlan(events)
    find(plan.recorder, Shelf())
    assert [event.function for event in events.take() if isinstance(event, Call)] == ["find", "list", "list", "find"]


def test_calls_are_counted_by_function_and_across_a_reopen() -> None:
    plan = FaultPlan(EventList())
    plan.arm([CallFault("d0", "create", at=3, times=0, errno=Errno.ENOSPC)])
    first, shelf = plan.wrap_driver("d0", Shelf()), Shelf()
    create(first, "a")
    first.snapshot_list()
    second = plan.wrap_driver("d0", shelf)
    create(second, "b")
    for _ in range(2):
        with pytest.raises(BlockError, match="ENOSPC"):
            create(second, "c")
    plan.disarm()
    create(second, "d")
    assert [entry.name for entry in shelf.entries] == ["b", "d"]


def test_everything_else_goes_straight_to_the_driver() -> None:
    plan, shelf = FaultPlan(EventList()), Shelf()
    driver = plan.wrap_driver("d0", shelf)
    driver.write(0, b"abcd")
    driver.write_zeroes(1, 1)
    driver.discard(2, 1)
    driver.resize(4)
    assert driver.read(0, driver.size()) == b"a\0\0d"
    assert driver.capabilities is shelf.capabilities
    assert driver.check() == Check(leaks=0)
    for absent in (lambda: driver.vmstate_read(0, 1), lambda: driver.vmstate_write(0, b"x")):
        with pytest.raises(NotImplementedError):
            absent()
    with pytest.raises(BlockError, match="ENOTSUP"):
        driver.flush()
    create(driver, "s")
    driver.close()
    assert driver.snapshot_list() == []


def test_a_plan_knows_what_it_can_inject() -> None:
    plan = FaultPlan(EventList())
    plan.wrap_file("d0", MemoryFile())
    plan.wrap_driver("d1", Shelf())
    can: list[Fault] = [
        IoFault("d0", "any", Fails()),
        IoFault("d0", "any", Lost(), region="l1"),
        CallFault("d1", "find"),
    ]
    can_not: list[Fault] = [
        IoFault("d1", "any", Fails()),  # its file is not wrapped
        CallFault("d0", "create"),  # its driver is not
        CallFault("d1", "resize"),
        IoFault("d0", "flush", BitFlip(1)),  # a flush has no bits
        IoFault("d0", "read", Torn(1)),
        IoFault("d0", "flush", Fails(), region="l1"),  # a flush touches no region
        IoFault("d0", "any", Fails(), at=0),
    ]
    assert [plan.can_inject(fault) for fault in can] == [True] * len(can)
    assert [plan.can_inject(fault) for fault in can_not] == [False] * len(can_not)


def test_a_wrapped_open_wraps_the_drivers_of_the_plans_files_only() -> None:
    def open_shelf(disk: BlockFile, *, read_only: bool, create: CreateOptions | None) -> Driver:  # noqa: ARG001  # the contract
        return Shelf()

    plan = FaultPlan(EventList())
    disk = plan.wrap_file("d3", MemoryFile())
    opened = plan.wrap_open(open_shelf)
    plan.arm([CallFault("d3", "list")])
    assert errno_of_list(opened(disk, read_only=False, create=None)) is Errno.EIO
    assert type(opened(MemoryFile(), read_only=False, create=None)) is Shelf
