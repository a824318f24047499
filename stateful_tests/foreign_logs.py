"""A write log that something else recorded, judged without knowing which operations caused it.

    recorded = Recorded("d0", log, base)            # of foreign_bases.py
    require_base(recorded)                          # the log can have begun on this base
    for judgement in judge_logs([recorded], options): ...

What is allowed comes from the log itself. Applied without any loss, up to some position, it gives the lists, the
contents of snapshots and the active contents that there really were. A crash state may show what there was since the
last flush (a flush makes durable what came before it), and nothing else. Where the log has marks they say more: a mark
stands for "what was asked for so far has been answered", so a cut behind it shows what there was at that mark or
at the next one, or at a flush in between.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from snapcheck.fault_injection.crash.cuts import Persistence, image_of
from snapcheck.fault_injection.crash.judge import Judge, Judged
from snapcheck.fault_injection.crash.seen import Seen, see
from snapcheck.fault_injection.crash.states import STATES_MAX, Funnel
from snapcheck.fault_injection.write_log import Sort
from snapcheck.impl.blockfile import BlockError, MemoryFile
from snapcheck.impl.qcow2.image import Image
from snapcheck.impl.qcow2.layout import ImageError
from snapcheck.impl.qcow2.repair import repair
from snapcheck.model.content import SECTOR
from snapcheck.model.crash_laws import binds
from snapcheck.model.law_names import Law
from snapcheck.model.power_cut import Cut, Filling
from snapcheck.model.snapshot import SnapshotInfo
from snapcheck.stateful_tests.foreign_bases import Recorded

LAWS: Final = (Law.OPENS, Law.DURABLE, Law.ATOMIC_OP, Law.NO_CORRUPTION, Law.REPAIR_IS_SAFE)
PERSISTENCES: Final = (Persistence.PREFIX, Persistence.EPOCH, Persistence.SECTOR_TORN)
_CONTENT_BYTES_MAX: Final = 32 << 20  # of one image whose sectors are compared one by one
_SECTORS_TOLD: Final = 3
_MESSAGES_TOLD: Final = 5

Listed = tuple[SnapshotInfo, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """A crash state that breaks a law: how it came about, and how many others show the same."""

    law: Law
    persistence: Persistence
    cut: Cut
    until: int
    states: int
    evidence: tuple[str, ...]


@dataclass(slots=True)
class Judgement:
    """What one log came to under one persistence model. `checked` counts by law what there was to judge.

    Where nothing is promised, no law is checked, and `unsound` is how many disks do not open or are corrupt.
    """

    device: str
    persistence: Persistence
    funnel: Funnel
    checked: dict[Law, int] = field(default_factory=lambda: dict.fromkeys(LAWS, 0))
    findings: list[Finding] = field(default_factory=list[Finding])
    unsound: int = 0


def judge_logs(
    logs: Iterable[Recorded],
    *,
    persistences: Sequence[Persistence] = PERSISTENCES,
    fill: Filling = Filling.OLD,
    bound: int = STATES_MAX,
    seed: int = 0,
) -> Iterator[Judgement]:
    """Yield what each log came to under each persistence model; `fill` is what lost sectors hold."""
    for recorded in logs:
        course = _Course(recorded)
        for persistence in persistences:
            yield _judged(course, persistence, fill, bound=bound, seed=seed)


def _judged(course: "_Course", persistence: Persistence, fill: Filling, *, bound: int, seed: int) -> Judgement:
    recorded, judge = course.recorded, Judge()
    judgement = Judgement(recorded.device, persistence, judge.funnel)
    for judged in judge.judge(
        recorded.log, recorded.base, device=recorded.device, persistence=persistence, fill=fill, bound=bound, seed=seed
    ):
        if not binds(persistence.value, judged.cut):
            seen = judged.seen
            judgement.unsound += judged.states * (bool(seen.error) or bool(seen.check and seen.check.corruptions))
            continue
        for law in LAWS:
            evidence = course.evidence(law, judged)
            if evidence is None:
                continue
            judgement.checked[law] += 1
            if evidence:
                judgement.findings.append(
                    Finding(law, persistence, judged.cut, judged.until, judged.states, tuple(evidence))
                )
    return judgement


class _Moment(NamedTuple):
    """What the image showed when nothing had been lost up to a position."""

    position: int
    seen: Seen


class _Course:
    """What a log leads to, position by position, and what may be left of that."""

    def __init__(self, recorded: Recorded) -> None:
        self.recorded = recorded
        log, device = recorded.log, recorded.device
        self._flushes = [each.number for each in log.for_device(device) if each.sort is Sort.FLUSH]
        self._moments = self._all_moments()
        self._positions = [moment.position for moment in self._moments]
        self._marks = sorted({0, *(mark.number for mark in log.marks), log.position})
        self._has_marks = bool(log.marks)
        self._at_marks = {mark: see(self.image(Cut(device, mark))).outline for mark in self._marks if log.marks}
        self._held = self._all_held()
        self._contents: dict[tuple[int, int], NDArray[np.uint8]] = {}

    def _all_moments(self) -> list[_Moment]:
        found = [
            _Moment(cut.at, judged.seen)
            for judged in Judge().judge(
                self.recorded.log, self.recorded.base, device=self.recorded.device, persistence=Persistence.PREFIX
            )
            for cut in judged.witnesses
        ]
        return sorted(found, key=lambda moment: moment.position)

    def _all_held(self) -> dict[SnapshotInfo, set[str]]:
        """Return by snapshot what it held, at flushes and at the end."""
        held: dict[SnapshotInfo, set[str]] = {}
        for position in (*(number + 1 for number in self._flushes), self.recorded.log.position, 0):
            seen = self._at(position)
            for info, digest in zip(seen.view.snapshots or (), seen.digests[1:], strict=True):
                held.setdefault(info, set()).add(digest)
        return held

    def _at(self, position: int) -> Seen:
        return self._at_marks.get(position) or self._moments[bisect_right(self._positions, position) - 1].seen

    def _since_flush(self, position: int) -> int:
        """Return the position behind the last flush before `position`: what was there is durable."""
        place = bisect_right(self._flushes, position - 1)
        return self._flushes[place - 1] + 1 if place else 0

    def _between(self, first: int, last: int) -> Iterator[Seen]:
        """Yield what there was at `first`, and whenever something changed up to `last`."""
        low, high = bisect_right(self._positions, first) - 1, bisect_right(self._positions, last)
        return (moment.seen for moment in self._moments[low:high])

    # --- the laws ---------------------------------------------------------------------------------
    def evidence(self, law: Law, judged: Judged) -> list[str] | None:
        """Return what stands against a state, None when there is nothing to judge."""
        seen = judged.seen
        if law is Law.OPENS:
            return [f"it does not open: {seen.error}"] if seen.error else []
        if seen.error:
            return None
        if law is Law.NO_CORRUPTION:
            return self._corruptions(judged)
        if law is Law.REPAIR_IS_SAFE:
            return self._after_repair(judged)
        return self._third_things(judged) if law is Law.ATOMIC_OP else self._lost(judged)

    def _corruptions(self, judged: Judged) -> list[str]:
        if judged.seen.check is None or not judged.seen.check.corruptions:
            return []
        check = see(self.image(judged.cut)).check
        assert check is not None
        told = check.messages[: min(check.corruptions, _MESSAGES_TOLD)]
        more = check.corruptions - len(told)
        return [*told, *([f"and {more} more corruptions"] if more else [])]

    def image(self, cut: Cut) -> MemoryFile:
        """Return the disk that a cut leaves."""
        return image_of(self.recorded.base, self.recorded.log, cut)

    def _after_repair(self, judged: Judged) -> list[str] | None:
        """Repair the state, when there is something to repair, and look at it again."""
        check = judged.seen.check
        if check is None or not (check.corruptions or check.leaks or check.copied_missing):
            return None
        disk = self.image(judged.cut)
        try:
            repaired = repair(disk)
        except (ImageError, BlockError) as error:
            return [f"it can not be repaired: {error}"]
        after = see(disk)
        wrong = [] if repaired.after.clean else [f"not clean after a repair: {repaired.after.problems[0]}"]
        if (after.view.snapshots, after.digests) != (judged.seen.view.snapshots, judged.seen.digests):
            wrong.append("a repair changed the list or a content")
        return wrong

    def _lists(self, judged: Judged) -> set[Listed]:
        """Return the lists that are allowed wherever the state may be left."""
        first = self._since_flush(judged.cut.at)
        if not self._has_marks:
            return {seen.view.snapshots or () for seen in self._between(first, judged.until)}
        allowed: set[Listed] | None = None
        for position in (judged.cut.at, *(mark for mark in self._marks if judged.cut.at < mark <= judged.until)):
            place = bisect_right(self._marks, position)
            last, following = self._marks[place - 1], self._marks[min(place, len(self._marks) - 1)]
            points = [last, *(each + 1 for each in self._flushes if last <= each < following), following]
            here = {self._at(point).view.snapshots or () for point in points}
            allowed = here if allowed is None else allowed & here
        return allowed or set()

    def _third_things(self, judged: Judged) -> list[str]:
        """Tell of a list that there never was, and of snapshots that hold what they never held."""
        seen = judged.seen
        listed = seen.view.snapshots or ()
        wrong: list[str] = []
        if listed not in self._lists(judged) and not self._was_there(listed):
            wrong.append(f"the list {_names(listed)} was never there")
        for info, digest, content in zip(listed, seen.digests[1:], seen.contents, strict=True):
            known = self._held.get(info)
            if known is not None and digest not in known:
                what = f"can not be read ({content.error})" if content.error else "holds what it never held"
                wrong.append(f"snapshot {info.id_str} {info.name!r} {what}")
        return wrong

    def _was_there(self, listed: Listed) -> bool:
        return any(self._at(number + 1).view.snapshots == listed for number in (-1, *self._flushes)) or any(
            self._at(mark).view.snapshots == listed for mark in self._marks
        )

    def _lost(self, judged: Judged) -> list[str]:
        """Tell of what should have been durable."""
        seen = judged.seen
        allowed = self._lists(judged)
        listed = seen.view.snapshots or ()
        wrong: list[str] = []
        if listed not in allowed and self._was_there(listed):
            expected = " or ".join(sorted(map(_names, allowed)))
            wrong.append(f"the list is {_names(listed)}, and should be {expected}")
        return [*wrong, *self._lost_sectors(judged)]

    def _lost_sectors(self, judged: Judged) -> list[str]:
        """Tell of sectors of the active state that hold neither what was flushed nor anything written since."""
        first, last = self._since_flush(judged.cut.at), judged.until
        allowed = list(self._between(first, last))
        if judged.seen.digests[0] in {seen.digests[0] for seen in allowed}:
            return []
        if judged.seen.view.errors:
            return [f"the active state can not be read: {', '.join(judged.seen.view.errors)}"]
        sizes = {seen.view.sectors for seen in allowed}
        if judged.seen.view.sectors not in sizes:
            return [f"the size is {judged.seen.view.sectors} sectors, which it never was since the last flush"]
        if (judged.seen.view.sectors or 0) * SECTOR > _CONTENT_BYTES_MAX:
            return []
        now = _sectors(self.image(judged.cut))
        known = self._contents_between(first, last, len(now))
        strange = np.flatnonzero(~(known == now).all(axis=2).any(axis=0))
        told = ", ".join(str(sector) for sector in strange[:_SECTORS_TOLD].tolist())
        more = " and others" if len(strange) > _SECTORS_TOLD else ""
        return (
            [f"sector {told}{more}: neither what was flushed last nor what was written since"] if len(strange) else []
        )

    def _contents_between(self, first: int, last: int, sectors: int) -> NDArray[np.uint8]:
        """Return the different active contents that there were, each as an array of sectors."""
        key = (first, last)
        if key not in self._contents:
            self._contents.clear()
            device = self.recorded.device
            low, high = bisect_right(self._positions, first) - 1, bisect_right(self._positions, last)
            different = {moment.seen.digests[:1]: moment.position for moment in self._moments[low:high]}
            found = [_sectors(self.image(Cut(device, position))) for position in different.values()]
            self._contents[key] = np.stack([each for each in found if len(each) == sectors])
        return self._contents[key]


def _sectors(disk: MemoryFile) -> NDArray[np.uint8]:
    with Image.open(disk, read_only=True) as image:
        raw = image.read(0, image.size_bytes)
    return np.frombuffer(raw.ljust(-(-len(raw) // SECTOR) * SECTOR, b"\0"), dtype=np.uint8).reshape(-1, SECTOR)


def _names(listed: Listed) -> str:
    return "[" + ", ".join(f"{info.id_str} {info.name!r}" for info in listed) + "]"
