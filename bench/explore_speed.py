"""Transitions per second of exploring the model, as a ratio to SPIN on the same scope in one run; and how it grows.

SPIN runs a Promela model of our own with the same moves (promela.py), compiled with -O3 and reduced to safety. The
numbers of states and transitions have to agree. Both are timed without compiling; ours with making the tables. They
take turns, and the figure that counts is the ratio. Run it: `apt-get install spin gcc`, then
`python bench/explore_speed.py`; another scope: `python bench/explore_speed.py 4 2 3` (devices, names, values).
"""

import re
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple

from promela import promela
from snapcheck.model.explore import Explored, explore
from snapcheck.model.scope import Scope
from snapcheck.model.space import Space

ROUNDS = 3
WANTED = 10.0
FLAGS = ("-O3", "-DSAFETY", "-DNOFAIR", "-DNOREDUCE", "-DMEMLIM=16000")


class Timed(NamedTuple):
    """What one exploration saw, and how long it took."""

    states: int
    transitions: int
    seconds: float

    @property
    def rate(self) -> float:
        """Transitions per second."""
        return self.transitions / self.seconds


def ours(scope: Scope) -> Timed:
    """Explore a scope, from nothing."""
    begun = time.perf_counter()
    seen = explore(Space(scope))
    return Timed(seen.states, seen.transitions, time.perf_counter() - begun)


def compiled(scope: Scope, folder: Path) -> None:
    """Let SPIN make a verifier for a scope."""
    (folder / "model.pml").write_text(promela(scope))
    subprocess.run(["spin", "-a", "model.pml"], cwd=folder, check=True, capture_output=True)
    subprocess.run(["gcc", *FLAGS, "-o", "pan", "pan.c"], cwd=folder, check=True, capture_output=True)


def spins(folder: Path) -> Timed:
    """Run the verifier; its initial state counts as a transition there."""
    begun = time.perf_counter()
    told = subprocess.run(["./pan", "-m2000000", "-w26"], cwd=folder, check=True, capture_output=True, text=True).stdout
    seconds = time.perf_counter() - begun
    states, transitions = (re.search(rf"(\d+) {word}", told) for word in ("states, stored", "transitions"))
    assert states is not None, told
    assert transitions is not None, told
    assert "errors: 0" in told, told
    return Timed(int(states[1]), int(transitions[1]) - 1, seconds)


def beside_spin(scope: Scope) -> None:
    """Print the ratio; stop when the numbers do not agree."""
    with TemporaryDirectory() as name:
        compiled(scope, Path(name))
        pairs = [(ours(scope), spins(Path(name))) for _ in range(ROUNDS)]
    mine, its = pairs[0]
    assert mine[:2] == its[:2], f"ours {mine}, SPIN {its}"
    print(f"{scope.words}: {mine.states:,} states, {mine.transitions:,} transitions, the same in both")
    print(f"snapcheck: {median(one.rate for one, _ in pairs) / 1e6:8.1f} million transitions/s")
    print(f"SPIN:      {median(other.rate for _, other in pairs) / 1e6:8.1f} million transitions/s")
    ratio = median(one.rate / other.rate for one, other in pairs)
    print(f"ratio {ratio:.1f} (wanted: at least {WANTED:.0f})")


def growth(names: int, values: int) -> None:
    """Print speed and memory from two devices to five."""
    for devices in range(2, 6):
        scope = Scope(devices=devices, names=names, values=values)
        space = Space(scope)
        begun = time.perf_counter()
        seen: Explored = explore(space)
        seconds = time.perf_counter() - begun
        print(
            f"{devices} devices: {seen.states:>11,} states, {seen.transitions:>14,} transitions, "
            f"depth {seen.depth:>2}, {seconds:7.2f} s, {seen.states / seconds / 1e6:5.2f} million states/s, "
            f"{seen.transitions / seconds / 1e6:6.1f} million transitions/s"
        )


def memory(scope: Scope) -> None:
    """Print how much memory the search takes for each state."""
    space = Space(scope)
    tracemalloc.start()
    seen = explore(space)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    print(f"{scope.words}: {peak / seen.states:.1f} bytes for each of {seen.states:,} states at the peak")


def main() -> None:
    """Measure beside SPIN, then growth and memory."""
    devices, names, values = map(int, sys.argv[1:4]) if len(sys.argv) > 3 else (4, 2, 2)
    beside_spin(Scope(devices=devices, names=names, values=values))
    growth(names=2, values=2)
    memory(Scope(devices=5, names=2, values=2))


if __name__ == "__main__":
    main()
