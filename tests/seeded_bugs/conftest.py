"""What the stories of the seeded bugs share: each is told twice, on the correct code and on that with the bug."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from snapcheck.impl.targets import Target, find_target
from snapcheck.model.operations import Operation
from snapcheck.model.setup import DeviceSpec, Kind
from snapcheck.stateful_tests.seeded_bugs import CATALOGUE, SeededBug

QCOW2 = find_target("qcow2")


class Tried(NamedTuple):
    """What a story showed on the correct code, and with the bug."""

    right: Any
    wrong: Any


class Teller:
    """Tells stories on the correct code and on that with `bug`. No law, no model and no phase is asked."""

    def __init__(self, bug: SeededBug, bench: Callable[..., Any]) -> None:
        self._bug = bug
        self._bench = bench
        self._target = find_target(bug.driver)

    def __call__(self, story: Callable[[Any], object], *devices: Kind | DeviceSpec) -> Tried:
        """Tell a story of devices (three by default); it gets a Bench and returns what is to be compared."""
        specs = devices or (Kind.DRIVER,) * 3
        return Tried(story(self._on(QCOW2, specs)), story(self._on(self._target, specs)))

    def _on(self, target: Target, specs: tuple[Kind | DeviceSpec, ...]) -> object:
        return self._bench(
            *specs,
            semantics=self._bug.semantics.value,
            open_driver=target.open_driver,
            layers=target.layers,
            prepared=all(isinstance(spec, DeviceSpec) for spec in specs),
        )

    def answer(self, field: str, operation: Operation, *devices: Kind | DeviceSpec) -> Tried:
        """Perform one operation on devices; compare one field of what is answered."""
        return self(lambda group: getattr(group.do(operation), field), *devices)

    def opening(self, story: Callable[[Any], object]) -> Tried:
        """Tell a story of one image: it gets `open_driver`."""
        return Tried(story(QCOW2.open_driver), story(self._target.open_driver))


@pytest.fixture
def tried(request: pytest.FixtureRequest, bench: Callable[..., Any]) -> Teller:
    """Lend a teller for the bug that the test is marked with: `@pytest.mark.bug("wrong-culprit")`."""
    marker = request.node.get_closest_marker("bug")
    assert marker is not None, "a story says which bug it shows"
    return Teller(next(bug for bug in CATALOGUE if bug.name == marker.args[0]), bench)
