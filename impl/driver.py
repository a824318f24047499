"""The contract: what a driver, and a system of devices, must offer to be put under test (DESIGN.md section 4)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar, runtime_checkable

from snapcheck.impl.blockfile import BlockError, BlockFile
from snapcheck.model.faults import Fault
from snapcheck.model.history import Abilities, Check, Level, Observation, Recorder, Result
from snapcheck.model.operations import Operation
from snapcheck.model.setup import Setup
from snapcheck.model.snapshot import SnapshotInfo

T = TypeVar("T")

__all__ = [
    "Abilities", "BlockError", "BlockFile", "Capabilities", "CreateOptions", "Driver", "Factory", "OpenDriver", "Out",
    "Prepared", "System", "UnsupportedSetupError", "abandon", "prepare",
]  # fmt: skip


@dataclass(slots=True)
class Out(Generic[T]):
    """An out-parameter: a cell that the caller fills with a sentinel and the callee may write."""

    value: T


@dataclass(frozen=True, slots=True)
class CreateOptions:
    """How to format a new image; `cluster_bytes` is a hint to drivers that have clusters."""

    size_bytes: int
    cluster_bytes: int = 65536


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a driver can do; what it can not do is skipped, counted and listed.

    `format`: "qcow2" lets the harness prepare images for it and judge what it wrote with its own checker.
    `clone`: the driver is `Clonable`, which makes looking at many snapshots cheaper.
    """

    snapshots: bool = True
    goto: bool = True
    load_tmp: bool = True
    vmstate: bool = True
    resize: bool = True
    discard: bool = True
    clone: bool = False
    check: bool = False
    format: str | None = None


class Driver(Protocol):
    """One open device. Every method raises `BlockError` for an error; offsets and sizes are bytes.

    Guest I/O lies inside the size and comes in whole sectors of 512 bytes; VM state comes in any pieces.
    `snapshot_create` gets the caller's struct in a cell and writes the chosen id into it. `snapshot_goto` takes an id
    or a name, the id first (SPEC B.3). Methods of capabilities that are declared absent are never called. After any
    BlockError other than from close, the driver is still usable, or answers every later call with a BlockError until
    it is closed. Whoever closes an image flushes it: what was written before is durable then.
    """

    @property
    def capabilities(self) -> Capabilities: ...
    def close(self) -> None: ...
    def size(self) -> int: ...
    def read(self, offset: int, length: int) -> bytes: ...
    def write(self, offset: int, data: bytes) -> None: ...
    def write_zeroes(self, offset: int, length: int) -> None: ...
    def discard(self, offset: int, length: int) -> None: ...
    def flush(self) -> None: ...
    def resize(self, size_bytes: int) -> None: ...
    def snapshot_create(self, sn: Out[SnapshotInfo]) -> None: ...
    def snapshot_goto(self, snapshot_id: str) -> None: ...
    def snapshot_delete(self, snapshot_id: str | None, name: str | None) -> None: ...
    def snapshot_list(self) -> Sequence[SnapshotInfo]: ...
    def snapshot_load_tmp(self, snapshot_id: str | None, name: str | None) -> None: ...
    def vmstate_read(self, offset: int, length: int) -> bytes: ...
    def vmstate_write(self, offset: int, data: bytes) -> None: ...
    def check(self) -> Check: ...


class Clonable(Protocol):
    """A driver that can be copied as it is, with its image: neither copy sees what is done to the other."""

    def clone(self) -> Driver: ...


class OpenDriver(Protocol):
    """The plain contract: open what is on `disk`, or format it first when `create` is given."""

    def __call__(self, disk: BlockFile, *, read_only: bool, create: CreateOptions | None) -> Driver: ...


class System(Protocol):
    """Several devices behind the snapshot API: what `perform`s the alphabet.

    `start` builds the devices of a setup (a disk of size 0 is to be formatted, any other is to be opened) and raises
    `UnsupportedSetupError` for one that it can not build. `arm` takes faults for the next operation and returns those
    that it can not inject (I/O faults never get here: the disks obey them); `disarm` takes them away. `perform` never
    raises for what a driver answers: that is in the Result. `observe` with level full closes and opens the device.
    """

    @property
    def abilities(self) -> Abilities: ...
    def start(self, setup: Setup) -> None: ...
    def arm(self, faults: Sequence[Fault]) -> Sequence[Fault]: ...
    def disarm(self) -> None: ...
    def perform(self, operation: Operation) -> Result: ...
    def observe(self, device: str, *, level: Level) -> Observation: ...
    def close(self) -> None: ...


@runtime_checkable
class Abandoned(Protocol):
    """A system with more than memory to let go of: `abandon` lets go of it as a power cut does, without closing."""

    def abandon(self) -> None: ...


def abandon(system: System) -> None:
    """Let go of a system whose power is gone: nothing may reach its disks any more."""
    if isinstance(system, Abandoned):
        system.abandon()


@runtime_checkable
class Prepared(Protocol):
    """A system that gets ready for an operation by what is no part of it: no fault of the step meets that."""

    def prepare(self, operation: Operation) -> None: ...


def prepare(system: System, operation: Operation) -> None:
    """Have a system get ready for an operation, before anything is armed."""
    if isinstance(system, Prepared):
        system.prepare(operation)


class UnsupportedSetupError(Exception):
    """A system can not build this setup; the harness skips the history and counts it."""


class Factory(Protocol):
    """The full contract with users: build a system over `disks`, one for each device, in order."""

    def __call__(self, disks: Sequence[BlockFile], *, semantics: str, recorder: Recorder) -> System: ...
