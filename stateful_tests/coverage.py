"""The coverage matrix: operation x fault x device position, and which of its cells a run reached."""

from collections import Counter
from collections.abc import Sequence

from snapcheck.model.device import Device
from snapcheck.model.operations import KINDS, OPERATIONS
from snapcheck.reports.verdict import Coverage
from snapcheck.stateful_tests.draw_faults import fault_words


def cells_of(devices: int, kinds: Sequence[str] | None) -> tuple[str, ...]:
    """Return all cells that the generators can reach, for groups of up to `devices` and the operations of a system."""
    return tuple(
        f"{KINDS[operation]} x {word} x d{position}"
        for operation in OPERATIONS
        if kinds is None or KINDS[operation] in kinds
        for word in fault_words(operation)
        for position in range(devices)
    )


def state_class(device: Device) -> str:
    """Return the kind of state that a device is in."""
    if not device.present or device.image is None:
        return "no medium"
    if device.read_only:
        return "read-only"
    return ("bare", "one snapshot", "several snapshots")[min(2, len(device.image.snapshots))]


def coverage(hits: Counter[str], *, devices: int, kinds: Sequence[str] | None) -> Coverage:
    """Return which cells were reached how often; one that nobody expected counts as a cell too."""
    cells = dict.fromkeys((*cells_of(devices, kinds), *hits))
    never = tuple(cell for cell in cells if not hits[cell])
    return Coverage(len(cells), len(cells) - len(never), never, dict(hits))
