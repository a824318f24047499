"""Bugs that nothing had been tuned for, and that the harness did not find until something general changed.

Each stands for what no phase did or no law asked; docs/explanation/finding-power.md says what.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from snapcheck.impl.generic import Node
from snapcheck.impl.group import Refusal
from snapcheck.impl.perform import Parts
from snapcheck.impl.qcow2 import guest, resize
from snapcheck.impl.qcow2.image import Image
from snapcheck.impl.qcow2.layout import SnapshotEntry
from snapcheck.impl.qcow2.state import State
from snapcheck.impl.transaction import Action, run_transaction
from snapcheck.model.operations import SnapshotAction
from snapcheck.model.snapshot import SnapshotInfo
from snapcheck.stateful_tests.seeded_bugs.planting import Insider, in_engine, in_layers


# --- sizes ----------------------------------------------------------------------------------------
class _BaresTheTail(Insider):
    """Zeroes whole clusters when the disk grows: the rest of the one that it ended in still holds what was there."""

    __slots__ = ()

    def resize(self, size_bytes: int) -> None:
        state, size = self._state, self._image.size_bytes
        if size_bytes <= size:
            super().resize(size_bytes)
            return
        super().resize(size)  # changes nothing, and refuses what can not be changed
        resize._require_resizable(state, size_bytes)  # pyright: ignore[reportPrivateUsage]  # as the engine does it
        state.settle()
        begin, end = state.clusters_of(size) * state.header.cluster_bytes, state.header.vm_state_index
        guest.zero(state, begin, max(begin, end * state.header.l2_span))
        resize._switch(state, size_bytes)  # pyright: ignore[reportPrivateUsage]  # as the engine does it


tail_bared = in_engine("growth shows what was behind the end in the last cluster", driver=_BaresTheTail)


# --- VM state -------------------------------------------------------------------------------------
class _WritesTheRestApart(Image):
    """Writes whole clusters first and then the rest: where there is none, `data[:-0]` is nothing at all."""

    __slots__ = ()

    def vmstate_write(self, offset: int, data: bytes) -> None:
        rest = (offset + len(data)) % self._state.header.cluster_bytes
        if len(data) <= rest:
            super().vmstate_write(offset, data)
            return
        super().vmstate_write(offset, data[:-rest])
        super().vmstate_write(offset + len(data) - rest, data[-rest:])


vmstate_at_boundary = in_engine("VM state that ends with a cluster is misplaced", image=_WritesTheRestApart)


# --- the snapshot table ---------------------------------------------------------------------------
class _KnowsAllThereIs(State):
    """Writes of each entry what it knows itself; QEMU did until 4.2 (SPEC B.1)."""

    __slots__ = ()

    def packed(self, entries: Sequence[SnapshotEntry]) -> bytes:
        return super().packed([replace(entry, extra=b"") for entry in entries])


extra_dropped = in_engine("extra data that is not known is dropped", state=_KnowsAllThereIs)


# --- transactions ---------------------------------------------------------------------------------
def _with_one_struct(
    nodes: Mapping[str, Node], actions: Sequence[SnapshotAction], clocks: SnapshotInfo
) -> Refusal | None:
    """Run a transaction that keeps one struct for each device: of two snapshots there, one is forgotten."""
    made: dict[str, SnapshotInfo] = {}

    class Sharing(Action):
        __slots__ = ()

        def _create(self, node: Node) -> Refusal | None:
            refusal = super()._create(node)
            if self._created:
                made[node.name] = self._sn.value
            return refusal

        def abort(self) -> None:
            if self._created:
                self._sn.value = made[self._node.name]
            super().abort()

    return run_transaction(nodes, actions, clocks, kind=Sharing)


class _StaysDrained(Action):
    """Ends the drained section of what it created, and not of what was refused."""

    __slots__ = ()

    def clean(self) -> None:
        if self._created:
            super().clean()


one_struct_each = in_layers(
    "of two snapshots on one device a rollback forgets one", Parts(transaction=_with_one_struct)
)
left_drained = in_layers(
    "an action that is refused leaves its device drained",
    Parts(transaction=partial(run_transaction, kind=_StaysDrained)),
)
