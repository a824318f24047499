"""The states that a power cut may leave of a device, epoch by epoch, and how many there were.

funnel = Funnel()
for states in states_of(log, base, device="d0", persistence=Persistence.EPOCH, funnel=funnel):
    for state in range(len(states)):
        image = image_of(base, log, states.cut(state))
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from snapcheck.fault_injection.crash.cuts import Persistence, SectorWrite, sector_writes
from snapcheck.fault_injection.crash.tree import Plan, States, Tree
from snapcheck.fault_injection.write_log import Sort, WriteLog
from snapcheck.impl.blockfile import MemoryFile
from snapcheck.model.power_cut import Filling

STATES_MAX: Final = 1 << 15  # in one epoch
WAYS_MAX: Final = 10**300
_WINDOW_WRITES: Final = 48  # epochs are looked at together up to so many writes


@dataclass(slots=True)
class Funnel:
    """How many states there were at each stage, and what judging them took.

    enumerated  subsets of writes that were covered, of `possible` ones; neither is counted beyond `WAYS_MAX`
    sampled     epochs of which not all subsets were covered
    distinct    different disks among them, by epoch; one that can be left, then not, and then again counts again
    read_set_distinct  those that differ in anything that opening, listing, checking and reading look at
    judged      states whose verdict was computed
    plain       of those, the ones that only the plain judge can take
    confirmed   verdicts of the fast judge that the plain one confirmed
    """

    enumerated: int = 0
    possible: int = 0
    sampled: int = 0
    distinct: int = 0
    read_set_distinct: int = 0
    judged: int = 0
    plain: int = 0
    confirmed: int = 0

    @property
    def exhaustive(self) -> bool:
        return not self.sampled

    @property
    def fraction(self) -> float:
        """Return the share of the possible subsets that was covered."""
        return self.enumerated / self.possible if self.possible else 1.0

    def add(self, other: "Funnel") -> None:
        """Add what another device or persistence model came to."""
        for name in Funnel.__slots__:
            setattr(self, name, min(getattr(self, name) + getattr(other, name), WAYS_MAX))


def states_of(
    log: WriteLog, base: MemoryFile, *, device: str, persistence: Persistence, funnel: Funnel,
    fill: Filling = Filling.OLD, since: int = 0, bound: int = STATES_MAX, seed: int = 0,
) -> Iterator[States]:  # fmt: skip
    """Yield the different states that a power cut may leave of `device`, some epochs at a time.

    `base` is what the disk held when the log began. `bound` is how many states of an epoch there may be before only
    some, drawn from `seed`, are carried on. Epochs that ended before the position `since` are left out. What was
    counted is added to `funnel`.
    """
    plan = Plan(device, persistence, fill, bound)
    rng = np.random.default_rng(seed)
    live, start, at = base.clone(), base.clone(), 0
    window: list[SectorWrite] = []
    for write in sector_writes(log.for_device(device), live):
        window.append(write)
        if write.entry.sort is not Sort.FLUSH or not plan.flushes:
            continue
        over = write.entry.number < since
        if over or len(window) >= _WINDOW_WRITES:
            if not over:
                yield _grown(Tree(plan, window[:-1], start, at=at, rng=rng), write.entry.number, funnel)
            window, at, start = [], write.entry.number + 1, live.clone()
    yield _grown(Tree(plan, window, start, at=at, rng=rng), log.position, funnel)


def _grown(tree: Tree, until: int, funnel: Funnel) -> States:
    states = tree.grow(until=until)
    funnel.add(Funnel(tree.enumerated, tree.possible, tree.sampled, tree.distinct))
    return states
