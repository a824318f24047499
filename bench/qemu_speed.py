"""What the harness costs on top of QEMU: group operations a second, against a script that sends the same and no more.

    python bench/qemu_speed.py [TURNS]

Three devices; savevm, loadvm and delvm in turn, each of them followed by a light look in the harness. The bare scripts
have the same disks (served over NBD from memory), and images in files. All take turns in one run, so that a busy
machine is busy for all, and each ratio is the median of those of the turns: by the clock, and by the processor time of
this process and of QEMU, which another's work touches less. Then cases of the sweep a second: start, save, a delete
under a fault, and what follows a failure.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import NamedTuple

from snapcheck.impl.adapters.qemu.keeper import KEEPER
from snapcheck.impl.adapters.qemu.process import MACHINE, find_program
from snapcheck.impl.qcow2.prepare import prepared_image
from snapcheck.impl.targets import find_target
from snapcheck.model.faults import Fails, IoFault
from snapcheck.model.history import Care
from snapcheck.model.operations import DelVm, LoadVm, Operation, SaveVm
from snapcheck.model.setup import DeviceSpec, Semantics, Setup
from snapcheck.stateful_tests.gather import rare_collections
from snapcheck.stateful_tests.session import Session

SETUP = Setup(tuple(DeviceSpec(f"d{at}", sectors=16, tag=9) for at in range(3)), Semantics.MODERN)
ROUND: tuple[Operation, ...] = (SaveVm("a"), LoadVm("a"), DelVm("a"))
LINES = ('savevm "a"', 'loadvm "a"', 'delvm "a"')
ROUNDS_EACH_TURN = 10
PLACES = 14
Turn = Callable[[], None]


class Runner(NamedTuple):
    """Who takes turns: what it does in a round, and the process id of its QEMU."""

    turn: Turn
    pid: int


class Took(NamedTuple):
    """What a turn took: seconds by the clock, and seconds of processor time."""

    wall: float
    cpu: float


def harness(stack: ExitStack) -> Runner:
    """Return a round of the harness, as it looks at least."""
    session = stack.enter_context(Session(find_target("qemu"), SETUP, care=Care.LIGHT))
    pid = KEEPER.lent[-1].pid

    def turn() -> None:
        for operation in ROUND:
            assert not session.step(operation)

    return Runner(turn, pid)


def bare(stack: ExitStack, folder: Path | None) -> Runner:
    """Return a round of the commands alone, on images in `folder`, or served from memory."""
    process = KEEPER.lend(MACHINE)
    stack.callback(KEEPER.end, process)
    for spec in SETUP.devices:
        process.disks.offer(spec.name, prepared_image(spec))
        server = {"type": "unix", "path": process.disks.address, "abstract": True}
        below: dict[str, object] = {"driver": "nbd", "server": server, "export": spec.name}
        if folder is not None:
            below = {"driver": "file", "filename": str(_image(folder / spec.name))}
        process.monitor.execute("blockdev-add", {"driver": "qcow2", "node-name": spec.name, "file": below})

    def turn() -> None:
        for line in LINES:
            assert not process.monitor.say(line)

    return Runner(turn, process.pid)


def _image(path: Path) -> Path:
    options = ("-q", "-f", "qcow2", "-o", "cluster_size=4096")
    subprocess.run([find_program("qemu-img"), "create", *options, path, "8k"], check=True)
    return path


def fault_case(at: int) -> None:
    """Run one case of the sweep: a fault at the `at`-th I/O of a delete."""
    with Session(find_target("qemu"), SETUP) as session:
        session.step(SaveVm("a"))
        session.step(DelVm("a"), (IoFault("d1", "any", Fails(), at=at),))
        session.follow_up()


def took(runner: Runner) -> Took:
    """Return what some rounds take."""
    wall, cpu = time.perf_counter(), _processor_seconds(runner.pid)
    for _ in range(ROUNDS_EACH_TURN):
        runner.turn()
    return Took(time.perf_counter() - wall, _processor_seconds(runner.pid) - cpu)


def _processor_seconds(pid: int) -> float:
    """Return the processor time of this process and of all threads of another one (Linux)."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return time.process_time() + sum(int(each.read_text().split()[0]) for each in threads) / 1e9


def main() -> None:
    """Print the figures."""
    turns = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    with ExitStack() as stack:
        stack.enter_context(rare_collections())  # as in every phase
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        runners = {
            "harness, light looks": harness(stack), "bare, the same disks": bare(stack, None),
            "bare, images in files": bare(stack, folder),
        }  # fmt: skip
        taken: dict[str, list[Took]] = {name: [] for name in runners}
        for _ in range(turns):
            for name, runner in runners.items():
                taken[name].append(took(runner))
    mine, *_ = taken.values()
    for name, each in taken.items():
        rate = ROUNDS_EACH_TURN * len(ROUND) / median(turn.wall for turn in each)
        wall = median(one.wall / other.wall for one, other in zip(each, mine, strict=True))
        cpu = median(one.cpu / other.cpu for one, other in zip(each, mine, strict=True))
        print(f"{name:<24}{rate:7.0f} group operations/s   harness/this: clock {wall:.2f}, processor {cpu:.2f}")
    begun = time.perf_counter()
    for at in range(PLACES):
        fault_case(at + 1)
    print(f"{'fault cases':<24}{PLACES / (time.perf_counter() - begun):7.1f} a second")


if __name__ == "__main__":
    main()
