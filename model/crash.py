"""What a power cut may leave of each device: pure, and without a word about any format (DESIGN.md section 5).

A medium keeps what was flushed and any part of what came later. So of the active layer each sector holds what it held
at the last flush, or anything that was written there since. Snapshots are more than that: create, goto and delete that
have returned are durable by themselves, and the one that is at work when the power goes has happened or has not.

An operation on a group changes one device after the other. `course` gives the stages that it goes through; a cut
leaves all devices in one and the same of them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from snapcheck.model.device import Content, Device, Image, Outcome, Snapshot, World
from snapcheck.model.errno import Errno
from snapcheck.model.facts import members, root_of
from snapcheck.model.guest import landed
from snapcheck.model.history import Observation
from snapcheck.model.match import Difference, state_differences
from snapcheck.model.operations import AllDelete, AllGoto, Flush, Goto, LoadVm, Operation, Reopen, SaveVm, Transaction
from snapcheck.model.setup import Kind
from snapcheck.model.step import step

_ANYTHING: Final = bytes(range(256))  # where nothing is promised of a sector
# After these the active layer is what it is said to be. To close an image flushes it, as QEMU does before any driver.
_MAKES_EXACT: Final = (Flush, Goto, AllGoto, LoadVm, Reopen)
JUDGED: Final = frozenset({Kind.DRIVER, Kind.RAW_OVER, Kind.FILTER_OVER})  # those that keep an image of the driver


@dataclass(frozen=True, slots=True)
class Remains:
    """What a device may hold after a cut: these snapshots, one of these sizes, and of these tags one in each sector.

    `sizes` are in sectors, ascending; `content` has the tags that each sector may hold, without those of VM state, of
    which nothing is promised but what a snapshot keeps.
    """

    snapshots: tuple[Snapshot, ...]
    sizes: tuple[int, ...]
    content: tuple[bytes, ...]

    def images(self) -> Iterator[Image]:
        """Yield what this may look like: an image for each size."""
        for size in self.sizes:
            here = self.content[:size]
            tags = bytes(each[0] for each in here)
            maybe = tuple((sector, each[1:]) for sector, each in enumerate(here) if len(each) > 1)
            yield Image(size, Content(tags, maybe), None, self.snapshots)


Survivors = Mapping[str, Remains]


def exactly(device: Device) -> Remains:
    """Return what is left of a device all of which is on its medium."""
    image = device.image
    assert image is not None, "a drive without a medium is not judged"
    return Remains(image.snapshots, (image.sectors,), tuple(_possible(image)))


def _possible(image: Image) -> Iterator[bytes]:
    tags, maybe = image.content.tags, dict(image.content.maybe)
    for sector in range(image.sectors):
        if sector < len(tags):
            yield _each_once(tags[sector : sector + 1] + maybe.get(sector, b""))
        else:
            yield _ANYTHING


def _each_once(tags: bytes) -> bytes:
    return tags if len(tags) == 1 else bytes(dict.fromkeys(tags))


def widened(remains: Remains, device: Device) -> Remains:
    """Return what may be left once `device` is what the driver says, and nothing of that was flushed.

    Its snapshots are there nevertheless.
    """
    new = exactly(device)
    if new == remains:
        return remains
    longest = max(len(remains.content), len(new.content))
    content = tuple(_both(remains.content, new.content, sector) for sector in range(longest))
    return Remains(new.snapshots, tuple(sorted({*remains.sizes, *new.sizes})), content)


def _both(old: Sequence[bytes], new: Sequence[bytes], sector: int) -> bytes:
    before = old[sector] if sector < len(old) else b""
    after = new[sector] if sector < len(new) else b""
    return before if before == after else _each_once(before + after)


# --- how an operation comes about -----------------------------------------------------------------
class Change(NamedTuple):
    """What an operation makes of one device; `exact`: what is on the medium then is all of it."""

    device: str
    after: Device
    exact: bool = False


def changes_of(world: World, operation: Operation) -> tuple[Change, ...]:
    """Return the changes that `operation` makes in the state `world`, one device after the other.

    savevm drops the old snapshot everywhere before it takes the new one anywhere; a transaction goes through its
    actions, two on one device as well, and when it fails takes back what it created, the last one first.
    """
    outcome = _outcome(world, operation)
    began = _succeeded(outcome) or bool(outcome.devices)  # one that comes back to where it was changes devices too
    if isinstance(operation, SaveVm) and operation.name is not None and began:
        dropped = _changes(world, AllDelete(operation.name))
        return (*dropped, *(Change(name, _at_last(outcome, world, name)) for name in members(operation, world)))
    if isinstance(operation, Transaction):
        return _action_by_action(world, operation)
    return _changes(world, operation)


def _outcome(world: World, operation: Operation) -> Outcome:
    return step(world, operation, ())[0]


def _succeeded(outcome: Outcome) -> bool:
    return outcome.expected.errnos is not None and Errno.OK in outcome.expected.errnos


def _changes(world: World, operation: Operation) -> tuple[Change, ...]:
    outcome = _outcome(world, operation)
    exact = isinstance(operation, _MAKES_EXACT)
    touched = members(operation, world)
    if not (exact and _succeeded(outcome)):
        touched = tuple(name for name in touched if name in outcome.devices)
    return tuple(Change(name, _at_last(outcome, world, name), exact=exact) for name in touched)


def _at_last(outcome: Outcome, world: World, name: str) -> Device:
    states = outcome.devices.get(name)
    return world.devices[name] if states is None else states[0].state


def _action_by_action(world: World, operation: Transaction) -> tuple[Change, ...]:
    """Return what each action makes of its device, and when one is refused what taking the others back makes of it."""
    made: list[Change] = []
    for length, action in enumerate(operation.actions, 1):
        outcome = _outcome(world, replace(operation, actions=operation.actions[:length]))
        if not _succeeded(outcome):
            return (*made, *_undone(world, made))
        name = root_of(action.device)
        made.append(Change(name, _at_last(outcome, world, name)))
    return tuple(made)


def _undone(world: World, made: Sequence[Change]) -> Iterator[Change]:
    for at in reversed(range(len(made))):
        name = made[at].device
        earlier = [change.after for change in made[:at] if change.device == name]
        yield Change(name, earlier[-1] if earlier else world.devices[name])


@dataclass(frozen=True, slots=True)
class Course:
    """The stages of an operation: what each device may hold, before it, after each of its changes, and at last.

    Once the operation has returned only the last stage is left. `changing` are the devices that it changes.
    """

    stages: tuple[Survivors, ...]
    changing: frozenset[str]

    @property
    def last(self) -> int:
        """The number of the last stage."""
        return len(self.stages) - 1


def begin(world: World) -> Survivors:
    """Return what may be left of the devices of a history that begins, all of which is on their media."""
    return {
        name: exactly(device)
        for name, device in world.devices.items()
        if device.image is not None and device.spec.kind in JUDGED
    }


def course(remains: Survivors, world: World, operation: Operation) -> Course:
    """Return the stages of `operation`, which begins in the state `world` with `remains` on the media.

    Guest requests that are in flight may land at any time from then on, before or after what the operation does, and
    nothing says that they are flushed.
    """
    quiet = _without_requests(world)
    alone = () if quiet is world else changes_of(quiet, operation)
    stages: list[Survivors] = [
        {name: widened(each, landed(world.devices[name], None)) for name, each in remains.items()}
    ]
    changing: set[str] = set()
    for change in changes_of(world, operation):
        now = stages[-1]
        if change.device in now:
            before = now[change.device]
            for other in alone:
                before = widened(before, other.after) if other.device == change.device else before
            exact = change.exact and quiet is world
            after = exactly(change.after) if exact else widened(before, change.after)
            if after != now[change.device]:
                stages.append({**now, change.device: after})
                changing.add(change.device)
    return Course(tuple(stages), frozenset(changing))


def _without_requests(world: World) -> World:
    """Return `world` as it is when no guest request is in flight on any device."""
    if not any(device.in_flight for device in world.devices.values()):
        return world
    return World({name: device._replace(in_flight=()) for name, device in world.devices.items()}, world.semantics)


# --- what was seen --------------------------------------------------------------------------------
def stages_that_fit(stages: Course, device: Device, seen: Observation) -> frozenset[int]:
    """Return the stages in which `device` may be what was seen of it."""
    alike: dict[int, bool] = {}  # the same remains are in several stages
    fitting: set[int] = set()
    for number, stage in enumerate(stages.stages):
        remains = stage[device.spec.name]
        if id(remains) not in alike:
            alike[id(remains)] = not differences(remains, device, seen)
        if alike[id(remains)]:
            fitting.add(number)
    return frozenset(fitting)


def differences(remains: Remains, device: Device, seen: Observation) -> tuple[Difference, ...]:
    """Return where `seen` is not what may remain; none when it is. Of several sizes the nearest one counts."""
    found = [state_differences(_holding(device, image), seen, struck=False) for image in remains.images()]
    return min(found, key=len)


def _holding(device: Device, image: Image) -> Device:
    return Device(device.spec, image)


def as_seen(remains: Remains, device: Device, seen: Observation) -> Device:
    """Return the device as it is after a cut: what may remain, decided by what was seen, which must fit it."""
    view = seen.memory
    assert view.sectors is not None, "what fits could be read"
    assert view.content is not None, "what fits could be read"
    return _holding(device, Image(view.sectors, Content(view.content), None, remains.snapshots))
