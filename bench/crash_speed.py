"""How fast crash states are enumerated and judged, against one `qemu-img check` and one `snapshot -l` for each.

    python bench/crash_speed.py

The logs are those of a real QEMU (blklogwrites) that creates, goes back to and deletes snapshots on images of 1 MiB
with clusters of 64k and of 512 bytes, 400 KiB written, two snapshots. Flushed operations have epochs of a few states;
so the same logs are also judged as if no flush had done anything, which makes one long epoch of each. All figures are
CPU seconds of one core, of the children too where there are any, and the least of three rounds, so that a busy machine
spoils them little. Each round begins cold: nothing is remembered from the one before.

Learnt: merging equal states after each write makes enumerating cheap, 10 to 40 million masks/s where there are 2^16
of them or more. What is left of judging is a fixed cost: 0.1 ms for each front (states that open alike), 1 to 2 ms for
each frame (fronts whose tables lie alike), 0.6 to 1 ms for each state that the plain judge confirms; numpy calls on
tiny arrays are most of it, and `np.unique`, `isin` and `nonzero` of integers cost several times what sorting and flags
do. Hashing a MiB takes as long as all the rest of a plain verdict, so contents are compared with those known before
they are hashed. Long epochs are judged at 22,000 to 94,000 different states a second; a flushed operation, with a few
states in each of its epochs, takes 10 to 17 ms, confirmed.
"""

import os
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from snapcheck.fault_injection.crash.cuts import Persistence, image_of
from snapcheck.fault_injection.crash.fast import FastJudge
from snapcheck.fault_injection.crash.judge import Judge
from snapcheck.fault_injection.crash.overlay import Places
from snapcheck.fault_injection.crash.seen import see
from snapcheck.fault_injection.crash.states import Funnel, states_of
from snapcheck.fault_injection.dm_log_writes import read_log
from snapcheck.fault_injection.write_log import WriteLog
from snapcheck.impl.blockfile import MemoryFile

OPERATIONS = {"create": ("-c", "b"), "goto": ("-a", "a"), "delete": ("-d", "a")}
QEMU_STATES = 15
ROUNDS = 3
PLAIN_STATES = 20


class Recorded(NamedTuple):
    """A log and the image that it began on."""

    name: str
    base: MemoryFile
    log: WriteLog


def run(*command: object) -> None:
    """Run a program that must succeed."""
    subprocess.run([str(each) for each in command], check=True, capture_output=True)


def recorded(folder: Path, cluster_bytes: int) -> Iterator[Recorded]:
    """Yield the logs of the operations, each on what the former one left."""
    image = folder / f"{cluster_bytes}.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", f"cluster_size={cluster_bytes}", image, "1M")
    run("qemu-io", "-c", "write -P 1 0 400k", image)
    run("qemu-img", "snapshot", "-c", "a", image)
    run("qemu-io", "-c", "write -P 2 0 30k", image)
    for name, (option, snapshot) in OPERATIONS.items():
        base, log = MemoryFile("d0", image.read_bytes()), folder / "log"
        log.write_bytes(b"")
        where = (
            f"driver=qcow2,file.driver=blklogwrites,file.file.driver=file,file.file.filename={image},"
            f"file.log.driver=file,file.log.filename={log}"
        )
        run("qemu-img", "snapshot", option, snapshot, "--image-opts", where)
        yield Recorded(f"{name} {cluster_bytes}", base, read_log(log, device="d0"))


def cpu() -> float:
    """Return the CPU seconds of this process and of its children so far."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def seconds(act: Callable[[], object]) -> float:
    """Return the CPU seconds that `act` takes."""
    begun = cpu()
    act()
    return cpu() - begun


def least(act: Callable[[], object]) -> float:
    """Return the CPU seconds that `act` takes at least, of a few times."""
    return min(seconds(act) for _ in range(ROUNDS))


def enumerating(each: Recorded, persistence: Persistence) -> tuple[Funnel, float]:
    """Return the counts, and the time that enumerating takes."""

    def enumerate_all(funnel: Funnel) -> Funnel:
        for _ in states_of(each.log, each.base, device="d0", persistence=persistence, funnel=funnel):
            pass
        return funnel

    return enumerate_all(Funnel()), least(lambda: enumerate_all(Funnel()))


def judging(each: Recorded, persistence: Persistence) -> tuple[Funnel, float, float]:
    """Return the counts, and the time with and without what the plain judge confirms."""

    def with_plain(judge: Judge) -> Funnel:
        for _ in judge.judge(each.log, each.base, device="d0", persistence=persistence):
            pass
        return judge.funnel

    def alone() -> None:
        funnel = Funnel()
        fast = FastJudge(funnel, confirmed_every=1 << 60)
        for states in states_of(each.log, each.base, device="d0", persistence=persistence, funnel=funnel):
            list(fast.judge(states, Places(states.columns)))

    return with_plain(Judge()), least(lambda: with_plain(Judge())), least(alone)


def sample(each: Recorded, count: int) -> list[MemoryFile]:
    """Return some crash states as disks."""
    states = next(states_of(each.log, each.base, device="d0", persistence=Persistence.NO_BARRIERS, funnel=Funnel()))
    step = max(1, len(states) // count)
    return [image_of(each.base, WriteLog(each.log.entries), states.cut(n)) for n in range(0, len(states), step)][:count]


def by_qemu(each: Recorded, folder: Path) -> float:
    """Return what one `qemu-img check` and one `qemu-img snapshot -l` take for a state."""
    images: list[Path] = []
    for number, disk in enumerate(sample(each, QEMU_STATES)):
        images.append(folder / f"state{number}.qcow2")
        images[-1].write_bytes(disk.pread(0, disk.size()))

    def look() -> None:
        for image in images:
            subprocess.run(["qemu-img", "check", image], capture_output=True, check=False)
            subprocess.run(["qemu-img", "snapshot", "-l", image], capture_output=True, check=False)

    return seconds(look) / len(images)


def plainly(each: Recorded) -> float:
    """Return what the plain judge takes for a state."""
    disks = sample(each, PLAIN_STATES)
    return seconds(lambda: [see(disk) for disk in disks]) / len(disks)


def joined(logs: list[Recorded]) -> Recorded:
    """Return one long log of several that follow each other."""
    log = WriteLog()
    for each in logs:
        for entry in each.log.entries:
            log.add("d0", entry.sort, entry.offset, entry.length, data=entry.data, fua=entry.fua)
    return Recorded(f"all three, {logs[0].name.rpartition(' ')[2]}", logs[0].base, log)


def main() -> None:
    """Print the three tables."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        logs = {size: list(recorded(folder, size)) for size in (65536, 512)}
        longs = [joined(each) for each in logs.values()]
        print("enumerate and deduplicate, no flush honoured")
        print(f"{'log':<16}{'writes':>7}{'masks':>12}{'distinct':>10}{'million masks/s':>17}")
        for each in (*logs[65536], *logs[512], *longs):
            funnel, taken = enumerating(each, Persistence.NO_BARRIERS)
            writes = sum(1 for entry in each.log.entries if entry.length)
            rate = funnel.enumerated / taken / 1e6
            share = "" if funnel.exhaustive else f"  (sampled: {funnel.fraction:.1e})"
            print(f"{each.name:<16}{writes:>7}{funnel.enumerated:>12,}{funnel.distinct:>10,}{rate:>17,.1f}{share}")

        print("\njudge, cold: distinct states/s; in brackets without what the plain judge confirms")
        print(f"{'log':<16}{'model':<13}{'distinct':>9}{'differ':>8}{'confirmed':>10}{'states/s':>10}{'':>12}{'ms':>7}")
        for each in (*logs[65536], *logs[512], *longs):
            for model in (Persistence.EPOCH, Persistence.NO_BARRIERS):
                funnel, taken, alone = judging(each, model)
                rates = f"{funnel.distinct / taken:>10,.0f}{f'({funnel.distinct / alone:,.0f})':>12}"
                print(
                    f"{each.name:<16}{model.value:<13}{funnel.distinct:>9,}{funnel.read_set_distinct:>8,}"
                    f"{funnel.confirmed:>10}{rates}{taken * 1000:>7.0f}"
                )

        print("\none state: CPU ms, and how many times the fast judge is faster; in brackets without what is confirmed")
        for each, long in zip((logs[65536][0], logs[512][0]), longs, strict=True):
            qemu, plain = by_qemu(each, folder), plainly(each)
            funnel, taken, alone = judging(long, Persistence.NO_BARRIERS)
            fast, unconfirmed = taken / funnel.distinct, alone / funnel.distinct
            print(
                f"{long.name:<16} qemu-img check + snapshot -l {qemu * 1000:.1f}: {qemu / fast:,.0f} times"
                f" ({qemu / unconfirmed:,.0f}); plain judge {plain * 1000:.1f}: {plain / fast:,.0f} times"
                f" ({plain / unconfirmed:,.0f}); fast {fast * 1000:.4f} ({unconfirmed * 1000:.4f})"
            )


if __name__ == "__main__":
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    main()
