"""What CI checks, in environments of their own: `nox -s lint types tests wheel`."""

import nox

nox.options.default_venv_backend = "venv"
PYTHONS = ["3.11", "3.12", "3.13"]


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, and that imports point one way."""
    session.install("-e", ".[dev]")
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")
    session.run("lint-imports")


@nox.session
def types(session: nox.Session) -> None:
    """Check types twice."""
    session.install("-e", ".[dev]")
    session.run("mypy")
    session.run("pyright")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests, measuring which branches they take."""
    session.install("-e", ".[dev]")
    session.run("coverage", "run", "--branch", "-m", "pytest", "-q", *session.posargs)
    session.run("coverage", "report", "--skip-covered")


@nox.session
def wheel(session: nox.Session) -> None:
    """Build the wheel and use it as a user does, from outside the tree."""
    session.install("build")
    session.run(".ci/wheel", "python", external=True)
