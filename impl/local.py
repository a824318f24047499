"""Several devices in this process, made from a driver for one: a System (impl/driver.py).

system = LocalSystem(open_driver, disks, semantics="classic", recorder=plan.recorder)
system.start(setup)
result = system.perform(AllCreate("s"))
seen = system.observe("d0", level=Level.FULL)
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import ClassVar, Final

from snapcheck.impl.checked import CrashError, Failure, StartError
from snapcheck.impl.device import Device, InFlight
from snapcheck.impl.driver import (
    Abilities,
    BlockFile,
    Capabilities,
    CreateOptions,
    OpenDriver,
    UnsupportedSetupError,
)
from snapcheck.impl.observe import Looker
from snapcheck.impl.perform import Parts, Performer
from snapcheck.impl.raw import open_raw
from snapcheck.model.content import SECTOR
from snapcheck.model.faults import Fault
from snapcheck.model.history import Event, Level, Observation, Recorder, Request, Result
from snapcheck.model.operations import (
    KINDS,
    AllCanSnapshot,
    AllCreate,
    AllDelete,
    AllFind,
    AllFindVmstateBs,
    AllGoto,
    CanSnapshot,
    Create,
    Delete,
    DelVm,
    Discard,
    Find,
    FindByIdAndName,
    Goto,
    List,
    LoadTmp,
    LoadTmpByIdOrName,
    LoadVm,
    Operation,
    Resize,
    SaveVm,
    Transaction,
    VmstateRead,
    VmstateWrite,
)
from snapcheck.model.setup import DeviceSpec, Kind, Semantics, Setup

# The operations that a capability is needed for.
NEEDED_FOR: Final[dict[str, tuple[type[Operation], ...]]] = {
    "snapshots": (
        CanSnapshot, Find, FindByIdAndName, Create, Goto, Delete, List, LoadTmp, LoadTmpByIdOrName, AllCanSnapshot,
        AllFind, AllCreate, AllGoto, AllDelete, AllFindVmstateBs, SaveVm, LoadVm, DelVm, Transaction,
    ),
    "goto": (Goto, AllGoto, LoadVm),
    "load_tmp": (LoadTmp, LoadTmpByIdOrName),
    "vmstate": (VmstateRead, VmstateWrite, SaveVm, LoadVm),
    "resize": (Resize,),
    "discard": (Discard,),
}  # fmt: skip


class _Gate:
    """A recorder in front of the real one. In a `with` it is shut: nothing passes; requests that land are owed."""

    __slots__ = ("_owed", "_pass_on", "emit")

    def __init__(self, recorder: Recorder) -> None:
        self._pass_on = recorder.emit
        self._owed: list[Event] = []
        self.emit = self._pass_on

    def __enter__(self) -> None:
        """Shut it."""
        self.emit = self._keep

    def __exit__(self, *_: object) -> None:
        self.emit = self._pass_on

    def _keep(self, event: Event, /) -> None:
        if type(event) is Request:
            self._owed.append(event)

    def pay(self) -> None:
        """Let what is owed pass: a close look at a device lets its requests land, and the next step tells."""
        while self._owed:
            self._pass_on(self._owed.pop(0))


class LocalSystem:
    """Devices in this process over one kind of driver. `start` raises `StartError` when the driver can not be started.

    I/O and call faults are injected from outside, by the files and drivers of fault_injection; none is injected here.
    `capabilities` are what the driver declares, once one was opened.
    """

    parts: ClassVar[Parts] = Parts()

    def __init__(
        self, open_driver: OpenDriver, disks: Sequence[BlockFile], *, semantics: str, recorder: Recorder
    ) -> None:
        self._open_driver = open_driver
        self._disks = disks
        self._semantics = Semantics(semantics)
        self._gate = _Gate(recorder)
        self._looker = Looker()
        self._in_flight = InFlight()
        self._devices: dict[str, Device] = {}
        self.capabilities = Capabilities()
        self._performer = self._new_performer()

    def _new_performer(self) -> Performer:
        return Performer(self._devices, self._in_flight, semantics=self._semantics, parts=self.parts)

    @property
    def abilities(self) -> Abilities:
        """What the driver can do; known once `start` has opened one."""
        able = self.capabilities
        missing = {kind for name, kinds in NEEDED_FOR.items() if not getattr(able, name) for kind in kinds}
        return Abilities(
            snapshot_contents=able.load_tmp or able.goto,
            check=able.check or able.format == "qcow2",
            prepared_images=able.format == "qcow2",
            operations=tuple(word for kind, word in KINDS.items() if kind not in missing) if missing else None,
        )

    # --- starting ---------------------------------------------------------------------------------
    def start(self, setup: Setup) -> None:
        """Build the devices: an empty disk is formatted and stamped, any other is opened."""
        assert len(setup.devices) == len(self._disks), "a disk for each device"
        self._devices = {
            spec.name: self._device(spec, disk) for spec, disk in zip(setup.devices, self._disks, strict=True)
        }
        with self._gate:
            for spec in setup.devices:
                self._start(spec, self._devices[spec.name])
        self._performer = self._new_performer()

    def _device(self, spec: DeviceSpec, disk: BlockFile) -> Device:
        openers: dict[Kind, OpenDriver | None] = {Kind.PLAIN: open_raw, Kind.EMPTY: None}
        return self.parts.device(
            spec.name, spec.kind, disk=disk, open_driver=openers.get(spec.kind, self._open_driver),
            recorder=self._gate, in_flight=self._in_flight, node_type=self.parts.node,
        )  # fmt: skip

    def _start(self, spec: DeviceSpec, device: Device) -> None:
        if spec.kind is Kind.EMPTY:
            return
        try:
            failure = self._format(spec, device) if device.disk.size() == 0 else _open(spec, device)
            if failure is not None:
                raise UnsupportedSetupError(f"{spec.name}: {failure.errno.name}: {failure.message}")
        except CrashError as crash:
            raise StartError(f"the driver can not start {spec.name}: {crash}") from crash
        driver = device.bottom.driver
        if driver is not None and spec.kind is not Kind.PLAIN:
            self.capabilities = driver.capabilities

    def _format(self, spec: DeviceSpec, device: Device) -> Failure | None:
        if spec.snapshots:
            raise UnsupportedSetupError(f"{spec.name}: snapshots on the image, and no image was prepared")
        failure = device.open(create=CreateOptions(spec.sectors * SECTOR, spec.cluster_bytes))
        if failure is None and spec.tag and spec.sectors:
            failure = device.write(0, spec.sectors, spec.tag)
        if failure is None and spec.read_only:
            failure = device.set_read_only(True)
        return failure

    # --- faults: none of them is injected here ----------------------------------------------------
    def arm(self, faults: Sequence[Fault]) -> Sequence[Fault]:
        return faults

    def disarm(self) -> None:
        pass

    # --- a history --------------------------------------------------------------------------------
    def perform(self, operation: Operation) -> Result:
        """Perform one operation; what no driver may do is in `Result.crash`."""
        self._gate.pay()
        return self._performer.perform(operation)

    def observe(self, device: str, *, level: Level) -> Observation:
        """Look at a device; at level full it is closed and opened."""
        with self._gate:
            return self._looker.look(self._devices[device], level, self._open_driver)

    def close(self) -> None:
        """Close all devices; the disks stay their owner's."""
        with self._gate:
            for device in self._devices.values():
                with suppress(CrashError):  # a driver that can not even close has been found out before
                    device.close()


def _open(spec: DeviceSpec, device: Device) -> Failure | None:
    device.read_only = spec.read_only
    return device.open()
