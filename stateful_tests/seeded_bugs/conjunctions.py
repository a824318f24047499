"""Bugs that need several things at once: three operations, two faults, or a state that is seldom brought about.

All but those that name a row were thought up: what an author could overlook, and a review with him.
"""

from functools import partial

from snapcheck.impl.blockfile import BlockError
from snapcheck.impl.callers import ModernCalls
from snapcheck.impl.checked import CrashError
from snapcheck.impl.driver import Out
from snapcheck.impl.generic import Node
from snapcheck.impl.group import OWNER, Refusal
from snapcheck.impl.perform import Parts
from snapcheck.impl.qcow2 import snapshots
from snapcheck.impl.qcow2.host import Host, StoreError, Words
from snapcheck.impl.qcow2.image import Image
from snapcheck.impl.qcow2.layout import Header, SnapshotEntry
from snapcheck.impl.qcow2.refcounts import Clusters, Refcounts
from snapcheck.impl.qcow2.state import Parts as EngineParts
from snapcheck.impl.qcow2.state import SnapshotTable, State
from snapcheck.impl.qcow2.tables import without_copied
from snapcheck.impl.transaction import Action, run_transaction
from snapcheck.model.snapshot import SnapshotInfo
from snapcheck.stateful_tests.seeded_bugs.planting import Insider, in_engine, in_layers


# --- several snapshots ----------------------------------------------------------------------------
class _FillsTheGap(Insider):
    """Moves the last entry to where the deleted one was, and not all that were behind it."""

    __slots__ = ()

    def snapshot_delete(self, snapshot_id: str | None, name: str | None) -> None:
        self._image.require_alive()
        entries = self._state.snapshot_table.entries
        before, at = entries[:], snapshots.find(self._state, snapshot_id, name)
        entries.insert(at + 1, entries.pop())
        try:
            super().snapshot_delete(snapshot_id, name)
        finally:
            entries[:] = before  # the list that a delete which went well has replaced


class _SkipsWhatIsEqual(Insider):
    """Has nothing to do when the active L1 table is that of the snapshot: the size may be another one all the same."""

    __slots__ = ()

    def snapshot_goto(self, snapshot_id: str) -> None:
        self._image.require_alive()
        state = self._state
        held = state.snapshot_l1(snapshots.find_by_id_or_name(state, snapshot_id))
        if without_copied(held) != without_copied(state.tables.l1):
            super().snapshot_goto(snapshot_id)


class _ReadsAsMuchAsIsActive(State):
    """Reads a snapshot's L1 table into a buffer of the length of the active one, which may be shorter by now."""

    __slots__ = ()

    def snapshot_l1(self, entry: SnapshotEntry) -> Words:
        return super().snapshot_l1(entry)[: self.header.l1_size]


class _KeepsTheTail(State):
    """Copies a snapshot's L1 table over the active one, which may have grown since: what is behind it stays."""

    __slots__ = ("over_active",)

    over_active: bool

    def snapshot_l1(self, entry: SnapshotEntry) -> Words:
        l1 = super().snapshot_l1(entry)
        return l1 + self.tables.l1[len(l1) :] if getattr(self, "over_active", False) else l1


class _CopiesOver(Insider):
    """Goes back by copying the table over the active one."""

    __slots__ = ()

    def snapshot_goto(self, snapshot_id: str) -> None:
        state = self._state
        assert isinstance(state, _KeepsTheTail)
        state.over_active = True
        try:
            super().snapshot_goto(snapshot_id)
        finally:
            state.over_active = False
        state.release(copied_stale=True)


class _RemembersWhereStateBegins(Image):
    """Works out where VM state begins when the image is opened or resized, but not when goto brings a size back."""

    __slots__ = ("_vm_state_index",)

    def resize(self, size_bytes: int) -> None:
        super().resize(size_bytes)
        self._vm_state_index = self._state.header.vm_state_index

    def _vmstate_start(self, offset: int, length: int) -> int:
        header = self._state.header
        index: int = getattr(self, "_vm_state_index", header.vm_state_index)
        self._vm_state_index = index
        return super()._vmstate_start(offset, length) + (index - header.vm_state_index) * header.l2_span


last_moved_up = in_engine("delete moves the last entry into the gap", driver=_FillsTheGap)
equal_skipped = in_engine("goto does nothing where L1 is equal, whatever the size", driver=_SkipsWhatIsEqual)
read_too_short = in_engine("a snapshot's L1 is read up to the active one's length", state=_ReadsAsMuchAsIsActive)
tail_kept = in_engine("goto keeps L1 entries behind those of the snapshot", driver=_CopiesOver, state=_KeepsTheTail)
state_misplaced = in_engine("goto to another size leaves VM state's place", image=_RemembersWhereStateBegins)


# --- what a failure leaves ------------------------------------------------------------------------
class _ComesBack(Refcounts):
    """Looks for room once: who fails and tries again gets the same place, whoever has taken it since."""

    __slots__ = ("room",)

    room: tuple[int, int]  # how many clusters were wanted, and the first of those that were found

    def find(self, count: int) -> int:
        wanted, first = getattr(self, "room", (0, 0))
        if wanted != count:
            first = super().find(count)
        self.room = (count, first)
        return first


class _KeepsTheRoom(State):
    """Gives the room up only when something was built there."""

    __slots__ = ()

    def publish(self, new: Header, fields: tuple[int, int], *, snapshots: SnapshotTable | None = None) -> None:
        super().publish(new, fields, snapshots=snapshots)
        assert isinstance(self.refcounts, _ComesBack)
        self.refcounts.room = (0, 0)


class _LivesOn(Host):
    """Goes on when the header can be neither written nor put back: the disk may have the new one."""

    __slots__ = ()

    def publish(self, start: int, new: bytes, old: bytes) -> None:
        try:
            super().publish(start, new, old)
        except BlockError:
            self._dead = None
            raise


class _Unseen(Refcounts):
    """Takes back a raise whose end nobody saw at once, and again when the block can be read."""

    __slots__ = ()

    def raise_(self, clusters: Clusters) -> None:
        try:
            super().raise_(clusters)
        except StoreError as error:
            if error.words is None:
                self.owe(clusters)
            raise


class _BothEnds(Refcounts):
    """Takes clusters for free when the first and the last of them are."""

    __slots__ = ()

    def find(self, count: int) -> int:
        first = self._next_free(self._hint)
        if count > 1 and first is not None and self._is_free(first + count - 1):
            return first
        return super().find(count)


place_kept = in_engine(
    "a create that is tried again goes where the first one failed", state=_KeepsTheRoom,
    parts=EngineParts(refcounts=_ComesBack),
)  # fmt: skip
lives_on = in_engine("a header that can not be put back is taken for the old one", parts=EngineParts(host=_LivesOn))
taken_back_twice = in_engine("a raise that failed unseen is undone twice", parts=EngineParts(refcounts=_Unseen))
ends_looked_at = in_engine("of free clusters the ends are looked at", parts=EngineParts(refcounts=_BothEnds))


# --- several devices ------------------------------------------------------------------------------
class _SetsTheErrorTwice(ModernCalls):
    """Hands the rollback of a create the error that is set already; when it fails too, that is an assertion."""

    __slots__ = ()

    def create(self, sn: Out[SnapshotInfo], vmstate_bs: Node, vm_state_size: int) -> Refusal | None:
        refusal = self._group.all_create_snapshot(sn, vmstate_bs.name, vm_state_size, None)
        if refusal is not None and self._group.all_delete_snapshot(sn.value.name, None) is not None:
            raise CrashError("an error is set that was set before")
        return refusal


class _AbortsByName(Action):
    """Deletes what it created by its name, which is stored cut: an older snapshot may be called that on this device."""

    __slots__ = ()

    def abort(self) -> None:
        if self._created:
            self._node.lock.held(OWNER, self._node.snapshot_delete, None, self._sn.value.name)


error_set_twice = in_layers("savevm's rollback fails and sets the error again", Parts(modern_calls=_SetsTheErrorTwice))
aborted_by_name = in_layers(
    "a transaction is undone by name", Parts(transaction=partial(run_transaction, kind=_AbortsByName))
)
