"""One device in small: all states that it can be in, and what each act does to each of them, as tables of numbers.

The reference semantics themselves are asked, for each state, act and outcome; so the tables change when a rule of
semantics.py does. Ids are told apart by their rank alone: what an operation does depends on no more of them as long as
no name is a number, and so histories that only differ in which ids were used up lead to one state. That this is so is
looked at: a device with gaps in its ids is asked as well, and one that a walk comes to with what the device before it
wrote into the struct that they share. It has to be the same in small.

An injected failure is a call of the driver that is refused (model/faults.py, CallFault): nothing of it is done.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from snapcheck.model.device import Device
from snapcheck.model.errno import Errno
from snapcheck.model.faults import CALLS as REFUSABLE
from snapcheck.model.group import CALLS, WALK_OF, Ask, Then, Walk
from snapcheck.model.law_names import Law
from snapcheck.model.properties import Broken, Visit, broken_at
from snapcheck.model.replies import Blow, Replies, Reply
from snapcheck.model.scope import CALL_OF, SECTORS, Act, Scope
from snapcheck.model.semantics import LOCAL, new_device
from snapcheck.model.setup import DeviceSpec
from snapcheck.model.snapshot import SnapshotInfo

NODE: Final = "d"  # what the device is called here
DEVICE_STATES_MAX: Final = 4096  # asking the semantics takes a millisecond for each
_LEFT_BEHIND: Final = SnapshotInfo("9999", "")  # no device of a scope gives that id
NOWHERE: Final = -1  # the state that an act leads to when that is out of scope

Numbers = NDArray[np.intp]
Flags = NDArray[np.bool_]
_REFUSED: Final[Mapping[str, Blow]] = {
    function: Blow({function: frozenset({Errno.EIO})}, frozenset()) for function in REFUSABLE
}


class Table(NamedTuple):
    """What an act does to a device, by the number of the device's state.

    there    it can be done: there is an id of that rank; an injected failure: the call that is refused is made
    after    the state afterwards; the same one where it is not there, NOWHERE where it leads out of the scope
    leaves   it leads out of the scope
    stops    the walk of a group operation ends here; on one device: it failed
    broken   what is always to hold does not
    """

    there: Flags
    after: Numbers
    leaves: Flags
    stops: Flags
    broken: Flags


class Both(NamedTuple):
    """An act when nothing fails, and by function when that call of the driver is refused."""

    plain: Table
    refused: Mapping[str, Table]

    @property
    def all(self) -> tuple[Table, ...]:
        return (self.plain, *self.refused.values())


class Tables:
    """The states of one device by number, the first one the start; `local` and `group` say what acts do to them.

    `reasons` tells what is broken, by act, refused call and number of the state; empty when all is well.
    """

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.reasons: dict[tuple[Act, str, int], tuple[Broken, ...]] = {}
        self._numbers: dict[Device, int] = {}
        self.states: list[Device] = []
        self._number(new_device(DeviceSpec(NODE, sectors=SECTORS)))
        local, group = scope.acts(), scope.group_acts()
        calls = {act: _refusable(act) if scope.refusals else () for act in (*local, *group)}
        rows: dict[tuple[Act, str], list[_Row]] = {(act, call): [] for act in calls for call in ("", *calls[act])}
        for number, device in enumerate(self.states):  # it grows meanwhile
            for (act, function), row in rows.items():
                row.append(self._row(act, function, number, device))
        built = {each: _table(row) for each, row in rows.items()}
        both = {act: Both(built[act, ""], {call: built[act, call] for call in calls[act]}) for act in calls}
        self.local: Final = {act: both[act] for act in local}
        self.group: Final = {act: both[act] for act in group}

    def number_of(self, device: Device) -> int:
        """Return the number of the state that `device` is in, whatever its name and its ids; NOWHERE if it has none."""
        return self._numbers.get(_in_small(device), NOWHERE)

    def _number(self, device: Device) -> int:
        small = _in_small(device)
        if not self.scope.holds(small):
            return NOWHERE
        if small not in self._numbers:
            self._numbers[small] = len(self.states)
            self.states.append(small)
        return self._numbers[small]

    def _row(self, act: Act, function: str, number: int, device: Device) -> "_Row":
        visit = visited(act, device, function)
        if visit is None:
            return _Row(there=False, after=number, stops=False, broken=False)
        broken = tuple(dict.fromkeys(_all_broken(act, function, device, visit)))
        if broken:
            self.reasons[act, function, number] = broken
        return _Row(there=True, after=self._number(visit.after), stops=visit.stops, broken=bool(broken))


class _Row(NamedTuple):
    there: bool
    after: int
    stops: bool
    broken: bool


def _table(rows: Sequence[_Row]) -> Table:
    after = np.array([row.after for row in rows], dtype=np.intp)
    return Table(
        np.array([row.there for row in rows]), after, after == NOWHERE, np.array([row.stops for row in rows]),
        np.array([row.broken for row in rows]),
    )  # fmt: skip


def _refusable(act: Act) -> tuple[str, ...]:
    """Return the calls of the driver that an act may make."""
    walk = WALK_OF.get(act.kind)
    if walk is None:
        return (CALL_OF[act.kind],) if act.kind in CALL_OF else ()
    return tuple(call.function for call in walk if call.function in REFUSABLE)


def _in_small(device: Device) -> Device:
    """Return `device` by the name that it has here, with the rank of each id in its place."""
    assert device.image is not None, "a device of a scope has an image"
    ranks = {
        each: str(rank)
        for rank, each in enumerate(sorted((each.info.id_str for each in device.image.snapshots), key=int), 1)
    }
    snapshots = tuple(
        each._replace(info=SnapshotInfo(ranks[each.info.id_str], each.info.name)) for each in device.image.snapshots
    )
    return device._replace(spec=DeviceSpec(NODE, sectors=SECTORS), image=device.image._replace(snapshots=snapshots))


def _all_broken(act: Act, refused: str, device: Device, visit: Visit) -> Iterator[Broken]:
    """Yield what an act breaks on a device, on one like it with gaps in its ids, and behind another one in a walk."""
    known = tuple(broken_at(act, refused, device, visit))
    yield from known
    gaps = _with_gaps(device)
    asked = visited(act, gaps, refused)
    for broken in () if asked is None else broken_at(act, refused, gaps, asked):
        if broken not in known:
            yield Broken(broken.law, f"{broken.words}, where the ids have gaps")
    if not _alike(asked, visit):
        yield Broken(Law.LIST_EXACT, f"{act.words} depends on more of the ids than their order")
    if act.kind in WALK_OF and not _same(visited(act, device, refused, shared=_LEFT_BEHIND), visit):
        yield Broken(Law.PREFIX_APPLIED, f"{act.words} depends on the struct that another device has written")


def _with_gaps(device: Device) -> Device:
    """Return `device` with ids that are twice as large."""
    assert device.image is not None, "a device of a scope has an image"
    spread = tuple(
        each._replace(info=SnapshotInfo(str(2 * int(each.info.id_str)), each.info.name))
        for each in device.image.snapshots
    )
    return device._replace(image=device.image._replace(snapshots=spread))


def _alike(one: Visit | None, other: Visit) -> bool:
    """Tell whether two visits are the same but for the ids."""
    return one is not None and _same(
        one._replace(after=_in_small(one.after)), other._replace(after=_in_small(other.after))
    )


def _same(one: Visit | None, other: Visit) -> bool:
    return one is not None and one[:3] == other[:3]


# --- asking the semantics -------------------------------------------------------------------------
def visited(act: Act, device: Device, refused: str = "", shared: SnapshotInfo | None = None) -> Visit | None:
    """Return what comes of an act on a device where the call `refused` is refused; None where it can not be done.

    `shared` is what the device before it in a walk left in the struct that all of them write; None for the first.
    """
    walk = WALK_OF.get(act.kind)
    return _alone(act, device, refused) if walk is None else _walked(walk, act, device, refused, shared)


def _alone(act: Act, device: Device, refused: str) -> Visit | None:
    operation = act.on(device, NODE)
    if operation is None:
        return None
    reply = _the_one(LOCAL[act.kind](device, operation, _REFUSED.get(refused)), refused=bool(refused))
    failed = (CALL_OF.get(act.kind, ""),) if reply.failed else ()
    return Visit(_left(reply, device), reply.failed, failed)


def _walked(walk: Walk, act: Act, device: Device, refused: str, shared: SnapshotInfo | None) -> Visit | None:
    """Make the calls of a walk on one device, as group.py does on all of them under any faults."""
    sn = SnapshotInfo("", act.name) if shared is None else replace(shared, name=act.name)
    state, ask, made, failed = device, Ask(act.name, sn), not refused, list[str]()
    for call in walk:
        struck = call.function == refused
        made = made or struck
        replies = CALLS[call.function](state, NODE, ask, _REFUSED[refused] if struck else None)
        reply = _the_one(replies, refused=struck)
        state = _left(reply, state)
        failed += [call.function] * reply.failed
        then = call.on_failure if reply.failed else call.on_success
        if then is not Then.GO_ON:
            return Visit(state, then is Then.STOP, tuple(failed), ask.sn) if made else None
        if reply.expected.sn and not reply.failed:
            ask = ask._replace(sn=reply.expected.sn[0])
    return Visit(state, stops=False, failed=tuple(failed), shared=ask.sn) if made else None


def _the_one(replies: Replies, *, refused: bool) -> Reply:
    """Return the reply that reports the refusal, or without one the only reply that there is."""
    (reply,) = [each for each in replies if each.failed] if refused else replies
    return reply


def _left(reply: Reply, before: Device) -> Device:
    if not reply.states:
        return before
    (allowed,) = reply.states
    return allowed.state
