"""What the events of one step say: who was called in which order, what changed a device, and what was left held.

A snapshot call counts as the operation's own when it is not nested in another: bdrv_snapshot_find calls the list, and
a node without snapshots of its own calls its child. The laws of group operations look at the operation's own calls.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from snapcheck.model.errno import Errno
from snapcheck.model.history import Call, Drain, Event, FaultMet, Io, Lock, Request
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
_DELETES: Final = (AllDelete, SaveVm, DelVm)


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
        for call in self.calls:
            if call.function == self.kind and call.failed:
                return call
        return None


class Touch(NamedTuple):
    """A device was changed, or was about to be: by a snapshot call, or by I/O that no guest request explains."""

    device: str
    what: str


class Sent(NamedTuple):
    """A write, flush, discard or truncate; `lands` tells whether it was a guest request's, not the operation's own."""

    device: str
    kind: str
    errno: int
    lands: bool


class Entered(NamedTuple):
    """A driver was entered while guest requests were in flight on `busy` devices."""

    device: str
    function: str
    busy: frozenset[str]


class Flushing(NamedTuple):
    """Whether an operation wrote, also behind its last flush that succeeded, and the errno of each of its flushes.

    `passed_over`: a flush failed behind something that was written, and what came next was no flush that succeeded.
    """

    wrote: bool
    wrote_behind: bool
    flushes: tuple[int, ...]
    passed_over: bool


class Trace:
    """The events of one step, read once. `in_flight` counts the guest requests that earlier steps left behind.

    calls         the operation's own calls
    struck        faults that were met
    sent          what was done to the media but for reads; `io_count` counts these too
    held          how many times each lock was acquired more often than released
    blocked       acquisitions that would have waited forever
    unlocked      own calls on a device whose lock nobody held
    entered_busy  snapshot calls that a driver was entered with while guest requests were in flight
    drained       how many drained sections of each device began more often than ended
    """

    __slots__ = (
        "_groups", "_touches", "blocked", "calls", "drained", "entered_busy", "events", "held", "in_flight", "io_count",
        "sent", "struck", "unlocked",
    )  # fmt: skip

    def __init__(self, events: Sequence[Event], in_flight: Mapping[str, int]) -> None:
        self.events = events
        self.calls: list[OwnCall] = []
        self.struck: list[FaultMet] = []
        self.io_count = 0
        self.sent: list[Sent] = []
        self.held: dict[str, int] = {}
        self.blocked: list[Lock] = []
        self.unlocked: list[Call] = []
        self.in_flight: dict[str, int] = dict(in_flight)
        self.entered_busy: list[Entered] = []
        self.drained: dict[str, int] = {}
        self._touches: list[tuple[int, Touch]] = []  # with the place of each
        self._groups: dict[bool, tuple[GroupCall, ...]] = {}
        self._read()

    def _read(self) -> None:
        open_calls: list[tuple[int, Call]] = []
        landing: set[str] = set()  # devices on which a guest request is landing: from its start to its complete
        for place, event in enumerate(self.events):
            if type(event) is Io:
                self.io_count += 1
                if event.kind != "read":
                    self._io(place, event, landing)
            elif type(event) is Call:
                self._call(place, event, open_calls)
            elif type(event) is Lock:
                self._lock(event)
            elif type(event) is Request:
                self._request(event)
                (landing.add if event.action == "start" else landing.discard)(event.device)
            elif type(event) is Drain:
                self.drained[event.device] = self.drained.get(event.device, 0) + (1 if event.action == "begin" else -1)
            elif type(event) is FaultMet:
                self.struck.append(event)

    def _io(self, place: int, io: Io, landing: Collection[str]) -> None:
        lands = io.device in landing
        self.sent.append(Sent(io.device, io.kind, io.errno, lands))
        if not lands and io.kind in CHANGING_IO:
            self._touches.append((place, Touch(io.device, io.kind)))

    def _call(self, place: int, call: Call, open_calls: list[tuple[int, Call]]) -> None:
        enters = call.edge == "enter"
        if enters and call.function in CHANGING_CALLS:
            self._touches.append((place, Touch(call.device, f"snapshot {call.function}")))
            if call.layer == "driver" and any(self.in_flight.values()):
                busy = frozenset(device for device, count in self.in_flight.items() if count)
                self.entered_busy.append(Entered(call.device, call.function, busy))
        if call.layer == "driver":
            return
        if enters:
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
        """Return the own calls split into the bdrv_all_* calls that `operation` consists of, in order."""
        deletes = isinstance(operation, _DELETES)
        if deletes not in self._groups:
            self._groups[deletes] = self._split(deletes=deletes)
        return self._groups[deletes]

    def _split(self, *, deletes: bool) -> tuple[GroupCall, ...]:
        pieces: list[tuple[str, list[OwnCall]]] = []
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
        wrote = behind = failed = passed_over = False
        flushes: list[int] = []
        for sent in self.sent:
            if sent.device != device or sent.lands:
                continue
            if sent.kind == "flush":
                flushes.append(sent.errno)
                behind = behind and sent.errno != Errno.OK
                failed = behind
            else:
                wrote = behind = True
                passed_over = passed_over or failed
        return Flushing(wrote, behind, tuple(flushes), passed_over or failed)

    def touches(self, begin: int, end: int) -> Iterator[Touch]:
        """Yield what changed or was about to change a device between two places; guest requests landing do not count.

        What a request does lies between its `start` and its `complete`.
        """
        for place, touch in self._touches:
            if begin <= place < end:
                yield touch
