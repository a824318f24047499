"""What is said when a run is over: one screen at most when nothing is wrong, at most ten violations otherwise."""

import shutil
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from snapcheck.cli.defaults import REPORT_FOLDER
from snapcheck.cli.progress import violation_line
from snapcheck.cli.say import printable, say
from snapcheck.model.law_names import Severity
from snapcheck.reports import culprit
from snapcheck.reports.folder import PAGE
from snapcheck.reports.verdict import Coverage, LawReport, PhaseReport, RunResult, Verdict, ViolationReport

VIOLATIONS_MAX: Final = 10
WIDTH_MAX: Final = 100
LABEL: Final = 10
LAWS_MAX: Final = 8
COLOURS: Final = {Verdict.PASSED: "green", Verdict.FAILED: "red", Verdict.UNKNOWN: "yellow"}


def tell(result: RunResult, folder: Path, *, quiet: bool) -> None:
    """Print how the run went. `quiet` leaves the verdict and what is wrong."""
    width = min(WIDTH_MAX, shutil.get_terminal_size().columns)
    say(headline(result), colour=COLOURS[result.verdict], bold=True)
    for line in lines(result, folder, width=width, quiet=quiet):
        say(line)


def headline(result: RunResult) -> str:
    """Return the verdict and what it speaks of."""
    devices = f"{result.devices} device{'' if result.devices == 1 else 's'}"
    return (
        f"{result.verdict.value.upper()}  {result.driver}, {result.semantics}, {devices}, seed {result.seed}, "
        f"{result.seconds:.1f} s"
    )


def lines(result: RunResult, folder: Path, *, width: int, quiet: bool = False) -> Iterator[str]:
    """Yield what stands below the headline, wrapped at `width`."""
    for note in result.notes:
        yield from _labelled("note", note, width)
    if not quiet:
        for phase in result.phases:
            yield from _labelled(phase.name, _phase_words(phase), width)
        yield from _labelled("laws", _law_words(result), width)
        if result.coverage.cells:
            yield from _labelled("coverage", _coverage_words(result.coverage), width)
    shown = _worst_first(result.violations)
    told = shown[:VIOLATIONS_MAX]
    for violation in filter(_counts, told):
        yield ""
        yield from _violation_lines(violation, folder, width)
    if any(map(_counts, told)):
        yield ""
    for violation in told:
        if not _counts(violation):
            yield from _brief(violation, width)
    if len(shown) > VIOLATIONS_MAX:
        yield f"and {len(shown) - VIOLATIONS_MAX} more violations in the report"
    if not quiet or shown:
        yield from _labelled("report", str(folder / PAGE), width, whole_words=True)


def _counts(violation: ViolationReport) -> bool:
    return violation.severity is Severity.ERROR and not violation.known


def _worst_first(violations: Iterable[ViolationReport]) -> list[ViolationReport]:
    return sorted(violations, key=lambda each: (each.known, each.severity is Severity.WARNING))


def _labelled(label: str, text: str, width: int, *, indent: int = 0, whole_words: bool = False) -> list[str]:
    """Return `text` behind its label, in lines of `width`; `whole_words` keeps together what is to be copied."""
    start = f"{' ' * indent}{label:<{LABEL}} "
    return textwrap.wrap(
        printable(text), width, initial_indent=start, subsequent_indent=" " * len(start),
        break_long_words=not whole_words, break_on_hyphens=False,
    )  # fmt: skip


def _phase_words(phase: PhaseReport) -> str:
    rate = f" ({phase.steps / phase.seconds:,.0f} steps/s)" if phase.seconds else ""
    done = "" if phase.complete else ", not complete"
    scope = f"; {phase.scope}" if phase.scope else ""
    return f"{phase.histories:,} histories, {phase.steps:,} steps in {phase.seconds:.1f} s{rate}{done}{scope}"


def _coverage_words(coverage: Coverage) -> str:
    by_phase = ", ".join(f"{phase.name} {phase.reached:,}" for phase in coverage.phases)
    share = f" ({by_phase})" if by_phase else ""
    return f"{coverage.reached:,} of {coverage.cells:,} cells{share}"


def _law_words(result: RunResult) -> str:
    laws = result.laws
    hidden = [each for each in laws if each.not_observable]
    tolerable = {each.law for each in result.violations} - {each.law for each in result.violations if _counts(each)}
    groups = (
        ("violated", [each for each in laws if each.violated and each.law not in tolerable]),
        ("with warnings or known", [each for each in laws if each.violated and each.law in tolerable]),
        ("not observable", hidden),
        ("never checked", [each for each in laws if not each.checked and each not in hidden]),
    )
    checked = sum(1 for each in laws if each.checked and not each.not_observable)
    told = [f"{checked} of {len(laws)} checked"]
    told += [f"{len(some)} {what} ({_names(some)})" for what, some in groups if some]
    return ", ".join([*told, *(("none violated",) if checked and not groups[0][1] else ())])


def _names(laws: Sequence[LawReport]) -> str:
    names = [each.law.value for each in laws[:LAWS_MAX]]
    return ", ".join([*names, *(("...",) if len(laws) > LAWS_MAX else ())])


# --- one violation --------------------------------------------------------------------------------
def _brief(violation: ViolationReport, width: int) -> Iterator[str]:
    """Yield a violation that leaves the verdict alone: one or two lines, with the id to look it up or replay it by."""
    yield from textwrap.wrap(printable(f"{violation_line(violation)} ({violation.id})"), width, subsequent_indent="  ")


def _violation_lines(violation: ViolationReport, folder: Path, width: int) -> Iterator[str]:
    yield from textwrap.wrap(printable(violation_line(violation)), width, subsequent_indent="  ")
    for label, text in (("model", violation.expected), ("driver", violation.actual)):
        if text:
            yield from _labelled(label, text, width, indent=2)
    named = culprit.of_violation(violation)
    if named is not None and not named.agrees:
        yield from _labelled(
            "named", f"{named.named}, and should have been {named.deserved}: {named.why}", width, indent=2
        )
    steps = f"{violation.operations} operation{'' if violation.operations == 1 else 's'}"
    faults = f"{violation.faults} fault{'' if violation.faults == 1 else 's'}"
    yield from _labelled(
        "replay", f"{_replay_words(violation, folder)}  ({steps}, {faults})", width, indent=2, whole_words=True
    )


def _replay_words(violation: ViolationReport, folder: Path) -> str:
    """Return the command; it names the folder when that is not where replay looks by itself."""
    elsewhere = "" if folder == REPORT_FOLDER else f" --out {folder}"
    return f"{violation.replay}{elsewhere}"
