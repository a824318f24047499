"""Where choices come from: whoever draws setups, operations and faults asks a `Chooser`, and knows no other chance.

So the same drawing code serves Hypothesis (`strategies.py`), a seeded `random.Random`, and a fixed list of choices.
Every choice is an index into a table. Tables stand in order from simple to odd, because Hypothesis shrinks indices
towards 0; what is to come up often stands there several times.
"""

from collections.abc import Sequence
from random import Random
from typing import Final, Protocol, TypeVar

T = TypeVar("T")

# Hypothesis mixes constants that it collects from imported local modules into integer draws, but only constants of
# magnitude 100 and more. Tables that are no longer than this are drawn the same whatever is imported.
CHOICES_MAX: Final = 100


class Chooser(Protocol):
    """A source of choices."""

    def index(self, n: int, /) -> int:
        """Return a number from 0 to `n` - 1; `n` is 1 to CHOICES_MAX."""
        ...


class RandomChooser:
    """Choices from a seeded generator."""

    __slots__ = ("_random",)

    def __init__(self, rng: Random) -> None:
        self._random = rng.random

    def index(self, n: int, /) -> int:
        assert 1 <= n <= CHOICES_MAX
        return int(self._random() * n)


def pick(chooser: Chooser, table: Sequence[T]) -> T:
    """Choose an entry of `table`; where there is only one, nothing is drawn."""
    return table[chooser.index(len(table))] if len(table) > 1 else table[0]


def weighted(*entries: tuple[int, T]) -> tuple[T, ...]:
    """Return the table in which each entry stands as often as its weight says."""
    table = tuple(entry for weight, entry in entries for _ in range(weight))
    assert len(table) <= CHOICES_MAX
    return table
