"""Steps per second of phase walk beside phase stateful: the same engine, the same laws, the same observation, one run.

Both draw from the same tables, on up to three devices, and look lightly, so that what differs is who draws: a plain
seeded loop, or Hypothesis. They take turns, and the figure that counts is the ratio. Then the cost of a step is given
by parts, for each of the two. Seconds are those of the processor, so that other programs on the machine do not count.
Run it: `python bench/walk_speed.py`; `python bench/walk_speed.py usual` looks as a run does.
"""

import sys
import time
from collections.abc import Callable
from statistics import median
from types import ModuleType

from snapcheck.impl.local import LocalSystem
from snapcheck.model.history import Care
from snapcheck.model.setup import Semantics
from snapcheck.stateful_tests.compare import Judge
from snapcheck.stateful_tests.gather import Gatherer
from snapcheck.stateful_tests.phases import stateful, walk
from snapcheck.stateful_tests.session import Session
from snapcheck.stateful_tests.units import Answer, Profile, Unit
from snapcheck.stateful_tests.work import Control

ROUNDS = 5
SECONDS_EACH = 3.0
WANTED = 2.5
PARTS: tuple[tuple[str, object, str], ...] = (
    ("engine", LocalSystem, "perform"),
    ("observation", LocalSystem, "observe"),
    ("model and laws", Judge, "judge"),
    ("starting a history", Session, "__init__"),
    ("its digest and counts", Gatherer, "ended"),
)


def measured(phase: ModuleType, care: Care, number: int) -> tuple[int, float]:
    """Run one phase for a while; return its steps, and the seconds that they took."""
    unit = Unit(
        driver="qcow2", phase=phase.NAME, semantics=Semantics.CLASSIC, devices=3, seed=number, shard=0, histories=None,
        seconds=SECONDS_EACH, profile=Profile.DEFAULT,
    )  # fmt: skip
    begun = time.process_time()
    answer: Answer = phase.run(unit, Control(lambda _tick: None), care=care)
    return answer.steps, time.process_time() - begun


def speed(phase: ModuleType, care: Care, number: int) -> float:
    """Return steps per second."""
    steps, seconds = measured(phase, care, number)
    return steps / seconds


def timed(owner: object, name: str, spent: dict[str, float], part: str) -> Callable[[], None]:
    """Add up in `spent` what a method takes; the return value takes the clock away again."""
    method = getattr(owner, name)

    def clocked(*args: object, **options: object) -> object:
        begun = time.process_time()
        try:
            return method(*args, **options)
        finally:
            spent[part] += time.process_time() - begun

    setattr(owner, name, clocked)
    return lambda: setattr(owner, name, method)


def cost_by_parts(phase: ModuleType, care: Care) -> dict[str, float]:
    """Return the microseconds of a step by parts; clocks are a part of what they measure."""
    spent = dict.fromkeys((part for part, _, _ in PARTS), 0.0)
    undo = [timed(owner, name, spent, part) for part, owner, name in PARTS]
    steps, seconds = measured(phase, care, 99)
    for take_away in undo:
        take_away()
    parts = {part: each / steps * 1e6 for part, each in spent.items()}
    return {**parts, "drawing and the rest": seconds / steps * 1e6 - sum(parts.values())}


def main() -> None:
    """Measure in turns, and print the ratio and the parts."""
    care = Care(sys.argv[1]) if len(sys.argv) > 1 else Care.LIGHT
    rounds = [(speed(walk, care, number), speed(stateful, care, number)) for number in range(ROUNDS)]
    print(f"walk:     {median(pair[0] for pair in rounds):8.0f} steps/s, looking as in Care.{care.name}")
    print(f"stateful: {median(pair[1] for pair in rounds):8.0f} steps/s")
    print(f"ratio {median(walked / drawn for walked, drawn in rounds):.2f} (wanted: at least {WANTED})")
    print("microseconds a step           walk  stateful")
    drawn = cost_by_parts(stateful, care)
    for part, microseconds in cost_by_parts(walk, care).items():
        print(f"  {part:24} {microseconds:7.0f} {drawn[part]:9.0f}")


if __name__ == "__main__":
    main()
