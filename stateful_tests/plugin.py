"""The pytest plugin: `pytest --snapcheck-driver=package.module:attribute` adds a test of that driver to the run.

Every pytest run of every user imports this file, so it imports the rest of snapcheck only when a test asks for it.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from snapcheck.reports.verdict import RunResult

_GROUP: Final = "snapcheck"
DEVICES_MAX: Final = 8


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options; each has a default in the ini file's `addopts` or none at all."""
    group = parser.getgroup(_GROUP, "verify a block driver's snapshots")
    group.addoption("--snapcheck-driver", metavar="DRIVER", help="qcow2, or package.module:attribute")
    group.addoption("--snapcheck-histories", metavar="N", type=int, default=200, help="how many histories (200)")
    group.addoption("--snapcheck-devices", metavar="N", type=int, default=3, help="devices of a group at most (3)")
    group.addoption("--snapcheck-seed", metavar="N", type=int, default=0, help="the seed; equal seeds, equal histories")
    group.addoption(
        "--snapcheck-semantics", metavar="NAME", default="classic", choices=("classic", "modern", "transactional"),
        help="classic, modern or transactional",
    )  # fmt: skip


@pytest.fixture(scope="session")
def snapcheck_driver(request: pytest.FixtureRequest) -> str:
    """Return the driver that was given with --snapcheck-driver; the test is skipped when there is none."""
    driver = request.config.getoption("--snapcheck-driver")
    if not isinstance(driver, str):
        pytest.skip("no driver: give one with --snapcheck-driver=package.module:attribute")
    return driver


def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Add one test for the driver, when there is one."""
    driver = config.getoption("--snapcheck-driver")
    if isinstance(driver, str):
        items.append(DriverItem.of(session, driver))


class DriverItem(pytest.Item):
    """The test of a driver: passes when a run of the harness does."""

    driver: str

    @classmethod
    def of(cls, session: pytest.Session, driver: str) -> "DriverItem":
        """Return the test of `driver`."""
        name = f"snapcheck[{driver}]"
        item: DriverItem = super().from_parent(session, name=name, nodeid=name)  # pyright: ignore[reportUnknownMemberType]  # pytest leaves its keywords open
        item.driver = driver
        return item

    def runtest(self) -> None:
        """Run the harness; what it found becomes the failure's text."""
        from snapcheck.impl.targets import TargetError, find_target  # noqa: PLC0415  # see above
        from snapcheck.model.setup import Semantics  # noqa: PLC0415
        from snapcheck.stateful_tests.run import RunOptions, Silent, run_driver  # noqa: PLC0415

        histories, devices = self._number("histories"), self._number("devices")
        if histories < 1 or not 1 <= devices <= DEVICES_MAX:
            raise DriverFailedError(f"--snapcheck-histories must be 1 at least, --snapcheck-devices 1 to {DEVICES_MAX}")
        try:
            target = find_target(self.driver)
        except TargetError as error:
            raise DriverFailedError(f"--snapcheck-driver={self.driver}: {error}") from None
        semantics = Semantics(self.config.getoption("--snapcheck-semantics"))
        options = RunOptions(histories=histories, devices=devices, seed=self._number("seed"), semantics=semantics)
        result = run_driver(target, options, Silent()).result
        if result.verdict.value == "failed" or _could_not_start(result):
            raise DriverFailedError("\n".join(_lines(result)))

    def _number(self, name: str) -> int:
        value: object = self.config.getoption(f"--snapcheck-{name}")
        assert isinstance(value, int), "the option's type says so"
        return value

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: object = None) -> str:  # noqa: ARG002
        """Return what was found, without the harness's own stack."""
        if isinstance(excinfo.value, DriverFailedError):
            return str(excinfo.value)
        return str(super().repr_failure(excinfo))

    def reportinfo(self) -> tuple[str, int | None, str]:
        """Return where the test is: nowhere in a file."""
        return "snapcheck", None, self.name


class DriverFailedError(Exception):
    """The driver broke a law, or could not be run; the text says which, and shows the reproducer."""


def _could_not_start(result: "RunResult") -> bool:
    return not any(phase.histories for phase in result.phases)


def _lines(result: "RunResult") -> Iterable[str]:
    """Yield the violations in words, each with a reproducer to paste into a test."""
    from snapcheck.reports.reproducer import source  # noqa: PLC0415

    yield f"snapcheck: {result.driver} {result.verdict.value}"
    yield from result.notes
    for each in result.violations:
        if each.severity.value == "error":
            yield f"\nlaw {each.law.value} on {each.device or 'the group'}: {each.summary}"
            yield f"  the model allows: {each.expected}"
            yield f"  the driver gave:  {each.actual}"
            if each.history is not None:
                yield source(result, each, each.history)
