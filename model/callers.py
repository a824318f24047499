"""What calls the group functions: savevm, loadvm, delvm (SPEC C.1 to C.3) and transactions of creates (C.6).

A caller takes one step after the other, and each step may be where it fails. `_Course` keeps the outcomes of those that
failed, and the states with which the caller goes on when it did not.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from snapcheck.model.device import ANY_ERROR, Allowed, Device, Expected, Outcome, Snapshot
from snapcheck.model.group import (
    ALL_CAN,
    ALL_CREATE,
    ALL_DELETE,
    ALL_FIND,
    ALL_GOTO,
    Ask,
    Ending,
    Outcomes,
    Stage,
    States,
    Walk,
    only_changed,
    vmstate_owners,
    walk,
)
from snapcheck.model.guest import landed, vmstate_data, vmstate_write
from snapcheck.model.operations import DelVm, LoadVm, SaveVm, SnapshotAction, Transaction
from snapcheck.model.replies import SAID, Blow, Replies, Reply, failure
from snapcheck.model.semantics import (
    by_id_or_name,
    by_listed_name,
    can_snapshot,
    create,
    delete,
    find,
    find_by_id_and_name,
)
from snapcheck.model.snapshot import SnapshotInfo, as_listed


class _Course:
    """A caller on its way: `outcomes` so far, and while it is `going`, the `states` with which it goes on."""

    def __init__(self, stage: Stage, states: States | None = None) -> None:
        self.stage = stage
        self.states: States = states or {}
        self.outcomes: list[Outcome] = []
        self.going = True

    # --- one device -------------------------------------------------------------------------------
    def states_of(self, name: str) -> tuple[Allowed, ...]:
        return self.states.get(name) or (Allowed(self.stage.world.devices[name]),)

    def put(self, name: str, left: Sequence[Allowed]) -> None:
        """Go on with `left` as the states of a device, each once."""
        self.states = {**self.states, name: tuple(dict.fromkeys(left)) if len(left) > 1 else tuple(left)}

    def drain(self, *names: str) -> None:
        """Let the guest requests of these devices land."""
        for name in names:
            if any(allowed.state.in_flight for allowed in self.states_of(name)):
                blow = self.stage.blow(name)
                self.put(name, [Allowed(landed(each.state, blow), each.note) for each in self.states_of(name)])

    # --- its end ----------------------------------------------------------------------------------
    def fail(self, node: str | None, states: States, *, message: bool | None = True) -> None:
        """Add the outcome that it failed, with any error and a text that names `node`, leaving `states`."""
        expected = Expected(ANY_ERROR, first_bad=node, message=message)
        self.outcomes.append(Outcome(expected, only_changed(self.stage.world, states)))

    def succeed(self, expected: Expected) -> None:
        """Add the outcome that it went through."""
        self.outcomes.append(Outcome(expected, only_changed(self.stage.world, self.states)))

    # --- group functions --------------------------------------------------------------------------
    def walk(self, calls: Walk, nodes: Sequence[str], ask: Ask, *, names: bool = True) -> list[Ending]:
        """Go through a group function; return the ways in which it fails. They are outcomes already, if it `names`."""
        endings = list(walk(self.stage, self.states, calls, nodes, ask)) if self.going else []
        self.going = bool(endings) and endings[-1].node is None
        if self.going:
            self.states = endings.pop().states
        if names:
            for end in endings:
                self.fail(end.node, end.states)
        return endings


# --- savevm (SPEC C.1) ----------------------------------------------------------------------------
def save_vm(stage: Stage, operation: SaveVm) -> Outcomes:
    """savevm: the old snapshot of that name goes first; only the modern one takes back what it created."""
    course, nodes = _Course(stage), stage.world.included
    course.walk(ALL_CAN, nodes, Ask())
    if operation.name is not None:
        course.walk(ALL_DELETE, nodes, Ask(operation.name))
    if not course.going:
        return tuple(course.outcomes)
    outcomes = course.outcomes
    for owner in vmstate_owners(stage, course.states, nodes):
        branch = _Course(stage, course.states)
        if owner is None:
            branch.fail(None, branch.states)  # there is nobody (its errno is that of the group delete: latent)
        else:
            _save_on(branch, owner, operation, nodes)
        outcomes += branch.outcomes
    return tuple(outcomes)


def _save_on(course: _Course, owner: str, operation: SaveVm, nodes: tuple[str, ...]) -> None:
    """Store the VM's state on `owner`, and create the snapshot everywhere."""
    course.drain(*course.stage.world.devices)
    _store_vmstate(course, owner, operation)
    name = operation.name if operation.name is not None else _name_by_clock(operation.date_sec)
    sn = as_listed(
        SnapshotInfo("", name, 0, operation.date_sec, operation.date_nsec, operation.vm_clock_nsec)
    )  # fmt: skip
    ask = Ask(name, sn, owner, operation.vm_state_size)
    failures = course.walk(ALL_CREATE, nodes, ask, names=not course.stage.modern)
    if course.stage.modern:
        for end in failures:
            _roll_back(course, end, sn.name, nodes)
    if course.going:
        course.succeed(SAID)


def _store_vmstate(course: _Course, owner: str, operation: SaveVm) -> None:
    """Write the VM's state and flush it, also an empty one; a failure names no device."""
    done: list[Allowed] = []
    failed: list[Allowed] = []
    blow = course.stage.blow(owner)
    for allowed in course.states_of(owner):
        for reply in vmstate_write(allowed.state, 0, operation.vm_state_size, operation.tag, blow):
            (failed if reply.failed else done).extend(reply.states)
    if failed:
        course.fail(None, {**course.states, owner: tuple(dict.fromkeys(failed))})
    course.put(owner, done)


def _name_by_clock(date_sec: int) -> str:
    return datetime.fromtimestamp(date_sec, UTC).strftime("vm-%Y%m%d%H%M%S")


def _roll_back(course: _Course, end: Ending, name: str, nodes: tuple[str, ...]) -> None:
    """Delete what carries the name, as far as that goes, and fail as the create did (2a909dc430, 6.0)."""
    for undone in walk(course.stage, end.states, ALL_DELETE, nodes, Ask(name)):
        course.fail(end.node, undone.states)


# --- loadvm (SPEC C.2) ----------------------------------------------------------------------------
def load_vm(stage: Stage, operation: LoadVm) -> Outcomes:
    """loadvm: everyone must have it, with VM state on the first; then all are reverted, as far as that goes."""
    course, nodes, ask = _Course(stage), stage.world.included, Ask(operation.name)
    course.walk(ALL_CAN, nodes, ask)
    for end in course.walk(ALL_FIND, nodes, ask, names=False):
        course.fail(None if stage.modern else end.node, end.states)  # modern: "in one or more devices"
    if not course.going:
        return tuple(course.outcomes)
    outcomes = course.outcomes
    for owner in vmstate_owners(stage, course.states, nodes):
        branch = _Course(stage, course.states)
        if owner is None:
            branch.fail(None, branch.states)
        else:
            _load_from(branch, owner, operation, nodes)
        outcomes += branch.outcomes
    return tuple(outcomes)


def _load_from(course: _Course, owner: str, operation: LoadVm, nodes: tuple[str, ...]) -> None:
    found = _found_on(course, owner, operation.name)
    if found is None:
        return
    course.drain(*course.stage.world.devices)
    course.walk(ALL_GOTO, nodes, Ask(operation.name))
    if not course.going:
        return
    blow, states = course.stage.blow(owner), course.states_of(owner)
    if (blow is not None and blow.io) or by_id_or_name(states[0].state, operation.name) is not found:
        course.fail(None, course.states)  # it can not be read, or it is another one's: the disks are reverted already
    read = {vmstate_data(allowed.state, 0, found.info.vm_state_size) for allowed in states}
    course.succeed(Expected(data=read.pop() if len(read) == 1 else None, message=False))


def _found_on(course: _Course, owner: str, name: str) -> Snapshot | None:
    """Return the snapshot found by name on `owner`; None when the caller ends there (step 4)."""
    device = course.stage.world.devices[owner]
    for reply in find(device, name, course.stage.blow(owner)):
        if reply.failed:
            course.fail(None, course.states, message=None)  # errp is left unset
    found = by_listed_name(device, name)
    if found is not None and found.info.vm_state_size == 0:
        course.fail(None, course.states)
        return None
    return found


# --- delvm (SPEC C.3) -----------------------------------------------------------------------------
def del_vm(stage: Stage, operation: DelVm) -> Outcomes:
    """delvm: the group delete, which succeeds when nobody has the snapshot; the modern one asks first who can."""
    course, nodes = _Course(stage), stage.world.included
    if stage.modern:
        course.walk(ALL_CAN, nodes, Ask())
    course.walk(ALL_DELETE, nodes, Ask(operation.name))
    if course.going:
        course.succeed(SAID)
    return tuple(course.outcomes)


# --- transactions (SPEC C.6) ----------------------------------------------------------------------
def transaction(stage: Stage, operation: Transaction) -> Outcomes:
    """Several creates in order; when one fails, those before it are deleted again, the last one first."""
    course = _Course(stage)
    made: list[tuple[str, SnapshotInfo]] = []
    for action in operation.actions:
        sn = SnapshotInfo("", action.name, 0, operation.date_sec, operation.date_nsec, operation.vm_clock_nsec)
        created = _act(course, action, as_listed(sn), made)
        if created is None:
            return tuple(course.outcomes)
        made.append((action.device, created))
    course.succeed(SAID)
    return tuple(course.outcomes)


def _act(
    course: _Course, action: SnapshotAction, sn: SnapshotInfo, made: list[tuple[str, SnapshotInfo]]
) -> SnapshotInfo | None:
    """Take one action and return what it created; None when it can only fail. A failure undoes what was `made`."""
    name = action.device
    course.drain(name)
    done: list[Allowed] = []
    failed: list[Allowed] = []
    created: SnapshotInfo | None = None
    for allowed in course.states_of(name):
        for reply in _action_replies(allowed.state, action.name, sn, course.stage.blow(name)):
            (failed if reply.failed else done).extend(reply.states or (allowed,))
            if reply.expected.sn and not reply.failed:
                created = reply.expected.sn[0]
    if failed:
        _abort(course, name, failed, made)
    course.put(name, done)
    return created


def _action_replies(device: Device, name: str, sn: SnapshotInfo, blow: Blow | None) -> Replies:
    """Return what one action may do: medium, read-only, can, name, taken already (by the full name), then create."""
    if not can_snapshot(device) or not name:
        return (_REFUSED,)
    replies: list[Reply] = []
    for found in find_by_id_and_name(device, None, name, blow):
        free = found.expected.answer is False and not found.expected.message
        replies += create(device, sn, blow) if free else (_REFUSED,)
    return tuple(replies)


_REFUSED: Final = failure(ANY_ERROR)


def _abort(course: _Course, name: str, failed: list[Allowed], made: list[tuple[str, SnapshotInfo]]) -> None:
    """Add the outcome that the action on `name` failed; of what was made, only what can not be deleted again stays."""
    undoing = _Course(course.stage, course.states)
    undoing.put(name, failed)
    for device, sn in reversed(made):
        left: list[Allowed] = []
        for allowed in undoing.states_of(device):
            for reply in delete(allowed.state, sn.id_str, sn.name, undoing.stage.blow(device)):
                states = reply.states or (allowed,)
                left += (Allowed(each.state, each.note or allowed.note) for each in states)  # why it was new already
        undoing.put(device, left)
    undoing.fail(name, undoing.states)
    course.outcomes += undoing.outcomes
