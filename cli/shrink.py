"""`snapcheck replay ID --shrink`: shrinking a violation further than the run that found it had the time to."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from snapcheck.cli.errors import CallError
from snapcheck.cli.replay import IDS_MAX, STATUS, tell_replayed
from snapcheck.cli.say import say
from snapcheck.cli.targets import target_of
from snapcheck.model.facts import Evidence
from snapcheck.model.history import History
from snapcheck.reports import folder as report_folder
from snapcheck.reports import jsonl
from snapcheck.reports.causes import grouped
from snapcheck.reports.jsonl import HistoryError
from snapcheck.reports.result_json import ResultError
from snapcheck.reports.verdict import RunResult, ViolationReport
from snapcheck.stateful_tests.replay import ReplayState, replay
from snapcheck.stateful_tests.shrink import shrink
from snapcheck.stateful_tests.violations import described

SECONDS_DEFAULT: Final = 60.0


def shrink_command(identity: str, *, out: Path, seconds: float) -> int:
    """Replay a violation of the report in `out`, go on shrinking it, rewrite the report, and return the exit status."""
    if not (seconds > 0 and math.isfinite(seconds)):
        raise CallError(f"--seconds {seconds}: give a number above 0")
    result, sample = _read(out)
    violation, history = _found(result, identity, out)
    target = target_of(result.driver)
    replayed = replay(target, history, law=violation.law, reproduced=violation.reproduced)
    tell_replayed(replayed, f"{identity}  {violation.law.value}")
    if replayed.state is ReplayState.STILL_FAILS:
        shrunk = shrink(target, replayed.history, replayed.evidence, seconds=seconds)
    elif replayed.state is ReplayState.CANNOT_TELL:
        say("  looking for it nearby")
        shrunk = shrink(target, history, (_evidence_of(violation),), seconds=seconds)
    else:
        return STATUS[replayed.state]
    if not shrunk.reproduced:
        say("  it is not there either")
        return STATUS[replayed.state]
    smaller = described(violation, shrunk)
    _rewrite(out, result, smaller, sample)
    _tell(violation, smaller, out)
    return STATUS[ReplayState.STILL_FAILS]


def _evidence_of(violation: ViolationReport) -> Evidence:
    """Return what is to be looked for, as it was found."""
    return Evidence(
        violation.law, violation.severity, violation.device, violation.summary, violation.expected, violation.actual
    )


def _read(out: Path) -> tuple[RunResult, list[History]]:
    """Return the report in a folder, and its sample of passing histories."""
    try:
        result, file = report_folder.read(out), jsonl.read(out / report_folder.HISTORY)
    except (HistoryError, ResultError) as error:
        raise CallError(f"--shrink: {error}; name the folder of a report with --out DIR") from None
    return result, [record.history for record in file.records if record.law is None]


def _found(result: RunResult, identity: str, out: Path) -> tuple[ViolationReport, History]:
    recorded = {each.id: (each, each.history) for each in result.violations if each.history is not None}
    if identity not in recorded:
        there = f"{', '.join([*recorded][:IDS_MAX])}{' ...' if len(recorded) > IDS_MAX else ''}" or "none"
        raise CallError(f"--shrink: {out} has no violation {identity!a}; there is: {there}")
    return recorded[identity]


def _rewrite(out: Path, result: RunResult, smaller: ViolationReport, sample: Sequence[History]) -> None:
    violations = grouped([smaller if each.id == smaller.id else each for each in result.violations])
    try:
        report_folder.write(out, replace(result, violations=violations), sample=sample)
    except OSError as error:
        raise CallError(f"--shrink: can not write to {out}: {error.strerror or error}") from None


def _tell(before: ViolationReport, after: ViolationReport, out: Path) -> None:
    was, now = (f"{each.operations} operations and {each.faults} faults" for each in (before, after))
    end = "nothing smaller was found" if after.shrunk else "time ran out, and the same call goes on from here"
    say(f"  shrunk from {was} to {now}; {end}")
    say(f"  rewritten: {out / report_folder.REPRODUCERS / after.id}.py, and the report in {out}")
