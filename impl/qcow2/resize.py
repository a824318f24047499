"""Resizing: the virtual size, the L1 table and what is mapped behind the end change together."""

import numpy as np
from numpy.typing import NDArray
from snapcheck.impl.blockfile import BlockError
from snapcheck.impl.qcow2 import guest
from snapcheck.impl.qcow2.host import Words, decoded, padded
from snapcheck.impl.qcow2.layout import COPIED, L1_ENTRIES_MAX, OFFSET_MASK, RESIZE_FIELDS, ZERO, ceil_div
from snapcheck.impl.qcow2.refcounts import merged
from snapcheck.impl.qcow2.state import State
from snapcheck.model.errno import Errno


def resize(state: State, size: int) -> None:
    """Make `size` bytes the virtual size. What is new reads as zeroes; active VM state is dropped.

    The VM state begins where the guest's part ends (SPEC B.9), so it would become guest data, or guest data VM state.
    """
    header, span = state.header, state.header.l2_span
    if size < 0 or size % 512:
        raise BlockError(Errno.EINVAL, f"the size must be a multiple of 512 bytes, {size} is not")
    if ceil_div(size, span) > L1_ENTRIES_MAX:
        raise BlockError(Errno.EFBIG, f"{size} bytes need an L1 table of more than {L1_ENTRIES_MAX} entries")
    if size == header.size:
        return
    _require_resizable(state, size)
    state.settle()
    if size > header.size:  # nothing behind the end may come to light; nobody can see that it goes
        guest.zero(state, header.size, header.vm_state_index * span)
    _switch(state, size)


def _require_resizable(state: State, size: int) -> None:
    """Refuse what the format, or this engine, has no way to say."""
    if state.bitmaps:
        raise BlockError(Errno.ENOTSUP, "an image with persistent bitmaps can not be resized; remove them first")
    if state.header.version == 2 and state.snapshot_table.entries:
        raise BlockError(Errno.ENOTSUP, "Can't resize a v2 image which has snapshots")
    behind = state.header.vm_state_index * state.header.l2_span
    if state.header.version == 2 and min(size, state.backing_bytes) > behind:
        raise BlockError(Errno.ENOTSUP, "a version 2 image can not grow where its backing file would come to light")


def _switch(state: State, size: int) -> None:
    """Change the size, and in the same header write drop everything that is mapped behind it."""
    l1, tables = state.tables.l1, state.tables
    entries = ceil_div(size, state.header.l2_span)
    kept = min(entries, state.header.vm_state_index)
    if min(entries * state.header.l2_span, state.backing_bytes) > kept * state.header.l2_span:
        _switch_hiding_backing(state, size, kept)
        return
    index, slot = divmod(state.clusters_of(size), tables.l2_entries)
    table = tables.active_l2(index) if slot and index < kept else None
    if table is not None and any(table[slot:]):
        _switch_shortened(state, size, table, slot)
    elif entries <= len(l1) and not any(l1[kept:]):
        state.publish(state.header._replace(size=size), RESIZE_FIELDS)
    else:
        state.move_l1(padded(l1[:kept], entries), size=size, dropped=_counted(state, l1[kept:]))


def _switch_hiding_backing(state: State, size: int, kept: int) -> None:
    """Change the size to one with more L1 entries than the `kept` ones, where the backing file would come to light.

    Each new entry as far as that goes gets a table that says zeroes.
    """
    l1, span, bits = state.tables.l1, state.header.l2_span, state.header.cluster_bits
    backed = ceil_div(min(size, state.backing_bytes), span)
    dropped = _counted(state, l1[kept:])
    spare = state.take(backed - kept)
    try:
        for cluster in spare:
            state.tables.write_l2(cluster << bits, decoded(ZERO.to_bytes(8, "big") * state.tables.l2_entries))
        hidden = decoded(b"".join((cluster << bits | COPIED).to_bytes(8, "big") for cluster in spare))
        state.move_l1(padded(l1[:kept] + hidden, ceil_div(size, span)), size=size, dropped=dropped)
    except BlockError:
        state.release(spare)
        raise


def _switch_shortened(state: State, size: int, table: Words, slot: int) -> None:
    """Change the size to one that ends within what the L2 table `table` maps, in front of its entry `slot`."""
    tables, bits = state.tables, state.header.cluster_bits
    entries = ceil_div(size, state.header.l2_span)
    former = tables.l1[entries - 1] & OFFSET_MASK
    for entry in table[slot:]:
        tables.require_entry(entry)
    lost = [former >> bits, *(cluster for entry in table[slot:] for cluster in tables.clusters_of(entry))]
    dropped = merged((_counted(state, tables.l1[entries:]), lost))
    state.refcounts.require_counted(lost)
    short = padded(tables.own_copy(table, state.refcounts.get(lost[0]))[:slot], len(table))
    spare = state.take(1)
    try:
        tables.write_l2(spare[0] << bits, short)
        l1 = tables.l1[:entries]
        l1[entries - 1] = spare[0] << bits | COPIED
        state.move_l1(l1, size=size, dropped=dropped)
    except BlockError:
        state.release(spare)
        raise


def _counted(state: State, l1: Words) -> NDArray[np.int64]:
    """Return what `l1` refers to; EIO when something in it is counted as free."""
    clusters = state.tables.gather(l1).clusters
    state.refcounts.require_counted(clusters)
    return clusters
