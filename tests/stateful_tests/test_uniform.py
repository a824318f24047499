"""The baseline of uniform random histories: as likely everything as anything, the same for a seed, no false alarms."""

from collections import Counter

from snapcheck.model.history import Purpose
from snapcheck.model.law_names import Severity
from snapcheck.model.operations import OPERATIONS
from snapcheck.model.setup import Semantics
from snapcheck.stateful_tests import uniform
from snapcheck.stateful_tests.units import Answer, Unit
from snapcheck.stateful_tests.work import Control


def answer_to(*, histories: int, seed: int = 1) -> Answer:
    unit = Unit(
        driver="qcow2", phase=uniform.NAME, semantics=Semantics.CLASSIC, devices=3, seed=seed, shard=0,
        histories=histories, seconds=None,
    )  # fmt: skip
    return uniform.run(unit, Control(lambda _tick: None))


def test_the_same_seed_gives_the_same_histories() -> None:
    once, again, other = (answer_to(histories=6, seed=seed) for seed in (1, 1, 2))
    assert len(once.digests) == 6
    assert once.digests == again.digests
    assert once.digests != other.digests


def test_the_correct_engine_passes() -> None:
    answer = answer_to(histories=60)
    assert [each.evidence for each in answer.failures if each.evidence[0].severity is Severity.ERROR] == []


def test_every_operation_is_as_likely_and_nothing_is_done_after_a_failure() -> None:
    sample = answer_to(histories=4).sample
    steps = [step for history in sample for step in history.steps]
    assert {step.purpose for step in steps} == {Purpose.EXPLORE}
    kinds = Counter(type(step.operation) for step in steps)
    assert len(kinds) > len(OPERATIONS) // 2
    assert max(kinds.values()) < len(steps) / 4
