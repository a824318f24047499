"""Phase stateful goes on when Hypothesis gives a batch up."""

from typing import Any

import pytest
from hypothesis.errors import FlakyStrategyDefinition
from hypothesis.internal.conjecture import providers
from hypothesis.internal.constants_ast import Constants
from snapcheck.impl.targets import find_target
from snapcheck.model.setup import Semantics
from snapcheck.stateful_tests.phases import stateful
from snapcheck.stateful_tests.run import RunOptions, Silent, run_driver
from snapcheck.stateful_tests.units import Unit
from snapcheck.stateful_tests.work import Control


@pytest.fixture
def flaky_at_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Hypothesis find in the first batch that a history did not go as it did before."""
    run_batch, begun = stateful.run_batch, list[str]()

    def flaky_at_first(machine: type[Any], seed_text: str) -> None:
        begun.append(seed_text)
        if len(begun) == 1:
            raise FlakyStrategyDefinition("the second run stopped drawing earlier")
        run_batch(machine, seed_text)

    monkeypatch.setattr(stateful, "run_batch", flaky_at_first)
    monkeypatch.setattr(stateful, "BATCH", 1)


@pytest.mark.usefixtures("flaky_at_first")
def test_a_driver_that_does_something_else_the_second_time_ends_a_batch_and_not_the_run() -> None:
    # Given such a driver
    unit = Unit(
        driver="qcow2", phase=stateful.NAME, semantics=Semantics.CLASSIC, devices=1, seed=0, shard=0, histories=3,
        seconds=None,
    )  # fmt: skip
    # When the phase runs
    answer = stateful.run(unit, Control(lambda _tick: None))
    # Then it has all its histories, and the break is counted
    assert answer.histories == 3
    assert answer.counts[stateful.FLAKY] == 1


@pytest.mark.usefixtures("flaky_at_first")
def test_a_run_says_of_a_driver_that_it_did_something_else_the_second_time() -> None:
    options = RunOptions(phases=(stateful.NAME,), histories=3, devices=1)
    (phase,) = run_driver(find_target("qcow2"), options, Silent()).result.phases
    assert phase.scope.endswith("batches that ended as the driver did something else the second time: 1")


def test_the_same_seed_gives_the_same_histories_whatever_modules_are_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    unit = Unit(
        driver="qcow2", phase=stateful.NAME, semantics=Semantics.CLASSIC, devices=3, seed=5, shard=0, histories=14,
        seconds=None,
    )  # fmt: skip
    # Given two processes, of which one has imported modules with constants that Hypothesis would mix into its draws
    digests: list[list[str]] = []
    for imported in (Constants(), Constants(integers=set(range(100, 250)))):
        monkeypatch.setattr(providers, "_get_local_constants", lambda found=imported: found)
        providers.CONSTANTS_CACHE.cache.clear()
        # When both draw with one seed
        digests.append(stateful.run(unit, Control(lambda _tick: None)).digests)
    # Then they draw the same
    assert digests[0] == digests[1]
