"""Repair: what a check can put right without guessing, each step safe to be cut off.

    repaired = repair(file)
    print(repaired.done, repaired.after.clean)

In this order: entries of the snapshot table, refcounts (in place, or all anew behind the end of the file where the old
table can not be used), COPIED bits, and at last the bits that say the image needs repair. Pointers that lead nowhere
are left as they are: what they meant is lost, and only their owner may decide what becomes of them.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from snapcheck.impl.blockfile import BlockFile
from snapcheck.impl.qcow2.check import Inspection, Report, inspect
from snapcheck.impl.qcow2.host import Codec
from snapcheck.impl.qcow2.layout import (
    COMPRESSED,
    COPIED,
    CORRUPT,
    DIRTY,
    FEATURE_FIELDS,
    OFFSET_MASK,
    REFCOUNT_FIELDS,
    REFCOUNT_TABLE_BYTES_MAX,
    SNAPSHOT_FIELDS,
    Header,
    ImageError,
    SnapshotEntry,
    ceil_div,
    pack_snapshots,
)

_MASK64: Final = np.uint64(OFFSET_MASK)
_COPIED64: Final = np.uint64(COPIED)


@dataclass(frozen=True, slots=True)
class Repaired:
    """What was found, what was done about it in words, and what a check says now."""

    before: Report
    done: tuple[str, ...]
    after: Report


def repair(file: BlockFile) -> Repaired:
    """Repair the image in `file` as far as that goes; `ImageError` when it can not even be checked."""
    done: list[str] = []
    inspection = Inspection(file, lenient=True)
    before = inspection.report()
    if _rewrite_snapshots(inspection):
        done.append("the snapshot table was written anew")
        inspection = Inspection(file, lenient=True)
        inspection.report()
    done += _repair_refcounts(inspection)
    entries = _repair_copied(inspection)
    if entries:
        done.append(f"COPIED was set right in {entries} entries")
    after = inspect(file)
    done += _clear_bits(file, after)
    return Repaired(before, tuple(done), inspect(file))


# --- snapshots ------------------------------------------------------------------------------------
def _rewrite_snapshots(inspection: Inspection) -> bool:
    """Write the snapshot table anew, behind the end of the file, when an entry is not as it should be."""
    header, table = inspection.header, inspection.snapshots
    if all(_is_in_order(index, entry, header) for index, entry in enumerate(table.entries)):
        return False
    raw = pack_snapshots(table.entries)
    offset = inspection.clusters << header.cluster_bits
    inspection.file.pwrite(offset, raw.ljust(-(-len(raw) // 512) * 512, b"\0"), region="snapshot-table")
    _publish(inspection.file, header._replace(snapshots_offset=offset), SNAPSHOT_FIELDS)
    return True


def _is_in_order(index: int, entry: SnapshotEntry, header: Header) -> bool:
    try:
        entry.require_in_order(index, header)
    except ImageError:
        return False
    return True


# --- refcounts ------------------------------------------------------------------------------------
def _repair_refcounts(inspection: Inspection) -> list[str]:
    """Make every refcount what the references say."""
    header, references = inspection.header, inspection.references
    if int(references.max(initial=0)) > header.refcount_max:
        raise ImageError(f"refcount_order: a cluster has more references than {1 << header.refcount_order} bits hold")
    if inspection.uncounted:
        _rebuild(inspection)
        return ["the refcount table was built anew"]
    wrong = int((inspection.counts != references).sum())
    if wrong or inspection.counted_behind_end:
        _correct_blocks(inspection)
        return [f"{wrong + inspection.counted_behind_end} refcounts were set right"]
    return []


def _correct_blocks(inspection: Inspection) -> None:
    """Write those refcount blocks anew that hold a wrong number."""
    header, file = inspection.header, inspection.file
    codec = Codec(1 << header.refcount_order)
    entries = header.cluster_bytes * 8 // codec.bits
    for index, offset in inspection.blocks():
        right = np.zeros(entries, dtype=codec.dtype)
        part = inspection.references[index * entries : (index + 1) * entries]
        right[: len(part)] = part
        raw = codec.encode(codec.words(right))
        if file.pread(offset, header.cluster_bytes, region="refcount-block") != raw:
            file.pwrite(offset, raw, region="refcount-block")
    file.flush()


def _rebuild(inspection: Inspection) -> None:
    """Write a new refcount table and new blocks behind the end of the file, and forget the old ones."""
    header = inspection.header
    codec = Codec(1 << header.refcount_order)
    size, first = header.cluster_bytes, inspection.clusters
    blocks, table = _plan(first, size, size * 8 // codec.bits)
    if table * size > REFCOUNT_TABLE_BYTES_MAX:
        raise ImageError("refcount_table: the file is too large for a new one")
    counts = np.zeros(blocks * size * 8 // codec.bits, dtype=codec.dtype)
    counts[:first] = inspection.references - inspection.own_references
    counts[first : first + blocks + table] = 1
    offsets = np.arange(first, first + blocks, dtype=np.uint64) << np.uint64(header.cluster_bits)
    raw = codec.encode(codec.words(counts)) + offsets.astype(">u8").tobytes().ljust(table * size, b"\0")
    inspection.file.pwrite(first * size, raw, region="refcount-block")
    new = header._replace(refcount_table_offset=(first + blocks) * size, refcount_table_clusters=table)
    _publish(inspection.file, new, REFCOUNT_FIELDS)


def _plan(clusters: int, cluster_bytes: int, block_entries: int) -> tuple[int, int]:
    """Return how many blocks, and clusters of a table, count `clusters` and themselves."""
    blocks, table = 1, 1
    while (needed := ceil_div(clusters + blocks + table, block_entries)) > blocks:
        blocks = needed
        table = ceil_div(blocks * 8, cluster_bytes)
    return blocks, table


# --- COPIED ---------------------------------------------------------------------------------------
def _repair_copied(inspection: Inspection) -> int:
    """Set COPIED in the active tree exactly where there is one reference; return how many entries changed."""
    header, file = inspection.header, inspection.file
    own = inspection.own_references if inspection.uncounted else 0
    alone = inspection.references - own == 1
    l1, changed = _with_copied(file.pread(header.l1_offset, header.l1_size * 8, region="l1"), alone, header, step=1)
    if changed:
        file.pwrite(header.l1_offset, l1, region="l1")
    for offset in _l2_offsets(l1, inspection):
        raw = file.pread(offset, header.cluster_bytes, region="l2")
        l2, entries = _with_copied(raw, alone, header, step=2 if header.extended_l2 else 1)
        if entries:
            file.pwrite(offset, l2, region="l2")
        changed += entries
    if changed:
        file.flush()
    return changed


def _l2_offsets(l1: bytes, inspection: Inspection) -> list[int]:
    """Return where the L2 tables of an L1 table are, as far as they can be there."""
    header = inspection.header
    offsets = np.unique(np.frombuffer(l1, dtype=">u8").astype(np.uint64) & _MASK64)
    there = (offsets > 0) & ((offsets & np.uint64(header.cluster_bytes - 1)) == 0)
    there &= offsets >> np.uint64(header.cluster_bits) < inspection.clusters
    return [int(offset) for offset in offsets[there]]


def _with_copied(raw: bytes, alone: NDArray[np.bool_], header: Header, *, step: int) -> tuple[bytes, int]:
    """Return a table with COPIED right in every `step`-th word, and how many words that changed.

    `alone` says of each cluster whether there is one reference to it.
    """
    words = np.frombuffer(raw, dtype=">u8").astype(np.uint64)
    entries = words[::step]
    clusters = ((entries & _MASK64) >> np.uint64(header.cluster_bits)).astype(np.int64)
    plain = (
        (clusters > 0) & (clusters < len(alone)) & ((entries & np.uint64(COMPRESSED | header.cluster_bytes - 512)) == 0)
    )
    owned = plain.copy()
    owned[plain] = alone[clusters[plain]]
    wanted = np.where(owned, entries | _COPIED64, entries & ~_COPIED64)
    changed = int((wanted != entries).sum())
    words[::step] = wanted
    return words.astype(">u8").tobytes(), changed


# --- the bits -------------------------------------------------------------------------------------
def _clear_bits(file: BlockFile, report: Report) -> list[str]:
    """Take away what says that the image needs repair, as far as that is not true any more."""
    done: list[str] = []
    header = report.header
    if header.incompatible & DIRTY:
        header = header._replace(incompatible=header.incompatible & ~DIRTY)
        done.append("the dirty bit was cleared")
    if header.incompatible & CORRUPT and not report.corruptions:
        header = header._replace(incompatible=header.incompatible & ~CORRUPT)
        done.append("the corrupt bit was cleared")
    if done:
        _publish(file, header, FEATURE_FIELDS)
    return done


def _publish(file: BlockFile, header: Header, fields: tuple[int, int]) -> None:
    """Write bytes of the header, after and before everything else."""
    file.flush()
    file.pwrite(fields[0], header.pack()[slice(*fields)], region="header")
    file.flush()
