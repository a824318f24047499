"""Every power cut of every short sequence of operations: how many there are, and that the engine survives them all.

    python bench/crash_workloads.py [--length 2] [--medium MODEL[:BOUND] ...] [--jobs 1] [--minutes M] [--driver DRIVER]

All sequences of that length over the alphabet of snapshots and writes, from every starting image of phase crash, on
one device and on groups; the power goes at every place of the last operation, under each model of the medium. A model
covers all that it allows where an epoch leaves no more different states than the bound, and some of it beyond; how
often that was so is said. Exit status 1 when anything breaks a law, 2 when time ran out first.
"""

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

from snapcheck.fault_injection.crash.cuts import Persistence
from snapcheck.impl.targets import find_target
from snapcheck.model.crash_laws import LYING
from snapcheck.model.setup import Semantics
from snapcheck.stateful_tests.power_cuts.judging import CutJudge, Found, Plan
from snapcheck.stateful_tests.power_cuts.recording import record
from snapcheck.stateful_tests.power_cuts.workloads import Workload, sequences, starts

BOUND = 1 << 10
DEVICES_MAX = 3
PARTS = 64  # that the parents of the sequences are dealt to
TOLD_MAX = 5


@dataclass
class Sum:
    """What some sequences came to: by model of the medium how many there were at each stage, and what was found."""

    sequences: int = 0
    counts: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    found: list[str] = field(default_factory=list[str])
    late: bool = False

    def add(self, other: "Sum") -> None:
        """Add what others came to."""
        self.sequences += other.sequences
        self.counts.update(other.counts)
        self.found += other.found
        self.late = self.late or other.late


def workloads(driver: str, length: int, part: int) -> Iterator[Workload]:
    """Yield the sequences of one part."""
    able = find_target(driver).abilities
    points = starts(
        devices_max=DEVICES_MAX, semantics=Semantics.CLASSIC, kinds=able.operations, prepared=able.prepared_images
    )
    for parent in islice(sequences(points, length - 1, kinds=able.operations), part, None, PARTS):
        yield from parent.children(kinds=able.operations)


def judged(part: int, *, driver: str, length: int, plans: Sequence[Plan], deadline: float) -> Sum:
    """Judge every cut of the sequences of one part."""
    target, total = find_target(driver), Sum()
    for workload in workloads(driver, length, part):
        if time.time() > deadline:
            total.late = True
            break
        total.sequences += 1
        recorded = record(target, workload.setup, workload.operations)
        total.found += [f"{workload.operations}: {each.summary}" for each in recorded.found]
        for plan in plans if recorded.recording is not None else ():
            judge = CutJudge(recorded.recording)
            found = [each.evidence for each in judge.judge(plan) if isinstance(each, Found)]
            total.found += [f"{workload.operations}: {each.law.value}: {each.summary}" for each in found]
            name, funnel = plan.persistence[0].value, judge.funnel
            counted = {
                "enumerated": funnel.enumerated, "distinct": funnel.distinct, "judged": funnel.judged,
                "sampled": funnel.sampled > 0, "violations": len(found),
                "checks": sum(checked for checked, _ in judge.laws.values()),
            }  # fmt: skip
            for stage, count in counted.items():
                total.counts[name, stage] += int(count)
    return total


def plan_of(text: str) -> Plan:
    """Return what `MODEL[:BOUND]` names."""
    name, _, bound = text.partition(":")
    return Plan((Persistence(name),), int(bound) if bound else BOUND)


def show(total: Sum, plans: Sequence[Plan], *, length: int, seconds: float, cpu: float) -> None:
    """Print a line for each model of the medium."""
    print(f"{total.sequences:,} sequences of length {length}, {seconds:,.0f} s, {cpu:,.0f} CPU seconds")
    stages = ("enumerated", "distinct", "judged", "checks", "sampled", "violations")
    print(f"{'':14}" + "".join(f"{stage:>16}" for stage in stages))
    for plan in plans:
        name = plan.persistence[0].value
        print(f"{name:14}" + "".join(f"{total.counts[name, stage]:>16,}" for stage in stages))
    for text in total.found[:TOLD_MAX]:
        print(text)
    if total.late:
        print("time ran out before all sequences were tried")


def main() -> int:
    """Run it as the command line says."""
    usual = [each.value for each in Persistence if each.value not in LYING]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, default=2)
    parser.add_argument("--medium", type=plan_of, nargs="+", default=[plan_of(each) for each in usual])
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=24 * 60)
    parser.add_argument("--driver", default="qcow2")
    call = parser.parse_args()
    total, begun = Sum(), time.time()
    work = partial(
        judged, driver=call.driver, length=call.length, plans=call.medium, deadline=begun + call.minutes * 60
    )
    with ProcessPoolExecutor(call.jobs) as workers:
        for done in workers.map(work, range(PARTS)):
            total.add(done)
    cpu = sum(os.times()[2:4])
    show(total, call.medium, length=call.length, seconds=time.time() - begun, cpu=cpu)
    return 1 if total.found else 2 if total.late else 0


if __name__ == "__main__":
    sys.exit(main())
