"""The DRIVER argument: what can be put under test, by its name here or by its place in a Python module."""

import difflib
import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, cast

from snapcheck.impl.blockfile import BlockFile, MemoryFile
from snapcheck.impl.checked import StartError, TargetError
from snapcheck.impl.checked_system import guarded
from snapcheck.impl.driver import Abilities, Capabilities, Factory, OpenDriver, System, UnsupportedSetupError
from snapcheck.impl.local import LocalSystem
from snapcheck.model.faults import REGIONS
from snapcheck.model.history import EventList, Recorder
from snapcheck.model.setup import DeviceSpec, Semantics, Setup
from snapcheck.model.snapshot import SnapshotInfo

__all__ = ["StartError", "Target", "TargetError", "find_target", "known_targets"]

FORM: Final = "package.module:attribute"
_QCOW2: Final = "qcow2"
WHERE_QEMU: Final = "SNAPCHECK_QEMU"  # the folder of QEMU's programs, or one of them; where it is not set PATH counts
_QEMU: Final = "snapcheck.impl.adapters.qemu"
_SYSTEMS: Final = {  # by name: the factory, and what it is
    "qemu": (f"{_QEMU}.system:QemuSystem", "a running QEMU: savevm, loadvm, delvm, transactions"),
    "qemu-jobs": (f"{_QEMU}.jobs:QemuJobs", "a running QEMU through QMP: snapshot-save, -load and -delete"),
    "qemu-img": (f"{_QEMU}.img:QemuImg", "qemu-img on images that nobody else has open: snapshot -c, -a and -d"),
    "qemu-storage-daemon": (f"{_QEMU}.daemon:QemuDaemon", "QEMU's storage daemon: transactions of internal snapshots"),
}
_PROBE: Final = Setup((DeviceSpec("d0", sectors=128, cluster_bytes=4096),))


@dataclass(slots=True)
class Target:
    """Something to put under test. It has an `open_driver` for one device, or a `factory` for a whole system.

    `layers` makes a system of an `open_driver`: with another class a bug is planted above the driver.
    `semantics` is the only profile that it can be judged by, None where that is for the user to say.
    `as_shown` turns an entry as stored into what the system shows of it, `state_as_shown` does so with the VM state
    of a snapshot; None where that is the same.
    `regions` are the names that the driver gives to parts of its image (model.faults.REGIONS, or none of them).
    """

    name: str
    what: str
    open_driver: OpenDriver | None = None
    factory: Factory | None = None
    layers: type[LocalSystem] = LocalSystem
    regions: tuple[str, ...] = ()
    semantics: Semantics | None = None
    as_shown: Callable[[SnapshotInfo], SnapshotInfo] | None = None
    state_as_shown: Callable[[bytes], bytes] | None = None
    _able: tuple[Abilities, Capabilities | None] | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def usual_semantics(self) -> Semantics:
        """The profile for what depends on none: the only one that it can be judged by, or classic."""
        return self.semantics or Semantics.CLASSIC

    @property
    def abilities(self) -> Abilities:
        """What a system of it can show and do; it is asked once, and `StartError` says why it could not be."""
        return self._asked()[0]

    @property
    def capabilities(self) -> Capabilities | None:
        """What the driver says that it can do; None for a factory, whose `abilities` say it."""
        return self._asked()[1]

    def _asked(self) -> tuple[Abilities, Capabilities | None]:
        if self._able is None:
            self._able = _asked(self.built, self.usual_semantics)
        return self._able

    @property
    def format(self) -> str | None:
        """The image format that the harness can prepare images of: "qcow2", or None."""
        return "qcow2" if self.abilities.prepared_images else None

    def built(self, disks: Sequence[BlockFile], *, semantics: str, recorder: Recorder) -> System:
        """Return a new system over `disks`; `StartError` when it can not be built."""
        if self.factory is not None:
            return self.factory(disks, semantics=semantics, recorder=recorder)
        assert self.open_driver is not None, "a target has one or the other"
        return self.layers(self.open_driver, disks, semantics=semantics, recorder=recorder)


def known_targets() -> Sequence[Target]:
    """Return the drivers that have a name here."""
    return tuple(find_target(name) for name in (_QCOW2, *_SYSTEMS))


def find_target(spec: str) -> Target:
    """Return what `spec` names, a driver known here or `package.module:attribute`, or raise `TargetError`."""
    if spec == _QCOW2:
        open_driver = cast("OpenDriver", _built_in("snapcheck.impl.qcow2.driver:open_driver"))
        return Target(spec, "the qcow2 engine of snapcheck itself", open_driver, regions=REGIONS)
    if spec in _SYSTEMS:
        place, what = _SYSTEMS[spec]
        return _system(spec, what, _built_in(place))
    module_name, colon, attribute = spec.partition(":")
    if not colon or not module_name or not attribute:
        raise TargetError(_unknown(spec))
    if "/" in module_name or module_name.endswith(".py"):
        dotted = module_name.removesuffix(".py").rpartition("/")[2]
        raise TargetError(f"{module_name!r} is a file: go to its folder and name the module, {dotted}:{attribute}")
    found = _attribute(_module(module_name), attribute, spec)
    return replace(found, name=spec) if isinstance(found, Target) else _target(spec, found)


def _built_in(place: str) -> object:
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _unknown(spec: str) -> str:
    names = (_QCOW2, *_SYSTEMS)
    near = difflib.get_close_matches(spec, names, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return f"there is no driver {spec!r}{hint}: known are {', '.join(names)}, and one of your own is {FORM}"


# --- looking into a module ------------------------------------------------------------------------
def _module(name: str) -> object:
    """Import a module, from the current folder first."""
    here = os.getcwd()  # noqa: PTH109  # sys.path holds strings
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            text = f"there is no module {name!r}, neither in the current folder nor installed"
            raise TargetError(f"{text} (a driver is {FORM})") from None
        raise TargetError(_failed_import(name, error)) from error
    except (Exception, SystemExit) as error:  # whatever it is, it is the module's
        raise TargetError(_failed_import(name, error)) from error


def _failed_import(name: str, error: BaseException) -> str:
    last_line = traceback.format_exception_only(error)[-1].strip()
    return f"the module {name!r} can not be imported: {last_line}"


def _attribute(module: object, path: str, spec: str) -> object:
    found = module
    for name in path.split("."):
        if not hasattr(found, name):
            raise TargetError(_missing(found, name, spec))
        found = getattr(found, name)
    if not callable(found) and not isinstance(found, Target):
        raise TargetError(f"{spec} is {type(found).__name__}, not a function: give a factory or an open_driver")
    return found


def _missing(owner: object, name: str, spec: str) -> str:
    public = [each for each in dir(owner) if not each.startswith("_") and callable(getattr(owner, each, None))]
    near = difflib.get_close_matches(name, public, n=3, cutoff=0.5)
    hint = f"; there is {' and '.join(near)}" if near else ""
    return f"{spec}: there is no {name!r} in {getattr(owner, '__name__', owner)}{hint}"


# --- a factory or an open_driver ------------------------------------------------------------------
def _target(spec: str, found: object) -> Target:
    call = cast("Callable[..., Any]", found)
    try:
        signature = inspect.signature(call)
    except (TypeError, ValueError):
        raise TargetError(f"{spec} does not say what it takes; wrap it in a Python function. {_CALLS}") from None
    if _takes(signature, "semantics", "recorder"):
        return _system(spec, "a system of its own", found)
    if _takes(signature, "read_only", "create"):
        return Target(spec, "a driver for one device", open_driver=cast("OpenDriver", found))
    raise TargetError(f"{spec} takes {signature}. {_CALLS}")


def _system(spec: str, what: str, factory: object) -> Target:
    """Return the target of a factory; what it says of itself is in attributes of it that need not be there."""
    return Target(
        spec, what, factory=guarded(spec, cast("Factory", factory)), semantics=getattr(factory, "only_semantics", None),
        as_shown=getattr(factory, "as_shown", None), state_as_shown=getattr(factory, "state_as_shown", None),
    )  # fmt: skip


_CALLS: Final = "An open_driver is called as (disk, *, read_only, create), a factory as (disks, *, semantics, recorder)"


def _takes(signature: inspect.Signature, *keywords: str) -> bool:
    """Tell whether it names these keywords, and can be called with one thing and them."""
    if not all(keyword in signature.parameters for keyword in keywords):
        return False
    try:
        signature.bind(None, **dict.fromkeys(keywords))
    except TypeError:
        return False
    return True


# --- what it can do -------------------------------------------------------------------------------
def _asked(build: Factory, semantics: Semantics) -> tuple[Abilities, Capabilities | None]:
    """Start a system on a small disk in memory, and ask it."""
    system = build([MemoryFile("d0")], semantics=semantics.value, recorder=EventList())
    try:
        system.start(_PROBE)
        return system.abilities, system.capabilities if isinstance(system, LocalSystem) else None
    except UnsupportedSetupError as error:
        raise StartError(f"the driver can not format a disk of 64 KiB: {error}") from error
    finally:
        system.close()
