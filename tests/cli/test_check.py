import json
import struct
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from snapcheck.cli.check import report_of
from snapcheck.cli.cluster_map import COLUMNS, ROWS_MAX, drawn
from snapcheck.impl.blockfile import DiskFile
from snapcheck.impl.qcow2.image import Image
from snapcheck.model.snapshot import SnapshotInfo

Snapcheck = Callable[..., CompletedProcess[str]]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An image of four data clusters, two of which only a snapshot still has."""
    path = tmp_path / "image.qcow2"
    with Image.create(path, size_bytes=1 << 20, cluster_bytes=4096) as opened:
        opened.write(0, b"a" * 8192)
        opened.snapshot_create(SnapshotInfo(name="before \x1b", vm_state_size=0, date_sec=86400))
        opened.write(0, b"b" * 8192)
    return path


def leak(path: Path) -> None:
    """Count the last cluster once too often."""
    file = DiskFile(path)
    table = struct.unpack(">Q", file.pread(48, 8))[0]
    block = struct.unpack(">Q", file.pread(table, 8))[0]
    last = file.size() // 4096
    file.pwrite(block + 2 * last, b"\0\1")
    file.truncate((last + 1) * 4096)
    file.close()


def test_a_clean_image_is_drawn_and_its_snapshots_are_listed(snapcheck: Snapcheck, image: Path) -> None:
    done = snapcheck("check", image)
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 MiB virtual" in done.stdout
    assert "= data of snapshots only 2" in " ".join(done.stdout.split())
    assert "'before \\x1b'" in done.stdout
    assert "1970-01-02 00:00:00" in done.stdout
    assert done.stdout.splitlines()[-1] == "clean: every refcount is what the references say"
    assert max(map(len, done.stdout.replace(str(image), "").splitlines())) <= 80


def test_a_leak_is_a_problem_and_is_on_the_map(snapcheck: Snapcheck, image: Path) -> None:
    leak(image)
    done = snapcheck("check", image)
    assert done.returncode == 1
    assert "0 corruptions, 1 leaked clusters" in done.stdout
    assert "? leaked" in done.stdout


def test_machines_get_the_same_as_json(snapcheck: Snapcheck, image: Path) -> None:
    leak(image)
    done = snapcheck("check", image, "--json")
    data = json.loads(done.stdout)
    assert done.returncode == 1
    assert (data["schema"], data["clean"], data["leaks"], data["corruptions"]) == (1, False, 1, 0)
    assert data["clusters"]["snapshot-data"] == 2
    assert [each["name"] for each in data["snapshots"]] == ["before \x1b"]
    assert len(data["problems"]) == 1


def test_checking_an_image_does_not_change_it(snapcheck: Snapcheck, image: Path) -> None:
    before = image.read_bytes()
    snapcheck("check", image)
    assert image.read_bytes() == before


def test_repair_frees_what_leaked_and_says_so(snapcheck: Snapcheck, image: Path) -> None:
    leak(image)
    done = snapcheck("check", image, "--repair")
    assert (done.returncode, done.stderr) == (0, "")
    assert "repaired: 1 refcounts were set right" in done.stdout
    assert done.stdout.splitlines()[-1] == "clean: every refcount is what the references say"
    assert json.loads(snapcheck("check", image, "--repair", "--json").stdout)["repaired"] == []


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"MZ" + bytes(600), "this is not a qcow2 image"),
        (b"", "this is not a qcow2 image"),
        (b"QFI\xfb\0\0\0\1" + bytes(600), "version: 1, expected 2 or 3"),
    ],
)
def test_a_file_that_is_no_usable_image_takes_one_line(
    snapcheck: Snapcheck, tmp_path: Path, content: bytes, told: str
) -> None:
    path = tmp_path / "thing"
    path.write_bytes(content)
    done = snapcheck("check", path)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr
    assert done.stderr.startswith(f"snapcheck: {path}: ")
    assert len(done.stderr.splitlines()) == 1


def test_what_is_no_file_takes_one_line(snapcheck: Snapcheck, tmp_path: Path) -> None:
    missing = snapcheck("check", "missing")
    folder = snapcheck("check", tmp_path)
    assert (missing.returncode, folder.returncode) == (2, 2)
    assert missing.stderr == "snapcheck: missing: there is no such file; name a qcow2 image\n"
    assert folder.stderr == f"snapcheck: {tmp_path}: is no file; name a qcow2 image\n"


def test_a_large_image_still_fits_on_a_screen(tmp_path: Path) -> None:
    path = tmp_path / "large.qcow2"
    with Image.create(path, size_bytes=8 << 20, cluster_bytes=512) as opened:
        opened.write(0, b"x" * (4 << 20))
    lines = list(drawn(report_of(path)))
    assert len([line for line in lines if len(line.split()) == 2 and len(line.split()[1]) == COLUMNS]) <= ROWS_MAX
    assert "clusters of 512 bytes" in "\n".join(lines)
