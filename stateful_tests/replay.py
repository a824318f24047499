"""Running a recorded history again, to see whether the law that it broke is still broken.

A history is replayed as it was recorded, with the faults of each step, and looked at as a run does. When that shows
nothing it is replayed once more with a close look after every step, which also finds what was only seen at the end.
"""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from tempfile import mkdtemp
from typing import Final, NamedTuple

from snapcheck.impl.driver import UnsupportedSetupError
from snapcheck.impl.targets import Target, TargetError, find_target
from snapcheck.model.facts import Evidence
from snapcheck.model.history import History
from snapcheck.model.law_names import Law, Severity
from snapcheck.stateful_tests.broken import LawBrokenError, broken_text
from snapcheck.stateful_tests.power_cuts.again import cut_again, disks_left
from snapcheck.stateful_tests.session import Care, Session
from snapcheck.stateful_tests.watchdog import watchdog

CARES: Final = (Care.USUAL, Care.CLOSE)


class ReplayState(StrEnum):
    """What came of a replay."""

    FIXED = "FIXED"
    STILL_FAILS = "STILL FAILS"
    CANNOT_RUN = "CANNOT RUN"


class Replayed(NamedTuple):
    """What came of a replay, in one or a few lines, and the history as it went this time."""

    state: ReplayState
    text: str
    history: History
    evidence: tuple[Evidence, ...] = ()  # of its last step, what speaks for the state first


class Ran(NamedTuple):
    """One pass over a history: the evidence of the first step that gave any, if there is one."""

    history: History
    evidence: tuple[Evidence, ...]


def run_again(target: Target, history: History, *, care: Care, law: Law | None = None) -> Ran:
    """Perform the steps of `history` until one breaks `law` (any law when it is None; errors only then).

    One that a power cut ended is cut again. Raises `UnsupportedSetupError` when the driver can not build its devices,
    `TargetError` when it can not start.
    """
    if history.cut is not None:
        with watchdog() as dog:
            return Ran(*cut_again(target, history, law=law, dog=dog))
    with watchdog() as dog, Session(target, history.setup, care=care, dog=dog) as session:
        for step in history.steps:
            found = session.step(step.operation, step.faults, purpose=step.purpose)
            if _telling(found, law):
                return Ran(session.history, tuple(found))
            if session.over:
                break
        found = session.finish()
        return Ran(session.history, tuple(found) if _telling(found, law) else ())


def _telling(found: list[Evidence], law: Law | None) -> bool:
    if law is None:
        return any(each.severity is Severity.ERROR for each in found)
    return any(each.law is law for each in found)


def replay(target: Target, history: History, *, law: Law | None = None) -> Replayed:
    """Run `history` again, and say whether it still breaks `law` (any law, when it is None)."""
    ran = Ran(history, ())
    try:
        for care in CARES if history.cut is None else CARES[:1]:
            ran = run_again(target, history, care=care, law=law)
            if ran.evidence:
                shown = next(each for each in ran.evidence if _telling([each], law))
                evidence = (shown, *(each for each in ran.evidence if each is not shown))
                return Replayed(ReplayState.STILL_FAILS, broken_text(shown, ran.history), ran.history, evidence)
    except UnsupportedSetupError as error:
        return Replayed(ReplayState.CANNOT_RUN, f"the driver can not build these devices: {error}", history)
    except TargetError as error:
        return Replayed(ReplayState.CANNOT_RUN, str(error), history)
    what = "no law is broken" if law is None else f"law {law.value} holds"
    return Replayed(ReplayState.FIXED, f"{what}, in {len(history.steps)} steps", ran.history)


def write_disks(target: Target, history: History, folder: Path) -> tuple[Path, ...]:
    """Write the disks that the power cut at the end of `history` leaves into `folder`, a file for each device."""
    folder.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    for device, disk in disks_left(target, history).items():
        path = folder / f"{device}.{target.format or 'img'}"
        path.write_bytes(disk.pread(0, disk.size()))
        paths.append(path)
    return tuple(paths)


def how_to_open(paths: Sequence[Path], target: Target) -> str:
    """Return a line that says where the disks are, and what shows what is wrong with them."""
    shown = " ".join(map(str, paths))
    what = f"the disk that the cut leaves: {shown}" if len(paths) == 1 else f"the disks that the cut leaves: {shown}"
    tool = f"; look at it with `snapcheck check {paths[0]}`, or `qemu-img check {paths[0]}`"
    return what + (tool if target.format == "qcow2" else "")


def assert_holds(*, driver: str, history: History) -> None:
    """Fail when `driver` breaks a law in `history`: what the reproducers of a run call."""
    target = find_target(driver)
    done = replay(target, history)
    if done.state is ReplayState.FIXED:
        return
    if done.history.cut is None:
        raise LawBrokenError(done.text)
    paths = write_disks(target, done.history, Path(mkdtemp(prefix="snapcheck-cut-")))
    raise LawBrokenError(f"{done.text}\n{how_to_open(paths, target)}")
