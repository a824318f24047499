"""The group functions bdrv_all_* (SPEC A.10, A.11): one call for each device of a walk, until the first that fails.

A device's AioContext is held exactly around its own call, and is given back on every path, before anything is decided.
`ClassicGroup` has the functions of 4.2 to 5.2, which write `first_bad_bs`; `ModernGroup` those of 6.0 and later, which
take a list of devices and name the bad one in the error text.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple, final

from snapcheck.impl.checked import Failure
from snapcheck.impl.driver import Out
from snapcheck.impl.generic import Node
from snapcheck.model.errno import Errno
from snapcheck.model.snapshot import SnapshotInfo

OWNER: Final = "main"  # the thread that group operations and callers run in
Bad = Out[str | None]  # first_bad_bs: the name of the node, None for NULL
Walk = Callable[[Node], Failure | None]
_NO_SNAPSHOTS: Final = Failure(Errno.ENOTSUP, "the device can not take snapshots")


@final
class Refusal(NamedTuple):
    """Why a group operation failed: errno, error text, and the device that the text names."""

    errno: Errno
    message: str
    device: str | None = None


def is_included(node: Node) -> bool:
    """Tell whether a walk visits this node by itself: a root node that is inserted and writable (A.10)."""
    return node.inserted and not node.read_only


def delete_by_name(node: Node, name: str) -> Failure | None:
    """Delete the first snapshot of that name. A find that fails, for whatever reason, skips the device (A.10.2)."""
    sn = Out(SnapshotInfo())
    if node.snapshot_find(sn, name) is not None:
        return None
    return node.snapshot_delete(sn.value.id_str, sn.value.name)


def create_from(sn: Out[SnapshotInfo], node: Node, vm_state_size: int) -> Failure | None:
    """Take a snapshot with the shared `sn`, which every device of the walk changes (A.10.5)."""
    if sn.value.vm_state_size != vm_state_size:
        sn.value = replace(sn.value, vm_state_size=vm_state_size)
    return node.snapshot_create(sn)


class ClassicGroup:
    """The group functions with `first_bad_bs`, over the root nodes in walk order.

    `first_bad_bs` is written on every path: the node that failed, None on complete success.
    """

    __slots__ = ("roots",)

    def __init__(self, roots: Sequence[Node]) -> None:
        self.roots = roots

    def all_can_snapshot(self, first_bad_bs: Bad) -> bool:
        """Tell whether each included device can take snapshots; with no device at all it is true."""
        return self._each(lambda node: None if node.can_snapshot() else _NO_SNAPSHOTS, first_bad_bs) is None

    def all_delete_snapshot(self, name: str, first_bad_bs: Bad) -> Failure | None:
        """Delete the first snapshot of that name on each included device that has one."""
        return self._each(lambda node: delete_by_name(node, name), first_bad_bs)

    def all_goto_snapshot(self, name: str, first_bad_bs: Bad) -> Failure | None:
        """Go back on each included device."""
        return self._each(lambda node: node.snapshot_goto(name), first_bad_bs)

    def all_find_snapshot(self, name: str, first_bad_bs: Bad) -> Failure | None:
        """Succeed if each included device has a snapshot of that name."""
        sn = Out(SnapshotInfo())
        return self._each(lambda node: node.snapshot_find(sn, name), first_bad_bs)

    def all_create_snapshot(
        self, sn: Out[SnapshotInfo], vm_state_bs: str | None, vm_state_size: int, first_bad_bs: Bad
    ) -> Failure | None:
        """Take a snapshot on each included device, and on `vm_state_bs` in any case; that one gets the VM state."""

        def create(node: Node) -> Failure | None:
            return create_from(sn, node, vm_state_size if node.name == vm_state_bs else 0)

        return self._each(create, first_bad_bs, also=vm_state_bs)

    def all_find_vmstate_bs(self) -> Node | None:
        """Return the first included device that can take snapshots."""
        return next((node for node in self._walk() if node.lock.held(OWNER, node.can_snapshot)), None)

    def _walk(self, also: str | None = None) -> Iterator[Node]:
        for node in self.roots:
            if is_included(node) or node.name == also:
                yield node

    def _each(self, call: Walk, first_bad_bs: Bad, *, also: str | None = None) -> Failure | None:
        """Call for each device in turn; stop at the first failure and name its device."""
        for node in self._walk(also):
            failure = node.lock.held(OWNER, call, node)
            if failure is not None:
                first_bad_bs.value = node.name
                return failure
        first_bad_bs.value = None
        return None


class ModernGroup:
    """The group functions with a list of devices, which takes the place of the *included* test when it is given.

    `nodes` are all nodes by name, the root nodes in walk order among them.
    """

    __slots__ = ("nodes", "roots")

    def __init__(self, roots: Sequence[Node], nodes: Mapping[str, Node]) -> None:
        self.roots = roots
        self.nodes = nodes

    def all_can_snapshot(self, devices: Sequence[str] | None) -> Refusal | None:
        """Succeed if each device of the walk can take snapshots."""

        def refused(node: Node, _: Failure) -> Refusal:
            return Refusal(Errno.ENOTSUP, f"Device '{node.name}' is writable but does not support snapshots", node.name)

        return self._each(devices, lambda node: None if node.can_snapshot() else _NO_SNAPSHOTS, refused)

    def all_delete_snapshot(self, name: str, devices: Sequence[str] | None) -> Refusal | None:
        """Delete the first snapshot of that name on each device that has one."""

        def refused(node: Node, failure: Failure) -> Refusal:
            return _lost(f"Could not delete snapshot '{name}' on '{node.name}': {failure.message}", node)

        return self._each(devices, lambda node: delete_by_name(node, name), refused)

    def all_goto_snapshot(self, name: str, devices: Sequence[str] | None) -> Refusal | None:
        """Go back on each device."""

        def refused(node: Node, failure: Failure) -> Refusal:
            return _lost(f"Could not load snapshot '{name}' on '{node.name}': {failure.message}", node)

        return self._each(devices, lambda node: node.snapshot_goto(name), refused)

    def all_create_snapshot(
        self, sn: Out[SnapshotInfo], vm_state_bs: str | None, vm_state_size: int, devices: Sequence[str] | None
    ) -> Refusal | None:
        """Take a snapshot on each device, and on `vm_state_bs` if the walk comes by; that one gets the VM state."""
        name = sn.value.name

        def create(node: Node) -> Failure | None:
            return create_from(sn, node, vm_state_size if node.name == vm_state_bs else 0)

        def refused(node: Node, _: Failure) -> Refusal:
            return _lost(f"Could not create snapshot '{name}' on '{node.name}'", node)

        return self._each(devices, create, refused, also=vm_state_bs)

    def all_has_snapshot(self, name: str, devices: Sequence[str] | None) -> bool | Refusal:
        """Tell whether each device has a snapshot of that name."""
        walk = self._walk(devices)
        if isinstance(walk, Refusal):
            return walk
        sn = Out(SnapshotInfo())
        return all(node.lock.held(OWNER, node.snapshot_find, sn, name) is None for node in walk)

    def all_find_vmstate_bs(self, vmstate: str | None, devices: Sequence[str] | None) -> Node | Refusal:
        """Return the first device that can take snapshots, or the one named `vmstate` if that can."""
        # The one that is asked for is looked for among all nodes of the walk, included or not.
        walk = self.roots if devices is None else self._walk(devices)
        if isinstance(walk, Refusal):
            return walk
        for node in walk:
            found = (devices is not None or is_included(node)) and node.lock.held(OWNER, node.can_snapshot)
            if vmstate is None and found:
                return node
            if vmstate == node.name:
                return node if found else _unable(node)
        if vmstate is None:
            return Refusal(Errno.ENOTSUP, "no block device can store vmstate for snapshot")
        return Refusal(Errno.ENOTSUP, f"vmstate block device '{vmstate}' does not exist")

    def _walk(self, devices: Sequence[str] | None, also: str | None = None) -> Iterator[Node] | Refusal:
        if devices is None:
            return (node for node in self.roots if is_included(node) or node.name == also)
        if not devices:
            return Refusal(Errno.EPERM, "At least one device is required for snapshot")
        unknown = next((name for name in devices if name not in self.nodes), None)
        if unknown is not None:
            return Refusal(Errno.EPERM, f"No block device node '{unknown}'")
        return (self.nodes[name] for name in devices)

    def _each(
        self, devices: Sequence[str] | None, call: Walk, refused: Callable[[Node, Failure], Refusal], *,
        also: str | None = None,
    ) -> Refusal | None:  # fmt: skip
        """Call for each device in turn; stop at the first failure and say so in words that name its device."""
        walk = self._walk(devices, also)
        if isinstance(walk, Refusal):
            return walk
        for node in walk:
            failure = node.lock.held(OWNER, call, node)
            if failure is not None:
                return refused(node, failure)
        return None


def _lost(message: str, node: Node) -> Refusal:
    """Return a refusal of 6.0 and later: these functions return -1, whatever the errno was."""
    return Refusal(Errno.EPERM, message, node.name)


def _unable(node: Node) -> Refusal:
    return Refusal(Errno.ENOTSUP, f"vmstate block device '{node.name}' does not support snapshots", node.name)
