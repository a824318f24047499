"""What the events of one step say: who was called in which order, what changed a device, and what was left held.

A snapshot call counts as the operation's own when it is not nested in another: bdrv_snapshot_find calls the list, and
a node without snapshots of its own calls its child. The laws of group operations look at the operation's own calls.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from snapcheck.model.errno import Errno
from snapcheck.model.history import Call, Event, FaultMet, Io, Lock, Request
from snapcheck.model.operations import (
    AllDelete,
    DelVm,
    LoadVm,
    Operation,
    SaveVm,
    Transaction,
)

CHANGING_CALLS: Final = frozenset({"create", "goto", "delete"})
CHANGING_IO: Final = frozenset({"write", "discard", "truncate"})


class OwnCall(NamedTuple):
    """A snapshot call that the operation made on a node; places are indices into the step's events."""

    device: str
    node: str
    function: str
    errno: int
    entered: int
    returned: int

    @property
    def failed(self) -> bool:
        return self.errno != Errno.OK


class GroupCall(NamedTuple):
    """The own calls that belong to one bdrv_all_* call, and the place where that had returned."""

    kind: str
    calls: Sequence[OwnCall]
    ended: int

    def culprit(self) -> OwnCall | None:
        """Return the first call that makes this group call fail, as SPEC A.10 has it: a failed find skips a delete."""
        return next((call for call in self.calls if call.failed and call.function == self.kind), None)


class Touch(NamedTuple):
    """A device was changed, or was about to be: by a snapshot call, or by I/O that no guest request explains."""

    device: str
    what: str


class Entered(NamedTuple):
    """A driver was entered while guest requests were in flight on `busy` devices."""

    device: str
    function: str
    busy: frozenset[str]


class Flushing(NamedTuple):
    """Whether an operation wrote, also behind its last flush that succeeded, and the errno of each of its flushes."""

    wrote: bool
    wrote_behind: bool
    flushes: tuple[int, ...]


class Trace:
    """The events of one step, read once. `in_flight` counts the guest requests that earlier steps left behind."""

    __slots__ = ("blocked", "calls", "entered_busy", "events", "held", "in_flight", "io_count", "struck", "unlocked")

    def __init__(self, events: Sequence[Event], in_flight: Mapping[str, int]) -> None:
        self.events = events
        self.calls: list[OwnCall] = []
        self.struck: list[FaultMet] = []
        self.io_count = 0
        self.held: dict[str, int] = {}
        self.blocked: list[Lock] = []
        self.unlocked: list[Call] = []  # own calls on a device whose lock nobody held
        self.in_flight: dict[str, int] = dict(in_flight)
        self.entered_busy: list[Entered] = []
        self._read()

    def _read(self) -> None:
        open_calls: list[tuple[int, Call]] = []
        for place, event in enumerate(self.events):
            kind = type(event)
            if kind is Io:
                self.io_count += 1
            elif isinstance(event, Call):
                self._call(place, event, open_calls)
            elif isinstance(event, Lock):
                self._lock(event)
            elif isinstance(event, Request):
                self._request(event)
            elif isinstance(event, FaultMet):
                self.struck.append(event)

    def _call(self, place: int, call: Call, open_calls: list[tuple[int, Call]]) -> None:
        if call.layer == "driver":
            if call.edge == "enter" and call.function in CHANGING_CALLS and any(self.in_flight.values()):
                busy = frozenset(device for device, count in self.in_flight.items() if count)
                self.entered_busy.append(Entered(call.device, call.function, busy))
        elif call.edge == "enter":
            if not open_calls and not self.held.get(call.device):
                self.unlocked.append(call)
            open_calls.append((place, call))
        elif open_calls:
            entered, first = open_calls.pop()
            if not open_calls:
                self.calls.append(OwnCall(first.device, first.node, first.function, call.errno, entered, place))

    def _lock(self, lock: Lock) -> None:
        if lock.action == "blocked":
            self.blocked.append(lock)
        else:
            self.held[lock.device] = self.held.get(lock.device, 0) + (1 if lock.action == "acquire" else -1)

    def _request(self, request: Request) -> None:
        if request.action == "submit":
            self.in_flight[request.device] = self.in_flight.get(request.device, 0) + 1
        elif request.action == "complete":
            self.in_flight[request.device] = max(0, self.in_flight.get(request.device, 0) - 1)

    def group_calls(self, operation: Operation) -> tuple[GroupCall, ...]:
        """Split the own calls into the bdrv_all_* calls that `operation` consists of, in order."""
        pieces: list[tuple[str, list[OwnCall]]] = []
        deletes = isinstance(operation, AllDelete | SaveVm | DelVm)
        for call in self.calls:
            kind = "delete" if deletes and call.function == "find" else call.function
            if not pieces or pieces[-1][0] != kind:
                pieces.append((kind, []))
            pieces[-1][1].append(call)
        ends = (*(calls[0].entered for _, calls in pieces[1:]), len(self.events))
        return tuple(GroupCall(kind, calls, end) for (kind, calls), end in zip(pieces, ends, strict=False))

    def culprit(self, operation: Operation, *, modern: bool) -> OwnCall | None:
        """Return the call that the operation's failure is to be blamed on, None when no device is to blame.

        A find blames a device only in the classic all-find; modern ones name nobody (A.11). The single find of loadvm
        on the vmstate device is no group call: it comes after the second round of can_snapshot, and names nobody.
        """
        groups = self.group_calls(operation)
        if isinstance(operation, Transaction):
            return next((call for call in self.calls if call.failed and call.function == "create"), None)
        found = False
        for group in groups:
            if group.kind == "find" and (modern or (isinstance(operation, LoadVm) and found)):
                continue
            found = found or group.kind == "find"
            culprit = group.culprit()
            if culprit is not None:
                return culprit
        return None

    def flushing(self, device: str) -> Flushing:
        """Return what the operation wrote to `device` and how it flushed; what requests do while landing is not its."""
        wrote = behind = landing = False
        flushes: list[int] = []
        for event in self.events:
            if isinstance(event, Request):
                landing = event.action == "start" if event.device == device else landing
            elif isinstance(event, Io) and event.device == device and not landing:
                if event.kind == "flush":
                    flushes.append(event.errno)
                    behind = behind and event.errno != Errno.OK
                elif event.kind in CHANGING_IO:
                    wrote = behind = True
        return Flushing(wrote, behind, tuple(flushes))

    def touches(self, begin: int, end: int) -> Iterator[Touch]:
        """Yield what changed or was about to change a device between two places; guest requests landing do not count.

        What a request does lies between its `start` and its `complete`.
        """
        landing: set[str] = set()
        for place in range(end):
            event = self.events[place]
            if isinstance(event, Request):
                (landing.add if event.action == "start" else landing.discard)(event.device)
            elif place < begin:
                continue
            elif isinstance(event, Io):
                if event.kind in CHANGING_IO and event.device not in landing:
                    yield Touch(event.device, event.kind)
            elif isinstance(event, Call) and event.edge == "enter" and event.function in CHANGING_CALLS:
                yield Touch(event.device, f"snapshot {event.function}")
