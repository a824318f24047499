"""Steps per second of phase walk beside phase stateful: the same engine, the same laws, the same observation, one run.

Both draw from the same tables, on up to three devices, and look lightly, so that what differs is who draws: a plain
seeded loop, or Hypothesis. They take turns, and the figure that counts is the ratio. Then the cost of a step of the
walk is given by parts. Run it: `python bench/walk_speed.py`; `python bench/walk_speed.py usual` looks as a run does.
"""

import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

from snapcheck.impl.local import LocalSystem
from snapcheck.model.history import Care
from snapcheck.model.setup import Semantics
from snapcheck.stateful_tests.compare import Judge
from snapcheck.stateful_tests.phases import stateful, walk
from snapcheck.stateful_tests.units import Answer, Profile, Unit
from snapcheck.stateful_tests.work import Control

ROUNDS = 5
SECONDS_EACH = 3.0
WANTED = 2.5
PARTS = {
    "engine": (LocalSystem, "perform"),
    "observation": (LocalSystem, "observe"),
    "model and laws": (Judge, "judge"),
}


def answer_of(phase: Callable[..., Answer], name: str, care: Care, number: int) -> Answer:
    """Run one phase for a while."""
    unit = Unit(
        driver="qcow2", phase=name, semantics=Semantics.CLASSIC, devices=3, seed=number, shard=0, histories=None,
        seconds=SECONDS_EACH, profile=Profile.DEFAULT,
    )  # fmt: skip
    return phase(unit, Control(lambda _tick: None), care=care)


def speed(answer: Answer) -> float:
    """Return steps per second."""
    return answer.steps / answer.seconds


def timed(owner: type[Any], name: str, spent: dict[str, float], part: str) -> Callable[[], None]:
    """Add up in `spent` what a method takes; the return value takes the clock away again."""
    method = getattr(owner, name)

    def clocked(*args: object, **options: object) -> object:
        begun = time.perf_counter()
        try:
            return method(*args, **options)
        finally:
            spent[part] += time.perf_counter() - begun

    setattr(owner, name, clocked)
    return lambda: setattr(owner, name, method)


def cost_by_parts(care: Care) -> dict[str, float]:
    """Return the microseconds of a step of the walk by parts; clocks are a part of what they measure."""
    spent = dict.fromkeys(PARTS, 0.0)
    undo = [timed(owner, name, spent, part) for part, (owner, name) in PARTS.items()]
    answer = answer_of(walk.run, walk.NAME, care, 99)
    for take_away in undo:
        take_away()
    parts = {part: seconds / answer.steps * 1e6 for part, seconds in spent.items()}
    return {**parts, "drawing and the rest": answer.seconds / answer.steps * 1e6 - sum(parts.values())}


def main() -> None:
    """Measure in turns, and print the ratio and the parts."""
    care = Care(sys.argv[1]) if len(sys.argv) > 1 else Care.LIGHT
    rounds = [
        (
            speed(answer_of(walk.run, walk.NAME, care, number)),
            speed(answer_of(stateful.run, stateful.NAME, care, number)),
        )
        for number in range(ROUNDS)
    ]
    print(f"walk:     {median(pair[0] for pair in rounds):8.0f} steps/s, looking as in Care.{care.name}")
    print(f"stateful: {median(pair[1] for pair in rounds):8.0f} steps/s")
    print(f"ratio {median(walked / drawn for walked, drawn in rounds):.2f} (wanted: at least {WANTED})")
    for part, microseconds in cost_by_parts(care).items():
        print(f"  {part:22} {microseconds:6.0f} us a step")


if __name__ == "__main__":
    main()
