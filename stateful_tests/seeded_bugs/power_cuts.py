"""Bugs planted in the engine that only a power cut shows: what is done is right, the order in which it lands is not."""

from collections.abc import Generator
from contextlib import contextmanager
from itertools import groupby

from snapcheck.impl.blockfile import BlockFile
from snapcheck.impl.driver import CreateOptions
from snapcheck.impl.qcow2 import driver as engine
from snapcheck.impl.qcow2 import snapshots
from snapcheck.impl.qcow2.driver import Qcow2Driver
from snapcheck.impl.qcow2.host import Host, decoded
from snapcheck.impl.qcow2.layout import RESIZE_FIELDS, SNAPSHOT_FIELDS, Header, SnapshotEntry
from snapcheck.impl.qcow2.state import SnapshotTable, State
from snapcheck.impl.qcow2.tables import Tree, without_copied
from snapcheck.impl.targets import Target
from snapcheck.model.faults import REGIONS


class _Insider(Qcow2Driver):
    """A driver that reaches into the engine."""

    __slots__ = ()

    @property
    def state(self) -> State:
        return self._image._state  # pyright: ignore[reportPrivateUsage]  # a seeded bug breaks into the engine

    def entry(self, snapshot_id: str | None, name: str | None) -> SnapshotEntry:
        return self.state.snapshot_table.entries[snapshots.find(self.state, snapshot_id, name)]

    def tree(self, entry: SnapshotEntry) -> Tree:
        """Return what a snapshot refers to."""
        return self.state.tables.gather(snapshots.load_l1(self.state, entry))


def planted(what: str, driver: type[_Insider]) -> Target:
    """Return the engine with another class in front of its images."""

    def open_driver(disk: BlockFile, *, read_only: bool, create: CreateOptions | None) -> Qcow2Driver:
        opened = engine.open_driver(disk, read_only=read_only, create=create)
        return driver(opened._image)  # pyright: ignore[reportPrivateUsage]  # a seeded bug breaks into the engine

    return Target("planted", what, open_driver, regions=REGIONS)


# --- delete ---------------------------------------------------------------------------------------
class _LowersFirst(_Insider):
    """Delete lowers the counts before the entry has left the table (B01, 9a4767809f)."""

    __slots__ = ()

    def snapshot_delete(self, snapshot_id: str | None, name: str | None) -> None:
        state, entry = self.state, self.entry(snapshot_id, name)
        state.release(self.tree(entry).clusters, state.range_of(entry.l1_offset, entry.l1_size * 8))
        self._take_out(entry)

    def _take_out(self, entry: SnapshotEntry) -> None:
        """Write the table without the entry, and free nothing that the snapshot held."""
        state = self.state
        kept = [each for each in state.snapshot_table.entries if each is not entry]
        plan = snapshots._plan(state, decoded(b""), kept)  # pyright: ignore[reportPrivateUsage]  # as above
        with state.holding(plan.table_clusters):
            new = snapshots._write_table(state, plan.raw, plan.table_clusters, len(kept))  # pyright: ignore[reportPrivateUsage]  # as above
            state.publish(new, SNAPSHOT_FIELDS, snapshots=SnapshotTable(kept, len(plan.raw)))
        state.release(plan.former, copied_stale=True)


class _DiscardsFirst(_Insider):
    """Delete tells the disk that clusters hold nothing while the snapshot is still in the table (B15)."""

    __slots__ = ()

    def snapshot_delete(self, snapshot_id: str | None, name: str | None) -> None:
        state, size = self.state, self.state.header.cluster_bytes
        held = sorted(self.tree(self.entry(snapshot_id, name)).clusters.tolist())
        alone = [cluster for cluster in held if state.refcounts.get(cluster) == 1]
        for _, run in groupby(enumerate(alone), key=lambda each: each[1] - each[0]):
            clusters = [cluster for _, cluster in run]
            state.host.file.discard(clusters[0] * size, len(clusters) * size, region="data")
        super().snapshot_delete(snapshot_id, name)


# --- goto -----------------------------------------------------------------------------------------
class _DropsTheOldFirst(_Insider):
    """Goto lowers the counts of the old tree before those of the new one are raised (B02, 43a0cac465)."""

    __slots__ = ()

    def snapshot_goto(self, snapshot_id: str) -> None:
        state = self.state
        entry = snapshots.find_by_id_or_name(state, snapshot_id)
        l1, former = without_copied(snapshots.load_l1(state, entry)), state.l1_clusters()
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


class _FlushesLate(_Insider):
    """Goto does not flush the raised counts before the header points to the new tree (B04, 2154f24e4e)."""

    __slots__ = ()

    def snapshot_goto(self, snapshot_id: str) -> None:
        with self._without_barriers():
            super().snapshot_goto(snapshot_id)

    @contextmanager
    def _without_barriers(self) -> Generator[None]:
        host = self.state.host
        host.__class__ = _UnflushedHost
        try:
            yield
        finally:
            host.__class__ = Host


# --- the header -----------------------------------------------------------------------------------
class _PublishesTwice(State):
    """An open image that writes the number of snapshots into the header, and then where they are."""

    __slots__ = ()

    def publish(self, new: Header, fields: tuple[int, int], *, snapshots: SnapshotTable | None = None) -> None:
        if new.snapshot_count != self.header.snapshot_count:
            counted = self.header._replace(snapshot_count=new.snapshot_count)
            super().publish(counted, SNAPSHOT_FIELDS)
        super().publish(new, fields, snapshots=snapshots)


class _WritesTheHeaderTwice(_Insider):
    """Count and place of the snapshot table go into the header by two writes (B06, d69969c404)."""

    __slots__ = ()

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]  # the image
        self.state.__class__ = _PublishesTwice


lowered_before_delete = planted("delete lowers counts before the entry has left the table", _LowersFirst)
discarded_before_delete = planted("delete discards clusters that the table still refers to", _DiscardsFirst)
old_tree_dropped_first = planted("goto lowers the old tree's counts before it raises the new one's", _DropsTheOldFirst)
counts_not_flushed = planted("goto does not flush raised counts before it publishes", _FlushesLate)
header_written_twice = planted("the snapshot table's count and place are written apart", _WritesTheHeaderTwice)
