"""What is always to hold of every transition, and what has to be seen sometimes, when the model is explored.

The model itself is under test here: its rules are held against the laws, said once more and in another way. What
always holds is a matter of one device at a time, so it is looked for when the tables are made, and the exploration
finds the shortest way to where it breaks. A model in which nothing interesting is reached says nothing, and that is
what `SOMETIMES` is for.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from snapcheck.model.device import Device, Image, Snapshot
from snapcheck.model.law_names import Law
from snapcheck.model.operations import (
    AllCreate,
    AllDelete,
    AllFind,
    AllFindVmstateBs,
    AllGoto,
    Create,
    Delete,
    Find,
    Goto,
    Write,
    WriteZeroes,
)
from snapcheck.model.scope import Act
from snapcheck.model.snapshot import SnapshotInfo


class Visit(NamedTuple):
    """What an act did to one device: the state `after`, whether the walk `stops` here, and the calls that failed.

    `shared` is the struct that the calls of a walk write, as it is afterwards.
    """

    after: Device
    stops: bool
    failed: tuple[str, ...]
    shared: SnapshotInfo = SnapshotInfo()


class Broken(NamedTuple):
    """Something that is always to hold, and does not."""

    law: Law
    words: str


# The laws that are held against the model.
ALWAYS: Final = (
    Law.LIST_EXACT, Law.SNAPSHOT_IMMUTABLE, Law.ERROR_MEANS_UNCHANGED, Law.SUCCESS_MEANS_DONE, Law.RIGHT_CULPRIT,
    Law.STOPS_AT_FIRST, Law.PREFIX_APPLIED, Law.OUT_PARAMS,
)  # fmt: skip


# --- always ---------------------------------------------------------------------------------------
def broken_at(act: Act, refused: str, before: Device, visit: Visit) -> Iterator[Broken]:
    """Yield what an act on a device breaks, where the call `refused` was refused."""
    assert before.image is not None, "a device of a scope has an image"
    assert visit.after.image is not None, "a device of a scope has an image"
    old, new = before.image, visit.after.image
    yield from _immutable(old, new)
    yield from _ids(old, new)
    if act.kind is AllFindVmstateBs:
        return
    at_fault = tuple(call for call in visit.failed if (act.kind, call) != (AllDelete, "find"))
    yield from _stops_where_it_fails(act, visit, at_fault)
    if at_fault:
        if old != new:
            yield Broken(Law.ERROR_MEANS_UNCHANGED, f"{act.words} failed and changed the device")
    elif not (act.kind is AllDelete and refused == "find"):  # W-08: a device whose list fails is skipped
        yield from _effect(act, old, new)


def _immutable(old: Image, new: Image) -> Iterator[Broken]:
    """Nothing that happens changes what a snapshot holds, nor the order of those that stay."""
    ids = [each.info.id_str for each in new.snapshots]
    stays = [each for each in old.snapshots if each.info.id_str in ids]
    for each in stays:
        if each not in new.snapshots:
            yield Broken(Law.SNAPSHOT_IMMUTABLE, f"snapshot {each.info.name} is another one afterwards")
    before = [each.info.id_str for each in stays]
    if [each for each in ids if each in before] != before:
        yield Broken(Law.LIST_EXACT, "the snapshots that stay are in another order")


def _ids(old: Image, new: Image) -> Iterator[Broken]:
    """Ids are unique, and a new one is larger than all before it (B.2)."""
    ids = [int(each.info.id_str) for each in new.snapshots]
    before = [int(each.info.id_str) for each in old.snapshots]
    if len(set(ids)) != len(ids):
        yield Broken(Law.LIST_EXACT, "two snapshots have one id")
    fresh = [each for each in ids if each not in before]
    if len(ids) > len(before) and (len(fresh) != 1 or fresh[0] <= max(before, default=0)):
        yield Broken(Law.LIST_EXACT, "a new snapshot has an id that is not the largest")


def _stops_where_it_fails(act: Act, visit: Visit, at_fault: tuple[str, ...]) -> Iterator[Broken]:
    if at_fault and not visit.stops:
        yield Broken(Law.STOPS_AT_FIRST, f"{act.words} goes on after {at_fault[0]} has failed")
    if visit.stops and not at_fault:
        yield Broken(Law.RIGHT_CULPRIT, f"{act.words} stops at a device where no call failed")


def _effect(act: Act, old: Image, new: Image) -> Iterator[Broken]:
    """Success means the effect: of a group operation on every device that it went by."""
    if not _took_effect(act, old, new):
        group = act.kind in {AllFind, AllCreate, AllGoto, AllDelete}
        law = Law.PREFIX_APPLIED if group else Law.SUCCESS_MEANS_DONE
        yield Broken(law, f"{act.words} succeeded without its effect")


def _took_effect(act: Act, old: Image, new: Image) -> bool:
    if act.kind in {Write, WriteZeroes}:
        return set(new.content.tags) == {act.value} and new.snapshots == old.snapshots
    if act.kind in {Create, AllCreate}:
        created = new.snapshots[-1] if new.snapshots else None
        return (
            created is not None
            and (created.info.name, created.content) == (act.name, old.content)
            and (new.snapshots[:-1], new.content) == (old.snapshots, old.content)
        )
    meant = meant_by(act, old)
    if act.kind in {Goto, AllGoto}:
        return meant is not None and (new.content, new.snapshots) == (meant.content, old.snapshots)
    if act.kind in {Delete, AllDelete}:
        left = tuple(each for each in old.snapshots if each is not meant)
        absent = meant is None and act.kind is Delete  # nobody has to have it but who is asked alone
        return not absent and (new.content, new.snapshots) == (old.content, left)
    return new == old and (act.kind not in {Find, AllFind} or meant is not None)


def meant_by(act: Act, image: Image) -> Snapshot | None:
    """Return the snapshot that an act speaks of: the one with the id of that rank, or the first of that name."""
    if act.rank:
        ranked = sorted(image.snapshots, key=lambda each: int(each.info.id_str))
        return ranked[act.rank - 1] if act.rank <= len(ranked) else None
    return next((each for each in image.snapshots if each.info.name == act.name), None)
