import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from snapcheck.impl.targets import Target, find_target
from snapcheck.model.faults import Fails, IoFault
from snapcheck.model.history import History, Step
from snapcheck.model.law_names import Law
from snapcheck.model.operations import AllCreate
from snapcheck.model.setup import DeviceSpec, Setup
from snapcheck.reports import folder, jsonl
from snapcheck.reports.verdict import RunResult
from snapcheck.stateful_tests.replay import Replayed, ReplayState, replay

Snapcheck = Callable[..., CompletedProcess[str]]


class Engine:
    """Stands in for a replay: remembers what was asked, and answers what it is told to."""

    def __init__(self) -> None:
        self.state = ReplayState.STILL_FAILS
        self.asked: list[tuple[str, Law | None]] = []

    def __call__(
        self, target: Target, history: History, *, law: Law | None = None, reproduced: bool = True
    ) -> Replayed:
        assert reproduced
        self.asked.append((target.name, law))
        return Replayed(self.state, "the driver blames d2\nand not d1", history)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    stand_in = Engine()
    monkeypatch.setattr("snapcheck.cli.replay.run_again", stand_in)
    return stand_in


@pytest.fixture
def report(failed: RunResult, history: History, tmp_path: Path) -> Path:
    place = tmp_path / "snapcheck-report"
    place.mkdir()
    folder.write(place, replace(failed, driver="qcow2"), sample=(history,))
    return place


@pytest.mark.parametrize(
    ("state", "status"),
    [
        (ReplayState.FIXED, 0),
        (ReplayState.STILL_FAILS, 1),
        (ReplayState.CANNOT_RUN, 3),
        (ReplayState.CANNOT_TELL, 3),
    ],
)
@pytest.mark.usefixtures("report")
def test_an_id_is_looked_up_in_the_report_and_its_law_is_asked_for(
    snapcheck: Snapcheck, engine: Engine, state: ReplayState, status: int
) -> None:
    engine.state = state
    done = snapcheck("replay", "a1b2c3d4")
    assert done.returncode == status
    assert done.stdout == (
        f"{state.value}  a1b2c3d4  right-culprit on d1\n  the driver blames d2\n  and not d1\n"
    )  # fmt: skip
    assert engine.asked == [("qcow2", Law.RIGHT_CULPRIT)]


def test_a_reproducer_is_read_without_being_run(snapcheck: Snapcheck, engine: Engine, report: Path) -> None:
    path = report / "repro" / "a1b2c3d4.py"
    path.write_text("raise SystemExit('it was run')\n" + path.read_text())
    done = snapcheck("replay", path)
    assert (done.returncode, done.stderr) == (1, "")
    assert engine.asked == [("qcow2", None)]


def test_of_a_history_file_the_violations_are_replayed(snapcheck: Snapcheck, engine: Engine, report: Path) -> None:
    snapcheck("replay", report / "history.jsonl")
    assert engine.asked == [("qcow2", Law.RIGHT_CULPRIT)]


@pytest.mark.usefixtures("report")
def test_a_passing_sample_can_be_replayed_by_its_name(snapcheck: Snapcheck, engine: Engine) -> None:
    engine.state = ReplayState.FIXED
    assert snapcheck("replay", "passed-1").returncode == 0
    assert engine.asked == [("qcow2", None)]


def test_the_report_may_be_elsewhere(snapcheck: Snapcheck, engine: Engine, report: Path) -> None:
    report.rename(report.with_name("elsewhere"))
    assert snapcheck("replay", "a1b2c3d4", "--out", "elsewhere").returncode == 1
    assert len(engine.asked) == 1


@pytest.mark.usefixtures("report")
def test_another_driver_can_be_asked(snapcheck: Snapcheck, engine: Engine) -> None:
    done = snapcheck("replay", "a1b2c3d4", "--driver", "no_such_module:thing")
    assert done.returncode == 2
    assert "no_such_module" in done.stderr
    assert engine.asked == []


def no_change(_: Path) -> None:
    pass


def other_schema(report: Path) -> None:
    path = report / "history.jsonl"
    path.write_text(path.read_text().replace('"schema":1', '"schema":99', 1))


def only_the_header(report: Path) -> None:
    path = report / "history.jsonl"
    path.write_text(path.read_text().splitlines()[0] + "\n")


@pytest.mark.parametrize(
    ("spoil", "what", "told"),
    [
        (no_change, "ffffffff", "no history is called 'ffffffff'; there is: a1b2c3d4, passed-1"),
        (no_change, "nowhere.py", "nowhere.py: No such file or directory"),
        (no_change, "nowhere.jsonl", "nowhere.jsonl: No such file or directory"),
        (no_change, "snapcheck-report/result.json", "not JSON"),
        (other_schema, "a1b2c3d4", "schema: 99 is not 1, the one that this version reads"),
        (other_schema, "snapcheck-report/history.jsonl", "schema: 99 is not 1"),
        (only_the_header, "snapcheck-report/history.jsonl", "there is no history in it"),
    ],
)
def test_what_can_not_be_replayed_takes_one_line(
    snapcheck: Snapcheck, report: Path, spoil: Callable[[Path], None], what: str, told: str
) -> None:
    spoil(report)
    done = snapcheck("replay", what)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_without_a_report_an_id_means_nothing(snapcheck: Snapcheck) -> None:
    done = snapcheck("replay", "a1b2c3d4")
    assert done.returncode == 2
    assert "snapcheck-report/history.jsonl is not there" in done.stderr


def test_what_a_run_recorded_replays_for_real(snapcheck: Snapcheck, tmp_path: Path) -> None:
    snapcheck("run", "--phases", "stateful", "--histories", 3, "--quiet")
    records = jsonl.read(tmp_path / "snapcheck-report" / "history.jsonl").records
    assert records[-1].law is None
    done = snapcheck("replay", records[-1].id)
    assert (done.returncode, done.stdout.split("  ")[0]) == (0, "FIXED")


# --- shrinking further ----------------------------------------------------------------------------
LOCK_KEPT = "snapcheck.stateful_tests.seeded_bugs.group:lock_kept"


def run_without_shrinking(snapcheck: Snapcheck) -> dict[str, object]:
    """Run a driver with a bug, and return the longest violation of its report."""
    snapcheck(
        "run", LOCK_KEPT, "--phases", "walk", "--histories", 8, "--shrink-seconds", 0, "--jobs", 1, "--no-progress"
    )
    errors = (each for each in violations_in_report() if each["severity"] == "error")
    return max(errors, key=lambda each: int(str(each["operations"])))


def violations_in_report() -> list[dict[str, object]]:
    return list(json.loads(Path("snapcheck-report/result.json").read_text())["violations"])


def test_a_violation_is_shrunk_further_and_its_report_rewritten_under_the_same_id(snapcheck: Snapcheck) -> None:
    found = run_without_shrinking(snapcheck)
    assert found["shrunk"] is False
    assert int(str(found["operations"])) > 10
    done = snapcheck("replay", found["id"], "--shrink", "--seconds", 20)
    assert done.returncode == 1
    assert "nothing smaller was found" in done.stdout
    (again,) = (each for each in violations_in_report() if each["id"] == found["id"])
    assert (again["shrunk"], again["law"], again["operations"]) == (True, found["law"], 1)
    assert snapcheck("replay", f"snapcheck-report/repro/{found['id']}.py").returncode == 1
    assert f"{found['id']}" in Path("snapcheck-report/report.html").read_text()
    assert any(record.law is None for record in jsonl.read(Path("snapcheck-report/history.jsonl")).records)


def test_time_that_runs_out_while_shrinking_leaves_the_shortest_so_far_to_go_on_from(snapcheck: Snapcheck) -> None:
    found = run_without_shrinking(snapcheck)
    done = snapcheck("replay", found["id"], "--shrink", "--seconds", 0.001)
    assert "the same call goes on from here" in done.stdout
    (between,) = (each for each in violations_in_report() if each["id"] == found["id"])
    assert between["shrunk"] is False
    snapcheck("replay", found["id"], "--shrink")
    (end,) = (each for each in violations_in_report() if each["id"] == found["id"])
    assert int(str(end["operations"])) <= int(str(between["operations"])) <= int(str(found["operations"]))
    assert end["shrunk"] is True


@pytest.mark.usefixtures("report")
@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("a1b2c3d4", "--seconds", 5), "--seconds goes with --shrink"),
        (("a1b2c3d4", "--shrink", "--driver", "qcow2"), "leave --driver out"),
        (("a1b2c3d4", "--shrink", "--seconds", 0), "give a number above 0"),
        (("nobody", "--shrink"), "has no violation 'nobody'; there is: a1b2c3d4"),
        (("a1b2c3d4", "--shrink", "--out", "elsewhere"), "name the folder of a report"),
    ],
)
def test_a_wrong_call_to_shrink_says_what_was_wrong(
    snapcheck: Snapcheck, words: tuple[object, ...], complaint: str
) -> None:
    done = snapcheck("replay", *words)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert len(done.stderr.splitlines()) == 1


WRONG_CULPRIT = "snapcheck.stateful_tests.seeded_bugs.group:wrong_culprit"


def test_a_fault_that_is_met_no_more_is_looked_for_nearby(
    snapcheck: Snapcheck, failed: RunResult, tmp_path: Path
) -> None:
    # Given a violation whose fault struck at a place that the driver does not come to any more
    setup = Setup((DeviceSpec("d0", sectors=16), DeviceSpec("d1", sectors=16)))
    fault = IoFault("d1", "write", Fails())
    seen = replay(find_target(WRONG_CULPRIT), History(setup, [Step(AllCreate("a"), (fault,))])).history
    steps = [replace(step, faults=(replace(fault, at=99),)) for step in seen.steps]
    moved = replace(failed.violations[0], step=0, history=replace(seen, steps=steps))
    (tmp_path / "snapcheck-report").mkdir()
    folder.write(tmp_path / "snapcheck-report", replace(failed, driver=WRONG_CULPRIT, violations=(moved,)), sample=())
    # When it is replayed, then nobody can tell
    done = snapcheck("replay", moved.id)
    assert (done.returncode, done.stdout.split("  ")[0]) == (3, "CAN NOT TELL")
    assert "a fault is met no more" in done.stdout
    # And when it is looked for nearby, then it is there, and fails from then on
    done = snapcheck("replay", moved.id, "--shrink", "--seconds", 20)
    assert done.returncode == 1
    assert "looking for it nearby" in done.stdout
    assert snapcheck("replay", moved.id).returncode == 1
