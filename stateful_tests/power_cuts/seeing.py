"""What is seen of a disk that a power cut left: by the engine's own eyes, or by those of the driver under test."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace

from snapcheck.fault_injection.crash.judge import Judge, See
from snapcheck.fault_injection.crash.seen import Seen
from snapcheck.impl.blockfile import MemoryFile
from snapcheck.impl.driver import UnsupportedSetupError, abandon
from snapcheck.impl.targets import StartError, Target
from snapcheck.model.history import HANG, Check, EventList, Level, Observation, View
from snapcheck.model.setup import DeviceSpec, Setup
from snapcheck.stateful_tests.watchdog import HangError, Watchdog, watching

_DIED = "died: "  # before what a driver died of


def new_judge(target: Target, dog: Watchdog | None = None, *, each: Callable[[], None] | None = None) -> Judge:
    """Return who judges the disks of a target: the fast judge for qcow2 images, else the driver itself."""
    return Judge(see=None if target.format == "qcow2" else eyes_of(target, dog), each=each)


def eyes_of(target: Target, dog: Watchdog | None = None) -> See:
    """Return what looks at one disk through the driver: opened as a user would, listed, read, and opened again."""

    def look(disk: MemoryFile) -> Seen:
        try:
            with watching(dog, "a look at what a cut left"):
                return _as_seen(_observed(target, disk.clone()))
        except HangError:
            return Seen(error=f"{HANG} it did not end")
        except UnsupportedSetupError as error:
            return Seen(error=str(error))
        except StartError as error:
            return Seen(error=f"{_DIED}{error}")

    return look


def _observed(target: Target, disk: MemoryFile) -> Observation:
    """Return what a new system of the target shows of a disk; one that hangs is left as a power cut leaves it."""
    profile = target.usual_semantics
    with ExitStack() as ended:
        system = target.built([disk], semantics=profile.value, recorder=EventList())
        ended.callback(system.close)
        try:
            system.start(Setup((DeviceSpec("d0"),), profile))
            return system.observe("d0", level=Level.FULL)
        except HangError:
            ended.pop_all()
            abandon(system)
            raise


def _as_seen(seen: Observation) -> Seen:
    """Return what was observed in the judge's terms; what only a second open showed otherwise is an error."""
    view = seen.memory
    if seen.disk is not None and seen.disk != view:
        view = replace(view, errors=(*view.errors, "reopen: EIO"), content=None)
    contents = tuple(held for held in seen.contents or () if held is not None)
    digests = (repr(view), *map(repr, seen.contents or ()))
    if len(contents) != len(seen.contents or ()):  # what the API can not reach is not judged
        contents = ()
    return Seen(view=view, contents=contents, digests=digests, check=seen.check)


def observation(device: str, seen: Seen, target: Target) -> Observation:
    """Return what was seen as a history records it, with the snapshots as the target shows them."""
    if seen.error:
        word = seen.error if seen.error.startswith((_DIED, HANG)) else "EINVAL"
        view = View(errors=(f"open: {word}",))
        return Observation(device, Level.FULL, view, check=Check(messages=(seen.error,)))
    contents = seen.contents if len(seen.contents) == len(seen.view.snapshots or ()) else None
    view = seen.view
    if target.as_shown is not None and view.snapshots is not None:
        view = replace(view, snapshots=tuple(map(target.as_shown, view.snapshots)))
    if target.state_as_shown is not None and contents is not None:
        show = target.state_as_shown
        contents = tuple(
            held if held.vmstate is None else replace(held, vmstate=show(held.vmstate)) for held in contents
        )
    return Observation(device, Level.FULL, view, view, contents, seen.check)
