"""What an operation on one device may answer and leave behind, and what the faults of a step let its driver do.

A device that met an error fault may absorb it, which is the reply without the fault, or report it (SPEC G); `Blow`
holds what it may report.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from snapcheck.model.device import ANY_ERROR, Allowed, Device, Expected, Image
from snapcheck.model.errno import Errno
from snapcheck.model.facts import root_of
from snapcheck.model.faults import CallFault, Fails, Family, Fault, IoFault, LandsButFails, Short, family

NOT_UNDONE: Final = "errors went on, so that nothing could be undone"  # why a device may be new after an error


class Reply(NamedTuple):
    """An answer that is allowed, and the states that the device may be in then; none when it is as it was."""

    expected: Expected
    states: tuple[Allowed, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether it reports an error, or says no where only yes or no can be said."""
        errnos = self.expected.errnos
        return self.expected.answer is False or (errnos is not None and Errno.OK not in errnos)


Replies = tuple[Reply, ...]


# --- faults ---------------------------------------------------------------------------------------
class Blow(NamedTuple):
    """What the faults that a device met at this step let its driver report, and what they may have kept it from.

    calls     errors that driver calls answered instead of doing anything, by function
    io        errors of I/O below the driver
    lasting   writes or flushes may have failed more than once: undoing, too
    landed    I/O that was reported as failed took effect
    """

    calls: Mapping[str, frozenset[Errno]]
    io: frozenset[Errno]
    lasting: bool = False
    landed: bool = False

    def errors(self, function: str) -> frozenset[Errno]:
        """Return what the driver's `function` may report: the errors of its I/O, or of the call itself."""
        return self.io | self.calls.get(function, NO_ERRORS)


NO_ERRORS: Final[frozenset[Errno]] = frozenset()
# A damaged device is not predicted: anything may fail there, nothing has to (model/faults.py).
WRECK: Final = Blow({}, ANY_ERROR, lasting=True, landed=True)


def blows_of(met: Sequence[Fault]) -> dict[str, Blow]:
    """Return what the error faults among those that struck let each device do; delays change nothing."""
    by_device: dict[str, list[Fault]] = {}
    for fault in met:
        if family(fault) is Family.ERROR:
            by_device.setdefault(root_of(fault.device), []).append(fault)
    return {device: _blow(faults) for device, faults in by_device.items()}


def _blow(faults: Sequence[Fault]) -> Blow:
    calls: dict[str, frozenset[Errno]] = {}
    for fault in faults:
        if isinstance(fault, CallFault):
            calls[fault.function] = calls.get(fault.function, NO_ERRORS) | {fault.errno}
    below = [fault for fault in faults if isinstance(fault, IoFault)]
    effects = [fault.effect for fault in below]
    changing = [fault for fault in below if fault.kind != "read"]  # one that only reads keeps nobody from undoing
    return Blow(
        calls,
        frozenset(effect.errno for effect in effects if isinstance(effect, Fails | LandsButFails | Short)),
        lasting=len(changing) > 1 or any(fault.times != 1 for fault in changing),
        landed=any(isinstance(effect, LandsButFails) for effect in effects),
    )


# --- replies and states ---------------------------------------------------------------------------
DONE: Final = Expected()
SAID: Final = Expected(message=False)  # success of a call that has an errp


@lru_cache(maxsize=256)
def failure(errnos: frozenset[Errno], message: bool | None = None) -> Reply:  # noqa: FBT001  # as in Expected
    """Return the reply that fails with one of `errnos` and leaves the device as it was."""
    return Reply(Expected(errnos, message=message))


def refusal(errno: Errno, message: bool | None = None) -> Replies:  # noqa: FBT001  # as in Expected
    """Return the only reply where `errno` is what is to be said."""
    return (failure(frozenset((errno,)), message),)


def image_of(device: Device) -> Image:
    """Return the image of a device that has a medium."""
    assert device.image is not None, "only an empty drive has no image, and that has no medium either"
    return device.image


def closed(device: Device, *, read_only: bool, present: bool) -> Device:
    """Return `device` after a close: a view ends, bitmaps go away, as they are not persistent here (SPEC A.8, A.5)."""
    image = device.image
    if image is not None and image.view is not None:
        image = image._replace(view=None)
    return Device(device.spec, image, read_only, present, in_flight=device.in_flight, damaged=device.damaged)
