"""Resizing: the virtual size, the L1 table and what is mapped behind the end change together."""

from contextlib import suppress
from dataclasses import replace

from snapcheck.impl.blockfile import BlockError
from snapcheck.impl.qcow2 import guest
from snapcheck.impl.qcow2.host import padded
from snapcheck.impl.qcow2.layout import L1_ENTRIES_MAX, RESIZE_FIELDS, ceil_div
from snapcheck.impl.qcow2.state import State
from snapcheck.model.errno import Errno


def resize(state: State, size: int) -> None:
    """Make `size` bytes the virtual size. What is new reads as zeroes; active VM state is dropped.

    The VM state begins where the guest's part ends (SPEC B.9), so it would become guest data, or guest data VM state.
    """
    header, span = state.header, state.header.l2_span
    if size < 0 or size % 512:
        raise BlockError(Errno.EINVAL, f"the size must be a multiple of 512 bytes, {size} is not")
    entries = ceil_div(size, span)
    if entries > L1_ENTRIES_MAX:
        raise BlockError(Errno.EFBIG, f"{size} bytes need an L1 table of more than {L1_ENTRIES_MAX} entries")
    if size == header.size:
        return
    state.settle()
    if size > header.size:  # nothing behind the end may come to light; nobody can see that it goes
        guest.zero(state, header.size, header.vm_state_index * span)
    _switch(state, size, kept=min(entries, header.vm_state_index), entries=entries)
    if size < header.size:
        with suppress(BlockError):  # it is out of sight, and growing would clear it
            guest.unmap(state, size, entries * span)


def _switch(state: State, size: int, *, kept: int, entries: int) -> None:
    """Change the size, and in the same header write drop all L1 entries from `kept` on."""
    l1 = state.tables.l1
    if entries <= len(l1) and not any(l1[kept:]):
        state.publish(replace(state.header, size=size), RESIZE_FIELDS)
        return
    dropped = state.tables.gather(l1[kept:])
    state.move_l1(padded(l1[:kept], entries), size=size, dropped=dropped.clusters)
