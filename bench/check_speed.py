"""The checker beside `qemu-img check`, on a 1 MiB image with 512-byte clusters that two snapshots share.

Both judge the same file, taking turns in one run: QEMU as a process, as anyone outside of it has to call it (so its
start, some 4 ms, is part of the figure), the checker in this process, opening the file anew each time. The figure that
counts is the ratio.

Learnt: 2,600 clusters are a handful of numpy calls once the tables are arrays; what is left is one read for each run
of neighbouring tables (57 here, 3 us each, a third of the whole), and the numpy calls themselves.

Run it: `python bench/check_speed.py`; it needs qemu-img (apt-get install qemu-utils).
"""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from snapcheck.impl.blockfile import DiskFile
from snapcheck.impl.qcow2.check import inspect
from snapcheck.impl.qcow2.image import Image
from snapcheck.model.snapshot import SnapshotInfo

ROUNDS = 15
CHECKS_EACH = 8
SIZE = 1 << 20
WANTED = 10.0


def shared_image(path: Path) -> None:
    """Make the image that both judge."""
    with Image.create(path, size_bytes=SIZE, cluster_bytes=512) as image:
        image.write(0, b"1" * SIZE)
        image.snapshot_create(SnapshotInfo(name="a"))
        image.write(SIZE // 4, b"2" * (SIZE // 8))
        image.snapshot_create(SnapshotInfo(name="b"))
        image.write(SIZE // 2, b"3" * (SIZE // 8))


def ours(path: Path) -> None:
    """Check with the engine's checker."""
    disk = DiskFile(path, read_only=True)
    assert inspect(disk).clean
    disk.close()


def theirs(path: Path) -> None:
    """Check with qemu-img."""
    subprocess.run(["qemu-img", "check", "-q", "-f", "qcow2", path], check=True)


def seconds(call: Callable[[Path], None], path: Path) -> float:
    """Return what one check takes, as the median of a round."""
    taken: list[float] = []
    for _ in range(CHECKS_EACH):
        start = time.perf_counter()
        call(path)
        taken.append(time.perf_counter() - start)
    return median(taken)


def main() -> None:
    """Measure, and print the ratio."""
    if not shutil.which("qemu-img"):
        sys.exit("qemu-img is not installed: apt-get install qemu-utils")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.qcow2"
        shared_image(path)
        turns = [(seconds(ours, path), seconds(theirs, path)) for _ in range(ROUNDS)]
    mine, other = median(turn[0] for turn in turns), median(turn[1] for turn in turns)
    print(f"check: engine {mine * 1e3:.2f} ms, qemu-img {other * 1e3:.2f} ms, ratio {other / mine:.1f}")
    print(f"wanted: at least {WANTED}: {'reached' if other / mine >= WANTED else 'MISSED'}")


if __name__ == "__main__":
    main()
