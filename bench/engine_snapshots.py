"""Create and delete on disk: the engine beside qemu-storage-daemon, taking turns in one run.

Both work on a 1 MiB image with 64 KiB clusters, all of it written, in one folder. The daemon is asked over a plain
QMP socket (blockdev-snapshot-internal-sync and blockdev-snapshot-delete-internal-sync), the engine is called in this
process on a `DiskFile`. Once without flushes (`cache.no-flush=on`, `sync=False`) and once with flushes on both sides.
The figure that counts is the ratio, daemon to engine.

Learnt: without flushes the engine takes a fifth of the daemon's time, although it is Python: it writes a handful of
small pieces where the daemon writes whole clusters (64 KiB for one changed count) through its event loop and threads.
With flushes the engine waits for the disk two times in a create and once in a delete, the daemon five times in each.
How long such a wait is depends on the machine: where a virtual core falls asleep in it, waking up can take a tick of
4 ms, which hits the one that waits alone (the engine) and not the one whose other threads are awake. So the cores are
kept awake by idle loops of lowest priority while flushes are measured, and a bare fdatasync is shown beside.

Run it: `python bench/engine_snapshots.py [FOLDER]`; it needs qemu-storage-daemon (apt-get install qemu-system-common).
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from snapcheck.impl.blockfile import DiskFile
from snapcheck.impl.qcow2.image import Image
from snapcheck.model.snapshot import SnapshotInfo

ROUNDS = 15
PAIRS_EACH = 20
SIZE = 1 << 20
WANTED = 3.0
CORES = os.cpu_count() or 1


class Seconds(NamedTuple):
    """What one create and one delete took, as medians of a round."""

    create: float
    delete: float


class Side(NamedTuple):
    """One of the two that are compared: how it takes and how it deletes the snapshot `s`."""

    create: Callable[[], object]
    delete: Callable[[], object]


def one_round(side: Side) -> Seconds:
    """Let one side create and delete in turn."""
    creates: list[float] = []
    deletes: list[float] = []
    for _ in range(PAIRS_EACH):
        start = time.perf_counter()
        side.create()
        middle = time.perf_counter()
        side.delete()
        creates.append(middle - start)
        deletes.append(time.perf_counter() - middle)
    return Seconds(median(creates), median(deletes))


def written_image(path: Path) -> Path:
    """Make an image all of which is written."""
    with Image.create(path, size_bytes=SIZE, cluster_bytes=65536) as image:
        image.write(0, b"x" * SIZE)
    return path


@contextmanager
def cores_awake() -> Generator[None]:
    """Keep every core busy with something that gives way to anything else."""
    loops = [subprocess.Popen(["nice", "-n", "19", sys.executable, "-c", "while True: pass"]) for _ in range(CORES)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def bare_flush(path: Path) -> float:
    """Return what writing eight bytes in place and flushing them takes."""
    disk = DiskFile(written_image(path))
    taken: list[float] = []
    for _ in range(100):
        disk.pwrite(SIZE // 2, b"8 bytes!")
        start = time.perf_counter()
        disk.flush()
        taken.append(time.perf_counter() - start)
    disk.close()
    return median(taken)


@contextmanager
def engine(path: Path, *, flushes: bool) -> Generator[Side]:
    """Lend the engine on an image of its own."""
    disk = DiskFile(written_image(path), sync=flushes)
    image = Image.open(disk)
    try:
        yield Side(
            lambda: image.snapshot_create(SnapshotInfo(name="s")),
            lambda: image.snapshot_delete(None, "s"),
        )
    finally:
        image.close()
        disk.close()


@contextmanager
def daemon(path: Path, *, flushes: bool) -> Generator[Side]:
    """Lend a qemu-storage-daemon with an image of its own."""
    listen = path.with_suffix(".sock")
    blockdev = {
        "driver": "qcow2", "node-name": "d0", "cache": {"no-flush": not flushes},
        "file": {"driver": "file", "filename": str(written_image(path)), "cache": {"no-flush": not flushes}},
    }  # fmt: skip
    command = [
        "qemu-storage-daemon", "--blockdev", json.dumps(blockdev),
        "--chardev", f"socket,id=c,path={listen},server=on,wait=off", "--monitor", "chardev=c",
    ]  # fmt: skip
    process = subprocess.Popen(command)
    try:
        with connected(listen) as ask:
            yield Side(
                lambda: ask("blockdev-snapshot-internal-sync", device="d0", name="s"),
                lambda: ask("blockdev-snapshot-delete-internal-sync", device="d0", name="s"),
            )
    finally:
        process.terminate()
        process.wait()


@contextmanager
def connected(path: Path) -> Generator[Callable[..., dict[str, Any]]]:
    """Lend a function that runs one QMP command and returns its answer."""
    with socket.socket(socket.AF_UNIX) as connection:
        deadline = time.monotonic() + 10
        while connection.connect_ex(str(path)):
            if time.monotonic() > deadline:
                sys.exit(f"qemu-storage-daemon did not listen on {path} within 10 seconds")
            time.sleep(0.01)
        stream = connection.makefile("rwb", buffering=0)
        stream.readline()  # the greeting

        def ask(command: str, **arguments: object) -> dict[str, Any]:
            stream.write(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
            while True:
                answer: dict[str, Any] = json.loads(stream.readline())
                if "error" in answer:
                    sys.exit(f"{command}: {answer['error']['desc']}")
                if "return" in answer:  # anything else is an event
                    return answer

        ask("qmp_capabilities")
        yield ask


def compare(folder: Path, *, flushes: bool) -> tuple[float, float]:
    """Print and return the ratios of create and delete."""
    ours: list[Seconds] = []
    theirs: list[Seconds] = []
    with (
        engine(folder / "engine.qcow2", flushes=flushes) as engine_side,
        daemon(folder / "daemon.qcow2", flushes=flushes) as daemon_side,
    ):
        for _ in range(ROUNDS):
            ours.append(one_round(engine_side))
            theirs.append(one_round(daemon_side))
    print("with flushes on both sides" if flushes else "without flushes on either side")
    ratios: list[float] = []
    for number, name in enumerate(Seconds._fields):
        mine, other = median(second[number] for second in ours), median(second[number] for second in theirs)
        ratios.append(other / mine)
        print(f"  {name}: engine {mine * 1e6:6.0f} us, daemon {other * 1e6:6.0f} us, ratio {other / mine:.1f}")
    return ratios[0], ratios[1]


def main() -> None:
    """Measure both ways, and print the ratios."""
    if not shutil.which("qemu-storage-daemon"):
        sys.exit("qemu-storage-daemon is not installed: apt-get install qemu-system-common")
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as folder:
        ratios = compare(Path(folder), flushes=False)
        with cores_awake():
            compare(Path(folder), flushes=True)
            print(f"  a bare fdatasync: {bare_flush(Path(folder) / 'flush.qcow2') * 1e6:.0f} us")
    print(f"wanted without flushes: at least {WANTED}: {'reached' if min(ratios) >= WANTED else 'MISSED'}")


if __name__ == "__main__":
    main()
