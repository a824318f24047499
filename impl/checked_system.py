"""A system that somebody else's factory built, with its answers checked.

Whatever goes wrong before a history starts is a `StartError`; what goes wrong in an operation ends the history.
"""

from collections.abc import Sequence
from typing import Final

from snapcheck.impl.checked import CrashError, StartError, in_words, one_line
from snapcheck.impl.driver import Abilities, BlockFile, Factory, System, UnsupportedSetupError, abandon, prepare
from snapcheck.impl.observe import nothing_seen
from snapcheck.model.faults import Fault
from snapcheck.model.history import Level, Observation, Recorder, Result
from snapcheck.model.operations import Operation
from snapcheck.model.setup import Setup

_METHODS: Final = ("start", "arm", "disarm", "perform", "observe", "close")


class CheckedSystem:
    """A system whose exceptions and wrong answers are told in one line each."""

    def __init__(self, name: str, system: System) -> None:
        self._name = name
        self._system = system

    @property
    def abilities(self) -> Abilities:
        try:
            abilities: object = self._system.abilities
        except (Exception, SystemExit) as error:
            raise StartError(f"{self._name}: asked for its abilities, it raised {in_words(error)}") from error
        return _abilities(self._name, abilities)

    def start(self, setup: Setup) -> None:
        """Build the devices."""
        try:
            self._system.start(setup)
        except (UnsupportedSetupError, StartError):
            raise
        except (Exception, SystemExit) as error:
            raise StartError(f"{self._name} can not start: it raised {in_words(error)}") from error

    def arm(self, faults: Sequence[Fault]) -> Sequence[Fault]:
        return self._system.arm(faults)

    def disarm(self) -> None:
        self._system.disarm()

    def perform(self, operation: Operation) -> Result:
        """Perform one operation; an exception, or an answer that is no Result, is what the system died of."""
        try:
            return _result(self._system.perform(operation))
        except CrashError as crash:
            return Result(crash=str(crash))
        except (Exception, SystemExit) as error:  # noqa: BLE001  # it is the system's, and the history says so
            return Result(crash=f"perform raised {in_words(error)}")

    def observe(self, device: str, *, level: Level) -> Observation:
        """Look at a device; one that can not be looked at shows nothing but the reason."""
        try:
            return _observation(self._system.observe(device, level=level))
        except (Exception, SystemExit) as error:  # noqa: BLE001  # a view has room for the reason
            why = str(error) if isinstance(error, CrashError) else f"observe raised {in_words(error)}"
            return Observation(device, level, nothing_seen(why))

    def prepare(self, operation: Operation) -> None:
        prepare(self._system, operation)

    def close(self) -> None:
        self._system.close()

    def abandon(self) -> None:
        abandon(self._system)


def guarded(name: str, factory: Factory) -> Factory:
    """Return `factory` so that what it builds is checked, and what goes wrong while it builds is a `StartError`."""

    def build(disks: Sequence[BlockFile], *, semantics: str, recorder: Recorder) -> System:
        try:
            system = factory(disks, semantics=semantics, recorder=recorder)
        except StartError:
            raise
        except (Exception, SystemExit) as error:
            raise StartError(f"{name} can not start: it raised {in_words(error)}") from error
        missing = [method for method in _METHODS if not callable(getattr(system, method, None))]
        if missing:
            raise StartError(f"{name} returned {one_line(repr(system))}, which is no System: it has no {missing[0]}")
        return CheckedSystem(name, system)

    return build


def _abilities(name: str, abilities: object) -> Abilities:
    if isinstance(abilities, Abilities):
        return abilities
    raise StartError(f"{name}: its abilities are {one_line(repr(abilities))}, not Abilities")


def _result(result: object) -> Result:
    if isinstance(result, Result):
        return result
    raise CrashError(f"perform returned {one_line(repr(result))}, not a Result")


def _observation(seen: object) -> Observation:
    if isinstance(seen, Observation):
        return seen
    raise CrashError(f"observe returned {one_line(repr(seen))}, not an Observation")
