"""The scoreboard's sums, and what its files hold."""

import json
from pathlib import Path
from xml.etree import ElementTree as Xml

from snapcheck.model.law_names import Law
from snapcheck.reports import scoreboard
from snapcheck.reports.scoreboard import Catch, Hunter, Reproducer, Score, Scoreboard

SWEEP, WALK = Catch("sweep", Law.RESULT, "create", 2.0), Catch("walk", Law.OUT_PARAMS, "list", 0.5)
BLIND = Catch("random", Law.RESULT, "create", 8.0)


def score(
    name: str, *catches: Catch, reproducer: Reproducer | None = None, blind: Catch | None = None, trouble: str = ""
) -> Score:
    tried = ("sweep", "walk")
    return Score(name, "is wrong", "B01", Law.RESULT, tried, catches, reproducer, {"random": blind}, trouble)


BOARD = Scoreboard(
    "0.1.0", "default", 60.0, 0, ("both", "late", "one", "none"),
    (
        score("both", SWEEP, WALK, reproducer=Reproducer(6, 2), blind=BLIND),
        score("one", SWEEP, reproducer=Reproducer(7, 0)),
        score("none"),
    ),
)  # fmt: skip


def test_the_quickest_phase_counts_and_a_bug_that_was_missed_has_no_time() -> None:
    assert BOARD.scores[0].best == WALK
    assert [each.bug for each in BOARD.found] == ["both", "one"]
    assert [each.bug for each in BOARD.missed] == ["none"]
    assert BOARD.median_seconds == 1.25
    assert BOARD.by_several == 1
    assert BOARD.short == (1, 2)


def test_phases_and_baselines_are_summed_up() -> None:
    assert BOARD.hunters() == (
        Hunter("sweep", 3, 2, 1, 2.0, baseline=False),
        Hunter("walk", 3, 1, 0, 0.5, baseline=False),
        Hunter("random", 3, 1, 0, 8.0, baseline=True),
    )


def test_the_files_say_the_same(tmp_path: Path) -> None:
    scoreboard.write(tmp_path / "out", BOARD)
    read = json.loads((tmp_path / "out" / scoreboard.JSON).read_text())
    assert (read["bugs"], read["tried"], read["found"], read["missed"]) == (4, 3, 2, ["none"])
    assert read["not_hunted"] == ["late"]
    assert read["scores"][0]["seconds"] == 0.5
    assert read["scores"][0]["baselines"]["random"]["seconds"] == 8.0
    assert read["scores"][2]["operations"] is None
    suite = Xml.fromstring((tmp_path / "out" / scoreboard.JUNIT).read_text())  # noqa: S314  # our own file
    assert [suite.get(counter) for counter in ("tests", "failures", "errors", "skipped")] == ["4", "1", "0", "1"]
    assert [case.get("name") for case in suite if case.find("failure") is not None] == ["none"]
    (skipped,) = (case for case in suite if case.find("skipped") is not None)
    assert skipped.get("name") == "late"
    assert skipped[0].get("message") == "not hunted: the run ended before its turn came"


def test_a_bug_that_nobody_could_look_for_is_an_error_and_no_failure() -> None:
    board = Scoreboard("0.1.0", "quick", 10.0, 0, ("odd",), (score("odd", trouble="the harness itself failed"),))
    suite = scoreboard.to_xml(board)
    assert (suite.get("failures"), suite.get("errors")) == ("0", "1")
