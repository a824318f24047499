"""Printing: every line goes through here, so that no name, however hostile, reaches a terminal as it is."""

import sys
from typing import TextIO

import typer


def printable(text: str, *, encoding: str = "utf-8") -> str:
    """Return `text` without control characters, and without what `encoding` can not carry."""
    shown = "".join(each if each.isprintable() or each == "\n" else ascii(each)[1:-1] for each in text)
    return shown.encode(encoding, "backslashreplace").decode(encoding)


def say(text: str = "", *, to: TextIO | None = None, colour: str | None = None, bold: bool = False) -> None:
    """Print one line; colours are left out where the output is no terminal."""
    stream = sys.stdout if to is None else to
    shown = printable(text, encoding=stream.encoding or "utf-8")
    typer.echo(typer.style(shown, fg=colour, bold=bold) if colour or bold else shown, file=stream)


def complain(text: str) -> None:
    """Print what went wrong, on standard error."""
    say(f"snapcheck: {text}", to=sys.stderr)
