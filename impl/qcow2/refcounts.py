"""Refcounts: the table and its blocks, finding free clusters, growth, and the debts of clusters counted too often.

Raising is done at once and undone when it fails. Lowering is a debt: it may be paid only when nothing on the medium
refers to the clusters any more, and what can not be paid now is paid later (by the next operation, or at close).
A debt that is never paid is a leak and never a corruption (SPEC B.7).
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from snapcheck.impl.blockfile import BlockError
from snapcheck.impl.qcow2.host import Codec, Host, StoreError, Words, decoded, encoded
from snapcheck.impl.qcow2.layout import (
    OFFSET_MASK,
    OFFSET_MAX,
    REFCOUNT_TABLE_BYTES_MAX,
    Header,
    ceil_div,
)
from snapcheck.model.errno import Errno

Clusters: TypeAlias = "Sequence[int] | NDArray[np.int64]"

_FEW: Final = 256  # below this many clusters plain Python is faster than numpy
_CACHE_BYTES_MAX: Final = 32 << 20
_OWED_MAX: Final = 0xFFFF  # times that one cluster is owed for one failed write
_BLOCK: Final = "refcount-block"
_TABLE: Final = "refcount-table"


class RefcountTable(NamedTuple):
    """Where the refcount table is: what the header says of it."""

    offset: int
    clusters: int


class _Edit(NamedTuple):
    """What shall become of one refcount block; words `low` to `high` differ."""

    block: int
    old: Words
    new: Words
    low: int
    high: int


def merged(parts: Sequence[Clusters]) -> Clusters:
    """Return all clusters of `parts`, each as often as it is there."""
    if len(parts) == 1:
        return parts[0]
    if sum(map(len, parts)) <= _FEW:
        few: list[int] = []
        for part in parts:
            few += part.tolist() if isinstance(part, np.ndarray) else part
        return few
    return np.concatenate([np.asarray(part, dtype=np.int64) for part in parts])


class Refcounts:
    """The refcounts of an image. `publish` makes the header point to another table, durably or not at all.

    `pinned` are ranges of clusters (from, to) that are known to be in use and are never handed out.
    """

    __slots__ = (
        "_block_entries", "_blocks", "_blocks_max", "_cluster_bits", "_codec", "_covered", "_debts", "_doubts", "_hint",
        "_host", "_max", "_place", "_publish", "_table", "pinned",
    )  # fmt: skip

    def __init__(self, host: Host, header: Header, publish: Callable[[RefcountTable], None]) -> None:
        self._host = host
        self._publish = publish
        self._cluster_bits = header.cluster_bits
        self._codec = Codec(1 << header.refcount_order)
        self._max = header.refcount_max
        self._block_entries = header.cluster_bytes * 8 // self._codec.bits
        self._blocks_max = max(_CACHE_BYTES_MAX // (self._block_entries * self._codec.dtype.itemsize), 2)
        self._place = RefcountTable(header.refcount_table_offset, header.refcount_table_clusters)
        raw = host.read(self._place.offset, self._place.clusters << self._cluster_bits, _TABLE)
        self._table = decoded(raw)
        used = (np.frombuffer(raw, dtype=np.uint64) != 0).nonzero()[0]
        self._covered = int(used[-1]) + 1 if len(used) else 0  # table entries from here on are empty
        self._blocks: dict[int, Words] = {}
        self._debts: list[Clusters] = []
        self._doubts: dict[int, Words] = {}  # blocks whose last write failed, unseen: what they should hold at most
        self._hint = 0  # no cluster below this one is free
        self.pinned: tuple[tuple[int, int], ...] = ((0, 1),)

    def clone(self, host: Host, publish: Callable[[RefcountTable], None]) -> "Refcounts":
        """Return the same refcounts over another host; tables are shared, as they never change in place."""
        twin = object.__new__(type(self))
        for name in Refcounts.__slots__:
            setattr(twin, name, getattr(self, name))
        twin._host, twin._publish = host, publish
        twin._blocks, twin._debts, twin._doubts = self._blocks.copy(), self._debts.copy(), self._doubts.copy()
        return twin

    # --- looking up -------------------------------------------------------------------------------
    @property
    def limit(self) -> int:
        """Return how many clusters can have a refcount: no pointer may go beyond them."""
        return len(self._table) * self._block_entries

    def get(self, cluster: int) -> int:
        """Return the refcount of `cluster`."""
        index, slot = divmod(cluster, self._block_entries)
        block = self._block(index)
        return 0 if block is None else block[slot]

    def of(self, clusters: NDArray[np.int64]) -> "NDArray[np.unsignedinteger]":
        """Return the refcount of each of `clusters`."""
        if len(clusters) <= _FEW:
            return np.array(self._of_few(clusters), dtype=self._codec.dtype)
        counts = np.zeros(len(clusters), dtype=self._codec.dtype)
        where = clusters // self._block_entries
        for index in np.unique(where).tolist():
            block = self._block(index)
            if block is not None:
                here = where == index
                slots = clusters[here] - index * self._block_entries
                counts[here] = np.frombuffer(block, dtype=self._codec.dtype)[slots]
        return counts

    def _of_few(self, clusters: NDArray[np.int64]) -> list[int]:
        slots = self._slots(clusters)
        if len(slots) != 1:
            return [self.get(cluster) for cluster in clusters.tolist()]
        ((index, here),) = slots.items()
        block = self._block(index)
        return [block[slot] for slot in here] if block is not None else [0] * len(here)

    def require_counted(self, clusters: Clusters) -> None:
        """Raise EIO when one of `clusters`, which something refers to, is counted as free: the image is corrupt."""
        if len(clusters) <= _FEW:
            for index, slots in self._slots(clusters).items():
                block = self._block(index)
                if block is None or not all(map(block.__getitem__, slots)):
                    free = next(slot for slot in slots if block is None or not block[slot])
                    raise self._uncounted(index * self._block_entries + free)
        else:
            array = np.asarray(clusters, dtype=np.int64)
            missing = array[self.of(array) == 0]
            if len(missing):
                raise self._uncounted(int(missing[0]))

    def _uncounted(self, cluster: int) -> BlockError:
        place = cluster << self._cluster_bits
        return BlockError(Errno.EIO, f"refcount: the cluster at {place:#x} is in use but counted as free")

    def _slots(self, clusters: Clusters) -> dict[int, list[int]]:
        """Return where the few `clusters` are counted: by block, the places in it."""
        few = clusters.tolist() if isinstance(clusters, np.ndarray) else clusters
        if not few:
            return {}
        entries = self._block_entries
        index = min(few) // entries
        if index == max(few) // entries:  # mostly
            first = index * entries
            return {index: [cluster - first for cluster in few]}
        slots: defaultdict[int, list[int]] = defaultdict(list)
        for cluster in few:
            slots[cluster // entries].append(cluster % entries)
        return slots

    def _block(self, index: int) -> "Words | None":
        """Return refcount block `index`, or None where there is none (all its refcounts are 0)."""
        block = self._blocks.get(index)
        if block is None:
            offset = self._table[index] & OFFSET_MASK if index < self._covered else 0
            if not offset:
                return None
            if offset & ((1 << self._cluster_bits) - 1) or offset >> self._cluster_bits >= self.limit:
                raise BlockError(Errno.EIO, f"refcount table: entry {index} points to {offset:#x}, which is no cluster")
            block = self._host.load(offset, self._block_entries, _BLOCK, self._codec)
            if len(self._blocks) >= self._blocks_max:
                self._blocks.clear()
            self._blocks[index] = block
            if index in self._doubts:
                self._owe_difference(index, block, self._doubts.pop(index))
        return block

    # --- changing ---------------------------------------------------------------------------------
    def raise_(self, clusters: Clusters) -> None:
        """Count each of `clusters` once more; EINVAL when a count would not fit.

        What a failure leaves raised is owed: the caller has nothing to undo.
        """
        done: list[_Edit] = []
        for edit in self._edits(clusters, 1):
            try:
                self._store(edit, goal=edit.old)
            except StoreError:
                for earlier in done:
                    self._owe_difference(earlier.block, earlier.new, earlier.old)
                raise
            done.append(edit)

    def owe(self, clusters: Clusters) -> None:
        """Remember that each of `clusters` is counted once too often."""
        if len(clusters):
            self._debts.append(clusters)

    @property
    def in_debt(self) -> bool:
        return bool(self._debts or self._doubts)

    def pay(self) -> None:
        """Lower what is owed, once everything written so far is durable. What can not be lowered stays owed."""
        for index in tuple(self._doubts):
            self._block(index)
        if not self._debts:
            return
        self._host.barrier()
        edits = self._edits(merged(self._debts), -1)
        self._debts = []
        for number, edit in enumerate(edits):
            try:
                self._store(edit, goal=edit.new)
            except StoreError:
                for later in edits[number + 1 :]:
                    self._owe_difference(later.block, later.old, later.new)
                raise
            self._note_free(edit)

    def _owe_difference(self, index: int, high: Words, low: Words) -> None:
        """Owe each cluster of block `index` as often as it is counted more often in `high` than in `low`."""
        first, dtype = index * self._block_entries, self._codec.dtype
        above, below = np.frombuffer(high, dtype=dtype), np.frombuffer(low, dtype=dtype)
        slots = (above > below).nonzero()[0]
        # a torn write of a wide word may leave any number; what is not lowered is a leak
        more = np.minimum(above[slots] - below[slots], min(_OWED_MAX, self._max)).astype(np.int64)
        self.owe(np.repeat(slots + first, more))

    def _note_free(self, edit: _Edit) -> None:
        try:
            freed = edit.new.index(0, edit.low, edit.high)
        except ValueError:
            return
        self._hint = min(self._hint, edit.block * self._block_entries + freed)

    def _store(self, edit: _Edit, *, goal: Words) -> None:
        """Make the edit. On failure owe what the block then counts above `goal`; later, when nobody knows that now."""
        offset = self._table[edit.block] & OFFSET_MASK
        try:
            self._host.store(offset, edit.new, edit.low, edit.high, _BLOCK, old=edit.old, codec=self._codec)
        except StoreError as error:
            if error.words is None:
                self._blocks.pop(edit.block, None)
                self._doubts[edit.block] = goal
            else:
                self._blocks[edit.block] = error.words
                self._owe_difference(edit.block, error.words, goal)
            raise
        self._blocks[edit.block] = edit.new

    def _edits(self, clusters: Clusters, sign: int) -> list[_Edit]:
        """Return what must become of the blocks to count each of `clusters` once more (or less)."""
        return self._edits_of_few(clusters, sign) if len(clusters) <= _FEW else self._edits_of_many(clusters, sign)

    def _edits_of_few(self, clusters: Clusters, sign: int) -> list[_Edit]:
        edits: list[_Edit] = []
        for index, here in self._slots(clusters).items():
            old = self._existing_block(index)
            new = old[:]
            for slot in here:
                count = new[slot] + sign
                if count > self._max:
                    raise self._overflow(index * self._block_entries + slot)
                if count >= 0:  # what an image counts too low already stays at 0
                    new[slot] = count
            edits.append(_Edit(index, old, new, min(here), max(here) + 1))
        return edits

    def _edits_of_many(self, clusters: Clusters, sign: int) -> list[_Edit]:
        touched, times = np.unique(np.asarray(clusters, dtype=np.int64), return_counts=True)
        where = touched // self._block_entries
        edits: list[_Edit] = []
        for index in np.unique(where).tolist():
            here = where == index
            slots = touched[here] - index * self._block_entries
            old = self._existing_block(index)
            new = old[:]
            view = np.frombuffer(new, dtype=self._codec.dtype)
            view[slots] = self._changed(view[slots], times[here], sign, index * self._block_entries + slots)
            edits.append(_Edit(index, old, new, int(slots[0]), int(slots[-1]) + 1))
        return edits

    def _changed(
        self, counts: "NDArray[np.unsignedinteger]", times: NDArray[np.int64], sign: int, clusters: NDArray[np.int64]
    ) -> "NDArray[np.unsignedinteger]":
        """Return `counts` after each was raised (or lowered) so many times; none is lowered below 0."""
        wide, steps = counts.astype(np.uint64), times.astype(np.uint64)
        if sign < 0:
            return (wide - np.minimum(wide, steps)).astype(counts.dtype)
        full = (wide > np.uint64(self._max) - np.minimum(steps, np.uint64(self._max))) | (steps > self._max)
        if full.any():
            raise self._overflow(int(clusters[full][0]))
        return (wide + steps).astype(counts.dtype)

    def _existing_block(self, index: int) -> Words:
        block = self._block(index)
        if block is None:
            place = index * self._block_entries << self._cluster_bits
            raise BlockError(Errno.EIO, f"refcount table: no refcount block for the clusters from {place:#x} on")
        return block

    def _overflow(self, cluster: int) -> BlockError:
        place = cluster << self._cluster_bits
        return BlockError(Errno.EINVAL, f"refcount: the cluster at {place:#x} has {self._max} references already")

    # --- free clusters ----------------------------------------------------------------------------
    def find(self, count: int) -> int:
        """Return the first of `count` free clusters in a row. They stay free until they are raised."""
        position = None
        while (run := self._free_run(self._hint if position is None else position, count)) is not None:
            if position is None:
                self._hint = run[0]
            if run[1] - run[0] == count:
                return run[0]
            position = run[1]
        return self._grow(count)

    def find_scattered(self, count: int) -> list[int]:
        """Return `count` free clusters, wherever they are, in ascending order."""
        found: list[int] = []
        position = self._hint
        while len(found) < count:
            run = self._free_run(position, count - len(found))
            if run is None:
                first = self._grow(count - len(found))
                found.extend(range(first, first + count - len(found)))
                break
            if not found:
                self._hint = run[0]
            found.extend(range(*run))
            position = run[1]
        return found

    def _free_run(self, position: int, count_max: int) -> tuple[int, int] | None:
        """Return the next run of free clusters (from, to), at most `count_max` of them; None when there is no more."""
        start = self._next_free(position)
        if start is None:
            return None
        end = start + 1
        while end - start < count_max and self._is_free(end):
            end += 1
        self._require_unpinned(start, end)
        return start, end

    def _require_unpinned(self, start: int, end: int) -> None:
        for low, high in self.pinned:
            if low < end and start < high and low < high:
                place = max(low, start) << self._cluster_bits
                message = f"refcount: the table at {place:#x} is counted as free; the image is corrupt"
                raise BlockError(Errno.EIO, message)

    def _next_free(self, position: int) -> int | None:
        index, slot = divmod(position, self._block_entries)
        for number in range(index, self._covered):
            block = self._block(number)
            if block is not None:
                try:
                    return number * self._block_entries + block.index(0, slot)
                except ValueError:
                    pass
            slot = 0
        return None

    def _is_free(self, cluster: int) -> bool:
        index, slot = divmod(cluster, self._block_entries)
        block = self._block(index)
        return block is not None and not block[slot]

    # --- growth -----------------------------------------------------------------------------------
    def _grow(self, payload: int) -> int:
        """Make room for `payload` free clusters in a row behind everything that is counted, and return the first.

        The new refcount blocks (and a larger table, when the old one has no room) lie in front of the room, in the
        range that they count themselves. Nothing refers to them until the last write: a failure leaves no leak.
        """
        first = self._covered
        blocks, table_clusters = self._plan_growth(payload)
        base = first * self._block_entries
        used = blocks + table_clusters
        self._require_unpinned(base, base + used + payload)
        if (base + used + payload) << self._cluster_bits > OFFSET_MAX:
            raise BlockError(Errno.EFBIG, "the image file can not grow any more")
        new = [self._codec.decode(bytes(1 << self._cluster_bits)) for _ in range(blocks)]
        for cluster in range(used):
            new[cluster // self._block_entries][cluster % self._block_entries] = 1
        self._host.write(base << self._cluster_bits, b"".join(map(self._codec.encode, new)), _BLOCK)
        entries = decoded(b"".join(((base + n) << self._cluster_bits).to_bytes(8, "big") for n in range(blocks)))
        if table_clusters:
            self._move_table(entries, RefcountTable((base + blocks) << self._cluster_bits, table_clusters))
        else:
            self._append_to_table(entries)
        self._blocks.update(enumerate(new, first))
        return base + used

    def _plan_growth(self, payload: int) -> tuple[int, int]:
        """Return how many new blocks, and clusters of a new table, it takes to count `payload` more clusters."""
        blocks, table_clusters = 1, 0
        while True:
            entries = self._covered + blocks
            if blocks > 1 or entries > len(self._table):  # one entry can be appended in place: that can not be torn
                table_clusters = ceil_div(max(entries, len(self._table) * 3 // 2) * 8, 1 << self._cluster_bits)
            needed = ceil_div(blocks + table_clusters + payload, self._block_entries)
            if needed <= blocks:
                break
            blocks = needed
        if table_clusters << self._cluster_bits > REFCOUNT_TABLE_BYTES_MAX:
            raise BlockError(Errno.EFBIG, "the refcount table can not grow beyond 8 MiB")
        return blocks, table_clusters

    def _append_to_table(self, entries: Words) -> None:
        low, high = self._covered, self._covered + len(entries)
        new = self._table[:low] + entries + self._table[high:]
        self._host.barrier()
        try:
            self._host.store(self._place.offset, new, low, high, _TABLE, old=self._table)
        except StoreError as error:
            if error.words is None:
                self._host.die(error)
                raise
            self._table = error.words
            self._covered = high if self._table[low:high] == entries else low
            raise
        self._table, self._covered = new, high

    def _move_table(self, entries: Words, place: RefcountTable) -> None:
        raw = encoded(self._table[: self._covered] + entries)
        raw += bytes((place.clusters << self._cluster_bits) - len(raw))
        self._host.write(place.offset, raw, _TABLE)
        self._publish(place)
        former, self._place = self._place, place
        self._table, self._covered = decoded(raw), self._covered + len(entries)
        start = former.offset >> self._cluster_bits
        self.owe(range(start, start + former.clusters))
        with suppress(BlockError):  # it stays owed
            self.pay()
