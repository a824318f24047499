"""`snapcheck crash`: logs of others, from the command line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from snapcheck.fault_injection.dm_log_writes import write_log
from snapcheck.fault_injection.write_log import LoggedFile, Sort, WriteLog
from snapcheck.impl.blockfile import MemoryFile
from snapcheck.impl.qcow2 import Image
from snapcheck.model.snapshot import SnapshotInfo

Snapcheck = Callable[..., Any]


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Return the log of a create by the engine, and the image that it began on."""
    return write_files(tmp_path, flushes=True)


def write_files(folder: Path, *, flushes: bool) -> tuple[Path, Path]:
    base, log = MemoryFile("d0"), WriteLog()
    Image.create(base, size_bytes=65536, cluster_bytes=4096).close()
    image = Image.open(LoggedFile(log, base.clone(), "d0"))
    image.write(0, b"data" * 1024)
    image.snapshot_create(SnapshotInfo(name="s"))
    log.mark("answered", step=0)
    if not flushes:
        log.entries = [entry for entry in log.entries if entry.sort is not Sort.FLUSH]
        log.marks.clear()
    (folder / "a.log").write_bytes(write_log(log, base, device="d0"))
    (folder / "base.qcow2").write_bytes(base.pread(0, base.size()))
    return folder / "a.log", folder / "base.qcow2"


def test_a_sound_log_passes_and_the_funnel_is_told(
    snapcheck: Snapcheck, files: tuple[Path, Path], tmp_path: Path
) -> None:
    log, base = files
    done = snapcheck("crash", "--log", log, "--base", base, "--out", tmp_path / "report")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[:2] for line in lines[:3]] == [["d0", "prefix"], ["d0", "epoch"], ["d0", "sector-torn"]]
    assert lines[3].startswith("PASSED  1 write log, prefix, epoch, sector-torn")
    result = json.loads((tmp_path / "report" / "result.json").read_text())
    phase = result["phases"][0]
    assert (result["verdict"], phase["name"], phase["counts"]["workloads"]) == ("passed", "crash", 1)
    assert phase["counts"]["enumerated"] >= phase["counts"]["distinct"] >= phase["counts"]["judged"] > 0
    page = (tmp_path / "report" / "report.html").read_text()
    assert "distinct in what is read</span><b>0</b>" not in page
    assert f"distinct in what is read</span><b>{phase['counts']['distinct in what is read']}</b>" in page
    assert "repro/" not in page  # there is no history to run again


def test_where_no_law_binds_the_verdict_is_unknown(
    snapcheck: Snapcheck, files: tuple[Path, Path], tmp_path: Path
) -> None:
    log, base = files
    report = tmp_path / "report"
    done = snapcheck("crash", "--log", log, "--base", base, "--out", report, "--persistence", "no-barriers")
    assert (done.returncode, done.stderr) == (3, "")
    assert "UNKNOWN  1 write log, no-barriers" in done.stdout
    assert "note   no law was checked" in done.stdout


@pytest.mark.parametrize("lost", ["zero", "garbage"])
def test_what_is_lost_may_hold_what_it_never_held_and_how_many_disks_that_wrecks_is_told(
    snapcheck: Snapcheck, files: tuple[Path, Path], tmp_path: Path, lost: str
) -> None:
    log, base = files
    report = tmp_path / "report"
    done = snapcheck("crash", "--log", log, "--base", base, "--out", report, "--persistence", "epoch", "--lost", lost)
    assert (done.returncode, done.stderr) == (3, "")
    assert "do not open or are corrupt" in done.stdout
    assert f"UNKNOWN  1 write log, epoch, lost sectors with {lost}" in done.stdout


def test_lost_sectors_that_hold_something_unheard_of_are_refused_in_a_line(
    snapcheck: Snapcheck, files: tuple[Path, Path]
) -> None:
    log, base = files
    done = snapcheck("crash", "--log", log, "--base", base, "--lost", "water")
    assert done.returncode == 2
    assert "--lost water: there is no such thing; lost sectors hold old, zero, garbage" in done.stderr


def test_a_violation_leaves_the_image_that_shows_it(snapcheck: Snapcheck, tmp_path: Path) -> None:
    log, base = write_files(tmp_path, flushes=False)
    done = snapcheck("crash", "--log", log, "--base", base, "--out", tmp_path / "report", "--persistence", "epoch")
    assert done.returncode == 1
    assert "no-corruption  d0: " in done.stdout
    command = next(line.split()[1:] for line in done.stdout.splitlines() if line.startswith("  image  "))
    again = snapcheck(*command[1:])
    assert command[:2] == ["snapcheck", "check"]
    assert again.returncode == 1
    assert "refcount" in again.stdout


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--log", "base.qcow2", "--base", "base.qcow2"], "base.qcow2: not a dm-log-writes log"),
        (["--log", "short.log", "--base", "base.qcow2"], "short.log: the log is cut off in entry"),
        (["--log", "a.log", "--base", "a.log"], "do not belong together: the base image is not sound"),
        (["--log", "a.log", "--base", "other.qcow2"], "do not belong together: what the whole log leads to"),
        (["--log", "a.log", "--log", "a.log", "--base", "base.qcow2"], "2 --log and 1 --base: give each log the image"),
        (["--log", "zero.log", "--base", "base.qcow2"], "do not belong together: the log has no write"),
        (["--log", "nowhere", "--base", "base.qcow2"], "nowhere: there is no such file"),
        (["--log", ".", "--base", "base.qcow2"], ".: is no regular file"),
        (["--log", "a.log", "--base", "base.qcow2", "--persistence", "some"], "--persistence some: there is no 'some'"),
        (["--log", "a.log", "--base", "base.qcow2", "--bound", "0"], "--bound 0"),
        (["--log", "a.log"], "Missing option '--base'"),
    ],
)
def test_bad_input_gets_one_line(
    snapcheck: Snapcheck, files: tuple[Path, Path], arguments: list[str], why: str
) -> None:
    folder = files[0].parent  # the current one
    (folder / "zero.log").write_bytes(bytes(8192))
    (folder / "short.log").write_bytes(files[0].read_bytes()[:-700])
    Image.create(folder / "other.qcow2", size_bytes=1 << 20, cluster_bytes=512).close()
    done = snapcheck("crash", *arguments)
    assert done.returncode == 2
    assert why in done.stderr
    assert len(done.stderr.splitlines()) <= 2
    assert "Traceback" not in done.stderr


@pytest.mark.qemu
def test_logs_of_a_real_qemu_are_judged(snapcheck: Snapcheck, qemu: Callable[..., Any], tmp_path: Path) -> None:
    """QEMU 7.2 cut off while it goes back to a snapshot leaves an L2 table COPIED that the snapshot shares."""
    image, log, base = tmp_path / "w.qcow2", tmp_path / "w.log", tmp_path / "base.qcow2"
    qemu("qemu-img", "create", "-q", "-f", "qcow2", image, "1M")
    qemu("qemu-io", "-c", "write -P 1 0 128k", image)
    through = (
        f"driver=qcow2,file.driver=blklogwrites,file.file.driver=file,file.file.filename={image},"
        f"file.log.driver=file,file.log.filename={log}"
    )
    statuses: list[int] = []
    for option in ("-c", "-a"):
        qemu("qemu-io", "-c", "write -P 2 0 64k", image)
        base.write_bytes(image.read_bytes())
        log.write_bytes(b"")
        assert qemu("qemu-img", "snapshot", option, "s", "--image-opts", through).returncode == 0
        done = snapcheck("crash", "--log", log, "--base", base, "--out", tmp_path / "report")
        statuses.append(done.returncode)
    assert statuses[0] == 0
    if "version 7.2" in qemu("qemu-img", "--version").stdout:
        assert (statuses[1], "COPIED, and 2 references" in done.stdout) == (1, True)
    for options, size in (("cluster_size=64k", "1M"), ("cluster_size=64k", "2M"), ("cluster_size=4k", "1M")):
        qemu("qemu-img", "create", "-q", "-f", "qcow2", "-o", options, base, size)
        done = snapcheck("crash", "--log", log, "--base", base, "--out", tmp_path / "report")
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
        assert "--base must be the image as it was before the log began" in done.stderr
