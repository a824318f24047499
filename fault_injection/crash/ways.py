"""How many ways there are to lose the writes of an epoch, as a persistence model has it, whatever disks they leave."""

from typing import Final

from snapcheck.fault_injection.crash.cuts import Persistence

# Of the writes before one that survives, how many may be lost; those behind the last one that survives do not count.
DROPPED_MAX: Final = {Persistence.PREFIX: 0, Persistence.ONE_DROPPED: 1, Persistence.TWO_DROPPED: 2}


class Ways:
    """Counts the ways of an epoch, write by write.

    `_levels` are those that go on, by what may still happen to them. Any subset: one level. Some dropped: by how many
    are lost so far, and the last level lost too many for another write to survive. One kept: none so far, all so far
    (unless that is the same), and the others.
    """

    def __init__(self, persistence: Persistence) -> None:
        self._persistence = persistence
        self._over = self._torn = 0
        self._levels = [1]
        if persistence is Persistence.ONE_KEPT:
            self._levels = [1, 0, 0]
        elif persistence in DROPPED_MAX:
            self._levels = [1] + [0] * (DROPPED_MAX[persistence] + 1)

    @property
    def possible(self) -> int:
        """Return how many there are."""
        return self._over + sum(self._levels) + self._torn

    def write(self, *, forced: bool, fills: bool, tears: int) -> None:
        """Add a write.

        forced  it is durable as soon as it is acknowledged
        fills   something else is there where a write is lost, so that losing it is another way
        tears   in how many ways it may be torn
        """
        if forced or fills:
            self._over = self.possible
        if forced:
            if self._persistence in DROPPED_MAX:
                self._levels[-1] = 0
        elif self._persistence is Persistence.ONE_KEPT:
            none, every, others = self._levels
            self._levels = [none, 1, others + 2 * every]
        elif self._persistence in DROPPED_MAX:
            *few, many = self._levels
            self._levels = [here + fewer for here, fewer in zip([*few, many], [0, *few], strict=True)]
        else:
            self._torn = 2 * self._torn + tears * self._levels[0]
            self._levels[0] *= 2
