"""Running a recorded history again, to see whether the law that it broke is still broken.

A history is replayed as it was recorded, with the faults of each step, and looked at as it was when it failed: looking
closely closes the devices, and what a driver remembers wrongly is gone then. When that shows nothing it is replayed
as a run looks, and with a close look after every step, which also finds what was only seen at the end.

That the law holds is told only of a replay that came to where the history did: through all its steps, and with every
fault met that was met then.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from tempfile import mkdtemp
from typing import Final, NamedTuple

from snapcheck.impl.driver import UnsupportedSetupError
from snapcheck.impl.targets import StartError, Target, TargetError, find_target
from snapcheck.model.facts import Evidence, error
from snapcheck.model.history import After, Care, History, PowerCut, Result, Step
from snapcheck.model.law_names import Law, Severity
from snapcheck.reports.verdict import NOT_REPRODUCED
from snapcheck.reports.words import fault_words
from snapcheck.stateful_tests.broken import LawBrokenError, broken_text
from snapcheck.stateful_tests.power_cuts.again import cut_again, disks_left
from snapcheck.stateful_tests.session import Session
from snapcheck.stateful_tests.watchdog import watchdog

CARES: Final = (Care.USUAL, Care.LIVE, Care.CLOSE)
WAY_OUT: Final = (
    "so nobody knows whether it is mended; look for it nearby (replay ID --shrink), hunt again (run), "
    "or remove it when you know that it is"
)


class ReplayState(StrEnum):
    """What came of a replay."""

    FIXED = "FIXED"
    STILL_FAILS = "STILL FAILS"
    CANNOT_RUN = "CANNOT RUN"
    CANNOT_TELL = "CAN NOT TELL"


class Replayed(NamedTuple):
    """What came of a replay, in one or a few lines, and the history as it went this time."""

    state: ReplayState
    text: str
    history: History
    evidence: tuple[Evidence, ...] = ()  # of its last step, what speaks for the state first


class Ran(NamedTuple):
    """One pass over a history: the evidence of the first step that told, what told first; none when no step did."""

    history: History
    evidence: tuple[Evidence, ...]


def cares_of(history: History) -> tuple[Care, ...]:
    """Return how closely to look at `history`, in the order in which to try: first as somebody has looked at it."""
    if history.cut is not None:
        return CARES[:1]  # what a cut left is looked at closely anyway
    return CARES if history.care is None else tuple(dict.fromkeys((history.care, *CARES)))


Telling = Callable[[Evidence, Step], bool]  # whether evidence is what is looked for, given the step that gave it


def breaks(law: Law | None) -> Telling:
    """Tell of evidence that `law` is broken, or when it is None of any error."""
    if law is None:
        return lambda evidence, _: evidence.severity is Severity.ERROR
    return lambda evidence, _: evidence.law is law


def run_again(
    target: Target, history: History, *, care: Care, telling: Telling, law: Law | None = None, impatient: bool = False
) -> Ran:
    """Perform the steps of `history` until one gives evidence that is `telling`.

    One that a power cut ended is cut again. `impatient`: it is known to hang, and is not waited for long.
    Raises `UnsupportedSetupError` when the driver can not build its devices,
    `TargetError` when it can not start.
    """
    if history.cut is not None:
        with watchdog(impatient=impatient) as dog:
            again = cut_again(target, history, law=law, dog=dog)
        return Ran(again.history, _telling_first(again.evidence, again.history.steps[-1], telling))
    with watchdog(impatient=impatient) as dog:
        try:
            session = Session(target, history.setup, care=care, dog=dog)
        except (StartError, UnsupportedSetupError) as error:
            if not any(spec.damage for spec in history.setup.devices):
                raise
            return _not_opened(history, error, telling)
        with session:
            for step in history.steps:
                found = session.step(step.operation, step.faults, purpose=step.purpose)
                told = _told(session, found, telling)
                if told or session.over:
                    return Ran(session.history, told)
            return Ran(session.history, _told(session, session.finish(), telling))


def _not_opened(history: History, failure: StartError | UnsupportedSetupError, telling: Telling) -> Ran:
    """Return how it ends when a wrecked image does not open: to refuse it is an answer, to die of it is none."""
    if isinstance(failure, UnsupportedSetupError):
        return Ran(history, ())
    step = replace(history.steps[0], result=Result(crash=str(failure)), events=(), observations=())
    evidence = error(Law.NO_CRASH, history.setup.devices[0].name, str(failure), "an open image, or an error", "a crash")
    ran = History(history.setup, [step], history.abilities)
    return Ran(ran, (evidence,) if telling(evidence, step) else ())


def _told(session: Session, found: list[Evidence], telling: Telling) -> tuple[Evidence, ...]:
    """Return the evidence of the last step, what is telling first; none when nothing is."""
    return _telling_first(found, session.history.steps[-1], telling) if found else ()


def _telling_first(found: Sequence[Evidence], step: Step, telling: Telling) -> tuple[Evidence, ...]:
    first = next((each for each in found if telling(each, step)), None)
    return () if first is None else (first, *(each for each in found if each is not first))


def replay(target: Target, history: History, *, law: Law | None = None, reproduced: bool = True) -> Replayed:
    """Run `history` again, and say whether it still breaks `law` (any law, when it is None).

    `reproduced` says whether a replay has ever shown that; otherwise one that shows nothing can not tell.
    """
    passes: list[Ran] = []
    try:
        for care in cares_of(history):
            ran = run_again(target, history, care=care, telling=breaks(law), law=law)
            if ran.evidence:
                text = broken_text(ran.evidence[0], ran.history)
                return Replayed(ReplayState.STILL_FAILS, text, ran.history, ran.evidence)
            passes.append(ran)
    except UnsupportedSetupError as refusal:
        return Replayed(ReplayState.CANNOT_RUN, f"the driver can not build these devices: {refusal}", history)
    except TargetError as failure:
        return Replayed(ReplayState.CANNOT_RUN, str(failure), history)
    last = passes[-1].history
    doubt = "" if reproduced else NOT_REPRODUCED
    doubt = doubt or _astray(history, [each.history for each in passes[: 1 if history.care else None]])
    if doubt:
        return Replayed(ReplayState.CANNOT_TELL, f"{doubt}\n{WAY_OUT}", last)
    what = "no law is broken" if law is None else f"law {law.value} holds"
    return Replayed(ReplayState.FIXED, f"{what}, in {len(history.steps)} steps", last)


def _astray(history: History, passes: Sequence[History]) -> str:
    """Return in words why none of `passes` came to where `history` did; empty when one of them did.

    Faults count that were met then; all of them where it does not say what happened.
    """
    words = ""
    for ran in passes:
        words = next(_differences(history, ran), "")
        if not words:
            return ""
    return words


def _differences(history: History, ran: History) -> Iterator[str]:
    for at, (was, now) in enumerate(zip(history.steps, ran.steps, strict=False)):
        expected = was.struck if history.answered else range(len(was.faults))
        for index in sorted({*expected} - now.struck):
            yield f"a fault is met no more, at step {at}: {fault_words(was.faults[index])}"
    if len(ran.steps) < len(history.steps):
        yield f"the replay ended at step {len(ran.steps) - 1} of {len(history.steps)}, as nothing more was predictable"


def write_disks(target: Target, history: History, folder: Path) -> tuple[Path, ...]:
    """Write the disks that the power cut at the end of `history` leaves into `folder`, a file for each device."""
    folder.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    for device, disk in disks_left(target, history).items():
        path = folder / f"{device}.{target.format or 'img'}"
        path.write_bytes(disk.pread(0, disk.size()))
        paths.append(path)
    return tuple(paths)


def how_to_open(paths: Sequence[Path], target: Target, cut: PowerCut) -> str:
    """Return a line that says where the disks that `cut` leaves are, and what shows what is wrong with them."""
    shown, alone = " ".join(map(str, paths)), len(paths) == 1
    what = f"the disk that the cut leaves: {shown}" if alone else f"the disks that the cut leaves: {shown}"
    if cut.after is not After.LOOK:
        return f"{what}; it is as it was before it was {_DONE[cut.after]}: what is wrong shows only after that"
    if target.format != "qcow2":
        return what
    if alone:
        return f"{what}; look at it with `snapcheck check {shown}`, or `qemu-img check {shown}`"
    return f"{what}; compare them with {' and '.join(f'`qemu-img snapshot -l {path}`' for path in paths)}"


_DONE: Final = {After.USE: "used further", After.REPAIR: "repaired", After.OPEN: "opened again"}


def assert_holds(*, driver: str, history: History, reproduced: bool = True) -> None:
    """Fail when `driver` breaks a law in `history`, or nobody can tell: what the reproducers of a run call."""
    target = find_target(driver)
    done = replay(target, history, reproduced=reproduced)
    if done.state is ReplayState.FIXED:
        return
    if done.state is ReplayState.CANNOT_TELL:
        raise LawBrokenError(f"can not tell whether a law is broken: {done.text}")
    if done.history.cut is None:
        raise LawBrokenError(done.text)
    paths = write_disks(target, done.history, Path(mkdtemp(prefix="snapcheck-cut-")))
    raise LawBrokenError(f"{done.text}\n{how_to_open(paths, target, done.history.cut)}")
