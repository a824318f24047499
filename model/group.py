"""Several devices: the bdrv_all_* functions as data, and the one walk that executes them (SPEC A.10, A.11).

A `Walk` says which calls a function makes on each node in turn, and what it makes of each outcome: go on, skip the
node, or stop. The node that it stops at is first_bad_bs (for find-vmstate-bs: the answer). Under faults a call may have
several outcomes. Then the walk may stop at each node that may fail, and the nodes before it are in any of the states
in which it goes on: a set for each device, never a product of them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Final, NamedTuple

from snapcheck.model.device import ANY_ERROR, Allowed, Device, Expected, Outcome, World
from snapcheck.model.facts import root_of
from snapcheck.model.operations import (
    AllCanSnapshot,
    AllCreate,
    AllDelete,
    AllFind,
    AllFindVmstateBs,
    AllGoto,
    Operation,
)
from snapcheck.model.replies import WRECK, Blow, Replies, Reply
from snapcheck.model.semantics import FALLS_BACK, can_snapshot, create, delete, find, goto, in_struct
from snapcheck.model.setup import Semantics
from snapcheck.model.snapshot import SnapshotInfo

States = Mapping[str, tuple[Allowed, ...]]  # what each device that was touched may be
Struck = Mapping[str, Blow]  # what the faults of the step let each device do
Outcomes = tuple[Outcome, ...]


# --- the functions as data (SPEC A.10) ------------------------------------------------------------
class Then(Enum):
    """What a walk makes of the outcome of one call."""

    GO_ON = "go on"  # to the next call on this node, and after the last one to the next node
    SKIP = "skip"  # to the next node
    STOP = "stop"  # the function returns


class Call(NamedTuple):
    """A call that a walk makes on a node, and what it does next."""

    function: str
    on_success: Then
    on_failure: Then


Walk = tuple[Call, ...]

ALL_CAN: Final[Walk] = (Call("can", Then.GO_ON, Then.STOP),)
ALL_FIND: Final[Walk] = (Call("find", Then.GO_ON, Then.STOP),)
ALL_CREATE: Final[Walk] = (Call("create", Then.GO_ON, Then.STOP),)
ALL_GOTO: Final[Walk] = (Call("goto", Then.GO_ON, Then.STOP),)
ALL_DELETE: Final[Walk] = (Call("find", Then.GO_ON, Then.SKIP), Call("delete", Then.GO_ON, Then.STOP))
FIND_VMSTATE_BS: Final[Walk] = (Call("can", Then.STOP, Then.SKIP),)

# What each function walks; the exploration of the model (tables.py) executes the same.
WALK_OF: Final[Mapping[type[Operation], Walk]] = {
    AllCanSnapshot: ALL_CAN, AllFind: ALL_FIND, AllCreate: ALL_CREATE, AllGoto: ALL_GOTO, AllDelete: ALL_DELETE,
    AllFindVmstateBs: FIND_VMSTATE_BS,
}  # fmt: skip


class Ask(NamedTuple):
    """What a group function was given; `sn` is the struct that its calls share, find and create write it (A.10.5)."""

    name: str = ""
    sn: SnapshotInfo = SnapshotInfo()
    vmstate_node: str | None = None
    vm_state_size: int = 0


def _can(device: Device, _node: str, _ask: Ask, _blow: Blow | None) -> Replies:
    return _YES if can_snapshot(device) else _NO


def _find(device: Device, _node: str, ask: Ask, blow: Blow | None) -> Replies:
    return find(device, ask.name, blow)


def _create(device: Device, node: str, ask: Ask, blow: Blow | None) -> Replies:
    size = ask.vm_state_size if node == ask.vmstate_node else 0
    return create(device, _sized(ask.sn, size), blow)


def _goto(device: Device, node: str, ask: Ask, blow: Blow | None) -> Replies:
    return goto(device, node, ask.name, blow)


def _delete(device: Device, _node: str, ask: Ask, blow: Blow | None) -> Replies:
    return delete(device, ask.sn.id_str, ask.sn.name, blow)


CALLS: Final[Mapping[str, Callable[[Device, str, Ask, Blow | None], Replies]]] = {
    "can": _can, "find": _find, "create": _create, "goto": _goto, "delete": _delete,
}  # fmt: skip
_YES: Final = (Reply(Expected(answer=True)),)
_NO: Final = (Reply(Expected(answer=False)),)
_ANYTHING: Final = (Reply(Expected()), Reply(Expected(ANY_ERROR)))


def _sized(sn: SnapshotInfo, size: int) -> SnapshotInfo:
    if sn.vm_state_size == size:
        return sn
    return SnapshotInfo(sn.id_str, sn.name, size, sn.date_sec, sn.date_nsec, sn.vm_clock_nsec)


# --- the walk -------------------------------------------------------------------------------------
class Stage(NamedTuple):
    """The devices before the step, and what the faults of the step let each of them do."""

    world: World
    struck: Struck

    @property
    def modern(self) -> bool:
        return self.world.semantics is Semantics.MODERN

    def blow(self, name: str) -> Blow | None:
        """Return what faults let a device do; a damaged one may do anything."""
        return WRECK if self.world.devices[name].damaged else self.struck.get(name)


class Ending(NamedTuple):
    """A way in which a walk may end: at a `node` whose call answered `expected`, or at nobody's, having seen them all.

    `states` are the devices that differ from before the step, `structs` what the shared `sn` may hold.
    """

    node: str | None
    expected: Expected
    states: States
    structs: tuple[SnapshotInfo, ...]


def walk(stage: Stage, states: States, calls: Walk, nodes: Sequence[str], ask: Ask) -> Iterator[Ending]:
    """Yield the ways in which a group function may end; at most one of them stops at nobody, and it comes last."""
    passed: States = states
    asks: tuple[Ask, ...] = (ask,)
    for node in nodes:
        name = root_of(node)
        device = stage.world.devices[name]
        visit = _Visit(node, stage.blow(name))
        visit.make(calls, passed.get(name) or (Allowed(device),), asks)
        for expected, left in visit.answers():
            yield Ending(node, expected, _put(passed, name, left, device), expected.sn or ())
        if not visit.passes:
            return
        passed = _put(passed, name, tuple(allowed for allowed, _ in visit.passes), device)
        asks = tuple(dict.fromkeys(ask for _, ask in visit.passes)) if len(visit.passes) > 1 else (visit.passes[0][1],)
    yield Ending(None, Expected(), passed, tuple(held for ask in asks for held in in_struct(ask.sn)))


class _Visit:
    """The calls on one node: where the walk `stops`, and with which states and `sn` it `passes` on to the next node."""

    __slots__ = ("blow", "node", "passes", "stops")

    def __init__(self, node: str, blow: Blow | None) -> None:
        self.node = node
        self.blow = blow
        self.stops: list[tuple[Expected, tuple[Allowed, ...]]] = []
        self.passes: list[tuple[Allowed, Ask]] = []

    def make(self, calls: Walk, before: Sequence[Allowed], asks: Sequence[Ask]) -> None:
        """Make the calls on a device that is in one of the states `before`."""
        going = [(allowed, ask) for allowed in before for ask in asks]
        for call in calls:
            going = [passed for allowed, ask in going for passed in self._call(call, allowed, ask)]
        self.passes += going

    def _call(self, call: Call, allowed: Allowed, ask: Ask) -> list[tuple[Allowed, Ask]]:
        """Make one call; note where it stops or skips, and return how it goes on."""
        going: list[tuple[Allowed, Ask]] = []
        replies = _ANYTHING if self.blow is WRECK else CALLS[call.function](allowed.state, self.node, ask, self.blow)
        for reply in replies:
            left = reply.states or (allowed,)
            then = call.on_failure if reply.failed else call.on_success
            if then is Then.STOP:
                self.stops.append((reply.expected, left))
                continue
            structs = reply.expected.sn
            told = ask._replace(sn=structs[0]) if structs and not reply.failed else ask
            (going if then is Then.GO_ON else self.passes).extend((state, told) for state in left)
        return going

    def answers(self) -> list[tuple[Expected, tuple[Allowed, ...]]]:
        """Return the answers at which the walk stops, each once, with the states that go with it."""
        if len(self.stops) < 2:
            return self.stops
        by_answer: dict[Expected, tuple[Allowed, ...]] = {}
        for expected, left in self.stops:
            by_answer[expected] = by_answer.get(expected, ()) + left
        return list(by_answer.items())


def _put(states: States, name: str, left: tuple[Allowed, ...], before: Device) -> States:
    """Return `states` with those that `name` may be left in, each once; a device that is as it was is left out."""
    if len(left) > 1:
        left = tuple(dict.fromkeys(left))
    if len(left) == 1 and left[0].state is before:
        return {other: each for other, each in states.items() if other != name} if name in states else states
    return {**states, name: left}


# --- which nodes take part (SPEC A.10, A.11) ------------------------------------------------------
def nodes_of(world: World, devices: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Return the nodes of a walk in order: those of a modern list, or the included ones; None for a list that fails."""
    if devices is None or world.semantics is not Semantics.MODERN:
        return world.included
    return devices if devices and all(_is_node(world, node) for node in devices) else None


def _is_node(world: World, node: str) -> bool:
    device = world.devices.get(root_of(node))
    return device is not None and (node == device.spec.name or device.spec.kind in FALLS_BACK)


def _with_vmstate_node(world: World, nodes: tuple[str, ...], vmstate_node: str | None) -> tuple[str, ...]:
    """Return `nodes` with vm_state_bs at its place, which is used even when it is not included (A.10.5)."""
    if vmstate_node is None or vmstate_node in nodes:
        return nodes
    return tuple(name for name in world.devices if name in nodes or name == vmstate_node)


# --- the answers (docs/reference/alphabet.md) -----------------------------------------------------
_BAD_LIST: Final = (Outcome(Expected(ANY_ERROR, message=True), {}),)
_BAD_LIST_IS_NO: Final = (Outcome(Expected(errnos=None, answer=False, message=True), {}),)


def all_can_snapshot(stage: Stage, operation: AllCanSnapshot) -> Outcomes:
    """bdrv_all_can_snapshot: the first node that can not; yes when there is nobody (W-17)."""
    nodes = nodes_of(stage.world, operation.devices)
    if nodes is None:
        return _BAD_LIST_IS_NO
    modern = stage.modern
    return tuple(
        Outcome(
            Expected(answer=end.node is None, first_bad=end.node, message=end.node is not None if modern else None),
            end.states,
        )
        for end in walk(stage, {}, WALK_OF[AllCanSnapshot], nodes, Ask())
    )


def all_find(stage: Stage, operation: AllFind) -> Outcomes:
    """bdrv_all_find_snapshot: ENOENT at the first node without it. Modern (has_snapshot): a no that names nobody."""
    nodes = nodes_of(stage.world, operation.devices)
    if nodes is None:
        return _BAD_LIST
    endings = walk(stage, {}, WALK_OF[AllFind], nodes, Ask(operation.name))
    if stage.modern:
        return tuple(Outcome(Expected(answer=end.node is None, message=False), end.states) for end in endings)
    return tuple(Outcome(Expected(end.expected.errnos, first_bad=end.node), end.states) for end in endings)


def all_create(stage: Stage, operation: AllCreate) -> Outcomes:
    """bdrv_all_create_snapshot: `sn` is shared; what was created before a failure stays (A.10.5, W-06, W-14)."""
    nodes = nodes_of(stage.world, operation.devices)
    if nodes is None:
        return _BAD_LIST
    modern = stage.modern
    if not (modern and operation.devices is not None):
        nodes = _with_vmstate_node(stage.world, nodes, operation.vmstate_device)
    sn = SnapshotInfo(
        "", operation.name, 0, operation.date_sec, operation.date_nsec, operation.vm_clock_nsec
    )  # fmt: skip
    ask = Ask(operation.name, sn, operation.vmstate_device, operation.vm_state_size)
    outcomes: list[Outcome] = []
    for end in walk(stage, {}, WALK_OF[AllCreate], nodes, ask):
        structs = end.structs
        if not nodes:  # nobody wrote it: it is as the caller filled it, and the size comes beside it
            structs = tuple(held for size in {0, operation.vm_state_size} for held in in_struct(_sized(sn, size)))
        outcomes.append(Outcome(_stopped(end, modern=modern, errp=modern, structs=structs), end.states))
    return tuple(outcomes)


def all_goto(stage: Stage, operation: AllGoto) -> Outcomes:
    """bdrv_all_goto_snapshot: what was reverted before a failure stays reverted (A.10.3, W-06)."""
    return _all_by_name(stage, operation)


def all_delete(stage: Stage, operation: AllDelete) -> Outcomes:
    """bdrv_all_delete_snapshot: nodes without it, or whose list fails, are skipped (A.10.2, W-08)."""
    return _all_by_name(stage, operation)


def _all_by_name(stage: Stage, operation: AllGoto | AllDelete) -> Outcomes:
    nodes = nodes_of(stage.world, operation.devices)
    if nodes is None:
        return _BAD_LIST
    modern = stage.modern
    return tuple(
        Outcome(_stopped(end, modern=modern, errp=True), end.states)
        for end in walk(stage, {}, WALK_OF[type(operation)], nodes, Ask(operation.name))
    )


def _stopped(end: Ending, *, modern: bool, errp: bool, structs: tuple[SnapshotInfo, ...] | None = None) -> Expected:
    """Return the answer of a function that returns an errno: that of the node that it stopped at, who is named."""
    failed = end.node is not None
    errnos = ANY_ERROR if failed and modern else end.expected.errnos  # the modern functions return -1
    return Expected(errnos, first_bad=end.node, sn=structs, message=failed if errp else None)


def all_find_vmstate_bs(stage: Stage, operation: AllFindVmstateBs) -> Outcomes:
    """bdrv_all_find_vmstate_bs: the first node that can; modern: the one that is asked for, if it can."""
    nodes = nodes_of(stage.world, operation.devices)
    modern = stage.modern
    if nodes is None:
        return (Outcome(Expected(errnos=None, message=True), {}),)
    asked = operation.vmstate_device
    if modern and asked is not None:
        nodes = (asked,) if asked in nodes else ()
    return tuple(
        Outcome(Expected(device=end.node, message=end.node is None if modern else None), end.states)
        for end in walk(stage, {}, WALK_OF[AllFindVmstateBs], nodes, Ask())
    )


def vmstate_owners(stage: Stage, states: States, nodes: Sequence[str]) -> list[str | None]:
    """Return which nodes may be the one that keeps VM state, None for nobody; without damage that is one."""
    return [end.node for end in walk(stage, states, FIND_VMSTATE_BS, nodes, Ask())]


def only_changed(world: World, states: States) -> States:
    """Return `states` without the devices that came back to what they were."""
    return {
        name: left
        for name, left in states.items()
        if not (len(left) == 1 and (left[0].state is world.devices[name] or left[0].state == world.devices[name]))
    }
