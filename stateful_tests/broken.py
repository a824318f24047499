"""A broken law in words."""

from snapcheck.model.facts import Evidence
from snapcheck.model.history import History
from snapcheck.reports.words import cut_words


class LawBrokenError(AssertionError):
    """A law was broken; the text says which, by what, and what the model allows instead."""


def broken_text(evidence: Evidence, history: History) -> str:
    """Return evidence in words; it came from the last step of `history`."""
    step = len(history.steps) - 1
    cut = f"  the cut:          {cut_words(history.cut)}\n" if history.cut is not None else ""
    return (
        f"law {evidence.law.value} is broken at step {step}: {evidence.summary}\n{cut}"
        f"  the model allows: {evidence.expected}\n"
        f"  the driver gave:  {evidence.actual}"
    )
