"""Whether a write log can have begun on an image: what can be known of it.

    require_base(Recorded("d0", log, base))

Another image that looks like the right one at every place that the log touches is not noticed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from snapcheck.fault_injection.crash.cuts import apply, image_of
from snapcheck.fault_injection.crash.seen import Seen, see
from snapcheck.fault_injection.write_log import Sort, WriteLog
from snapcheck.impl.blockfile import MemoryFile
from snapcheck.impl.qcow2.check import ClusterKind, Inspection
from snapcheck.impl.qcow2.host import Codec
from snapcheck.impl.qcow2.layout import DIRTY, Header, ImageError, ceil_div
from snapcheck.impl.qcow2.state import read_header
from snapcheck.model.content import SECTOR
from snapcheck.model.power_cut import Cut

_HEADER_BYTES: Final = 104  # of version 3
_WAY_OUT: Final = "--base must be the image as it was before the log began"
_IN_NO_USE: Final = (ClusterKind.FREE, ClusterKind.LEAKED)
_TABLES: Final = (ClusterKind.REFCOUNT_BLOCK, ClusterKind.L2)


class LogMismatchError(Exception):
    """The log can not have begun on the base image; the text says why, and what base must be."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What one device sent down, and what was on it before."""

    device: str
    log: WriteLog
    base: MemoryFile


def require_base(recorded: Recorded) -> None:
    """Raise `LogMismatchError` when the log has nothing to judge, or can not have begun on the base image."""
    if trouble := _trouble(see(recorded.base)):
        raise LogMismatchError(f"the base image is not sound: {trouble}")
    if all(entry.sort is Sort.FLUSH for entry in recorded.log.entries):
        raise LogMismatchError("the log has no write: did what was recorded write through it?")
    if why := next(_mismatches(recorded), ""):
        raise LogMismatchError(f"{why}; {_WAY_OUT}")


def _mismatches(recorded: Recorded) -> Iterator[str]:
    """Yield what shows that the log began on another image."""
    whole = image_of(recorded.base, recorded.log, Cut(recorded.device, recorded.log.position))
    if trouble := _trouble(see(whole)):
        yield f"what the whole log leads to is not sound: {trouble}; where it is so without a cut, mend that first"
    elif strange := _strange_header(recorded):
        yield strange
    elif _changes_nothing(recorded, whole):
        yield "the log changes nothing in the image, which holds already what the log writes"
    elif not read_header(recorded.base).incompatible & DIRTY:  # else its refcounts say nothing yet
        yield from _strange_clusters(recorded, whole)


def _strange_clusters(recorded: Recorded, whole: MemoryFile) -> Iterator[str]:
    """Yield what the log leads to although neither the image nor the log holds it.

    What an operation that was cut off has allocated may be counted once and not yet written. But no table is
    referred to before it is written, and what is counted twice is shared with a snapshot, so it holds something.
    """
    before, after = Inspection(recorded.base), Inspection(whole)
    here, there = before.report(), after.report()
    written = _written(recorded, there.header.cluster_bytes, after.clusters)
    unheld = ~written
    unheld[: before.clusters] &= before.counts[: after.clusters] == 0
    used = ~np.isin(there.kinds, _IN_NO_USE)
    used[: before.clusters] |= ~np.isin(here.kinds, _IN_NO_USE)[: after.clusters]
    if not (used & written).any() and unheld.any():  # all that is there to take would have been taken first
        yield "nothing that the log writes belongs to the image, neither before the log nor after it"
    peaks = _counted_at_most(recorded, before, after)
    for strange, what in (
        (unheld & np.isin(there.kinds, _TABLES), "a table"),
        (unheld & (peaks > 1) & (after.references == 0), "a cluster that is counted more than once"),
    ):
        for cluster in np.flatnonzero(strange).tolist():
            place = cluster * there.header.cluster_bytes
            yield f"the log leads to {what} at {place:#x}, which neither the image nor the log holds"


def _counted_at_most(recorded: Recorded, before: Inspection, after: Inspection) -> NDArray[np.uint64]:
    """Return for each cluster of `after` its highest refcount in any block that the log wrote and left in its place."""
    cluster_bytes, live = before.header.cluster_bytes, recorded.base.clone()
    blocks = {offset // cluster_bytes: index for index, offset in {*before.blocks()} & {*after.blocks()}}
    peaks = np.zeros(after.clusters, dtype=np.uint64)
    codec = Codec(1 << before.header.refcount_order)
    for entry in recorded.log.for_device(recorded.device):
        apply(entry, live)
        here = range(entry.offset // cluster_bytes, ceil_div(entry.offset + entry.length, cluster_bytes))
        for cluster in blocks.keys() & here if entry.sort is Sort.WRITE else ():
            counts = codec.array(live.pread(cluster * cluster_bytes, cluster_bytes))
            part = peaks[blocks[cluster] * len(counts) :][: len(counts)]
            np.maximum(part, counts[: len(part)], out=part)
    return peaks


def _written(recorded: Recorded, cluster_bytes: int, clusters: int) -> NDArray[np.bool_]:
    """Return for each cluster of a file of so many whether the log wrote there, or made the file longer there."""
    written, size = np.zeros(clusters, dtype=np.bool_), recorded.base.size()
    for entry in recorded.log.for_device(recorded.device):
        start, end = entry.offset, entry.offset + entry.length
        if entry.sort is Sort.TRUNCATE:
            start, end, size = size, entry.offset, entry.offset
        written[start // cluster_bytes : ceil_div(end, cluster_bytes)] |= end > start
    return written


def _changes_nothing(recorded: Recorded, whole: MemoryFile) -> bool:
    """Tell whether base holds what the whole log leads to; what was discarded may hold anything."""
    base, gone, touched = recorded.base, set[int](), set[int]()
    for entry in recorded.log.entries:
        sectors = range(entry.offset // SECTOR, -(-(entry.offset + entry.length) // SECTOR))
        (gone if entry.sort is Sort.DISCARD else touched).update(sectors)
    compared = touched - gone
    same = (base.pread(each * SECTOR, SECTOR) == whole.pread(each * SECTOR, SECTOR) for each in compared)
    return bool(compared) and whole.size() == base.size() and all(same)


def _strange_header(recorded: Recorded) -> str:
    """Return why the first header that the log writes is no successor of the one in base, "" when it may be."""
    raw = next((each.data for each in recorded.log.entries if not each.offset and each.length >= _HEADER_BYTES), b"")
    if not raw:
        return ""
    try:
        old, new = read_header(recorded.base), Header.parse(raw)
    except ImageError:  # such a header is judged, like all that was written
        return ""
    for what, here, there in (
        ("a cluster size of {} bytes", old.cluster_bytes, new.cluster_bytes), ("version {}", old.version, new.version),
        ("counts of 2^{} bits", old.refcount_order, new.refcount_order),
    ):  # fmt: skip
        if here != there:
            return f"the first header that the log writes has {what.format(there)}, and the image {what.format(here)}"
    if abs(old.snapshot_count - new.snapshot_count) > 1:  # an operation adds one, or takes one away
        return (
            f"the first header that the log writes has {new.snapshot_count} snapshots, and the image"
            f" {old.snapshot_count}"
        )
    if old.size != new.size and old.snapshots_offset != new.snapshots_offset:  # no operation changes both
        return f"the first header that the log writes has a size of {new.size} bytes, and the image {old.size}"
    return ""


def _trouble(seen: Seen) -> str:
    if seen.error:
        return f"it does not open ({seen.error})"
    check = seen.check
    return f"it is corrupt ({check.messages[0]})" if check is not None and check.corruptions else ""
