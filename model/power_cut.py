"""What survived a power cut on one device, as plain data.

What a history sends down to its disks has a number: one order over all devices, from 0 on, flushes included and reads
left out. A cut says by these numbers what survived, so that a report can tell "write 3 was lost", and the image can be
made again.
"""

from dataclasses import dataclass
from enum import StrEnum


class Fill(StrEnum):
    """What is found where lost sectors should be."""

    OLD = "old"  # what was there before
    ZERO = "zero"
    GARBAGE = "garbage"


@dataclass(frozen=True, slots=True)
class Torn:
    """A write of which some sectors did not survive, counted from its first."""

    number: int
    lost: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Cut:
    """The power of a device fails before number `at` is issued.

    dropped  the numbers below `at` of that device of which nothing survived
    torn     those of which some sectors did not
    fill     what is found where those were to be
    """

    device: str
    at: int
    dropped: tuple[int, ...] = ()
    torn: tuple[Torn, ...] = ()
    fill: Fill = Fill.OLD
