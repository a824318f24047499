"""What happened: the events of a step, what was answered and observed, and the history that alone decides a verdict."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple, Protocol

from snapcheck.model.errno import Errno
from snapcheck.model.faults import Fault
from snapcheck.model.operations import Operation
from snapcheck.model.power_cut import Cut, Sent
from snapcheck.model.setup import Setup
from snapcheck.model.snapshot import SnapshotInfo

# Out-parameters are filled with these before a call, so that "not written" can be told from any real answer.
UNWRITTEN: Final = "\0unwritten"
UNWRITTEN_INFO: Final = SnapshotInfo(id_str=UNWRITTEN, name=UNWRITTEN)
HANG: Final = "hang:"  # how what a process died of begins when it did not answer


class Call(NamedTuple):
    """A call of the generic layer on a node, or from it into the driver below, was entered or returned.

    `function`: can, find, find_by_id_and_name, create, goto, delete, list, load_tmp. `layer`: generic or driver.
    `edge`: enter or return. On return `errno` is the outcome (can: OK for yes, ENOTSUP for no; find: ENOENT, a miss).
    `device` is the root node's name, `node` the node that was called (the root, or a child such as `d0/file`).
    """

    device: str
    node: str
    function: str
    layer: str
    edge: str
    errno: int = 0


class Lock(NamedTuple):
    """An AioContext changed hands: `action` is acquire, release, or blocked (a non-owner wanted it: a deadlock)."""

    device: str
    action: str
    owner: str


class Drain(NamedTuple):
    """A drained section of `device` began or ended: `action` is begin or end."""

    device: str
    action: str


class Request(NamedTuple):
    """A guest request of `device`: `action` is submit, start when it begins to land, or complete, with its errno.

    What is between start and complete is the request's own I/O, not that of the operation during which it lands.
    """

    device: str
    action: str
    errno: int = 0


class Io(NamedTuple):
    """One I/O reached the file below `device`: read, write, flush, discard or truncate, in bytes."""

    device: str
    kind: str
    offset: int
    length: int
    region: str = ""
    errno: int = 0


class FaultMet(NamedTuple):
    """The armed fault number `fault` (an index into the step's faults) struck `device`."""

    device: str
    fault: int


Event = Call | Lock | Drain | Request | Io | FaultMet


class Recorder(Protocol):
    """Whoever listens to what happens during a step. It is passed in; it never blocks and never raises."""

    def emit(self, event: Event, /) -> None: ...


class EventList:
    """A recorder that keeps the events of the step at hand, in order."""

    __slots__ = ("emit", "events")

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.emit = self.events.append

    def take(self) -> list[Event]:
        """Return the events since the last call, and forget them."""
        taken = self.events.copy()
        self.events.clear()
        return taken


@dataclass(frozen=True, slots=True)
class Result:
    """What an operation answered. A field that the operation does not have keeps its default.

    errno        outcome; OK where the C function returns no errno
    answer       can_snapshot, all_can_snapshot, find_by_id_and_name
    first_bad    the device that first_bad_bs names after the call, None for NULL, UNWRITTEN when it was not touched;
                 modern: the device that the error text names
    sn           the caller's struct after the call (create, find, find_by_id_and_name, all_create); UNWRITTEN_INFO
                 when find left it alone
    snapshots    what list returned
    device       what all_find_vmstate_bs returned
    data         what vmstate-read or loadvm read
    message      the error text (errp), None when it was not set
    crash        what the process under test died of, None while it lives
    """

    errno: Errno = Errno.OK
    answer: bool | None = None
    first_bad: str | None = None
    sn: SnapshotInfo | None = None
    snapshots: tuple[SnapshotInfo, ...] | None = None
    device: str | None = None
    data: bytes | None = None
    message: str | None = None
    crash: str | None = None


class Level(StrEnum):
    """How closely a device is looked at."""

    LIST = "list"  # the snapshot list in memory
    LIGHT = "light"  # and size and active content
    FULL = "full"  # and all of it again after closing and opening; every snapshot's content; the checker


@dataclass(frozen=True, slots=True)
class View:
    """One look at a device: its list, virtual size (sectors) and active content (a tag per sector).

    A part that was not looked at is None. A part that could not be read is None too, and `errors` says why
    ("list: EIO"); a node without a medium gives ENOMEDIUM for each. What a driver dies of while its image is checked
    is there too ("check: KeyError...").
    """

    snapshots: tuple[SnapshotInfo, ...] | None = None
    sectors: int | None = None
    content: bytes | None = None
    errors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SnapshotContent:
    """What one snapshot holds: a tag per sector, and its VM state where it has one. None where it could not be read.

    `stored_sectors` and `extra` are what its entry on disk says and no call tells: the size that goto brings back, and
    extra data that nobody here knows. None where the harness does not know the format.
    """

    content: bytes | None
    sectors: int | None = None
    vmstate: bytes | None = None
    error: str = ""
    stored_sectors: int | None = None
    extra: bytes | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """A checker's judgement of the image, in our terms (DESIGN.md section 5, no-corruption)."""

    corruptions: int = 0  # counts below references, overlaps, COPIED on a shared cluster, pointers out of bounds
    leaks: int = 0  # clusters counted more often than referenced
    copied_missing: int = 0  # refcount 1 without COPIED: a warning after errors and cuts
    messages: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Observation:
    """What was seen of one device after a step. `disk`, `contents` and `check` are there at level full only.

    `contents` stands beside `disk.snapshots`, entry by entry; None where the API can not reach that entry (an earlier
    one has the same id and name).
    """

    device: str
    level: Level
    memory: View
    disk: View | None = None
    contents: tuple[SnapshotContent | None, ...] | None = None
    check: Check | None = None
    held: str = ""  # why it could not be closed: whoever held on to it had to be ended before it was opened again


class Purpose(StrEnum):
    """Why a step was taken."""

    EXPLORE = "explore"  # drawn by a phase
    RETRY = "retry"  # the failed operation once more, without its fault (retry-heals)
    PROBE = "probe"  # going on after a failure (safe-to-use)


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a history: what was asked for, what happened, and what was seen afterwards, by device."""

    operation: Operation
    faults: tuple[Fault, ...] = ()
    purpose: Purpose = Purpose.EXPLORE
    skipped: tuple[int, ...] = ()  # faults that the system can not inject, as indices
    events: tuple[Event, ...] = ()
    result: Result = Result()
    observations: tuple[Observation, ...] = ()

    @property
    def met(self) -> tuple[Fault, ...]:
        """The faults that really struck, each once, in the order in which they were armed."""
        struck = self.struck
        return tuple(fault for index, fault in enumerate(self.faults) if index in struck)

    @property
    def struck(self) -> frozenset[int]:
        """Which faults really struck, as indices."""
        return frozenset(event.fault for event in self.events if isinstance(event, FaultMet))


class Care(StrEnum):
    """How closely devices are looked at after each step of a history."""

    LIGHT = "light"  # never more than a light look, and nothing is done after a failure: what a step costs at least
    ASKED = "asked"  # lightly, and closely where the caller asks; nothing is done after a failure
    LATE = (
        "late"  # closely where a fault struck and at the end, and nothing is done after a failure: for long histories
    )
    LIVE = "live"  # as LATE, but where a fault struck only if a device can not be read: what is in its memory lives on
    USUAL = "usual"  # closely after a failure and at the end, lightly otherwise
    CLOSE = "close"  # closely after every step: says which step did it, and closes devices all the time


class After(StrEnum):
    """What was done with what a power cut left, before it was looked at."""

    LOOK = "look"  # nothing: it was opened
    USE = "use"  # it was used further: guest writes, and snapshots taken, gone back to and deleted
    REPAIR = "repair"  # it was repaired, perhaps with a second cut in between
    OPEN = "open"  # it was opened for writing, with a second cut in between


@dataclass(frozen=True, slots=True)
class PowerCut:
    """How a history ended: the power went during its last step, or right after it (model/crash.py, crash_laws.py).

    persistence  the model of the medium that lets this survive, by its name
    devices      what survived; a device that is not there lost nothing
    returned     the last step had returned before the power went
    after        what was done then, and `again` what survived of the I/O of that, numbered anew, when it was cut too
    then         the steps of that, when they were steps
    seen         what was seen at last, by device
    log          what had been sent down to the disks
    """

    persistence: str
    devices: tuple[Cut, ...]
    returned: bool = False
    after: After = After.LOOK
    again: Cut | None = None
    then: tuple[Step, ...] = ()
    seen: tuple[Observation, ...] = ()
    log: tuple[Sent, ...] = ()


@dataclass(slots=True)
class History:
    """A setup and the steps from it; with the system's abilities this is all that a verdict needs.

    `cut` is there when a power cut ended it. `care` is how closely devices were looked at, where that is known.
    """

    setup: Setup
    steps: list[Step] = field(default_factory=list[Step])
    abilities: "Abilities | None" = None
    cut: PowerCut | None = None
    care: Care | None = None

    @property
    def answered(self) -> bool:
        """Whether it tells what happened, rather than only what to do."""
        return any(step.events for step in self.steps)


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a system can show and do; a law that needs more is not observable, never passed."""

    calls: bool = True  # it emits Call events
    locks: bool = True  # it emits Lock events
    drains: bool = True  # it emits Drain and Request events
    io: bool = True  # its I/O goes through the block files that it was given
    reopen: bool = True  # a device can be closed and opened again
    snapshot_contents: bool = True  # a snapshot's content can be read (load_tmp, or goto on a copy)
    check: bool = True  # there is a checker for its images
    first_bad: bool = True  # it names the first bad device
    cells: bool = True  # it fills the caller's cells: first_bad_bs (but for the modern profile), sn
    prepared_images: bool = True  # it opens qcow2 images that the harness prepared
    operations: tuple[str, ...] | None = None  # kinds that it can perform; None for all
    call_faults: bool = True  # calls of a driver's functions can be made to fail
    errnos: tuple[Errno, ...] | None = None  # what its disks can fail with; None for anything
    ids: bool = True  # a delete may be given an id
    any_bytes: bool = True  # names may hold bytes that are no UTF-8
    children: bool = True  # an operation on one node may address a child
    vmstate_bytes: int | None = None  # what it saves is a state of its own, of this size, which it dates itself
