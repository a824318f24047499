import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

Snapcheck = Callable[..., CompletedProcess[str]]
HEAVY = ("numpy", "hypothesis", "networkx", "jinja2", "rich", "pytest")


def test_help_waits_for_no_library_that_it_does_not_need() -> None:
    code = (
        "import sys; from snapcheck.cli.app import app; app(['--help'], standalone_mode=False);"
        f"print([each for each in {HEAVY} if each in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "[]"


def test_help_names_every_command_and_the_exit_statuses(snapcheck: Snapcheck) -> None:
    done = snapcheck("--help")
    assert done.returncode == 0
    for word in (
        "run",
        "explore",
        "replay",
        "check",
        "drivers",
        "new-driver",
        "report",
        "2 the call or an input was wrong",
    ):
        assert word in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "..." not in done.stdout.replace("[ARGS]...", "")


def test_the_version_is_that_of_the_package(snapcheck: Snapcheck) -> None:
    done = snapcheck("--version")
    assert (done.returncode, done.stdout) == (0, "snapcheck 0.1.0\n")


def test_a_call_without_a_command_shows_the_help_and_is_wrong(snapcheck: Snapcheck) -> None:
    done = snapcheck()
    assert done.returncode == 2
    assert "Commands:" in done.stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("frob",), "snapcheck: No such command 'frob'.\nTry: snapcheck --help\n"),
        (("run", "--frob"), "snapcheck: No such option: --frob"),
        (("replay",), "Try: snapcheck replay --help\n"),
        (("run", "--devices", "x"), "'--devices'"),
    ],
)
def test_a_call_that_is_not_understood_takes_two_lines(snapcheck: Snapcheck, words: tuple[str, ...], told: str) -> None:
    done = snapcheck(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 2


def test_a_bug_of_snapcheck_is_told_in_two_lines_and_never_as_a_traceback(
    snapcheck: Snapcheck, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(name: str) -> int:
        raise IndexError(f"{name}: list index out of range")

    monkeypatch.setattr("snapcheck.cli.new_driver.new_driver_command", broken)
    done = snapcheck("new-driver", "mine")
    assert done.returncode == 3
    assert done.stderr.startswith("snapcheck: internal error: IndexError: mine: list index out of range\n")
    assert len(done.stderr.splitlines()) == 2


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    result = tmp_path / "huge.json"
    result.write_text(json.dumps("x"))
    command = f"{sys.executable} -m snapcheck.cli run --help | head -c 1"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
