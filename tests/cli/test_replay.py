from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from snapcheck.impl.targets import Target
from snapcheck.model.history import History
from snapcheck.model.law_names import Law
from snapcheck.reports import folder, jsonl
from snapcheck.reports.verdict import RunResult
from snapcheck.stateful_tests.replay import Replayed, ReplayState

Snapcheck = Callable[..., CompletedProcess[str]]


class Engine:
    """Stands in for a replay: remembers what was asked, and answers what it is told to."""

    def __init__(self) -> None:
        self.state = ReplayState.STILL_FAILS
        self.asked: list[tuple[str, Law | None]] = []

    def __call__(self, target: Target, history: History, *, law: Law | None = None) -> Replayed:
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
    ("state", "status"), [(ReplayState.FIXED, 0), (ReplayState.STILL_FAILS, 1), (ReplayState.CANNOT_RUN, 3)]
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
