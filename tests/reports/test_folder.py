from dataclasses import replace
from pathlib import Path

import pytest
from snapcheck.model.history import History
from snapcheck.reports import folder, result_json
from snapcheck.reports.digests import Shard
from snapcheck.reports.result_json import ResultError
from snapcheck.reports.verdict import RunResult, Verdict


def test_all_that_was_written_comes_back(failed: RunResult, history: History, tmp_path: Path) -> None:
    folder.write(tmp_path, failed, sample=(history,))
    again = folder.read(tmp_path)
    assert (again.notes, again.coverage, again.violations[0].history) == (failed.notes, failed.coverage, history)


def test_a_new_run_forgets_what_an_earlier_one_left_and_touches_nothing_else(failed: RunResult, tmp_path: Path) -> None:
    folder.write(tmp_path, failed)
    (tmp_path / "repro" / "mine.py").touch()
    (tmp_path / "notes.txt").touch()
    folder.begin(tmp_path, replace(failed, verdict=Verdict.UNKNOWN, violations=()))
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == [
        "notes.txt", "repro", "repro/mine.py", "result.json",
    ]  # fmt: skip
    assert result_json.read(tmp_path / "result.json").verdict is Verdict.UNKNOWN


def test_a_line_for_each_history_stays_when_the_pages_are_drawn_again(failed: RunResult, tmp_path: Path) -> None:
    shards = (Shard("sweep", 0, ("aa", "bb")), Shard("sweep", 1, ()), Shard("walk", 7, ("cc",)))
    folder.write(tmp_path, failed, shards=shards)
    folder.write(tmp_path, failed)
    head, *lines = (tmp_path / "digests.txt").read_text().splitlines()
    assert head.startswith("# phase shard index digest; ")
    assert f"seed {failed.seed}" in head
    assert lines == ["sweep 0 0 aa", "sweep 0 1 bb", "walk 7 0 cc"]
    folder.begin(tmp_path, failed)
    assert not (tmp_path / "digests.txt").exists()


def test_a_folder_that_is_not_there_yet_is_made(failed: RunResult, tmp_path: Path) -> None:
    folder.begin(tmp_path / "deep" / "down", failed)
    assert (tmp_path / "deep" / "down" / "result.json").exists()


def test_a_folder_without_a_result_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match="No such file"):
        folder.read(tmp_path)
