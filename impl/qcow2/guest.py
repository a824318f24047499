"""Guest I/O: reading, writing and unmapping ranges of guest bytes, copy-on-write included.

Addresses are guest bytes; those behind the virtual size hold the VM state (SPEC B.9). A cluster is written in place
only when its L2 entry and its L1 entry both carry COPIED; otherwise new clusters are filled first and linked last.
What is not mapped is read from the backing file, as far as that goes; what shall read as zeroes there is marked so.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Final, NamedTuple

import numpy as np
from snapcheck.impl.blockfile import BlockError
from snapcheck.impl.qcow2 import compressed
from snapcheck.impl.qcow2.host import StoreError, Words, decoded
from snapcheck.impl.qcow2.layout import COMPRESSED, COPIED, OFFSET_MASK, ZERO
from snapcheck.impl.qcow2.state import State
from snapcheck.impl.qcow2.tables import SUBCLUSTERS
from snapcheck.model.errno import Errno

_FEW: Final = 64  # below this many clusters plain Python is faster than numpy
_NOT_COPIED64: Final = np.uint64(COPIED - 1)


class _Segment(NamedTuple):
    """The part of a range that one L2 table maps: bytes `start` to `end`, and entries `low` to `high` of the table."""

    l1_index: int
    start: int
    end: int
    low: int
    high: int


# --- reading --------------------------------------------------------------------------------------
def read(state: State, start: int, length: int) -> bytes:
    """Return `length` guest bytes from `start` on; what is mapped nowhere reads as zeroes."""
    bits = state.header.cluster_bits
    if (start & (1 << bits) - 1) + length <= 1 << bits:
        return _read_in_cluster(state, state.tables.entry(start >> bits), start, length)
    return b"".join(pieces(state, start, length))


def pieces(state: State, start: int, length: int) -> Iterator[bytes]:
    """Yield what `read` returns piece by piece: what lies together in the file comes in one.

    Of entries that go on where the one before ended, the first and the last are looked at: the rest is between them.
    """
    bits, end, tables = state.header.cluster_bits, start + length, state.tables
    size, first = 1 << bits, start >> bits
    entries = tables.entries(first, (end - 1 >> bits) + 1)
    starts = _piece_starts(entries, size)
    for begin, stop in zip(starts, [*starts[1:], len(entries)], strict=True):
        low, high = max(start, (first + begin) << bits), min(end, (first + stop) << bits)
        entry = entries[begin]
        if not entry and not tables.in_parts:
            yield state.read_backing(low, high - low)
        elif stop - begin > 1 and (offset := _plain_offset(state, entry)):
            tables.require_entry(entries[stop - 1])
            yield state.host.read(offset + (low & size - 1), high - low, "data")
        else:
            for each in entries[begin:stop]:
                step = min(high, (low | size - 1) + 1) - low
                yield _read_in_cluster(state, each, low, step)
                low += step


def _read_in_cluster(state: State, entry: int, start: int, length: int) -> bytes:
    """Return guest bytes that lie in one cluster, which `entry` maps."""
    tables = state.tables
    within = start & (1 << tables.cluster_bits) - 1
    if entry & COMPRESSED:
        return tables.inflated(entry)[within : within + length]
    offset = _plain_offset(state, entry)
    if offset:
        return state.host.read(offset + within, length, "data")
    if tables.in_parts:
        return _read_parts(state, start >> tables.cluster_bits, within, length)
    return bytes(length) if entry & ZERO else state.read_backing(start, length)


def _plain_offset(state: State, entry: int) -> int:
    """Return where the whole cluster is in the file as it is, 0 where it is not."""
    tables = state.tables
    offset = tables.data_offset(entry)
    return 0 if tables.in_parts else offset


def _read_parts(state: State, cluster: int, within: int, length: int) -> bytes:
    """Read from a cluster whose L2 entry tells its 32 parts apart."""
    tables, part_bytes = state.tables, state.header.cluster_bytes // SUBCLUSTERS
    offset, parts = tables.data_offset(tables.entry(cluster)), tables.parts(cluster)
    base, end = cluster << state.header.cluster_bits, within + length
    pieces: list[bytes] = []
    while within < end:
        part = within // part_bytes
        step = min(end, (part + 1) * part_bytes) - within
        if parts >> part & 1 and offset:
            pieces.append(state.host.read(offset + within, step, "data"))
        elif parts >> SUBCLUSTERS + part & 1:
            pieces.append(bytes(step))
        else:
            pieces.append(state.read_backing(base + within, step))
        within += step
    return b"".join(pieces)


def _piece_starts(entries: Words, size: int) -> list[int]:
    """Return where in `entries` a cluster does not go on where the one before it ended; the COPIED bit may differ."""
    if len(entries) > _FEW:
        words = np.frombuffer(entries, dtype=np.uint64)
        expected = words[:-1] + (words[:-1] != 0) * np.uint64(size)
        return [0, *(((words[1:] ^ expected) & _NOT_COPIED64).nonzero()[0] + 1).tolist()]
    starts, awaited = list[int](), -1
    for place, entry in enumerate(entries):
        if (entry ^ awaited) & ~COPIED:
            starts.append(place)
        awaited = entry + size if entry else 0
    return starts


# --- writing --------------------------------------------------------------------------------------
def write(state: State, start: int, data: bytes) -> None:
    """Write guest bytes. On failure each sector is old or new, and the metadata consistent."""
    bits = state.header.cluster_bits
    within = start & (1 << bits) - 1
    if within + len(data) <= 1 << bits:  # the short way: one cluster that is ours alone
        offset = state.tables.own_offset(start >> bits)
        if offset:
            state.host.write(offset + within, data, "data")
            return
    state.settle()
    view = memoryview(data)
    for segment in _segments(state, start, start + len(data)):
        _write_segment(state, segment, view[segment.start - start : segment.end - start])


def _segments(state: State, start: int, end: int) -> Iterator[_Segment]:
    bits, span = state.header.cluster_bits, state.header.l2_span
    while start < end:
        index = start // span
        stop, base = min(end, (index + 1) * span), index * span
        yield _Segment(index, start, stop, (start - base) >> bits, ((stop - base - 1) >> bits) + 1)
        start = stop


def _write_segment(state: State, segment: _Segment, view: memoryview) -> None:
    bits = state.header.cluster_bits
    first = segment.l1_index << state.tables.l2_bits
    fresh: list[int] = []
    places: list[tuple[int, int, int]] = []  # where in the file, and which bytes of the guest
    for slot in range(segment.low, segment.high):
        offset = state.tables.own_offset(first + slot)
        base = (first + slot) << bits
        low, high = max(base, segment.start), min(base + (1 << bits), segment.end)
        if not offset:
            fresh.append(slot)
        elif places and places[-1][0] + places[-1][2] - places[-1][1] == offset and places[-1][2] == low:
            places[-1] = (places[-1][0], places[-1][1], high)
        else:
            places.append((offset + low - base, low, high))
    for offset, low, high in places:
        state.host.write(offset, bytes(view[low - segment.start : high - segment.start]), "data")
    if fresh:
        _write_fresh(state, segment, fresh, view)


def _write_fresh(state: State, segment: _Segment, slots: list[int], view: memoryview) -> None:
    """Write the clusters of `slots` to new places, and then link them."""
    link = _Link(state, segment.l1_index)
    contents = [_merged_cluster(state, segment, slot, view) for slot in slots]
    clusters = state.take(len(slots) + link.needs_table)
    try:
        _write_clusters(state, clusters[: len(slots)], contents)
    except BlockError:
        state.release(clusters)
        raise
    bits = state.header.cluster_bits
    entries = {slot: cluster << bits | COPIED for slot, cluster in zip(slots, clusters, strict=False)}
    link.change(entries, spare=clusters[-1] if link.needs_table else 0)


def _merged_cluster(state: State, segment: _Segment, slot: int, view: memoryview) -> bytes:
    """Return what the whole cluster holds after the write: old bytes around the new ones."""
    cluster = (segment.l1_index << state.tables.l2_bits) + slot
    base, size = cluster << state.header.cluster_bits, state.header.cluster_bytes
    low, high = max(base, segment.start), min(base + size, segment.end)
    new = view[low - segment.start : high - segment.start]
    if high - low == size:
        return bytes(new)
    head = read(state, base, low - base) if low > base else b""
    tail = read(state, high, base + size - high) if high < base + size else b""
    return b"".join((head, new, tail))


def _write_clusters(state: State, clusters: list[int], contents: list[bytes]) -> None:
    """Write each content into its cluster; neighbours in one go."""
    done = 0
    for first, end in _runs(clusters):
        data = b"".join(contents[done : done + end - first]) if end - first > 1 else contents[done]
        state.host.write(first << state.header.cluster_bits, data, "data")
        done += end - first


# --- compressed -----------------------------------------------------------------------------------
def write_compressed(state: State, start: int, data: bytes) -> None:
    """Write one whole cluster in compressed form, or plainly where that takes no less; EIO where one is mapped.

    So the format says who may compress: whoever fills an image that nothing was written to there.
    """
    bits = state.header.cluster_bits
    if state.tables.entry(start >> bits):
        raise BlockError(Errno.EIO, f"the cluster at {start} is mapped already; compressed data goes to new ones only")
    packed = compressed.deflated(data, state.header.compression)
    if len(packed) >= len(data):
        write(state, start, data)
        return
    state.settle()
    index = start // state.header.l2_span
    link = _Link(state, index)
    place, clusters = state.take_bytes(len(packed))
    try:
        state.host.write(place, packed, "data")
        spare = state.take(1)[0] if link.needs_table else 0
    except BlockError:
        state.release(clusters)
        raise
    slot = (start >> bits) & (state.tables.l2_entries - 1)
    link.change({slot: compressed.entry_for(compressed.Extent(place, len(packed)), bits)}, spare=spare)


# --- unmapping ------------------------------------------------------------------------------------
def unmap(state: State, start: int, end: int) -> list[int]:
    """Make the clusters that lie wholly inside the range read as zeroes; return those that were let go of."""
    size = state.header.cluster_bytes
    start, end = -(-start // size) * size, end // size * size
    backed = min(-(-state.backing_bytes // size) * size, end)  # up to here the backing file would come to light
    if state.header.version == 2 and start < backed:  # there is no mark for zeroes
        for begin in range(start, backed, state.header.l2_span):
            write(state, begin, bytes(min(state.header.l2_span, backed - begin)))
        start = backed
    state.settle()
    lost: list[int] = []
    for segment in _segments(state, start, min(end, len(state.tables.l1) * state.header.l2_span)):
        entries = _unmapped(state, segment, (backed - segment.l1_index * state.header.l2_span) // size)
        if entries:
            lost += _unlink(state, segment.l1_index, entries)
    return lost


def _unmapped(state: State, segment: _Segment, backed: int) -> dict[int, int]:
    """Return what the L2 entries of a segment become; those below slot `backed` hide the backing file."""
    table = state.tables.active_l2(segment.l1_index)
    if table is None:
        return dict.fromkeys(range(segment.low, min(segment.high, backed)), ZERO)
    entries = {slot: ZERO for slot in range(segment.low, min(segment.high, backed)) if table[slot] != ZERO}
    entries |= {slot: 0 for slot in range(max(segment.low, backed), segment.high) if table[slot]}
    for slot in entries:
        state.tables.require_entry(table[slot])
    return entries


def _unlink(state: State, index: int, entries: dict[int, int]) -> list[int]:
    link = _Link(state, index)
    if link.needs_table and not link.empties(entries):
        return link.change(entries, spare=state.take(1)[0])
    return link.change(entries, spare=0)


def discard_in_file(state: State, clusters: list[int]) -> None:
    """Tell the file that those of `clusters` that are free now hold nothing; that is advice, and may fail."""
    size = state.header.cluster_bytes
    with suppress(BlockError):
        free = sorted(cluster for cluster in clusters if not state.refcounts.get(cluster))
        for first, end in _runs(free):
            state.host.file.discard(first * size, (end - first) * size, region="data")


def _runs(clusters: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield (from, to) for each run of neighbours in `clusters`."""
    start = 0
    for number in range(1, len(clusters) + 1):
        if number == len(clusters) or clusters[number] != clusters[number - 1] + 1:
            yield clusters[start], clusters[number - 1] + 1
            start = number


def zero(state: State, start: int, end: int) -> None:
    """Make the range read as zeroes: whole clusters by unmapping, parts of clusters that hold something by writing."""
    size = state.header.cluster_bytes
    head, tail = min(-(-start // size) * size, end), max(end // size * size, start)
    if head > tail:  # within one cluster
        _zero_in_cluster(state, start, end)
        return
    _zero_in_cluster(state, start, head)
    unmap(state, head, tail)
    _zero_in_cluster(state, tail, end)


def _zero_in_cluster(state: State, start: int, end: int) -> None:
    if start < end and _holds_something(state, start >> state.header.cluster_bits):
        write(state, start, bytes(end - start))


def _holds_something(state: State, cluster: int) -> bool:
    entry = state.tables.entry(cluster)
    if entry & COMPRESSED or state.tables.data_offset(entry):
        return True
    return not entry & ZERO and cluster << state.header.cluster_bits < state.backing_bytes


# --- linking --------------------------------------------------------------------------------------
class _Link:
    """A change of entries of one L2 table of the active tree: in place when the table is ours, else in a copy."""

    __slots__ = ("_index", "_l1_entry", "_old", "_state", "needs_table")

    def __init__(self, state: State, index: int) -> None:
        self._state = state
        self._index = index
        self._l1_entry = state.tables.l1[index]
        table = state.tables.active_l2(index)
        self._old: Words = table if table is not None else decoded(bytes(state.header.cluster_bytes))
        self.needs_table = not self._l1_entry & COPIED or table is None

    def empties(self, entries: dict[int, int]) -> bool:
        """Tell whether the table maps nothing any more after `entries` (slot to L2 entry) were changed."""
        return len(self._old) - self._old.count(0) == len(entries) and not any(entries.values())

    def change(self, entries: dict[int, int], *, spare: int) -> list[int]:
        """Publish `entries`, in a copy of the table in cluster `spare` unless the table is ours.

        Without `spare` a table that is not ours is let go of. Releases whatever nothing refers to afterwards, on
        failure too; returns the clusters that were released.
        """
        try:
            self._require_counted(entries)
            if self.needs_table:
                self._change_in_copy(entries, spare)
            else:
                self._change_in_place(entries)
        except StoreError as error:
            if error.words is None:  # nobody knows whether the change landed
                self._state.host.die(error)
            else:
                self._state.release(self._unreferenced(entries, spare))
            raise
        except BlockError:  # no table was changed
            new = [*entries.values(), spare << self._state.header.cluster_bits]
            self._state.release(self._clusters(new))
            raise
        lost = self._unreferenced(entries, spare)
        if lost:
            self._state.release(lost)
        return lost

    def _require_counted(self, entries: dict[int, int]) -> None:
        self._state.refcounts.require_counted(self._clusters(self._old[slot] for slot in entries))

    def _change_in_place(self, entries: dict[int, int]) -> None:
        state = self._state
        new = self._old[:]
        for slot, entry in entries.items():
            new[slot] = entry
        if any(entries.values()):
            state.host.barrier()  # what the entries will refer to comes first
        state.tables.store_l2(self._l1_entry & OFFSET_MASK, new, min(entries), max(entries) + 1)

    def _change_in_copy(self, entries: dict[int, int], spare: int) -> None:
        state, tables = self._state, self._state.tables
        if spare:
            offset = self._l1_entry & OFFSET_MASK
            shared_by = state.refcounts.get(offset >> tables.cluster_bits) if offset else 0
            new = tables.own_copy(self._old, shared_by)
            for slot, entry in entries.items():
                new[slot] = entry
            tables.write_l2(spare << tables.cluster_bits, new)
            state.host.barrier()
        tables.store_l1_entry(self._index, spare << tables.cluster_bits | COPIED if spare else 0)

    def _unreferenced(self, entries: dict[int, int], spare: int) -> list[int]:
        """Return what nothing refers to now: the old clusters where the change landed, the new ones where not."""
        tables = self._state.tables
        if self.needs_table:
            landed = tables.l1[self._index] != self._l1_entry
            gone = [self._old[slot] if landed else entry for slot, entry in entries.items()]
            table = self._l1_entry if landed else spare << tables.cluster_bits
            gone.append(table & OFFSET_MASK)
        else:
            now = tables.l2(self._l1_entry & OFFSET_MASK)
            gone = [self._old[slot] if now[slot] == entry else entry for slot, entry in entries.items()]
        return self._clusters(gone)

    def _clusters(self, entries: Iterable[int]) -> list[int]:
        clusters_of = self._state.tables.clusters_of
        return [cluster for entry in entries if entry for cluster in clusters_of(entry)]
