"""Which seeded bugs were found, how fast, and by which phase: as data, as scoreboard.json, and as JUnit's XML."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Final
from xml.etree import ElementTree as Xml  # it writes here, and parses nothing

from snapcheck.model.law_names import Law
from snapcheck.reports.files import write_whole

SCHEMA: Final = 1
JSON: Final = "scoreboard.json"
JUNIT: Final = "junit.xml"
OPERATIONS_MAX: Final = 6  # of a short reproducer
FAULTS_MAX: Final = 2


@dataclass(frozen=True, slots=True)
class Catch:
    """A phase (or a baseline) has found a bug: by which law and operation, after how many seconds of its own time."""

    by: str
    law: Law
    operation: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Reproducer:
    """How long the shortest reproducer is."""

    operations: int
    faults: int

    @property
    def short(self) -> bool:
        """Whether a person can take it in at a glance."""
        return self.operations <= OPERATIONS_MAX and self.faults <= FAULTS_MAX


@dataclass(frozen=True, slots=True)
class Score:
    """What came of one bug. `law` is what it breaks first, by the catalogue; `tried` are the phases that looked.

    `baselines` holds for each that was run what it found, None where it did not. `trouble` says what kept the harness
    from looking, in one line.
    """

    bug: str
    what: str
    row: str
    law: Law
    tried: tuple[str, ...]
    catches: tuple[Catch, ...]
    reproducer: Reproducer | None
    baselines: Mapping[str, Catch | None] = field(default_factory=dict[str, Catch | None])
    trouble: str = ""

    @property
    def best(self) -> Catch | None:
        """The catch that took the least time; None for a bug that was missed."""
        return min(self.catches, key=lambda each: each.seconds, default=None)


@dataclass(frozen=True, slots=True)
class Scoreboard:
    """All scores of a run. `wanted` names the bugs that were to be hunted: fewer scores mean that it was broken off."""

    version: str
    profile: str
    seconds_each: float
    seed: int
    wanted: tuple[str, ...]
    scores: tuple[Score, ...]

    @property
    def not_hunted(self) -> tuple[str, ...]:
        """The bugs whose turn did not come."""
        hunted = {score.bug for score in self.scores}
        return tuple(name for name in self.wanted if name not in hunted)

    @property
    def found(self) -> tuple[Score, ...]:
        return tuple(score for score in self.scores if score.catches)

    @property
    def missed(self) -> tuple[Score, ...]:
        return tuple(score for score in self.scores if not score.catches)

    @property
    def median_seconds(self) -> float | None:
        """The median time of the phase that was quickest, over the bugs that were found."""
        return _median(score.best for score in self.found)

    @property
    def by_several(self) -> int:
        """How many were found by two phases or more."""
        return sum(len(score.catches) > 1 for score in self.scores)

    @property
    def short(self) -> tuple[int, int]:
        """How many reproducers are short, and how many there are."""
        known = [score.reproducer for score in self.scores if score.reproducer is not None]
        return sum(each.short for each in known), len(known)

    def hunters(self) -> tuple["Hunter", ...]:
        """Return the sums of each phase, and behind them those of the baselines."""
        phases = dict.fromkeys(phase for score in self.scores for phase in score.tried)
        baselines = dict.fromkeys(name for score in self.scores for name in score.baselines)
        return (*map(self._phase, phases), *map(self._baseline, baselines))

    def _phase(self, name: str) -> "Hunter":
        found = [score for score in self.scores if any(each.by == name for each in score.catches)]
        alone = sum(len(score.catches) == 1 for score in found)
        catches = (each for score in found for each in score.catches if each.by == name)
        tried = sum(name in score.tried for score in self.scores)
        return Hunter(name, tried, len(found), alone, _median(catches), baseline=False)

    def _baseline(self, name: str) -> "Hunter":
        tried = [score.baselines[name] for score in self.scores if name in score.baselines]
        return Hunter(name, len(tried), sum(each is not None for each in tried), 0, _median(tried), baseline=True)


@dataclass(frozen=True, slots=True)
class Hunter:
    """The sums of a phase or a baseline: bugs tried, found, found by nobody else, and the median of its times."""

    name: str
    tried: int
    found: int
    alone: int
    median_seconds: float | None
    baseline: bool


def _median(catches: Iterable[Catch | None]) -> float | None:
    times = [each.seconds for each in catches if each is not None]
    return median(times) if times else None


# --- files ----------------------------------------------------------------------------------------
Json = dict[str, object]


def to_json(board: Scoreboard) -> Json:
    """Return what scoreboard.json holds."""
    short, reproducers = board.short
    return {
        "schema": SCHEMA, "version": board.version, "profile": board.profile, "seed": board.seed,
        "seconds_each": board.seconds_each, "bugs": len(board.wanted), "tried": len(board.scores),
        "found": len(board.found), "missed": [score.bug for score in board.missed],
        "not_hunted": list(board.not_hunted),
        "median_seconds": _rounded(board.median_seconds), "found_by_several_phases": board.by_several,
        "reproducers": reproducers, "short_reproducers": short,
        "hunters": [_hunter_json(hunter) for hunter in board.hunters()],
        "scores": [_score_json(score) for score in board.scores],
    }  # fmt: skip


def _hunter_json(hunter: Hunter) -> Json:
    return {
        "name": hunter.name, "baseline": hunter.baseline, "tried": hunter.tried, "found": hunter.found,
        "found_alone": hunter.alone, "median_seconds": _rounded(hunter.median_seconds),
    }  # fmt: skip


def _score_json(score: Score) -> Json:
    best, shortest = score.best, score.reproducer
    return {
        "bug": score.bug, "what": score.what, "row": score.row, "law": score.law.value, "found": bool(score.catches),
        "by": [_catch_json(each) for each in score.catches], "tried": list(score.tried),
        "seconds": None if best is None else _rounded(best.seconds),
        "operations": None if shortest is None else shortest.operations,
        "faults": None if shortest is None else shortest.faults,
        "baselines": {name: each and _catch_json(each) for name, each in score.baselines.items()},
        "trouble": score.trouble,
    }  # fmt: skip


def _catch_json(catch: Catch) -> Json:
    return {
        "by": catch.by, "law": catch.law.value, "operation": catch.operation, "seconds": _rounded(catch.seconds),
    }  # fmt: skip


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def to_xml(board: Scoreboard) -> Xml.Element:
    """Return a suite with a test case for each bug: one that was missed is a failure, one not hunted is skipped."""
    suite = Xml.Element("testsuite", name="snapcheck bugs", tests=str(len(board.wanted)))
    for score in board.scores:
        best = score.best
        case = _case_of(suite, score.bug)
        case.set("time", f"{best.seconds if best else board.seconds_each:.3f}")
        if score.trouble:
            Xml.SubElement(case, "error", type="unknown", message=score.trouble)
        elif best is None:
            Xml.SubElement(case, "failure", type=score.law.value, message=f"not found: {score.what}")
    for name in board.not_hunted:
        Xml.SubElement(_case_of(suite, name), "skipped", message="not hunted: the run ended before its turn came")
    for counter, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(counter, str(len(suite.findall(f"testcase/{tag}"))))
    return suite


def _case_of(suite: Xml.Element, bug: str) -> Xml.Element:
    return Xml.SubElement(suite, "testcase", name=bug, classname="snapcheck.bugs")


def write(folder: Path, board: Scoreboard) -> None:
    """Write scoreboard.json and junit.xml into `folder`, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / JSON, (json.dumps(to_json(board), indent=1), "\n"))
    tree = to_xml(board)
    Xml.indent(tree)
    write_whole(
        folder / JUNIT, ('<?xml version="1.0" encoding="utf-8"?>\n', Xml.tostring(tree, encoding="unicode"), "\n")
    )
