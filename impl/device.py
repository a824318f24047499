"""One device of a group: its nodes, its medium, its AioContext, and the guest that reads and writes it.

Guest requests that were submitted wait in `InFlight` until their device is drained or an operation ends.
"""

from collections.abc import Callable, Sequence
from typing import Final
from weakref import proxy

from snapcheck.impl.blockfile import BlockFile
from snapcheck.impl.checked import CheckedDriver, Failure, open_checked
from snapcheck.impl.driver import CreateOptions, Driver, OpenDriver
from snapcheck.impl.filter import Filter
from snapcheck.impl.generic import NO_MEDIUM, AioContext, Drains, Node
from snapcheck.impl.raw import Raw
from snapcheck.model.content import SECTOR, pattern
from snapcheck.model.errno import Errno
from snapcheck.model.history import Drain, Recorder, Request
from snapcheck.model.operations import SubmitWrite
from snapcheck.model.setup import Kind

LAYERS: Final[dict[Kind, Callable[[Driver], Driver]]] = {Kind.RAW_OVER: Raw, Kind.FILTER_OVER: Filter}
_FORMATS: Final = {Kind.RAW_OVER: "raw", Kind.FILTER_OVER: "filter", Kind.PLAIN: "raw"}
_PROTECTED: Final = Failure(Errno.EPERM, "the device is read-only")
_OUTSIDE: Final = Failure(Errno.EIO, "outside the virtual size")
_UNABLE: Final = Failure(Errno.ENOTSUP, "the driver declares no such capability")


class InFlight:
    """The guest writes of all devices that were submitted and have not landed, in order of submission."""

    __slots__ = ("waiting",)

    def __init__(self) -> None:
        self.waiting: list[tuple[Device, SubmitWrite]] = []

    def land(self, of: "Device | None" = None) -> None:
        """Let the requests of one device land, or those of all."""
        landing = [each for each in self.waiting if of is None or each[0] is of]
        self.waiting = [each for each in self.waiting if of is not None and each[0] is not of]
        for device, request in landing:
            device.land(request)


class Device:
    """A root node, perhaps over a child, on one disk. Without a medium its nodes have no driver.

    `open_driver` opens the node at the bottom; None for a drive that never has a medium.
    """

    __slots__ = (
        "__weakref__",
        "_in_flight",
        "_open_driver",
        "_recorder",
        "child",
        "disk",
        "kind",
        "lock",
        "name",
        "read_only",
        "root",
    )

    def __init__(
        self, name: str, kind: Kind, *, disk: BlockFile, open_driver: OpenDriver | None, recorder: Recorder,
        in_flight: InFlight, node_type: type[Node] = Node,
    ) -> None:  # fmt: skip
        self.name = name
        self.kind = kind
        self.disk = disk
        self.read_only = False
        self.lock = AioContext(name, recorder)
        self._open_driver = open_driver
        self._recorder = recorder
        self._in_flight = in_flight
        drains: Drains = proxy(self)  # no cycle: memory is free when the device is
        layer = LAYERS.get(kind)
        root_format = _FORMATS.get(kind, "driver")
        self.root = node_type(
            name, format_name=root_format, lock=self.lock, drains=drains, recorder=recorder, layer=layer
        )
        self.child: Node | None = None
        if layer is not None:
            self.child = node_type(
                f"{name}/file", format_name="driver", lock=self.lock, drains=drains, recorder=recorder
            )

    @property
    def nodes(self) -> Sequence[Node]:
        return (self.root,) if self.child is None else (self.root, self.child)

    @property
    def bottom(self) -> Node:
        """The node that keeps its image on the disk."""
        return self.root if self.child is None else self.child

    # --- opening and closing ----------------------------------------------------------------------
    def open(self, *, create: CreateOptions | None = None) -> Failure | None:
        """Open the nodes, the disk being formatted first when `create` is given. After a failure there is no medium."""
        if self._open_driver is None:
            return NO_MEDIUM
        opened = open_checked(self._open_driver, self.disk, read_only=self.read_only, create=create)
        if isinstance(opened, Failure):
            return opened
        for node in self.nodes:
            node.read_only = self.read_only
        self.bottom.driver = opened
        failure = None if self.child is None else self.root.attach(self.child)
        if failure is not None:
            self.bottom.close()
        return failure

    def close(self) -> Failure | None:
        """Drain the device and close its nodes, the root first; bitmaps and a load_tmp view go."""
        self.drained_begin()
        failures = [node.close() for node in self.nodes]
        self.drained_end()
        return next((failure for failure in failures if failure is not None), None)

    def reopen(self) -> Failure | None:
        """Close and open. It is opened even if closing reports an error, which is then the answer."""
        if self.root.driver is None:
            return NO_MEDIUM
        closed = self.close()
        opened = self.open()
        return closed or opened

    def set_read_only(self, read_only: bool) -> Failure | None:  # noqa: FBT001  # as bdrv_set_read_only has it
        """Reopen with another mode; without a medium the mode is kept for the next one."""
        if self._open_driver is None:
            return NO_MEDIUM
        if self.root.driver is None:
            self.read_only = read_only
            return None
        closed = self.close()
        self.read_only = read_only
        opened = self.open()
        return closed or opened

    def set_medium(self, present: bool) -> Failure | None:  # noqa: FBT001  # the operation's one argument
        """Take the medium out, or put it in; a node that died comes back with it."""
        if self._open_driver is None:
            return NO_MEDIUM if present else None
        closed = None if self.root.driver is None else self.close()
        opened = self.open() if present else None
        return closed or opened

    # --- drained sections -------------------------------------------------------------------------
    def drained_begin(self) -> None:
        """Let the guest's requests land; none is in flight until the section ends."""
        self._recorder.emit(Drain(self.name, "begin"))
        if self._in_flight.waiting:
            self._in_flight.land(self)

    def drained_end(self) -> None:
        self._recorder.emit(Drain(self.name, "end"))

    # --- the guest --------------------------------------------------------------------------------
    def write(self, sector: int, count: int, tag: int) -> Failure | None:
        """Stamp sectors with `tag`."""
        driver = self._writable(sector, count)
        if isinstance(driver, Failure):
            return driver
        return driver.write(sector * SECTOR, pattern(tag=tag, sector=sector, count=count))

    def write_zeroes(self, sector: int, count: int) -> Failure | None:
        driver = self._writable(sector, count)
        return driver if isinstance(driver, Failure) else driver.write_zeroes(sector * SECTOR, count * SECTOR)

    def discard(self, sector: int, count: int) -> Failure | None:
        driver = self._writable(sector, count)
        if isinstance(driver, Failure):
            return driver
        return driver.discard(sector * SECTOR, count * SECTOR) if driver.capabilities.discard else _UNABLE

    def resize(self, sectors: int) -> Failure | None:
        driver = self.root.driver
        if driver is None:
            return NO_MEDIUM
        if self.read_only:
            return Failure(Errno.EACCES, "the device is read-only")
        return driver.resize(sectors * SECTOR) if driver.capabilities.resize else _UNABLE

    def _writable(self, sector: int, count: int) -> CheckedDriver | Failure:
        """Return the driver if the guest may write these sectors: medium, read-only and bounds, in this order."""
        driver = self.root.driver
        if driver is None:
            return NO_MEDIUM
        if self.read_only:
            return _PROTECTED
        size = driver.size()
        if isinstance(size, Failure):
            return size
        return driver if (sector + count) * SECTOR <= size else _OUTSIDE

    def submit_write(self, request: SubmitWrite) -> Failure | None:
        """Take a guest's write; it lands when the device is drained, or when an operation has done its work."""
        driver = self._writable(request.sector, request.count)
        if isinstance(driver, Failure):
            return driver
        self._recorder.emit(Request(self.name, "submit"))
        self._in_flight.waiting.append((self, request))
        return None

    def land(self, request: SubmitWrite) -> None:
        """Carry out a request that was in flight; when it fails it is lost without a word."""
        self._recorder.emit(Request(self.name, "start"))
        failure = self.write(request.sector, request.count, request.tag)
        errno = Errno.OK if failure is None else failure.errno
        self._recorder.emit(Request(self.name, "complete", errno))
