"""The folder of a report: which files are in it, written and read together.

result.json and history.jsonl hold all that is known; junit.xml, report.html and repro/ are drawn from them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from snapcheck.model.history import History
from snapcheck.reports import digests, html, jsonl, junit, reproducer, result_json
from snapcheck.reports.digests import Shard
from snapcheck.reports.result_json import ResultError
from snapcheck.reports.verdict import RunResult

RESULT: Final = "result.json"
HISTORY: Final = "history.jsonl"
DIGESTS: Final = "digests.txt"
JUNIT: Final = "junit.xml"
PAGE: Final = "report.html"
REPRODUCERS: Final = "repro"
# What `snapcheck explore` adds for a small scope.
SUITE: Final = "suite.jsonl"
GRAPH_DOT: Final = "graph.dot"
GRAPHML: Final = "graph.graphml"
GRAPH_SVG: Final = "graph.svg"


def begin(folder: Path, unfinished: RunResult) -> None:
    """Make `folder` ready for a run: what an earlier one left must not be taken for this one's.

    `unfinished` is what result.json says while the run is under way, and for ever if the process is killed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _forget_reproducers(folder)
    for name in (HISTORY, DIGESTS, JUNIT, PAGE, SUITE, GRAPH_DOT, GRAPHML, GRAPH_SVG):
        (folder / name).unlink(missing_ok=True)
    result_json.write(folder / RESULT, unfinished)


def _forget_reproducers(folder: Path) -> None:
    """Delete the reproducers that the result.json in `folder` names, and no file besides."""
    try:
        former = result_json.read(folder / RESULT)
    except ResultError:
        return
    for violation in former.violations:
        (folder / REPRODUCERS / f"{violation.id}.py").unlink(missing_ok=True)


def write(
    folder: Path, result: RunResult, *, sample: Sequence[History] = (), shards: Sequence[Shard] = ()
) -> None:  # fmt: skip
    """Write all files of `result`; `sample` are histories that passed, `shards` name all that were run.

    result.json comes first: it matters most. Without `shards` digests.txt is left as it is.
    """
    result_json.write(folder / RESULT, result)
    jsonl.write(folder / HISTORY, result, sample=sample)
    if shards:
        digests.write(folder / DIGESTS, result, shards)
    reproducer.write(folder / REPRODUCERS, result)
    render(folder, result)


def read(folder: Path) -> RunResult:
    """Return the result in `folder` with its histories; raise `ResultError` or `HistoryError` with one line."""
    result = result_json.read(folder / RESULT)
    return result_json.with_histories(result, jsonl.read(folder / HISTORY))


def render(folder: Path, result: RunResult) -> None:
    """Draw the pages of `result`."""
    junit.write(folder / JUNIT, result)
    html.write(folder / PAGE, result)
