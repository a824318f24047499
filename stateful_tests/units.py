"""A unit of work and its answer, both plain data: so the same unit runs here, in another process, or on a cluster."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from snapcheck.model.facts import Evidence
from snapcheck.model.history import Abilities, History
from snapcheck.model.law_names import Law
from snapcheck.model.operations import kind_of
from snapcheck.model.scope import Scope
from snapcheck.model.setup import Semantics

SHARDS: Final = 8  # fixed, so that the number of jobs changes nothing


class Profile(StrEnum):
    """How far to look when nothing else is said."""

    QUICK = "quick"
    DEFAULT = "default"
    DEEP = "deep"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """What to do: so many histories of a phase on a driver, from a seed.

    driver       what `find_target` takes
    shard        which of the fixed number of shards this is; each has its own chance
    histories    how many at most, exactly so many when time allows; None: as many as `seconds` allow
    seconds      wall-clock that it may take; None: no limit
    profile      how far to look, for the phases that distinguish
    scope        what is to be toured, None for what the profile says
    journal      the file in which each history is noted as it ends; what is in it already is not done again
    """

    driver: str
    phase: str
    semantics: Semantics
    devices: int
    seed: int
    shard: int
    histories: int | None
    seconds: float | None
    profile: Profile = Profile.DEFAULT
    scope: Scope | None = None
    journal: str | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """A violation as it was found: the evidence of one step, the law at hand first, and its history to there."""

    phase: str
    evidence: tuple[Evidence, ...]
    history: History
    found_after_s: float

    @property
    def kind(self) -> tuple[str, str, str]:
        """What makes two failures look alike before anybody knows their cause: law, operation, severity."""
        first = self.evidence[0]
        return first.law.value, kind_of(self.history.steps[-1].operation), first.severity.value


@dataclass(slots=True)
class Answer:
    """What came of a unit.

    laws       by law: how often it was checked, and violated
    cells      the coverage matrix: how often each cell was reached
    counts     whatever else the phase counts, in words
    failures   the first few of each kind (law, operation, severity)
    sample     passing histories, with all their events
    digests    one for each history, in order: equal seeds give equal digests
    length     of a phase that is exhaustive: up to how many operations everything was run
    """

    unit: Unit
    histories: int = 0
    steps: int = 0
    seconds: float = 0.0
    laws: dict[Law, list[int]] = field(default_factory=lambda: {law: [0, 0] for law in Law})
    cells: Counter[str] = field(default_factory=Counter[str])
    counts: Counter[str] = field(default_factory=Counter[str])
    failures: list[Failure] = field(default_factory=list[Failure])
    sample: list[History] = field(default_factory=list[History])
    digests: list[str] = field(default_factory=list[str])
    abilities: Abilities | None = None  # of the system under test, None when no history was started
    length: int = 0
    scope: str = ""
    out_of_time: bool = False
    interrupted: bool = False

    def add_laws(self, counts: Mapping[Law, list[int]]) -> None:
        """Add what one history's judge counted."""
        for law, (checked, violated) in counts.items():
            mine = self.laws[law]
            mine[0] += checked
            mine[1] += violated
