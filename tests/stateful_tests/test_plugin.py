"""The pytest plugin costs nothing until a driver is asked for, and then tests it."""

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("hypothesis", "numpy", "networkx", "matplotlib", "rich", "typer", "jinja2")
WRONG = "snapcheck.stateful_tests.seeded_bugs.group:stale_first_bad"


def pytest_in(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", *options]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_importing_the_plugin_imports_nothing_heavy() -> None:
    code = f"""
import sys
import snapcheck.stateful_tests.plugin
print([name for name in {HEAVY} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_without_a_driver_the_plugin_adds_no_test(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text("def test_mine():\n    pass\n")
    done = pytest_in(tmp_path, "-q")
    assert done.returncode == 0
    assert "1 passed" in done.stdout


def test_a_good_driver_passes_as_one_more_test(tmp_path: Path) -> None:
    done = pytest_in(tmp_path, "--snapcheck-driver=qcow2", "--snapcheck-histories=16", "-v")
    assert done.returncode == 0, done.stdout
    assert "snapcheck[qcow2] PASSED" in done.stdout


def test_a_bad_driver_fails_with_the_law_and_a_reproducer(tmp_path: Path) -> None:
    done = pytest_in(tmp_path, f"--snapcheck-driver={WRONG}", "--snapcheck-histories=80")
    assert done.returncode == 1
    assert "law right-culprit" in done.stdout
    assert "assert_holds(driver=" in done.stdout
    assert "Traceback" not in done.stdout


def test_an_unknown_driver_fails_with_one_clear_line(tmp_path: Path) -> None:
    done = pytest_in(tmp_path, "--snapcheck-driver=no_such_module:factory")
    assert done.returncode == 1
    assert "no_such_module" in done.stdout
    assert "Traceback" not in done.stdout


def test_a_test_can_ask_for_the_driver_and_is_skipped_without_one(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text("def test_mine(snapcheck_driver):\n    assert snapcheck_driver == 'qcow2'\n")
    assert "1 skipped" in pytest_in(tmp_path, "-q").stdout
    done = pytest_in(tmp_path, "-q", "--snapcheck-driver=qcow2", "--snapcheck-histories=8")
    assert "2 passed" in done.stdout


@pytest.mark.parametrize(("option", "value"), [("histories", "0"), ("devices", "9"), ("devices", "0")])
def test_a_number_out_of_range_is_refused(tmp_path: Path, option: str, value: str) -> None:
    done = pytest_in(tmp_path, "--snapcheck-driver=qcow2", f"--snapcheck-{option}={value}")
    assert done.returncode == 1
    assert f"--snapcheck-{option}" in done.stdout
