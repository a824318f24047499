import subprocess
import sys
import time
from multiprocessing import active_children
from pathlib import Path

from snapcheck.stateful_tests.phases import images
from snapcheck.stateful_tests.work import crew

SECONDS_MAX = 20.0


def test_workers_of_a_run_that_is_killed_are_gone_too(tmp_path: Path) -> None:
    words = ("run", "qcow2", "--phases", "walk", "--seconds", "60", "--jobs", "2", "--no-progress", "--out", tmp_path)
    run = subprocess.Popen([sys.executable, "-m", "snapcheck.cli", *words], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + SECONDS_MAX
        while not (workers := workers_of(run.pid)) and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(1.0)  # a worker begins by asking the kernel for that
    finally:
        run.kill()
        run.wait()
    assert workers
    deadline = time.monotonic() + SECONDS_MAX
    while any(map(words_of, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(words_of, workers))


def test_a_crew_is_lent_when_its_processes_are_there_so_that_no_phase_waits_for_them() -> None:
    with crew(2, [images.run]):
        assert len(active_children()) == 2


def workers_of(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children")
    found = [int(each) for each in children.read_text().split()] if children.exists() else []
    return [each for each in found if "spawn_main" in words_of(each)]


def words_of(pid: int) -> str:
    """Return the command line of a process; nothing for one that is gone, or is only waited for."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""
