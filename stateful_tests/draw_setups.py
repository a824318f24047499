"""Drawing a setup: which devices a history starts with, and what is on their images beforehand."""

from dataclasses import replace
from typing import Final

from snapcheck.model.setup import DeviceSpec, Kind, PreparedSnapshot, Semantics, Setup
from snapcheck.stateful_tests.chooser import Chooser, pick, weighted

HAS_IMAGE: Final = frozenset({Kind.DRIVER, Kind.RAW_OVER, Kind.FILTER_OVER})  # the driver under test is in there

_COUNTS: Final = weighted((1, 1), (3, 2), (6, 3), (2, 4))
_KINDS: Final = weighted((12, Kind.DRIVER), (3, Kind.RAW_OVER), (3, Kind.FILTER_OVER), (1, Kind.PLAIN), (1, Kind.EMPTY))

_GEOMETRIES: Final = weighted(  # (sectors, cluster_bytes)
    (4, (16, 4096)), (3, (64, 4096)), (3, (128, 4096)), (3, (16, 512)), (3, (64, 512)), (2, (128, 512)),
    (1, (50, 512)), (1, (33, 4096)), (1, (0, 512)), (1, (128, 65536)),
)  # fmt: skip
_CONDITIONS: Final = weighted(  # (read_only, tag, packed, unshared)
    (5, (False, 0, False, False)), (3, (False, 9, False, False)), (1, (False, 9, False, True)),
    (1, (False, 9, True, False)), (1, (True, 9, False, False)),
)  # fmt: skip


def _prepared(id_str: str, name: str, *, tag: int = 11, sectors: int = 0, vm: int = 0) -> PreparedSnapshot:
    """Return a template; 0 sectors stands for the size of the device."""
    return PreparedSnapshot(id_str, name, sectors=sectors, tag=tag, vm_state_size=vm, date_sec=1_600_000_000)


_ONE: Final = (_prepared("1", "a"),)
_TWO: Final = (_prepared("1", "a"), _prepared("2", "b", tag=12, vm=765))
PREPARED: Final[tuple[tuple[PreparedSnapshot, ...], ...]] = (
    _ONE,
    _TWO,
    (_prepared("1", "a", vm=765),),
    (_prepared("4294967297", "a"),),  # beyond 32 bits: the next id is 4294967298 (BUGS B27)
    (_prepared("4294967297", "a"), _prepared("2", "b", tag=12)),
    (_prepared("4294967295", "a"),),
    (_prepared("2147483647", "a"),),
    (_prepared("18446744073709551615", "a"),),  # the next id wraps to "0" (SPEC B.2)
    (_prepared("x", "a"), _prepared("7", "b", tag=12)),  # not a number: counts as 0
    (_prepared("1", "2"), _prepared("2", "1", tag=12)),  # each is named like the other's id
    (_prepared("1", "a"), _prepared("2", "a", tag=12)),  # a name that repeats: the first one is found
    (_prepared("3", "a"), _prepared("3", "b", tag=12)),  # an id that repeats
    (_prepared("1", "a"), _prepared("1", "a", tag=12), _prepared("2", "a", tag=13)),  # one can not be reached at all
    (_prepared("1", ""),),
    (_prepared("1", "n" * 255),),
    (_prepared("1", "n" * 300), _prepared("2", "n" * 256, tag=12)),  # listed under one name, stored under two
    (_prepared("9" * 127, "a"),),
    (_prepared("i" * 200, "a"),),
    (replace(_prepared("1", "a"), extra=b"\xee" * 24), _prepared("2", "b", tag=12)),  # unknown extra data
    (_prepared("1", "a", sectors=24),),  # taken at another size
    (_prepared("1", "a", sectors=200, vm=765),),
    (_prepared("1", "\u00e9t\u00e9"), _prepared("2", "<script>", tag=12), _prepared("3", "-x", tag=13)),
    (replace(_prepared("1", "a"), date_sec=2**32 - 1, date_nsec=999_999_999, vm_clock_nsec=2**63 - 1),),
)
# What of them a history starts with: nothing anywhere, the same everywhere, or something else on each device.
_THEMES: Final = weighted((5, "none"), (4, "shared"), (3, "each"))
_EACH: Final = ((), (), (), (), *PREPARED)
_USUAL: Final = (*(_ONE, _TWO) * 2, *PREPARED)


def draw_setup(
    chooser: Chooser, *, semantics: Semantics = Semantics.CLASSIC, devices_max: int = 4, qcow2_prepared: bool = True
) -> Setup:
    """Draw a setup of 1 to `devices_max` devices; with snapshots on the images where the driver opens prepared ones."""
    count = pick(chooser, tuple(count for count in _COUNTS if count <= devices_max))
    theme = pick(chooser, _THEMES) if qcow2_prepared else "none"
    shared = pick(chooser, _USUAL) if theme == "shared" else ()
    devices: list[DeviceSpec] = []
    for number in range(count):
        device = _draw_device(chooser, f"d{number}")
        templates = pick(chooser, _EACH) if theme == "each" else shared
        if device.kind in HAS_IMAGE:
            device = replace(device, snapshots=tuple(_sized(template, device.sectors) for template in templates))
        if not (qcow2_prepared and device.kind in HAS_IMAGE):
            device = replace(device, packed=False, unshared=False)
        elif device.unshared:  # it has no snapshots, which share what they hold; rare, as every group stops at it
            rare = theme == "each" and semantics is Semantics.MODERN
            device = replace(device, snapshots=() if rare else device.snapshots, unshared=rare)
        devices.append(device)
    return Setup(tuple(devices), semantics)


def _draw_device(chooser: Chooser, name: str) -> DeviceSpec:
    # Every kind takes the same number of choices: Hypothesis holds fewer choices for simpler, and an odd kind is not.
    kind = pick(chooser, _KINDS)
    sectors, cluster_bytes = pick(chooser, _GEOMETRIES)
    read_only, tag, packed, unshared = pick(chooser, _CONDITIONS)
    if kind is Kind.EMPTY:
        return DeviceSpec(name, kind)
    return DeviceSpec(
        name, kind, sectors=sectors, cluster_bytes=cluster_bytes, read_only=read_only, tag=tag, packed=packed,
        unshared=unshared,
    )  # fmt: skip


def _sized(template: PreparedSnapshot, sectors: int) -> PreparedSnapshot:
    return template if template.sectors else replace(template, sectors=sectors)
