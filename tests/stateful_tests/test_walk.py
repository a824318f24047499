"""The walk is led on by what is new, is the same for the same seed, and says what it never saw."""

from random import Random

import pytest
from snapcheck.impl.targets import find_target
from snapcheck.model.errno import Errno
from snapcheck.model.faults import CallFault, IoFault, Lost
from snapcheck.model.history import FaultMet, Result, Step
from snapcheck.model.law_names import Severity
from snapcheck.model.operations import KINDS, OPERATIONS, AllCreate, AllGoto, Create
from snapcheck.model.setup import DeviceSpec, Semantics, Setup
from snapcheck.model.step import start
from snapcheck.reports.verdict import Verdict
from snapcheck.stateful_tests.goals import GOALS, declared, missed
from snapcheck.stateful_tests.phases import walk
from snapcheck.stateful_tests.run import RunOptions, Silent, run_driver
from snapcheck.stateful_tests.seeded_bugs import CANARY, SeededBug
from snapcheck.stateful_tests.units import SHARDS, Answer, Profile, Unit
from snapcheck.stateful_tests.work import Control

PAIR = start(Setup((DeviceSpec("d0"), DeviceSpec("d1"))))


def answer_to(
    driver: str = "qcow2", *, shard: int = 0, histories: int = 3, seed: int = 0, devices: int = 3,
    semantics: Semantics = Semantics.CLASSIC,
) -> Answer:  # fmt: skip
    asked = Unit(
        driver=driver, phase=walk.NAME, semantics=semantics, devices=devices, seed=seed, shard=shard,
        histories=histories, seconds=None, profile=Profile.QUICK,
    )  # fmt: skip
    return walk.run(asked, Control(lambda _tick: None))


def found_in(answer: Answer) -> bool:
    return any(failure.evidence[0].severity is Severity.ERROR for failure in answer.failures)


def test_the_same_seed_gives_the_same_histories() -> None:
    once, again, other = answer_to(), answer_to(histories=2), answer_to(seed=1, histories=2)
    assert len(once.digests) == 3
    assert once.digests[:2] == again.digests
    assert once.digests[:2] != other.digests


@pytest.mark.parametrize("semantics", list(Semantics))
def test_the_engine_passes_a_walk(semantics: Semantics) -> None:
    answer = answer_to(shard=3, semantics=semantics)
    assert [failure.evidence[0] for failure in answer.failures if failure.evidence[0].severity is Severity.ERROR] == []
    assert answer.steps > 3 * walk.STEPS_MIN


# An id beyond 32 bits is on few images to begin with: of three times eight shards with three histories each, three had
# one that a snapshot was taken on. The sweep begins with one.
RARE_IN_A_WALK = {"B27"}


@pytest.mark.parametrize("bug", [bug for bug in CANARY if bug.row not in RARE_IN_A_WALK], ids=lambda bug: bug.name)
def test_the_walk_alone_finds_the_canary(bug: SeededBug) -> None:
    answers = (answer_to(bug.driver, shard=shard, semantics=bug.semantics, histories=3) for shard in range(SHARDS))
    assert any(found_in(answer) for answer in answers), "half of the shards do, or more"


# --- what is new ----------------------------------------------------------------------------------
def test_two_errnos_of_one_fault_are_nothing_new_and_another_device_is() -> None:
    def seen(device: str, errno: Errno) -> walk.Seen:
        fault = CallFault(device, "create", errno=errno)
        step = Step(AllCreate("s"), (fault,), events=(FaultMet(device, 0),), result=Result(errno, first_bad=device))
        return walk.seen_in(step, PAIR)

    assert seen("d0", Errno.EIO) == seen("d0", Errno.EPERM)
    assert seen("d0", Errno.EIO) != seen("d1", Errno.EIO)


def test_a_history_may_go_on_where_an_earlier_one_ended() -> None:
    answer = answer_to(histories=4)
    assert answer.counts["steps that showed something new"] > 10
    longest = max(len(history.steps) for history in answer.sample)
    assert longest <= 2 * (walk.STEPS_MAX * 5 + 1)


def test_a_swarm_has_some_operations_and_some_faults_and_all_come_up_sometimes() -> None:
    swarms = [walk.draw_swarm(Random(number), None) for number in range(200)]  # noqa: S311  # chance for a test
    words = {KINDS[operation] for operation in OPERATIONS}
    drawn = [set(swarm.kinds) for swarm in swarms if swarm.kinds is not None]
    assert set().union(*drawn) == words
    assert any(len(kinds) < len(words) // 2 for kinds in drawn)
    assert {fault for swarm in swarms for fault in swarm.faults} == {"call", "error", "damage", "delay"}
    lost = IoFault("d0", "write", Lost())
    assert {swarm.lets(lost) for swarm in swarms} == {True, False}


# --- goals ----------------------------------------------------------------------------------------
def test_goals_are_declared_for_what_the_run_can_do() -> None:
    every = declared(Profile.DEEP, devices=3, kinds=None)
    assert every == GOALS
    assert set(declared(Profile.QUICK, devices=3, kinds=None)) < set(every)
    assert all(goal.devices == 1 for goal in declared(Profile.DEEP, devices=1, kinds=None))
    assert declared(Profile.DEEP, devices=3, kinds=("write",)) == ()


def test_what_was_reached_is_not_missed() -> None:
    goals = declared(Profile.QUICK, devices=3, kinds=None)
    assert len(missed(goals, {})) == len(goals)
    assert missed(goals, answer_to(histories=6).counts) == ()


def test_a_goal_that_was_missed_leaves_the_verdict_unknown() -> None:
    target = find_target("qcow2")
    result = run_driver(target, RunOptions(phases=(walk.NAME,), histories=1, seed=1), Silent()).result
    assert result.verdict is Verdict.UNKNOWN
    assert any("the walk never saw: " in note for note in result.notes)


def test_a_goal_takes_the_operation_to_have_been_performed_on_several_devices() -> None:
    goal = next(goal for goal in GOALS if goal.operations == (AllGoto,) and goal.devices == 2)
    assert goal.reached(Step(AllGoto("a")), PAIR)
    assert not goal.reached(Step(AllGoto("a"), result=Result(Errno.ENOENT)), PAIR)
    many = next(goal for goal in GOALS if goal.words == "a device with four snapshots")
    assert not many.reached(Step(Create("d0", "a")), PAIR)
