"""The laws of several devices: who is named, who is touched, what is left behind, and what is held meanwhile.

They are judged by the recorded calls, never by where a fault was armed: a driver may absorb one. `laws.py` says what a
law looks like and when each is asked.
"""

from collections.abc import Collection, Iterator

from snapcheck.model.facts import (
    HELD,
    LOOKS,
    REOPENS,
    WHERE,
    Evidence,
    Judged,
    Look,
    StepFacts,
    differs,
    error,
    root_of,
    warning,
)
from snapcheck.model.faults import IoFault
from snapcheck.model.history import UNWRITTEN, FaultMet
from snapcheck.model.law_names import Law
from snapcheck.model.match import bad_text, listed, listing, lists_equal
from snapcheck.model.operations import AllCreate, AllDelete, DelVm, LoadVm, SaveVm, Transaction
from snapcheck.model.trace import CHANGING_CALLS, CHANGING_IO, GroupCall, OwnCall, Touch


# --- who is named, who is touched -----------------------------------------------------------------
def right_culprit(facts: StepFacts) -> Judged:
    """first_bad_bs is the first group member whose call reported failure, None exactly on success."""
    actual = facts.step.result.first_bad
    if facts.names_nobody:
        lost = _culprit(facts)
        if lost is not None and lost.function in CHANGING_CALLS:
            summary = f"{facts.kind} reported success although {lost.function} of {lost.node} had failed"
            yield error(Law.RIGHT_CULPRIT, lost.device, summary, f"a failure of {lost.node}", "success")
            return
    if actual == UNWRITTEN:
        return  # out-params says so
    culprit = None if facts.names_nobody else _culprit(facts)
    expected = culprit.node if culprit else None
    if culprit is None and not facts.names_nobody and _only_the_model_knows(facts):
        if facts.vague:
            return
        expected = facts.nearest.expected.first_bad
    if actual == expected:
        yield HELD
        return
    why = f"whose {culprit.function} failed first" if culprit else "as no call on a device failed"
    summary = f"{facts.kind} names {actual or 'nobody'}, not {expected or 'nobody'}, "
    summary += "as it succeeded" if facts.names_nobody else why
    give = warning if facts.modern and actual is None else error
    wanted, got = f"first_bad {bad_text(expected)}", f"first_bad {bad_text(actual)}"
    yield give(Law.RIGHT_CULPRIT, expected or actual or "", summary, wanted, got)


def _only_the_model_knows(facts: StepFacts) -> bool:
    """Tell whether the calls say nothing: they are not visible, or a transaction refused an action before any (C.6)."""
    return not facts.abilities.calls or isinstance(facts.step.operation, Transaction)


def _culprit(facts: StepFacts) -> OwnCall | None:
    return facts.trace.culprit(facts.step.operation, modern=facts.modern)


def stops_at_first(facts: StepFacts) -> Judged:
    """After the culprit, no later device gets a snapshot call, write, discard or truncate from the same group call."""
    for group in facts.trace.group_calls(facts.step.operation):
        culprit = group.culprit()
        if culprit is not None:
            yield _touched_after(facts, group, culprit)


def _touched_after(facts: StepFacts, group: GroupCall, culprit: OwnCall) -> Evidence | None:
    reached = {call.device for call in group.calls if call.entered <= culprit.entered}
    for touch in facts.trace.touches(culprit.returned, group.ended):
        if touch.device not in reached:
            summary = f"{facts.kind} went on to {touch.device} after {culprit.function} had failed on {culprit.node}"
            actual = f"{touch.what} on {touch.device}"
            return error(Law.STOPS_AT_FIRST, touch.device, summary, f"nothing after {culprit.node}", actual)
    return HELD


def excluded_untouched(facts: StepFacts) -> Judged:
    """Nobody outside the walk may get a snapshot call, write, discard or truncate.

    Nor may anything be written to a device that is read-only, or that is only looked at (SPEC G.7).
    """
    walk, devices = facts.walk, facts.before.devices
    outside = [name for name in devices if name not in walk]
    only_read: Collection[str] = ()  # opening a device for writing may repair it
    if isinstance(facts.step.operation, LOOKS):
        only_read = walk
    elif not isinstance(facts.step.operation, REOPENS):
        only_read = [name for name in walk if name in devices and devices[name].read_only]
    if not outside and not only_read:
        return
    for touch in _touches_of(facts, outside, only_read):
        where = "outside its walk" if touch.device in outside else "not there to be written to"
        summary = f"{facts.kind} touched {touch.device}, which is {where}"
        walked = f"nothing but {', '.join(walk) or 'nobody'}" if touch.device in outside else "reads alone"
        yield error(Law.EXCLUDED_UNTOUCHED, touch.device, summary, walked, f"{touch.what} on {touch.device}")
        return
    yield HELD


def _touches_of(facts: StepFacts, outside: Collection[str], only_read: Collection[str]) -> Iterator[Touch]:
    for call in facts.trace.calls:
        if call.device in outside:
            yield Touch(call.device, f"snapshot {call.function}")
    for touch in facts.trace.touches(0, len(facts.step.events)):
        if touch.device in outside or (touch.device in only_read and touch.what in CHANGING_IO):
            yield touch


# --- what is left behind --------------------------------------------------------------------------
def prefix_applied(facts: StepFacts) -> Judged:
    """Devices before the culprit have the effect, the culprit is old or new, later ones are unchanged."""
    for name, look in facts.bound(Law.PREFIX_APPLIED):
        bad = look.effect_missing()
        if bad is None:
            yield HELD
        else:
            culprit = _culprit(facts)
            where = f"failing at {culprit.node}" if culprit else "failing"
            summary = f"{facts.kind}, {where}, left {name} in a state that the model does not allow"
            yield differs(Law.PREFIX_APPLIED, name, summary, bad)


def nobody_skipped(facts: StepFacts) -> Judged:
    """On success every included device shows the effect; a delete that skips an unreadable list is reported (W-08)."""
    for name, look in facts.bound(Law.NOBODY_SKIPPED):
        if name in facts.walk:
            bad = look.effect_missing()
            yield bad and differs(Law.NOBODY_SKIPPED, name, f"{facts.kind} reported success {_amiss(look)} {name}", bad)
    yield from _skipped_by_delete(facts)


def _amiss(look: Look) -> str:
    idle = look.before == look.state  # the name is nowhere on it, say
    return "and changed a device where it had nothing to do," if idle else "without its effect on"


def _skipped_by_delete(facts: StepFacts) -> Judged:
    operation = facts.step.operation
    if not isinstance(operation, AllDelete | SaveVm | DelVm):
        return
    first = next((group for group in facts.trace.group_calls(operation) if group.kind == "delete"), None)
    gone: set[str] = set()  # a modern list can name a device twice: the second time there is nothing left to find
    for call in first.calls if first else ():
        image = facts.before.devices[call.device].image
        if call.function == "delete" and not call.failed:
            gone.add(call.device)
        if call.function != "find" or not call.failed or image is None or call.device in gone:
            continue
        if any(info.name == operation.name for info in listed(image)):
            summary = f"{facts.kind} skipped {call.device}, whose list could not be read, and succeeded (W-08)"
            expected = f"{operation.name!r} deleted on {call.device}"
            yield warning(Law.NOBODY_SKIPPED, call.device, summary, expected, "still there")


def vmstate_on_one(facts: StepFacts) -> Judged:
    """Of the snapshots that this call created, only the one on vm_state_bs has VM state, if the walk reached it."""
    operation = facts.step.operation
    assert isinstance(operation, AllCreate | SaveVm), "laws.py asks it of these"
    if facts.vague and isinstance(operation, SaveVm):
        return  # a damaged device may have died, and then the next one is vm_state_bs
    owner = _vmstate_owner(facts, operation)
    for name, look in facts.bound(Law.VMSTATE_ON_ONE):
        shown = look.seen.memory.snapshots or (look.seen.disk.snapshots if look.seen.disk else None)
        if not shown or not _created_once(facts, name, look):
            continue
        size = operation.vm_state_size if name == owner else 0
        if shown[-1].vm_state_size == size:
            yield HELD
        else:
            summary = f"{facts.kind} gave the snapshot on {name} a wrong VM state size"
            actual = f"{shown[-1].vm_state_size} bytes on {name}"
            expected = f"{size} bytes on {name}; vm_state_bs is {owner or 'not in the walk'}"
            yield error(Law.VMSTATE_ON_ONE, name, summary, expected, actual)


def _vmstate_owner(facts: StepFacts, operation: AllCreate | SaveVm) -> str | None:
    """Return the device whose snapshot gets the VM state, None when the walk does not reach vm_state_bs (A.10.5)."""
    if isinstance(operation, SaveVm):
        return next(iter(facts.before.included), None)
    nodes = operation.devices if facts.modern and operation.devices is not None else tuple(facts.before.devices)
    node = operation.vmstate_device
    return root_of(node) if node is not None and node in nodes else None


def _created_once(facts: StepFacts, name: str, look: Look) -> bool:
    """Tell whether the call created exactly one snapshot on a device: a list can name a root node and its child."""
    if not facts.abilities.calls:
        return look.changes
    made = [call for call in facts.trace.calls if call.function == "create" and call.device == name and not call.failed]
    return len(made) == 1


def all_or_nothing(facts: StepFacts) -> Judged:
    """Nothing may be left anywhere of a failed transaction, but where a second fault hits the rollback."""
    struck = _struck_in_rollback(facts)
    for name, look in facts.bound(Law.ALL_OR_NOTHING):
        if name in struck:
            continue
        bad = _changed(look)
        if bad and look.note and not look.differences:  # the model knows why the driver could not take it back
            summary = f"{facts.kind} failed and changed the list of {name} ({look.note})"
            yield warning(Law.ALL_OR_NOTHING, name, summary, *bad)
        else:
            yield bad and error(Law.ALL_OR_NOTHING, name, f"{facts.kind} failed and changed the list of {name}", *bad)


def _struck_in_rollback(facts: StepFacts) -> Collection[str]:
    """Return the devices on which a fault struck the rollback, which is where a transaction deletes.

    All of them where calls are not visible, once anything was struck that may have been the rollback.
    """
    if not facts.abilities.calls:  # struck more than once; or once, and that is not what the failure is about
        told = {getattr(fault.effect, "errno", None) for fault in facts.step.met if isinstance(fault, IoFault)}
        may_be = len(facts.trace.struck) > 1 or (bool(told) and facts.step.result.errno not in told)
        return facts.before.devices if may_be else ()
    rollback = next((call.entered for call in facts.trace.calls if call.function == "delete"), len(facts.step.events))
    return {event.device for event in facts.step.events[rollback:] if isinstance(event, FaultMet)}


def _changed(look: Look) -> tuple[str, str] | None:
    """Return what the device was and is, when its list is not the one from before."""
    image = look.before.image
    views = (("memory", look.seen.memory), ("disk", look.seen.disk))
    for where, view in views:
        shown = view.snapshots if view is not None else None
        if image is not None and shown is not None and not lists_equal(image, shown):
            return f"the list from before, {listing(listed(image))}", f"{WHERE[where]} {listing(shown)}"
    return None


# --- locks and drained sections -------------------------------------------------------------------
def locks_balanced(facts: StepFacts) -> Judged:
    """Every AioContext is held around its device's calls in group operations, and released on every path."""
    trace = facts.trace
    if not trace.held and not trace.blocked and not (trace.calls and facts.is_group):
        return
    held = next((device for device, depth in trace.held.items() if depth), None)
    if trace.blocked:
        lock = trace.blocked[0]
        summary = f"{facts.kind} would wait forever: {lock.owner} wants the AioContext of {lock.device}"
        yield error(
            Law.LOCKS_BALANCED, lock.device, summary, "free, or held by the same owner", "held by another owner"
        )
    elif held is not None:
        depth = trace.held[held]
        actual = f"acquired {depth} times more" if depth > 0 else f"released {-depth} times more"
        summary = f"{facts.kind} returned with the AioContext of {held} out of balance"
        yield error(Law.LOCKS_BALANCED, held, summary, "as many releases as acquisitions", actual)
    elif trace.unlocked and facts.is_group:
        call = trace.unlocked[0]
        summary = f"{facts.kind} called {call.function} on {call.device} without its AioContext"
        yield error(Law.LOCKS_BALANCED, call.device, summary, "the lock is held around the call", "nobody holds it")
    else:
        yield HELD


def drained(facts: StepFacts) -> Judged:
    """During delete, and around the group operations of callers, no guest request of that device is in flight.

    What was drained goes on afterwards, on every path: a drained section that never ends is a guest that hangs.
    """
    kept = next((device for device, depth in facts.trace.drained.items() if depth), None)
    if kept is not None:
        depth = facts.trace.drained[kept]
        actual = f"begun {depth} times more" if depth > 0 else f"ended {-depth} times more"
        summary = f"{facts.kind} returned with the drained sections of {kept} out of balance"
        yield error(Law.DRAINED, kept, summary, "as many ends as beginnings", actual)
        return
    everywhere = isinstance(facts.step.operation, SaveVm | LoadVm)  # these drain all devices (C.1, C.2)
    alone = isinstance(facts.step.operation, Transaction)  # this drains the device of each action (C.6)
    for entered in facts.trace.entered_busy:
        if entered.function == "delete" or everywhere or alone:
            drained_all = everywhere and entered.function != "delete"
            busy = entered.busy if drained_all else entered.busy & {entered.device}
            if busy:
                first = min(busy)
                summary = f"{facts.kind} entered {entered.function} of {entered.device} while {first} was not drained"
                actual = f"requests of {', '.join(sorted(busy))} in flight"
                yield error(Law.DRAINED, first, summary, "no guest request in flight", actual)
                return
    if facts.running.in_flight and any(call.function in CHANGING_CALLS for call in facts.trace.calls):
        yield HELD
