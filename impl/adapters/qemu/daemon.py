"""The storage daemon as a System: it has no machine to save, but takes and drops internal snapshots (SPEC C.6)."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from snapcheck.impl.adapters.qemu.process import DAEMON
from snapcheck.impl.adapters.qemu.system import QemuSystem
from snapcheck.model.history import Abilities, Result
from snapcheck.model.operations import DelVm, LoadVm, Operation, SaveVm


class QemuDaemon(QemuSystem):
    """Devices in a qemu-storage-daemon."""

    program = DAEMON

    def operations(self) -> dict[type[Operation], Callable[[Any], Result]]:
        """Return what is performed, and how: nothing that needs a machine."""
        machine = {SaveVm, LoadVm, DelVm}
        return {kind: perform for kind, perform in super().operations().items() if kind not in machine}

    @property
    def abilities(self) -> Abilities:
        """What can be seen of it; there is no VM state."""
        return replace(super().abilities, vmstate_bytes=0)
