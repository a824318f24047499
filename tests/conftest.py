"""What tests of several folders need: devices to try things on, a failing run, built by hand, and QEMU's tools."""

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from snapcheck.fault_injection.plan import FaultPlan
from snapcheck.impl.blockfile import MemoryFile
from snapcheck.impl.driver import OpenDriver
from snapcheck.impl.local import LocalSystem
from snapcheck.impl.qcow2.driver import open_driver as open_qcow2
from snapcheck.impl.qcow2.prepare import prepared_image
from snapcheck.model.errno import Errno
from snapcheck.model.faults import CallFault, Fault
from snapcheck.model.history import (
    Abilities,
    Call,
    Check,
    Drain,
    Event,
    EventList,
    FaultMet,
    History,
    Io,
    Level,
    Lock,
    Observation,
    Result,
    SnapshotContent,
    Step,
    View,
)  # fmt: skip
from snapcheck.model.law_names import Law, Severity
from snapcheck.model.operations import AllCreate, AllDelete, Create, Operation, Write
from snapcheck.model.setup import DeviceSpec, Kind, Semantics, Setup
from snapcheck.model.snapshot import SnapshotInfo
from snapcheck.reports.verdict import (
    Coverage,
    LawReport,
    PhaseCoverage,
    PhaseReport,
    RunResult,
    Verdict,
    ViolationReport,
)

HOSTILE = "<script>alert(1)</script> \udcff\n]]>"


def observed(device: str, content: bytes) -> Observation:
    entries = (SnapshotInfo("1", HOSTILE), SnapshotInfo("2", "a"))
    view = View(entries, len(content), content)
    kept = (
        SnapshotContent(bytes(128), 128),
        SnapshotContent(content, 128, b"\1" * 100),
    )
    return Observation(device, Level.FULL, view, view, kept, Check(messages=("all well",)))


def device_events(device: str, errno: int) -> tuple[Call | Lock | Drain | Io, ...]:
    return (
        Lock(device, "acquire", "main"),
        Call(device, device, "find", "generic", "enter"), Call(device, device, "find", "generic", "return"),
        Call(device, device, "delete", "generic", "enter"), Drain(device, "begin"),
        Call(device, device, "delete", "driver", "enter"), Io(device, "write", 65536, 512, "snapshot-table"),
        Io(device, "flush", 0, 0), Call(device, device, "delete", "driver", "return", errno), Drain(device, "end"),
        Call(device, device, "delete", "generic", "return", errno), Lock(device, "release", "main"),
    )  # fmt: skip


@pytest.fixture
def history() -> History:
    """Three devices; the delete on d1 fails, and the driver blames d2."""
    setup = Setup((DeviceSpec("d0", tag=1), DeviceSpec("d1", Kind.RAW_OVER, tag=2), DeviceSpec("d2", read_only=True)))
    violating = Step(
        AllDelete("a"),
        faults=(CallFault("d1", "delete", errno=Errno.ENOSPC),),
        events=(*device_events("d0", 0), *device_events("d1", -28), FaultMet("d1", 0)),
        result=Result(Errno.ENOSPC, first_bad="d2", message="Could not delete snapshot 'a'"),
        observations=(observed("d0", b"\1" * 100 + b"\3" * 28), observed("d1", b"\2" * 128)),
    )
    steps = [
        Step(Create("d0", HOSTILE, date_sec=7), result=Result(sn=SnapshotInfo("1", HOSTILE))),
        Step(Write("d0", 100, 28, 3), result=Result()),
        Step(AllCreate("a", "d0", 100), result=Result(first_bad=None)),
        violating,
    ]
    return History(setup, steps, Abilities())


@pytest.fixture
def violation(history: History) -> ViolationReport:
    return ViolationReport(
        id="a1b2c3d4", law=Law.RIGHT_CULPRIT, severity=Severity.ERROR, device="d1", operation="all-delete",
        summary="all-delete on d1 failed with ENOSPC and the driver blamed d2", operations=4, faults=1,
        phase="stateful", found_after_s=0.8, known=False, replay="snapcheck replay a1b2c3d4",
        evidence=("first_bad_bs names d2", f"snapshot {HOSTILE!r}"), expected="ENOSPC, first_bad_bs is d1",
        actual="ENOSPC, first_bad_bs is d2", step=3, history=history,
    )  # fmt: skip


@pytest.fixture
def failed(violation: ViolationReport) -> RunResult:
    deleted = {"all-delete x delete-call x last x one snapshot": 7, "all-delete x none x first x dirty bitmap": 40}
    hits = {**deleted, "create x write-error x root x no snapshot": 0}
    reached = PhaseCoverage("stateful", 2, 1, ("create",), deleted)
    return RunResult(
        version="0.1.0", verdict=Verdict.FAILED, driver="my.driver:factory", semantics="classic", seed=7, devices=3,
        seconds=41.2,
        phases=(PhaseReport("stateful", 812, 9021, 12.1, complete=True, scope="812 histories", counts={"faults": 9}),),
        laws=(
            LawReport(Law.RIGHT_CULPRIT, 1204, 1, not_observable=False),
            LawReport(Law.LIST_EXACT, 9021, 0, not_observable=False),
            LawReport(Law.LOCKS_BALANCED, 0, 0, not_observable=True),
        ),
        coverage=Coverage(412, 398, ("all-goto x flush-error x last",), hits, (reached,)),
        violations=(violation,), notes=(f"a note about {HOSTILE}",),
    )  # fmt: skip


def require_program(program: str) -> None:
    if not shutil.which(program):
        message = f"needs {program}: apt-get install qemu-utils qemu-system-x86 (Debian, Ubuntu)"
        if os.environ.get("SNAPCHECK_REQUIRE_QEMU"):
            pytest.fail(f"{message}; SNAPCHECK_REQUIRE_QEMU forbids to skip this")
        pytest.skip(message)


@pytest.fixture(scope="session")
def running_qemu() -> None:
    """Skip the test, or fail it, where there is no QEMU to run."""
    for program in ("qemu-system-x86_64", "qemu-storage-daemon"):
        require_program(program)


@pytest.fixture(scope="session")
def qemu() -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Run one of QEMU's programs: `qemu("qemu-img", "check", path)`. Without it the test is skipped, or fails.

    It fails where SNAPCHECK_REQUIRE_QEMU is set: a run that must not miss anything sets it.
    """

    def run(program: str, *arguments: object, text: str | None = None) -> "subprocess.CompletedProcess[str]":
        require_program(program)
        command = [program, *(str(argument) for argument in arguments)]
        return subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=60, check=False, input=text
        )

    return run


# --- devices to try things on ---------------------------------------------------------------------
class Bench:
    """A system of devices, on `prepared` images or on empty disks; `events` are those of the last operation."""

    def __init__(
        self, *specs: DeviceSpec | Kind, semantics: str = "classic", open_driver: OpenDriver = open_qcow2,
        layers: type[LocalSystem] = LocalSystem, prepared: bool = False,
    ) -> None:  # fmt: skip
        named = tuple(
            spec if isinstance(spec, DeviceSpec) else DeviceSpec(f"d{at}", spec, sectors=16, tag=9)
            for at, spec in enumerate(specs)
        )
        self._heard = EventList()
        self.plan = FaultPlan(self._heard)
        self.disks = [
            self.plan.wrap_file(spec.name, prepared_image(spec) if prepared else MemoryFile(spec.name))
            for spec in named
        ]
        opener = self.plan.wrap_open(open_driver)
        self.system = layers(opener, self.disks, semantics=semantics, recorder=self.plan.recorder)
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
