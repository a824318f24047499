"""Long turn-taking with QEMU's tools on one image, and a second opinion on snapshots from dissect.hypervisor."""

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from subprocess import CompletedProcess
from subprocess import run as start
from typing import NamedTuple

import pytest
from snapcheck.impl.qcow2 import Image
from snapcheck.model.snapshot import SnapshotInfo

Qemu = Callable[..., "CompletedProcess[str]"]
SECTORS = 512
STEPS = 100
OPTION_SETS = (
    "cluster_size=512", "compat=0.10,cluster_size=4096", "refcount_bits=8,cluster_size=512", "refcount_bits=64",
    "lazy_refcounts=on,cluster_size=1024", "backing_file=base.raw,backing_fmt=raw,cluster_size=4096",
)  # fmt: skip
READER = """
import hashlib, json, sys
from dissect.hypervisor.disk.qcow2 import QCow2
with open(sys.argv[1], "rb") as file:
    image = QCow2(file, allow_no_data_file=True, allow_no_backing_file=True)
    size = image.open().size
    found = {"": hashlib.sha256(image.open().read(size)).hexdigest()}
    for snapshot in image.snapshots:
        found[snapshot.id] = hashlib.sha256(snapshot.open().read(size)).hexdigest()
print(json.dumps(found))
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "base.raw").write_bytes(b"base" * (SECTORS * 100))
    return tmp_path / "image.qcow2"


def ok(done: "CompletedProcess[str]") -> str:
    assert done.returncode == 0, f"{done.args}: {done.stdout}{done.stderr}"
    return done.stdout


class Turn(NamedTuple):
    """What is done next, and to which snapshot."""

    action: str
    name: str


class Expected:
    """What the image must hold: a bytearray for the guest, and a copy of it for each snapshot by name."""

    def __init__(self, content: bytes) -> None:
        self.active = bytearray(content)
        self.snapshots: dict[str, bytes] = {}

    def fill(self, start: int, length: int, byte: int) -> None:
        self.active[start : start + length] = bytes([byte]) * length


def step_here(path: Path, rng: Random, expected: Expected, turn: Turn) -> None:
    with Image.open(path) as image:
        start, length, byte = draw_range(rng)
        match turn.action:
            case "write":
                image.write(start, bytes([byte]) * length)
                expected.fill(start, length, byte)
            case "zero":
                image.write_zeroes(start, length)
                expected.fill(start, length, 0)
            case "create":
                image.snapshot_create(SnapshotInfo(name=turn.name))
            case "goto":
                image.snapshot_goto(turn.name)
            case _:
                image.snapshot_delete(None, turn.name)


def step_there(qemu: Qemu, path: Path, rng: Random, expected: Expected, turn: Turn) -> None:
    start, length, byte = draw_range(rng)
    match turn.action:
        case "write":
            ok(qemu("qemu-io", "-f", "qcow2", "-c", f"write -P {byte} {start} {length}", path))
            expected.fill(start, length, byte)
        case "zero":
            ok(qemu("qemu-io", "-f", "qcow2", "-d", "unmap", "-c", f"write -z -u {start} {length}", path))
            expected.fill(start, length, 0)
        case _:
            letter = {"create": "-c", "goto": "-a", "delete": "-d"}[turn.action]
            ok(qemu("qemu-img", "snapshot", letter, turn.name, path))


def draw_range(rng: Random) -> tuple[int, int, int]:
    start = rng.randrange(SECTORS)
    return start * 512, rng.randint(1, min(60, SECTORS - start)) * 512, rng.randrange(1, 255)


def draw_action(rng: Random, expected: Expected, number: int) -> Turn:
    names = sorted(expected.snapshots)
    action = rng.choice(("write", "write", "write", "zero", "create", "goto", "delete"))
    if action in ("goto", "delete") and not names:
        action = "create"
    if action == "create" and len(names) == 5:
        action = "delete"
    return Turn(action, f"s{number}" if action == "create" else rng.choice(names) if names else "")


def follow(expected: Expected, turn: Turn) -> None:
    action, name = turn
    if action == "create":
        expected.snapshots[name] = bytes(expected.active)
    elif action == "goto":
        expected.active[:] = expected.snapshots[name]
    elif action == "delete":
        del expected.snapshots[name]


def require_holds(path: Path, expected: Expected) -> None:
    with Image.open(path, read_only=True) as image:
        assert image.read(0, image.size_bytes) == expected.active
        assert [entry.name for entry in image.snapshot_list()] == list(expected.snapshots)
        report = image.check()
        assert report.clean, report.problems
        for name, held in expected.snapshots.items():
            image.snapshot_load_tmp(None, name)
            assert image.read(0, image.size_bytes) == held


@pytest.mark.qemu
@pytest.mark.parametrize("options", OPTION_SETS)
def test_taking_turns_step_by_step_never_loses_a_byte(qemu: Qemu, path: Path, options: str) -> None:
    """Each step by whoever the chance picks; both look at the image again and again."""
    rng = Random(options)  # noqa: S311  # chance for a test, no secret
    made = options.replace("base.raw", str(path.with_name("base.raw")))
    ok(qemu("qemu-img", "create", "-f", "qcow2", "-o", made, path, SECTORS * 512))
    base = path.with_name("base.raw").read_bytes() if "backing" in options else b""
    expected = Expected(base[: SECTORS * 512].ljust(SECTORS * 512, b"\0"))
    for number in range(STEPS):
        turn = draw_action(rng, expected, number)
        if rng.random() < 0.6:
            step_here(path, rng, expected, turn)
        else:
            step_there(qemu, path, rng, expected, turn)
        follow(expected, turn)
        if number % 5 == 4:
            require_holds(path, expected)
        if number % 25 == 24:
            ok(qemu("qemu-img", "check", "-f", "qcow2", path))
    require_holds(path, expected)


# --- a second opinion -----------------------------------------------------------------------------
def test_a_third_reader_sees_the_same_in_every_snapshot(path: Path) -> None:
    pytest.importorskip("dissect.hypervisor")
    rng = Random(3)  # noqa: S311  # chance for a test, no secret
    expected = Expected(bytes(SECTORS * 512))
    Image.create(path, size_bytes=SECTORS * 512, cluster_bytes=4096).close()
    for number in range(60):
        turn = draw_action(rng, expected, number)
        step_here(path, rng, expected, turn)
        follow(expected, turn)
    for turn in (Turn("create", "x"), Turn("write", ""), Turn("create", "y")):
        step_here(path, rng, expected, turn)
        follow(expected, turn)
    done = start((sys.executable, "-c", READER, path), capture_output=True, text=True, check=False, timeout=60)
    seen = json.loads(ok(done))
    assert seen == hashes_here(path)
    assert len(seen) > 2


def hashes_here(path: Path) -> dict[str, str]:

    found: dict[str, str] = {}
    with Image.open(path, read_only=True) as image:
        found[""] = hashlib.sha256(image.read(0, image.size_bytes)).hexdigest()
        for entry in image.snapshot_list():
            image.snapshot_load_tmp(entry.id_str, None)
            found[entry.id_str] = hashlib.sha256(image.read(0, image.size_bytes)).hexdigest()
    return found
