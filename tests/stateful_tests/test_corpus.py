"""The corpus keeps what failed: it is replayed first, grows by what is new, and lets go of what was mended."""

from pathlib import Path

import pytest
from snapcheck.impl.targets import find_target
from snapcheck.reports.jsonl import HistoryError
from snapcheck.reports.verdict import PhaseReport, RunResult, Verdict
from snapcheck.stateful_tests import corpus
from snapcheck.stateful_tests.run import RunOptions, Silent, run_driver

LOCK_KEPT = "snapcheck.stateful_tests.seeded_bugs.group:lock_kept"


def run(driver: str, folder: Path, *, histories: int = 30) -> RunResult:
    options = RunOptions(phases=("sweep",), histories=histories, corpus=corpus.read(folder))
    return run_driver(find_target(driver), options, Silent()).result


def phase_of(result: RunResult) -> PhaseReport:
    return next(phase for phase in result.phases if phase.name == corpus.NAME)


def test_what_fails_is_added_replayed_first_and_dropped_once_it_is_mended(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    found = run(LOCK_KEPT, folder)
    files = sorted(folder.iterdir())
    assert files
    assert phase_of(found).counts == {"added": len(files)}

    again = run(LOCK_KEPT, folder, histories=1)
    assert again.verdict is Verdict.FAILED
    assert {each.phase for each in again.violations if each.severity.value == "error"} >= {corpus.NAME}
    assert phase_of(again).counts == {"still fails": len(files), "added": 0}
    assert sorted(folder.iterdir()) == files

    mended = run("qcow2", folder, histories=1)
    assert phase_of(mended).counts == {"fixed": len(files), "added": 0}
    assert phase_of(mended).scope.endswith(f"0 still failing, {len(files)} fixed and dropped, 0 added")
    assert list(folder.iterdir()) == []


def test_a_file_is_a_test_that_pytest_collects_and_people_can_read(tmp_path: Path) -> None:
    run(LOCK_KEPT, tmp_path)
    text = next(tmp_path.glob("test_locks_balanced_*.py")).read_text()
    assert "\ndef test_locks_balanced_" in text
    assert f"assert_holds(driver='{LOCK_KEPT}', history=history)" in text
    assert len(text.splitlines()) < 40


def test_a_folder_that_is_not_there_is_an_empty_corpus(tmp_path: Path) -> None:
    assert corpus.read(tmp_path / "none").entries == ()


def test_other_files_are_left_alone_and_a_broken_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("ours")
    assert corpus.read(tmp_path).entries == ()
    (tmp_path / "test_broken.py").write_text("def")
    with pytest.raises(HistoryError, match=r"test_broken\.py: not Python, so not a reproducer"):
        corpus.read(tmp_path)
