"""What L1 and L2 tables of crash states with one frame refer to."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from snapcheck.fault_injection.crash.frame import Frame
from snapcheck.fault_injection.crash.versions import Flags, Numbers, Versions, marked
from snapcheck.impl.qcow2 import compressed
from snapcheck.impl.qcow2.layout import COMPRESSED, COPIED, OFFSET_MASK, ZERO

Words64 = NDArray[np.uint64]

_MASK: Final = np.uint64(OFFSET_MASK)
_COPIED_BIT: Final = np.uint64(COPIED)
_COMPRESSED_BIT: Final = np.uint64(COMPRESSED)
_L1_RESERVED: Final = np.uint64(~(COPIED | OFFSET_MASK) & (1 << 64) - 1)


# --- L1 -------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Trees:
    """What the L1 tables of a frame refer to.

    tables  the clusters of all L2 tables, in ascending order
    slots   by L1 table: for each of its entries which of the `tables` it refers to, -1 for none
    wrong   by L1 table: whether an entry is not as it should be, or the table can not be where it is said to be
    times   by table: how often any L1 table refers to it
    active  by table: whether the active L1 table does
    """

    tables: Numbers
    slots: Sequence[Numbers]
    wrong: Sequence[bool]
    times: Numbers
    active: Flags


def trees_of(frame: Frame) -> Trees:
    """Return the trees of a frame."""
    clusters = frame.clusters
    l1_tables = [np.frombuffer(l1 or b"", dtype=np.uint64) for l1 in frame.l1_tables]
    pointers = [_pointers(l1, frame.cluster_bits, clusters) for l1 in l1_tables]
    wrong = [
        l1 is None or bool((words & _L1_RESERVED).any()) or bool(((found < 0) & ((words & _MASK) != 0)).any())
        for l1, words, found in zip(frame.l1_tables, l1_tables, pointers, strict=True)
    ]
    every = np.concatenate(pointers)
    tables = marked(every[every >= 0], clusters).nonzero()[0]
    place = np.full(clusters + 1, -1, dtype=np.int64)  # the last one is for what refers to nothing
    place[tables] = np.arange(len(tables))
    slots = [place[found] for found in pointers]
    size = len(tables)
    times = np.bincount(np.concatenate(slots) + 1, minlength=size + 1)[1:].astype(np.int64)
    return Trees(tables, slots, wrong, times, marked(slots[0][slots[0] >= 0], size))


def _pointers(words: Words64, bits: int, clusters: int) -> Numbers:
    """Return the cluster that each word refers to, -1 where it refers to none of the file."""
    offsets = (words & _MASK).astype(np.int64)
    good = (offsets > 0) & (offsets & ((1 << bits) - 1) == 0) & (offsets >> bits < clusters)
    return np.where(good, offsets >> bits, -1)


def any_of_row(flags: Flags) -> Flags:
    """Return by row whether any of its flags is set."""
    found: Flags = np.logical_or.reduce(flags, axis=1)
    return found


# --- L2 -------------------------------------------------------------------------------------------
class Entries(NamedTuple):
    """References of L2 entries to clusters of the file; a compressed entry has up to three."""

    rows: Numbers
    places: Numbers  # in the row
    clusters: Numbers
    copied: Flags
    uncopied: Flags  # neither, where it is compressed
    shown: Flags  # what the guest reads depends on what the cluster holds


class Loose(NamedTuple):
    """L2 entries that show something that depends on more than what a cluster holds: compressed or bad ones."""

    rows: Numbers
    places: Numbers
    words: Words64


@dataclass(frozen=True, slots=True)
class L2Rows:
    """All versions of all L2 tables, a row for each.

    table  which table it is of
    first  by table its first row; the versions of a table follow each other
    wrong  whether an entry in it is not as it should be
    """

    table: Numbers
    first: Numbers
    wrong: Flags
    entries: Entries
    loose: Loose


class L2Tables:
    """Reads L2 tables, and remembers: most frames have those of another one."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], L2Rows] = {}

    def rows(self, versions: Sequence[Versions], frame: Frame) -> L2Rows:
        """Return the rows of all L2 tables of a frame, whose versions these are."""
        contents = tuple(each.contents for each in versions)
        key = (contents, frame.cluster_bits, frame.clusters, frame.limit, frame.l2_flags)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = _l2_rows(contents, frame)
        return known


def _l2_rows(versions: Sequence[tuple[bytes, ...]], frame: Frame) -> L2Rows:
    clusters, bits, l2_bits = frame.clusters, frame.cluster_bits, frame.l2_bits
    counts = np.array([len(contents) for contents in versions], dtype=np.int64)
    raw = b"".join(content for contents in versions for content in contents)
    words = np.frombuffer(raw, dtype=">u8").astype(np.uint64)
    used = words & np.uint64(OFFSET_MASK | ~frame.l2_flags & (1 << 64) - 1)
    where = (used != 0).nonzero()[0]  # of flags: that is quicker than of numbers
    words = words[where]
    packed = (words & _COMPRESSED_BIT) != 0
    reserved = ~packed & ((words & np.uint64(~(frame.l2_flags | OFFSET_MASK) & (1 << 64) - 1)) != 0)
    pointers = np.where(packed, -1, _pointers(words, bits, clusters))
    astray = ~packed & (pointers < 0) & ((words & _MASK) != 0)
    first, last, outside = _packed(words[packed], bits, clusters)
    wrong = reserved | astray
    wrong[packed] = outside | ((words[packed] & _COPIED_BIT) != 0)
    rows, places = where >> l2_bits, where & ((1 << l2_bits) - 1)
    unreadable = reserved | (pointers >= frame.limit)
    plain = (pointers >= 0).nonzero()[0]
    shown = ~unreadable & ((words & np.uint64(ZERO)) == 0)
    copied = (words & _COPIED_BIT) != 0
    parts = [(plain, pointers[plain], copied[plain], ~copied[plain], shown[plain])]
    for step in range(compressed.CLUSTERS_TOUCHED_MAX):
        touched = (first + step <= last) & ~outside
        nothing = np.zeros(int(touched.sum()), dtype=np.bool_)
        parts.append((packed.nonzero()[0][touched], first[touched] + step, nothing, nothing, ~nothing))
    index, clusters_, copied_, uncopied_, shown_ = (np.concatenate(part) for part in zip(*parts, strict=True))
    loose = packed | astray | unreadable
    bad_rows = np.zeros(int(counts.sum()), dtype=np.bool_)
    bad_rows[rows[wrong]] = True
    return L2Rows(
        np.repeat(np.arange(len(versions), dtype=np.int64), counts), np.cumsum(counts) - counts, bad_rows,
        Entries(rows[index], places[index], clusters_, copied_, uncopied_, shown_),
        Loose(rows[loose], places[loose], words[loose]),
    )  # fmt: skip


def _packed(words: Words64, bits: int, clusters: int) -> tuple[Numbers, Numbers, Flags]:
    """Return the first and the last cluster of compressed entries, and whether they end behind the file."""
    first, last = compressed.first_and_last(words, bits)
    return first, last, last >= clusters
