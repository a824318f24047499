"""Operations, faults and answers in a line of words each, safe to print whatever the names in them are."""

from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Final, assert_never, get_args

from snapcheck.model.errno import Errno
from snapcheck.model.faults import (
    BitFlip,
    CallFault,
    Delay,
    DropsUnflushed,
    Effect,
    Fails,
    Fault,
    Fill,
    LandsButFails,
    Lost,
    Misdirected,
    Short,
    Torn,
)  # fmt: skip
from snapcheck.model.history import UNWRITTEN, UNWRITTEN_INFO, After, PowerCut, Result
from snapcheck.model.operations import Caller, Group, Operation, kind_of
from snapcheck.model.power_cut import Cut, Filling
from snapcheck.model.setup import DeviceSpec, PreparedSnapshot
from snapcheck.model.snapshot import SnapshotInfo

SHOWN_MAX: Final = 48
_NAMES_CULPRIT: Final = (*get_args(Group), *get_args(Caller))


def shown(text: str) -> str:
    """Return `text` in quotes, printable, and short: a name may be 255 bytes of anything."""
    quoted = repr(text)
    return quoted if len(quoted) <= SHOWN_MAX else f"{quoted[: SHOWN_MAX - 20]}...' ({len(text)} characters)"


def operation_words(operation: Operation) -> str:
    """Return for instance `create d0 name='a' vm_state_size=765`."""
    return " ".join((kind_of(operation), *_fields_of(operation)))


def _fields_of(value: object) -> Iterator[str]:
    for spec in fields(value):  # type: ignore[arg-type]  # every operation is a dataclass
        part = getattr(value, spec.name)
        if spec.name == "device":
            yield str(part)
        elif spec.name == "actions":
            yield " ".join(f"({' '.join(_fields_of(action))})" for action in part)
        elif spec.name == "devices":
            yield from (() if part is None else (f"devices={','.join(part) or 'none'}",))
        elif part != spec.default:
            yield f"{spec.name}={shown(part) if isinstance(part, str) else part}"


def fault_words(fault: Fault) -> str:
    """Return for instance `the 2nd write of d1 to l2 fails with EIO`."""
    which = f"the {_ordinal(fault.at)} " if fault.at > 1 else "the first "
    often = {0: ", and all later ones", 1: ""}.get(fault.times, f", {fault.times} times")
    if isinstance(fault, CallFault):
        return f"{which}{fault.function} call on {fault.device} answers {fault.errno.name}{often}"
    kind = "I/O" if fault.kind == "any" else fault.kind
    region = f" to {fault.region}" if fault.region else ""
    return f"{which}{kind} of {fault.device}{region} {_effect_words(fault.effect)}{often}"


def _ordinal(number: int) -> str:
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def _effect_words(effect: Effect) -> str:  # noqa: PLR0911  # one line for each effect
    match effect:
        case Fails(errno):
            return f"fails with {errno.name}"
        case LandsButFails(errno):
            return f"lands and yet reports {errno.name}"
        case Short(sectors, errno):
            return f"lands {_sectors(sectors)} only and reports {errno.name}"
        case Torn(sectors):
            return f"lands {_sectors(sectors)} only and reports success"
        case Lost():
            return "is acknowledged and lost"
        case Misdirected(sectors):
            return f"lands {_sectors(sectors)} off"
        case BitFlip(bit):
            return f"has bit {bit} flipped"
        case Fill(garbage):
            return f"leaves {'garbage' if garbage else 'zeroes'}"
        case DropsUnflushed(errno):
            return f"reports {errno.name} and drops what was not flushed"
        case Delay(nanoseconds):
            return f"takes {nanoseconds} ns"
        case _:
            assert_never(effect)


def _sectors(count: int) -> str:
    return f"{count} sector{'' if count == 1 else 's'}"


def cut_words(cut: PowerCut) -> str:
    """Return what a power cut took: `the power goes before 8 is sent, of d0 is lost: 2, 5, and of 7 sectors 1, 2`."""
    at = max((each.at for each in cut.devices), default=0)
    lost = "; ".join(words for each in cut.devices if (words := _lost_words(each)))
    filled = {each.fill for each in cut.devices} - {Filling.OLD}
    words = f"the power goes before {at} is sent, {lost or 'and nothing that was sent is lost'}"
    words += f", and {filled.pop().value} is there instead" if lost and filled else ""
    return words + _AFTER[cut.after] + _then_words(cut)


_AFTER: Final = {
    After.LOOK: "", After.USE: "; the disk is used further", After.REPAIR: "; the disk is repaired",
    After.OPEN: "; the disk is opened",
}  # fmt: skip


def _then_words(cut: PowerCut) -> str:
    """Return what was done after the cut, or what a second one took: it has a log of its own."""
    if cut.again is None:
        steps = "; ".join(operation_words(step.operation) for step in cut.then)
        return f": {steps}" if steps else ""
    which = "repair" if cut.after is After.REPAIR else "first open"
    lost = _lost_words(cut.again) or "and nothing of it is lost"
    return f", and the power goes again at position {cut.again.at} of the log of the {which}, {lost}"


def _lost_words(cut: Cut) -> str:
    parts = [", ".join(map(str, cut.dropped))] if cut.dropped else []
    parts += [f"of {each.number} {_numbered('sector', each.lost)}" for each in cut.torn]
    return f"of {cut.device} is lost: {', and '.join(parts)}" if parts else ""


def _numbered(what: str, numbers: Sequence[int]) -> str:
    return f"{what}{'' if len(numbers) == 1 else 's'} {', '.join(map(str, numbers))}"


def result_words(operation: Operation, result: Result) -> str:
    """Return what was answered: `ENOSPC, first_bad_bs d2, 'Could not delete...'`."""
    return ", ".join(_answers(operation, result))


def _answers(operation: Operation, result: Result) -> Iterator[str]:
    yield errno_words(result.errno)
    if result.answer is not None:
        yield "yes" if result.answer else "no"
    if names_culprit(operation):
        yield f"first_bad_bs {'not written' if result.first_bad == UNWRITTEN else result.first_bad or 'NULL'}"
    if result.device is not None:
        yield f"device {result.device}"
    if result.sn is not None:
        yield f"sn {snapshot_words(result.sn)}"
    if result.snapshots is not None:
        yield f"[{', '.join(map(snapshot_words, result.snapshots))}]"
    if result.data is not None:
        yield f"{len(result.data)} bytes"
    if result.message is not None:
        yield f"message {shown(result.message)}"
    if result.crash is not None:
        yield f"died: {shown(result.crash)}"


def names_culprit(operation: Operation) -> bool:
    """Tell whether the answer to `operation` can name a device as first_bad_bs."""
    return isinstance(operation, _NAMES_CULPRIT)


def errno_words(errno: int) -> str:
    """Return `ok`, or the errno's name; the number where it has none."""
    if errno == 0:
        return "ok"
    return Errno(errno).name if -4096 < errno < 0 else str(errno)


def snapshot_words(info: SnapshotInfo) -> str:
    """Return `id:name`, with the size of the VM state where there is one."""
    if info == UNWRITTEN_INFO:
        return "not written"
    state = f" (+{info.vm_state_size} B VM state)" if info.vm_state_size else ""
    identity = "not written" if info.id_str == UNWRITTEN else shown(info.id_str)[1:-1]
    return f"{identity}:{shown(info.name)}{state}"


def device_words(spec: DeviceSpec) -> str:
    """Return what a device of the setup is: `d1: raw-over, 128 sectors, read-only, holds tag 2`."""
    parts = [spec.kind.value, _sectors(spec.sectors), f"{spec.cluster_bytes} B clusters"]
    parts += ["read-only"] if spec.read_only else []
    parts += [f"stamped with tag {spec.tag}"] if spec.tag else []
    parts += [f"snapshots {', '.join(map(_prepared_words, spec.snapshots))}"] if spec.snapshots else []
    parts += ["compressed"] if spec.packed else []
    parts += ["reference counts up to 1"] if spec.unshared else []
    parts += [f"unfinished {spec.unfinished.value}"] if spec.unfinished else []
    parts += [f"damaged at {', '.join(hex(each.offset) for each in spec.damage)}"] if spec.damage else []
    return f"{spec.name}: {', '.join(parts)}"


def _prepared_words(prepared: PreparedSnapshot) -> str:
    return f"{shown(prepared.id_str)[1:-1]}:{shown(prepared.name)}"
