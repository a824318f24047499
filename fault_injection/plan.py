"""The plan of a history: places the faults of each step, and hands out the block files and drivers that obey them.

A plan belongs to one history. It takes the history's recorder and offers its own, `plan.recorder`, which passes every
event on and listens on the way: whoever performs the operations must emit to that one, or `find` can not be told from
`list` (model/faults.py, CallFault).

    plan = FaultPlan(recorder)
    disk = plan.wrap_file("d0", MemoryFile())
    system = factory([disk], semantics="classic", recorder=plan.recorder)
    plan.arm(faults)    # counting starts at one
    system.perform(operation)
    plan.disarm()       # nothing strikes any more; damage that was done stays
    plan.heal("d0")     # damage is taken away as well
"""

from collections.abc import Callable, Sequence

from snapcheck.fault_injection.disk import FaultyFile
from snapcheck.fault_injection.driver import FaultyDriver
from snapcheck.fault_injection.watch import Site, Watch, is_sensible
from snapcheck.impl.blockfile import BlockFile
from snapcheck.impl.driver import CreateOptions, Driver, OpenDriver
from snapcheck.model.errno import Errno
from snapcheck.model.faults import CallFault, Fails, Fault, IoFault
from snapcheck.model.history import Call, Event, Recorder


def medium_vanishes(device: str, *, at: int = 1) -> IoFault:
    """Return the fault that takes the medium away in front of the `at`-th I/O: everything fails from then on."""
    return IoFault(device, "any", Fails(Errno.ENOMEDIUM), at=at, times=0)


def turns_read_only(device: str, *, at: int = 1) -> IoFault:
    """Return the fault that makes the medium read-only in front of the `at`-th write.

    From then on writes, discards and truncates fail with EROFS; reads and flushes go on.
    """
    return IoFault(device, "write", Fails(Errno.EROFS), at=at, times=0)


class FaultPlan:
    """Arms faults by device, and says where they strike: `FaultMet` with the fault's index among those armed."""

    def __init__(self, recorder: Recorder) -> None:
        self._sites = _Sites(recorder)
        self.recorder: Recorder = _Listener(recorder.emit, self._sites)
        self._files: dict[str, FaultyFile] = {}
        self._drivers: set[str] = set()

    @property
    def clock_ns(self) -> int:
        """The simulated clock: the sum of all delays so far."""
        return sum(site.delayed_ns for site in self._sites.values())

    def arm(self, faults: Sequence[Fault]) -> None:
        """Let `faults`, and no others, strike from now on; all counting starts anew."""
        self.disarm()
        for index, fault in enumerate(faults):
            site, watch = self._sites[fault.device], Watch(index, fault)
            if isinstance(fault, CallFault):
                site.calls = (*site.calls, watch)
            else:
                site.io = (*site.io, watch)

    def disarm(self) -> None:
        """Let nothing strike any more. Damage stays until `heal`, or until a good write covers it."""
        for site in self._sites.values():
            site.io = site.calls = ()
            site.finding = 0

    def can_inject(self, fault: Fault) -> bool:
        """Tell whether `fault` makes sense, and whether this plan wraps what it strikes."""
        wrapped = self._drivers if isinstance(fault, CallFault) else self._files
        return fault.device in wrapped and is_sensible(fault)

    def damaged(self, device: str) -> bool:
        """Tell whether the medium of `device` holds anything else than it should."""
        return device in self._files and self._files[device].damaged

    def heal(self, device: str) -> None:
        """Take the damage on the medium of `device` away: it holds what it would hold had no fault damaged it."""
        if device in self._files:
            self._files[device].heal()

    def wrap_file(self, device: str, file: BlockFile) -> FaultyFile:
        """Return `file` with its I/O recorded, and under this plan's faults. A device has one medium: the last one."""
        self._files[device] = FaultyFile(self._sites[device], file)
        return self._files[device]

    def wrap_driver(self, device: str, driver: Driver) -> FaultyDriver:
        """Return `driver` under this plan's call faults; a driver that is opened again is wrapped again."""
        self._drivers.add(device)
        return FaultyDriver(self._sites[device], driver)

    def wrap_open(self, open_driver: OpenDriver) -> OpenDriver:
        """Return `open_driver` so that the drivers it opens on this plan's files are wrapped."""

        def opened(disk: BlockFile, *, read_only: bool, create: CreateOptions | None) -> Driver:
            driver = open_driver(disk, read_only=read_only, create=create)
            return self.wrap_driver(disk.device, driver) if isinstance(disk, FaultyFile) else driver

        return opened


class _Sites(dict[str, Site]):
    """Where the faults of each device wait, made as soon as somebody asks for it."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __missing__(self, device: str) -> Site:
        site = self[device] = Site(device, self._recorder)
        return site


class _Listener:
    """The recorder in front of the real one: passes everything on, and hears when bdrv_snapshot_find is at work."""

    __slots__ = ("_pass_on", "_sites")

    def __init__(self, pass_on: Callable[[Event], None], sites: _Sites) -> None:
        self._pass_on = pass_on
        self._sites = sites

    def emit(self, event: Event, /) -> None:
        if type(event) is Call and event.function == "find" and event.layer == "generic":
            site = self._sites[event.device]
            site.finding = max(0, site.finding + (1 if event.edge == "enter" else -1))
        self._pass_on(event)
