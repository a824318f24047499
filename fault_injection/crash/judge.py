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

import numpy as np
from snapcheck.fault_injection.crash.cuts import Persistence
from snapcheck.fault_injection.crash.fast import Alike, FastJudge
from snapcheck.fault_injection.crash.overlay import Overlay, Places
from snapcheck.fault_injection.crash.seen import Seen, see
from snapcheck.fault_injection.crash.states import STATES_MAX, Funnel, states_of
from snapcheck.fault_injection.crash.tree import States
from snapcheck.fault_injection.crash.versions import Numbers
from snapcheck.fault_injection.write_log import WriteLog
from snapcheck.impl.blockfile import MemoryFile
from snapcheck.model.history import HANG
from snapcheck.model.power_cut import Cut, Filling

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

    def __init__(self, states: States, numbers: Numbers) -> None:
        self._states = states
        self._numbers = numbers

    @property
    def first(self) -> int:
        """Return the number of the first one among the states."""
        return int(self._numbers[0])

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, place: int) -> Cut:  # type: ignore[override]
        return self._states.cut(int(self._numbers[place]))


class Judge:
    """Judges the states that power cuts leave, and counts them in `funnel`.

    `see` is what looks at one disk, one at a time: another driver's eyes; one that hangs is not asked for more. Without
    it the disks are qcow2 images and the
    fast judge looks at them; the plain one confirms one in a hundred, and a witness of whatever is corrupt or does not
    open. `OracleError` when the two differ: a bug of this harness.
    `each` is called for each handful of states: what it raises ends the judging.
    """

    def __init__(self, *, see: See | None = None, each: Callable[[], None] | None = None) -> None:
        self._see = see
        self._each = each
        self._hung = False
        self.funnel = Funnel()
        self._fast = FastJudge(self.funnel)

    def judge(
        self, log: WriteLog, base: MemoryFile, *, device: str, persistence: Persistence, fill: Filling = Filling.OLD,
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
            places = Places(states.columns)
            if self._see is not None:
                yield from _put_together(self._told(self._one_by_one(states, places, self._see)), states)
                if self._hung:
                    return
                continue
            for judged in _put_together(self._told(self._fast.judge(states, places)), states):
                if _is_bad(judged.seen):
                    self._fast.confirm(judged.witnesses.first, judged.seen, states, places)
                yield judged

    def _told(self, found: Iterator[Alike]) -> Iterator[Alike]:
        for alike in found:
            if self._each is not None:
                self._each()
            yield alike

    def _one_by_one(self, states: States, places: Places, see: See) -> Iterator[Alike]:
        self.funnel.read_set_distinct += len(states)
        for number, row in enumerate(states.rows):
            seen = see(Overlay(places, row).clone())
            self.funnel.judged += 1
            self.funnel.plain += 1
            yield Alike(seen.outline, np.array([number], dtype=np.int64), 1)
            if seen.error.startswith(HANG):
                self._hung = True
                self.funnel.sampled += 1
                return

    def look(self, disk: MemoryFile) -> Seen:
        """Return what one disk shows, by the plain judge, with all numbers and messages."""
        return (self._see or see)(disk)


def _is_bad(seen: Seen) -> bool:
    return bool(seen.error) or (seen.check is not None and seen.check.corruptions > 0)


def _put_together(found: Iterable[Alike], states: States) -> Iterator[Judged]:
    """Yield what shows the same in the same epoch once, the earliest first."""
    classes: dict[tuple[int, Seen], list[Alike]] = {}
    for each in found:
        classes.setdefault((int(states.until[each.numbers[0]]), each.seen), []).append(each)
    told: list[tuple[Numbers, int, Seen]] = []
    for (_, seen), parts in classes.items():
        numbers = np.sort(np.concatenate([part.numbers for part in parts]))
        told.append((numbers, sum(part.states for part in parts), seen))
    for numbers, count, seen in sorted(told, key=lambda each: int(each[0][0])):
        witness = int(numbers[0])
        yield Judged(states.cut(witness), int(states.until[witness]), count, seen, Witnesses(states, numbers))


def consistent(judged: Iterable[Judged]) -> range:
    """Return the positions at which one power cut may leave all of these at once, one for each device.

    The log is one order over all devices, so a device is never ahead of what was issued only after another one had
    acknowledged; within the open epoch each device loses what it likes.
    """
    spans = [(each.cut.at, each.until) for each in judged]
    return range(max(at for at, _ in spans), min(until for _, until in spans) + 1)
