"""Looking at QEMU's devices: what it shows in memory, and what is on the disk when it has let go of it.

The list and size in memory come from the monitor, the content through the guest's connection. What snapshots hold, and
whether the image is sound, our own engine reads from a clone of the disk: QEMU is not asked about its own work.
"""

import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import Final, cast

from snapcheck.impl.adapters.qemu.answers import errno_of
from snapcheck.impl.adapters.qemu.devices import Device, Devices, sectors_in
from snapcheck.impl.adapters.qemu.guest import Guest
from snapcheck.impl.adapters.qemu.monitor import Asked, Json, RefusedError
from snapcheck.impl.adapters.qemu.nbd import Command
from snapcheck.impl.adapters.qemu.saved import SavedMachine
from snapcheck.impl.adapters.qemu.second_opinion import SecondOpinion
from snapcheck.impl.blockfile import BlockError
from snapcheck.impl.driver import Capabilities
from snapcheck.impl.observe import ACTIVE, CONTENT_BYTES_MAX, Tags, contents_of, inspected, nothing_seen
from snapcheck.impl.qcow2.driver import open_driver
from snapcheck.model.errno import Errno
from snapcheck.model.history import Level, Observation, SnapshotContent, View
from snapcheck.model.setup import Kind
from snapcheck.model.snapshot import SnapshotInfo

_CLOSED: Final = re.compile(r"Block device ([^ .]+)\S* is ejected")
_READS: Final = Capabilities()
_ALL_NODES: Final = ("query-named-block-nodes", {"flat": True})


class Clock:
    """When QEMU took snapshots. It dates them itself; one that it took when it was asked to is shown without date."""

    def __init__(self) -> None:
        self._begun: list[int] = []  # in order, as one operation follows the other
        self._ended: list[int] = []

    def took(self, begun_ns: int, ended_ns: int) -> None:
        """Note when an operation was under way that may take snapshots."""
        self._begun.append(begun_ns // 1000 * 1000)  # QEMU's dates are in microseconds
        self._ended.append(ended_ns)

    def undated(self, info: SnapshotInfo) -> SnapshotInfo:
        """Return `info` without date when it was taken by an operation of the harness."""
        if not self._is_ours(info.date_sec * 10**9 + info.date_nsec):
            return info
        # Where there is no machine, its clock is that of the host.
        clock = 0 if self._is_ours(info.vm_clock_nsec) else info.vm_clock_nsec
        return replace(info, date_sec=0, date_nsec=0, vm_clock_nsec=clock)

    def _is_ours(self, instant_ns: int) -> bool:
        last = bisect_right(self._begun, instant_ns) - 1
        return last >= 0 and instant_ns <= self._ended[last]


def with_state(held: SnapshotContent | None, saved: SavedMachine) -> SnapshotContent | None:
    """Return what a snapshot holds, with a state of the machine that was `saved` as the harness shows it."""
    return held if held is None or held.vmstate is None else replace(held, vmstate=saved.shown(held.vmstate))


class HeldError(Exception):
    """QEMU does not let a device go; `memory` is what was seen of it before."""

    def __init__(self, memory: View, why: str) -> None:
        self.memory = memory
        super().__init__(why)


class Looker:
    """Looks at devices. What the monitor shows is asked for once, until `changed` says that it may be another."""

    def __init__(
        self, monitor: Asked, devices: Devices, clock: Clock, second_opinion: SecondOpinion,
        saved: SavedMachine | None,
    ) -> None:  # fmt: skip
        self._second_opinion = second_opinion
        self._saved = saved
        self._monitor = monitor
        self._devices = devices
        self._clock = clock
        self._shown: Mapping[str, Json] | None = None
        self._several = False
        self._read: dict[str, bytes | BlockError] = {}  # what was read ahead
        self._tags: defaultdict[str, Tags] = defaultdict(Tags)

    def changed(self, *, several: bool = False) -> None:
        """Ask again next time; `several` says that more than one device will be looked at."""
        self._shown = None
        self._several = several
        self._read.clear()

    def foresee(self) -> None:
        """Have the monitor show all devices along with its next answer."""
        self._monitor.foresee(*_ALL_NODES)

    def size_of(self, device: Device) -> int | None:
        """Return the size of a present device in bytes; None for a node whose driver is closed."""
        image = self._image(device)
        return None if image is None else cast("int", image["virtual-size"])

    def names_now(self) -> dict[str, list[str]]:
        """Return the names of the snapshots that each node shows; unlike what a look shows, they are not kept."""
        return {
            node["node-name"]: [each["name"] for each in node["image"].get("snapshots", ())] for node in self._nodes()
        }

    def look(self, device: Device, level: Level) -> Observation:
        """Look at `device`; at level full it is closed and opened. `HeldError` when it can not be closed."""
        if not device.present:
            return Observation(device.name, level, nothing_seen(Errno.ENOMEDIUM.name))
        memory = self._view(device, level)
        if level is not Level.FULL:
            return Observation(device.name, level, memory)
        disk = self._reopened(device, memory)
        return self.whole(Observation(device.name, level, memory, disk), device)

    def whole(self, seen: Observation, device: Device) -> Observation:
        """Return what was seen of a device together with what is on its disk: the snapshots' content, and a check."""
        if device.spec.kind is Kind.PLAIN or seen.disk is None:
            return seen
        clone = device.disk.clone()
        listed = seen.disk.snapshots
        contents = None if listed is None else contents_of(clone, listed, open_driver, _READS)
        if contents is not None and self._saved is not None:
            contents = tuple(with_state(held, self._saved) for held in contents)
        return self._second_opinion.on(replace(seen, contents=contents, check=inspected(clone)), clone)

    def _reopened(self, device: Device, memory: View) -> View:
        self.changed()
        try:
            self._devices.close(device)
        except RefusedError as error:
            raise HeldError(memory, str(error)) from error
        return self.opened(device)

    def opened(self, device: Device) -> View:
        """Open a device that is closed, and return what it shows."""
        try:
            self._devices.open(device)
        except RefusedError as error:
            return nothing_seen(errno_of(str(error)).name)
        return self.view(device)

    def view(self, device: Device) -> View:
        """Return everything that `device` shows."""
        return self._view(device, Level.FULL)

    def _view(self, device: Device, level: Level) -> View:
        if self._several and level is not Level.LIST:
            self._read_ahead()
        image = self._image(device)
        if image is None:
            return nothing_seen(Errno.ENOMEDIUM.name)
        listed = None if device.spec.kind is Kind.PLAIN else self._list(image)
        if level is Level.LIST:
            return View(listed)
        size = cast("int", image["virtual-size"])
        errors: list[str] = []
        content = self._content(device, size, errors)
        return View(listed, sectors_in(size), content, tuple(errors))

    def _image(self, device: Device) -> Json | None:
        """Return what the monitor shows of a device's image; None for a node whose driver is closed."""
        if self._shown is None:
            self._shown = {node["node-name"]: node["image"] for node in self._nodes()}
        return self._shown.get(device.name)

    def _nodes(self) -> list[Json]:
        """Return all nodes. QEMU shows none as long as there is one whose driver is closed, so that one has to go."""
        while True:
            try:
                return cast("list[Json]", self._monitor.execute(*_ALL_NODES))
            except RefusedError as error:
                found = _CLOSED.search(str(error))
                device = found and self._devices.by_name.get(found[1])
                if not device or device.dead:
                    raise
                self._devices.bury(device)

    def _list(self, image: Json) -> tuple[SnapshotInfo, ...]:
        return tuple(
            self._clock.undated(
                SnapshotInfo(
                    each["id"], each["name"], each["vm-state-size"], each["date-sec"], each["date-nsec"],
                    each["vm-clock-sec"] * 10**9 + each["vm-clock-nsec"],
                )
            )
            for each in image.get("snapshots", ())
        )  # fmt: skip

    def _content(self, device: Device, size: int, errors: list[str]) -> bytes | None:
        if size > CONTENT_BYTES_MAX:
            errors.append("content: EFBIG")
            return None
        guest, raw = device.guest, self._read.pop(device.name, None)
        try:
            if raw is None or guest is None or guest.size != size:
                raw = self._devices.guest_of(device, size).request(Command.READ, 0, size) if size else b""
            elif isinstance(raw, BlockError):
                raise raw
        except BlockError as error:
            errors.append(f"content: {error.errno.name}")
            return None
        return self._tags[device.name].of(raw, ACTIVE)

    def _read_ahead(self) -> None:
        """Read all devices through the guests that they have, at the same time, instead of waiting for one by one."""
        self._several = False
        asked: list[tuple[str, Guest]] = []
        for device in self._devices.by_name.values():
            guest = device.guest
            if guest is not None and device.is_open and 0 < guest.size <= CONTENT_BYTES_MAX:
                guest.ask(Command.READ, 0, guest.size)
                asked.append((device.name, guest))
        for name, guest in asked:
            try:
                self._read[name] = guest.answer(guest.size)
            except BlockError as error:
                self._read[name] = error
