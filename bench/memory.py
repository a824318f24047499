"""Whether memory stays flat over 100,000 steps of phase stateful on the qcow2 engine.

Hypothesis remembers what it tried, so the phase starts it anew every hundred histories; a history keeps its events only
until it is judged. What grows in the beginning are caches with a bound (prepared images, tables of the generators).
Run it: `python bench/memory.py [STEPS]`.
"""

import resource
import sys
import time
from pathlib import Path

from snapcheck.model.setup import Semantics
from snapcheck.stateful_tests.phases import stateful
from snapcheck.stateful_tests.units import Unit
from snapcheck.stateful_tests.work import Control, Tick

STEPS = 100_000
WARM_SHARE = 0.2


class Watcher(Control):
    """Reads how much memory is resident each time that it is told, and asks for the end after enough steps."""

    def __init__(self, steps: int) -> None:
        super().__init__(self.hear)
        self.steps = steps
        self.seen: list[tuple[int, float]] = []

    def hear(self, tick: Tick) -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        self.seen.append((tick.steps, pages * resource.getpagesize() / 2**20))

    def stop_asked(self) -> bool:
        return bool(self.seen) and self.seen[-1][0] >= self.steps


def main() -> None:
    """Print the resident memory after a fifth of the steps and at the end."""
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else STEPS
    watcher, begun = Watcher(steps), time.monotonic()
    unit = Unit(
        driver="qcow2", phase="stateful", semantics=Semantics.CLASSIC, devices=3, seed=1, shard=0, histories=None,
        seconds=None,
    )  # fmt: skip
    answer = stateful.run(unit, watcher)
    warm = next(mib for done, mib in watcher.seen if done >= WARM_SHARE * steps)
    last = watcher.seen[-1][1]
    print(f"{answer.steps:,} steps in {time.monotonic() - begun:.0f} s")
    print(f"resident after {WARM_SHARE:.0%}: {warm:.0f} MiB, at the end: {last:.0f} MiB, growth {last / warm - 1:+.1%}")


if __name__ == "__main__":
    main()
