"""Bugs planted in the engine's refcounts, COPIED bits, L1 and L2 tables (BUGS sections 1 and 2)."""

from contextlib import suppress
from typing import Final

import numpy as np
from numpy.typing import NDArray
from snapcheck.impl.blockfile import BlockError
from snapcheck.impl.driver import Out
from snapcheck.impl.qcow2.host import WORDS64, Codec, Host, StoreError, Words
from snapcheck.impl.qcow2.image import Image
from snapcheck.impl.qcow2.layout import COMPRESSED, COPIED
from snapcheck.impl.qcow2.refcounts import Clusters, Refcounts
from snapcheck.impl.qcow2.state import Parts
from snapcheck.impl.qcow2.tables import Tables
from snapcheck.model.snapshot import SnapshotInfo
from snapcheck.stateful_tests.seeded_bugs.planting import Insider, in_engine

_COMPRESSED64: Final = np.uint64(COMPRESSED)
# In the original 32 bits were kept; here as many fewer as images of kilobytes are smaller than 4 GiB.
_OFFSET_KEPT: Final = np.uint64(~(((1 << 40) - 1) << 13) & (1 << 64) - 1)


# --- counting references --------------------------------------------------------------------------
class _IgnoresFailures(Refcounts):
    """Does not look whether the counts could be raised."""

    __slots__ = ()

    def raise_(self, clusters: Clusters) -> None:
        with suppress(BlockError):
            super().raise_(clusters)


class _NeverLowers(Refcounts):
    """Forgets what is to be counted less."""

    __slots__ = ()

    def owe(self, clusters: Clusters) -> None:
        pass


class _StopsAtCompressed(Tables):
    """Ends the walk over a tree at its first compressed cluster, without an error.

    In the original only where counting that one failed.
    """

    __slots__ = ()

    def _clusters_of(self, used: NDArray[np.uint64], bits: int) -> NDArray[np.int64]:
        packed = (used & _COMPRESSED64).nonzero()[0]
        return super()._clusters_of(used[: int(packed[0])] if len(packed) else used, bits & ~COMPRESSED)


class _CutsCompressedOffsets(Tables):
    """Counts references of compressed clusters by offsets with the upper bits cut off."""

    __slots__ = ()

    def _touched(self, entries: NDArray[np.uint64]) -> NDArray[np.int64]:
        return super()._touched(entries & _OFFSET_KEPT)


count_failure_ignored = in_engine("failed refcount updates are ignored", parts=Parts(refcounts=_IgnoresFailures))
never_lowered = in_engine("refcounts are never lowered", parts=Parts(refcounts=_NeverLowers))
ends_at_compressed = in_engine("counting ends at a compressed cluster", parts=Parts(tables=_StopsAtCompressed))
narrow_mask = in_engine("offsets of compressed clusters are cut off", parts=Parts(tables=_CutsCompressedOffsets))


# --- writing in place -----------------------------------------------------------------------------
class _OverwritesTheShared(Tables):
    """Writes in place whatever is allocated, shared with a snapshot or not."""

    __slots__ = ()

    def own_offset(self, cluster: int) -> int:
        entry = self.entry(cluster)
        return 0 if entry & COMPRESSED else self.data_offset(entry)


class _KeepsCopied(Tables):
    """Leaves COPIED on clusters that a new snapshot shares."""

    __slots__ = ()

    def clear_copied(self, offsets: list[int]) -> None:
        pass


class _RemembersPlaces(Insider):
    """Writes a cluster where it wrote it last, although a snapshot may have been taken since."""

    __slots__ = ("_places",)

    def __init__(self, image: Image) -> None:
        super().__init__(image)
        self._places: dict[int, int] = {}

    def write(self, offset: int, data: bytes) -> None:
        cluster, within = divmod(offset, self._state.header.cluster_bytes)
        if cluster in self._places and within + len(data) <= self._state.header.cluster_bytes:
            self._state.host.write(self._places[cluster] + within, data, "data")
            return
        super().write(offset, data)
        self._places[cluster] = self._state.tables.own_offset(cluster)


class _CarelessAfterAFailure(Insider):
    """Takes all clusters for its own once a create has failed: it set COPIED again, where snapshots share them too."""

    __slots__ = ()

    def snapshot_create(self, sn: Out[SnapshotInfo]) -> None:
        try:
            super().snapshot_create(sn)
        except BlockError:
            with suppress(BlockError):
                self._set_copied(self._state.tables)
            raise

    @staticmethod
    def _set_copied(tables: Tables) -> None:
        for index, entry in enumerate(tables.l1):
            if entry & ~COPIED:
                tables.store_l1_entry(index, entry | COPIED)
                table = tables.active_l2(index) or tables.l1
                owned = type(table)(table.typecode, [word | COPIED if word else 0 for word in table])
                tables.store_l2(entry & ~COPIED, owned, 0, len(owned))


shared_overwritten = in_engine("clusters of snapshots are written in place", parts=Parts(tables=_OverwritesTheShared))
copied_kept = in_engine("a create leaves COPIED on shared clusters", parts=Parts(tables=_KeepsCopied))
stale_place = in_engine("a write goes where the last one went, past a snapshot", driver=_RemembersPlaces)
copied_after_failure = in_engine("a failed create sets COPIED everywhere", driver=_CarelessAfterAFailure)


# --- storing --------------------------------------------------------------------------------------
class _LeavesL1Swapped(Tables):
    """Leaves the L1 table in memory in the byte order of the medium when it can not be written."""

    __slots__ = ()

    def _store_l1(self, new: Words, low: int, high: int) -> None:
        try:
            super()._store_l1(new, low, high)
        except StoreError:
            self.l1 = self.l1[:]
            self.l1.byteswap()
            raise


class _WritesOneByOne(Host):
    """Writes a refcount block entry by entry, and waits for each."""

    __slots__ = ()

    def store(
        self, offset: int, new: Words, low: int, high: int, region: str, *, old: Words, codec: Codec = WORDS64
    ) -> None:
        if region == "refcount-block":
            for at in range(len(new)):
                super().store(offset, new, at, at + 1, region, old=old, codec=codec)
                self.flush()
        else:
            super().store(offset, new, low, high, region, old=old, codec=codec)


class _DoesNotFlush(Host):
    """Writes the header without making durable what was written before it, nor the header itself."""

    __slots__ = ()

    def barrier(self) -> None:
        pass

    def publish(self, start: int, new: bytes, old: bytes) -> None:  # noqa: ARG002  # nothing is put back
        self.write(start, new, "header")


l1_left_swapped = in_engine("a failed write leaves L1 in the wrong byte order", parts=Parts(tables=_LeavesL1Swapped))
one_by_one = in_engine("each refcount is written and flushed by itself", parts=Parts(host=_WritesOneByOne))
commit_not_flushed = in_engine("snapshot operations flush nothing", parts=Parts(host=_DoesNotFlush))
