"""A history on disks that are listened to: what was sent down, and what may be left when the power goes at its end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from snapcheck.fault_injection.write_log import LoggedFile, WriteLog
from snapcheck.impl.blockfile import BlockFile, MemoryFile
from snapcheck.impl.targets import Target
from snapcheck.model.crash import Course, begin, course
from snapcheck.model.device import World
from snapcheck.model.facts import Evidence
from snapcheck.model.history import Care, History
from snapcheck.model.operations import Operation
from snapcheck.model.setup import Setup
from snapcheck.stateful_tests.session import Session
from snapcheck.stateful_tests.suit import suited_operation
from snapcheck.stateful_tests.watchdog import Watchdog


@dataclass(frozen=True, slots=True)
class Recording:
    """A history at whose end the power goes: during its last operation, or right after that has returned.

    log, bases   what was sent down to the disks, and what each held before
    world        before the last operation; `course` are the stages that it goes through
    since        the position in the log at which the last operation began
    returned     and the one at which it had returned
    """

    target: Target
    history: History
    log: WriteLog
    bases: Mapping[str, MemoryFile]
    world: World
    course: Course
    since: int
    returned: int

    @property
    def devices(self) -> tuple[str, ...]:
        """Return the devices that are judged after a cut."""
        return tuple(self.course.stages[0])


class Recorded(NamedTuple):
    """What came of recording a history: `recording` is None where a law was broken without any cut, as `found` says."""

    session: Session
    recording: Recording | None
    found: tuple[Evidence, ...] = ()


def record(target: Target, setup: Setup, operations: Sequence[Operation], *, dog: Watchdog | None = None) -> Recorded:
    """Perform `operations`, at least one, on disks that are listened to. The last one is that at work during the cut.

    Where an image is left unfinished to the first who opens it, to open it is a part of the first operation.
    Raises `UnsupportedSetupError` when the system can not build the devices.
    """
    log = WriteLog()
    disks: dict[str, MemoryFile] = {}
    bases: dict[str, MemoryFile] = {}

    def below(name: str, disk: BlockFile) -> BlockFile:
        assert isinstance(disk, MemoryFile), "a session keeps its disks in memory"
        disks[name], bases[name] = disk, disk.clone()
        return LoggedFile(log, disk, name)

    with Session(target, setup, care=Care.LIGHT, dog=dog, below=below) as session:
        if not any(spec.unfinished for spec in setup.devices):
            session.flush_all()
            log.entries.clear()
            bases = {name: disk.clone() for name, disk in disks.items()}
        world, since = session.world, 0
        remains = begin(world)
        stages = Course((remains,), frozenset())
        for number, drawn in enumerate(operations):
            operation = suited_operation(drawn, session.abilities)
            world, since, log.step = session.world, log.position if number else 0, number
            stages = course(stages.stages[-1], world, operation)
            found = session.step(operation)
            if found or session.over:
                return Recorded(session, None, tuple(found))
        returned = log.position
    del log.entries[returned:]  # what closing sent down
    recording = Recording(target, session.history, log, bases, world, stages, since, returned)
    return Recorded(session, recording)
