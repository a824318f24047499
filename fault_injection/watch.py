"""Counting what reaches a device, and telling when an armed fault strikes it."""

from dataclasses import dataclass, field
from typing import Final

from snapcheck.model.errno import Errno
from snapcheck.model.faults import (
    CALLS,
    IO_KINDS,
    BitFlip,
    CallFault,
    Delay,
    DropsUnflushed,
    Effect,
    Fails,
    Fault,
    Fill,
    IoFault,
    LandsButFails,
    Lost,
    Misdirected,
    Short,
    Torn,
)
from snapcheck.model.history import FaultMet, Recorder

_ANY: Final = frozenset(IO_KINDS) - {"any"}
_CHANGES: Final = frozenset({"write", "discard", "truncate"})
_WRITES: Final = frozenset({"write"})
_WITHOUT_REGION: Final = frozenset({"flush", "truncate"})  # BlockFile passes them no region

# The kinds of I/O that an effect means something to (model/faults.py says what it means).
STRIKABLE: Final[dict[type[Effect], frozenset[str]]] = {
    Fails: _ANY,
    LandsButFails: _ANY,
    Delay: _ANY,
    Short: _WRITES,
    Torn: _WRITES,
    Misdirected: _WRITES,
    Fill: _WRITES,
    Lost: _CHANGES,
    BitFlip: frozenset({"read", "write"}),
    DropsUnflushed: frozenset({"flush"}),
}


def kinds_met(fault: IoFault) -> frozenset[str]:
    """Return the kinds of I/O that `fault` counts and strikes; none when it asks for nonsense, such as a torn read."""
    asked = _ANY if fault.kind == "any" else frozenset({fault.kind})
    asked &= STRIKABLE[type(fault.effect)]
    return asked - _WITHOUT_REGION if fault.region else asked


def turns_read_only_for_good(fault: IoFault) -> bool:
    """Tell whether `fault` is a medium that turns read-only: from a write on, with EROFS, wherever it goes."""
    refuses = isinstance(fault.effect, Fails) and fault.effect.errno is Errno.EROFS
    return refuses and fault.kind == "write" and fault.times == 0 and not fault.region


class Watch:
    """One armed fault and how often it was passed. `index` is its place among the step's faults."""

    __slots__ = ("_passed", "effect", "fault", "index", "kinds")

    def __init__(self, index: int, fault: Fault) -> None:
        self.index = index
        self.fault = fault
        self.effect = fault.effect if isinstance(fault, IoFault) else None
        self.kinds = kinds_met(fault) if isinstance(fault, IoFault) else frozenset({fault.function})
        self._passed = 0

    def meets_io(self, kind: str, region: str) -> bool:
        """Count an I/O, and tell whether the fault strikes it."""
        fault = self.fault
        assert isinstance(fault, IoFault)
        if kind not in self.kinds or (fault.region and fault.region != region):
            return False
        struck = self._count()
        if struck and turns_read_only_for_good(fault):
            self.kinds = _CHANGES  # a medium that is read-only refuses discards and truncates too
        return struck

    def meets_call(self, function: str) -> bool:
        """Count a call of the driver, and tell whether the fault strikes it."""
        return function in self.kinds and self._count()

    def _count(self) -> bool:
        self._passed += 1
        late = self._passed - self.fault.at
        return late >= 0 and (self.fault.times == 0 or late < self.fault.times)


@dataclass(slots=True, eq=False)
class Site:
    """Where the faults of one device wait; its file and its driver look here.

    `finding` says how deep the generic layer is inside bdrv_snapshot_find, which tells the call `find` from `list`.
    """

    device: str
    recorder: Recorder
    io: tuple[Watch, ...] = ()
    calls: tuple[Watch, ...] = ()
    finding: int = 0
    delayed_ns: int = field(default=0)  # how far delays have moved the simulated clock

    def io_struck(self, kind: str, region: str) -> Effect | None:
        """Count an I/O and return what happens to it. Delays add up; of the other effects the first armed one wins."""
        chosen: Watch | None = None
        for watch in self.io:
            if not watch.meets_io(kind, region):
                continue
            if isinstance(watch.effect, Delay):
                self.delayed_ns += watch.effect.nanoseconds
                self._met(watch)
            elif chosen is None:
                chosen = watch
        if chosen is None:
            return None
        self._met(chosen)
        return chosen.effect

    def call_struck(self, function: str) -> Errno | None:
        """Count a call and return the errno that it answers instead of being made. The first armed fault wins."""
        chosen: Watch | None = None
        for watch in self.calls:
            if watch.meets_call(function) and chosen is None:
                chosen = watch
        if chosen is None:
            return None
        self._met(chosen)
        assert isinstance(chosen.fault, CallFault)
        return chosen.fault.errno

    def _met(self, watch: Watch) -> None:
        self.recorder.emit(FaultMet(self.device, watch.index))


def is_sensible(fault: Fault) -> bool:
    """Tell whether `fault` can strike at all: it names what can happen, and counts from one."""
    if fault.at < 1 or fault.times < 0:
        return False
    return fault.function in CALLS if isinstance(fault, CallFault) else bool(kinds_met(fault))
