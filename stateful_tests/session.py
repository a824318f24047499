"""One history under test: the system, its faults and the judge beside it.

A session performs one operation at a time. Before it, the faults of the step are armed; after it they are taken away,
the devices are looked at, and the judge says which laws were broken. What was done is in `history`, and that alone
decides: judging it again from a file gives the same evidence.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from snapcheck.fault_injection.plan import FaultPlan
from snapcheck.impl.blockfile import BlockFile, MemoryFile
from snapcheck.impl.driver import Prepared, System, abandon
from snapcheck.impl.qcow2.prepare import prepared_image
from snapcheck.impl.targets import StartError, Target
from snapcheck.model.device import World
from snapcheck.model.errno import Errno
from snapcheck.model.facts import ASKS, WALKS, Evidence, members, root_of
from snapcheck.model.faults import CallFault, Fault
from snapcheck.model.history import (
    HANG,
    Care,
    Event,
    EventList,
    FaultMet,
    History,
    Level,
    Observation,
    Purpose,
    Result,
    Step,
    View,
)
from snapcheck.model.operations import (
    AllCanSnapshot,
    CanSnapshot,
    Create,
    Delete,
    Flush,
    List,
    Operation,
    SnapshotAction,
    Transaction,
    Write,
    kind_of,
)
from snapcheck.model.setup import DeviceSpec, Kind, Setup
from snapcheck.stateful_tests.compare import Judge
from snapcheck.stateful_tests.digest import Digest
from snapcheck.stateful_tests.suit import suited_faults, suited_operation, suited_setup
from snapcheck.stateful_tests.watchdog import HangError, Watchdog, watching

GROUP_OPERATIONS: Final = "group operations"
GROUP_OPERATIONS_ON_NOBODY: Final = "group operations on nobody"
GROUP_OPERATIONS_STRUCK: Final = "group operations on two or more devices that met a fault"
REPLACED: Final = "faults replaced by what the system can meet"
_PROBE_NAME: Final = "probe"
_PROBE_TAG: Final = 97
_PROBE_SECTORS: Final = 8


class Checkpoint(NamedTuple):
    """Where a history can be taken up again, any number of times: what was done, what the disks hold, the judge.

    `digest` is that of what was done.
    """

    history: History
    disks: tuple[BlockFile, ...]
    judge: Judge
    digest: Digest


Below = Callable[[str, BlockFile], BlockFile]  # puts something between a device and its disk


class Session:
    """A system under test with its history. Close it, or use it in a with statement.

    `below` is asked for what stands between each device and its disk.

    over        nothing more is judged: the model could not follow, or the process under test died
    broken_off  the last step was left half way (KeyboardInterrupt): nobody knows what it did
    counts      what happened how often, in words: for result.json
    digest      of the history, as far as somebody asked for it
    taken_over  how many steps of the history were done before this session: it started from a checkpoint
    """

    def __init__(
        self, target: Target, start: Setup | Checkpoint, *, care: Care = Care.USUAL, dog: Watchdog | None = None,
        below: Below | None = None,
    ) -> None:  # fmt: skip
        self._events = EventList()
        self._plan = FaultPlan(self._events)
        self._care = care
        self._dog = dog
        if isinstance(start, Setup):
            start = suited_setup(start, target.abilities)
        setup = start if isinstance(start, Setup) else start.history.setup
        disks = [disk_for(target, spec) for spec in setup.devices] if isinstance(start, Setup) else _copies(start)
        named = [(spec.name, disk) for spec, disk in zip(setup.devices, disks, strict=True)]
        under = named if below is None else [(name, below(name, disk)) for name, disk in named]
        files = [self._plan.wrap_file(name, file) for name, file in under]
        self._system = self._build(target, files, setup)
        self._prepared = self._system if isinstance(self._system, Prepared) else None
        self._start(setup if isinstance(start, Setup) else _setup_now(start))
        self._events.take()
        self.abilities: Final = self._system.abilities
        self._disks = disks
        self.history = History(setup, abilities=self.abilities, care=care)
        if isinstance(start, Setup):
            self.judge, self.digest = Judge(setup, self.abilities), Digest()
        else:
            self.judge, self.digest = start.judge.twin(), start.digest.twin()
            self.history.steps += start.history.steps
        self.taken_over = len(self.history.steps)
        self.over = False
        self.broken_off = False
        self.counts: Counter[str] = Counter()

    def _build(self, target: Target, files: Sequence[BlockFile], setup: Setup) -> System:
        semantics, recorder = setup.semantics.value, self._plan.recorder
        if target.factory is not None:
            return target.factory(files, semantics=semantics, recorder=recorder)
        assert target.open_driver is not None, "a target has one or the other"
        return target.layers(self._plan.wrap_open(target.open_driver), files, semantics=semantics, recorder=recorder)

    def _start(self, setup: Setup) -> None:
        """Start the system; a start that does not end is a `StartError` whose cause is a `HangError`."""
        try:
            with watching(self._dog, "start"):
                self._system.start(setup)
        except HangError as hang:
            abandon(self._system)
            raise StartError("the driver can not start: it hangs") from hang

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of everything; what hangs is left as a power cut leaves it."""
        try:
            with watching(self._dog, "close"):
                self._system.close()
        except HangError:
            abandon(self._system)

    @property
    def world(self) -> World:
        return self.judge.world

    # --- steps ------------------------------------------------------------------------------------
    def step(
        self,
        operation: Operation,
        faults: tuple[Fault, ...] = (),
        *,
        purpose: Purpose = Purpose.EXPLORE,
        everywhere: bool = False,
    ) -> list[Evidence]:
        """Perform one operation under `faults` and return the evidence against the driver.

        `everywhere` looks closely at all devices, whatever happened.
        """
        assert not self.over, "the history has ended"
        drawn, operation = faults, suited_operation(operation, self.abilities)
        faults = suited_faults(drawn, self.abilities)
        if faults != drawn:
            self.counts[REPLACED] += sum(one != other for one, other in zip(faults, drawn, strict=True))
        self.over = self.broken_off = True  # until the step is done: whatever ends it half way ends the history
        skipped: tuple[int, ...] = ()
        if faults:
            if self._prepared is not None:
                self._prepared.prepare(operation)
                self._events.take()
            skipped = self._arm(faults)
        result = self._perform(operation)
        if faults:
            self._plan.disarm()
            self._system.disarm()
        events = tuple(self._events.take())
        observations: tuple[Observation, ...] = ()
        if result.crash is None:
            struck = bool(faults) and any(type(event) is FaultMet for event in events)
            closely = everywhere or self._closely(operation, result, purpose, struck=struck)
            observations = self._look(operation, events, closely=closely, everywhere=everywhere)
            if struck and self._care is Care.LIVE and any(seen.memory.errors for seen in observations):
                observations = self._look(operation, events, closely=True, everywhere=everywhere)
        step = Step(operation, faults, purpose, skipped, events, result, observations)
        self.history.steps.append(step)
        self._count(step)
        evidence = self.judge.judge(step)
        self.over = self.judge.diverged or result.crash is not None
        self.broken_off = False
        return evidence

    def _count(self, step: Step) -> None:
        counts = self.counts
        if step.skipped:
            counts["faults that can not be injected"] += len(step.skipped)
        if step.purpose is Purpose.EXPLORE and isinstance(step.operation, WALKS):
            counts[GROUP_OPERATIONS] += 1
            counts[GROUP_OPERATIONS_ON_NOBODY] += not members(step.operation, self.judge.world)
            if step.faults and len(self.judge.world.included) > 1 and step.met:
                counts[GROUP_OPERATIONS_STRUCK] += 1

    def _perform(self, operation: Operation) -> Result:
        kind = kind_of(operation)
        try:
            with watching(self._dog, kind):
                return self._system.perform(operation)
        except HangError:
            return Result(crash=f"{HANG} {kind} did not end")

    def flush_all(self) -> None:
        """Have all devices flushed, and whatever that does forgotten: no step of the history."""
        for name, device in self.world.devices.items():
            if device.present and device.image is not None:
                self._system.perform(Flush(name))
        self._events.take()

    def checkpoint(self) -> Checkpoint | None:
        """Return where this history stands, if it can be taken up from there.

        None when not everything is on the disks: the last step has to have looked closely at all devices.
        """
        if self.over or not self.judge.certain or not self.history.steps or not self.abilities.io:
            return None
        reopened = {seen.device for seen in self.history.steps[-1].observations if seen.disk is not None}
        for disk, (name, device) in zip(self._disks, self.world.devices.items(), strict=True):
            if device.spec.kind is Kind.EMPTY:
                continue
            # A system would format an empty disk.
            if name not in reopened or device.bitmaps or device.child_bitmaps or not disk.size():
                return None
        history = History(self.history.setup, list(self.history.steps), self.history.abilities)
        disks = tuple(disk.clone() for disk in self._disks)
        return Checkpoint(history, disks, self.judge.twin(), self.digest.twin())

    def state_key(self) -> str:
        """Return a text that is equal for equal states: the same disks, and the same expectations of them."""
        seen = hashlib.blake2b(repr(self.world).encode("utf-8", "surrogateescape"), digest_size=16)
        for disk in self._disks:
            seen.update(disk.pread(0, disk.size()))
        return seen.hexdigest()

    def follow_up(self) -> list[Evidence]:
        """After a step that failed under a fault: repeat it without, and go on, to see whether all is well again.

        With care `live` the guest writes in between, as guests do.
        """
        last = self.history.steps[-1]
        if (
            self.over
            or self._care in {Care.LIGHT, Care.ASKED, Care.LATE}
            or last.purpose is not Purpose.EXPLORE
            or last.result.errno is Errno.OK
            or not last.met
        ):
            return []
        probes = [(operation, Purpose.PROBE) for operation in self._probes(last)]
        between = [each for each in probes if isinstance(each[0], Write)] if self._care is Care.LIVE else []
        found: list[Evidence] = []
        for operation, purpose in (*between, (last.operation, Purpose.RETRY), *probes):
            if self.over or found:
                break
            found += self.step(operation, purpose=purpose)
        return found

    def finish(self) -> list[Evidence]:
        """Look closely at every device, as the last step of the history; not where each operation changes something."""
        harmless = None if self.over or not self.history.steps else self._harmless()
        return [] if harmless is None else self.step(harmless, everywhere=True)

    # --- faults -----------------------------------------------------------------------------------
    def _arm(self, faults: tuple[Fault, ...]) -> tuple[int, ...]:
        """Arm what can be injected, and return the indices of what can not."""
        plan, system = self._plan, self._system
        plan.arm(faults)
        left = [fault for fault in faults if not plan.can_inject(fault)]
        if not left:
            return ()
        refused = system.arm([fault for fault in left if isinstance(fault, CallFault)])
        return tuple(
            at
            for at, fault in enumerate(faults)
            if fault in left and (fault in refused or not isinstance(fault, CallFault))
        )

    # --- looking ----------------------------------------------------------------------------------
    def _look(
        self, operation: Operation, events: Sequence[Event], *, closely: bool, everywhere: bool
    ) -> tuple[Observation, ...]:
        world = self.judge.world
        if everywhere:
            return self._observe(world.devices, self._closest)
        touched = {event.device for event in events if type(event) is not FaultMet}
        if not self.abilities.io or not isinstance(operation, ASKS):
            touched.update(members(operation, world))
        level = self._closest if closely else self._lightest(operation)
        return self._observe([name for name in world.devices if name in touched], level)

    def _observe(self, devices: Iterable[str], level: Level) -> tuple[Observation, ...]:
        seen: list[Observation] = []
        for name in devices:
            try:
                with watching(self._dog, f"{level} look"):
                    seen.append(self._system.observe(name, level=level))
            except HangError:
                seen.append(Observation(name, level, View(errors=(f"look: {HANG} it did not end",))))
                break
        self._events.take()  # looking is no part of the operation
        return tuple(seen)

    @property
    def _closest(self) -> Level:
        return Level.FULL if self._care is not Care.LIGHT and self.abilities.reopen else Level.LIGHT

    @staticmethod
    def _lightest(operation: Operation) -> Level:
        """Return the least that must be looked at: what reads the list alone changes no content."""
        return Level.LIST if isinstance(operation, ASKS) else Level.LIGHT

    def _closely(self, operation: Operation, result: Result, purpose: Purpose, *, struck: bool) -> bool:
        """Tell whether what was touched deserves a close look: a failure, a fault, the end of going on after one."""
        if self._care in {Care.ASKED, Care.LIVE}:
            return False
        if purpose is Purpose.PROBE and self._care is not Care.CLOSE:
            return isinstance(operation, Delete)  # the last of them
        if self._care is Care.CLOSE or purpose is Purpose.RETRY:
            return True
        failed = self._care is not Care.LATE and result.errno is not Errno.OK and not isinstance(operation, ASKS)
        return failed or struck

    # --- going on after a failure -----------------------------------------------------------------
    def _probes(self, failed: Step) -> Iterator[Operation]:
        """Yield what a user might do next with the devices that were struck: write, take a snapshot and drop it."""
        for name in dict.fromkeys(fault.device for fault in failed.met):
            root = root_of(name)
            device = self.world.devices[root]
            if device.image is None or not device.present or device.read_only or device.spec.kind is Kind.PLAIN:
                continue
            create: Operation = Create(root, _PROBE_NAME)
            if not self._can(create):
                create = Transaction((SnapshotAction(root, _PROBE_NAME),))
            probes: list[Operation] = [create, Delete(root, None, _PROBE_NAME)]
            if device.image.sectors:
                most = device.image.sectors if self._care is Care.LIVE else _PROBE_SECTORS
                probes.insert(1, Write(root, 0, min(most, device.image.sectors), _PROBE_TAG))
            yield from (probe for probe in probes if self._can(probe))

    def _can(self, operation: Operation) -> bool:
        kinds = self.abilities.operations
        return kinds is None or kind_of(operation) in kinds

    def _harmless(self) -> Operation | None:
        """Return an operation that only looks, for the close look at the end; None if the system performs none."""
        first = next(iter(self.world.devices))
        looks = (AllCanSnapshot(), CanSnapshot(first), List(first), Flush(first))
        return next((each for each in looks if self._can(each)), None)


def disk_for(target: Target, spec: DeviceSpec) -> MemoryFile:
    """Return what a device of that description starts with: a prepared image, or an empty disk to be formatted."""
    if spec.kind in (Kind.PLAIN, Kind.EMPTY) or target.format != "qcow2":
        return MemoryFile(spec.name)
    return prepared_image(spec)


def _copies(start: Checkpoint) -> list[BlockFile]:
    return [disk.clone() for disk in start.disks]


def _setup_now(start: Checkpoint) -> Setup:
    """Return what a system is to be started with: the devices, in the mode that they were left in."""
    setup, now = start.history.setup, start.judge.world.devices
    devices = tuple(replace(spec, read_only=now[spec.name].read_only) for spec in setup.devices)
    return Setup(devices, setup.semantics)
