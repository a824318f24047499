"""For the night: a million steps and a million crash states on the correct engine, and not one violation.

python bench/false_alarms.py [--steps N] [--crash-states N] [--seed N] [--jobs N]

Each round runs the phases for a minute with a seed of its own, under each profile in turn. It ends with exit status 1
at the first violation, whose report is kept, and with 2 when a round is broken off; where phase crash is not built it
says that no crash state was judged.
"""

import argparse
import os
import sys
from collections import Counter
from itertools import count
from pathlib import Path

from snapcheck.impl.targets import find_target
from snapcheck.model.law_names import Severity
from snapcheck.model.setup import Semantics
from snapcheck.reports import folder
from snapcheck.reports.verdict import RunResult
from snapcheck.stateful_tests.run import PHASES, Finished, RunOptions, Silent, run_driver

ROUND_SECONDS = 60.0
REPORT = Path("false-alarm")


def main() -> int:
    """Run rounds until enough was judged; return the exit status."""
    asked = _asked()
    done: Counter[str] = Counter()
    for seed in count(asked.seed):
        steps_left, states_left = done["steps"] < asked.steps, "crash" in PHASES and done["states"] < asked.crash_states
        if not (steps_left or states_left):
            break
        wanted = tuple(name for name in PHASES if (states_left if name == "crash" else steps_left))
        finished = _round(seed, wanted, asked.jobs)
        result = finished.result
        if any(each.severity is Severity.ERROR for each in result.violations):
            REPORT.mkdir(exist_ok=True)
            folder.write(REPORT, result)
            print(f"a false alarm, with seed {seed}: see {REPORT}/report.html")
            return 1
        done += _counts(result)
        if not finished.whole:
            print(f"{done['steps']:,} steps, {done['states']:,} crash states; seed {seed}: {'; '.join(result.notes)}")
            return 2
        print(f"{done['steps']:,} steps, {done['states']:,} crash states, no violation", flush=True)
    if "crash" not in PHASES:
        print("phase crash is not built: no crash state was judged")
    return 0


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Look for false alarms on the correct engine.")
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--crash-states", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    return parser.parse_args()


def _round(seed: int, phases: tuple[str, ...], jobs: int) -> Finished:
    semantics = tuple(Semantics)[seed % len(Semantics)]
    options = RunOptions(phases=phases, seconds=ROUND_SECONDS, seed=seed, semantics=semantics, jobs=jobs)
    return run_driver(find_target("qcow2"), options, Silent())


def _counts(result: RunResult) -> Counter[str]:
    """Return how many steps, and how many crash states, were judged."""
    counts = Counter(steps=sum(phase.steps for phase in result.phases if phase.name != "crash"))
    counts["states"] += sum(phase.counts.get("judged", 0) for phase in result.phases if phase.name == "crash")
    return counts


if __name__ == "__main__":
    sys.exit(main())
