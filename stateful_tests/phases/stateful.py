"""Phase `stateful`: Hypothesis draws whole histories of the alphabet, with faults.

Hypothesis runs in batches, each from a seed of its own, so that its memory of what it tried stays small and the same
seed gives the same histories however many there are. A broken law does not end a batch: it is kept, and shrunk later.
"""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import ClassVar, Final

from hypothesis import Phase, seed, settings
from hypothesis.errors import Flaky
from hypothesis.internal.conjecture import providers
from hypothesis.stateful import run_state_machine_as_test
from snapcheck.impl.targets import find_target
from snapcheck.model.facts import Evidence
from snapcheck.model.history import Care
from snapcheck.stateful_tests.gather import Gatherer, gathering
from snapcheck.stateful_tests.machine import NO_HEALTH_CHECKS, SnapshotMachine
from snapcheck.stateful_tests.session import Session
from snapcheck.stateful_tests.units import Answer, Unit
from snapcheck.stateful_tests.watchdog import Watchdog, watchdog
from snapcheck.stateful_tests.work import Control

BATCH: Final = 100  # histories
STEPS_MAX: Final = 25  # operations that Hypothesis draws for a history
NAME: Final = "stateful"
_COLLECT: Final = "_get_local_constants"  # what Hypothesis asks for constants, in no documented place
FLAKY: Final = "batches that ended as the driver did something else the second time"


class _OutOfTime(BaseException):
    """Ends a batch from inside; no `except Exception` of Hypothesis takes it for a failure."""


class _Enough(_OutOfTime):
    """The batch has all its histories."""


class _Recording(SnapshotMachine):
    """Keeps what it hears instead of failing; `gatherer` and the rest are set for one batch."""

    gatherer: ClassVar[Gatherer]
    dog: ClassVar[Watchdog]
    deadline: ClassVar[float | None]
    enough: ClassVar[int]
    batch: ClassVar[int]
    control: ClassVar[Control]

    def watch(self) -> Watchdog | None:
        return self.dog

    def heard(self, session: Session, evidence: list[Evidence]) -> None:
        self.gatherer.heard(session, evidence)

    def ended(self, session: Session) -> None:
        self.gatherer.ended(session, case=f"{self.batch}.{self.gatherer.answer.histories}")

    def skipped(self) -> None:
        self.gatherer.skipped()

    def teardown(self) -> None:
        """End the history, and perhaps the batch: only here, as Hypothesis takes note of what was drawn until then."""
        super().teardown()
        if self.session is not None and self.session.broken_off:
            return
        if self.control.stop_asked() or (self.deadline is not None and time.monotonic() > self.deadline):
            raise _OutOfTime
        if self.gatherer.answer.histories >= self.enough:
            raise _Enough


def run(unit: Unit, control: Control, *, care: Care = Care.USUAL) -> Answer:
    """Run the histories of one unit. Raises `TargetError` for a driver that can not be started.

    On KeyboardInterrupt it ends with what it has.
    """
    with gathering(unit, control) as gatherer, watchdog() as dog:
        answer = gatherer.answer
        deadline = None if unit.seconds is None else time.monotonic() + unit.seconds - gatherer.seconds
        batch = gatherer.next_number()  # what was left of a batch that an earlier run began is left out
        while not (answer.out_of_time or answer.interrupted) and (
            unit.histories is None or answer.histories < unit.histories
        ):
            wanted = answer.histories + BATCH
            machine = _machine(unit, gatherer, dog, care)
            machine.deadline, machine.control, machine.batch = deadline, control, batch
            machine.enough = wanted if unit.histories is None else min(wanted, unit.histories)
            try:
                run_batch(machine, f"{unit.seed}/{unit.shard}/{batch}")
            except _Enough:
                pass
            except Flaky:  # what was judged until then counts
                answer.counts[FLAKY] += 1
            except _OutOfTime:
                answer.out_of_time = True
            except KeyboardInterrupt:
                answer.interrupted = True
            batch += 1
    return answer


def _machine(unit: Unit, gatherer: Gatherer, dog: Watchdog, care: Care) -> type[_Recording]:
    return type("SnapshotHistories", (_Recording,), {
        "target": find_target(unit.driver), "semantics": unit.semantics, "devices_max": unit.devices,
        "gatherer": gatherer, "dog": dog, "care": care,
    })  # fmt: skip


def run_batch(machine: type[_Recording], seed_text: str) -> None:
    """Let Hypothesis run histories until `machine` ends the batch; `Flaky` when the driver repeats nothing."""
    seed(seed_text)(machine)
    with _without_constants_of_modules():
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=2 * BATCH, stateful_step_count=STEPS_MAX, phases=(Phase.generate,), database=None,
                deadline=None, suppress_health_check=NO_HEALTH_CHECKS,
            ),
        )  # fmt: skip


@contextmanager
def _without_constants_of_modules() -> Generator[None]:
    """Keep constants that Hypothesis collects from the modules that happen to be imported out of its own draws.

    Which rules of a machine are on is drawn with an integer up to 254, at times one of these constants. Another
    process has imported others, and the same seed would give other histories. There is no setting for it, and a version
    that collects none, or elsewhere, is left as it is: tests/stateful_tests/test_stateful.py tells.
    """
    collect: Callable[[], object] | None = getattr(providers, _COLLECT, None)
    if collect is None:
        yield
        return
    none = type(collect())
    providers.CONSTANTS_CACHE.cache.clear()
    setattr(providers, _COLLECT, none)
    try:
        yield
    finally:
        setattr(providers, _COLLECT, collect)
        providers.CONSTANTS_CACHE.cache.clear()
