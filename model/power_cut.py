"""What survived a power cut on one device, as plain data.

What a history sends down to its disks has a number: one order over all devices, from 0 on, flushes included and reads
left out. A cut says by these numbers what survived, so that a report can tell "write 3 was lost", and the image can be
made again.
"""

from dataclasses import dataclass
from enum import StrEnum


class Filling(StrEnum):
    """What is found where lost sectors should be."""

    OLD = "old"  # what was there before
    ZERO = "zero"
    GARBAGE = "garbage"


@dataclass(frozen=True, slots=True)
class TornWrite:
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
    torn: tuple[TornWrite, ...] = ()
    fill: Filling = Filling.OLD


@dataclass(frozen=True, slots=True)
class Sent:
    """Something that was sent down to a disk, without its data: what a report draws.

    step    the index of the step that sent it, None before the first
    sort    write, zeroes, discard, flush or truncate
    offset  in bytes; of a truncate the new size
    region  what the bytes are to the driver, "" when it did not say
    """

    number: int
    device: str
    step: int | None
    sort: str
    offset: int = 0
    length: int = 0
    region: str = ""
