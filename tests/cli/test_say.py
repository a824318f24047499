import io

import pytest
from snapcheck.cli.say import printable, say


def test_a_name_can_not_move_the_cursor_nor_change_the_colours() -> None:
    assert printable("\x1b[31mred\x07 \udcff") == "\\x1b[31mred\\x07 \\udcff"


def test_a_terminal_that_knows_ascii_only_gets_ascii_only() -> None:
    raw = io.BytesIO()
    terminal = io.TextIOWrapper(raw, encoding="ascii", write_through=True)
    say("Größe → 3", to=terminal)
    assert raw.getvalue() == b"Gr\\xf6\\xdfe \\u2192 3\n"


def test_colours_are_for_terminals(capsys: pytest.CaptureFixture[str]) -> None:
    say("PASSED", colour="green", bold=True)
    assert capsys.readouterr().out == "PASSED\n"
