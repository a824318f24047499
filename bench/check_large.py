"""The checker beside `qemu-img check` on a 1 GiB image with 64 KiB clusters, all of it mapped, with two snapshots.

The figure that counts is the ratio of their times, taking turns in one run. QEMU runs as a process; its start, some
4 ms, is part of its time. The image is sparse: nothing looks at the data.

Run it: `python bench/check_large.py`; it needs qemu-img (apt-get install qemu-utils).
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
from snapcheck.impl.qcow2 import inspect

ROUNDS = 11
WANTED = 2.0


def large_image(path: Path) -> None:
    """Make the image that both judge: every cluster is mapped, and shared by two snapshots."""
    options = "preallocation=metadata,cluster_size=65536"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", options, path, "1G"], check=True)
    for name in ("a", "b"):
        subprocess.run(["qemu-img", "snapshot", "-c", name, path], check=True)
        subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write -q -P 7 100M 4M", path], check=True)


def ours(path: Path) -> None:
    """Check with the engine's checker."""
    disk = DiskFile(path, read_only=True)
    assert inspect(disk).clean
    disk.close()


def theirs(path: Path) -> None:
    """Check with qemu-img."""
    subprocess.run(["qemu-img", "check", "-q", "-f", "qcow2", path], check=True)


def seconds(call: Callable[[Path], None], path: Path) -> float:
    """Return what one check takes."""
    start = time.perf_counter()
    call(path)
    return time.perf_counter() - start


def main() -> None:
    """Measure, and print the ratio."""
    if not shutil.which("qemu-img"):
        sys.exit("qemu-img is not installed: apt-get install qemu-utils")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.qcow2"
        large_image(path)
        turns = [(seconds(ours, path), seconds(theirs, path)) for _ in range(ROUNDS)]
    mine, other = median(turn[0] for turn in turns), median(turn[1] for turn in turns)
    print(
        f"check of 1 GiB: engine {mine * 1e3:.1f} ms, qemu-img {other * 1e3:.1f} ms, {mine / other:.2f} times its time"
    )
    print(f"wanted: at most {WANTED}: {'reached' if mine / other <= WANTED else 'MISSED'}")


if __name__ == "__main__":
    main()
