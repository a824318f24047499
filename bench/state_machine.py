"""Steps per second of the state machine on the qcow2 engine, beside the same rules and strategies with empty bodies.

Both sides draw setups of up to three devices, operations and faults with Hypothesis; one performs them, looks lightly,
steps the model and asks the laws, the other does nothing with them. They take turns in one run, and the figure that
counts is the ratio: how much of Hypothesis' own speed is left. Run it: `python bench/state_machine.py`.
"""

import time
from statistics import median
from typing import ClassVar

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from snapcheck.impl.targets import find_target
from snapcheck.model.faults import Fault
from snapcheck.model.history import Care, Purpose
from snapcheck.model.operations import Operation
from snapcheck.model.setup import Semantics, Setup
from snapcheck.model.step import start
from snapcheck.stateful_tests.machine import SnapshotMachine
from snapcheck.stateful_tests.session import Session
from snapcheck.stateful_tests.strategies import Situation, drawn_setups, steps
from snapcheck.stateful_tests.watchdog import Watchdog

ROUNDS = 5
HISTORIES = 60
STEPS_EACH = 50
WANTED = 0.35


class Full(SnapshotMachine):
    """Performs, looks lightly, judges."""

    target = find_target("qcow2")
    care = Care.LIGHT
    taken: ClassVar[int] = 0

    def watch(self) -> Watchdog | None:
        return None

    def heard(self, session: Session, evidence: list[object]) -> None:  # type: ignore[override]
        pass

    def ended(self, session: Session) -> None:
        Full.taken += sum(step.purpose is Purpose.EXPLORE for step in session.history.steps) - 1  # the last is a look


class Empty(RuleBasedStateMachine):
    """Draws the same things for the state at the start, and does nothing."""

    semantics = Semantics.CLASSIC
    devices_max = 3
    prepared = True
    taken: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        self.situation: Situation | None = None

    @initialize(setup=drawn_setups())
    def start(self, setup: Setup) -> None:
        self.situation = Situation(start(setup))

    @rule(step=steps())
    def step(self, step: tuple[Operation, tuple[Fault, ...]] | None) -> None:
        Empty.taken += step is not None


def speed_of(machine: type[Full | Empty], number: int) -> float:
    """Return steps per second of one round."""
    machine.taken = 0
    seed(number)(machine)
    begun = time.perf_counter()
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=HISTORIES, stateful_step_count=STEPS_EACH, phases=(Phase.generate,), database=None,
            deadline=None, suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip
    return machine.taken / (time.perf_counter() - begun)


def main() -> None:
    """Print both speeds and their ratio."""
    for machine in (Full, Empty):
        speed_of(machine, 0)
    rounds = [(speed_of(Full, number), speed_of(Empty, number)) for number in range(1, ROUNDS + 1)]
    full, empty = median(a for a, _ in rounds), median(b for _, b in rounds)
    ratio = median(a / b for a, b in rounds)
    print(f"state machine on the engine, light observation: {full:8.0f} steps/s")
    print(f"same rules and strategies, empty bodies:        {empty:8.0f} steps/s")
    print(f"ratio {ratio:.2f} (wanted: at least {WANTED})")


if __name__ == "__main__":
    main()
