"""qemu-img as a System: create, goto and delete on images that nobody else has open (SPEC C.7), and load_tmp.

A storage daemon stands for whoever uses the images in between: it reads and writes them, and lets go of each before
qemu-img opens it for writing.
"""

import json
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any, ClassVar, Final

from snapcheck.impl.adapters.qemu.answers import errno_of, refusal
from snapcheck.impl.adapters.qemu.daemon import QemuDaemon
from snapcheck.impl.adapters.qemu.devices import UNLIMITED, Device
from snapcheck.impl.adapters.qemu.monitor import RefusedError
from snapcheck.impl.adapters.qemu.process import IMG, run_program
from snapcheck.impl.adapters.qemu.second_opinion import selector
from snapcheck.impl.adapters.qemu.system import DEAD, NO_MEDIUM, OK
from snapcheck.impl.blockfile import MemoryFile
from snapcheck.impl.driver import UnsupportedSetupError
from snapcheck.impl.observe import nothing_seen
from snapcheck.model.content import tags_of
from snapcheck.model.errno import Errno
from snapcheck.model.history import Abilities, Level, Observation, Result
from snapcheck.model.operations import (
    AddBitmap,
    Create,
    Delete,
    Goto,
    LoadTmp,
    LoadTmpByIdOrName,
    Operation,
    RemoveBitmap,
    Reopen,
    SetMedium,
    SetReadOnly,
    Transaction,
)
from snapcheck.model.setup import Kind, PreparedSnapshot, Setup
from snapcheck.model.snapshot import SnapshotInfo, as_listed

_OFFLINE: Final = (Create, Goto, Delete)
_CLOSES: Final = (Reopen, SetReadOnly, SetMedium)
_LOADED: Final = "loaded"  # the disk that `convert -l` fills


class QemuImg(QemuDaemon):
    """Images under qemu-img. A device is in the daemon only while it is used or looked at.

    What load_tmp shows instead of the active content is what `convert -l` made of the snapshot, until a close.
    """

    _NOT_OFFLINE: ClassVar[tuple[type[Operation], ...]] = (Transaction, AddBitmap, RemoveBitmap)

    def operations(self) -> dict[type[Operation], Callable[[Any], Result]]:
        """Return what is performed, and how."""
        online = {kind: how for kind, how in super().operations().items() if kind not in self._NOT_OFFLINE}
        return {
            **online, Create: self._create, Goto: self._goto, Delete: self._delete, LoadTmp: self._load_tmp,
            LoadTmpByIdOrName: self._load_tmp_by_id_or_name,
        }  # fmt: skip

    @property
    def abilities(self) -> Abilities:
        """What can be seen of it; deletes go by names."""
        return replace(super().abilities, ids=False)

    def start(self, setup: Setup) -> None:
        """Build the images."""
        self._shown: dict[str, bytes] = {}  # by load_tmp
        if any(as_listed(info) != info for spec in setup.devices for info in map(_info, spec.snapshots)):
            raise UnsupportedSetupError("qemu-img finds what it deletes by a name as it is listed, which may be cut")
        super().start(setup)
        for device in self._devices.by_name.values():
            self._put_away(device)

    # --- in the daemon, or not --------------------------------------------------------------------
    def _put_away(self, device: Device) -> None:
        """Have the daemon let go of a device until somebody needs it."""
        if device.present:
            self._devices.close(device)
            device.away = True

    def _fetch(self, device: Device) -> None:
        """Have the daemon open a device that was put away; `RefusedError` when it can not."""
        if device.away:
            self._looker.changed()
            self._devices.open(device)
            device.away = False

    def prepare(self, operation: Operation) -> None:
        """Have the device where the operation wants it: what can not be done now is tried again, and told, by it."""
        with suppress(RefusedError, *DEAD):
            self._get_ready(operation)

    def _get_ready(self, operation: Operation) -> None:
        """Put a device away from the daemon for what qemu-img does, and fetch it for everything else."""
        device = self._devices.by_name[getattr(operation, "device", "").partition("/")[0]]
        (self._put_away if isinstance(operation, _OFFLINE) else self._fetch)(device)

    def perform(self, operation: Operation) -> Result:
        """Perform one operation."""
        try:
            self._get_ready(operation)
        except RefusedError as error:
            return refusal(str(error))
        except DEAD as error:
            return Result(crash=self._obituary(error))
        if isinstance(operation, _CLOSES):
            self._shown.pop(operation.device, None)
        return super().perform(operation)

    def observe(self, device: str, *, level: Level) -> Observation:
        """Look at a device, and put it away."""
        found = self._devices.by_name[device]
        try:
            self._fetch(found)
        except RefusedError as error:
            return Observation(device, level, nothing_seen(errno_of(str(error)).name))
        seen = super().observe(device, level=level)
        if device in self._shown and seen.memory.content is not None:
            seen = replace(seen, memory=replace(seen.memory, content=tags_of(self._shown[device])))
        if level is Level.FULL:
            self._shown.pop(device, None)
        with suppress(RefusedError):
            self._put_away(found)
        return seen

    # --- qemu-img ---------------------------------------------------------------------------------
    def _create(self, operation: Create) -> Result:
        return self._snapshot(operation.device, "-c", operation.name)

    def _goto(self, operation: Goto) -> Result:
        return self._snapshot(operation.device, "-a", operation.snapshot_id)

    def _delete(self, operation: Delete) -> Result:
        assert operation.name is not None, "qemu-img deletes by name (Abilities.ids)"
        result = self._snapshot(operation.device, "-d", operation.name)
        if result.errno is Errno.ENOENT and self._devices.by_name[operation.device].spec.kind is Kind.PLAIN:
            return replace(result, errno=Errno.EUNTOLD)  # it looks first, and finds none where there can be none (A.1)
        return result

    def _snapshot(self, name: str, what: str, argument: str) -> Result:
        device = self._devices.by_name[name]
        if not device.away or device.spec.kind is Kind.EMPTY:
            return replace(NO_MEDIUM, message="there is no image")
        result = self._run("snapshot", what, argument, self._image(device))
        # What can not be written to it does not open.
        return replace(result, errno=Errno.EUNTOLD) if device.read_only and _is_closed(result) else result

    def _load_tmp(self, operation: LoadTmp) -> Result:
        picked = selector(operation.snapshot_id, operation.name)
        return self._convert(operation.device, picked or "snapshot.")  # with neither it is no selector, and refused

    def _load_tmp_by_id_or_name(self, operation: LoadTmpByIdOrName) -> Result:
        return self._convert(operation.device, operation.id_or_name)

    def _convert(self, name: str, snapshot: str) -> Result:
        """Have a snapshot read; an image that its user has open for writing is not a case of it (SPEC A.8)."""
        device = self._devices.by_name[name]
        size = self._looker.size_of(device) if device.present else None
        if size is None:
            return replace(NO_MEDIUM, message="there is no image")
        if not device.read_only:
            return Result(Errno.EINVAL, message="the image is open for writing")
        copy = MemoryFile(_LOADED)
        self._process.disks.offer(_LOADED, copy, size=size)
        raw = {"driver": "raw", "file": self._devices.served(_LOADED)}
        result = self._run("convert", "-n", "-l", snapshot, self._image(device), f"json:{json.dumps(raw)}")
        if result.errno is Errno.OK and result.crash is None:
            self._shown[name] = copy.pread(0, size)
        return replace(result, errno=Errno.EUNTOLD) if _is_closed(result) else result

    def _image(self, device: Device) -> str:
        return f"json:{json.dumps(self._devices.nodes(device))}"

    def _run(self, command: str, *arguments: str) -> Result:
        limit = ("--object", f"throttle-group,id={UNLIMITED}")
        status, _, text = run_program(self._process.pump, IMG, (command, *limit, *arguments))
        if status < 0:
            return Result(crash=f"qemu-img was ended by {signal.Signals(-status).name}: {text}")
        return refusal(text) if status else OK


def _is_closed(result: Result) -> bool:
    """Tell whether an image could not be opened, so that it did not come to what is to be said of its snapshots."""
    return "Could not open" in (result.message or "")


def _info(snapshot: PreparedSnapshot) -> SnapshotInfo:
    return SnapshotInfo(snapshot.id_str, snapshot.name)
