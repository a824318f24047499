"""Bugs planted in the group functions: who is named, who is touched, what is reported. None of them has a row."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from snapcheck.impl.checked import Failure
from snapcheck.impl.driver import Out
from snapcheck.impl.generic import Node
from snapcheck.impl.group import OWNER, Bad, ClassicGroup, ModernGroup, Refusal, Walk, create_from
from snapcheck.impl.perform import Parts
from snapcheck.model.errno import Errno
from snapcheck.model.snapshot import SnapshotInfo
from snapcheck.stateful_tests.seeded_bugs.planting import in_layers


# --- who is named ---------------------------------------------------------------------------------
class _Tells(ClassicGroup):
    """Walks as it should, and leaves in first_bad_bs what `_tell` makes of the culprit (None: there is none)."""

    __slots__ = ()

    def _each(self, call: Walk, first_bad_bs: Bad, *, also: str | None = None) -> Failure | None:
        bad: Bad = Out(None)
        walk = [*self._walk(also)]  # before the call: a device that dies of it is no member any more
        failure = super()._each(call, bad, also=also)
        self._tell(first_bad_bs, bad.value, walk)
        return failure

    def _tell(self, first_bad_bs: Bad, culprit: str | None, walk: Sequence[Node]) -> None:
        raise NotImplementedError


def _beside(culprit: str, walk: Sequence[Node], step: int) -> str:
    """Return who is `step` places behind the culprit, the culprit itself where nobody is."""
    names = [node.name for node in walk]
    place = names.index(culprit) + step
    return names[place] if 0 <= place < len(names) else culprit


class _NamesTheFirst(_Tells):
    """Names the first device of the walk, whichever failed."""

    __slots__ = ()

    def _tell(self, first_bad_bs: Bad, culprit: str | None, walk: Sequence[Node]) -> None:
        first_bad_bs.value = culprit and walk[0].name


class _NamesTheNext(_Tells):
    """Names the device behind the one that failed: the loop has gone on before it looks where it is."""

    __slots__ = ()

    def _tell(self, first_bad_bs: Bad, culprit: str | None, walk: Sequence[Node]) -> None:
        first_bad_bs.value = culprit and _beside(culprit, walk, 1)


class _NamesTheOneBefore(_Tells):
    """Names the last device that went well."""

    __slots__ = ()

    def _tell(self, first_bad_bs: Bad, culprit: str | None, walk: Sequence[Node]) -> None:
        first_bad_bs.value = culprit and _beside(culprit, walk, -1)


class _LeavesTheLast(_Tells):
    """Leaves the device that it looked at last in first_bad_bs when all went well."""

    __slots__ = ()

    def _tell(self, first_bad_bs: Bad, culprit: str | None, walk: Sequence[Node]) -> None:
        first_bad_bs.value = culprit or (walk[-1].name if walk else None)


class _WritesOnSuccessOnly(_Tells):
    """Leaves first_bad_bs alone when a device fails."""

    __slots__ = ()

    def _tell(self, first_bad_bs: Bad, culprit: str | None, walk: Sequence[Node]) -> None:  # noqa: ARG002  # as in _Tells
        if culprit is None:
            first_bad_bs.value = None


class _WritesOnFailureOnly(_Tells):
    """Leaves first_bad_bs alone when all went well."""

    __slots__ = ()

    def _tell(self, first_bad_bs: Bad, culprit: str | None, walk: Sequence[Node]) -> None:  # noqa: ARG002  # as in _Tells
        if culprit is not None:
            first_bad_bs.value = culprit


class _NamesTheChild(_Tells):
    """Names the node below, where the device falls back to one."""

    __slots__ = ()

    def _tell(self, first_bad_bs: Bad, culprit: str | None, walk: Sequence[Node]) -> None:
        children = {node.name: node.child.name for node in walk if node.child is not None}
        first_bad_bs.value = culprit and children.get(culprit, culprit)


class _TextNamesTheFirst(ModernGroup):
    """Puts the first device into the error text, whichever failed."""

    __slots__ = ()

    def _each(
        self, devices: Sequence[str] | None, call: Walk, refused: Callable[[Node, Failure], Refusal], *,
        also: str | None = None,
    ) -> Refusal | None:  # fmt: skip
        return super()._each(devices, call, lambda _, failure: refused(self.roots[0], failure), also=also)


wrong_culprit = in_layers("first_bad_bs names the first device of the walk", Parts(classic_group=_NamesTheFirst))
late_culprit = in_layers("first_bad_bs names the device behind the one that failed", Parts(classic_group=_NamesTheNext))
early_culprit = in_layers("first_bad_bs names the last device that went well", Parts(classic_group=_NamesTheOneBefore))
stale_first_bad = in_layers("first_bad_bs is not NULL on success", Parts(classic_group=_LeavesTheLast))
culprit_not_written = in_layers("first_bad_bs is not written on failure", Parts(classic_group=_WritesOnSuccessOnly))
culprit_not_cleared = in_layers("first_bad_bs is not written on success", Parts(classic_group=_WritesOnFailureOnly))
child_named = in_layers("first_bad_bs names the child, not the root node", Parts(classic_group=_NamesTheChild))
wrong_text = in_layers("the error text names the first device of the walk", Parts(modern_group=_TextNamesTheFirst))


# --- who is touched -------------------------------------------------------------------------------
class _GoesOn(ClassicGroup):
    """Goes on to the devices behind the one that failed, and reports the first failure all the same."""

    __slots__ = ()

    def _each(self, call: Walk, first_bad_bs: Bad, *, also: str | None = None) -> Failure | None:
        walk = [*self._walk(also)]  # before the call: a device that dies of it is no member any more
        failure = super()._each(call, first_bad_bs, also=also)
        if failure is not None:
            culprit = [node.name for node in walk].index(str(first_bad_bs.value))
            for node in walk[culprit + 1 :]:
                node.lock.held(OWNER, call, node)
        return failure


class _SkipsTheLast(ClassicGroup):
    """Leaves the last device out when there are several."""

    __slots__ = ()

    def _walk(self, also: str | None = None) -> Iterator[Node]:
        walk = [*super()._walk(also)]
        return iter(walk[:-1] if len(walk) > 1 else walk)


class _SkipsBehindAnExcluded(ClassicGroup):
    """Where a device is left out, the one behind it is as well: the iterator is moved twice."""

    __slots__ = ()

    def _walk(self, also: str | None = None) -> Iterator[Node]:
        walk = {node.name for node in super()._walk(also)}
        follows = False
        for node in self.roots:
            if node.name in walk and not follows:
                yield node
            follows = node.name not in walk


class _VisitsTheReadOnly(ClassicGroup):
    """Takes read-only devices into the walk."""

    __slots__ = ()

    def _walk(self, also: str | None = None) -> Iterator[Node]:
        return (node for node in self.roots if node.inserted or node.name == also)


class _IgnoresTheList(ModernGroup):
    """Walks over all included devices although a list of them is given."""

    __slots__ = ()

    def _walk(self, devices: Sequence[str] | None, also: str | None = None) -> Iterator[Node] | Refusal:
        walk = super()._walk(devices, also)
        return walk if isinstance(walk, Refusal) else super()._walk(None, also)


innocent_touched = in_layers("a walk goes on after a failure", Parts(classic_group=_GoesOn))
device_skipped = in_layers("the last of several devices is left out", Parts(classic_group=_SkipsTheLast))
neighbour_skipped = in_layers(
    "behind a device that is left out, another is", Parts(classic_group=_SkipsBehindAnExcluded)
)
excluded_touched = in_layers("read-only devices are visited too", Parts(classic_group=_VisitsTheReadOnly))
list_ignored = in_layers("a list of devices is not heeded", Parts(modern_group=_IgnoresTheList))


# --- locks ----------------------------------------------------------------------------------------
class _KeepsTheLock(ClassicGroup):
    """Leaves the function on an error before the device's AioContext is given back (B59, 2a9170bcd4)."""

    __slots__ = ()

    def _each(self, call: Walk, first_bad_bs: Bad, *, also: str | None = None) -> Failure | None:
        for node in self._walk(also):
            node.lock.acquire(OWNER)
            failure = call(node)
            if failure is not None:
                first_bad_bs.value = node.name
                return failure
            node.lock.release(OWNER)
        first_bad_bs.value = None
        return None


class _TakesNoLock(ClassicGroup):
    """Calls each device without its AioContext."""

    __slots__ = ()

    def _each(self, call: Walk, first_bad_bs: Bad, *, also: str | None = None) -> Failure | None:
        for node in self._walk(also):
            failure = call(node)
            if failure is not None:
                first_bad_bs.value = node.name
                return failure
        first_bad_bs.value = None
        return None


lock_kept = in_layers("an AioContext is not released on the error path", Parts(classic_group=_KeepsTheLock))
lock_not_taken = in_layers("devices are called without their AioContext", Parts(classic_group=_TakesNoLock))


# --- what is reported -----------------------------------------------------------------------------
class _PartialIsSuccess(ClassicGroup):
    """Reports success when a device fails after others have got their snapshot."""

    __slots__ = ()

    def all_create_snapshot(
        self, sn: Out[SnapshotInfo], vm_state_bs: str | None, vm_state_size: int, first_bad_bs: Bad
    ) -> Failure | None:
        failure = super().all_create_snapshot(sn, vm_state_bs, vm_state_size, first_bad_bs)
        if failure is None or first_bad_bs.value == next(self._walk(vm_state_bs)).name:
            return failure
        first_bad_bs.value = None
        return None


class _SwallowsErrors(ClassicGroup):
    """Stops at a delete that fails, and reports success."""

    __slots__ = ()

    def all_delete_snapshot(self, name: str, first_bad_bs: Bad) -> Failure | None:
        super().all_delete_snapshot(name, first_bad_bs)
        first_bad_bs.value = None
        return None


class _ChangesTheErrno(ClassicGroup):
    """Reports EIO whatever a device answered."""

    __slots__ = ()

    def _each(self, call: Walk, first_bad_bs: Bad, *, also: str | None = None) -> Failure | None:
        failure = super()._each(call, first_bad_bs, also=also)
        return failure and Failure(Errno.EIO, failure.message)


class _GoesOnWithoutIt(ClassicGroup):
    """Takes a device that has no such snapshot for one that went back to it."""

    __slots__ = ()

    def all_goto_snapshot(self, name: str, first_bad_bs: Bad) -> Failure | None:
        def goto(node: Node) -> Failure | None:
            failure = node.snapshot_goto(name)
            return None if failure is not None and failure.errno is Errno.ENOENT else failure

        return self._each(goto, first_bad_bs)


class _FindsItAnywhere(ClassicGroup):
    """Is content when one device has the snapshot."""

    __slots__ = ()

    def all_find_snapshot(self, name: str, first_bad_bs: Bad) -> Failure | None:
        failure = super().all_find_snapshot(name, first_bad_bs)
        found = [node.lock.held(OWNER, node.snapshot_find, Out(SnapshotInfo()), name) for node in self._walk()]
        if None not in found:
            return failure
        first_bad_bs.value = None
        return None


partial_success = in_layers("a group create that failed half way is success", Parts(classic_group=_PartialIsSuccess))
error_swallowed = in_layers("a group delete that failed is success", Parts(classic_group=_SwallowsErrors))
errno_changed = in_layers("every error becomes EIO", Parts(classic_group=_ChangesTheErrno))
missing_reverted = in_layers("a device without the snapshot counts as reverted", Parts(classic_group=_GoesOnWithoutIt))
found_anywhere = in_layers("a snapshot of one device counts as found on all", Parts(classic_group=_FindsItAnywhere))


# --- the struct that the devices share ------------------------------------------------------------
class _ClobbersSn(ClassicGroup):
    """Leaves the caller's struct empty when it is done."""

    __slots__ = ()

    def all_create_snapshot(
        self, sn: Out[SnapshotInfo], vm_state_bs: str | None, vm_state_size: int, first_bad_bs: Bad
    ) -> Failure | None:
        failure = super().all_create_snapshot(sn, vm_state_bs, vm_state_size, first_bad_bs)
        sn.value = SnapshotInfo()
        return failure


class _OneIdForAll(ClassicGroup):
    """Deletes on every device by the id that the first one gave the snapshot: ids differ from device to device."""

    __slots__ = ()

    def all_delete_snapshot(self, name: str, first_bad_bs: Bad) -> Failure | None:
        found = Out(SnapshotInfo())

        def delete(node: Node) -> Failure | None:
            if not found.value.id_str and node.snapshot_find(found, name) is not None:
                return None
            return node.snapshot_delete(found.value.id_str, None)

        return self._each(delete, first_bad_bs)


class _StateOnTheLast(ClassicGroup):
    """Gives the VM state size to the last device instead of vm_state_bs."""

    __slots__ = ()

    def all_create_snapshot(
        self, sn: Out[SnapshotInfo], vm_state_bs: str | None, vm_state_size: int, first_bad_bs: Bad
    ) -> Failure | None:
        last = None if vm_state_bs is None else [*self._walk(vm_state_bs)][-1].name
        return super().all_create_snapshot(sn, last, vm_state_size, first_bad_bs)


class _StateOnAll(ClassicGroup):
    """Does not take the VM state size back after vm_state_bs: all devices behind it get it too."""

    __slots__ = ()

    def all_create_snapshot(
        self, sn: Out[SnapshotInfo], vm_state_bs: str | None, vm_state_size: int, first_bad_bs: Bad
    ) -> Failure | None:
        sn.value = replace(sn.value, vm_state_size=0)

        def create(node: Node) -> Failure | None:
            return create_from(sn, node, vm_state_size if node.name == vm_state_bs else sn.value.vm_state_size)

        return self._each(create, first_bad_bs, also=vm_state_bs)


sn_clobbered = in_layers("the caller's sn is emptied", Parts(classic_group=_ClobbersSn))
one_id_for_all = in_layers("all devices delete by the id of the first", Parts(classic_group=_OneIdForAll))
vmstate_on_wrong = in_layers("the VM state is put down to another device", Parts(classic_group=_StateOnTheLast))
vmstate_on_several = in_layers("the VM state is put down to several devices", Parts(classic_group=_StateOnAll))
