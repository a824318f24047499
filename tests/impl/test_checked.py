"""Stories of drivers that answer what no driver may answer: each is told in one line, and ends the history."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from snapcheck.impl.blockfile import BlockError, BlockFile, MemoryFile
from snapcheck.impl.checked import CheckedDriver, CrashError, Failure, driver_problem, info_problem, open_checked
from snapcheck.impl.driver import Capabilities, CreateOptions, Driver, Out
from snapcheck.impl.qcow2.driver import Qcow2Driver
from snapcheck.impl.qcow2.image import Image
from snapcheck.model.errno import Errno
from snapcheck.model.history import Check
from snapcheck.model.operations import Create, List, Write
from snapcheck.model.setup import Kind
from snapcheck.model.snapshot import SnapshotInfo

MakeBench = Callable[..., Any]
SIZE = 65536


def driver_that(**answers: Callable[..., object]) -> CheckedDriver:
    """Return our engine, checked, with methods that answer something else."""
    image = Image.create(MemoryFile(), size_bytes=SIZE, cluster_bytes=4096)
    return CheckedDriver(type("Odd", (Qcow2Driver,), answers)(image))


def returns(value: object) -> Callable[..., object]:
    return lambda *_: value


def raises(error: BaseException) -> Callable[..., object]:
    def method(*_: object) -> None:
        raise error

    return method


# --- errors are values ----------------------------------------------------------------------------
def test_an_error_of_the_driver_is_a_value() -> None:
    driver = driver_that(write=raises(BlockError(Errno.ENOSPC, "the disk is full")))
    assert driver.write(0, b"x") == Failure(Errno.ENOSPC, "the disk is full")


def test_what_a_driver_answers_properly_comes_through() -> None:
    driver = driver_that()
    assert driver.write(512, b"x" * 512) is None
    assert driver.read(0, 1024) == bytes(512) + b"x" * 512
    assert driver.size() == SIZE
    sn = Out(SnapshotInfo(name="a"))
    assert driver.snapshot_create(sn) is None
    assert list(driver.snapshot_list()) == [sn.value]
    assert driver.check() == Check()


# --- what no driver may answer --------------------------------------------------------------------
@pytest.mark.parametrize(
    ("method", "answer", "arguments", "text"),
    [
        ("size", -1, (), "size returned -1, which is no size in bytes"),
        ("size", "64k", (), "size returned '64k'"),
        ("size", True, (), "size returned True"),
        ("read", b"abc", (0, 512), "read was asked for 512 bytes and returned 3 bytes"),
        ("read", None, (0, 512), "read was asked for 512 bytes and returned None"),
        ("read", bytearray(512), (0, 512), "read was asked for 512 bytes and returned bytearray("),
        ("vmstate_read", b"", (0, 9), "vmstate_read was asked for 9 bytes and returned 0 bytes"),
        ("write", -5, (0, b"x"), "write returned -5 instead of None; errors are raised as BlockError"),
        ("flush", 0, (), "flush returned 0 instead of None"),
        ("snapshot_list", None, (), "snapshot_list returned None, not a list"),
        ("snapshot_list", "a", (), "snapshot_list returned 'a', not a list"),
        ("snapshot_list", ["a"], (), "snapshot_list returned 'a', which is no SnapshotInfo"),
        ("snapshot_create", None, (Out(SnapshotInfo()),), "snapshot_create left no id in it"),
        ("check", True, (), "check returned True, not a Check"),
    ],
)
def test_a_wrong_answer_is_told_in_one_line(
    method: str, answer: object, arguments: tuple[object, ...], text: str
) -> None:
    driver = driver_that(**{method: named(method, returns(answer))})
    with pytest.raises(CrashError) as caught:
        getattr(driver, method)(*arguments)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def named(name: str, method: Callable[..., object]) -> Callable[..., object]:
    method.__name__ = name
    return method


@pytest.mark.parametrize(
    ("info", "text"),
    [
        (SnapshotInfo("1" * 128), "id_str does not fit into 127 bytes"),
        (SnapshotInfo("1", "n" * 256), "name does not fit into 255 bytes"),
        (SnapshotInfo("1", "\u00e9" * 128), "name does not fit into 255 bytes"),
        (SnapshotInfo("1", "\ud800"), "name does not fit into 255 bytes of UTF-8"),
        (replace(SnapshotInfo(), id_str=b"1"), "id_str is b'1', not a str"),  # type: ignore[arg-type]  # what is wrong
        (SnapshotInfo("1", "a", -1), "vm_state_size is -1"),
        (SnapshotInfo("1", "a", 1 << 64), "an unsigned number of 64 bits"),
        (SnapshotInfo("1", "a", 0, 1 << 32), "date_sec is 4294967296"),
        (SnapshotInfo("1", "a", 0, 0, 1.5), "date_nsec is 1.5"),  # type: ignore[arg-type]  # what is wrong
        ("1", "which is no SnapshotInfo"),
    ],
)
def test_what_the_struct_of_the_header_can_not_hold_is_refused(info: object, text: str) -> None:
    assert text in info_problem(info)


def test_the_limits_themselves_fit() -> None:
    full = SnapshotInfo("9" * 127, "\u00e9" * 127 + "x", (1 << 64) - 1, (1 << 32) - 1, (1 << 32) - 1, (1 << 64) - 1)
    assert info_problem(full) == ""
    assert info_problem(SnapshotInfo("1", "\udcff" * 255)) == ""


# --- exceptions -----------------------------------------------------------------------------------
def test_an_exception_is_told_with_its_type_its_text_and_the_place_in_the_drivers_code() -> None:
    def snapshot_list(_: object) -> Sequence[SnapshotInfo]:
        entries: list[SnapshotInfo] = []
        return [entries[3]]

    with pytest.raises(CrashError) as caught:
        driver_that(snapshot_list=snapshot_list).snapshot_list()
    assert str(caught.value).startswith("snapshot_list raised IndexError: list index out of range (in snapshot_list, ")
    assert "test_checked.py line " in str(caught.value)


def test_the_place_is_the_drivers_even_if_a_block_file_complains() -> None:
    def write(*_: object) -> None:
        MemoryFile().pread(-1, 1)

    with pytest.raises(CrashError, match=r"write raised AssertionError \(in write, test_checked.py line \d+\)"):
        driver_that(write=write).write(0, b"x")


def test_a_driver_that_leaves_the_process_is_stopped() -> None:
    with pytest.raises(CrashError, match="raised SystemExit: 3"):
        driver_that(flush=raises(SystemExit(3))).flush()


def test_who_interrupts_a_run_is_obeyed() -> None:
    with pytest.raises(KeyboardInterrupt):
        driver_that(flush=raises(KeyboardInterrupt())).flush()


def test_an_error_without_an_errno_is_no_error() -> None:
    with pytest.raises(CrashError, match=r"errno is <Errno\.OK: 0>, which is no error"):
        driver_that(flush=raises(BlockError(0))).flush()


# --- what is no driver ----------------------------------------------------------------------------
@pytest.mark.parametrize("found", [None, 5, object()])
def test_what_has_no_capabilities_is_no_driver(found: Any) -> None:  # noqa: ANN401  # anything that is no driver
    def open_driver(disk: BlockFile, *, read_only: bool, create: CreateOptions | None) -> Any:  # noqa: ANN401, ARG001
        return found

    with pytest.raises(CrashError, match="has no `capabilities: Capabilities`"):
        open_checked(open_driver, MemoryFile(), read_only=False)


class Half:
    """A driver that was begun."""

    capabilities = Capabilities(goto=False, load_tmp=False, vmstate=False, resize=False, discard=False)

    def close(self) -> None: ...
    def size(self) -> int: ...  # type: ignore[empty-body]  # never called
    def read(self) -> bytes: ...  # type: ignore[empty-body]  # never called
    def write(self) -> None: ...
    def write_zeroes(self) -> None: ...


def test_a_method_that_is_missing_is_named_with_the_capability_that_promises_it() -> None:
    assert driver_problem(Half()) == "the driver Half has no method flush"
    whole = type("Half", (Half,), {"flush": returns(None)})
    assert driver_problem(whole()) == "the driver Half has no method snapshot_create, although it declares snapshots"


def test_a_driver_without_snapshots_need_not_deny_goto_and_load_tmp() -> None:
    capabilities = replace(Half.capabilities, snapshots=False, goto=True, load_tmp=True)
    plain = type("Plain", (Half,), {"flush": returns(None), "capabilities": capabilities})
    assert driver_problem(plain()) == ""


# --- in a system ----------------------------------------------------------------------------------
class Odd(Qcow2Driver):
    """Our engine, with a list that it can not read."""

    def snapshot_list(self) -> Sequence[SnapshotInfo]:
        raise IndexError("no entry 3")


def test_a_crash_is_the_result_and_gives_every_lock_back(bench: MakeBench) -> None:
    def open_odd(disk: BlockFile, *, read_only: bool, create: CreateOptions | None) -> Driver:
        if create is not None:
            Image.create(disk, size_bytes=create.size_bytes, cluster_bytes=create.cluster_bytes).close()
        return Odd(Image.open(disk, read_only=read_only))

    one = bench(Kind.DRIVER, open_driver=open_odd)
    one.all(Write("d0", 0, 1, 5), Create("d0", "a"))
    assert one.do(List("d0")).crash.startswith("snapshot_list raised IndexError: no entry 3 (in ")
    assert one.unbalanced() == {}
    assert one.look().memory.errors[0].startswith("list: snapshot_list raised IndexError")
