"""Goals: what a walk has to see sometimes. A run that never did says so, and its verdict is unknown."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from snapcheck.model.device import World
from snapcheck.model.errno import Errno
from snapcheck.model.facts import WALKS, members
from snapcheck.model.history import Step
from snapcheck.model.operations import (
    KINDS,
    AllCreate,
    AllDelete,
    AllGoto,
    Create,
    Goto,
    LoadVm,
    Operation,
    SaveVm,
    Transaction,
)
from snapcheck.stateful_tests.units import Profile

_MANY: Final = 4  # snapshots on one device


class Goal(NamedTuple):
    """Something to be seen: a step of one of `operations`, from the state before it; declared from `profile` on.

    `devices` is how many it takes.
    """

    words: str
    profile: Profile
    operations: tuple[type[Operation], ...]
    reached: Callable[[Step, World], bool]
    devices: int = 1


def _together(step: Step, before: World) -> bool:
    return step.result.errno is Errno.OK and len(members(step.operation, before)) > 1


def _struck(step: Step, before: World) -> bool:
    return bool(step.faults and step.met) and len(members(step.operation, before)) > 1


def _failed_under_a_fault(step: Step, _before: World) -> bool:
    return bool(step.faults and step.met) and step.result.errno is not Errno.OK


def _with_many(_step: Step, before: World) -> bool:
    return any(device.image and len(device.image.snapshots) >= _MANY for device in before.devices.values())


def _in_flight(_step: Step, before: World) -> bool:
    return any(device.in_flight for device in before.devices.values())


def _left_out(step: Step, before: World) -> bool:
    return 0 < len(before.included) < len(before.devices) and step.result.errno is Errno.OK


def _of_another_size(step: Step, before: World) -> bool:
    if step.result.errno is not Errno.OK:
        return False
    images = [device.image for device in before.devices.values() if device.image is not None]
    return any(snapshot.sectors != image.sectors for image in images for snapshot in image.snapshots)


GOALS: Final = (
    Goal("a snapshot taken of several devices at once", Profile.QUICK, (AllCreate,), _together, 2),
    Goal("several devices taken back at once", Profile.QUICK, (AllGoto,), _together, 2),
    Goal("a snapshot dropped from several devices at once", Profile.QUICK, (AllDelete,), _together, 2),
    Goal("a fault met by an operation on several devices", Profile.QUICK, WALKS, _struck, 2),
    Goal("a machine saved", Profile.QUICK, (SaveVm,), _together, 2),
    Goal("a machine loaded", Profile.DEFAULT, (LoadVm,), _together, 2),
    Goal("a transaction that failed under a fault", Profile.DEFAULT, (Transaction,), _failed_under_a_fault),
    Goal("a snapshot taken while writes are in flight", Profile.DEFAULT, (Create, AllCreate), _in_flight),
    Goal("a device with four snapshots", Profile.DEFAULT, (Create, AllCreate), _with_many),
    Goal("an operation on a group that leaves a device out", Profile.DEFAULT, WALKS, _left_out, 2),
    Goal("a device taken back beside snapshots of another size", Profile.DEFAULT, (Goto, AllGoto), _of_another_size),
)
_ORDER: Final = (Profile.QUICK, Profile.DEFAULT, Profile.DEEP)


def declared(profile: Profile, *, devices: int, kinds: Sequence[str] | None) -> tuple[Goal, ...]:
    """Return the goals of a profile, for groups of up to `devices` and a system that performs `kinds` (None: all)."""
    return tuple(
        goal
        for goal in GOALS
        if _ORDER.index(goal.profile) <= _ORDER.index(profile)
        and goal.devices <= devices
        and (kinds is None or any(KINDS[operation] in kinds for operation in goal.operations))
    )


class Goals:
    """Counts, in `counts`, each time that a goal is reached; `wanted` are the goals to be led to."""

    def __init__(self, counts: Counter[str], wanted: Sequence[Goal] = ()) -> None:
        self._counts = counts
        self._wanted = wanted

    def kinds_wanted(self, able: Sequence[str] | None) -> tuple[str, ...]:
        """Return the kinds of operations, of those that are `able`, that may reach a wanted goal never yet reached."""
        missing = (goal for goal in self._wanted if not self._counts[_key(goal)])
        kinds = dict.fromkeys(KINDS[operation] for goal in missing for operation in goal.operations)
        return tuple(kind for kind in kinds if able is None or kind in able)

    def look(self, step: Step, before: World) -> None:
        """Take note of what a step from the state `before` reached."""
        for goal in _BY_OPERATION.get(type(step.operation), ()):
            if goal.reached(step, before):
                self._counts[_key(goal)] += 1


def missed(goals: Sequence[Goal], counts: Mapping[str, int]) -> tuple[str, ...]:
    """Return the goals that were never reached, in words."""
    return tuple(goal.words for goal in goals if not counts.get(_key(goal)))


def _key(goal: Goal) -> str:
    return f"sometimes: {goal.words}"


def _by_operation() -> dict[type[Operation], tuple[Goal, ...]]:
    kinds = {kind for goal in GOALS for kind in goal.operations}
    return {kind: tuple(goal for goal in GOALS if kind in goal.operations) for kind in kinds}


_BY_OPERATION: Final = _by_operation()
