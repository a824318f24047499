import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from snapcheck.cli.new_driver import skeleton

Snapcheck = Callable[..., CompletedProcess[str]]
EXAMPLE = Path(__file__).parents[2] / "examples" / "python-driver"


def test_a_new_driver_works_at_once(snapcheck: Snapcheck, tmp_path: Path) -> None:
    done = snapcheck("new-driver", "fresh")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "  cd fresh && snapcheck run fresh:open_driver --profile quick"
    ran = subprocess.run(
        [sys.executable, "-m", "snapcheck.cli", "run", "fresh:open_driver", "--histories", "60", "--quiet"],
        cwd=tmp_path / "fresh", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout


def test_its_tests_pass_and_run_snapcheck_through_the_plugin(snapcheck: Snapcheck, tmp_path: Path) -> None:
    snapcheck("new-driver", "fresh")
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rA", "--snapcheck-histories=10"],
        cwd=tmp_path / "fresh", capture_output=True, text=True, check=False,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
    )  # fmt: skip
    assert "4 passed" in ran.stdout
    assert "snapcheck[fresh:open_driver]" in ran.stdout


def test_nothing_is_overwritten(snapcheck: Snapcheck, tmp_path: Path) -> None:
    (tmp_path / "fresh").mkdir()
    done = snapcheck("new-driver", "fresh")
    assert done.returncode == 2
    assert done.stderr == "snapcheck: fresh is there already, and nothing is overwritten; choose another name\n"
    assert list((tmp_path / "fresh").iterdir()) == []


@pytest.mark.parametrize("name", ["my-driver", "1st", "class", "json", "snapcheck", "../up", "größe", ""])
def test_a_name_that_no_module_can_have_takes_one_line(snapcheck: Snapcheck, name: str) -> None:
    done = snapcheck("new-driver", name)
    assert done.returncode == 2
    assert "can not be the name of the new module" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_example_is_what_the_command_writes() -> None:
    for path, text in skeleton("toydriver").items():
        if path.endswith((".py", ".ini")):
            assert (EXAMPLE / path).read_text() == text


def test_no_placeholder_is_left() -> None:
    assert all("DRIVERNAME" not in path + text for path, text in skeleton("fresh").items())
