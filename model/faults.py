"""The faults that can be injected, as data, and which laws bind under each family.

A fault belongs to one step of a history: it is armed before the step's operation and taken away when that returns.
Counting (`at`, `times`) starts anew with each operation; `times=0` means from then on, until it is taken away.
"""

from dataclasses import dataclass
from enum import StrEnum

from snapcheck.model.errno import Errno
from snapcheck.model.law_names import Law

CALLS = ("create", "goto", "delete", "list", "find", "load_tmp")
IO_KINDS = ("read", "write", "flush", "discard", "truncate", "any")
REGIONS = ("header", "l1", "l2", "refcount-table", "refcount-block", "snapshot-table", "data")


# --- what happens to the I/O that meets the fault -------------------------------------------------
@dataclass(frozen=True, slots=True)
class Fails:
    """It reports `errno` and has no effect.

    From then on (times 0), with kind `any` and ENOMEDIUM: the medium vanished. With kind `write` and EROFS: the medium
    turned read-only, so that discards and truncates fail as well once it struck.
    """

    errno: Errno = Errno.EIO


@dataclass(frozen=True, slots=True)
class LandsButFails:
    """It takes full effect and yet reports `errno`."""

    errno: Errno = Errno.EIO


@dataclass(frozen=True, slots=True)
class Short:
    """A write: the first `sectors` sectors land, the rest keeps its old content, and `errno` is reported."""

    sectors: int
    errno: Errno = Errno.EIO


@dataclass(frozen=True, slots=True)
class Torn:
    """A write: only the first `sectors` sectors land, and success is reported."""

    sectors: int


@dataclass(frozen=True, slots=True)
class Lost:
    """A write, discard or truncate is acknowledged and never lands."""


@dataclass(frozen=True, slots=True)
class Misdirected:
    """A write lands `sectors` sectors further on (or before, when negative), and success is reported."""

    sectors: int


@dataclass(frozen=True, slots=True)
class BitFlip:
    """One bit of the data is inverted: of what a read returns, or of what a write puts on the medium."""

    bit: int


@dataclass(frozen=True, slots=True)
class Fill:
    """A write is acknowledged, but its sectors hold zeroes (or garbage) afterwards."""

    garbage: bool = False


@dataclass(frozen=True, slots=True)
class DropsUnflushed:
    """A flush reports `errno`, and everything written since the last flush is gone; the next flush succeeds."""

    errno: Errno = Errno.EIO


@dataclass(frozen=True, slots=True)
class Delay:
    """It takes `nanoseconds` of the simulated clock, and is otherwise served as asked."""

    nanoseconds: int


Effect = Fails | LandsButFails | Short | Torn | Lost | Misdirected | BitFlip | Fill | DropsUnflushed | Delay


# --- where it strikes -----------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class CallFault:
    """The `at`-th call of the driver's `function` on `device` is not made and answers `errno` instead.

    `find` is the list call that bdrv_snapshot_find makes; `list` is any other.
    """

    device: str
    function: str
    at: int = 1
    times: int = 1
    errno: Errno = Errno.EIO


@dataclass(frozen=True, slots=True)
class IoFault:
    """The `at`-th `kind` of I/O below `device` (that touches `region`, unless it is empty) meets `effect`."""

    device: str
    kind: str
    effect: Effect
    region: str = ""
    at: int = 1
    times: int = 1


Fault = CallFault | IoFault


class Family(StrEnum):
    """Faults that leave the same laws binding."""

    ERROR = "error"  # an error is reported; nothing that was acknowledged is lost
    DAMAGE = "damage"  # acknowledged data is lost or wrong
    DELAY = "delay"  # only time passes


def family(fault: Fault) -> Family:
    """Return the family of `fault`."""
    if isinstance(fault, CallFault) or isinstance(fault.effect, Fails | LandsButFails | Short):
        return Family.ERROR
    return Family.DELAY if isinstance(fault.effect, Delay) else Family.DAMAGE


_ALL = frozenset(Law)
# Where acknowledged data is lost, nobody can promise data, nor that the driver notices. It may still never blame an
# innocent device, touch one, keep a lock, hang or die.
_UNDER_DAMAGE = frozenset({
    Law.OUT_PARAMS, Law.RIGHT_CULPRIT, Law.STOPS_AT_FIRST, Law.EXCLUDED_UNTOUCHED, Law.LOCKS_BALANCED, Law.DRAINED,
    Law.NO_HANG, Law.NO_CRASH,
})  # fmt: skip
BINDING: dict[Family, frozenset[Law]] = {Family.ERROR: _ALL, Family.DAMAGE: _UNDER_DAMAGE, Family.DELAY: _ALL}


def binding(fault: Fault) -> frozenset[Law]:
    """Return the laws that bind on a device once it met `fault`; all laws go on binding on every other device."""
    return BINDING[family(fault)]
