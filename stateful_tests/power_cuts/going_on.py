"""What is done with the disk that a power cut left: it is used further, repaired, and opened with another cut.

Each is done on a copy. Using it is a history of its own, from the state that was left, and all laws are asked at each
of its steps: what breaks one breaks safe-to-use. Repairing and opening it are listened to as well, and every state that
a second cut may leave there must still hold what the first one left: otherwise repair-is-safe is broken.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Final

from snapcheck.fault_injection.crash.cuts import Persistence, image_of
from snapcheck.fault_injection.write_log import LoggedFile, WriteLog
from snapcheck.impl.blockfile import BlockError, BlockFile, MemoryFile
from snapcheck.impl.driver import UnsupportedSetupError, abandon
from snapcheck.impl.qcow2 import ImageError, repair
from snapcheck.impl.targets import StartError, Target
from snapcheck.model import crash_laws
from snapcheck.model.crash import Course, as_seen, exactly, stages_that_fit
from snapcheck.model.crash_laws import CutFacts, going_on
from snapcheck.model.device import Device, World
from snapcheck.model.facts import HELD, Evidence, error
from snapcheck.model.history import HANG, After, EventList, History, Observation, PowerCut, Purpose
from snapcheck.model.law_names import Law, Severity
from snapcheck.model.operations import Create, Delete, Goto, Operation, Write, kind_of
from snapcheck.model.power_cut import Cut
from snapcheck.model.setup import Setup
from snapcheck.model.snapshot import as_listed
from snapcheck.stateful_tests.compare import Judge
from snapcheck.stateful_tests.digest import Digest
from snapcheck.stateful_tests.power_cuts.judging import CutJudge, Found, Left
from snapcheck.stateful_tests.power_cuts.seeing import new_judge, observation
from snapcheck.stateful_tests.session import Checkpoint, Session
from snapcheck.stateful_tests.watchdog import HangError, Watchdog, watching

_PROBE: Final = "probe"
_TAGS: Final = (97, 98, 99)
_WRITTEN_MAX: Final = 64  # sectors at each end: where the starting images hold something
_CUT_AGAIN_MAX: Final = 256  # states of an epoch of a repair
_NOT_OPENED: Final = (Law.OPENS, Law.NO_CRASH, Law.NO_HANG)
_SECOND: Final = Persistence.EPOCH
_CUT_AGAIN: Final = "a second cut"


@dataclass(frozen=True, slots=True)
class Remnant:
    """A disk that a cut left: what the cut was, what was seen of it, and the state that the device is in."""

    target: Target
    disk: MemoryFile
    cut: PowerCut
    observed: Observation
    device: Device
    what: str

    @property
    def name(self) -> str:
        return self.device.spec.name

    @property
    def is_clean(self) -> bool:
        """Whether it is as a user finds it without any cut: nothing is lost and nothing to be put right."""
        check = self.observed.check
        if self.device.spec.unfinished:
            return False
        lost = any(each.dropped or each.torn for each in self.cut.devices)
        return not lost and check is not None and not (check.leaks or check.copied_missing)

    @property
    def digest(self) -> bytes:
        """The same for disks that are the same, whatever led to them."""
        seen = hashlib.blake2b(self.disk.pread(0, self.disk.size()), digest_size=16)
        seen.update(repr(self.device.spec).encode())
        return seen.digest()


def remnant(judge: CutJudge, left: Left, witness: Cut) -> Remnant:
    """Return the disk that `witness` leaves, which looks like `left` and fits a stage of the operation at work."""
    recording = judge.recording
    disk = image_of(recording.bases[left.device], recording.log, witness)
    told = judge.as_judged(left, witness, at=judge.moment((left,)))
    cut = replace(judge.power_cut((left,)), devices=(told,))
    device = as_seen(recording.course.stages[max(left.fitting)][left.device], left.before, left.observed)
    return Remnant(recording.target, disk, cut, left.observed, device, judge.when(left))


@dataclass(slots=True)
class GoingOn:
    """Goes on with remnants, each different disk once. `laws` counts as a judge does."""

    dog: Watchdog | None = None
    laws: dict[Law, list[int]] = field(default_factory=lambda: {law: [0, 0] for law in Law})
    tried: set[bytes] = field(default_factory=set[bytes])

    def go_on(self, left: Remnant) -> Iterator[Found]:
        """Yield what going on with a remnant shows against the driver, nothing for one that was tried already."""
        digest = left.digest
        if digest in self.tried or left.is_clean:
            return
        self.tried.add(digest)
        for found in self._counted(Law.SAFE_TO_USE, used(left, dog=self.dog)):
            yield found
            if found.evidence.law in _NOT_OPENED:  # to open it with a cut can not show more
                return
        for after in (After.OPEN, After.REPAIR):
            if after is After.OPEN or left.target.format == "qcow2":
                yield from self._counted(Law.REPAIR_IS_SAFE, done_and_cut(left, after, dog=self.dog))

    def take_laws(self) -> dict[Law, list[int]]:
        """Return what was counted since the last call."""
        taken, self.laws = self.laws, {law: [0, 0] for law in Law}
        return taken

    def _counted(self, law: Law, found: Iterator[Found | None]) -> Iterator[Found]:
        for judged in found:
            self.laws[law if judged is None else judged.evidence.law][0] += 1
            if judged is not None:
                self.laws[judged.evidence.law][1] += 1
                yield judged


# --- using it -------------------------------------------------------------------------------------
def used(left: Remnant, *, dog: Watchdog | None = None) -> Iterator[Found | None]:
    """Use the disk further, with a close look in between and at the end, and yield what that shows, or HELD."""
    spec, world = left.device.spec, World({left.name: left.device})
    setup, abilities = Setup((spec,), left.target.usual_semantics), left.target.abilities
    checks = {left.name: left.observed.check} if left.observed.check is not None else {}
    judge = Judge.taking_over(setup, abilities, world, checks)
    start = Checkpoint(History(setup, [], abilities), (left.disk.clone(),), judge, Digest())
    try:
        session = Session(left.target, start, dog=dog)
    except (StartError, UnsupportedSetupError) as failure:
        yield Found(_not_opened(left, failure), replace(left.cut, after=After.USE))
        return
    with session:
        for operation, closely in _uses(left.device):
            if session.over:
                break
            if not _can(left.target, operation):
                continue
            found = session.step(operation, purpose=Purpose.PROBE, everywhere=closely)
            worst = next((each for each in found if each.severity is Severity.ERROR), None)
            if worst is not None:
                steps = tuple(session.history.steps)
                cut = replace(left.cut, after=After.USE, then=steps, seen=steps[-1].observations)
                yield Found(going_on(After.USE, left.what, left.name, worst), cut)
                return
    yield HELD


def _not_opened(left: Remnant, failure: StartError | UnsupportedSetupError) -> Evidence:
    """Return what speaks against a driver that does not open what was left: it refuses that, or dies of it."""
    if isinstance(failure.__cause__, HangError):
        return error(Law.NO_HANG, left.name, f"{left.what}: opening {left.name} did not end", "an answer", str(failure))
    if isinstance(failure, StartError):
        summary = f"{left.what}: opening {left.name} ended the process under test"
        return error(Law.NO_CRASH, left.name, summary, "an answer", str(failure))
    summary = f"{left.what} leaves {left.name} so that it does not open"
    return error(Law.OPENS, left.name, summary, "a disk that opens", str(failure))


def _uses(device: Device) -> Iterator[tuple[Operation, bool]]:
    """Yield what a user may do next, and whether a close look follows: both ends are written, shared or not."""
    name, image = device.spec.name, device.image
    assert image is not None, "only what has an image is judged"
    listed = [as_listed(snapshot.info) for snapshot in image.snapshots]
    yield from ((write, False) for write in _at_both_ends(name, image.sectors, _TAGS[0]))
    yield Create(name, _PROBE), False
    yield from ((write, False) for write in _at_both_ends(name, image.sectors, _TAGS[1]))
    sectors = image.sectors
    if listed:
        yield Goto(name, listed[-1].id_str), False
        sectors = image.snapshots[-1].sectors
    yield from ((write, False) for write in _at_both_ends(name, sectors, _TAGS[2]))
    yield Delete(name, None, _PROBE), True
    if listed:
        yield Delete(name, listed[0].id_str, listed[0].name), True


def _at_both_ends(name: str, sectors: int, tag: int) -> Iterator[Write]:
    length = min(_WRITTEN_MAX, -(-sectors // 2))
    if length:
        yield Write(name, 0, length, tag)
    if sectors > length:
        yield Write(name, sectors - length, length, tag)


def _can(target: Target, operation: Operation) -> bool:
    kinds = target.abilities.operations
    return kinds is None or kind_of(operation) in kinds


# --- repairing and opening it ---------------------------------------------------------------------
def done_and_cut(left: Remnant, after: After, *, dog: Watchdog | None = None) -> Iterator[Found | None]:
    """Repair or open the disk, listening, and yield what that shows, or HELD: when it ends, and when it is cut itself.

    Yields nothing for an open that writes nothing: there is nothing to judge.
    """
    log, disk = WriteLog(), left.disk.clone()
    logged = LoggedFile(log, disk, left.name)
    try:
        with watching(dog, after.value):
            failure = _DOING[after](left, logged)
    except HangError:
        summary = f"{left.what}, then {after.value}: it did not end"
        evidence = error(Law.NO_HANG, left.name, summary, "an answer in time", f"{HANG} it did not end")
        yield Found(evidence, replace(left.cut, after=after))
        return
    if failure:
        evidence = error(
            Law.REPAIR_IS_SAFE, left.name, f"{left.what}, then {after.value}: it fails", "success", failure
        )
        yield Found(evidence, replace(left.cut, after=after))
        return
    if after is After.OPEN and not log.entries:
        return
    if not log.entries:  # so that it looks as it did
        yield _whole(left, after, left.observed)
        return
    judge = new_judge(left.target, dog)
    for judged in judge.judge(log, left.disk, device=left.name, persistence=_SECOND, bound=_CUT_AGAIN_MAX):
        if _lost(left, after, observation(left.name, judged.seen, left.target), told=_CUT_AGAIN) is not None:
            closely = observation(left.name, judge.look(image_of(left.disk, log, judged.cut)), left.target)
            found = _lost(left, after, closely, told=_CUT_AGAIN)
            assert found is not None, "a closer look shows the same"
            yield Found(found, replace(left.cut, after=after, again=judged.cut, seen=(closely,)))
            return
    yield _whole(left, after, observation(left.name, judge.look(disk), left.target))


def _whole(left: Remnant, after: After, observed: Observation) -> Found | None:
    """Judge what is there when it was done to the end: after a repair nothing is left to complain of."""
    found, check = _lost(left, after, observed, told="this"), observed.check
    if found is None and after is After.REPAIR and check is not None:
        bad = check.corruptions + check.leaks + check.copied_missing
        if bad:
            summary = f"{left.what}, then repairing it: the image of {left.name} is not clean"
            found = error(Law.REPAIR_IS_SAFE, left.name, summary, "a clean image", "; ".join(check.messages[:3]))
    return HELD if found is None else Found(found, replace(left.cut, after=after, seen=(observed,)))


def _lost(left: Remnant, after: After, observed: Observation, *, told: str) -> Evidence | None:
    """Return what speaks against the driver when `observed` is not what the first cut left any more.

    `told` says what came after that one.
    """
    course = Course(({left.name: exactly(left.device)},), frozenset())
    fitting = stages_that_fit(course, left.device, observed)
    facts = CutFacts(left.what, left.device, course, returned=True, seen=observed, fitting=fitting, told=told)
    worst = next((evidence for _, evidence in crash_laws.judge(facts) if evidence is not None), None)
    return None if worst is None else going_on(after, left.what, left.name, worst)


def _repaired(_: Remnant, disk: BlockFile) -> str:
    """Repair the image; return why that failed, "" when it did not."""
    try:
        repair(disk)
    except (ImageError, BlockError) as failed:
        return str(failed)
    return ""


def _opened(left: Remnant, disk: BlockFile) -> str:
    """Open the disk for writing and never close it; return why that failed, "" when it did not."""
    profile = left.target.usual_semantics
    with ExitStack() as ended:
        try:
            system = left.target.built([disk], semantics=profile.value, recorder=EventList())
            ended.callback(abandon, system)
            system.start(Setup((left.device.spec,), profile))
        except (StartError, UnsupportedSetupError) as failure:
            return str(failure)
    return ""


_DOING: Final[dict[After, Callable[[Remnant, BlockFile], str]]] = {After.REPAIR: _repaired, After.OPEN: _opened}
