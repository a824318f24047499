"""What opening a crash state reads: all states in which that is the same open alike.

Opening looks at the header, the snapshot table, the refcount table and the L1 tables. It is done once, by the engine
itself, on one state; what was read is noted, and every other state that has the same there needs no opening.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from snapcheck.fault_injection.crash.columns import Rows
from snapcheck.fault_injection.crash.overlay import NeedsPlainError, Overlay, Places, Read
from snapcheck.impl.blockfile import BlockError
from snapcheck.impl.qcow2.host import Words
from snapcheck.impl.qcow2.layout import DIRTY, ImageError, SnapshotEntry
from snapcheck.impl.qcow2.state import State, read_front

Numbers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Front:
    """States that open alike.

    states  their numbers
    error   why they do not open, "" where they do
    state   the open image of the first one; None where it does not open, or where only the plain judge can take it
    l1_tables  the active L1 table, and behind it those of the snapshots; None where one can not be
    """

    states: Numbers
    error: str = ""
    state: State | None = None
    l1_tables: "Sequence[Words | None]" = ()


def fronts_of(places: Places, rows: Rows) -> Iterator[Front]:
    """Yield all states, those that open alike together."""
    left: Numbers = np.arange(len(rows), dtype=np.int64)
    while len(left):
        view = Overlay(places, rows[left[0]])
        front = _opened(view)
        columns = [*_columns_read(view.reads, places, front.state), places.columns.width - 1]
        alike = (rows[left][:, columns] == rows[left[0], columns]).all(axis=1)
        yield Front(left[alike], front.error, front.state, front.l1_tables)
        left = left[~alike]


def _opened(view: Overlay) -> Front:
    nobody: Numbers = np.zeros(0, dtype=np.int64)
    try:
        front = read_front(view)
        if front.header.incompatible & DIRTY:
            return Front(nobody)
        state = State(view, read_only=False, front=front)
    except (ImageError, BlockError) as error:
        return Front(nobody, error=str(error))
    except NeedsPlainError:
        return Front(nobody)
    if state.bitmaps or state.header.extended_l2:
        return Front(nobody)
    others = [_l1_of(state, entry) for entry in state.snapshot_table.entries]
    return Front(nobody, state=state, l1_tables=(state.tables.l1, *others))


def _l1_of(state: State, entry: SnapshotEntry) -> "Words | None":
    try:
        return state.snapshot_l1(entry)
    except BlockError:
        return None


def _columns_read(reads: Sequence[Read], places: Places, state: State | None) -> list[int]:
    """Return the columns that opening depends on: those that were read, without what was read in vain.

    The engine reads more than it needs where it does not know how long something is: behind the header, and behind
    the snapshot table.
    """
    columns: dict[int, None] = {}
    for region, offset, length in reads:
        used = length
        if state is not None and region == "header" and offset == 0:
            used = min(length, state.header.cluster_bytes)
        elif state is not None and region == "snapshot-table":
            used = min(length, state.snapshot_table.length)
        columns |= dict.fromkeys(places.columns_within(offset, used))
    return list(columns)
