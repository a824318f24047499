"""The model's state: what each device of a group is and holds, and what an operation may answer and leave behind.

A dictionary of images. No clusters, no refcounts, no format: content is a tag per sector (model/content.py). Each step
makes a dozen of these values and compares as many, so they are tuples.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from snapcheck.model.errno import Errno
from snapcheck.model.operations import SubmitWrite
from snapcheck.model.setup import DeviceSpec, Semantics
from snapcheck.model.snapshot import SnapshotInfo

ANY_ERROR: Final = frozenset(Errno) - {Errno.OK}  # where only the failure is promised, not its errno


class Content(NamedTuple):
    """A tag per sector. `maybe` lists what a sector may hold instead, until somebody looks: (sector, other tags).

    A discard or a failed write leaves such sectors. Sectors past the end of `tags` are not specified.
    """

    tags: bytes
    maybe: tuple[tuple[int, bytes], ...] = ()


class Snapshot(NamedTuple):
    """A snapshot: the entry as stored (uncut), and what it holds. `vmstate` is None where nothing is promised of it.

    `extra` is data that nobody here knows and the entry had beforehand: it survives (SPEC G.10).
    """

    info: SnapshotInfo
    sectors: int
    content: Content
    vmstate: bytes | None = b""
    extra: bytes = b""


class Image(NamedTuple):
    """What the driver under test keeps. `view` is the snapshot that load_tmp shows until the device is closed."""

    sectors: int
    content: Content
    vmstate: bytes | None = b""
    snapshots: tuple[Snapshot, ...] = ()
    view: Snapshot | None = None


class Device(NamedTuple):
    """One device of the group.

    present      the medium is in: the root node's drv is not NULL, and it is inserted
    bitmaps      dirty bitmaps of the root node; child_bitmaps those of `name/file`
    in_flight    guest writes that were submitted and have not landed
    damaged      it met a fault that may lose acknowledged data: neither its data nor its answers are predicted any more
    """

    spec: DeviceSpec
    image: Image | None
    read_only: bool = False
    present: bool = True
    bitmaps: frozenset[str] = frozenset()
    child_bitmaps: frozenset[str] = frozenset()
    in_flight: tuple[SubmitWrite, ...] = ()
    damaged: bool = False

    @property
    def included(self) -> bool:
        """Whether a walk without a list visits it: inserted and writable; root nodes have a BlockBackend."""
        return self.present and self.image is not None and not self.read_only


@dataclass(frozen=True, slots=True)
class World:
    """All devices by name, in walk order, and the profile that rules them.

    `included` are those that a walk without a list visits (SPEC A.10).
    """

    devices: Mapping[str, Device]
    semantics: Semantics = Semantics.CLASSIC
    included: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "included", tuple([name for name, each in self.devices.items() if each.included]))


class Expected(NamedTuple):
    """What an operation may answer, field by field as in `history.Result`.

    `errnos` and `sn` are sets of allowed values; None means that nothing is promised of that field. For the other
    fields None means that the operation does not have it, or that first_bad_bs is NULL. `message` says whether errp
    is set.
    """

    errnos: frozenset[Errno] | None = frozenset({Errno.OK})
    answer: bool | None = None
    first_bad: str | None = None
    sn: tuple[SnapshotInfo, ...] | None = None
    snapshots: tuple[SnapshotInfo, ...] | None = None
    device: str | None = None
    data: bytes | None = None
    message: bool | None = None


class Allowed(NamedTuple):
    """A state that a device may be in afterwards. `note` is the rule that explains a new state after an error."""

    state: Device
    note: str = ""


class Outcome(NamedTuple):
    """One allowed outcome: an answer, and for each device that may differ from before the states it may be in."""

    expected: Expected
    devices: Mapping[str, tuple[Allowed, ...]]
