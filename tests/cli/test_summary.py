from dataclasses import replace
from pathlib import Path

import pytest
from snapcheck.cli.defaults import REPORT_FOLDER
from snapcheck.cli.summary import VIOLATIONS_MAX, headline, lines
from snapcheck.model.law_names import Law, Severity
from snapcheck.reports.verdict import LawReport, RunResult, Verdict


def said(result: RunResult, folder: Path = REPORT_FOLDER, *, width: int = 80) -> str:
    return "\n".join(lines(result, folder, width=width))


def test_the_headline_says_what_the_verdict_is_about(failed: RunResult) -> None:
    assert headline(failed) == "FAILED  my.driver:factory, classic, 3 devices, seed 7, 41.2 s"


def test_a_passing_run_takes_a_few_lines(failed: RunResult) -> None:
    laws = tuple(LawReport(law, 5, 0, not_observable=False) for law in Law)
    text = said(replace(failed, verdict=Verdict.PASSED, violations=(), notes=(), laws=laws))
    assert len(text.splitlines()) <= 6
    assert f"{len(Law)} of {len(Law)} checked, none violated" in text


@pytest.mark.parametrize("width", [40, 80, 100])
def test_nothing_is_wider_than_the_terminal(failed: RunResult, width: int) -> None:
    assert max(map(len, said(failed, width=width).splitlines())) <= width


def test_laws_are_told_by_what_came_of_them(failed: RunResult) -> None:
    text = " ".join(said(failed).split())
    assert "2 of 3 checked, 1 violated (right-culprit), 1 not observable (locks-balanced)" in text


def test_errors_come_before_warnings_and_known_ones_last(failed: RunResult) -> None:
    (error,) = failed.violations
    warning = replace(error, id="w", severity=Severity.WARNING)
    text = said(replace(failed, violations=(replace(error, id="k", known=True), warning, error)))
    assert text.index("error: ") < text.index("warning: ") < text.index("known: ")


def test_a_warning_takes_two_lines_at_most_and_does_not_call_its_law_violated(failed: RunResult) -> None:
    (error,) = failed.violations
    warned = replace(failed, verdict=Verdict.PASSED, violations=(replace(error, severity=Severity.WARNING),))
    text = said(warned)
    assert len(text.splitlines()) == len(said(replace(warned, violations=())).splitlines()) + 2
    assert "(a1b2c3d4)" in text
    assert "1 with warnings or known (right-culprit)" in " ".join(text.split())
    assert "none violated" in text


def test_a_flood_of_violations_is_cut_and_counted(failed: RunResult) -> None:
    (violation,) = failed.violations
    flood = tuple(replace(violation, id=f"v{number}") for number in range(VIOLATIONS_MAX + 3))
    text = said(replace(failed, violations=flood))
    assert text.count("snapcheck replay") == VIOLATIONS_MAX
    assert "and 3 more violations in the report" in text


def test_what_most_likely_has_one_cause_is_told_in_one_piece(failed: RunResult) -> None:
    (first,) = failed.violations
    first = replace(first, cause=first.id, shrunk=False)
    second = replace(first, id="b2", law=Law.LIST_EXACT, operation="save-vm")
    text = " ".join(said(replace(failed, violations=(first, second))).split())
    assert "also list-exact at save-vm (b2); most likely one cause" in text
    assert text.count("snapcheck replay") == 1
    assert "(4 operations, 1 fault; --shrink makes it shorter)" in text


def test_the_coverage_is_told_in_a_line_with_the_share_of_each_phase(failed: RunResult) -> None:
    assert "coverage   398 of 412 cells (stateful 2)" in said(failed)


def test_the_replay_command_names_a_folder_of_ones_own(failed: RunResult) -> None:
    assert "snapcheck replay a1b2c3d4 --out elsewhere" in said(failed, Path("elsewhere"))
    assert "--out" not in said(failed)


def test_hostile_names_are_shown_and_not_obeyed(failed: RunResult) -> None:
    (violation,) = failed.violations
    text = said(replace(failed, violations=(replace(violation, summary="\x1b[2J gone \udcff"),)))
    assert "\\x1b[2J gone \\udcff" in text
