"""The devices of a history in QEMU: their block nodes, and an export of each, through which a guest has it open.

Walks visit what has a BlockBackend in the order in which those were made (SPEC A.10), and an export is one. So the
exports are made in the order of the devices, and when one is made anew those behind it are too.
"""

from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final, cast

from snapcheck.impl.adapters.qemu.disks import ROOM_BYTES, DiskServer
from snapcheck.impl.adapters.qemu.guest import Guest
from snapcheck.impl.adapters.qemu.monitor import Asked, Json, RefusedError
from snapcheck.impl.adapters.qemu.nbd import Command
from snapcheck.impl.adapters.qemu.pump import Pump
from snapcheck.impl.blockfile import BlockError, BlockFile
from snapcheck.impl.qcow2.image import Image
from snapcheck.model.content import SECTOR
from snapcheck.model.errno import Errno
from snapcheck.model.setup import DeviceSpec, Kind

UNLIMITED: Final = "unlimited"  # a throttle group that lets everything pass
_SMALL_CLUSTERS: Final = 512
_BELOW: Final = frozenset({"file", "image"})  # what a node calls the one below it


def _over(spec: DeviceSpec) -> str | None:
    """Return the driver of the node over the image: of the filters, blkdebug (without rules) over small clusters."""
    if spec.kind is Kind.FILTER_OVER:
        return "blkdebug" if spec.cluster_bytes == _SMALL_CLUSTERS else "throttle"
    return "raw" if spec.kind is Kind.RAW_OVER else None


def node_of(name: str) -> str:
    """Return QEMU's name for a node of the harness: a slash can not be in one."""
    return name.replace("/", ".")


@dataclass(slots=True)
class Device:
    """One device: its disk, and how it is open. It is `present` while it has a medium, or `away` for a while.

    `dead`: it has a medium, but its driver is closed (W-26), and it stays so until somebody opens it again.
    `held`: why QEMU did not close it when it was to; in the next QEMU it is as it is described here.
    `sizes_vary`: going back to a snapshot may give it another size. `bitmaps` are those of its nodes: node and name.
    """

    spec: DeviceSpec
    disk: BlockFile
    read_only: bool
    present: bool = False
    dead: bool = False
    held: str = ""
    exported: bool = False
    away: bool = False
    sizes_vary: bool = False
    bitmaps: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])
    guest: Guest | None = None

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def is_open(self) -> bool:
        return self.present and not self.dead


def _image_node(device: Device) -> str:
    """Return the name of the node that has the image: the device itself, or what lies below it."""
    return f"{device.name}/file" if _over(device.spec) else device.name


class Devices:
    """Opens, closes and exports devices, by name in the order of the setup."""

    def __init__(self, pump: Pump, monitor: Asked, disks: DiskServer, address: str) -> None:
        self._pump = pump
        self._monitor = monitor
        self._disks = disks
        self._address = address
        self.by_name: dict[str, Device] = {}

    def add(self, device: Device) -> None:
        """Take a device into the group and open it; `RefusedError` when QEMU can not."""
        self.by_name[device.name] = device
        device.sizes_vary = _sizes_vary(device)
        if device.spec.kind is not Kind.EMPTY:
            self.open(device)

    def adopt(self, device: Device) -> None:
        """Take in a device of a QEMU that is gone, as it was there; it is closed when it can not be opened."""
        self.by_name[device.name] = device
        present, bitmaps = device.present, sorted(device.bitmaps)
        device.present = device.exported = device.dead = False
        device.guest, device.held = None, ""
        if present:
            with suppress(RefusedError):
                self.open(device)
                self.track(device, bitmaps)

    def track(self, device: Device, bitmaps: Iterable[tuple[str, str]]) -> None:
        """Give an open device dirty bitmaps: node and name."""
        for node, name in bitmaps:
            self._monitor.execute("block-dirty-bitmap-add", {"node": node_of(node), "name": name})
            device.bitmaps.add((node, name))

    # --- opening and closing ----------------------------------------------------------------------
    def open(self, device: Device) -> None:
        """Open a device that is closed; `RefusedError` when QEMU can not."""
        size = device.disk.size() if device.spec.kind is Kind.PLAIN else ROOM_BYTES
        self._disks.offer(device.name, device.disk, size=size)
        self._monitor.execute("blockdev-add", self.nodes(device))
        device.present, device.dead = True, False
        device.bitmaps.clear()
        self.export_from(device)

    def close(self, device: Device) -> None:
        """Close a device that is open. Errors of its last writes are not told, nor are they by QEMU."""
        self._let_go(device)
        device.present = device.dead = False

    def close_or_hold(self, device: Device) -> None:
        """Close a device; of one that QEMU does not let go, write what a close writes, and note why it is `held`."""
        try:
            self.close(device)
        except RefusedError as error:
            device.held = str(error)
            self._flush(device)
            self._withdraw([device])
            device.present = False
            device.bitmaps.clear()

    def bury(self, device: Device) -> None:
        """Have QEMU forget a device whose driver is closed: as long as it is there, QEMU shows no device at all."""
        self._let_go(device)
        device.dead = True

    def _let_go(self, device: Device) -> None:
        self._withdraw([device])
        if not device.is_open:
            return
        self._monitor.execute("blockdev-del", {"node-name": device.name})
        image = node_of(_image_node(device))
        if image != device.name and self._stays(image):
            nodes = {key: image if key in _BELOW else value for key, value in self.nodes(device).items()}
            self._monitor.execute("blockdev-add", nodes)
            raise RefusedError(f"Node '{image}' is in use, also without the node over it")

    def _stays(self, node: str) -> bool:
        """Tell whether a node is there. As long as a driver is closed QEMU shows none, and nobody knows."""
        with suppress(RefusedError):
            return node in self._left()
        return False

    def _left(self) -> set[str]:
        nodes = cast("list[Json]", self._monitor.execute("query-named-block-nodes", {"flat": True}))
        return {node["node-name"] for node in nodes}

    def reopen(self, device: Device, *, read_only: bool) -> None:
        """Close a device and open it in that mode; `RefusedError` when it can not be opened: then it stays closed."""
        self.close_or_hold(device)
        device.read_only = read_only
        self.open_unless_held(device)

    def open_unless_held(self, device: Device) -> None:
        """Open a device that is closed; one that is held is opened in the next QEMU."""
        if device.held:
            device.present = True
        else:
            self.open(device)

    def remove_all(self) -> None:
        """Take all devices away; `RefusedError` when QEMU does not let one go."""
        self._withdraw(self.by_name.values())
        for device in self.by_name.values():
            if device.is_open:
                self._monitor.execute("blockdev-del", {"node-name": device.name})
        self.by_name.clear()
        left = self._left()
        if left:
            raise RefusedError(f"nodes that nobody has any more are left: {', '.join(sorted(left))}")

    def flush_all(self) -> None:
        """Have a guest of each device flush it, as far as that goes."""
        for device in self.by_name.values():
            if not device.held:
                self._flush(device)

    def _flush(self, device: Device) -> None:
        if not device.is_open or device.read_only:
            return
        if device.guest is None:
            self.export_from(device)
        with suppress(BlockError):
            if device.guest is not None:
                device.guest.request(Command.FLUSH)

    # --- exports ----------------------------------------------------------------------------------
    def guest_of(self, device: Device, size: int) -> Guest:
        """Return a guest who has a present device open, and knows its size; `BlockError` when nobody can have it."""
        if device.guest is None or device.guest.size != size:
            self.export_from(device)
        if device.guest is None:
            raise BlockError(Errno.ENOMEDIUM, "its driver is closed")
        return device.guest

    def export_from(self, first: Device) -> None:
        """Make the exports of a device and of all behind it anew, so that their order is that of the devices."""
        place = [*self.by_name].index(first.name)
        behind = [device for device in [*self.by_name.values()][place:] if device.is_open]
        self._withdraw(behind)
        for device in behind:
            with suppress(RefusedError):  # there is no medium in one that a failed goto has left closed (W-26)
                self._export(device)

    @contextmanager
    def resizable(self) -> Generator[None]:
        """Have no guest on any device meanwhile: QEMU's NBD server does not let a device be resized.

        Another kind of export, to which nobody connects, keeps each device in its place in the walks.
        """
        present = [device for device in self.by_name.values() if device.is_open]
        for device in present:
            address = {"type": "unix", "path": f"{self._address}-{device.name}", "abstract": True}
            kind = {"type": "vhost-user-blk", "node-name": device.name, "writable": not device.read_only}
            self._monitor.execute("block-export-add", {**kind, "id": _place_of(device), "addr": address})
        self._withdraw(present)
        try:
            yield
        finally:
            for device in present:
                with suppress(RefusedError):  # an image that is found corrupt meanwhile has no medium any more
                    self._export(device)
            for device in present:
                self._delete_export(_place_of(device))

    def _withdraw(self, devices: Iterable[Device]) -> None:
        for device in devices:
            if device.guest is not None:
                device.guest.close()
                device.guest = None
            if device.exported:
                self._delete_export(device.name)
                device.exported = False

    def _delete_export(self, export: str) -> None:
        self._monitor.execute("block-export-del", {"id": export, "mode": "hard"})
        self._monitor.await_event(lambda event: _is_deleted(event, export), "an export's end")

    def _export(self, device: Device) -> None:
        self._monitor.execute(
            "block-export-add",
            {
                "type": "nbd", "id": device.name, "node-name": device.name, "name": device.name,
                "writable": not device.read_only,
            },
        )  # fmt: skip
        device.exported = True
        device.guest = Guest(self._pump, self._address, device.name)

    # --- nodes ------------------------------------------------------------------------------------
    def served(self, disk: str) -> Json:
        """Return the node of a disk that the harness serves."""
        server = {"type": "unix", "path": self._disks.address, "abstract": True}
        return {"driver": "nbd", "server": server, "export": disk}

    def nodes(self, device: Device) -> Json:
        """Return what `blockdev-add` takes for a device."""
        protocol = {**self.served(device.name), "discard": "unmap"}
        over = _over(device.spec)
        driver = "raw" if device.spec.kind is Kind.PLAIN else "qcow2"
        name = _image_node(device)
        node: dict[str, Any] = {"driver": driver, "node-name": node_of(name), "file": protocol}
        if over:
            node = {"driver": over, "node-name": device.name, "image" if over == "blkdebug" else "file": node}
        if over == "throttle":
            node["throttle-group"] = UNLIMITED
        return _with_options(node, read_only=device.read_only)


def _with_options(node: dict[str, Any], *, read_only: bool) -> Json:
    """Return `node` and the nodes below it, in one mode, with discards passed down."""
    below = {key: _with_options(each, read_only=read_only) for key, each in node.items() if key in _BELOW}
    return {**node, **below, "read-only": read_only, "discard": "unmap"}


def _sizes_vary(device: Device) -> bool:
    """Tell whether the image has a snapshot of another size than its own."""
    if device.spec.kind in {Kind.EMPTY, Kind.PLAIN}:
        return False
    with Image.open(device.disk.clone(), read_only=True) as image:
        return any(snapshot.disk_size != image.size_bytes for snapshot in image.snapshots)


def _place_of(device: Device) -> str:
    return f"{device.name}-place"


def _is_deleted(event: Json, name: str) -> bool:
    return bool(event["event"] == "BLOCK_EXPORT_DELETED" and event["data"]["id"] == name)


def sectors_in(size: int) -> int:
    """Return how many sectors `size` bytes touch."""
    return -(-size // SECTOR)
