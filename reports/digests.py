"""digests.txt: a line for each history of a run, so that `diff` tells whether two runs did the same.

Equal seeds and versions give equal lines as far as both runs got, whatever the number of processes.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from snapcheck.reports.files import write_whole
from snapcheck.reports.verdict import RunResult


class Shard(NamedTuple):
    """What one shard of a phase did: a digest of each of its histories, in order."""

    phase: str
    number: int
    digests: Sequence[str]


def write(path: Path, result: RunResult, shards: Iterable[Shard]) -> None:
    """Write the file: what made it, then phase, shard, index and digest of each history."""
    write_whole(path, _lines(result, shards), encoding="ascii")


def _lines(result: RunResult, shards: Iterable[Shard]) -> Iterator[str]:
    made_by = f"snapcheck {result.version}, {result.driver}, {result.semantics}, {result.devices} devices"
    yield f"# phase shard index digest; {made_by}, seed {result.seed}\n"
    for phase, number, digests in shards:
        for index, digest in enumerate(digests):
            yield f"{phase} {number} {index} {digest}\n"
