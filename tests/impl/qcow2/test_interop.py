"""The engine and QEMU's tools on the same images, both ways."""

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from subprocess import CompletedProcess
from typing import Any

import pytest
from snapcheck.impl.blockfile import DiskFile, MemoryFile
from snapcheck.impl.qcow2.image import Image
from snapcheck.impl.qcow2.layout import ImageError
from snapcheck.impl.qcow2.prepare import prepared_image
from snapcheck.model.content import pattern
from snapcheck.model.setup import DeviceSpec, PreparedSnapshot
from snapcheck.model.snapshot import SnapshotInfo

pytestmark = pytest.mark.qemu
Qemu = Callable[..., "CompletedProcess[str]"]
CLUSTERS = (512, 4096, 65536, 2 << 20)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "image.qcow2"


def ok(done: "CompletedProcess[str]") -> str:
    assert done.returncode == 0, f"{done.args}: {done.stdout}{done.stderr}"
    return done.stdout


def content(qemu: Qemu, path: Path, snapshot_id: str | None = None) -> bytes:
    """Return what qemu-img reads: the active content or that of a snapshot."""
    raw = path.with_suffix(".raw")
    selector = ("-l", f"snapshot.id={snapshot_id}") if snapshot_id is not None else ()
    ok(qemu("qemu-img", "convert", *selector, "-f", "qcow2", "-O", "raw", path, raw))
    return raw.read_bytes()


def listed(qemu: Qemu, path: Path) -> list[dict[str, Any]]:
    """Return the snapshots as qemu-img tells them."""
    found: list[dict[str, Any]] = json.loads(ok(qemu("qemu-img", "info", "--output=json", path))).get("snapshots", [])
    return found


def require_same_view(qemu: Qemu, path: Path) -> None:
    """Both find the image clean, and read the same list and the same bytes."""
    ok(qemu("qemu-img", "check", "-f", "qcow2", path))
    with Image.open(path) as image:
        report = image.check()
        assert report.clean, report.problems
        active = image.read(0, image.size_bytes)
        ours = image.snapshot_list()
        kept: dict[str, bytes] = {}
        for entry in ours:
            with image.clone() as there:
                there.snapshot_goto(entry.id_str)
                kept[entry.id_str] = there.read(0, there.size_bytes)
    assert content(qemu, path) == active
    assert [(s["id"], s["name"], s["vm-state-size"], s["date-sec"], s["date-nsec"]) for s in listed(qemu, path)] == [
        (s.id_str, s.name, s.vm_state_size, s.date_sec, s.date_nsec) for s in ours
    ]
    for id_str, held in kept.items():
        size = min(len(held), len(active))  # qemu-img reads a snapshot under the active size
        assert content(qemu, path, id_str)[:size] == held[:size]


def on_disk(file: MemoryFile, path: Path) -> None:
    path.write_bytes(file.pread(0, file.size()))


def act_here(image: Image, rng: Random) -> None:
    """Do something with the engine."""
    sectors = image.size_bytes // 512
    start = rng.randrange(sectors) * 512
    length = rng.randint(1, min(64, sectors - start // 512)) * 512
    names = [entry.name for entry in image.snapshot_list()]
    match rng.choice(("write", "write", "write", "zero", "discard", "create", "goto", "delete", "resize", "vmstate")):
        case "write":
            image.write(start, rng.randbytes(1) * length)
        case "zero":
            image.write_zeroes(start, length)
        case "discard":
            image.discard(start, length)
        case "create":
            info = SnapshotInfo(name=f"s{rng.randrange(100)}", date_sec=rng.randrange(1 << 31), vm_clock_nsec=7)
            image.snapshot_create(info)
        case "goto" if names:
            image.snapshot_goto(rng.choice(names))
        case "delete" if names:
            image.snapshot_delete(None, rng.choice(names))
        case "resize":
            image.resize(rng.choice((100, 256, 300)) * 512)
        case "vmstate":
            image.vmstate_write(0, rng.randbytes(1) * 3000)
            image.snapshot_create(SnapshotInfo(name=f"v{rng.randrange(100)}", vm_state_size=3000))
        case _:
            pass


def act_there(qemu: Qemu, path: Path, rng: Random, *, resizes: bool = True) -> None:
    """Do something with QEMU's tools. `resizes` is off where there may be VM state: a shrink by QEMU 7.2 leaks it."""
    names = [entry["name"] for entry in listed(qemu, path)]
    size = int(json.loads(ok(qemu("qemu-img", "info", "--output=json", path)))["virtual-size"])
    start = rng.randrange(size // 512) * 512
    length = rng.randint(1, min(64, (size - start) // 512)) * 512
    match rng.choice(("write", "write", "zero", "unmap", "discard", "create", "goto", "delete", "resize")):
        case "write":
            ok(qemu("qemu-io", "-f", "qcow2", "-c", f"write -P {rng.randrange(1, 255)} {start} {length}", path))
        case "zero":
            ok(qemu("qemu-io", "-f", "qcow2", "-c", f"write -z {start} {length}", path))
        case "unmap":
            ok(qemu("qemu-io", "-f", "qcow2", "-d", "unmap", "-c", f"write -z -u {start} {length}", path))
        case "discard":
            ok(qemu("qemu-io", "-f", "qcow2", "-d", "unmap", "-c", f"discard {start} {length}", path))
        case "create":
            ok(qemu("qemu-img", "snapshot", "-c", f"q{rng.randrange(100)}", path))
        case "goto" if names:
            ok(qemu("qemu-img", "snapshot", "-a", rng.choice(names), path))
        case "delete" if names:
            ok(qemu("qemu-img", "snapshot", "-d", rng.choice(names), path))
        case "resize" if resizes:
            ok(qemu("qemu-img", "resize", "--shrink", "-f", "qcow2", path, rng.choice((100, 256, 300)) * 512))
        case _:
            pass


@pytest.mark.parametrize("cluster_bytes", CLUSTERS)
def test_what_the_engine_makes_is_clean_and_the_same_to_qemu(qemu: Qemu, path: Path, cluster_bytes: int) -> None:
    rng = Random(cluster_bytes)  # noqa: S311  # chance for a test, no secret
    with Image.create(path, size_bytes=256 * 512, cluster_bytes=cluster_bytes) as image:
        for _ in range(60):
            act_here(image, rng)
    require_same_view(qemu, path)


@pytest.mark.parametrize("cluster_bytes", CLUSTERS)
def test_what_qemu_makes_reads_the_same_here(qemu: Qemu, path: Path, cluster_bytes: int) -> None:
    rng = Random(cluster_bytes)  # noqa: S311  # chance for a test, no secret
    ok(qemu("qemu-img", "create", "-f", "qcow2", "-o", f"cluster_size={cluster_bytes}", path, 256 * 512))
    for _ in range(15):
        act_there(qemu, path, rng)
    require_same_view(qemu, path)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("cluster_bytes", [512, 4096])
def test_taking_turns_on_one_image_never_harms_it(qemu: Qemu, path: Path, cluster_bytes: int, seed: int) -> None:
    rng = Random(seed)  # noqa: S311  # chance for a test, no secret
    ok(qemu("qemu-img", "create", "-f", "qcow2", "-o", f"cluster_size={cluster_bytes}", path, 256 * 512))
    for _ in range(6):
        with Image.open(path) as image:
            for _ in range(6):
                act_here(image, rng)
        for _ in range(2):
            act_there(qemu, path, rng, resizes=False)
        require_same_view(qemu, path)


def test_growing_refcounts_and_tables_stay_clean_to_qemu(qemu: Qemu, path: Path) -> None:
    """9 MiB of 512-byte clusters need more refcount blocks than one cluster of refcount table can name."""
    with Image.create(path, size_bytes=9 << 20, cluster_bytes=512) as image:
        before = image.header.refcount_table_clusters
        for number in range(9):
            image.write(number << 20, bytes([number + 1]) * (1 << 20))
        image.snapshot_create(SnapshotInfo(name="full"))
        image.write(0, b"z" * (1 << 20))
        assert image.header.refcount_table_clusters > before
    require_same_view(qemu, path)


def test_prepared_images_are_what_their_spec_says_to_qemu_too(qemu: Qemu, path: Path) -> None:
    snapshots = (
        PreparedSnapshot("4294967297", "n" * 300, sectors=40, tag=3, date_sec=9, extra=b"\xee" * 24),
        PreparedSnapshot("x", "b", sectors=200, tag=4, vm_state_size=765),
    )
    on_disk(prepared_image(DeviceSpec("d0", sectors=100, cluster_bytes=512, tag=5, snapshots=snapshots)), path)

    ok(qemu("qemu-img", "check", "-f", "qcow2", path))
    assert content(qemu, path) == pattern(tag=5, sector=0, count=100)
    assert content(qemu, path, "4294967297")[: 40 * 512] == pattern(tag=3, sector=0, count=40)
    assert content(qemu, path, "x") == pattern(tag=4, sector=0, count=100)
    assert [(s["id"], s["name"], s["vm-state-size"]) for s in listed(qemu, path)] == [
        ("4294967297", "n" * 255, 0), ("x", "b", 765)
    ]  # fmt: skip


def test_unknown_extra_data_survives_both_engines(qemu: Qemu, path: Path) -> None:
    extra = bytes(range(40))
    snapshots = (PreparedSnapshot("1", "a", sectors=8, tag=3, extra=extra),)
    on_disk(prepared_image(DeviceSpec("d0", sectors=8, snapshots=snapshots)), path)
    ok(qemu("qemu-img", "snapshot", "-c", "b", path))
    with Image.open(path) as image:
        image.snapshot_create(SnapshotInfo(name="c"))
        assert image.snapshots[0].extra == extra


def test_an_external_data_file_is_refused_by_the_name_of_the_field(qemu: Qemu, path: Path) -> None:
    ok(qemu("qemu-img", "create", "-f", "qcow2", "-o", f"data_file={path.with_name('data.raw')}", path, "1M"))
    with pytest.raises(ImageError, match="incompatible_features: bit 2") as caught:
        Image.open(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", [1, 2], ids=["aes", "luks"])
def test_an_encrypted_image_is_refused_by_the_name_of_the_field(qemu: Qemu, path: Path, method: int) -> None:
    # The field is set by hand: making a key takes QEMU a measurement of time that fails on a busy machine.
    ok(qemu("qemu-img", "create", "-q", "-f", "qcow2", path, "1M"))
    raw = bytearray(path.read_bytes())
    raw[32:36] = method.to_bytes(4, "big")
    path.write_bytes(raw)
    with pytest.raises(ImageError, match=f"crypt_method: {method}: encryption is not supported"):
        Image.open(path)


def test_the_checker_agrees_with_qemu_on_leaks(qemu: Qemu, path: Path) -> None:
    file = MemoryFile()
    with Image.create(file, size_bytes=1 << 16, cluster_bytes=4096) as image:
        image.write(0, b"x" * (1 << 16))
    on_disk(file, path)
    # given the L1 entry is wiped, its table and all 16 clusters leak
    with Image.open(path) as image:
        l1 = image.header.l1_offset
    disk = DiskFile(path)
    disk.pwrite(l1, bytes(8))
    disk.close()
    with Image.open(path, read_only=True) as image:
        report = image.check()
    assert (report.corruptions, report.leaks) == (0, 17)
    told = json.loads(qemu("qemu-img", "check", "--output=json", path).stdout)
    assert told["leaks"] == 17


def monitor(qemu: Qemu, path: Path, command: str) -> str:
    """Run one command of the human monitor in a virtual machine without a guest; return its answer, "" for success."""
    asked = {"execute": "human-monitor-command", "arguments": {"command-line": command}}
    talk = ({"execute": "qmp_capabilities"}, asked, {"execute": "quit"})
    machine = ("-machine", "none", "-nodefaults", "-no-user-config", "-display", "none", "-S", "-qmp", "stdio")
    drive = f"driver=qcow2,node-name=d0,file.driver=file,file.filename={path}"
    done = qemu("qemu-system-x86_64", *machine, "-blockdev", drive, text="\n".join(map(json.dumps, talk)))
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    return str([answer["return"] for answer in answers if "return" in answer][1])


def test_a_virtual_machine_saved_by_qemu_still_loads_after_the_engine_was_at_work(qemu: Qemu, path: Path) -> None:
    with Image.create(path, size_bytes=1 << 20, cluster_bytes=4096) as image:
        image.write(0, b"1" * 8192)
    assert monitor(qemu, path, "savevm a") == ""
    with Image.open(path) as image:
        (saved,) = image.snapshot_list()
        assert (saved.name, saved.vm_state_size > 0) == ("a", True)
        image.vmstate_write(0, b"s" * 50000)
        image.snapshot_create(SnapshotInfo(name="b", vm_state_size=50000))
        image.write(0, b"2" * 8192)
        image.snapshot_goto("a")
        state = image.vmstate_read(0, saved.vm_state_size)
        image.snapshot_goto("b")
        image.snapshot_delete(None, "b")
    assert monitor(qemu, path, "loadvm a") == ""
    with Image.open(path) as image:
        assert image.read(0, 8192) == b"1" * 8192
        assert image.vmstate_read(0, saved.vm_state_size) == state
    require_same_view(qemu, path)


def test_vm_state_of_the_engine_is_where_qemu_looks_for_it(qemu: Qemu, path: Path) -> None:
    """A state that QEMU saved, copied by the engine into a snapshot of another image, loads there."""
    donor = path.with_name("donor.qcow2")
    for each in (path, donor):
        Image.create(each, size_bytes=1 << 20, cluster_bytes=4096).close()
    assert monitor(qemu, donor, "savevm a") == ""
    with Image.open(donor) as image:
        size = image.snapshot_list()[0].vm_state_size
        image.snapshot_goto("a")
        state = image.vmstate_read(0, size)
    with Image.open(path) as image:
        image.vmstate_write(0, state)
        image.snapshot_create(SnapshotInfo(name="a", vm_state_size=size))
    assert monitor(qemu, path, "loadvm a") == ""
