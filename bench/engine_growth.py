"""How the engine's speed grows: with the number of snapshots, 1 to 2,000, and with the size of the image.

In memory, so that the figures are the engine's own. The image has 64 KiB clusters; one cluster is written before each
snapshot. QEMU 7.2 takes from 0.55 ms (1 snapshot) to 47 ms (2,000) for a create, as it writes the whole table anew and
looks at every id. So does the engine: what grows is the table that is written.

Run it: `python bench/engine_growth.py`
"""

import time
from collections.abc import Callable
from statistics import median

from snapcheck.impl.blockfile import MemoryFile
from snapcheck.impl.qcow2 import Image
from snapcheck.model.snapshot import SnapshotInfo

COUNTS = (1, 10, 100, 500, 1000, 2000)
SIZES_MIB = (1, 16, 128, 1024)
ROUNDS = 9
CLUSTER = 65536


def micros(call: Callable[[], object]) -> float:
    """Return what a call takes, in microseconds."""
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e6


def operations(image: Image) -> dict[str, float]:
    """Return the median of each operation, in microseconds."""
    taken: dict[str, list[float]] = {name: [] for name in ("read", "write", "create", "goto", "delete", "list")}
    for _ in range(ROUNDS):
        taken["write"].append(micros(lambda: image.write(0, b"w" * 4096)))
        taken["read"].append(micros(lambda: image.read(0, 4096)))
        taken["create"].append(micros(lambda: image.snapshot_create(SnapshotInfo(name="new"))))
        taken["list"].append(micros(image.snapshot_list))
        taken["goto"].append(micros(lambda: image.snapshot_goto("new")))
        taken["delete"].append(micros(lambda: image.snapshot_delete(None, "new")))
    return {name: median(each) for name, each in taken.items()}


def show(what: str, medians: dict[str, float]) -> None:
    """Print one line."""
    print(f"{what:>18}  " + "  ".join(f"{name} {value:8.0f} us" for name, value in medians.items()))


def main() -> None:
    """Measure both, and print a table of each."""
    print("snapshots on a 1 MiB image")
    with Image.create(MemoryFile(), size_bytes=1 << 20) as image:
        image.write(0, b"x" * (1 << 20))
        for count in COUNTS:
            while len(image.snapshots) < count:
                image.write(len(image.snapshots) % 16 * CLUSTER, b"y" * 4096)
                image.snapshot_create(SnapshotInfo(name=f"s{len(image.snapshots)}"))
            show(f"{count} snapshots", operations(image))
    print("sizes of an image that is written all over, with one snapshot")
    for mib in SIZES_MIB:
        with Image.create(MemoryFile(), size_bytes=mib << 20) as image:
            for start in range(0, mib << 20, CLUSTER):
                image.write(start, b"x" * CLUSTER)
            image.snapshot_create(SnapshotInfo(name="first"))
            show(f"{mib} MiB", operations(image))


if __name__ == "__main__":
    main()
