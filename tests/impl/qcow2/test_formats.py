"""Images of every supported kind, made by QEMU and made here: both read the same, and find the other's work clean."""

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from subprocess import CompletedProcess

import pytest
from snapcheck.impl.blockfile import BlockError, MemoryFile
from snapcheck.impl.qcow2 import Image, inspect
from snapcheck.model.errno import Errno
from snapcheck.model.snapshot import SnapshotInfo

pytestmark = pytest.mark.qemu
Qemu = Callable[..., "CompletedProcess[str]"]
SIZE = 512 << 10

MADE_BY_QEMU = (
    "compat=0.10",
    "compat=0.10,cluster_size=512",
    "compat=1.1,cluster_size=512",
    "cluster_size=4096,preallocation=metadata",
    "cluster_size=2M,preallocation=off",
    "cluster_size=4096,preallocation=falloc",
    "refcount_bits=1,cluster_size=4096",
    "refcount_bits=2,cluster_size=512",
    "refcount_bits=4",
    "refcount_bits=8,cluster_size=1024",
    "refcount_bits=32",
    "refcount_bits=64,cluster_size=4096",
    "lazy_refcounts=on,cluster_size=4096",
    "compression_type=zstd",
    "extended_l2=on,cluster_size=16k",
    "extended_l2=on,cluster_size=64k",
)
WRITABLE = tuple(options for options in MADE_BY_QEMU if "extended_l2" not in options)
SINGLE_COUNT = "refcount_bits=1,"  # nothing that is allocated can be shared


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "image.qcow2"


def ok(done: "CompletedProcess[str]") -> str:
    assert done.returncode == 0, f"{done.args}: {done.stdout}{done.stderr}"
    return done.stdout


def contents(qemu: Qemu, path: Path) -> dict[str, bytes]:
    """Return what QEMU reads: the active content under "", and that of each snapshot under its id."""
    listed = json.loads(ok(qemu("qemu-img", "info", "--output=json", path))).get("snapshots", [])
    found: dict[str, bytes] = {}
    raw = path.with_suffix(".raw")
    for selected in ("", *(each["id"] for each in listed)):
        selector = ("-l", f"snapshot.id={selected}") if selected else ()
        ok(qemu("qemu-img", "convert", *selector, "-f", "qcow2", "-O", "raw", path, raw))
        found[selected] = raw.read_bytes()
    return found


def contents_here(path: Path) -> dict[str, bytes]:
    """Return the same as the engine reads it."""
    found: dict[str, bytes] = {}
    with Image.open(path, read_only=True) as image:
        found[""] = image.read(0, image.size_bytes)
        for entry in image.snapshot_list():
            image.snapshot_load_tmp(entry.id_str, None)
            found[entry.id_str] = image.read(0, image.size_bytes)
        report = image.check()
        assert report.clean, report.problems
    return found


def require_same_view(qemu: Qemu, path: Path) -> None:
    ok(qemu("qemu-img", "check", "-f", "qcow2", path))
    assert contents_here(path) == contents(qemu, path)


def create(qemu: Qemu, path: Path, options: str, size: int = SIZE) -> None:
    ok(qemu("qemu-img", "create", "-f", "qcow2", "-o", options, path, size))


def io(qemu: Qemu, path: Path, *commands: str) -> None:
    ok(qemu("qemu-io", "-f", "qcow2", *(word for command in commands for word in ("-c", command)), path))


@pytest.mark.parametrize("options", MADE_BY_QEMU)
def test_what_qemu_makes_with_any_options_reads_the_same_here(qemu: Qemu, path: Path, options: str) -> None:
    create(qemu, path, options)
    io(qemu, path, "write -P 1 0 70k", "write -P 2 100k 3k", "write -z 20k 9k", "write -P 7 300k 512")
    if SINGLE_COUNT not in options:
        ok(qemu("qemu-img", "snapshot", "-c", "a", path))
        io(qemu, path, "write -P 3 10k 30k", "write -z 50k 6k", "discard 0 4k")
        ok(qemu("qemu-img", "snapshot", "-c", "b", path))
        io(qemu, path, "write -P 4 90k 40k")
    require_same_view(qemu, path)


@pytest.mark.parametrize("options", WRITABLE)
def test_what_is_done_here_to_any_kind_of_image_is_clean_and_the_same_to_qemu(
    qemu: Qemu, path: Path, options: str
) -> None:
    create(qemu, path, options)
    snapshots = SINGLE_COUNT not in options
    with Image.open(path) as image:
        image.write(1000, b"a" * 90000)
        if snapshots:
            image.vmstate_write(0, b"v" * 5000)
            image.snapshot_create(SnapshotInfo(name="a", vm_state_size=5000))
            image.write(500, b"b" * 30000)
            image.snapshot_create(SnapshotInfo(name="b"))
        image.write_zeroes(2000, 60000)
        image.discard(0, 65536)
        image.write(200000, b"c" * 1000)
        if snapshots:
            if "refcount_bits=2," not in options:  # the old and the new state and both snapshots make four
                image.snapshot_goto("a")
            image.write(77, b"d" * 50000)
            image.snapshot_delete(None, "b")
    require_same_view(qemu, path)


@pytest.mark.parametrize(
    "wanted",
    [
        {"version": 2}, {"refcount_bits": 1}, {"refcount_bits": 2}, {"refcount_bits": 4}, {"refcount_bits": 8},
        {"refcount_bits": 32}, {"refcount_bits": 64}, {"lazy_refcounts": True}, {"compression": "zstd"},
        {"cluster_bytes": 512, "refcount_bits": 1}, {"cluster_bytes": 512, "version": 2}, {"cluster_bytes": 2 << 20},
    ],
)  # fmt: skip
def test_every_kind_of_image_that_is_made_here_is_clean_to_qemu_and_keeps_its_kind(
    qemu: Qemu, path: Path, wanted: dict[str, int]
) -> None:
    with Image.create(path, size_bytes=SIZE, **wanted) as image:  # type: ignore[arg-type]  # of several types
        image.write(3000, b"x" * 100000)
        image.write_compressed(4 << 16, b"y" * 65536) if image.header.cluster_bits == 16 else None
    info = json.loads(ok(qemu("qemu-img", "info", "--output=json", path)))["format-specific"]["data"]
    assert info["compat"] == ("0.10" if wanted.get("version") == 2 else "1.1")
    assert info["refcount-bits"] == wanted.get("refcount_bits", 16)
    assert info.get("lazy-refcounts", False) == wanted.get("lazy_refcounts", False)
    assert info["compression-type"] == wanted.get("compression", "zlib")
    io(qemu, path, "write -P 9 7k 3k")
    require_same_view(qemu, path)


@pytest.mark.parametrize(("bits", "snapshots"), [(1, 0), (2, 2), (4, 14)])
def test_what_refcounts_are_too_narrow_for_is_refused_and_harms_nothing(
    qemu: Qemu, path: Path, bits: int, snapshots: int
) -> None:
    with Image.create(path, size_bytes=SIZE, cluster_bytes=4096, refcount_bits=bits) as image:
        image.write(0, b"x" * 9000)
        for number in range(snapshots):
            image.snapshot_create(SnapshotInfo(name=str(number)))
        with pytest.raises(BlockError, match="references already") as caught:
            image.snapshot_create(SnapshotInfo(name="one too many"))
        assert caught.value.errno is Errno.EINVAL
        assert len(image.snapshot_list()) == snapshots
        assert image.check().clean
    require_same_view(qemu, path)


# --- compressed clusters --------------------------------------------------------------------------
@pytest.mark.parametrize("compression", ["zlib", "zstd"])
@pytest.mark.parametrize("cluster", ["4k", "64k"])
def test_compressed_images_are_read_written_over_and_shared_by_snapshots(
    qemu: Qemu, path: Path, compression: str, cluster: str
) -> None:
    raw = path.with_suffix(".in")
    rng = Random(1)  # noqa: S311  # chance for a test, no secret
    raw.write_bytes(b"".join(bytes([rng.randrange(4)]) * rng.randrange(1, 3000) for _ in range(500))[:SIZE])
    options = f"compression_type={compression},cluster_size={cluster}"
    ok(qemu("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", options, raw, path))
    require_same_view(qemu, path)
    with Image.open(path) as image:
        before = image.read(0, image.size_bytes)
        image.snapshot_create(SnapshotInfo(name="a"))
        image.write(5000, b"n" * 100)
        image.discard(128 << 10, 64 << 10)
        image.snapshot_create(SnapshotInfo(name="b"))
        image.snapshot_goto("a")
        assert image.read(0, image.size_bytes) == before
        image.write(9000, b"m" * 70000)
        image.snapshot_delete(None, "a")
    require_same_view(qemu, path)
    with Image.open(path) as image:
        image.write_zeroes(0, image.size_bytes)
        image.snapshot_delete(None, "b")
    require_same_view(qemu, path)


@pytest.mark.parametrize("compression", ["zlib", "zstd"])
def test_clusters_that_are_compressed_here_lie_together_and_read_the_same_there(
    qemu: Qemu, path: Path, compression: str
) -> None:
    with Image.create(path, size_bytes=SIZE, cluster_bytes=4096, compression=compression) as image:
        for number in range(100):
            image.write_compressed(number * 4096, bytes([number]) * 4096)
        assert path.stat().st_size < 20 * 4096
        noise = Random(1).randbytes(4096)  # noqa: S311  # chance for a test, no secret
        image.write_compressed(100 * 4096, noise)
        assert image.read(100 * 4096, 4096) == noise
        image.snapshot_create(SnapshotInfo(name="a"))
        image.write(10, b"z" * 9000)
        image.write_compressed(110 * 4096, b"late" * 1024)
    require_same_view(qemu, path)


# --- backing files --------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["qcow2", "raw"])
@pytest.mark.parametrize("compat", ["0.10", "1.1"])
@pytest.mark.parametrize("base_size", [100 << 10, 300 << 10, 1 << 20])
def test_a_backing_file_shows_where_nothing_was_written_and_is_never_changed(
    qemu: Qemu, path: Path, kind: str, compat: str, base_size: int
) -> None:
    base = path.with_name("base." + kind)
    ok(qemu("qemu-img", "create", "-f", kind, base, base_size))
    ok(qemu("qemu-io", "-f", kind, "-c", "write -P 11 0 60k", "-c", "write -P 12 90k 10k", base))
    before = base.read_bytes()
    options = f"compat={compat},backing_file={base.name},backing_fmt={kind},cluster_size=4096"
    create(qemu, path, options, 300 << 10)
    require_same_view(qemu, path)
    with Image.open(path) as image:
        image.write(5000, b"x" * 100)  # copy on write
        image.snapshot_create(SnapshotInfo(name="a"))
        image.write_zeroes(1000, 30000)
        image.discard(88 << 10, 8 << 10)
        assert image.read(1000, 30000) == bytes(30000)
    require_same_view(qemu, path)
    with Image.open(path) as image:
        image.snapshot_goto("a")
        image.snapshot_delete(None, "a")
    require_same_view(qemu, path)
    assert base.read_bytes() == before


@pytest.mark.parametrize("smaller", [5 << 12, (5 << 12) + 512])
def test_what_a_shrink_took_away_does_not_come_back_from_the_backing_file(qemu: Qemu, path: Path, smaller: int) -> None:
    base = path.with_name("base.raw")
    base.write_bytes(b"B" * (1 << 20))
    create(qemu, path, "backing_file=base.raw,backing_fmt=raw,cluster_size=512", 1 << 20)
    with Image.open(path) as image:
        image.resize(smaller)
        image.resize(900 << 10)
        assert image.read(0, smaller) == b"B" * smaller
        assert image.read(smaller, (900 << 10) - smaller) == bytes((900 << 10) - smaller)
    require_same_view(qemu, path)


def test_an_image_above_a_backing_file_can_be_made_here(qemu: Qemu, path: Path) -> None:
    with Image.create(path.with_name("base.qcow2"), size_bytes=SIZE) as base:
        base.write(0, b"b" * 1000)
    with Image.create(path, size_bytes=SIZE, cluster_bytes=512, backing_file="base.qcow2") as image:
        image.write(100, b"i" * 100)
        assert image.read(0, 1000) == b"b" * 100 + b"i" * 100 + b"b" * 800
    require_same_view(qemu, path)


# --- bitmaps, lazy refcounts ----------------------------------------------------------------------
def test_persistent_bitmaps_stay_and_say_that_everything_changed(qemu: Qemu, path: Path) -> None:
    create(qemu, path, "cluster_size=4096")
    for name, flag in (("on", "--enable"), ("off", "--disable")):
        ok(qemu("qemu-img", "bitmap", "--add", "-g", "4096", path, name))
        ok(qemu("qemu-img", "bitmap", flag, path, name))
    io(qemu, path, "write -P 1 0 8k")
    with Image.open(path) as image:
        assert [bitmap.name for bitmap in image.bitmaps] == ["on", "off"]
        image.write(100 << 10, b"x" * 5000)
        assert image.check().clean
    require_same_view(qemu, path)
    assert dirty_bytes(qemu, path, "on") == SIZE
    assert dirty_bytes(qemu, path, "off") == 0


def dirty_bytes(qemu: Qemu, path: Path, name: str) -> int:
    """Ask QEMU for the extents that a bitmap calls dirty."""
    options = f"driver=nbd,server.type=unix,server.path={path}.sock,x-dirty-bitmap=qemu:dirty-bitmap:{name}"
    server = ("qemu-nbd", "-r", "-f", "qcow2", "-B", name, "-k", f"{path}.sock", "--fork", path)
    ok(qemu(*server))
    extents = json.loads(ok(qemu("qemu-img", "map", "--output=json", "--image-opts", options)))
    return sum(each["length"] for each in extents if not each["data"])


def test_a_dirty_image_whose_new_refcount_table_was_lost_opens_as_it_does_in_qemu(qemu: Qemu, path: Path) -> None:
    create(qemu, path, "lazy_refcounts=on,cluster_size=4096")
    killed = qemu("qemu-io", "-f", "qcow2", "-c", "write -P 5 0 40k", "-c", "flush", "-c", "abort", path)
    assert killed.returncode != 0
    with path.open("r+b") as file:
        file.seek(48)
        file.write((path.stat().st_size + (1 << 20) & ~4095).to_bytes(8, "big"))
    twin = path.with_suffix(".twin")
    twin.write_bytes(path.read_bytes())
    ok(qemu("qemu-io", "-f", "qcow2", "-c", "read -P 5 0 40k", twin))
    with Image.open(path) as image:
        assert image.read(0, 40 << 10) == b"\5" * (40 << 10)
    assert inspect(MemoryFile("d0", path.read_bytes())).corruptions == 0
    require_same_view(qemu, path)


def test_a_dirty_image_is_repaired_before_it_is_written_and_can_be_read_at_once(qemu: Qemu, path: Path) -> None:
    create(qemu, path, "lazy_refcounts=on,cluster_size=4096")
    killed = qemu("qemu-io", "-f", "qcow2", "-c", "write -P 5 0 40k", "-c", "flush", "-c", "abort", path)
    assert killed.returncode != 0
    with Image.open(path, read_only=True) as image:
        assert image.header.incompatible & 1
        assert image.read(0, 40 << 10) == b"\5" * (40 << 10)
    with Image.open(path) as image:
        assert not image.header.incompatible & 1
        image.write(0, b"x" * 100)
    require_same_view(qemu, path)
