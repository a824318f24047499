"""Transactions of blockdev-snapshot-internal-sync (SPEC C.6): several creates, undone when one fails.

Each action is prepared in order; when one fails, those that created something are aborted, the last one first. Every
device whose action got that far stays drained until the end.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from snapcheck.impl.checked import Failure
from snapcheck.impl.driver import Out
from snapcheck.impl.generic import Node
from snapcheck.impl.group import OWNER, Refusal
from snapcheck.model.errno import Errno
from snapcheck.model.operations import SnapshotAction
from snapcheck.model.snapshot import NAME_BYTES_MAX, SnapshotInfo, cut_text


class Action:
    """One snapshot of a transaction. `sn` is the struct that create gets and the abort looks into."""

    __slots__ = ("_created", "_drained", "_name", "_node", "_sn")

    def __init__(self, node: Node, name: str, clocks: SnapshotInfo) -> None:
        self._node = node
        self._name = name
        self._sn = Out(replace(clocks, name=cut_text(name, bytes_max=NAME_BYTES_MAX)))
        self._drained = False
        self._created = False

    def prepare(self) -> Refusal | None:
        """Take the snapshot, or say why not."""
        node = self._node
        if not node.inserted:
            return self._refused(Errno.ENOMEDIUM, f"Device '{node.name}' has no medium")
        node.drains.drained_begin()
        self._drained = True
        return node.lock.held(OWNER, self._create, node)

    def _create(self, node: Node) -> Refusal | None:
        refusal = self._require_able(node) or self._require_new(node)
        if refusal is not None:
            return refusal
        failure = node.snapshot_create(self._sn)
        self._created = failure is None
        text = f"Failed to create snapshot '{self._name}' on device '{node.name}': "
        return failure and self._refused(failure.errno, text + failure.message)

    def _require_able(self, node: Node) -> Refusal | None:
        if node.read_only:
            return self._refused(Errno.EACCES, f"Device '{node.name}' is read only")
        if not node.can_snapshot():
            text = f"Block format '{node.format_name}' used by device '{node.name}' does not support internal snapshots"
            return self._refused(Errno.ENOTSUP, text)
        return None if self._name else self._refused(Errno.EINVAL, f"Name is empty (device '{node.name}')")

    def _require_new(self, node: Node) -> Refusal | None:
        """Refuse a name that is taken; it is searched for in full, and stored cut (W-13)."""
        found = node.snapshot_find_by_id_and_name(None, self._name, Out(SnapshotInfo()))
        if isinstance(found, Failure):
            return self._refused(found.errno, f"{found.message} (device '{node.name}')")
        text = f"Snapshot with name '{self._name}' already exists on device '{node.name}'"
        return self._refused(Errno.EEXIST, text) if found else None

    def _refused(self, errno: Errno, message: str) -> Refusal:
        return Refusal(errno, message, self._node.name)

    def abort(self) -> None:
        """Delete what was created, by the id that create chose; a failure could only be told on stderr."""
        if self._created:
            sn = self._sn.value
            self._node.lock.held(OWNER, self._node.snapshot_delete, sn.id_str, sn.name)

    def clean(self) -> None:
        """End the drained section."""
        if self._drained:
            self._node.drains.drained_end()


def run_transaction(
    nodes: Mapping[str, Node], actions: Sequence[SnapshotAction], clocks: SnapshotInfo, *, kind: type[Action] = Action
) -> Refusal | None:
    """Take all of the snapshots or, when one fails, none; `clocks` holds their date and clock.

    Another `kind` of action is how a bug is planted.
    """
    begun: list[Action] = []
    try:
        for each in actions:
            action = kind(nodes[each.device], each.name, clocks)
            begun.append(action)
            refusal = action.prepare()
            if refusal is not None:
                for done in reversed(begun):
                    done.abort()
                return refusal
        return None
    finally:
        for action in begun:
            action.clean()
