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
from snapcheck.fault_injection.crash.frame import Frame, copied_in, framed
from snapcheck.fault_injection.crash.front import Front, fronts_of
from snapcheck.fault_injection.crash.overlay import NeedsPlainError, Overlay, Places
from snapcheck.fault_injection.crash.seen import Held, Known, Seen, held, see, shown
from snapcheck.fault_injection.crash.states import Funnel
from snapcheck.fault_injection.crash.tables import Copied, FrameTables
from snapcheck.fault_injection.crash.tree import States
from snapcheck.fault_injection.crash.trees import L2Tables
from snapcheck.fault_injection.crash.versions import Clusters, Numbers, distinct, numbered
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
        shared = _Shared(places)
        for frame, fronts in framed(fronts_of(places, states.rows)):
            if frame is not None:
                yield from self._together(frame, fronts, states, shared)
            elif fronts[0].error:
                yield from self._closed(fronts[0], states)
            else:
                yield from self._plainly(fronts, states, places)

    def _together(self, frame: Frame, fronts: Sequence[Front], states: States, shared: "_Shared") -> Iterator[Alike]:
        try:
            some = _Some(frame, fronts, states, shared)
        except NeedsPlainError:
            if len(fronts) == 1:
                yield from self._plainly(fronts, states, shared.places)
            else:  # each by itself may well have tables
                for front in fronts:
                    yield from self._together(frame, [front], states, shared)
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

    def _plainly(self, fronts: Sequence[Front], states: States, places: Places) -> Iterator[Alike]:
        numbers = np.concatenate([front.states for front in fronts])
        self._funnel.read_set_distinct += len(numbers)
        self._funnel.judged += len(numbers)
        self._funnel.plain += len(numbers)
        for number in numbers:
            seen = see(Overlay(places, states.rows[number]).clone(), self._contents).outline
            yield Alike(seen, np.array([number], dtype=np.int64), 1)

    # --- states that do ---------------------------------------------------------------------------
    def _open(self, some: "_Some") -> Iterator[Alike]:
        chosen, verdicts, digests = some.firsts, some.verdicts, some.digests
        self._funnel.read_set_distinct += len(chosen)
        self._funnel.judged += len(chosen)
        parts = [numbered(digest)[1] for digest in {id(each): each for each in digests}.values()]
        flags = [flags.astype(np.int64) for flags in verdicts]
        firsts, alike = distinct([some.until[chosen], some.front_of[chosen], *flags, *parts])
        counts = np.bincount(some.kinds)
        due = {place for place in range(len(chosen)) if (self._funnel.judged - 1 - place) % self._every == 0}
        for number, first in enumerate(firsts.tolist()):
            here = (alike == number).nonzero()[0]
            check = Check(*verdicts.of(first))
            seen = self._seen(some, int(chosen[first]), [int(digest[first]) for digest in digests], check)
            numbers = np.sort(some.numbers[chosen[here]])
            for place in due.intersection(here.tolist()):
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


class _Shared:
    """What frames know from each other: clusters, by their size, and L2 tables."""

    def __init__(self, places: Places) -> None:
        self.places = places
        self.l2_tables = L2Tables()
        self._clusters: dict[int, Clusters] = {}

    def clusters(self, frame: Frame) -> Clusters:
        """Return the clusters of a frame."""
        bits = frame.cluster_bits
        if bits not in self._clusters:
            self._clusters[bits] = Clusters(self.places, bits)
        return self._clusters[bits]


class _Some:
    """The states of some fronts of one frame, those that differ in nothing that is read put together.

    numbers   the numbers of all these states; what is said "by place" is about the state at that place of them
    front_of  by place: which of the `fronts` the state is of
    until     by place: which epoch it is of
    kinds     by place: which kind of state it is
    firsts    the place of the first state of each kind
    verdicts  by kind; and `digests` are by L1 table and kind what tells apart what the states hold in it
    """

    def __init__(self, frame: Frame, fronts: Sequence[Front], states: States, shared: _Shared) -> None:
        self.fronts, self.states, self.places = fronts, states, shared.places
        self.numbers = np.concatenate([front.states for front in fronts])
        self.front_of = np.repeat(np.arange(len(fronts)), [len(front.states) for front in fronts])
        self.rows = states.rows[self.numbers]
        self.until = numbered(states.until[self.numbers])[1]
        clusters = shared.clusters(frame)
        tables = FrameTables(frame, self._copied(), self.rows, clusters, shared.l2_tables)
        contents = Contents(tables, frame, self.rows, clusters)
        read = clusters.columns(tables.read_clusters)
        self.firsts, self.kinds = distinct([self.until, self.front_of, *(self.rows[:, column] for column in read)])
        self.verdicts, self.digests = tables.verdicts(self.firsts), contents.digests(self.firsts)

    def _copied(self) -> Copied:
        numbers: dict[bytes, int] = {}
        patterns = [copied_in(front) for front in self.fronts]
        of_front = [numbers.setdefault(pattern.tobytes(), len(numbers)) for pattern in patterns]
        different = [patterns[of_front.index(number)] for number in range(len(numbers))]
        return Copied(different, np.array(of_front, dtype=np.int64)[self.front_of])
