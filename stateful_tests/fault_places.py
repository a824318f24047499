"""Where faults can strike an operation, worked out from how it went without any, and the faults for each place."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from snapcheck.model.errno import Errno
from snapcheck.model.faults import CALLS, CallFault, Fails, Fault, IoFault, LandsButFails
from snapcheck.model.history import Abilities, Call, Event, FaultMet, Io, Step
from snapcheck.stateful_tests.draw_faults import Targets

AT_MAX: Final = 64  # where nobody can say how often something is called, trying ends here at last
_LANDS: Final = frozenset({"write", "flush"})


class Blow(NamedTuple):
    """A way to fail: how often (0: from then on), with what, and whether a write or flush takes effect all the same."""

    times: int = 1
    errno: Errno = Errno.EIO
    lands: bool = False

    @property
    def words(self) -> str:
        """What it is, for the scope of a report."""
        often = "once" if self.times == 1 else "from then on" if not self.times else f"{self.times} times"
        return f"{often} with {self.errno.name}{' after landing' if self.lands else ''}"


class Place(NamedTuple):
    """A kind of I/O below a device, or a function of its driver, and how often it came by; None: nobody can say.

    `first` is the first of these times that is worth striking.
    """

    device: str
    word: str
    times: int | None
    first: int = 1


def places_of(trial: Step, abilities: Abilities, targets: Targets) -> tuple[Place, ...]:
    """Return where faults can strike an operation that went like `trial`, which met none.

    `targets` says which calls to try when the system does not show them.
    """
    seen: dict[tuple[str, str], int | None] = {**_io_in(trial.events)}
    if abilities.calls:
        seen |= {**_calls_in(trial.events)}
    elif abilities.call_faults:
        seen |= {(device, function): None for device, functions in targets.calls.items() for function in functions}
    return tuple(Place(device, word, times) for (device, word), times in seen.items())


def places_behind(struck: Step, abilities: Abilities, targets: Targets) -> tuple[Place, ...]:
    """Return where a second fault can strike an operation that went like `struck`: all that came by after the first.

    Mostly that is clean-up. Nothing where the system does not show what it does.
    """
    met = next((at for at, event in enumerate(struck.events) if isinstance(event, FaultMet)), len(struck.events))
    until = met + (not isinstance(struck.faults[0], CallFault))  # the I/O that was struck is told after the fault
    earlier = places_of(replace(struck, events=struck.events[: until + 1]), abilities, targets)
    before = {(place.device, place.word): place.times or 0 for place in earlier}
    return tuple(
        place._replace(first=before.get((place.device, place.word), 0) + 1)
        for place in places_of(struck, abilities, targets)
        if place.times is not None and place.times > before.get((place.device, place.word), 0)
    )


def _io_in(events: tuple[Event, ...]) -> Counter[tuple[str, str]]:
    return Counter((event.device, event.kind) for event in events if isinstance(event, Io))


def _calls_in(events: tuple[Event, ...]) -> Counter[tuple[str, str]]:
    """Count the calls of drivers; a list call inside bdrv_snapshot_find is a `find` (model/faults.py, CallFault)."""
    found: Counter[tuple[str, str]] = Counter()
    finding: Counter[str] = Counter()
    for event in events:
        if not isinstance(event, Call):
            continue
        if event.layer == "generic" and event.function == "find":
            finding[event.device] += 1 if event.edge == "enter" else -1
        elif event.layer == "driver" and event.edge == "enter":
            called = "find" if event.function == "list" and finding[event.device] else event.function
            if called in CALLS:
                found[event.device, called] += 1
    return found


def faults_at(place: Place, at: int, blows: Sequence[Blow]) -> Iterator[Fault]:
    """Yield the faults to try for the `at`-th time that something comes by `place`."""
    device, word = place.device, place.word
    for times, errno, lands in blows:
        if word in CALLS:
            if not lands:
                yield CallFault(device, word, at, times, errno)
        elif not lands:
            yield IoFault(device, word, Fails(errno), at=at, times=times)
        elif word in _LANDS:
            yield IoFault(device, word, LandsButFails(errno), at=at, times=times)
