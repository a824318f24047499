"""The command line, called in this process, in a folder of its own."""

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from snapcheck.cli.app import main

Snapcheck = Callable[..., CompletedProcess[str]]


@pytest.fixture
def snapcheck(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Snapcheck:
    """Return a function that calls snapcheck with the words of a command line."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def call(*words: object) -> CompletedProcess[str]:
        line = ["snapcheck", *map(str, words)]
        monkeypatch.setattr("sys.argv", line)
        status = main()
        said = capsys.readouterr()
        return CompletedProcess(line, status, said.out, said.err)

    return call
