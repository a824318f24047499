"""What the tables of a crash state must fit into: all that opening it says that a verdict or a content depends on.

Fronts (front.py) that differ in nothing but names, dates and COPIED bits have the same frame, and are judged together.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from snapcheck.fault_injection.crash.front import Front
from snapcheck.fault_injection.crash.versions import Flags
from snapcheck.impl.qcow2.host import Words
from snapcheck.impl.qcow2.layout import COPIED, OFFSET_MASK, ImageError, ceil_div
from snapcheck.impl.qcow2.state import State

_NOT_COPIED64: Final = np.uint64(COPIED - 1)
_FRONTS_MAX: Final = 256  # that are kept open, to find those of one frame


class Frame(NamedTuple):
    """What opening says of where tables are, and how they are to be read.

    limit     clusters that can have a refcount: a pointer behind them shows nothing
    l2_flags  bits of an L2 entry that may be set and are no offset
    vm_state_index  the first entry of the active L1 table that the guest does not see
    ranges    offset and length of every table that opening finds
    blocks    index and cluster of each refcount block
    l1_tables the active L1 table, and behind it those of the snapshots, without COPIED bits; None where one can not be
    wrong     whether the snapshot table or the refcount table is not as it should be
    """

    file_bytes: int
    cluster_bits: int
    refcount_bits: int
    limit: int
    l2_flags: int
    vm_state_index: int
    ranges: tuple[tuple[int, int], ...]
    blocks: tuple[tuple[int, int], ...]
    l1_tables: tuple[bytes | None, ...]
    wrong: bool

    @property
    def cluster_bytes(self) -> int:
        return 1 << self.cluster_bits

    @property
    def clusters(self) -> int:
        """Return how many clusters the file has."""
        return ceil_div(self.file_bytes, self.cluster_bytes)

    @property
    def l2_bits(self) -> int:
        """Return how many bits of a guest cluster's number choose the entry of its L2 table."""
        return self.cluster_bits - 3  # extended entries have no tables here


def framed(fronts: Iterator[Front]) -> Iterator[tuple[Frame | None, list[Front]]]:
    """Yield all fronts: those of one frame together, as far as they come near each other, those without one alone.

    A front has no frame where it does not open, or where only the plain judge can take it.
    """
    while some := list(islice(fronts, _FRONTS_MAX)):
        frames: dict[Frame, list[Front]] = {}
        for front in some:
            frame = _frame_of(front)
            if frame is None:
                yield None, [front]
            else:
                frames.setdefault(frame, []).append(front)
        yield from frames.items()


def _frame_of(front: Front) -> Frame | None:
    if front.state is None:
        return None
    state, header = front.state, front.state.header
    file_bytes = state.host.file.size()
    clusters = ceil_div(file_bytes, header.cluster_bytes)
    blocks, blocks_wrong = _blocks(state, clusters)
    room = (clusters << header.cluster_bits) // 8 - header.l1_size
    if sum(entry.l1_size for entry in state.snapshot_table.entries) > room:
        return None  # there the check gives up, and tables would not
    return Frame(
        file_bytes, header.cluster_bits, 1 << header.refcount_order, state.refcounts.limit, header.l2_flags,
        header.vm_state_index, tuple(_ranges(state, front.l1_tables)), tuple(blocks.items()),
        tuple(None if l1 is None else (_words(l1) & _NOT_COPIED64).tobytes() for l1 in front.l1_tables),
        blocks_wrong or _snapshots_wrong(state, clusters),
    )  # fmt: skip


def copied_in(front: Front) -> Flags:
    """Return by entry of the active L1 table of states that open whether it says COPIED."""
    active = front.l1_tables[0]
    assert active is not None
    flags: Flags = (_words(active) & ~_NOT_COPIED64) != 0
    return flags


def _words(l1: Words) -> NDArray[np.uint64]:
    return np.frombuffer(l1, dtype=np.uint64)


def _snapshots_wrong(state: State, clusters: int) -> bool:
    """Tell whether the snapshot table is not as it should be."""
    header, table = state.header, state.snapshot_table
    try:
        for index, entry in enumerate(table.entries):
            entry.require_in_order(index, header)
    except ImageError:
        return True
    return bool(table.entries) and header.snapshots_offset + table.length > clusters << header.cluster_bits


def _ranges(state: State, l1_tables: "Sequence[Words | None]") -> Iterator[tuple[int, int]]:
    """Yield offset and length of every table that opening finds; where an L1 table can not be there is None."""
    header, table = state.header, state.snapshot_table
    yield 0, header.header_length
    yield header.refcount_table_offset, header.refcount_table_clusters << header.cluster_bits
    yield header.l1_offset, header.l1_size * 8
    if table.entries:
        yield header.snapshots_offset, table.length
    for entry, l1 in zip(table.entries, l1_tables[1:], strict=True):
        if l1 is not None:
            yield entry.l1_offset, entry.l1_size * 8


def _blocks(state: State, clusters: int) -> tuple[dict[int, int], bool]:
    """Return by index the cluster of each refcount block, and whether there is one that can not be where it is said."""
    header = state.header
    length = header.refcount_table_clusters << header.cluster_bits
    raw = state.host.read(header.refcount_table_offset, length, "refcount-table")
    used = (np.frombuffer(raw, dtype=np.uint64) != 0).nonzero()[0].tolist()
    blocks: dict[int, int] = {}
    wrong, known = False, set[int]()
    for index in used:
        word = int.from_bytes(raw[8 * index : 8 * index + 8], "big")
        offset = word & OFFSET_MASK
        cluster = offset >> header.cluster_bits
        astray = offset & (header.cluster_bytes - 1) or cluster >= clusters or cluster in known
        wrong = wrong or bool(astray) or word != offset
        if offset and not astray:
            blocks[index] = cluster
            known.add(cluster)
    return blocks, wrong
