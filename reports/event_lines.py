"""The events of one step as indented lines: who called whom, under which lock, and what reached the file."""

from collections.abc import Sequence
from dataclasses import dataclass

from snapcheck.model.history import Call, Drain, Event, FaultMet, Io, Lock, Request, Step
from snapcheck.reports.words import errno_words, fault_words


@dataclass(frozen=True, slots=True)
class EventLine:
    """One line: nesting depth, the device, what kind of event, what happened, and whether it went wrong."""

    depth: int
    device: str
    kind: str  # call, lock, drain, request, io, fault
    text: str
    bad: bool = False


def event_lines(step: Step) -> list[EventLine]:
    """Return the events of `step` in order; a call that does nothing in between takes one line, not two."""
    lines: list[EventLine] = []
    depth = 0
    for place, event in enumerate(step.events):
        if _opens(event):
            if not _is_pair(step.events, place):
                lines.append(_line(event, depth, step))
                depth += 1
        elif _closes(event):
            whole = place > 0 and _is_pair(step.events, place - 1)
            depth = depth if whole else max(0, depth - 1)
            lines.append(_line(event, depth, step, whole=whole))
        else:
            lines.append(_line(event, depth, step))
    return lines


def _opens(event: Event) -> bool:
    return (isinstance(event, Call) and event.edge == "enter") or (
        isinstance(event, Lock | Drain) and event.action in ("acquire", "begin")
    )


def _closes(event: Event) -> bool:
    return (isinstance(event, Call) and event.edge == "return") or (
        isinstance(event, Lock | Drain) and event.action in ("release", "end")
    )


def _is_pair(events: Sequence[Event], place: int) -> bool:
    """Tell whether a call is entered at `place` and returns in the very next event."""
    if place + 1 >= len(events):
        return False
    first, second = events[place], events[place + 1]
    return (
        isinstance(first, Call) and isinstance(second, Call)
        and (first.edge, second.edge) == ("enter", "return") and first[:4] == second[:4]
    )  # fmt: skip


def _line(event: Event, depth: int, step: Step, *, whole: bool = False) -> EventLine:
    match event:
        case Call():
            return _call_line(event, depth, whole=whole)
        case Lock(device, action, owner):
            return EventLine(depth, device, "lock", f"lock {action} by {owner}", bad=action == "blocked")
        case Drain(device, action):
            return EventLine(depth, device, "drain", f"drained section {action}s")
        case Request(device, action, errno):
            return EventLine(depth, device, "request", f"guest request: {action}{_answer(errno)}", bad=bool(errno))
        case Io(device, kind, offset, length, region, errno):
            where = f" {length} B at {offset:#x}" if length or offset else ""
            what = f" {region}" if region else ""
            return EventLine(depth, device, "io", f"{kind}{what}{where}{_answer(errno)}", bad=bool(errno))
        case FaultMet(device, number):
            known = 0 <= number < len(step.faults)
            return EventLine(depth, device, "fault", fault_words(step.faults[number]) if known else "", bad=True)


def _call_line(call: Call, depth: int, *, whole: bool) -> EventLine:
    name = f"{call.function} {call.node}" + (" (driver)" if call.layer == "driver" else "")
    if call.edge == "enter":
        return EventLine(depth, call.device, "call", name)
    text = f"{'' if whole else 'end of '}{name} → {errno_words(call.errno)}"
    return EventLine(depth, call.device, "call", text, bad=bool(call.errno))


def _answer(errno: int) -> str:
    return f" → {errno_words(errno)}" if errno else ""
