"""What is said when a run is over: one screen at most when nothing is wrong, at most ten violations otherwise."""

import shutil
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from snapcheck.cli.defaults import REPORT_FOLDER
from snapcheck.cli.progress import violation_line
from snapcheck.cli.say import printable, say
from snapcheck.model.law_names import Severity
from snapcheck.model.scope import counted
from snapcheck.reports import culprit
from snapcheck.reports.folder import PAGE
from snapcheck.reports.verdict import (
    NOT_REPRODUCED,
    Coverage,
    LawReport,
    PhaseReport,
    RunResult,
    Verdict,
    ViolationReport,
)
from snapcheck.reports.words import cut_words
from snapcheck.stateful_tests import exploring
from snapcheck.stateful_tests.phases import tour

VIOLATIONS_MAX: Final = 10
WIDTH_MAX: Final = 100
LABEL: Final = 10
LAWS_MAX: Final = 8
COLOURS: Final = {Verdict.PASSED: "green", Verdict.FAILED: "red", Verdict.UNKNOWN: "yellow"}


def tell(result: RunResult, folder: Path, *, quiet: bool) -> None:
    """Print how the run went. `quiet` leaves the verdict and what is wrong."""
    say(headline(result), colour=COLOURS[result.verdict], bold=True)
    for line in lines(result, folder, width=width(), quiet=quiet):
        say(line)


def width() -> int:
    """Return how wide a line may be."""
    return min(WIDTH_MAX, shutil.get_terminal_size().columns)


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
        yield from labelled("note", note, width)
    if not quiet:
        for phase in result.phases:
            yield from labelled(phase.name, _phase_words(phase), width)
        yield from labelled("laws", _law_words(result), width)
        if result.coverage.cells:
            yield from labelled("coverage", _coverage_words(result.coverage), width)
    groups = by_cause(result.violations)
    told = groups[:VIOLATIONS_MAX]
    for group in filter(_group_counts, told):
        yield ""
        yield from _violation_lines(group[0], folder, width)
        if len(group) > 1:
            yield from labelled("also", _also_words(group), width, indent=2)
    if any(map(_group_counts, told)):
        yield ""
    for group in told:
        if not _group_counts(group):
            yield from _brief(group, width)
    left_out = sum(map(len, groups[VIOLATIONS_MAX:]))
    if left_out:
        yield f"and {left_out} more violations in the report"
    if not quiet or groups:
        yield from labelled("report", str(folder / PAGE), width, whole_words=True)


def by_cause(violations: Sequence[ViolationReport]) -> list[list[ViolationReport]]:
    """Return the violations by their likely causes, those that decide the verdict first."""
    groups: dict[str, list[ViolationReport]] = {}
    for each in violations:
        groups.setdefault(each.cause or each.id, []).append(each)
    return sorted(groups.values(), key=lambda group: (group[0].known, group[0].severity is Severity.WARNING))


def _group_counts(group: Sequence[ViolationReport]) -> bool:
    return _counts(group[0])


def _counts(violation: ViolationReport) -> bool:
    return violation.severity is Severity.ERROR and not violation.known


def _also_words(group: Sequence[ViolationReport]) -> str:
    others = [f"{each.law.value} at {each.operation} ({each.id})" for each in group[1:]]
    return f"{', '.join(others)}; most likely one cause"


def labelled(label: str, text: str, width: int, *, indent: int = 0, whole_words: bool = False) -> list[str]:
    """Return `text` behind its label, in lines of `width`; `whole_words` keeps together what is to be copied."""
    start = f"{' ' * indent}{label:<{LABEL}} "
    return textwrap.wrap(
        printable(text), width, initial_indent=start, subsequent_indent=" " * len(start),
        break_long_words=not whole_words, break_on_hyphens=False,
    )  # fmt: skip


def _phase_words(phase: PhaseReport) -> str:
    if phase.name == exploring.NAME:
        return _explored_words(phase)
    rate = f" ({phase.steps / phase.seconds:,.0f} steps/s)" if phase.seconds else ""
    done = "" if phase.complete else ", not complete"
    scope = f"; {phase.scope}" if phase.scope else ""
    histories = counted(phase.histories, "history", "histories")
    steps = f"{histories}, {counted(phase.steps, 'step')} in {phase.seconds:.1f} s"
    return f"{steps}{rate}{_taken(phase)}{done}{scope}"


def _explored_words(phase: PhaseReport) -> str:
    """Return what an exploration saw; one that did not come to its end says so in a note."""
    counts = phase.counts
    rate = f" ({phase.steps / phase.seconds / 1e6:,.0f} million/s)" if phase.steps > 1e7 and phase.seconds else ""
    stand_for = f" that stand for {counts[exploring.STANDS_FOR]:,}" if exploring.STANDS_FOR in counts else ""
    return (
        f"{counted(counts[exploring.STATES], 'state')}{stand_for}, "
        f"up to {counted(counts[exploring.DEPTH], 'move')} from the start, "
        f"{counted(counts[exploring.TRANSITIONS], 'transition')} in {phase.seconds:.2f} s{rate}; {phase.scope}; "
        f"{counts[exploring.LEAVING]:,} transitions more lead out of this scope"
    )


def _taken(phase: PhaseReport) -> str:
    """Return how many transitions a tour took, and how many of them disagreed with the model."""
    counts = phase.counts
    if tour.IN_SCOPE not in counts:
        return ""
    taken, there_are = counts[tour.TAKEN], counts[tour.IN_SCOPE]
    return f", {taken:,} of {there_are:,} transitions taken, {counts[tour.DISAGREEING] or 'none':} disagreeing"


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
def _brief(group: Sequence[ViolationReport], width: int) -> Iterator[str]:
    """Yield what leaves the verdict alone: a line or two, with the ids to look it up or replay it by."""
    also = f"; also {_also_words(group)}" if len(group) > 1 else ""
    text = printable(f"{violation_line(group[0])} ({group[0].id}){also}")
    yield from textwrap.wrap(text, width, subsequent_indent="  ", break_on_hyphens=False)


def _violation_lines(violation: ViolationReport, folder: Path, width: int) -> Iterator[str]:
    yield from textwrap.wrap(printable(violation_line(violation)), width, subsequent_indent="  ")
    cut = violation.history.cut if violation.history is not None else None
    shown = cut_words(cut) if cut is not None else ""
    for label, text in (("cut", shown), ("model", violation.expected), ("driver", violation.actual)):
        if text:
            yield from labelled(label, text, width, indent=2)
    for line in violation.evidence if violation.phase == exploring.NAME else ():
        label, _, text = line.partition(": ")
        yield from labelled(label, text, width, indent=2)
    named = culprit.of_violation(violation)
    if named is not None and not named.agrees:
        yield from labelled(
            "named", f"{named.named}, and should have been {named.deserved}: {named.why}", width, indent=2
        )
    steps = f"{violation.operations} operation{'' if violation.operations == 1 else 's'}"
    faults = f"{violation.faults} fault{'' if violation.faults == 1 else 's'}"
    longer = "" if violation.shrunk else "; --shrink makes it shorter"
    longer = longer if violation.reproduced else f"; {NOT_REPRODUCED}"
    words = f"{_replay_words(violation, folder)}  ({steps}, {faults}{longer})"
    yield from labelled("replay", words, width, indent=2, whole_words=True)


def _replay_words(violation: ViolationReport, folder: Path) -> str:
    """Return the command; it names the folder when that is not where replay looks by itself."""
    elsewhere = "" if folder == REPORT_FOLDER else f" --out {folder}"
    return f"{violation.replay}{elsewhere}"
