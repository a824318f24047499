"""A driver whose answers are checked: errors become values, and what the protocol does not allow ends the history.

A driver may answer with a value of the right type, or with a `BlockError`. Anything else is no answer: the process
under test has died of it as far as the laws are concerned (law no-crash), and `CrashError` says in one line what the
driver did and where.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from types import TracebackType
from typing import Final, NamedTuple, TypeVar, TypeVarTuple, cast, final

from snapcheck.impl.blockfile import BlockError, BlockFile
from snapcheck.impl.driver import Capabilities, Clonable, CreateOptions, Driver, OpenDriver, Out
from snapcheck.model.errno import Errno
from snapcheck.model.history import Check
from snapcheck.model.snapshot import ID_BYTES_MAX, NAME_BYTES_MAX, SnapshotInfo

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

TEXT_MAX: Final = 300
VETTED_MAX: Final = 1000  # entries of lists that are remembered
# The methods that a capability promises; those of the empty one are always needed.
METHODS: Final[dict[str, tuple[str, ...]]] = {
    "": ("close", "size", "read", "write", "write_zeroes", "flush"),
    "snapshots": ("snapshot_create", "snapshot_delete", "snapshot_list"),
    "goto": ("snapshot_goto",),
    "load_tmp": ("snapshot_load_tmp",),
    "vmstate": ("vmstate_read", "vmstate_write"),
    "resize": ("resize",),
    "discard": ("discard",),
    "check": ("check",),
    "clone": ("clone",),
}
_BITS: Final = {"vm_state_size": 64, "date_sec": 32, "date_nsec": 32, "vm_clock_nsec": 64}  # QEMUSnapshotInfo's fields
# Where an exception passes through on its way: it is the driver's code that it came from.
_NOT_THE_DRIVER: Final = ("snapcheck.fault_injection.", "snapcheck.impl.blockfile", "snapcheck.impl.checked")


@final
class Failure(NamedTuple):
    """A driver's error as a value: a negative errno and a text for people."""

    errno: Errno
    message: str


class CrashError(Exception):
    """What the driver did that no driver may do, in one line."""


class TargetError(Exception):
    """There is no such driver, or it is none: one line that says what was wrong and the way out."""


class StartError(TargetError):
    """The driver is there and can not be started: one line that says what it did."""


class CheckedDriver:
    """A driver whose errors are `Failure` values. A method of a capability that it does not declare is never called."""

    __slots__ = ("_vetted", "capabilities", "driver")

    def __init__(self, driver: Driver) -> None:
        problem = driver_problem(driver)
        if problem:
            raise CrashError(problem)
        self._vetted: dict[int, object] = {}
        self.driver = driver
        self.capabilities = effective(driver.capabilities)

    def close(self) -> Failure | None:
        return _done(self.driver.close)

    def size(self) -> int | Failure:
        size = _asked(self.driver.size)
        if type(size) is Failure or (type(size) is int and size >= 0):
            return size
        raise CrashError(f"size returned {_short(size)}, which is no size in bytes")

    def read(self, offset: int, length: int) -> bytes | Failure:
        return _bytes(self.driver.read, offset, length)

    def write(self, offset: int, data: bytes) -> Failure | None:
        return _done(self.driver.write, offset, data)

    def write_zeroes(self, offset: int, length: int) -> Failure | None:
        return _done(self.driver.write_zeroes, offset, length)

    def discard(self, offset: int, length: int) -> Failure | None:
        assert self.capabilities.discard
        return _done(self.driver.discard, offset, length)

    def flush(self) -> Failure | None:
        return _done(self.driver.flush)

    def resize(self, size_bytes: int) -> Failure | None:
        assert self.capabilities.resize
        return _done(self.driver.resize, size_bytes)

    # --- snapshots --------------------------------------------------------------------------------
    def snapshot_create(self, sn: Out[SnapshotInfo]) -> Failure | None:
        assert self.capabilities.snapshots
        failure = _done(self.driver.snapshot_create, sn)
        problem = info_problem(sn.value)
        if not problem and failure is None and not sn.value.id_str:
            problem = "no id in it"
        if problem:
            raise CrashError(f"snapshot_create left {problem} in the cell of the caller's SnapshotInfo")
        return failure

    def snapshot_goto(self, snapshot_id: str) -> Failure | None:
        assert self.capabilities.goto
        return _done(self.driver.snapshot_goto, snapshot_id)

    def snapshot_delete(self, snapshot_id: str | None, name: str | None) -> Failure | None:
        assert self.capabilities.snapshots
        return _done(self.driver.snapshot_delete, snapshot_id, name)

    def snapshot_list(self) -> Sequence[SnapshotInfo] | Failure:
        assert self.capabilities.snapshots
        listed = _asked(self.driver.snapshot_list)
        if type(listed) is Failure:
            return listed
        if not isinstance(listed, list | tuple):
            raise CrashError(f"snapshot_list returned {_short(listed)}, not a list of SnapshotInfo")
        for info in listed:
            if self._vetted.get(id(info)) is not info:
                self._vet(info)
        return listed

    def _vet(self, info: object) -> None:
        """Look at an entry of a list once: it can not change, and most lists hold what the last one held."""
        problem = info_problem(info)
        if problem:
            raise CrashError(f"snapshot_list returned {problem}")
        if len(self._vetted) > VETTED_MAX:
            self._vetted.clear()
        self._vetted[id(info)] = info

    def snapshot_load_tmp(self, snapshot_id: str | None, name: str | None) -> Failure | None:
        assert self.capabilities.load_tmp
        return _done(self.driver.snapshot_load_tmp, snapshot_id, name)

    # --- VM state and checking --------------------------------------------------------------------
    def vmstate_read(self, offset: int, length: int) -> bytes | Failure:
        assert self.capabilities.vmstate
        return _bytes(self.driver.vmstate_read, offset, length)

    def vmstate_write(self, offset: int, data: bytes) -> Failure | None:
        assert self.capabilities.vmstate
        return _done(self.driver.vmstate_write, offset, data)

    def check(self) -> Check | Failure:
        assert self.capabilities.check
        return _check(self.driver.check)

    def clone(self) -> "CheckedDriver | Failure":
        """Return a copy of the driver and its image, to be closed for itself."""
        assert self.capabilities.clone
        driver = _asked(cast("Clonable", self.driver).clone)
        return driver if type(driver) is Failure else CheckedDriver(driver)


def open_checked(
    open_driver: OpenDriver, disk: BlockFile, *, read_only: bool, create: CreateOptions | None = None
) -> CheckedDriver | Failure:
    """Open what is on `disk` and return the checked driver, or the error that it answered."""
    driver = _asked(partial(open_driver, disk, read_only=read_only, create=create))
    return driver if type(driver) is Failure else CheckedDriver(driver)


def open_layer(layer: Callable[[Driver], Driver], below: CheckedDriver) -> CheckedDriver | Failure:
    """Open a driver over the open driver `below`, and return it checked, or the error that it answered."""
    driver = _asked(layer, below.driver)
    return driver if type(driver) is Failure else CheckedDriver(driver)


# --- what no driver may answer --------------------------------------------------------------------
def driver_problem(driver: object) -> str:
    """Say what `open_driver` returned instead of a driver; nothing when it is one."""
    capabilities = getattr(driver, "capabilities", None)
    if not isinstance(capabilities, Capabilities):
        return f"open_driver returned {_short(driver)}, which has no `capabilities: Capabilities`"
    for capability, name in _promised(effective(capabilities)):
        if not callable(getattr(driver, name, None)):
            because = f", although it declares {capability}" if capability else ""
            return f"the driver {type(driver).__name__} has no method {name}{because}"
    return ""


@lru_cache(maxsize=64)
def _promised(declared: Capabilities) -> tuple[tuple[str, str], ...]:
    """Return (capability, method) for each method that a driver has to have."""
    return tuple(
        (capability, name)
        for capability, names in METHODS.items()
        if not capability or getattr(declared, capability)
        for name in names
    )


def effective(capabilities: Capabilities) -> Capabilities:
    """Return what a driver can do: one without snapshots goes back to none and loads none, whatever it declares."""
    if capabilities.snapshots or not (capabilities.goto or capabilities.load_tmp):
        return capabilities
    return replace(capabilities, goto=False, load_tmp=False)


def info_problem(info: object) -> str:
    """Say why `info` is no snapshot that the API could show; nothing when it is one."""
    if not isinstance(info, SnapshotInfo):
        return f"{_short(info)}, which is no SnapshotInfo"
    for field, bytes_max in (("id_str", ID_BYTES_MAX), ("name", NAME_BYTES_MAX)):
        text: object = getattr(info, field)
        if not isinstance(text, str):
            return f"a SnapshotInfo whose {field} is {_short(text)}, not a str"
        if len(text) > bytes_max or not (text.isascii() or _encoded_bytes(text) <= bytes_max):
            return f"a SnapshotInfo whose {field} does not fit into {bytes_max} bytes of UTF-8: {_short(text)}"
    for field, bits in _BITS.items():
        number: object = getattr(info, field)
        if type(number) is not int or number < 0 or number >> bits:
            return f"a SnapshotInfo whose {field} is {_short(number)}, not an unsigned number of {bits} bits"
    return ""


def _encoded_bytes(text: str) -> float:
    """Return how many bytes `text` takes; no number is large enough for one that can not be encoded."""
    try:
        return len(text.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        return math.inf


def _asked(method: Callable[[*Ts], T], *args: *Ts) -> T | Failure:
    """Call a method of the driver; return what it returned, or its error as a value."""
    try:
        return method(*args)
    except BlockError as error:
        return _failure(method, error)
    except (Exception, SystemExit) as error:  # whatever it is, it is the driver's, and the history says so
        raise CrashError(f"{_name(method)} raised {in_words(error)}") from error


def _failure(method: Callable[..., object], error: BlockError) -> Failure:
    errno = getattr(error, "errno", None)
    if type(errno) is not Errno or errno is Errno.OK:
        raise CrashError(f"{_name(method)} raised a BlockError whose errno is {_short(errno)}, which is no error")
    return Failure(errno, str(error))


def _done(method: Callable[[*Ts], object], *args: *Ts) -> Failure | None:
    """Call a method that returns nothing."""
    answer = _asked(method, *args)
    if answer is None or type(answer) is Failure:
        return answer
    # An errno that is returned instead of raised would pass for success.
    raise CrashError(f"{_name(method)} returned {_short(answer)} instead of None; errors are raised as BlockError")


def _bytes(method: Callable[[int, int], object], offset: int, length: int) -> bytes | Failure:
    data = _asked(method, offset, length)
    if isinstance(data, Failure) or (isinstance(data, bytes) and len(data) == length):
        return data
    got = f"{len(data)} bytes" if isinstance(data, bytes) else _short(data)
    raise CrashError(f"{_name(method)} was asked for {length} bytes and returned {got}")


def _check(method: Callable[[], object]) -> Check | Failure:
    check = _asked(method)
    if isinstance(check, Check | Failure):
        return check
    raise CrashError(f"check returned {_short(check)}, not a Check")


def _name(method: Callable[..., object]) -> str:
    return getattr(method, "__name__", "open_driver")


# --- words ----------------------------------------------------------------------------------------
def in_words(error: BaseException) -> str:
    """Return an exception in one line, with the place in the driver's code that it came from."""
    text = one_line(f"{type(error).__name__}: {error}").rstrip(": ")
    place = _place(error.__traceback__)
    return f"{text} (in {place})" if place else text


def _place(traceback: TracebackType | None) -> str:
    """Return where in the driver's code an exception was raised; nothing when none of its code was running."""
    place = ""
    while traceback is not None:
        frame = traceback.tb_frame
        if not str(frame.f_globals.get("__name__", "")).startswith(_NOT_THE_DRIVER):
            file = frame.f_code.co_filename.replace("\\", "/").rpartition("/")[2]
            place = f"{frame.f_code.co_name}, {file} line {traceback.tb_lineno}"
        traceback = traceback.tb_next
    return place


def _short(value: object) -> str:
    try:
        return one_line(repr(value))
    except Exception:  # noqa: BLE001  # a driver's own __repr__ may do anything
        return f"an object of type {type(value).__name__}"


def one_line(text: str) -> str:
    """Return `text` on one line, cut to what a report can show."""
    flat = " ".join(text.split())
    return flat if len(flat) <= TEXT_MAX else f"{flat[:TEXT_MAX]}..."
