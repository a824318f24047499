"""Everything that the laws look at when they judge one step, and the evidence that they give."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from snapcheck.model.device import Device, Outcome, World
from snapcheck.model.errno import Errno
from snapcheck.model.history import UNWRITTEN, Abilities, Check, Observation, Step
from snapcheck.model.law_names import Law, Severity
from snapcheck.model.match import Difference, Part
from snapcheck.model.operations import (
    AllCanSnapshot,
    AllCreate,
    AllDelete,
    AllFind,
    AllFindVmstateBs,
    AllGoto,
    CanSnapshot,
    DelVm,
    Find,
    FindByIdAndName,
    List,
    LoadTmp,
    LoadTmpByIdOrName,
    LoadVm,
    Operation,
    Reopen,
    SaveVm,
    SetMedium,
    SetReadOnly,
    Transaction,
    VmstateRead,
    kind_of,
)
from snapcheck.model.setup import Semantics
from snapcheck.model.trace import Trace

ALL_LAWS: Final = frozenset(Law)
STATE: Final = (Part.LIST, Part.SIZE, Part.CONTENT, Part.MEDIUM)  # what an operation leaves of a device itself
WALKS: Final = (
    AllCanSnapshot, AllFind, AllCreate, AllGoto, AllDelete, AllFindVmstateBs, SaveVm, LoadVm, DelVm, Transaction,
)  # fmt: skip
ASKS: Final = (  # what changes nothing
    VmstateRead, CanSnapshot, Find, FindByIdAndName, List, AllCanSnapshot, AllFind, AllFindVmstateBs,
)  # fmt: skip
LOOKS: Final = (*ASKS, LoadTmp, LoadTmpByIdOrName)  # what changes no medium: the last two show another content of it
REOPENS: Final = (Reopen, SetReadOnly, SetMedium)
WHERE: Final = {"memory": "in memory", "disk": "on disk"}
TEXT_MAX: Final = 600


@dataclass(frozen=True, slots=True)
class Evidence:
    """What speaks against a driver: one line, with what the model allows and what was there instead.

    `device` is empty where no single device is to blame.
    """

    law: Law
    severity: Severity
    device: str
    summary: str
    expected: str
    actual: str


Judged = Iterator[Evidence | None]
HELD: Final = None


def error(law: Law, device: str, summary: str, expected: str, actual: str) -> Evidence:
    """Return evidence of severity error."""
    return Evidence(law, Severity.ERROR, device, summary, one_line(expected), one_line(actual))


def warning(law: Law, device: str, summary: str, expected: str, actual: str) -> Evidence:
    """Return evidence of severity warning: counted and shown, and without influence on the verdict."""
    return Evidence(law, Severity.WARNING, device, summary, one_line(expected), one_line(actual))


def one_line(text: str) -> str:
    """Return `text` on one line, not longer than a report can show: what a driver died of can be a whole traceback."""
    flat = text if "\n" not in text else " / ".join(line.strip() for line in text.splitlines() if line.strip())
    return flat if len(flat) <= TEXT_MAX else f"{flat[: TEXT_MAX // 2]} ... {flat[-TEXT_MAX // 2 :]}"


def differs(law: Law, device: str, summary: str, bad: Difference) -> Evidence:
    """Return evidence that a part of a device is not as the model allows."""
    return error(law, device, summary, bad.expected, bad.actual)


class Look(NamedTuple):
    """One observed device: what was seen, beside the allowed state that is nearest to it.

    `differences` is empty when it fits; `note` is the rule that explains a new state after an error; `changes` tells
    whether the model lets the operation change this device; `binding` are the laws that bind on it.
    """

    seen: Observation
    before: Device
    state: Device
    note: str
    differences: tuple[Difference, ...]
    changes: bool
    struck: bool
    binding: frozenset[Law]

    def first(self, *parts: Part) -> Difference | None:
        """Return the first difference in one of these parts of the device."""
        return next((bad for bad in self.differences if bad.part in parts), None) if self.differences else None

    def effect_missing(self) -> Difference | None:
        """Return where the device does not show what the model gives it, apart from its older snapshots."""
        return self.first(*STATE) or self.new_snapshot()

    def new_snapshot(self) -> Difference | None:
        """Return a snapshot of this step that holds something else than it should."""
        if not self.differences:
            return None
        return next((bad for bad in self.differences if bad.part is Part.SNAPSHOT and not self._was_there(bad)), None)

    def old_snapshot(self) -> Difference | None:
        """Return a snapshot from before this step that holds something else than it should."""
        if not self.differences:
            return None
        return next((bad for bad in self.differences if bad.part is Part.SNAPSHOT and self._was_there(bad)), None)

    def _was_there(self, bad: Difference) -> bool:
        """Tell whether the snapshot is older than the step; ids come back, so what it holds counts too (W-12)."""
        snapshot, image = bad.snapshot, self.before.image
        if snapshot is None or image is None:
            return False
        same = [old for old in image.snapshots if old.info == snapshot.info]
        return any(old.content == snapshot.content or old.content.maybe for old in same)


@dataclass(slots=True)
class Running:
    """What earlier steps left behind; the judge keeps it from step to step.

    in_flight   guest requests that were submitted and have not completed, by device
    checks      what the checker said of a device when it last looked
    unflushed   devices on which something was written since their last flush that succeeded
    troubled    devices that answered an error or met a fault since the checker last looked
    failed      devices that ever did
    """

    in_flight: dict[str, int] = field(default_factory=dict[str, int])
    checks: dict[str, Check] = field(default_factory=dict[str, Check])
    unflushed: set[str] = field(default_factory=set[str])
    troubled: set[str] = field(default_factory=set[str])
    failed: set[str] = field(default_factory=set[str])

    def twin(self) -> "Running":
        """Return a copy that goes on by itself."""
        return Running(
            dict(self.in_flight), dict(self.checks), set(self.unflushed), set(self.troubled), set(self.failed)
        )


class StepFacts(NamedTuple):
    """One recorded step beside the model.

    outcomes   what the model allows; `nearest` is the one that fits best
    wrong      fields of the answer that are not as `nearest` says (model/match.py)
    picked     `nearest` when answer and observations fit it, else None
    walk       the devices that take part (A.10)
    looks      the observed devices, by name
    vague      a damaged device takes part: neither answer nor effects are predicted
    limited    there are devices on which not all laws bind
    fallen     the first look at a device during which the process under test died, or did not answer
    """

    step: Step
    abilities: Abilities
    before: World
    outcomes: Sequence[Outcome]
    nearest: Outcome
    wrong: tuple[str, ...]
    walk: tuple[str, ...]
    looks: Mapping[str, Look]
    trace: Trace
    running: Running
    vague: bool = False
    limited: bool = True
    fallen: Observation | None = None

    @property
    def picked(self) -> Outcome | None:
        return None if self.wrong or self.differs else self.nearest

    @property
    def differs(self) -> bool:
        """Whether some device was not as the nearest outcome has it."""
        return any(look.differences for look in self.looks.values())

    @property
    def failed(self) -> bool:
        """Whether the operation reported an error; a plain no is an answer."""
        return self.step.result.errno is not Errno.OK

    @property
    def names_nobody(self) -> bool:
        """Whether first_bad_bs must be NULL: on complete success, which for can and find is a yes."""
        return not self.failed and self.step.result.answer is not False

    @property
    def modern(self) -> bool:
        return self.before.semantics is Semantics.MODERN

    @property
    def is_group(self) -> bool:
        return isinstance(self.step.operation, WALKS)

    @property
    def device(self) -> str:
        """The device of an operation on one; for a group operation the one that it names, or should."""
        operation = self.step.operation
        if not isinstance(operation, WALKS):
            return root_of(operation.device)
        named = self.step.result.first_bad
        return (self.nearest.expected.first_bad if named in {None, UNWRITTEN} else named) or ""

    @property
    def kind(self) -> str:
        """The operation in words; one on a single device with that device."""
        operation = self.step.operation
        kind = kind_of(operation)
        return kind if isinstance(operation, WALKS) else f"{kind} of {root_of(operation.device)}"

    @property
    def what(self) -> str:
        """The operation in words, with the device that its answer is about."""
        return f"{self.kind} at {self.device}" if self.is_group and self.device else self.kind

    def bound(self, law: Law) -> Iterable[tuple[str, Look]]:
        """Return the observed devices on which `law` binds."""
        looks = self.looks.items()
        if not self.limited:
            return looks
        return [(name, look) for name, look in looks if law in look.binding]


# --- who takes part (SPEC A.10) -------------------------------------------------------------------
def root_of(node: str) -> str:
    """Return the device that a node belongs to: `d0/file` is part of `d0`."""
    return node.partition("/")[0]


def members(operation: Operation, world: World) -> tuple[str, ...]:
    """Return the devices that a group operation or caller may touch; vm_state_bs is one of them wherever it is."""
    match operation:
        case AllCanSnapshot() | AllFind() | AllGoto() | AllDelete() | AllCreate() | AllFindVmstateBs():
            if operation.devices is None or world.semantics is not Semantics.MODERN:
                names = world.included
            else:
                names = tuple(dict.fromkeys(root_of(node) for node in operation.devices))
            if isinstance(operation, AllCreate) and operation.vmstate_device is not None:
                return tuple(dict.fromkeys((*names, root_of(operation.vmstate_device))))
            return names
        case SaveVm() | LoadVm() | DelVm():
            return world.included
        case Transaction(actions=actions):
            return tuple(dict.fromkeys(root_of(action.device) for action in actions))
        case _:
            return (root_of(operation.device),)
