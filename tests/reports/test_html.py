import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

from snapcheck.model.errno import Errno
from snapcheck.model.history import Call, Drain, FaultMet, History, Lock, Result, Step
from snapcheck.model.law_names import Law
from snapcheck.model.operations import AllGoto
from snapcheck.reports import html
from snapcheck.reports.event_lines import event_lines
from snapcheck.reports.verdict import Coverage, RunResult, ViolationReport


class Page(HTMLParser):
    """The tags of a page, its text, and whether every tag that was opened was closed."""

    VOID = ("meta", "link", "br", "img", "hr", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert all(not name.startswith("on") for name, _ in attrs)
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_hostile_snapshot_name_is_text_on_the_page_and_nothing_else(failed: RunResult, tmp_path: Path) -> None:
    html.write(tmp_path / "report.html", failed)
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "script" not in page.tags
    assert "<script>alert(1)</script>" in page.text


def test_the_page_needs_no_network(failed: RunResult) -> None:
    text = html.render(failed)
    assert re.findall(r"(?:src|href)=\"(?!#)", text) == []
    assert "@import" not in text
    assert re.findall(r"url\((?!#)", text) == []


def test_the_page_tells_what_the_violation_was(failed: RunResult) -> None:
    text = " ".join(Page(html.render(failed)).text.split())
    for told in (
        "failed my.driver:factory", "1 error", "ENOSPC, first_bad_bs is d1", "ENOSPC, first_bad_bs is d2",
        "first_bad_bs names d2; the calls point at d1 (its delete answered ENOSPC first)",
        "the first delete call on d1 answers ENOSPC", "snapcheck replay a1b2c3d4", "0-99: tag 1, 100-127: tag 3",
        "398 of 412 cells", "not observable", "write snapshot-table 512 B at 0x10000",
    ):  # fmt: skip
        assert told in text


def test_a_violation_whose_history_was_not_kept_still_has_its_page(failed: RunResult) -> None:
    bare = replace(failed, violations=(replace(failed.violations[0], history=None),))
    assert "blamed d2" in Page(html.render(bare)).text


def test_a_passing_run_shows_laws_and_coverage(failed: RunResult) -> None:
    text = Page(html.render(replace(failed, violations=(), coverage=Coverage(0, 0)))).text
    assert "right-culprit" in text
    assert "Violations" in text


def test_the_steps_say_which_faults_were_met(violation: ViolationReport) -> None:
    case = html.case_of(violation)
    assert [row.parts for row in case.steps] == [False, False, False, True]
    assert case.steps[3].faults == (("the first delete call on d1 answers ENOSPC", "met"),)


def test_nobody_is_the_culprit_of_a_group_operation_that_succeeded(violation: ViolationReport) -> None:
    assert violation.history is not None
    quiet = Step(AllGoto("a"), events=(Call("d0", "d0", "goto", "generic", "enter"),), result=Result(first_bad="d0"))
    case = html.case_of(replace(violation, history=History(violation.history.setup, [quiet]), step=0))
    assert case.culprit is not None
    assert (case.culprit.named, case.culprit.deserved) == ("d0", "nobody")


def test_events_nest_by_calls_locks_and_drained_sections() -> None:
    step = Step(
        AllGoto("a"),
        events=(
            Lock("d0", "acquire", "main"),
            Call("d0", "d0", "find", "generic", "enter"), Call("d0", "d0", "find", "generic", "return", -2),
            Call("d0", "d0", "goto", "generic", "enter"), Drain("d0", "begin"), Drain("d0", "end"),
            Call("d0", "d0", "goto", "generic", "return", int(Errno.EIO)), FaultMet("d0", 5),
            Lock("d0", "release", "main"),
        ),
    )  # fmt: skip
    assert [(line.depth, line.text, line.bad) for line in event_lines(step)] == [
        (0, "lock acquire by main", False), (1, "find d0 → ENOENT", True), (1, "goto d0", False),
        (2, "drained section begins", False), (2, "drained section ends", False), (1, "end of goto d0 → EIO", True),
        (1, "", True), (0, "lock release by main", False),
    ]  # fmt: skip


def test_a_page_says_which_phase_reached_how_much_of_the_matrix(failed: RunResult) -> None:
    text = " ".join(Page(html.render(failed)).text.split())
    assert re.search(r"stateful ?2 ?1 ?1 group of cells ?create", text)
    assert "By fault" in text
    assert "By the state that the device was in" in text


def test_broken_laws_come_first(failed: RunResult) -> None:
    rows = html.law_rows(tuple(reversed(failed.laws)))
    assert rows[0].report.law is Law.RIGHT_CULPRIT
    assert [row.state for row in rows] == ["broken", "not observable", "held"]
    assert rows[0].says
