"""`snapcheck explore` as people type it: what it says, what it leaves behind, and how it refuses."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from snapcheck.model import group
from snapcheck.model.group import Call, Then
from snapcheck.model.operations import AllGoto

Snapcheck = Callable[..., CompletedProcess[str]]
SMALL = ("--names", 1, "--values", 2)


def test_a_small_scope_is_explored_and_drawn(snapcheck: Snapcheck, tmp_path: Path) -> None:
    done = snapcheck("explore", *SMALL)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1].startswith("PASSED  the model, classic, 2 devices")
    assert "36 states, up to 5 moves from the start, 1,552 transitions" in " ".join(done.stdout.split())
    assert "sometimes 5 of 5 kinds of states that matter were seen" in " ".join(done.stdout.split())
    assert max(map(len, done.stdout.splitlines())) <= 80
    report = tmp_path / "snapcheck-report"
    assert {path.name for path in report.iterdir()} == {
        "graph.dot", "graph.graphml", "graph.svg", "suite.jsonl", "result.json", "history.jsonl", "junit.xml",
        "report.html",
    }  # fmt: skip
    (phase,) = json.loads((report / "result.json").read_text())["phases"]
    assert (phase["name"], phase["complete"]) == ("explore", True)
    assert {name: phase["counts"][name] for name in ("states", "transitions", "depth")} == {
        "states": 36, "transitions": 1_552, "depth": 5,
    }  # fmt: skip


def test_what_it_will_take_is_said_before_anything_is_done(snapcheck: Snapcheck) -> None:
    assert snapcheck("explore", *SMALL).stdout.startswith("estimate   up to 36 states, ")
    assert "estimate" not in snapcheck("explore", *SMALL, "--quiet").stdout


def test_the_suite_is_run_by_replay(snapcheck: Snapcheck) -> None:
    snapcheck("explore", "--devices", 1, "--names", 1)
    done = snapcheck("replay", "snapcheck-report/suite.jsonl", "--driver", "qcow2")
    assert (done.returncode, done.stderr) == (0, "")
    assert "FIXED" in done.stdout


def test_a_large_scope_says_what_is_left_out(snapcheck: Snapcheck) -> None:
    done = snapcheck("explore", "--devices", 3)
    said = " ".join(done.stdout.split())
    assert done.returncode == 0
    assert "17,576 states are too many to be drawn" in said
    assert "suite none" in said
    assert "115,840 transitions more lead out of this scope" in said


def test_devices_that_are_alike_can_be_merged(snapcheck: Snapcheck, tmp_path: Path) -> None:
    done = snapcheck("explore", "--devices", 5, "--names", 1, "--merge")
    said = " ".join(done.stdout.split())
    assert done.returncode == 0
    assert "252 states that stand for 7,776" in said
    assert not (tmp_path / "snapcheck-report" / "graph.svg").exists()


def test_a_driver_is_driven_through_every_transition(snapcheck: Snapcheck, tmp_path: Path) -> None:
    done = snapcheck("explore", "--devices", 1, "--names", 1, "--against", "qcow2", "--no-progress")
    assert (done.returncode, done.stderr) == (0, "")
    assert "150 of 150 transitions taken, none disagreeing" in " ".join(done.stdout.split())
    (phase,) = json.loads((tmp_path / "snapcheck-report" / "result.json").read_text())["phases"]
    assert (phase["name"], phase["complete"], phase["counts"]["transitions taken"]) == ("tour", True, 150)


def test_a_tour_leaves_no_files_of_an_exploration_before_it(snapcheck: Snapcheck, tmp_path: Path) -> None:
    snapcheck("explore", "--devices", 1, "--names", 1)
    assert (tmp_path / "snapcheck-report" / "graph.dot").exists()
    snapcheck("explore", "--devices", 1, "--names", 1, "--against", "qcow2", "--no-progress")
    left = {path.name for path in (tmp_path / "snapcheck-report").iterdir()}
    assert not left & {"graph.dot", "graph.graphml", "graph.svg", "suite.jsonl"}


def test_one_of_a_kind_is_told_as_one(snapcheck: Snapcheck) -> None:
    said = " ".join(snapcheck("explore", "--devices", 1, "--names", 1, "--values", 1).stdout.split())
    assert "up to 1 move from the start" in said


def test_a_driver_that_disagrees_fails(snapcheck: Snapcheck) -> None:
    bug = "snapcheck.stateful_tests.seeded_bugs.group:stale_first_bad"
    done = snapcheck("explore", *SMALL, "--devices", 1, "--against", bug, "--no-progress")
    assert done.returncode == 1
    assert "error: right-culprit on d0: all-" in done.stdout


def test_a_model_that_breaks_a_law_shows_the_way_there(snapcheck: Snapcheck, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(group.WALK_OF, AllGoto, (Call("goto", Then.GO_ON, Then.SKIP),))
    done = snapcheck("explore", *SMALL)
    said = " ".join(done.stdout.split())
    assert done.returncode == 1
    assert "error: stops-at-first: all-goto a goes on after goto has failed" in said
    assert "path all-goto a replay snapcheck replay" in said
    identity = said.partition("snapcheck replay ")[2].split()[0]
    again = snapcheck("replay", identity, "--driver", "qcow2")
    assert (again.returncode, "FIXED" in again.stdout) == (0, True)  # the engine stops there, as it should


def test_somebody_who_does_not_want_to_wait_gets_a_report(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "snapcheck.cli", "explore", "--devices", "5", "--no-progress"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    result = tmp_path / "snapcheck-report" / "result.json"
    while not result.exists():
        time.sleep(0.05)
    time.sleep(1)  # the tables are being made, or the search has begun
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 3
    assert "not all there are" in " ".join(said.split())
    assert "never seen" not in said
    assert json.loads(result.read_text())["verdict"] == "unknown"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--devices", 9), "devices 9: give 1 to 8"),
        (("--devices", 8), "208,827,064,576 states (8 devices, 2 names, 2 values"),
        (("--names", 9, "--values", 9, "--snapshots", 5), "states of one device"),
        (("--devices", 5, "--against", "qcow2"), "11,881,376 states (5 devices"),
        (("--merge", "--against", "qcow2"), "--merge is for the model alone"),
        (("--against", "nobody"), "there is no driver 'nobody'"),
    ],
)
def test_what_can_not_be_explored_is_refused_in_one_line(
    snapcheck: Snapcheck, words: tuple[object, ...], told: str, tmp_path: Path
) -> None:
    done = snapcheck("explore", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "snapcheck-report" / "result.json").exists()
