from dataclasses import replace
from pathlib import Path

from snapcheck.reports import findings
from snapcheck.reports.verdict import RunResult


def test_a_page_tells_the_law_the_steps_and_both_sides(failed: RunResult, tmp_path: Path) -> None:
    assert findings.write(tmp_path, failed) == 1
    (path,) = tmp_path.iterdir()
    text = path.read_text()
    assert path.name == "right-culprit-all-delete-a1b2c3d4.md"
    assert "right-culprit (error)" in text
    assert "4. all-delete" in text
    assert "The model allows: ENOSPC, first\\_bad\\_bs is d1" in text
    assert "<script>" not in text


def test_a_page_that_is_there_is_left_alone(failed: RunResult, tmp_path: Path) -> None:
    findings.write(tmp_path, failed)
    (path,) = tmp_path.iterdir()
    path.write_text("edited by hand")
    assert findings.write(tmp_path, failed) == 0
    assert path.read_text() == "edited by hand"


def test_a_known_divergence_gets_no_page(failed: RunResult, tmp_path: Path) -> None:
    known = replace(failed, violations=tuple(replace(each, known=True) for each in failed.violations))
    assert findings.write(tmp_path / "new", known) == 0
