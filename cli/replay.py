"""`snapcheck replay`: recorded histories, run again."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from snapcheck.cli.errors import UNKNOWN, CallError
from snapcheck.cli.say import say
from snapcheck.cli.targets import target_of
from snapcheck.model.history import History
from snapcheck.model.law_names import Law
from snapcheck.reports import folder as report_folder
from snapcheck.reports import jsonl, reproducer
from snapcheck.reports.jsonl import HistoryError, HistoryFile, Recorded
from snapcheck.stateful_tests.replay import Replayed, ReplayState, how_to_open, write_disks
from snapcheck.stateful_tests.replay import replay as run_again

IDS_MAX: Final = 8
DISKS: Final = "disks"  # in the report's folder: what power cuts leave, by the name of the history
# The exit status for each, the one that decides first.
STATUS: Final = {
    ReplayState.STILL_FAILS: 1, ReplayState.CANNOT_RUN: UNKNOWN, ReplayState.CANNOT_TELL: UNKNOWN, ReplayState.FIXED: 0,
}  # fmt: skip
COLOURS: Final = {ReplayState.FIXED: "green", ReplayState.STILL_FAILS: "red"}  # yellow: nobody knows


@dataclass(frozen=True, slots=True)
class Case:
    """One history to run again, on the driver that it was recorded on."""

    name: str
    driver: str
    history: History
    law: Law | None = None
    device: str = ""
    reproduced: bool = True

    @property
    def title(self) -> str:
        law = f"  {self.law.value}" if self.law else ""
        return f"{self.name}{law}{f' on {self.device}' if self.law and self.device else ''}"


def replay_command(what: str, *, driver: str | None, out: Path) -> int:
    """Run the histories that `what` names, say what came of each, and return the exit status."""
    states = [_replay(case, driver or case.driver, out) for case in cases_of(what, out)]
    return STATUS[next(state for state in STATUS if state in states)]


def _replay(case: Case, driver: str, out: Path) -> ReplayState:
    target = target_of(driver)
    replayed = run_again(target, case.history, law=case.law, reproduced=case.reproduced)
    tell_replayed(replayed, case.title)
    cut = replayed.history.cut
    if replayed.state is ReplayState.STILL_FAILS and cut is not None:
        paths = write_disks(target, replayed.history, out / DISKS / case.name)
        say(f"  {how_to_open(paths, target, cut)}")
    return replayed.state


def tell_replayed(replayed: Replayed, title: str) -> None:
    """Say what came of a replay."""
    say(f"{replayed.state.value}  {title}", colour=COLOURS.get(replayed.state, "yellow"), bold=True)
    for line in replayed.text.splitlines():
        say(f"  {line}")


# --- finding the histories ------------------------------------------------------------------------
def cases_of(what: str, out: Path) -> list[Case]:
    """Return what a file holds, or what is called `what` in the report at `out`."""
    try:
        return list(_from_file(Path(what)) if _is_file(what) else _from_report(what, out))
    except HistoryError as error:
        raise CallError(str(error)) from None


def _is_file(what: str) -> bool:
    return "/" in what or what.endswith((".py", ".jsonl")) or Path(what).exists()


def _from_file(path: Path) -> Iterator[Case]:
    """Yield the history of a reproducer; of a history.jsonl those that show a violation, or else all."""
    if path.suffix == ".py":
        read = reproducer.read(path)
        yield Case(path.stem, read.driver, read.history, reproduced=read.reproduced)
        return
    file = jsonl.read(path)
    if not file.records:
        raise HistoryError(f"{path}: there is no history in it")
    for record in [each for each in file.records if each.law is not None] or file.records:
        yield _case(file, record)


def _from_report(identity: str, out: Path) -> Iterator[Case]:
    path = out / report_folder.HISTORY
    if not path.exists():
        raise HistoryError(f"{path} is not there, so there is no {identity!a}; name a file, or --out DIR")
    file = jsonl.read(path)
    record = file.find(identity)
    if record is None:
        ids = [each.id for each in file.records]
        there = f"{', '.join(ids[:IDS_MAX])}{' ...' if len(ids) > IDS_MAX else ''}" or "none"
        raise HistoryError(f"{path}: no history is called {identity!a}; there is: {there}")
    yield _case(file, record)


def _case(file: HistoryFile, record: Recorded) -> Case:
    return Case(record.id, file.header.driver, record.history, record.law, record.device, record.reproduced)
