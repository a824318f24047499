"""Drivers with one known bug each: the harness must find them all.

`CATALOGUE` lists them. Each can be run like any driver: `snapcheck run` with its `driver`.
"""

from dataclasses import dataclass
from typing import Final

from snapcheck.model.law_names import Law
from snapcheck.model.setup import Semantics

_HERE: Final = "snapcheck.stateful_tests.seeded_bugs"


@dataclass(frozen=True, slots=True)
class SeededBug:
    """A bug: `driver` is what `snapcheck run` takes, `row` where it comes from, `law` the one that it breaks first."""

    driver: str
    law: Law
    row: str = ""  # of the list of real bugs in the design documents; empty for those of the group family
    semantics: Semantics = Semantics.CLASSIC

    @property
    def name(self) -> str:
        """What it is called in reports."""
        return self.driver.partition(":")[2].replace("_", "-")


CATALOGUE: Final = (
    SeededBug(f"{_HERE}.group:wrong_culprit", Law.RIGHT_CULPRIT),
    SeededBug(f"{_HERE}.group:stale_first_bad", Law.OUT_PARAMS),
    SeededBug(f"{_HERE}.group:innocent_touched", Law.STOPS_AT_FIRST),
    SeededBug(f"{_HERE}.group:lock_kept", Law.LOCKS_BALANCED, "B59"),
    SeededBug(f"{_HERE}.qcow2:count_not_restored", Law.ERROR_MEANS_UNCHANGED, "B08"),
    SeededBug(f"{_HERE}.qcow2:narrow_id", Law.OUT_PARAMS, "B27"),
    SeededBug(f"{_HERE}.group:id_or_name", Law.RESULT, "B55"),
    SeededBug(f"{_HERE}.group:no_rollback", Law.PREFIX_APPLIED, "B77", Semantics.MODERN),
)
# Those that only a power cut shows: phase crash finds them.
POWER_CUTS: Final = (
    SeededBug(f"{_HERE}.power_cuts:lowered_before_delete", Law.NO_CORRUPTION, "B01"),
    SeededBug(f"{_HERE}.power_cuts:old_tree_dropped_first", Law.NO_CORRUPTION, "B02"),
    SeededBug(f"{_HERE}.power_cuts:counts_not_flushed", Law.NO_CORRUPTION, "B04"),
    SeededBug(f"{_HERE}.power_cuts:header_written_twice", Law.ATOMIC_OP, "B06"),
    SeededBug(f"{_HERE}.power_cuts:discarded_before_delete", Law.ATOMIC_OP, "B15"),
)
