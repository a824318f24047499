"""Model and driver side by side as a Hypothesis state machine: for pytest users, and for what only Hypothesis finds.

    class TestMyDriver(snapshot_test_case("my.module:open_driver")):
        pass

Hypothesis draws the devices, then operations with their faults. When a law breaks, all of them are shrunk together
(shrink.py), and the failure shows the shortest history as a call that can be pasted into a test.
"""

import unittest
from collections.abc import Iterable
from contextlib import ExitStack
from typing import ClassVar, Final, cast

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from snapcheck.impl.driver import UnsupportedSetupError
from snapcheck.impl.targets import Target, find_target
from snapcheck.model.facts import Evidence
from snapcheck.model.faults import Fault
from snapcheck.model.history import Care, History
from snapcheck.model.law_names import Severity
from snapcheck.model.operations import Operation
from snapcheck.model.setup import Semantics, Setup
from snapcheck.reports.reproducer import questions, spell
from snapcheck.stateful_tests.broken import LawBrokenError, broken_text
from snapcheck.stateful_tests.digest import digest
from snapcheck.stateful_tests.session import Session
from snapcheck.stateful_tests.shrink import shrink
from snapcheck.stateful_tests.strategies import Situation, drawn_setups, steps
from snapcheck.stateful_tests.watchdog import Watchdog, watchdog

STEPS_DEFAULT: Final = 25
# Histories are large on purpose.
NO_HEALTH_CHECKS: Final = tuple(cast("Iterable[HealthCheck]", HealthCheck))


class SnapshotMachine(RuleBasedStateMachine):
    """The whole alphabet with faults against one driver. Subclasses say which, and what to do with evidence."""

    target: ClassVar[Target]
    semantics: ClassVar[Semantics] = Semantics.CLASSIC
    devices_max: ClassVar[int] = 3
    care: ClassVar[Care] = Care.USUAL
    told: ClassVar[dict[str, str]] = {}  # violations in words, by the digest of their history

    def __init__(self) -> None:
        super().__init__()
        self.session: Session | None = None
        self._stack = ExitStack()

    # --- the history ------------------------------------------------------------------------------
    @initialize(setup=drawn_setups(), live=st.booleans())
    def start(self, setup: Setup, live: bool) -> None:  # noqa: FBT001  # Hypothesis passes what it draws by name
        """Build the devices; a setup that the driver can not build is an empty history.

        After a failure devices are opened again, or are gone on with as they are (`live`).
        """
        care = Care.LIVE if live and self.care is Care.USUAL else self.care
        try:
            session = Session(self.target, setup, care=care, dog=self.watch())
        except UnsupportedSetupError:
            self.skipped()
            return
        self.session = self._stack.enter_context(session)

    @rule(step=steps())
    def step(self, step: tuple[Operation, tuple[Fault, ...]] | None) -> None:
        """Perform one operation under its faults, and go on after a failure."""
        session = self.session
        if session is None or step is None:
            return
        self.heard(session, session.step(*step))
        self.heard(session, session.follow_up())

    def teardown(self) -> None:
        """Look closely at everything, and let go of it."""
        try:
            if self.session is not None and not self.session.broken_off:
                self.heard(self.session, self.session.finish())
                self.ended(self.session)
        finally:
            self._stack.close()

    @property
    def prepared(self) -> bool:
        """Whether the driver opens images that the harness prepared."""
        return self.target.format == "qcow2"

    @property
    def situation(self) -> Situation | None:
        """What the next step depends on; None when the history is over."""
        if self.session is None or self.session.over:
            return None
        return Situation(self.session.world, self.session.abilities.operations, self.target.regions)

    # --- for subclasses ---------------------------------------------------------------------------
    def watch(self) -> Watchdog | None:
        """Return the watchdog over this history's operations."""
        return self._stack.enter_context(watchdog())

    def heard(self, session: Session, evidence: list[Evidence]) -> None:
        """Take note of what the last step showed; here a broken law fails the test, with the shortest way to it."""
        broken = tuple(each for each in evidence if each.severity is Severity.ERROR)
        if broken:
            session.over = True  # what comes after a broken law is not the driver's to answer for
            raise LawBrokenError(self._shortest(session.history, broken))

    def _shortest(self, history: History, broken: tuple[Evidence, ...]) -> str:
        """Return the violation in words with its shrunk history; Hypothesis asks again for the same one."""
        key = digest(history)
        if key not in self.told:
            shrunk = shrink(self.target, history, broken)
            whole = spell(questions(shrunk.history))
            text = broken_text(shrunk.evidence[0], shrunk.history)
            self.told[key] = f"{text}\n\nassert_holds(driver={self.target.name!a}, history={whole})"
        return self.told[key]

    def ended(self, session: Session) -> None:
        """Take note of a whole history."""

    def skipped(self) -> None:
        """Take note of a setup that the driver can not build."""


def machine_for(
    target: Target, *, semantics: Semantics = Semantics.CLASSIC, devices_max: int = 3
) -> type[SnapshotMachine]:
    """Return the state machine for a driver."""
    return type("SnapshotMachineFor" + "".join(c for c in target.name if c.isalnum()), (SnapshotMachine,), {
        "target": target, "semantics": semantics, "devices_max": devices_max,
    })  # fmt: skip


def snapshot_test_case(
    driver: str,
    *,
    semantics: str = "classic",
    devices_max: int = 3,
    histories: int = 100,
    steps_each: int = STEPS_DEFAULT,
) -> type[unittest.TestCase]:
    """Return a TestCase to subclass: `histories` histories of `steps_each` steps each, shrunk when they fail.

    `driver` is what `snapcheck run` takes: `qcow2`, or `package.module:attribute`. Raises `TargetError`, which says
    in one line what is wrong with it.
    """
    machine = machine_for(find_target(driver), semantics=Semantics(semantics), devices_max=devices_max)
    case: type[unittest.TestCase] = machine.TestCase
    case.settings = settings(  # type: ignore[attr-defined]  # how Hypothesis takes the settings of a state machine
        max_examples=histories, stateful_step_count=steps_each, deadline=None,
        suppress_health_check=NO_HEALTH_CHECKS,
        report_multiple_bugs=False,
        phases=(Phase.explicit, Phase.reuse, Phase.generate),  # the history is shrunk here, which takes seconds
    )  # fmt: skip
    return case
