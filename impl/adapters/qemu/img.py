"""qemu-img as a System: create, goto and delete on images that nobody else has open (SPEC C.7).

A storage daemon stands for whoever uses the images in between: it reads and writes them, and lets go of each before
qemu-img opens it.
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
from snapcheck.impl.adapters.qemu.system import DEAD, NO_MEDIUM, OK
from snapcheck.impl.driver import UnsupportedSetupError
from snapcheck.impl.observe import nothing_seen
from snapcheck.model.errno import Errno
from snapcheck.model.history import Abilities, Level, Observation, Result
from snapcheck.model.operations import (
    AddBitmap,
    Create,
    Delete,
    Goto,
    Operation,
    RemoveBitmap,
    SetReadOnly,
    Transaction,
)
from snapcheck.model.setup import Kind, PreparedSnapshot, Setup
from snapcheck.model.snapshot import SnapshotInfo, as_listed

_OFFLINE: Final = (Create, Goto, Delete)


class QemuImg(QemuDaemon):
    """Images under qemu-img. A device is in the daemon only while it is used or looked at."""

    _NOT_OFFLINE: ClassVar[tuple[type[Operation], ...]] = (Transaction, AddBitmap, RemoveBitmap, SetReadOnly)

    def operations(self) -> dict[type[Operation], Callable[[Any], Result]]:
        """Return what is performed, and how."""
        online = {kind: how for kind, how in super().operations().items() if kind not in self._NOT_OFFLINE}
        return {**online, Create: self._create, Goto: self._goto, Delete: self._delete}

    @property
    def abilities(self) -> Abilities:
        """What can be seen of it; deletes go by names."""
        return replace(super().abilities, ids=False)

    def start(self, setup: Setup) -> None:
        """Build the images; qemu-img knows no image that can not be written to."""
        if any(spec.read_only for spec in setup.devices):
            raise UnsupportedSetupError("qemu-img opens an image for writing whatever its user says")
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
        return super().perform(operation)

    def observe(self, device: str, *, level: Level) -> Observation:
        """Look at a device, and put it away."""
        found = self._devices.by_name[device]
        try:
            self._fetch(found)
        except RefusedError as error:
            return Observation(device, level, nothing_seen(errno_of(str(error)).name))
        seen = super().observe(device, level=level)
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
        image = f"json:{json.dumps(self._devices.nodes(device))}"
        limit = ("--object", f"throttle-group,id={UNLIMITED}")
        status, _, text = run_program(self._process.pump, IMG, ("snapshot", *limit, what, argument, image))
        if status < 0:
            return Result(crash=f"qemu-img was ended by {signal.Signals(-status).name}: {text}")
        return refusal(text) if status else OK


def _info(snapshot: PreparedSnapshot) -> SnapshotInfo:
    return SnapshotInfo(snapshot.id_str, snapshot.name)
