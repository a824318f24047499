"""What has to be seen sometimes: the states in which operations on a group can go wrong at all.

An exploration that never came to one of these has proved nothing about it, and says so.
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np
from snapcheck.model.device import Device, Image
from snapcheck.model.scope import NAMES, Scope
from snapcheck.model.tables import Flags, Numbers, Tables


class Goal(NamedTuple):
    """Something to be seen: `number` tells what is looked at in one device, `among` what it takes in the group.

    It is declared for scopes of at least so many devices, values, names and snapshots on a device.
    """

    words: str
    number: Callable[[Image, Scope], int]
    among: Callable[[Sequence[Numbers]], Flags]
    devices: int = 1
    values: int = 1
    names: int = 1
    snapshots: int = 1


def _somewhere(columns: Sequence[Numbers]) -> Flags:
    found: Flags = np.max(columns, axis=0) > 0
    return found


def _everywhere(columns: Sequence[Numbers]) -> Flags:
    found: Flags = np.min(columns, axis=0) > 0
    return found


def _here_and_not_there(columns: Sequence[Numbers]) -> Flags:
    return _somewhere(columns) & ~_everywhere(columns)


def _different(columns: Sequence[Numbers]) -> Flags:
    """Tell where two devices have different numbers; 0 means that one has none."""
    some = np.where(np.stack(columns) > 0, columns, np.max(columns, axis=0))
    found: Flags = np.min(some, axis=0) != np.max(some, axis=0)
    return found


def _has(image: Image, _scope: Scope) -> int:
    return any(each.info.name == NAMES[0] for each in image.snapshots)


def _is_full(image: Image, scope: Scope) -> int:
    return len(image.snapshots) == scope.snapshots_max


def _has_moved_on(image: Image, _scope: Scope) -> int:
    return any(each.content != image.content for each in image.snapshots)


def _content(image: Image, _scope: Scope) -> int:
    return 1 + image.content.tags[0]


def _rank(image: Image, _scope: Scope) -> int:
    return next((int(each.info.id_str) for each in image.snapshots if each.info.name == NAMES[0]), 0)


GOALS: Final = (
    Goal("a snapshot that every device has", _has, _everywhere),
    Goal("a device with as many snapshots as there is room for", _is_full, _somewhere),
    Goal("a snapshot that holds something else than what is active", _has_moved_on, _somewhere, values=2),
    Goal("a snapshot that some devices have and others have not", _has, _here_and_not_there, devices=2),
    Goal("devices with different contents", _content, _different, devices=2, values=2),
    Goal("one name with different ids on two devices", _rank, _different, devices=2, names=2, snapshots=2),
)


def declared(scope: Scope) -> tuple[Goal, ...]:
    """Return what can be seen in a scope at all."""
    return tuple(
        goal for goal in GOALS
        if goal.devices <= scope.devices and goal.values <= scope.values and goal.names <= scope.names
        and goal.snapshots <= scope.snapshots_max
    )  # fmt: skip


class Sometimes:
    """Looks for one goal."""

    def __init__(self, goal: Goal, tables: Tables) -> None:
        self.words: Final = goal.words
        self._among = goal.among
        self._numbers = np.array([_of(device, goal, tables.scope) for device in tables.states], dtype=np.intp)

    def is_in(self, parts: Sequence[Numbers]) -> bool:
        """Tell whether one of the states is such, given by the number of each device's state."""
        return bool(self._among([self._numbers[part] for part in parts]).any())


def _of(device: Device, goal: Goal, scope: Scope) -> int:
    assert device.image is not None, "a device of a scope has an image"
    return int(goal.number(device.image, scope))
