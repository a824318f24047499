"""`snapcheck check`: one qcow2 image checked, drawn and, when asked for, repaired."""

import json
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from snapcheck.cli.cluster_map import drawn
from snapcheck.cli.errors import CallError
from snapcheck.cli.say import say
from snapcheck.impl.blockfile import BlockError, DiskFile
from snapcheck.impl.qcow2.check import ClusterKind, Report, inspect
from snapcheck.impl.qcow2.layout import CORRUPT, DIRTY, ImageError, SnapshotEntry
from snapcheck.impl.qcow2.repair import repair
from snapcheck.reports.words import shown

SCHEMA: Final = 1
PROBLEMS_MAX: Final = 20
PROBLEMS: Final = 1


def check_command(path: Path, *, as_json: bool, repairs: bool = False) -> int:
    """Print what is in the image and what is wrong with it; 0 when it is clean, 1 when there are problems.

    With `repairs` what can be put right is put right first, and what was done is told.
    """
    done = repaired(path) if repairs else ()
    report = report_of(path)
    if as_json:
        say(json.dumps(data_of(path, report, done), indent=1))
    else:
        for line in lines(path, report, done):
            say(line)
    return 0 if report.clean else PROBLEMS


def report_of(path: Path) -> Report:
    """Return what the checker says of the image, or raise `CallError` when it can not be judged."""
    with _opened(path, read_only=True) as disk:
        return inspect(disk)


def repaired(path: Path) -> tuple[str, ...]:
    """Repair the image and return what was done, or raise `CallError` when it can not even be checked."""
    with _opened(path, read_only=False) as disk:
        return repair(disk).done


@contextmanager
def _opened(path: Path, *, read_only: bool) -> Generator[DiskFile]:
    """Lend the file; what goes wrong with it is a wrong call."""
    if not path.exists():
        raise CallError(f"{path}: there is no such file; name a qcow2 image")
    if not path.is_file() and not path.is_block_device():
        raise CallError(f"{path}: is no file; name a qcow2 image")
    try:
        with closing(DiskFile(path, read_only=read_only)) as disk:
            yield disk
    except (ImageError, BlockError) as error:
        raise CallError(_about(path, str(error))) from None


def _about(path: Path, text: str) -> str:
    """Return `text` with the path in front, once: what the system says of a file names it as well."""
    return text if str(path) in text else f"{path}: {text}"


# --- for people -----------------------------------------------------------------------------------
def lines(path: Path, report: Report, done: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield the page: facts, map, snapshots, what was repaired, problems."""
    header = report.header
    yield (
        f"{path}: qcow2, {_bytes(header.size)} virtual, {_bytes(report.file_bytes)} in the file, "
        f"clusters of {_bytes(header.cluster_bytes)}"
    )
    yield ""
    yield from drawn(report)
    yield ""
    yield from _snapshot_lines(report.snapshots)
    yield ""
    yield from (f"repaired: {each}" for each in done)
    yield from _problem_lines(report)


def _snapshot_lines(snapshots: tuple[SnapshotEntry, ...]) -> Iterator[str]:
    if not snapshots:
        yield "no snapshots"
        return
    yield f"  {'id':<6} {'name':<24} {'VM state':>10}  {'size':>10}  date (UTC)"
    for entry in snapshots:
        info = entry.info
        yield (
            f"  {shown(info.id_str)[1:-1]:<6} {shown(info.name):<24} {_bytes(info.vm_state_size):>10}  "
            f"{_bytes(entry.disk_size):>10}  {_date(info.date_sec)}"
        )


def _problem_lines(report: Report) -> Iterator[str]:
    if report.header.incompatible & CORRUPT:
        yield "marked corrupt: it is not opened for writing before `snapcheck check IMAGE --repair`"
    if report.header.incompatible & DIRTY:
        yield "marked dirty: it was not closed, and is repaired when it is opened for writing"
    if report.clean:
        yield "clean: every refcount is what the references say"
        return
    yield (
        f"{report.corruptions} corruptions, {report.leaks} leaked clusters, "
        f"{report.copied_missing} entries without COPIED"
    )
    for problem in report.problems[:PROBLEMS_MAX]:
        yield f"  {problem}"
    if len(report.problems) > PROBLEMS_MAX:
        yield "  and more; --json tells up to 50 of each sort"
    yield "copy the image before you let `snapcheck check IMAGE --repair` repair it"


def _bytes(count: int) -> str:
    """Return a size in the largest unit that divides it."""
    for unit, shift in (("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if count and not count & ((1 << shift) - 1):
            return f"{count >> shift:,} {unit}"
    return f"{count:,} B"


def _date(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%d %H:%M:%S")


# --- for machines ---------------------------------------------------------------------------------
def data_of(path: Path, report: Report, done: tuple[str, ...] = ()) -> dict[str, object]:
    """Return what `--json` prints (docs/reference/command_line.md)."""
    counts = report.cluster_counts()
    return {
        "schema": SCHEMA, "image": str(path), "format": "qcow2", "clean": report.clean,
        "marked_corrupt": bool(report.header.incompatible & CORRUPT),
        "marked_dirty": bool(report.header.incompatible & DIRTY),
        "corruptions": report.corruptions, "leaks": report.leaks, "copied_missing": report.copied_missing,
        "virtual_bytes": report.header.size, "file_bytes": report.file_bytes,
        "cluster_bytes": report.header.cluster_bytes,
        "clusters": {kind.name.lower().replace("_", "-"): counts[kind] for kind in ClusterKind},
        "snapshots": [_snapshot_data(entry) for entry in report.snapshots],
        "problems": list(report.problems), "repaired": list(done),
    }  # fmt: skip


def _snapshot_data(entry: SnapshotEntry) -> dict[str, object]:
    info = entry.info
    return {
        "id": info.id_str, "name": info.name, "vm_state_bytes": info.vm_state_size, "disk_bytes": entry.disk_size,
        "date_sec": info.date_sec, "date_nsec": info.date_nsec, "vm_clock_nsec": info.vm_clock_nsec,
    }  # fmt: skip
