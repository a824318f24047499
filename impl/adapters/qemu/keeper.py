"""The QEMU processes of this process: started when they are needed, used again by the next system, ended at exit."""

import atexit
from collections import defaultdict
from typing import Final

from snapcheck.impl.adapters.qemu.devices import Device, Devices
from snapcheck.impl.adapters.qemu.looking import Clock
from snapcheck.impl.adapters.qemu.process import MACHINE, QemuProcess
from snapcheck.impl.adapters.qemu.saved import SavedMachine
from snapcheck.impl.checked import StartError
from snapcheck.impl.driver import Capabilities
from snapcheck.impl.observe import contents_of
from snapcheck.impl.qcow2.driver import open_driver
from snapcheck.impl.qcow2.image import Image
from snapcheck.impl.qcow2.prepare import prepared_image
from snapcheck.model.setup import DeviceSpec


class Keeper:
    """Lends processes, and keeps what is asked of a program once.

    lent           the processes that are lent now
    started        how many were started
    clock          when snapshots were taken: images outlive the systems that took them
    saved          the machine that a program saves
    """

    def __init__(self) -> None:
        self.clock = Clock()
        self.started = 0
        self.saved: dict[str, SavedMachine] = {}
        self._free: defaultdict[str, list[QemuProcess]] = defaultdict(list)
        self.lent: list[QemuProcess] = []

    def lend(self, program: str) -> QemuProcess:
        """Return a running process without devices; raises `StartError` when there can be none."""
        process = self._free[program].pop() if self._free[program] else None
        if process is None or not process.alive:
            process = self._started(program)
        self.lent.append(process)
        return process

    def _started(self, program: str) -> QemuProcess:
        process = QemuProcess(program)
        self.started += 1
        if program == MACHINE and program not in self.saved:
            self.saved[program] = _saved(process)
        return process

    def give_back(self, process: QemuProcess) -> None:
        """Take back a process from which all devices are gone."""
        self.lent.remove(process)
        self._free[process.program].append(process)

    def end(self, process: QemuProcess) -> None:
        """Take back a process and end it; one that was ended before is left alone."""
        if process in self.lent:
            self.lent.remove(process)
            process.close()

    def end_all(self) -> None:
        """End all processes."""
        for process in [*self.lent, *(each for free in self._free.values() for each in free)]:
            process.close()
        self.lent.clear()
        self._free.clear()


def _saved(process: QemuProcess) -> SavedMachine:
    """Return the machine that `process` saves, by saving it once."""
    spec = DeviceSpec("measured")
    disk = prepared_image(spec)
    devices = Devices(process.pump, process.monitor, process.disks, process.address)
    devices.add(Device(spec, disk, read_only=False))
    text = process.monitor.say("savevm measured")
    devices.remove_all()
    with Image.open(disk, read_only=True) as image:
        listed = image.snapshot_list()
        held = contents_of(disk, listed, open_driver, Capabilities()) if listed else None
    raw = held[0].vmstate if held and held[0] is not None else None
    if not raw:
        raise StartError(f"{process.program} can not save a machine: {text or 'no state is there afterwards'}")
    return SavedMachine(raw)


KEEPER: Final = Keeper()
atexit.register(KEEPER.end_all)
