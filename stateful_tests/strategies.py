"""Hypothesis strategies for setups, operations and faults: thin fronts of the drawing code, which knows no Hypothesis.

Two things matter here. *Speed*: each primitive draw costs about 15 microseconds, so a step takes four to eight of them,
each from a strategy that was made once. *The same histories everywhere*: Hypothesis mixes constants that it collects
from the local modules that happen to be imported into its draws (hypothesis/internal/constants_ast.py), so that one
seed would give other histories in another process. It collects integers of magnitude 100 and more only; the sole
primitive used here is an integer from 0 to 99 at most, which is drawn the same everywhere. (What the state machine
draws by itself is larger: phase `stateful` keeps these constants out.)

With `steps` a state machine draws by looking at itself:

    class Machine(RuleBasedStateMachine):
        situation: Situation | None                # kept up to date by the rules

        @rule(step=steps())
        def perform(self, step: tuple[Operation, tuple[Fault, ...]] | None) -> None: ...
"""

from typing import Final, NamedTuple, Protocol

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy
from snapcheck.model.device import World
from snapcheck.model.faults import Fault
from snapcheck.model.operations import Operation
from snapcheck.model.setup import Semantics, Setup
from snapcheck.stateful_tests.chooser import CHOICES_MAX, Chooser, RandomChooser
from snapcheck.stateful_tests.draw_faults import draw_faults
from snapcheck.stateful_tests.draw_operations import draw_operation
from snapcheck.stateful_tests.draw_setups import draw_setup

__all__ = [
    "Chooser", "Configured", "HypothesisChooser", "RandomChooser", "Situated", "Situation", "draw_faults",
    "draw_operation", "draw_setup", "drawn_setups", "faults", "operations", "setups", "steps",
]  # fmt: skip

_INDICES: Final = tuple(st.integers(0, n - 1) for n in range(1, CHOICES_MAX + 1))
_RUNNER: Final = st.runner()


class HypothesisChooser:
    """Choices from Hypothesis, which records them and shrinks each towards 0."""

    __slots__ = ("_draw",)

    def __init__(self, draw: DrawFn) -> None:
        self._draw = draw

    def index(self, n: int, /) -> int:
        return self._draw(_INDICES[n - 1])


class Situation(NamedTuple):
    """What the next step depends on: the state, the operations that the system can perform, the driver's regions."""

    world: World
    kinds: tuple[str, ...] | None = None
    regions: tuple[str, ...] = ()


class Situated(Protocol):
    """A state machine that knows its situation; None when there is nothing left to do in its history."""

    @property
    def situation(self) -> Situation | None: ...


@st.composite
def _setups(draw: DrawFn, semantics: Semantics, devices_max: int, qcow2_prepared: bool) -> Setup:  # noqa: FBT001  # by position to composite
    return draw_setup(
        HypothesisChooser(draw), semantics=semantics, devices_max=devices_max, qcow2_prepared=qcow2_prepared
    )


def setups(
    *, devices_max: int = 4, semantics: Semantics = Semantics.CLASSIC, qcow2_prepared: bool = True
) -> SearchStrategy[Setup]:
    """Return setups of 1 to `devices_max` devices; the simplest is one small writable device with nothing on it.

    `qcow2_prepared` says whether the driver opens qcow2 images with snapshots that the harness prepared.
    """
    return _setups(semantics, devices_max, qcow2_prepared)


class Configured(Protocol):
    """A state machine that knows its profile, how many devices it may have, and what it tests."""

    semantics: Semantics
    devices_max: int

    @property
    def prepared(self) -> bool: ...


@st.composite
def drawn_setups(draw: DrawFn) -> Setup:
    """Return setups for the state machine that draws."""
    machine: Configured = draw(_RUNNER)
    return draw_setup(
        HypothesisChooser(draw), semantics=machine.semantics, devices_max=machine.devices_max,
        qcow2_prepared=machine.prepared,
    )  # fmt: skip


@st.composite
def operations(draw: DrawFn, world: World, kinds: tuple[str, ...] | None = None) -> Operation:
    """Return operations of the alphabet (of `kinds`, as in Abilities.operations) for the state `world`."""
    return draw_operation(HypothesisChooser(draw), world, kinds=kinds)


@st.composite
def faults(draw: DrawFn, world: World, operation: Operation, regions: tuple[str, ...] = ()) -> tuple[Fault, ...]:
    """Return faults for `operation` to meet in the state `world`; the simplest are none."""
    return draw_faults(HypothesisChooser(draw), world, operation, regions=regions)


@st.composite
def steps(draw: DrawFn) -> tuple[Operation, tuple[Fault, ...]] | None:
    """Return an operation and its faults for the situation of the state machine that draws."""
    machine: Situated = draw(_RUNNER)
    situation = machine.situation
    if situation is None:
        return None  # Hypothesis has no way to end a history early
    world, kinds, regions = situation
    chooser = HypothesisChooser(draw)
    operation = draw_operation(chooser, world, kinds=kinds)
    return operation, draw_faults(chooser, world, operation, regions=regions)
