"""Snapshots: create, goto, delete, list, load_tmp (SPEC B.2 to B.6), each with one header write as its commit point.

Safe order everywhere: raise refcounts and write what is new, flush, publish, flush, lower refcounts. Before the commit
a failure is undone; after it the operation has succeeded, and what could not be cleaned up stays owed.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from snapcheck.impl.blockfile import BlockError
from snapcheck.impl.qcow2.host import Words, decoded, padded
from snapcheck.impl.qcow2.layout import (
    L1_ENTRIES_MAX,
    RESIZE_AND_SNAPSHOT_FIELDS,
    RESIZE_FIELDS,
    SNAPSHOT_FIELDS,
    SNAPSHOTS_MAX,
    Header,
    SnapshotEntry,
    ceil_div,
    next_id,
)
from snapcheck.impl.qcow2.state import SnapshotTable, State
from snapcheck.impl.qcow2.tables import Tree, without_copied
from snapcheck.model.errno import Errno
from snapcheck.model.snapshot import NAME_BYTES_MAX, SnapshotInfo, as_listed, cut_text


# --- looking up -----------------------------------------------------------------------------------
def find_by_id_or_name(state: State, text: str) -> SnapshotEntry:
    """Return the first entry with that id; if there is none, with that name (SPEC B.3 step 2)."""
    entries = state.snapshot_table.entries
    by_id = next((entry for entry in entries if entry.info.id_str == text), None)
    found = by_id or next((entry for entry in entries if entry.info.name == text), None)
    if found is None:
        raise BlockError(Errno.ENOENT, f"no snapshot has the id or name {text!r}")
    return found


def find(state: State, snapshot_id: str | None, name: str | None) -> int:
    """Return the index of the first entry that matches what is given, both id and name if both are (SPEC B.4)."""
    assert snapshot_id is not None or name is not None, "the generic layer refuses this (SPEC A.6)"
    for index, entry in enumerate(state.snapshot_table.entries):
        if snapshot_id in (None, entry.info.id_str) and name in (None, entry.info.name):
            return index
    raise BlockError(Errno.ENOENT, "Can't find the snapshot")


# --- create ---------------------------------------------------------------------------------------
def create(state: State, info: SnapshotInfo, *, chose_id: Callable[[str], None]) -> SnapshotInfo:
    """Take a snapshot; return what was stored. `chose_id` hears the id at once, on failure too (SPEC B.2 step 3)."""
    if len(state.snapshot_table.entries) >= SNAPSHOTS_MAX:
        raise BlockError(Errno.EFBIG, f"the image has {SNAPSHOTS_MAX} snapshots already")
    id_str = next_id(state.snapshot_table.entries)
    chose_id(id_str)
    stored = replace(info, id_str=id_str, name=cut_text(info.name, bytes_max=NAME_BYTES_MAX))
    add(state, stored)
    return stored


def add(state: State, info: SnapshotInfo, *, extra: bytes = b"") -> None:
    """Append a snapshot of the active state to the table, with whatever id `info` has.

    The snapshot takes over the active L1 table, and the active state gets a copy: so nothing that is in use changes
    before the one header write that publishes both. VM state that the snapshot keeps is not in the copy.
    """
    state.settle()
    header, active = state.header, state.tables.l1
    kept = active if not info.vm_state_size else padded(active[: header.vm_state_index], len(active))
    entry = SnapshotEntry(info, header.l1_offset, header.l1_size, header.size, extra)
    entries = [*state.snapshot_table.entries, entry]
    tree = _counted_tree(state, kept)
    l1_clusters, table_clusters, raw, former = _plan(state, kept, entries)
    with state.holding(tree.clusters, l1_clusters, table_clusters, copied_stale=True):
        kept = without_copied(kept)
        offset = state.write_l1(l1_clusters.start, kept) if kept else header.l1_offset
        state.tables.clear_copied(tree.with_copied)
        new = _write_table(state, raw, table_clusters, len(entries))
        new = new._replace(l1_offset=offset)
        state.publish(new, RESIZE_AND_SNAPSHOT_FIELDS, snapshots=SnapshotTable(entries, len(raw)))
    state.adopt_l1(kept)
    state.release(former)


class _Plan(NamedTuple):
    """Where a new L1 table and a new snapshot table go, the latter's bytes, and where it was before."""

    l1_clusters: range
    table_clusters: range
    raw: bytes
    former: range


def _plan(state: State, l1: Words, entries: list[SnapshotEntry]) -> _Plan:
    """Find room for a copy of `l1` and for a table of `entries`; EFBIG when that is too large (SPEC B.6)."""
    raw = state.packed(entries)
    l1_count, table_count = state.clusters_of(len(l1) * 8), state.clusters_of(len(raw))
    first = state.refcounts.find(l1_count + table_count) if l1_count + table_count else 0
    middle = first + l1_count
    return _Plan(range(first, middle), range(middle, middle + table_count), raw, state.snapshot_clusters())


def _write_table(state: State, raw: bytes, clusters: range, count: int) -> Header:
    """Write a snapshot table that nothing refers to yet; return the header that will."""
    offset = clusters.start << state.header.cluster_bits if count else 0
    if count:
        state.host.write(offset, raw, "snapshot-table")
    return state.header._replace(snapshot_count=count, snapshots_offset=offset)


def _counted_tree(state: State, l1: Words) -> Tree:
    """Return what `l1` refers to; EIO when something in it is counted as free, so that nothing is built on it."""
    tree = state.tables.gather(l1)
    state.refcounts.require_counted(tree.clusters)
    return tree


# --- goto -----------------------------------------------------------------------------------------
def goto(state: State, snapshot_id: str) -> None:
    """Make the active state, virtual size and VM state included, what the snapshot holds."""
    entry = find_by_id_or_name(state, snapshot_id)
    if state.header.version == 2 and entry.disk_size != state.header.size:
        raise BlockError(Errno.ENOTSUP, "Can't resize a v2 image which has snapshots")
    l1 = without_copied(state.snapshot_l1(entry))
    needed = ceil_div(entry.disk_size, state.header.l2_span)
    if needed > L1_ENTRIES_MAX:
        raise BlockError(
            Errno.EFBIG, f"the snapshot's disk size of {entry.disk_size} bytes needs too large an L1 table"
        )
    l1 = padded(l1, max(needed, len(l1)))
    state.settle()
    tree, before = _counted_tree(state, l1), state.tables.gather(state.tables.l1)
    count = state.clusters_of(len(l1) * 8)
    first = state.refcounts.find(count) if count else 0
    former = state.l1_clusters()
    with state.holding(tree.clusters, range(first, first + count)):
        offset = state.write_l1(first, l1)
        state.tables.clear_copied(tree.with_copied)  # bits that mattered to nobody, in tables that become active
        new = state.header._replace(size=entry.disk_size, l1_size=len(l1), l1_offset=offset)
        state.publish(new, RESIZE_FIELDS)
    state.adopt_l1(l1)
    state.release(before.clusters, former)


# --- delete ---------------------------------------------------------------------------------------
def delete(state: State, snapshot_id: str | None, name: str | None) -> None:
    """Take the first snapshot that matches out of the table, and free what only it held."""
    index = find(state, snapshot_id, name)
    entries = state.snapshot_table.entries
    entry = entries[index]
    l1 = state.snapshot_l1(entry)
    state.settle()
    tree = _counted_tree(state, l1)
    kept = entries[:index] + entries[index + 1 :]
    _, clusters, raw, former = _plan(state, decoded(b""), kept)
    with state.holding(clusters):
        new = _write_table(state, raw, clusters, len(kept))
        state.publish(new, SNAPSHOT_FIELDS, snapshots=SnapshotTable(kept, len(raw)))
    state.release(tree.clusters, state.range_of(entry.l1_offset, entry.l1_size * 8), former, copied_stale=True)


# --- list and load_tmp ----------------------------------------------------------------------------
def listed(state: State) -> list[SnapshotInfo]:
    """Return the snapshots as the API lists them: ids and names cut to their limits (SPEC B.5)."""
    return [as_listed(entry.info) for entry in state.snapshot_table.entries]


def load_tmp(state: State, snapshot_id: str | None, name: str | None) -> None:
    """Show a snapshot's content under the current virtual size until the image is closed; nothing is written."""
    entry = state.snapshot_table.entries[find(state, snapshot_id, name)]
    state.tables.l1, state.tables.l1_offset = state.snapshot_l1(entry), entry.l1_offset
