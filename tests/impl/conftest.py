"""What the stories of the layers share: a few devices over our engine, under a plan of faults, and what they did."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from snapcheck.fault_injection.plan import FaultPlan
from snapcheck.impl.blockfile import MemoryFile
from snapcheck.impl.driver import OpenDriver
from snapcheck.impl.local import LocalSystem
from snapcheck.impl.qcow2.driver import open_driver as open_qcow2
from snapcheck.model.faults import Fault
from snapcheck.model.history import Call, Event, EventList, Io, Level, Lock, Observation, Result
from snapcheck.model.operations import Operation
from snapcheck.model.setup import DeviceSpec, Kind, Semantics, Setup


class Bench:
    """A system of devices; `events` are those of the last operation."""

    def __init__(
        self, *specs: DeviceSpec | Kind, semantics: str = "classic", open_driver: OpenDriver = open_qcow2,
        layers: type[LocalSystem] = LocalSystem,
    ) -> None:  # fmt: skip
        named = tuple(
            spec if isinstance(spec, DeviceSpec) else DeviceSpec(f"d{at}", spec, sectors=16, tag=9)
            for at, spec in enumerate(specs)
        )
        self._heard = EventList()
        self.plan = FaultPlan(self._heard)
        disks = [self.plan.wrap_file(spec.name, MemoryFile(spec.name)) for spec in named]
        opener = self.plan.wrap_open(open_driver)
        self.system = layers(opener, disks, semantics=semantics, recorder=self.plan.recorder)
        self.system.start(Setup(named, Semantics(semantics)))
        self.events: Sequence[Event] = self._heard.take()

    def do(self, operation: Operation, *faults: Fault) -> Result:
        self.plan.arm(faults)
        result = self.system.perform(operation)
        self.plan.disarm()
        self.events = self._heard.take()
        return result

    def all(self, *operations: Operation) -> None:
        """Perform what must succeed."""
        for operation in operations:
            result = self.do(operation)
            assert result.errno == 0, (operation, result)
            assert result.crash is None

    def look(self, device: str = "d0", level: Level = Level.LIGHT) -> Observation:
        seen = self.system.observe(device, level=level)
        self._heard.take()
        return seen

    def names(self, device: str = "d0") -> list[str] | None:
        """The names of the device's snapshots; None when they can not be listed."""
        listed = self.look(device, Level.LIST).memory.snapshots
        return None if listed is None else [info.name for info in listed]

    def content(self, device: str = "d0") -> bytes | None:
        return self.look(device).memory.content

    # --- what the last operation did --------------------------------------------------------------
    def story(self, *kinds: type[Event]) -> list[str]:
        """The events without the I/O (or only those of `kinds`), each in a few words."""
        return [_words(event) for event in self.events if (type(event) in kinds if kinds else type(event) is not Io)]

    def calls(self) -> list[str]:
        """Which function of which node was entered, in order; `driver` is a call into the driver below it."""
        return [
            f"{event.function} {event.node}" + (" driver" if event.layer == "driver" else "")
            for event in self.events
            if isinstance(event, Call) and event.edge == "enter"
        ]

    def unbalanced(self) -> dict[str, int]:
        """How often each lock was taken more often than it was given back."""
        held: dict[str, int] = {}
        for event in self.events:
            if isinstance(event, Lock):
                held[event.device] = held.get(event.device, 0) + (1 if event.action == "acquire" else -1)
        return {device: count for device, count in held.items() if count}


def _words(event: Event) -> str:
    match event:
        case Call(node=node, function=function, layer=layer, edge=edge):
            return f"{edge} {function} {node}" + (" driver" if layer == "driver" else "")
        case Lock(device=device, action=action):
            return f"{action} {device}"
        case Io(device=device, kind=kind):
            return f"{kind} {device}"
        case _:
            return " ".join(str(part) for part in (type(event).__name__.lower(), *event) if part)


@pytest.fixture
def bench() -> Callable[..., Any]:
    """Build a Bench: kinds or specs of devices, `semantics`, `open_driver`, `layers`."""
    return Bench
