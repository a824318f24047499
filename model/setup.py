"""Where a history starts: the devices of a group, what each is made of, and what is on its image beforehand."""

from dataclasses import dataclass
from enum import StrEnum


class Semantics(StrEnum):
    """The profiles: which version's behaviour is the reference (DESIGN.md section 1)."""

    CLASSIC = "classic"
    MODERN = "modern"
    TRANSACTIONAL = "transactional"


class Kind(StrEnum):
    """What a device of the group is made of."""

    DRIVER = "driver"  # the driver under test is the root node
    RAW_OVER = "raw-over"  # a raw format node over the driver under test: falls back to its child
    FILTER_OVER = "filter-over"  # a filter node over the driver under test: falls back to its child
    PLAIN = "plain"  # raw on a file: nothing below it can take a snapshot
    EMPTY = "empty"  # a drive without a medium: never included, ENOMEDIUM when asked itself


class Unfinished(StrEnum):
    """What somebody who never closed an image left to the next one who opens it for writing."""

    COUNTS = "counts"  # counts are stale, and the image says so: lazy refcounts (qcow2: the dirty bit)
    EXTENSION = "extension"  # an extension that the driver does not know is not kept up to date (qcow2: autoclear)


@dataclass(frozen=True, slots=True)
class PreparedSnapshot:
    """A snapshot that is on the image before the first operation, ids and names as stored, not as cut by the API.

    Its content is `tag` in every sector of `sectors`; its VM state is `vmstate_pattern(tag, 0, vm_state_size)`.
    """

    id_str: str
    name: str
    sectors: int
    tag: int
    vm_state_size: int = 0
    date_sec: int = 0
    date_nsec: int = 0
    vm_clock_nsec: int = 0
    extra: bytes = b""  # unknown extra data behind the fields that 5.1 knows (qcow2: after disk_size)


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes of the image file that somebody wrecked before it is opened. `cut` ends the file behind them."""

    offset: int
    data: bytes
    cut: bool = False


@dataclass(frozen=True, slots=True)
class DeviceSpec:
    """One device of a history.

    `tag` stamps the active content at the start (0: nothing was ever written). `cluster_bytes` is a hint to drivers
    that have clusters. The root node is called `name`; the child of a raw-over or filter-over device `name/file`.
    `damage` is done to the image last, in order; what follows from it the model can not say, so only phase `images`
    does any, and asks no more than whether the driver lives. `packed`: the active content is stored compressed, where
    the image is prepared and its format can do that; nobody who reads it notices. `unfinished`: what the first open has
    to put right, where the image is prepared. `unshared`: the image has no room for reference counts above one (qcow2:
    refcount_bits=1), so that a snapshot of anything that takes room is refused.
    """

    name: str
    kind: Kind = Kind.DRIVER
    sectors: int = 128
    cluster_bytes: int = 4096
    read_only: bool = False
    tag: int = 0
    snapshots: tuple[PreparedSnapshot, ...] = ()
    damage: tuple[Damage, ...] = ()
    packed: bool = False
    unfinished: Unfinished | None = None
    unshared: bool = False


@dataclass(frozen=True, slots=True)
class Setup:
    """Everything that a history needs before its first operation: the profile, and the devices in walk order."""

    devices: tuple[DeviceSpec, ...]
    semantics: Semantics = Semantics.CLASSIC
