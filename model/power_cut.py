"""What survived a power cut on one device, as plain data.

The I/O of a history that changes something, and each flush, has a number: one global order over all devices, from 0 on.
A cut says by these numbers what survived, so that a report can tell "write 3 was lost", and the image can be made again.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Torn:
    """Of the write with that number these sectors survived, counted from its first one, and the others did not."""

    number: int
    sectors: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class DeviceCut:
    """What survived on a device, of its I/O alone.

    at       all with a number below it survived
    end      those from it on had not been issued yet
    lost     of those in between: the numbers of the ones of which nothing survived
    torn     and those of which parts did; everything else in between survived
    fill     what is where lost data should be: "old", "zero" or "garbage"
    """

    device: str
    at: int
    end: int
    lost: tuple[int, ...] = ()
    torn: tuple[Torn, ...] = ()
    fill: str = "old"
