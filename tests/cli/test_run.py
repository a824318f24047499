import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from snapcheck.cli.run import cores, phases_of, terminable
from snapcheck.impl.targets import Target
from snapcheck.model.history import History
from snapcheck.model.law_names import Law
from snapcheck.model.setup import Semantics
from snapcheck.reports.verdict import RunResult, Verdict
from snapcheck.stateful_tests.run import PHASES, Finished, Listener, Progress, RunOptions
from snapcheck.stateful_tests.units import Profile

Snapcheck = Callable[..., CompletedProcess[str]]


class Engine:
    """Stands in for a run: remembers what it was asked, and answers with a result made beforehand."""

    def __init__(self, result: RunResult, sample: tuple[History, ...] = ()) -> None:
        self.result = result
        self.sample = sample
        self.asked: RunOptions | None = None
        self.whole = True
        self.driver = ""

    def __call__(self, target: Target, options: RunOptions, listener: Listener) -> Finished:
        self.driver, self.asked = target.name, options
        listener.on_phase("stateful", histories=100, seconds=None)
        listener.on_progress(Progress("stateful", 50, 500, 12.0, 1))
        for violation in self.result.violations:
            listener.on_violation(violation)
        return Finished(self.result, self.sample, self.whole)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, failed: RunResult, history: History) -> Engine:
    passing = replace(failed, violations=(), verdict=Verdict.PASSED, notes=())
    stand_in = Engine(passing, (history,))
    monkeypatch.setattr("snapcheck.cli.run.run_driver", stand_in)
    return stand_in


def test_a_run_that_passes_leaves_all_files_and_says_where(
    snapcheck: Snapcheck, engine: Engine, tmp_path: Path
) -> None:
    done = snapcheck("run")
    assert done.returncode == 0
    assert engine.driver == "qcow2"
    report = tmp_path / "snapcheck-report"
    assert sorted(path.name for path in report.iterdir()) == [
        "history.jsonl",
        "junit.xml",
        "report.html",
        "result.json",
    ]
    assert json.loads((report / "result.json").read_text())["verdict"] == "passed"
    assert done.stdout.startswith("PASSED  ")
    assert "snapcheck-report/report.html" in done.stdout.splitlines()[-1]
    assert len(done.stdout.splitlines()) <= 24
    assert done.stderr.splitlines() == [
        "stateful: 100 histories", "stateful: 50 histories, 500 steps, 42 steps/s, 1 violation, 12 s",
    ]  # fmt: skip


def test_every_option_reaches_the_run(snapcheck: Snapcheck, engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "known.toml").write_text('[[accept]]\nlaw = "no-leak"\nreason = "we know"\n')
    snapcheck(
        "run", "qcow2", "--phases", "stateful", "--profile", "deep", "--seconds", 3, "--histories", 7, "--devices", 8,
        "--seed", 9, "--jobs", 2, "--semantics", "modern", "--known", "known.toml", "--out", "there", "--quiet",
    )  # fmt: skip
    asked = engine.asked
    assert asked is not None
    assert [each.law for each in asked.known] == [Law.NO_LEAK]
    assert asked.journals == Path("there/progress")
    assert replace(asked, known=(), journals=None) == RunOptions(
        phases=("stateful",), profile=Profile.DEEP, seconds=3.0, histories=7, devices=8, seed=9,
        semantics=Semantics.MODERN, jobs=2,
    )  # fmt: skip
    assert (tmp_path / "there" / "result.json").exists()


def test_what_is_left_out_has_the_defaults_of_the_run(snapcheck: Snapcheck, engine: Engine) -> None:
    snapcheck("run")
    assert engine.asked == RunOptions(jobs=cores(), journals=Path("snapcheck-report/progress"))
    assert phases_of(None) == PHASES


def test_findings_are_pages_in_a_folder(
    snapcheck: Snapcheck, engine: Engine, failed: RunResult, tmp_path: Path
) -> None:
    engine.result = failed
    snapcheck("run", "--findings", "found")
    assert [path.name for path in (tmp_path / "found").iterdir()] == ["right-culprit-all-delete-a1b2c3d4.md"]
    (tmp_path / "file").write_text("")
    done = snapcheck("run", "--findings", "file")
    assert done.returncode == 3
    assert "snapcheck: --findings file: can not write there: " in done.stderr
    assert done.stdout.startswith("FAILED")


def test_a_violation_is_told_with_both_sides_the_culprit_and_the_replay(
    snapcheck: Snapcheck, engine: Engine, failed: RunResult, tmp_path: Path
) -> None:
    engine.result = failed
    done = snapcheck("run")
    assert done.returncode == 1
    assert done.stdout.startswith("FAILED  ")
    for told in (
        "right-culprit on d1", "model      ENOSPC, first_bad_bs is d1", "driver     ENOSPC, first_bad_bs is d2",
        "named      d2, and should have been d1: its delete answered ENOSPC first", "snapcheck replay a1b2c3d4",
        "4 operations, 1 fault",
    ):  # fmt: skip
        assert told in done.stdout
    assert (tmp_path / "snapcheck-report" / "repro" / "a1b2c3d4.py").exists()


def test_what_could_not_be_told_has_an_exit_status_of_its_own(snapcheck: Snapcheck, engine: Engine) -> None:
    engine.result = replace(engine.result, verdict=Verdict.UNKNOWN, notes=("interrupted",))
    done = snapcheck("run", "--quiet")
    assert done.returncode == 3
    assert done.stdout.splitlines()[1] == "note       interrupted"


def test_quiet_says_the_verdict_and_nothing_else_when_all_is_well(snapcheck: Snapcheck, engine: Engine) -> None:
    done = snapcheck("run", "--quiet")
    assert (len(done.stdout.splitlines()), done.stderr) == (1, "")
    assert engine.asked is not None


def test_a_run_that_dies_leaves_an_unknown_result_and_no_traces_of_an_earlier_one(
    snapcheck: Snapcheck, engine: Engine, failed: RunResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.result = failed
    snapcheck("run")

    def dies(*_: object) -> Finished:
        raise RuntimeError("out of luck")

    monkeypatch.setattr("snapcheck.cli.run.run_driver", dies)
    done = snapcheck("run")
    assert done.returncode == 3
    assert done.stderr.startswith("snapcheck: internal error: RuntimeError: out of luck\n")
    report = tmp_path / "snapcheck-report"
    assert json.loads((report / "result.json").read_text())["verdict"] == "unknown"
    assert "out of luck" in (report / "report.html").read_text()
    assert list((report / "repro").iterdir()) == []


def test_a_ci_that_gives_up_is_heard_like_a_person_who_does() -> None:
    with pytest.raises(KeyboardInterrupt), terminable():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is not signal.default_int_handler


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--devices", "0"), "--devices 0: a group has 1 to 8 devices"),
        (("--devices", "9"), "--devices 9: a group has 1 to 8 devices"),
        (("--jobs", "0"), "--jobs 0: give 1 or more"),
        (("--seed", "-1"), "--seed -1: give 0 or more"),
        (("--histories", "0"), "--histories 0: give 1 or more"),
        (("--seconds", "nan"), "--seconds nan: give a number above 0"),
        (("--seconds", "0"), "--seconds 0.0: give a number above 0"),
        (("--profile", "slow"), "--profile 'slow': there is quick, default, deep"),
        (
            ("--phases", "stateful,frob"),
            "--phases: 'frob' is no phase; there is: images, sweep, tour, walk, stateful, crash",
        ),
        (("--phases", ","), "--phases names no phase; there is: images, sweep, tour, walk, stateful, crash"),
        (("--known", "none.toml"), "--known none.toml: No such file or directory"),
    ],
)
def test_a_value_that_can_not_be_takes_one_line(snapcheck: Snapcheck, words: tuple[str, ...], told: str) -> None:
    done = snapcheck("run", *words)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"snapcheck: {told}\n")


def test_known_divergences_that_are_no_toml_are_told_with_their_file(snapcheck: Snapcheck, tmp_path: Path) -> None:
    (tmp_path / "known.toml").write_text("[[accept]\n")
    done = snapcheck("run", "--known", "known.toml")
    assert done.returncode == 2
    assert done.stderr.startswith("snapcheck: --known known.toml: not TOML: ")
    assert len(done.stderr.splitlines()) == 1


def test_a_report_that_can_not_be_written_is_told_before_the_run(
    snapcheck: Snapcheck, engine: Engine, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    done = snapcheck("run", "--out", "file/report")
    assert done.returncode == 2
    assert done.stderr.startswith("snapcheck: --out file/report: can not write the report there: Not a directory; ")
    assert engine.asked is None


# --- a run that was broken off --------------------------------------------------------------------
def test_a_run_that_comes_to_its_end_leaves_nothing_to_resume(snapcheck: Snapcheck, engine: Engine) -> None:
    snapcheck("run")
    done = snapcheck("run", "--resume")
    assert done.returncode == 2
    assert done.stderr == "snapcheck: --resume: no run was broken off in snapcheck-report; leave --resume out\n"
    assert engine.asked is not None


def test_only_the_same_run_is_resumed(snapcheck: Snapcheck, engine: Engine, tmp_path: Path) -> None:
    engine.whole = False
    snapcheck("run", "--seed", 4)
    other = snapcheck("run", "--seed", 5, "--resume")
    assert other.returncode == 2
    assert "is another one: its seed is 4, not 5" in other.stderr
    journal = tmp_path / "snapcheck-report" / "progress" / "walk-0.jsonl"
    journal.touch()
    assert snapcheck("run", "--seed", 4, "--resume").returncode == 0
    assert journal.exists()
    snapcheck("run", "--seed", 4)
    assert not journal.exists()  # begun anew


def test_a_run_that_was_killed_goes_on(snapcheck: Snapcheck, tmp_path: Path) -> None:
    words = ["run", "--phases", "sweep", "--histories", "48", "--jobs", "1", "--quiet", "--devices", "2"]
    running = subprocess.Popen([sys.executable, "-m", "snapcheck.cli", *words], cwd=tmp_path)
    journal = tmp_path / "snapcheck-report" / "progress" / "sweep-0.jsonl"
    while not (journal.exists() and journal.stat().st_size):
        assert running.poll() is None
        time.sleep(0.01)
    running.kill()
    running.wait()
    noted = sum(len(path.read_bytes().splitlines()) for path in journal.parent.glob("sweep-*.jsonl"))
    assert noted > 0
    done = snapcheck(*words, "--resume")
    result = json.loads((tmp_path / "snapcheck-report" / "result.json").read_text())
    assert done.returncode in (0, 3)
    assert result["phases"][0]["histories"] == 48


# --- the real thing -------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("driver", "told"),
    [
        ("qcow3", "qcow3"),
        ("no_such_module:open_driver", "no_such_module"),
        ("json:no_such_thing", "no_such_thing"),
        ("json:dumps", "dumps"),
    ],
)
def test_a_driver_that_is_not_there_takes_a_line_or_two(snapcheck: Snapcheck, driver: str, told: str) -> None:
    done = snapcheck("run", driver)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr
    assert 1 <= len(done.stderr.splitlines()) <= 2
    assert "Traceback" not in done.stderr


FACTORIES = """
def raises(disk, *, read_only, create):
    raise RuntimeError("no licence for this")


def nonsense(disk, *, read_only, create):
    return "a driver"


def system(disks, *, semantics, recorder):
    return 7
"""


@pytest.mark.parametrize("name", ["raises", "nonsense", "system"])
def test_a_factory_that_gives_no_driver_ends_in_unknown(snapcheck: Snapcheck, tmp_path: Path, name: str) -> None:
    module = f"factories_{name}"
    (tmp_path / f"{module}.py").write_text(FACTORIES)
    done = snapcheck("run", f"{module}:{name}", "--histories", 2, "--quiet")
    assert done.returncode in (1, 3)
    assert "Traceback" not in done.stdout + done.stderr
    assert json.loads((tmp_path / "snapcheck-report" / "result.json").read_text())["verdict"] != "passed"


def test_the_default_driver_passes_a_few_histories(snapcheck: Snapcheck, tmp_path: Path) -> None:
    done = snapcheck("run", "--histories", 8, "--no-progress")
    result = json.loads((tmp_path / "snapcheck-report" / "result.json").read_text())
    assert done.stderr == ""
    assert [each for each in result["violations"] if each["severity"] == "error"] == []
    assert sum(phase["histories"] for phase in result["phases"]) == 8
