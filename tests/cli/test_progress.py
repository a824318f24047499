import io
import re

import pytest
from snapcheck.cli.bar import Bar
from snapcheck.cli.progress import Lines, Silence, listener_for, progress_line
from snapcheck.reports.verdict import ViolationReport
from snapcheck.stateful_tests.run import Progress


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    return Terminal()


def drawn(terminal: Terminal) -> list[str]:
    """Return the lines that were drawn, without the codes that move and colour."""
    return re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue()))


def test_a_terminal_gets_a_bar_with_phase_histories_speed_and_violations(terminal: Terminal) -> None:
    with listener_for(terminal, progress=True) as listener:
        assert isinstance(listener, Bar)
        listener.on_phase("stateful", histories=20_000, seconds=None)
        listener.on_progress(Progress("stateful", 12_345, 300_000, 61.0, 2))
    last = drawn(terminal)[-2]
    assert last.startswith("stateful ")
    assert "12,345 histories  4,918 steps/s  2 violations" in last
    assert max(map(len, drawn(terminal))) <= 80


def test_a_violation_scrolls_by_above_the_bar_as_plain_text(terminal: Terminal, violation: ViolationReport) -> None:
    with Bar(terminal).shown() as bar:
        bar.on_phase("stateful", histories=None, seconds=10.0)
        bar.on_violation(violation)
    assert any(line.startswith("error: right-culprit on d1: ") for line in drawn(terminal))


def test_elsewhere_there_is_a_line_every_ten_seconds() -> None:
    out = io.StringIO()
    lines = Lines(out)
    lines.on_phase("stateful", histories=None, seconds=60.0)
    for seconds in (1.0, 9.0, 10.5, 11.0, 21.0):
        lines.on_progress(Progress("stateful", int(seconds), int(seconds * 100), seconds, 0))
    assert out.getvalue().splitlines() == [
        "stateful: 60 s at most",
        "stateful: 10 histories, 1,050 steps, 100 steps/s, 0 violations, 10 s",
        "stateful: 21 histories, 2,100 steps, 100 steps/s, 0 violations, 21 s",
    ]


def test_without_progress_nothing_is_said(violation: ViolationReport) -> None:
    out = io.StringIO()
    with listener_for(out, progress=False) as listener:
        assert isinstance(listener, Silence)
        listener.on_phase("stateful", histories=1, seconds=None)
        listener.on_violation(violation)
    assert out.getvalue() == ""


def test_a_run_that_has_just_begun_has_no_speed() -> None:
    assert (
        progress_line(Progress("stateful", 0, 0, 0.0, 0))
        == "stateful: 0 histories, 0 steps, - steps/s, 0 violations, 0 s"
    )
