"""Bugs planted in the engine that only a power cut shows: what is done is right, the order in which it lands is not."""

from itertools import groupby

from snapcheck.impl.qcow2 import snapshots
from snapcheck.impl.qcow2.host import Host, decoded
from snapcheck.impl.qcow2.layout import RESIZE_FIELDS, SNAPSHOT_FIELDS, Header, SnapshotEntry
from snapcheck.impl.qcow2.state import SnapshotTable, State
from snapcheck.impl.qcow2.tables import without_copied
from snapcheck.stateful_tests.seeded_bugs.planting import Insider, in_engine


def _found(state: State, snapshot_id: str | None, name: str | None) -> SnapshotEntry:
    return state.snapshot_table.entries[snapshots.find(state, snapshot_id, name)]


def _held(state: State, entry: SnapshotEntry) -> list[int]:
    """Return the clusters that a snapshot refers to, in ascending order."""
    return sorted(state.tables.gather(state.snapshot_l1(entry)).clusters.tolist())


# --- delete ---------------------------------------------------------------------------------------
class _LowersFirst(Insider):
    """Delete lowers the counts, and then takes the entry out of the table."""

    __slots__ = ()

    def snapshot_delete(self, snapshot_id: str | None, name: str | None) -> None:
        state = self._state
        entry = _found(state, snapshot_id, name)
        state.release(_held(state, entry), state.range_of(entry.l1_offset, entry.l1_size * 8))
        _take_out(state, entry)


def _take_out(state: State, entry: SnapshotEntry) -> None:
    """Write the table without an entry, and free nothing that the snapshot held."""
    kept = [each for each in state.snapshot_table.entries if each is not entry]
    plan = snapshots._plan(state, decoded(b""), kept)  # pyright: ignore[reportPrivateUsage]  # as delete does it
    with state.holding(plan.table_clusters):
        write_table = snapshots._write_table  # pyright: ignore[reportPrivateUsage]  # as delete does it
        new = write_table(state, plan.raw, plan.table_clusters, len(kept))
        state.publish(new, SNAPSHOT_FIELDS, snapshots=SnapshotTable(kept, len(plan.raw)))
    state.release(plan.former, copied_stale=True)


class _DiscardsFirst(Insider):
    """Delete tells the disk that clusters hold nothing while the snapshot is still in the table."""

    __slots__ = ()

    def snapshot_delete(self, snapshot_id: str | None, name: str | None) -> None:
        state, size = self._state, self._state.header.cluster_bytes
        alone = [c for c in _held(state, _found(state, snapshot_id, name)) if state.refcounts.get(c) == 1]
        for _, run in groupby(enumerate(alone), key=lambda each: each[1] - each[0]):
            clusters = [cluster for _, cluster in run]
            state.host.file.discard(clusters[0] * size, len(clusters) * size, region="data")
        super().snapshot_delete(snapshot_id, name)


# --- goto -----------------------------------------------------------------------------------------
class _DropsTheOldFirst(Insider):
    """Goto lowers the counts of the old tree before those of the new one are raised."""

    __slots__ = ()

    def snapshot_goto(self, snapshot_id: str) -> None:
        state = self._state
        entry = snapshots.find_by_id_or_name(state, snapshot_id)
        l1, former = without_copied(state.snapshot_l1(entry)), state.l1_clusters()
        state.release(state.tables.gather(state.tables.l1).clusters)
        tree, count = state.tables.gather(l1), state.clusters_of(len(l1) * 8)
        first = state.refcounts.find(count) if count else 0
        with state.holding(tree.clusters, range(first, first + count)):
            offset = state.write_l1(first, l1)
            state.tables.clear_copied(tree.with_copied)
            new = state.header._replace(size=entry.disk_size, l1_size=len(l1), l1_offset=offset)
            state.publish(new, RESIZE_FIELDS)
        state.adopt_l1(l1)
        state.release(former)


class _UnflushedHost(Host):
    """A file below an image that is not flushed before the header is written."""

    __slots__ = ()

    def barrier(self) -> None:
        pass


class _FlushesLate(Insider):
    """Goto writes the header without a flush of the counts that it raised, and of the new table."""

    __slots__ = ()

    def snapshot_goto(self, snapshot_id: str) -> None:
        host = self._state.host
        usual, host.__class__ = host.__class__, _UnflushedHost
        try:
            super().snapshot_goto(snapshot_id)
        finally:
            host.__class__ = usual


# --- the header -----------------------------------------------------------------------------------
class _PublishesTwice(State):
    """Writes the number of snapshots into the header, and then where they are."""

    __slots__ = ()

    def publish(self, new: Header, fields: tuple[int, int], *, snapshots: SnapshotTable | None = None) -> None:
        if new.snapshot_count != self.header.snapshot_count:
            super().publish(self.header._replace(snapshot_count=new.snapshot_count), SNAPSHOT_FIELDS)
        super().publish(new, fields, snapshots=snapshots)


lowered_before_delete = in_engine("delete lowers counts before the entry leaves the table", driver=_LowersFirst)
discarded_before_delete = in_engine("delete discards what the table still refers to", driver=_DiscardsFirst)
old_tree_dropped_first = in_engine("goto lets go of the old tree before it holds the new", driver=_DropsTheOldFirst)
counts_not_flushed = in_engine("goto does not flush raised counts before it publishes", driver=_FlushesLate)
header_written_twice = in_engine("the table's count and its place are written apart", state=_PublishesTwice)
