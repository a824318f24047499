"""QEMU as a System (impl/driver.py): savevm, loadvm, delvm, transactions and the guest's I/O, on devices over NBD.

One process serves many histories: what a history opened is closed at its end, and where that fails the process is
ended, as after a crash. The disks are the block files that the system was given, so that faults strike them from
outside, and every read and write below QEMU is seen.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Final

from snapcheck.impl.adapters.qemu import nbd
from snapcheck.impl.adapters.qemu.answers import refusal
from snapcheck.impl.adapters.qemu.devices import Device, Devices, node_of
from snapcheck.impl.adapters.qemu.keeper import KEEPER
from snapcheck.impl.adapters.qemu.looking import HeldError, Looker
from snapcheck.impl.adapters.qemu.monitor import Asked, GoneError, RefusedError
from snapcheck.impl.adapters.qemu.nbd import Command
from snapcheck.impl.adapters.qemu.process import MACHINE
from snapcheck.impl.adapters.qemu.pump import StuckError
from snapcheck.impl.adapters.qemu.second_opinion import SecondOpinion
from snapcheck.impl.blockfile import BlockError, BlockFile
from snapcheck.impl.checked import CrashError, StartError
from snapcheck.impl.driver import UnsupportedSetupError
from snapcheck.impl.qcow2.prepare import prepared_image
from snapcheck.model.content import SECTOR, pattern
from snapcheck.model.errno import Errno
from snapcheck.model.faults import Fault
from snapcheck.model.history import Abilities, Level, Observation, Recorder, Result
from snapcheck.model.operations import (
    KINDS,
    AddBitmap,
    Delete,
    DelVm,
    Discard,
    Flush,
    LoadVm,
    Operation,
    RemoveBitmap,
    Reopen,
    Resize,
    SaveVm,
    SetMedium,
    SetReadOnly,
    Transaction,
    Write,
    WriteZeroes,
)
from snapcheck.model.setup import DeviceSpec, Kind, Semantics, Setup
from snapcheck.model.snapshot import SnapshotInfo

OK: Final = Result()
NO_MEDIUM: Final = Result(Errno.ENOMEDIUM)
_SEVERAL: Final = (SaveVm, LoadVm, DelVm, Transaction)
DEAD: Final = (GoneError, StuckError, ConnectionError)


class QemuSystem:
    """Devices in a QEMU of 7.2 or later. `start` raises `StartError` when QEMU is not there, or not able."""

    program: ClassVar[str] = MACHINE
    only_semantics: ClassVar[Semantics] = Semantics.MODERN

    def __init__(self, disks: Sequence[BlockFile], *, semantics: str, recorder: Recorder) -> None:
        del recorder  # what is seen of QEMU is seen by its disks
        if semantics != Semantics.MODERN:
            raise StartError(f"QEMU is judged by its own release's semantics: --semantics modern, not {semantics}")
        self._disks = disks
        self._closed = False
        self._held: dict[str, str] = {}  # devices that QEMU did not close when it was to, and why: to be told of them
        self._take_process()
        self._table: Mapping[type[Operation], Callable[[Any], Result]] = self.operations()

    def _take_process(self) -> None:
        self._process = process = KEEPER.lend(self.program)
        self._monitor = self.through(process.monitor)
        self._second_opinion = SecondOpinion(process.pump, process.disks)
        self._devices = Devices(process.pump, self._monitor, process.disks, process.address)
        saved = KEEPER.saved.get(self.program)
        self._looker = Looker(self._monitor, self._devices, KEEPER.clock, self._second_opinion, saved)

    def through(self, monitor: Asked) -> Asked:
        """Return what is asked in the place of QEMU's monitor: that monitor. A proxy here is how a bug is planted."""
        return monitor

    def operations(self) -> dict[type[Operation], Callable[[Any], Result]]:
        """Return what is performed, and how."""
        return {
            Write: self._write, WriteZeroes: self._write_zeroes, Discard: self._discard, Flush: self._flush,
            Resize: self._resize, Delete: self._delete, SaveVm: self._save_vm, LoadVm: self._load_vm,
            DelVm: self._del_vm, Transaction: self._transact, AddBitmap: self._add_bitmap,
            RemoveBitmap: self._remove_bitmap, SetReadOnly: self._set_read_only, SetMedium: self._set_medium,
            Reopen: self._reopen,
        }  # fmt: skip

    @staticmethod
    def as_shown(info: SnapshotInfo) -> SnapshotInfo:
        """Return a snapshot that QEMU took without its date."""
        return KEEPER.clock.undated(info)

    @classmethod
    def state_as_shown(cls, raw: bytes) -> bytes:
        """Return the VM state of a snapshot as it is compared: what the machine saves is a pattern of the harness."""
        saved = KEEPER.saved.get(cls.program)
        return raw if saved is None else saved.shown(raw)

    @property
    def abilities(self) -> Abilities:
        """What can be seen of QEMU: answers and disks, and no call inside."""
        saved = KEEPER.saved.get(self.program)
        return Abilities(
            calls=False, cells=False, locks=False, drains=False, call_faults=False, any_bytes=False, children=False,
            errnos=nbd.ERRNOS, vmstate_bytes=None if saved is None else len(saved.raw),
            operations=tuple(word for kind, word in KINDS.items() if kind in self._table),
        )  # fmt: skip

    # --- starting and ending ----------------------------------------------------------------------
    def start(self, setup: Setup) -> None:
        """Build the devices: an empty disk gets an image, any other is opened."""
        try:
            for spec, disk in zip(setup.devices, self._disks, strict=True):
                if disk.size() == 0:
                    _format(spec, disk)
                self._devices.add(Device(spec, disk, spec.read_only))
        except RefusedError as error:
            self.close()  # nobody else will: the history has not begun
            raise UnsupportedSetupError(str(error)) from error
        except DEAD as error:
            raise StartError(self._obituary(error)) from error

    def close(self) -> None:
        """Take the devices away; a QEMU that does not let them go is ended."""
        if self._closed:
            return
        self._closed = True
        if self._process.pump.broken_off:  # its next answer would be taken for another one's
            KEEPER.end(self._process)
            return
        try:
            self._devices.remove_all()
            KEEPER.give_back(self._process)
        except (*DEAD, RefusedError):
            KEEPER.end(self._process)

    def abandon(self) -> None:
        """Let go of everything as when the power is gone: QEMU has no time to write anything."""
        self._closed = True
        KEEPER.end(self._process)

    def arm(self, faults: Sequence[Fault]) -> Sequence[Fault]:
        return faults  # none can be injected into QEMU's own functions

    def disarm(self) -> None:
        pass

    # --- a history --------------------------------------------------------------------------------
    def perform(self, operation: Operation) -> Result:
        """Perform one operation; what QEMU died of is in `Result.crash`."""
        begun = time.time_ns()
        self._looker.changed(several=isinstance(operation, _SEVERAL))
        try:
            self._leave_what_holds()
            return self._table[type(operation)](operation)
        except RefusedError as error:
            return refusal(str(error), self._devices.by_name)
        except DEAD as error:
            return Result(crash=self._obituary(error))
        finally:
            KEEPER.clock.took(begun, time.time_ns())

    def observe(self, device: str, *, level: Level) -> Observation:
        """Look at a device; at level full it is closed and opened."""
        found = self._devices.by_name[device]
        try:
            self._leave_what_holds()
            seen = self._looker.look(found, level)
            return replace(seen, held=self._held.pop(device, ""))
        except HeldError as held:
            self._restart()
            seen = Observation(device, level, held.memory, self._looker.view(found), held=str(held))
            return self._looker.whole(seen, found)
        except DEAD as error:
            raise CrashError(self._obituary(error)) from error

    def _leave_what_holds(self) -> None:
        """Go on in another QEMU when this one did not close a device in an operation: no fault strikes any more now."""
        held = {device.name: device.held for device in self._devices.by_name.values() if device.held}
        if held:
            self._held.update(held)
            self._restart()

    def _restart(self) -> None:
        """End a QEMU that holds on to a device, and open everything in another: there is no other way on."""
        devices = [*self._devices.by_name.values()]
        self._devices.flush_all()
        KEEPER.end(self._process)
        self._take_process()
        for device in devices:
            self._devices.adopt(device)

    def _obituary(self, error: Exception) -> str:
        """Return what QEMU died of, and see to it that it is gone."""
        self._closed = True
        stuck = isinstance(error, StuckError)
        if stuck:
            KEEPER.end(self._process)
            return f"hang: {error}"
        why = self._process.why()
        KEEPER.end(self._process)
        return why

    # --- the guest --------------------------------------------------------------------------------
    def _as_guest(self, name: str, command: Command, sector: int = 0, count: int = 0, tag: int | None = None) -> Result:
        """Let the guest do one request, unless it knows itself that the device does not take it."""
        device = self._devices.by_name[name]
        if not device.present:
            return NO_MEDIUM
        if device.read_only and command is not Command.FLUSH:
            return Result(Errno.EPERM)  # it knows that it is read-only
        size = self._looker.size_of(device)
        if size is None:
            return NO_MEDIUM
        if (sector + count) * SECTOR > size:
            return Result(Errno.EIO)
        guest = self._devices.guest_of(device, size)
        data = b"" if tag is None else pattern(tag=tag, sector=sector, count=count)
        try:
            guest.request(command, sector * SECTOR, 0 if data else count * SECTOR, data)
        except BlockError as error:
            return Result(error.errno)
        return OK

    def _write(self, operation: Write) -> Result:
        return self._as_guest(operation.device, Command.WRITE, operation.sector, operation.count, operation.tag)

    def _write_zeroes(self, operation: WriteZeroes) -> Result:
        return self._as_guest(operation.device, Command.WRITE_ZEROES, operation.sector, operation.count)

    def _discard(self, operation: Discard) -> Result:
        return self._as_guest(operation.device, Command.TRIM, operation.sector, operation.count)

    def _flush(self, operation: Flush) -> Result:
        return self._as_guest(operation.device, Command.FLUSH)

    def _resize(self, operation: Resize) -> Result:
        device = self._devices.by_name[operation.device]
        if not device.present:
            return NO_MEDIUM
        size = operation.sectors * SECTOR
        if device.spec.kind is Kind.PLAIN and not device.read_only:
            return self._resize_plain(device, size)
        device.sizes_vary = True
        with self._devices.resizable():
            self._execute("block_resize", {"node-name": device.name, "size": size})
        return OK

    def _resize_plain(self, device: Device, size: int) -> Result:
        """Give a raw device another size: the disk below it does not grow by itself (NBD), so it is changed instead.

        For that the device is closed, which whoever resizes does not see: its bitmaps are there afterwards.
        """
        bitmaps = sorted(device.bitmaps)
        self._devices.close(device)
        try:
            device.disk.truncate(size)
        except BlockError as error:
            return Result(error.errno)
        finally:
            self._devices.open(device)
            self._devices.track(device, bitmaps)
        return OK

    # --- snapshots --------------------------------------------------------------------------------
    def _execute(self, command: str, arguments: Mapping[str, object]) -> None:
        self._monitor.execute(command, arguments)

    def _say(self, command: str, name: str) -> Result:
        self._looker.foresee()
        text = self._monitor.say(f"{command} {_quoted(name)}")
        return refusal(text.removeprefix("Error: "), self._devices.by_name) if text else OK

    def _save_vm(self, operation: SaveVm) -> Result:
        assert operation.name is not None, "the harness names what this system saves (Abilities.vmstate_bytes)"
        return self._say("savevm", operation.name)

    def _load_vm(self, operation: LoadVm) -> Result:
        if not any(device.sizes_vary for device in self._devices.by_name.values()):
            return self._loaded(operation)
        with self._devices.resizable():
            return self._loaded(operation)

    def _loaded(self, operation: LoadVm) -> Result:
        return self._say("loadvm", operation.name)

    def _del_vm(self, operation: DelVm) -> Result:
        return self._say("delvm", operation.name)

    def _delete(self, operation: Delete) -> Result:
        given = {"id": operation.snapshot_id, "name": operation.name}
        arguments = {"device": operation.device, **{key: text for key, text in given.items() if text is not None}}
        self._execute("blockdev-snapshot-delete-internal-sync", arguments)
        return OK

    def _transact(self, operation: Transaction) -> Result:
        kind = "blockdev-snapshot-internal-sync"
        actions = [{"type": kind, "data": {"device": each.device, "name": each.name}} for each in operation.actions]
        self._looker.foresee()
        self._execute("transaction", {"actions": actions})
        return OK

    # --- the environment --------------------------------------------------------------------------
    def _add_bitmap(self, operation: AddBitmap) -> Result:
        return self._bitmap("block-dirty-bitmap-add", operation)

    def _remove_bitmap(self, operation: RemoveBitmap) -> Result:
        device = self._devices.by_name[operation.device.partition("/")[0]]
        return self._bitmap("block-dirty-bitmap-remove", operation) if device.present else Result(Errno.ENOENT)

    def _bitmap(self, command: str, operation: AddBitmap | RemoveBitmap) -> Result:
        device = self._devices.by_name[operation.device.partition("/")[0]]
        if not device.present:
            return NO_MEDIUM
        bitmap = operation.device, operation.name
        self._execute(command, {"node": node_of(operation.device), "name": operation.name})
        (device.bitmaps.add if isinstance(operation, AddBitmap) else device.bitmaps.discard)(bitmap)
        return OK

    def _reopen(self, operation: Reopen) -> Result:
        device = self._devices.by_name[operation.device]
        if not device.present:
            return NO_MEDIUM
        self._devices.reopen(device, read_only=device.read_only)
        return OK

    def _set_read_only(self, operation: SetReadOnly) -> Result:
        device = self._devices.by_name[operation.device]
        if device.spec.kind is Kind.EMPTY:
            return NO_MEDIUM
        if device.present:
            self._devices.reopen(device, read_only=operation.read_only)
        device.read_only = operation.read_only
        return OK

    def _set_medium(self, operation: SetMedium) -> Result:
        device = self._devices.by_name[operation.device]
        if operation.present and device.spec.kind is Kind.EMPTY:
            return NO_MEDIUM
        if device.present:
            self._devices.close_or_hold(device)
        if operation.present:
            self._devices.open_unless_held(device)
        return OK


def _format(spec: DeviceSpec, disk: BlockFile) -> None:
    """Put onto an empty disk what `spec` describes."""
    if spec.kind is Kind.EMPTY:
        return
    if spec.kind is Kind.PLAIN:
        disk.truncate(spec.sectors * SECTOR)
        if spec.tag and spec.sectors:
            disk.pwrite(0, pattern(tag=spec.tag, sector=0, count=spec.sectors))
        return
    image = prepared_image(spec)
    disk.pwrite(0, image.pread(0, image.size()))


_ESCAPES: Final = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r"})


def _quoted(text: str) -> str:
    """Return `text` as one argument of the monitor for people."""
    return f'"{text.translate(_ESCAPES)}"'
