"""A page of each violation to go on from by hand: what was broken, by which steps, and what stands instead.

Pages are only added: one that is there already is somebody's work by now, and is left alone.
"""

from collections.abc import Iterator
from pathlib import Path

from snapcheck.model.history import History, Step
from snapcheck.reports.files import write_whole
from snapcheck.reports.verdict import RunResult, ViolationReport
from snapcheck.reports.words import device_words, fault_words, operation_words, result_words


def write(folder: Path, result: RunResult) -> int:
    """Write a page of each violation that is no known one into `folder`; return how many there were to be written."""
    folder.mkdir(parents=True, exist_ok=True)
    new = 0
    for violation in result.violations:
        path = folder / f"{violation.law.value}-{violation.operation}-{violation.id}.md"
        if not violation.known and not path.exists():
            write_whole(path, page(violation, result))
            new += 1
    return new


def page(violation: ViolationReport, result: RunResult) -> Iterator[str]:
    """Yield the page of one violation, in Markdown."""
    yield f"# {_safe(violation.summary)}\n"
    yield f"**Law**: {violation.law.value} ({violation.severity.value}). **Driver**: `{result.driver}`, "
    yield f"semantics {result.semantics}. **Found by**: phase {violation.phase}, seed {result.seed}; "
    yield f"snapcheck {result.version}.\n\n"
    if violation.history is not None:
        yield from _steps(violation.history)
    yield f"\nThe model allows: {_safe(violation.expected)}\n\nThe driver gave: {_safe(violation.actual)}\n"
    for line in violation.evidence:
        yield f"* {_safe(line)}\n"
    yield "\n**What a user loses**: (to be written)\n\n**Reproducer without snapcheck**: (to be written)\n\n"
    yield f"**Seen in**: (versions)\n\nAgain: `{violation.replay}`\n"


def _steps(history: History) -> Iterator[str]:
    yield "Devices:\n"
    for spec in history.setup.devices:
        yield f"* {_safe(device_words(spec))}\n"
    yield "\nSteps:\n"
    for number, step in enumerate(history.steps, 1):
        yield f"{number}. {_safe(_step_words(step))}\n"


def _step_words(step: Step) -> str:
    words = f"{operation_words(step.operation)}: {result_words(step.operation, step.result)}"
    faults = "; ".join(fault_words(fault) for fault in step.faults)
    return f"{words} (while {faults})" if faults else words


def _safe(text: str) -> str:
    """Return `text` so that Markdown shows it as it is."""
    return " ".join("".join(f"\\{each}" if each in "\\`*_<>[]#|" else each for each in text).split())
