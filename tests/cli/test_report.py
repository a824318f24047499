from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

from snapcheck.reports import folder
from snapcheck.reports.verdict import RunResult

Snapcheck = Callable[..., CompletedProcess[str]]


def test_the_pages_are_drawn_again_exactly(snapcheck: Snapcheck, failed: RunResult, tmp_path: Path) -> None:
    folder.write(tmp_path, failed)
    pages = [tmp_path / "report.html", tmp_path / "junit.xml"]
    before = [page.read_text() for page in pages]
    for page in pages:
        page.unlink()
    done = snapcheck("report", tmp_path)
    assert done.returncode == 0
    assert [page.read_text() for page in pages] == before


def test_a_folder_without_a_report_takes_one_line(snapcheck: Snapcheck, tmp_path: Path) -> None:
    done = snapcheck("report", tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        f"snapcheck: {tmp_path}/result.json: No such file or directory; give the folder of a run that came to its end\n"
    )


def test_a_result_of_another_schema_is_refused(snapcheck: Snapcheck, failed: RunResult, tmp_path: Path) -> None:
    folder.write(tmp_path, failed)
    path = tmp_path / "result.json"
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 2'))
    done = snapcheck("report", tmp_path)
    assert done.returncode == 2
    assert "schema 2 is not 1, the one that this version reads" in done.stderr
