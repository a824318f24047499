"""The fast judge: crash states are judged together, as far as they have anything in common.

1. States that open alike are a front (front.py): one of them is opened, by the engine. Fronts whose tables lie alike
   have the same frame (frame.py) and go on together.
2. Of these states those are judged that differ in anything that is read: L2 tables, refcount blocks, data.
3. Refcounts, references and COPIED bits are sums of look-ups (tables.py), and so is what the trees hold (contents.py).
4. What a content is made of is read once for each different content, through the engine.

What has no tables here goes to the plain judge and is counted: images that a mere opening would repair or change,
persistent bitmaps, extended L2 entries, an L2 table at two places. The plain judge also judges one in a hundred of the
others again, and whoever asks may have more of them confirmed: `OracleError` when the two differ.
"""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
from snapcheck.fault_injection.crash.contents import Contents
from snapcheck.fault_injection.crash.frame import Frame, frame_of
from snapcheck.fault_injection.crash.front import Front, fronts_of
from snapcheck.fault_injection.crash.overlay import NeedsPlainError, Overlay, Places
from snapcheck.fault_injection.crash.seen import Held, Known, Seen, held, see, shown
from snapcheck.fault_injection.crash.states import Funnel
from snapcheck.fault_injection.crash.tables import FrameTables
from snapcheck.fault_injection.crash.tree import States
from snapcheck.fault_injection.crash.versions import Clusters, Numbers, distinct
from snapcheck.impl.qcow2.state import State
from snapcheck.model.history import Check
from snapcheck.model.power_cut import Cut

CONFIRMED_EVERY: Final = 100
_HELD_MAX: Final = 4096  # contents that are remembered


class OracleError(Exception):
    """The fast judge and the plain one differ about a crash state: a bug of this harness."""

    def __init__(self, cut: Cut, fast: Seen, plain: Seen) -> None:
        self.cut, self.fast, self.plain = cut, fast, plain
        super().__init__(f"the judges differ about {cut}: fast {fast}, plain {plain}")


class Alike(NamedTuple):
    """States of one epoch that show the same.

    numbers  one for each that differs in anything that is read, the earliest first
    states   how many there are in all
    """

    seen: Seen
    numbers: Numbers
    states: int


class FastJudge:
    """Judges states of qcow2 images. Contents that were read once are remembered from call to call."""

    def __init__(self, funnel: Funnel, *, confirmed_every: int = CONFIRMED_EVERY) -> None:
        self._funnel = funnel
        self._every = confirmed_every
        self._held: dict[tuple[int, int, int], Held] = {}
        self._contents = Known()

    def judge(self, states: States, places: Places) -> Iterator[Alike]:
        """Yield what `states` show; the same may come several times, and never for states of different epochs."""
        fronts: dict[Frame, list[Front]] = {}
        for front in fronts_of(places, states.rows):
            if front.error:
                yield from self._closed(front, states)
            elif front.state is None:
                yield from self._plainly(front.states, states, places)
            else:
                try:
                    fronts.setdefault(frame_of(front), []).append(front)
                except NeedsPlainError:
                    yield from self._plainly(front.states, states, places)
        clusters: dict[tuple[int, int], Clusters] = {}
        for frame, alike in fronts.items():
            kind = bits, size = frame.cluster_bits, frame.file_bytes
            if kind not in clusters:
                clusters[kind] = Clusters(places, bits, size=size)
            try:
                some = _Some(frame, alike, states, places, clusters[kind])
            except NeedsPlainError:
                for front in alike:
                    yield from self._plainly(front.states, states, places)
            else:
                yield from self._open(some)

    # --- states that do not open ------------------------------------------------------------------
    def _closed(self, front: Front, states: States) -> Iterator[Alike]:
        seen = Seen(error=front.error)
        for until in np.unique(states.until[front.states]).tolist():
            numbers = front.states[states.until[front.states] == until]
            self._funnel.read_set_distinct += 1
            self._funnel.judged += 1
            yield Alike(seen, numbers[:1], len(numbers))

    def _plainly(self, numbers: Numbers, states: States, places: Places) -> Iterator[Alike]:
        self._funnel.read_set_distinct += len(numbers)
        self._funnel.judged += len(numbers)
        self._funnel.plain += len(numbers)
        for number in numbers:
            seen = see(Overlay(places, states.rows[number]).clone(), self._contents).outline
            yield Alike(seen, np.array([number], dtype=np.int64), 1)

    # --- states that do ---------------------------------------------------------------------------
    def _open(self, some: "_Some") -> Iterator[Alike]:
        chosen = some.firsts
        self._funnel.read_set_distinct += len(chosen)
        self._funnel.judged += len(chosen)
        verdicts = some.tables.verdicts(chosen)
        digests = some.contents.digests(chosen)
        parts = [np.unique(digest, return_inverse=True)[1] for digest in {id(each): each for each in digests}.values()]
        flags = [flags.astype(np.int64) for flags in verdicts]
        firsts, alike = distinct([some.until[chosen], some.front_of[chosen], *flags, *parts])
        counts = np.bincount(some.kinds)
        due = set(np.flatnonzero((self._funnel.judged - 1 - np.arange(len(chosen))) % self._every == 0).tolist())
        for number, first in enumerate(firsts.tolist()):
            here = np.flatnonzero(alike == number)
            check = Check(*verdicts.of(first))
            seen = self._seen(some, int(chosen[first]), [int(digest[first]) for digest in digests], check)
            numbers = np.sort(some.numbers[chosen[here]])
            for place in here.tolist():
                if place in due:
                    self.confirm(int(some.numbers[chosen[place]]), seen, some.states, some.places)
            yield Alike(seen, numbers, int(counts[here].sum()))

    def _seen(self, some: "_Some", place: int, digests: Sequence[int], check: Check) -> Seen:
        """Return what a state shows, of whose contents this tells what they are."""
        state = some.fronts[int(some.front_of[place])].state
        assert state is not None
        entries = [None, *state.snapshot_table.entries]
        opened: State | None = None
        found: list[Held] = []
        for digest, entry in zip(digests, entries, strict=True):
            size, vmstate = (state.header.size, -1) if entry is None else (entry.disk_size, entry.info.vm_state_size)
            known = self._held.get((digest, size, vmstate))
            if known is None:
                opened = opened or State(Overlay(some.places, some.rows[place]), read_only=False)
                known = self._remember((digest, size, vmstate), held(opened, self._contents, entry))
            found.append(known)
        return shown(state, found[0], found[1:], check)

    def _remember(self, key: tuple[int, int, int], content: Held) -> Held:
        if len(self._held) >= _HELD_MAX:
            self._held.clear()
        self._held[key] = content
        return content

    def confirm(self, number: int, seen: Seen, states: States, places: Places) -> None:
        """Ask the plain judge as well; `OracleError` when it says something else."""
        plain = see(Overlay(places, states.rows[number]).clone(), self._contents).outline
        self._funnel.confirmed += 1
        if plain != seen:
            raise OracleError(states.cut(number), seen, plain)


class _Some:
    """The states of some fronts of one frame, those that differ in nothing that is read put together.

    numbers   the numbers of all these states; what is said "by place" is about the state at that place of them
    front_of  by place: which of the `fronts` the state is of
    until     by place: which epoch it is of
    firsts    the place of the first state of each kind
    kinds     by place: which kind of state it is
    """

    def __init__(
        self, frame: Frame, fronts: Sequence[Front], states: States, places: Places, clusters: Clusters
    ) -> None:
        self.fronts, self.states, self.places = fronts, states, places
        self.numbers = np.concatenate([front.states for front in fronts])
        self.front_of = np.repeat(np.arange(len(fronts)), [len(front.states) for front in fronts])
        self.rows = states.rows[self.numbers]
        self.tables = FrameTables(frame, self.rows, clusters)
        self.contents = Contents(self.tables, frame, self.rows, clusters)
        read = clusters.columns(self.tables.read_clusters)
        self.until = np.unique(states.until[self.numbers], return_inverse=True)[1]
        self.firsts, self.kinds = distinct([self.until, self.front_of, *(self.rows[:, column] for column in read)])
