"""Judging every state that a power cut may leave of one device.

    judge = Judge()
    for judged in judge.judge(log, base, device="d0", persistence=Persistence.EPOCH):
        judged.cut, judged.until, judged.states, judged.seen      # and judge.funnel afterwards

States that show the same in the same epoch are told once, by the cut of one of them: the earliest, with the fewest
lost writes. The cut may come at any position from `cut.at` to `until` and leave this very disk; what is allowed must
be asked for each position where a user learned something in between, and grows stricter with them.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from snapcheck.fault_injection.crash.cuts import Persistence, image_of
from snapcheck.fault_injection.crash.seen import Seen, see
from snapcheck.fault_injection.crash.states import STATES_MAX, Funnel, states_of
from snapcheck.fault_injection.crash.tree import States
from snapcheck.fault_injection.write_log import WriteLog
from snapcheck.impl.blockfile import MemoryFile
from snapcheck.model.power_cut import Cut, Fill

See = Callable[[MemoryFile], Seen]


@dataclass(frozen=True, slots=True)
class Judged:
    """States of one epoch that show the same.

    cut     the witness: the earliest of them, with the fewest lost writes
    until   the last position at which the witness may be left
    states  how many different disks there are
    witnesses  a cut for each of them that differs in anything that is read, the witness first
    """

    cut: Cut
    until: int
    states: int
    seen: Seen
    witnesses: "Witnesses"


class Witnesses(Sequence[Cut]):
    """Cuts that are made when they are looked at: there may be thousands, and few are needed."""

    def __init__(self, states: States, numbers: Sequence[int]) -> None:
        self._states = states
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, place: int) -> Cut:  # type: ignore[override]
        return self._states.cut(self._numbers[place])


class Judge:
    """Judges the states that power cuts leave, and counts them in `funnel`.

    `see` is what looks at one disk: the engine by default, or another driver's eyes.
    """

    def __init__(self, *, see: See = see) -> None:
        self._see = see
        self.funnel = Funnel()

    def judge(
        self, log: WriteLog, base: MemoryFile, *, device: str, persistence: Persistence, fill: Fill = Fill.OLD,
        since: int = 0, bound: int = STATES_MAX, seed: int = 0,
    ) -> Iterator[Judged]:  # fmt: skip
        """Yield what the states of `device` show; `base` is what its disk held when the log began.

        The other arguments are those of `states_of`. In what is seen, 1 corruption or leak stands for any number of
        them, and there are no messages: `look` has them.
        """
        for states in states_of(
            log, base, device=device, persistence=persistence, funnel=self.funnel, fill=fill, since=since, bound=bound,
            seed=seed,
        ):  # fmt: skip
            yield from self._plainly(states, log, base)

    def look(self, disk: MemoryFile) -> Seen:
        """Return what one disk shows, by the plain judge, with all numbers and messages."""
        return self._see(disk)

    def _plainly(self, states: States, log: WriteLog, base: MemoryFile) -> Iterator[Judged]:
        classes: dict[tuple[int, Seen], list[int]] = {}
        for number in range(len(states)):
            seen = self._see(image_of(base, log, states.cut(number))).outline
            classes.setdefault((int(states.until[number]), seen), []).append(number)
        self.funnel.judged += len(states)
        self.funnel.plain += len(states)
        self.funnel.read_set_distinct += len(states)
        for (until, seen), numbers in classes.items():
            yield Judged(states.cut(numbers[0]), until, len(numbers), seen, Witnesses(states, numbers))


def consistent(judged: Iterable[Judged]) -> range:
    """Return the positions at which one power cut may leave all of these at once, one for each device.

    The log is one order over all devices, so a device is never ahead of what was issued only after another one had
    acknowledged; within the open epoch each device loses what it likes.
    """
    spans = [(each.cut.at, each.until) for each in judged]
    return range(max(at for at, _ in spans), min(until for _, until in spans) + 1)
