"""How much of the model is explored: how many devices, names, values and snapshots, and what is done to them.

A scope is finite because its alphabet is small. An `Act` is an operation in it: names are `a`, `b` and so on, a guest
write stamps a whole device with one value (0 is zeroes), and an id is spoken of by its rank among the device's ids,
`#1` the smallest. Ids are numbers and names are letters, so that no text means both.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from math import perm
from string import ascii_lowercase
from typing import Final, NamedTuple

from snapcheck.model.device import Device, Snapshot
from snapcheck.model.operations import (
    KINDS,
    AllCanSnapshot,
    AllCreate,
    AllDelete,
    AllFind,
    AllFindVmstateBs,
    AllGoto,
    CanSnapshot,
    Create,
    Delete,
    Find,
    Goto,
    List,
    Operation,
    Write,
    WriteZeroes,
)
from snapcheck.model.setup import DeviceSpec, Semantics, Setup

SECTORS: Final = 16  # of a device in a scope: two clusters of 4096 bytes
NAMES: Final = ascii_lowercase
DEVICES_MAX: Final = 8
VALUES_MAX: Final = 254
SNAPSHOTS_MAX: Final = 9
# The call of a driver that an operation on one device makes, where that can be refused.
CALL_OF: Final[Mapping[type[Operation], str]] = {
    Create: "create",
    Goto: "goto",
    Delete: "delete",
    Find: "find",
    List: "list",
}


class ScopeError(ValueError):
    """There is no such scope, or it is too large; the text is one line with the way out."""


class Act(NamedTuple):
    """An operation in small. A snapshot is spoken of by its name or by the rank of its id, from 1."""

    kind: type[Operation]
    name: str = ""
    rank: int = 0
    value: int = 0

    @property
    def words(self) -> str:
        """What it is called in a path and in a graph: `goto #1`, `all-create a`."""
        if self.kind in {Write, WriteZeroes}:
            return f"write {self.value}"
        return " ".join((KINDS[self.kind], self.name or (f"#{self.rank}" if self.rank else ""))).rstrip()

    def on(self, device: Device, name: str) -> Operation | None:
        """Return the operation on a device called `name` in that state; None when it has no id of that rank."""
        if not self.rank:
            return _ON_ONE[self.kind](self, name, None)
        ids = sorted((snapshot.info.id_str for snapshot in snapshots_of(device)), key=int)
        return _ON_ONE[self.kind](self, name, ids[self.rank - 1]) if self.rank <= len(ids) else None

    def on_all(self) -> Operation:
        """Return the operation on the whole group."""
        return _ON_ALL[self.kind](self)


_ON_ONE: Final[Mapping[type[Operation], Callable[[Act, str, str | None], Operation]]] = {
    WriteZeroes: lambda _, name, __: WriteZeroes(name, 0, SECTORS),
    Write: lambda act, name, _: Write(name, 0, SECTORS, act.value),
    CanSnapshot: lambda _, name, __: CanSnapshot(name),
    List: lambda _, name, __: List(name),
    Find: lambda act, name, _: Find(name, act.name),
    Create: lambda act, name, _: Create(name, act.name),
    Goto: lambda act, name, snapshot_id: Goto(name, snapshot_id or act.name),
    Delete: lambda act, name, snapshot_id: Delete(name, snapshot_id, act.name or None),
}
_ON_ALL: Final[Mapping[type[Operation], Callable[[Act], Operation]]] = {
    AllCanSnapshot: lambda _: AllCanSnapshot(),
    AllFindVmstateBs: lambda _: AllFindVmstateBs(),
    AllFind: lambda act: AllFind(act.name),
    AllCreate: lambda act: AllCreate(act.name),
    AllGoto: lambda act: AllGoto(act.name),
    AllDelete: lambda act: AllDelete(act.name),
}


def snapshots_of(device: Device) -> tuple[Snapshot, ...]:
    """Return the snapshots of a device."""
    return () if device.image is None else device.image.snapshots


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What is explored: every state of so many devices that these operations lead to.

    snapshots    at most so many on one device; what would lead to one more leads out of the scope
    duplicates   whether one device may have several snapshots of one name; else the second leads out of the scope
    refusals     whether calls of the driver are refused as well, each where it comes up
    without      kinds of operations that are left out, for a system that does not perform them
    """

    devices: int = 2
    names: int = 1
    values: int = 2
    snapshots: int = 2
    duplicates: bool = False
    refusals: bool = True
    without: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raise `ScopeError` for a number that can not be."""
        _require("devices", self.devices, DEVICES_MAX)
        _require("names", self.names, len(NAMES))
        _require("values", self.values, VALUES_MAX)
        _require("snapshots", self.snapshots, SNAPSHOTS_MAX)

    @property
    def words(self) -> str:
        """The scope for people: `2 devices, 1 name, 2 values, at most 1 snapshot on each`."""
        parts = [counted(self.devices, "device"), counted(self.names, "name"), counted(self.values, "value")]
        parts.append(f"at most {counted(self.snapshots_max, 'snapshot')} on each")
        parts += ["duplicate names"] * self.duplicates + ["no call refused"] * (not self.refusals)
        parts += [f"without {kind}" for kind in self.without]
        return ", ".join(parts)

    @property
    def snapshots_max(self) -> int:
        """How many snapshots a device can have: no more than there are names, unless names repeat."""
        return self.snapshots if self.duplicates else min(self.snapshots, self.names)

    @property
    def device_states(self) -> int:
        """How many states one device can be in, at most: what is active, and an ordered list of names and values."""
        lists = (
            (pow(self.names, length) if self.duplicates else perm(self.names, length)) * pow(self.values, length)
            for length in range(self.snapshots_max + 1)
        )
        total: int = self.values * sum(lists)
        return total

    @property
    def states(self) -> int:
        """How many states the devices can be in together, at most."""
        total: int = pow(self.device_states, self.devices)
        return total

    def holds(self, device: Device) -> bool:
        """Tell whether the scope has room for that state of a device."""
        snapshots = snapshots_of(device)
        names = {snapshot.info.name for snapshot in snapshots}
        return len(snapshots) <= self.snapshots_max and (self.duplicates or len(names) == len(snapshots))

    def setup(self, semantics: Semantics = Semantics.CLASSIC) -> Setup:
        """Return the devices as they start: nothing was ever written."""
        return Setup(tuple(DeviceSpec(f"d{at}", sectors=SECTORS) for at in range(self.devices)), semantics)

    def acts(self) -> tuple[Act, ...]:
        """Return what can be done to one device."""
        return tuple(self._able(chain(self._writes(), self._looks(), self._snapshot_acts())))

    def group_acts(self) -> tuple[Act, ...]:
        """Return what can be done to the group."""
        whole, named = (AllCanSnapshot, AllFindVmstateBs), (AllFind, AllCreate, AllGoto, AllDelete)
        acts = (Act(kind, name) for kind in named for name in NAMES[: self.names])
        return tuple(self._able(chain(map(Act, whole), acts)))

    def _able(self, acts: Iterator[Act]) -> Iterator[Act]:
        return (act for act in acts if KINDS[act.kind] not in self.without)

    def _writes(self) -> Iterator[Act]:
        yield Act(WriteZeroes)
        for value in range(1, self.values):
            yield Act(Write, value=value)

    def _looks(self) -> Iterator[Act]:
        yield Act(CanSnapshot)
        yield Act(List)
        for name in NAMES[: self.names]:
            yield Act(Find, name)

    def _snapshot_acts(self) -> Iterator[Act]:
        for name in NAMES[: self.names]:
            yield Act(Create, name)
            yield Act(Goto, name)
            yield Act(Delete, name)
        for rank in range(1, self.snapshots_max + 1):
            yield Act(Goto, rank=rank)
            yield Act(Delete, rank=rank)


def without(kinds: Collection[str] | None) -> tuple[str, ...]:
    """Return what has to be left out of a scope for a system that performs `kinds` (as in Abilities.operations)."""
    used = (KINDS[kind] for kind in (*_ON_ONE, *_ON_ALL))
    return () if kinds is None else tuple(word for word in used if word not in kinds)


def _require(what: str, number: int, most: int) -> None:
    if not 1 <= number <= most:
        raise ScopeError(f"{what} {number}: give 1 to {most}")


def counted(number: int, what: str, several: str = "") -> str:
    """Return a number of things in words; `several` is the word for them where it is not `what` with an s."""
    return f"{number:,} {what if number == 1 else several or what + 's'}"
