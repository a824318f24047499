"""The shortest history that still shows a violation: steps, faults, devices, names and sizes made smaller together.

A candidate counts only when it breaks the same law by the same operation, at the same severity and in the same role of
device. Each pass takes the first candidate that still shows it and goes on from there, until no pass finds any or time
is up; the best so far is always at hand. Every candidate is smaller by a fixed measure, so that it ends.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Final, NamedTuple

from snapcheck.impl.driver import UnsupportedSetupError
from snapcheck.impl.targets import Target, TargetError
from snapcheck.model.errno import Errno
from snapcheck.model.facts import Evidence, root_of
from snapcheck.model.faults import CallFault, Fails, Fault
from snapcheck.model.history import History, Purpose, Step
from snapcheck.model.law_names import Law, Severity
from snapcheck.model.operations import Operation, SaveVm, Transaction, kind_of
from snapcheck.model.setup import DeviceSpec, Kind, Setup
from snapcheck.model.snapshot import NAME_BYTES_MAX, cut_text
from snapcheck.stateful_tests.replay import CARES, run_again
from snapcheck.stateful_tests.session import Care

SECONDS_DEFAULT: Final = 10.0
_SECTORS_SMALL: Final = 16


class Sought(NamedTuple):
    """What makes two violations the same one: law, operation, severity, and whether a device is named at all."""

    law: Law
    operation: str
    severity: Severity
    on_device: bool


class Shrunk(NamedTuple):
    """The best so far: its history as it went, and the evidence of its last step, what was sought first.

    `finished` says whether nothing smaller was found, rather than time having run out.
    """

    history: History
    evidence: tuple[Evidence, ...]
    care: Care
    finished: bool


def sought_in(evidence: Evidence, history: History) -> Sought:
    """Return what to look for, given the evidence of the last step of `history`."""
    kind = kind_of(history.steps[-1].operation)
    return Sought(evidence.law, kind, evidence.severity, bool(evidence.device))


def shrink(
    target: Target, history: History, evidence: tuple[Evidence, ...], *, seconds: float = SECONDS_DEFAULT
) -> Shrunk:
    """Return the shortest history found that shows the first of `evidence`, which the last step of `history` gave."""
    try:
        return _Shrinker(target, sought_in(evidence[0], history), seconds).run(history, evidence)
    except TargetError:  # it dies of opening these devices, so that no history of them can be run at all
        return Shrunk(history, evidence, Care.USUAL, finished=True)


class _Shrinker:
    def __init__(self, target: Target, sought: Sought, seconds: float) -> None:
        self._target = target
        self._sought = sought
        self._deadline = time.monotonic() + seconds
        self._care = Care.USUAL
        self._tried: set[str] = set()

    def run(self, history: History, evidence: tuple[Evidence, ...]) -> Shrunk:
        """Go round the passes until none of them helps."""
        best = self._closest_look(Shrunk(history, evidence, Care.USUAL, finished=False))
        progress = True
        while progress and not self._late():
            progress = False
            for candidates in _PASSES:
                better = self._pass(best, candidates)
                progress = progress or better is not best
                best = better
        return best._replace(finished=not self._late())

    def _closest_look(self, found: Shrunk) -> Shrunk:
        """Look closely after every step, where that still shows it: it tells which step did it, and ends there."""
        for care in reversed(CARES):
            self._care = care
            seen = self._try(found.history)
            if seen is None and care is Care.CLOSE:  # perhaps another operation did it, and the last one only showed it
                seen = self._by_another(found)
            if seen is not None:
                return seen
        return found

    def _by_another(self, found: Shrunk) -> Shrunk | None:
        ran = run_again(self._target, found.history, care=Care.CLOSE, law=self._sought.law)
        mine = next(
            (e for e in ran.evidence if e.law is self._sought.law and e.severity is self._sought.severity), None
        )
        if mine is None or ran.history.steps[-1].purpose is not Purpose.EXPLORE:
            return None
        self._sought = sought_in(mine, ran.history)
        return self._try(ran.history)

    def _pass(self, best: Shrunk, candidates: "Callable[[History], Iterator[History]]") -> Shrunk:
        """Take the first smaller history that still shows it, over and over."""
        progress = True
        while progress and not self._late():
            progress = False
            for candidate in candidates(best.history):
                if self._late():
                    break
                seen = self._try(candidate)
                if seen is not None:
                    best, progress = seen, True
                    break
        return best

    def _late(self) -> bool:
        return time.monotonic() > self._deadline

    def _try(self, candidate: History) -> Shrunk | None:
        """Return the candidate as it went, when it shows what is sought."""
        key = f"{self._care} {candidate.setup} {[(s.operation, s.faults, s.purpose) for s in candidate.steps]}"
        if key in self._tried:
            return None
        self._tried.add(key)
        try:
            ran = run_again(self._target, candidate, care=self._care, law=self._sought.law)
        except (UnsupportedSetupError, AssertionError):
            return None  # no history at all: an operation is left without its device, for example
        mine = [each for each in ran.evidence if self._is_sought(each, ran.history)]
        if not mine:
            return None
        others = tuple(each for each in ran.evidence if each is not mine[0])
        return Shrunk(ran.history, (mine[0], *others), self._care, finished=False)

    def _is_sought(self, evidence: Evidence, history: History) -> bool:
        return sought_in(evidence, history) == self._sought


# --- smaller histories ----------------------------------------------------------------------------
def _ends(history: History) -> Iterator[History]:
    """Keep the last steps only, the fewest first: most of a long history has nothing to do with its end."""
    length = 1
    while length < len(history.steps):
        yield _with_steps(history, history.steps[-length:])
        length *= 2


def _without_steps(history: History) -> Iterator[History]:
    """Leave steps out, the longest runs first; the last step, which shows it, stays."""
    size = len(history.steps) - 1
    length = size
    while length:
        for start in range(size - length, -1, -length):
            yield _with_steps(history, [*history.steps[:start], *history.steps[start + length :]])
        length //= 2


def _without_faults(history: History) -> Iterator[History]:
    for at, step in enumerate(history.steps):
        for index in range(len(step.faults)):
            left = (*step.faults[:index], *step.faults[index + 1 :])
            yield _with_step(history, at, replace(step, faults=left))


def _with_plain_purposes(history: History) -> Iterator[History]:
    """Take a step that was a retry or a probe for one of its own; the last one may need to be what it is."""
    for at, step in enumerate(history.steps):
        if step.purpose is not Purpose.EXPLORE:
            yield _with_step(history, at, replace(step, purpose=Purpose.EXPLORE))


def _with_simpler_faults(history: History) -> Iterator[History]:
    for at, step in enumerate(history.steps):
        for index, fault in enumerate(step.faults):
            for simpler in _simpler_fault(fault):
                faults = (*step.faults[:index], simpler, *step.faults[index + 1 :])
                yield _with_step(history, at, replace(step, faults=faults))


def _simpler_fault(fault: Fault) -> Iterator[Fault]:
    if fault.times != 1:
        yield replace(fault, times=1)
    for at in dict.fromkeys((1, fault.at // 2, fault.at - 1)):
        if 1 <= at < fault.at:
            yield replace(fault, at=at)
    if isinstance(fault, CallFault):
        if fault.errno is not Errno.EIO:
            yield CallFault(fault.device, fault.function, fault.at, fault.times)
    else:
        if fault.region:
            yield replace(fault, region="")
        if isinstance(fault.effect, Fails) and fault.effect != Fails():
            yield replace(fault, effect=Fails())


def _without_devices(history: History) -> Iterator[History]:
    devices = history.setup.devices
    for spec in devices[::-1]:
        if len(devices) == 1:
            return
        left = tuple(each for each in devices if each is not spec)
        steps = [_without_device(step, spec.name) for step in history.steps]
        if steps[-1] is not None:
            yield replace(
                history, setup=replace(history.setup, devices=left), steps=[s for s in steps if s is not None]
            )


def _without_device(step: Step, name: str) -> Step | None:
    """Return the step without a device: None when nothing of it is left."""
    operation = step.operation
    faults = tuple(fault for fault in step.faults if root_of(fault.device) != name)
    if isinstance(operation, Transaction):
        actions = tuple(action for action in operation.actions if root_of(action.device) != name)
        return replace(step, operation=replace(operation, actions=actions), faults=faults) if actions else None
    device = getattr(operation, "device", None)
    if device is not None:
        return None if root_of(device) == name else replace(step, faults=faults)
    changes: dict[str, object] = {}
    if getattr(operation, "vmstate_device", None) == name:
        changes["vmstate_device"] = None
    listed: tuple[str, ...] | None = getattr(operation, "devices", None)
    if listed is not None:
        changes["devices"] = tuple(each for each in listed if root_of(each) != name)
    smaller = _changed(operation, **changes)
    return replace(step, operation=smaller, faults=faults)


def _with_simpler_devices(history: History) -> Iterator[History]:
    for at, spec in enumerate(history.setup.devices):
        for simpler in _simpler_device(spec):
            devices = (*history.setup.devices[:at], simpler, *history.setup.devices[at + 1 :])
            yield replace(history, setup=Setup(devices, history.setup.semantics))


def _simpler_device(spec: DeviceSpec) -> Iterator[DeviceSpec]:
    if spec.kind is not Kind.DRIVER:
        yield replace(spec, kind=Kind.DRIVER)
    if spec.snapshots:
        yield replace(spec, snapshots=())
        for index in range(len(spec.snapshots) if len(spec.snapshots) > 1 else 0):
            yield replace(spec, snapshots=(*spec.snapshots[:index], *spec.snapshots[index + 1 :]))
    if spec.read_only:
        yield replace(spec, read_only=False)
    if spec.packed:
        yield replace(spec, packed=False)
    if spec.tag:
        yield replace(spec, tag=0)
    if spec.sectors > _SECTORS_SMALL:
        yield replace(spec, sectors=_SECTORS_SMALL)
    if spec.cluster_bytes != _CLUSTER_PLAIN:
        yield replace(spec, cluster_bytes=_CLUSTER_PLAIN)


def _with_simpler_operations(history: History) -> Iterator[History]:
    for at, step in enumerate(history.steps):
        for simpler in _simpler_operation(step.operation):
            yield _with_step(history, at, replace(step, operation=simpler))


def _simpler_operation(operation: Operation) -> Iterator[Operation]:
    """Yield the operation with one of its fields at its plainest."""
    for spec in fields(operation):
        plain, now = _PLAIN.get(spec.name), getattr(operation, spec.name)
        if spec.name == "devices" and now is not None:
            yield _changed(operation, devices=None)
        elif (
            spec.name in _PLAIN
            and now != plain
            and not (spec.name == "vm_state_size" and isinstance(operation, SaveVm))
        ):
            yield _changed(operation, **{spec.name: plain})


_PLAIN: Final = {
    "sector": 0, "count": 1, "tag": 1, "vm_state_size": 0, "date_sec": 0, "date_nsec": 0, "vm_clock_nsec": 0,
    "offset": 0, "length": 1, "vmstate_device": None,
}  # fmt: skip
_CLUSTER_PLAIN: Final = 4096


def _with_plain_names(history: History) -> Iterator[History]:
    """Give one name another, plainer one, everywhere at once."""
    used = list(dict.fromkeys(_names(history)))
    for name in used:
        for plain in _PLAIN_NAMES:
            if plain == name:
                break
            if plain not in used:
                yield _renamed(history, name, plain)


_PLAIN_NAMES: Final = ("a", "b", "c")
_NAME_FIELDS: Final = ("name", "snapshot_id", "id_or_name")


def _names(history: History) -> Iterator[str]:
    for step in history.steps:
        parts = step.operation.actions if isinstance(step.operation, Transaction) else (step.operation,)
        for part in parts:
            name = getattr(part, "name", None)
            if isinstance(name, str):
                yield _listed(name)


def _renamed(history: History, old: str, new: str) -> History:
    steps = [replace(step, operation=_with_name(step.operation, old, new)) for step in history.steps]
    devices = tuple(
        replace(
            spec, snapshots=tuple(replace(sn, name=new) if _listed(sn.name) == old else sn for sn in spec.snapshots)
        )
        for spec in history.setup.devices
    )
    return replace(history, setup=Setup(devices, history.setup.semantics), steps=steps)


def _listed(name: str) -> str:
    return cut_text(name, bytes_max=NAME_BYTES_MAX)


def _with_name(operation: Operation, old: str, new: str) -> Operation:
    if isinstance(operation, Transaction):
        actions = tuple(replace(each, name=new) if _listed(each.name) == old else each for each in operation.actions)
        return replace(operation, actions=actions)
    texts = {name: getattr(operation, name, None) for name in _NAME_FIELDS}
    changes = {name: new for name, text in texts.items() if text is not None and _listed(text) == old}
    return _changed(operation, **changes)


def _changed(operation: Operation, **changes: object) -> Operation:
    """Return the operation with these of its fields changed."""
    return replace(operation, **changes) if changes else operation  # type: ignore[arg-type]  # fields that it has


def _with_steps(history: History, steps: list[Step]) -> History:
    return replace(history, steps=steps)


def _with_step(history: History, at: int, step: Step) -> History:
    return replace(history, steps=[*history.steps[:at], step, *history.steps[at + 1 :]])


_PASSES: Final = (
    _ends, _without_steps, _without_devices, _without_faults, _with_simpler_devices, _with_simpler_operations,
    _with_simpler_faults, _with_plain_purposes, _with_plain_names,
)  # fmt: skip
