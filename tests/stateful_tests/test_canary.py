"""The canary: phase stateful alone finds each seeded bug under the law that it breaks; its reproducer replays it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from snapcheck.impl.targets import find_target
from snapcheck.model.law_names import Severity
from snapcheck.model.setup import Semantics
from snapcheck.reports import reproducer
from snapcheck.reports.verdict import RunResult, Verdict, ViolationReport
from snapcheck.stateful_tests.replay import ReplayState, replay
from snapcheck.stateful_tests.run import RunOptions, Silent, run_driver
from snapcheck.stateful_tests.seeded_bugs import CANARY, SeededBug
from snapcheck.stateful_tests.units import Profile

# A quick run has the time for several times as many histories, so a bug that these find is found by it.
HISTORIES = 200
OPERATIONS_MAX = 6
FAULTS_MAX = 2


def run_on(bug: SeededBug, *, semantics: Semantics | None = None) -> RunResult:
    options = RunOptions(
        phases=("stateful",), profile=Profile.QUICK, histories=HISTORIES, semantics=semantics or bug.semantics
    )
    return run_driver(find_target(bug.driver), options, Silent()).result


def errors_of(result: RunResult) -> list[ViolationReport]:
    return [each for each in result.violations if each.severity is Severity.ERROR]


def laws_in(result: RunResult) -> set[str]:
    """Return the laws that are told: by themselves, or beside another that the same step broke."""
    beside = {line.partition(":")[0] for each in errors_of(result) for line in each.evidence}
    return {each.law.value for each in errors_of(result)} | beside


@pytest.mark.parametrize("bug", CANARY, ids=lambda bug: bug.name)
def test_a_seeded_bug_is_found_and_its_reproducer_replays_it(bug: SeededBug, tmp_path: Path) -> None:
    result = run_on(bug)
    assert result.verdict is Verdict.FAILED
    assert bug.law.value in laws_in(result)
    shortest = min(errors_of(result), key=lambda each: (each.operations, each.faults))
    assert shortest.operations <= OPERATIONS_MAX
    assert shortest.faults <= FAULTS_MAX
    reproducer.write(tmp_path, result)
    driver, history, _ = reproducer.read(tmp_path / f"{shortest.id}.py")
    assert replay(find_target(driver), history, law=shortest.law).state is ReplayState.STILL_FAILS
    assert replay(find_target("qcow2"), history).state is ReplayState.FIXED


def test_a_reproducer_fails_under_pytest_on_the_broken_driver_and_passes_on_the_good_one(tmp_path: Path) -> None:
    bug = CANARY[0]
    result = run_on(bug)
    reproducer.write(tmp_path, result)
    file = tmp_path / f"{errors_of(result)[0].id}.py"

    def pytest_on(file: Path) -> int:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(file)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False).returncode

    assert pytest_on(file) == 1
    file.write_text(file.read_text().replace(repr(bug.driver), "'qcow2'"))
    assert pytest_on(file) == 0


def test_what_savevm_leaves_behind_is_a_violation_under_modern_and_by_design_under_classic() -> None:
    bug = next(each for each in CANARY if each.row == "B77")
    assert any(each.operation == "save-vm" for each in errors_of(run_on(bug)))
    assert errors_of(run_on(bug, semantics=Semantics.CLASSIC)) == []


def test_the_eight_bugs_of_the_canary_are_there() -> None:
    assert len({bug.name for bug in CANARY}) == 8
    assert {bug.row for bug in CANARY} >= {"B59", "B08", "B27", "B55", "B77"}
