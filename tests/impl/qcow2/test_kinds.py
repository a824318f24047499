"""Stories of kinds of images that need no QEMU: what is kept, what is cleared, what is refused with a way out."""

import sys

import pytest
from snapcheck.fault_injection.image_kinds import sound_image
from snapcheck.impl.blockfile import BlockError, MemoryFile
from snapcheck.impl.qcow2 import Image, ImageError, inspect
from snapcheck.impl.qcow2.backing import RawBacking
from snapcheck.impl.qcow2.compressed import Extent, clusters, entry_for, extent
from snapcheck.impl.qcow2.extensions import pack_extension
from snapcheck.impl.qcow2.host import Codec
from snapcheck.impl.qcow2.state import read_header
from snapcheck.model.errno import Errno
from snapcheck.model.snapshot import SnapshotInfo

SIZE = 64 << 10


def small(**wanted: int) -> MemoryFile:
    file = MemoryFile()
    Image.create(file, size_bytes=SIZE, cluster_bytes=4096, **wanted).close()  # type: ignore[arg-type]  # of one type
    return file


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16, 32, 64])
def test_refcounts_of_every_width_read_back_as_they_were_stored(bits: int) -> None:
    codec = Codec(bits)
    words = codec.decode(bytes(8 * bits))
    for place in range(64):
        words[place] = place * 0x9E3779B97F4A7C15 & (1 << bits) - 1
    raw = codec.encode(words)
    assert len(raw) == codec.size(64) == 8 * bits
    assert codec.decode(raw) == words
    assert codec.array(raw).tolist() == words.tolist()


def test_the_first_of_several_refcounts_in_a_byte_is_the_lowest() -> None:
    assert Codec(2).decode(b"\x1b").tolist() == [3, 2, 1, 0]


@pytest.mark.parametrize("place", [Extent(0x5000, 100), Extent(0x51FF, 2), Extent(0x5FFF, 4097), Extent(0x5E00, 512)])
def test_a_compressed_entry_leads_to_all_its_bytes(place: Extent) -> None:
    entry = entry_for(place, 12)
    found = extent(entry, 12)
    assert found.offset == place.offset
    assert place.length <= found.length < place.length + 512
    assert clusters(entry, 12)[0] == place.offset >> 12


def test_unknown_extensions_stay_and_unknown_autoclear_bits_go_with_the_first_opening_for_writing() -> None:
    file = small()
    extension = pack_extension(0x12345678, b"from the future")
    file.pwrite(104, extension)
    file.pwrite(88, (1 << 40).to_bytes(8, "big"))
    Image.open(file, read_only=True).close()
    assert read_header(file).autoclear == 1 << 40
    with Image.open(file) as image:
        image.write(0, b"x" * 9000)
        image.snapshot_create(SnapshotInfo(name="a"))
    assert read_header(file).autoclear == 0
    assert file.pread(104, len(extension)) == extension


def test_the_icount_of_a_snapshot_is_read_and_survives() -> None:
    file = small()
    with Image.open(file) as image:
        image.add_snapshot(SnapshotInfo("1", "a"), extra=(77).to_bytes(8, "big"))
        image.snapshot_create(SnapshotInfo(name="b"))
    with Image.open(file) as image:
        assert [entry.icount for entry in image.snapshots] == [77, None]


def test_a_bitmap_forbids_goto_and_resize_and_nothing_else() -> None:
    with Image.open(sound_image("a dirty bitmap")) as image:
        for call in (lambda: image.snapshot_goto("a"), lambda: image.resize(1 << 20)):
            with pytest.raises(BlockError) as caught:
                call()
            assert caught.value.errno in (Errno.EBUSY, Errno.ENOTSUP)
        image.snapshot_create(SnapshotInfo(name="c"))
        image.snapshot_delete(None, "a")
        image.write(0, b"x" * 100)
        assert [bitmap.name for bitmap in image.bitmaps] == ["b"]
        assert image.check().clean


def test_parts_of_a_cluster_are_read_by_themselves() -> None:
    with Image.open(sound_image("extended L2 entries"), read_only=True) as image:
        part = image.header.cluster_bytes // 32
        assert image.read(0, 3 * part) == b"x" * part + bytes(2 * part)
    with pytest.raises(ImageError, match="read and not written"):
        Image.open(sound_image("extended L2 entries"))


def test_zstd_without_its_library_is_refused_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("zstandard")
    file = MemoryFile()
    with Image.create(file, size_bytes=SIZE, cluster_bytes=4096, compression="zstd") as image:
        image.write_compressed(0, b"z" * 4096)
        monkeypatch.setitem(sys.modules, "zstandard", None)
        with pytest.raises(BlockError, match="pip install zstandard") as caught:
            image.read(0, 512)
        assert caught.value.errno is Errno.ENOTSUP


def test_an_image_above_another_needs_it_given_when_it_is_no_path() -> None:
    file = MemoryFile()
    base = RawBacking(MemoryFile("base", b"b" * 1000))
    wanted = {"size_bytes": SIZE, "backing_file": "base.raw", "backing_format": "raw"}
    with Image.create(file, backing=base, **wanted) as image:  # type: ignore[arg-type]  # of several types
        assert image.read(0, 1001) == b"b" * 1000 + b"\0"
        with image.clone() as twin:
            twin.write(10, b"twin")
            assert twin.read(8, 8) == b"bbtwinbb"
        assert image.read(8, 8) == b"b" * 8
    with pytest.raises(ImageError, match=r"backing_file: 'base\.raw' is needed"):
        Image.open(file)
    assert inspect(file).clean


def test_a_circle_of_backing_files_is_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("circle") / "a.qcow2"
    Image.create(path, size_bytes=SIZE).close()
    Image.create(path.with_name("b.qcow2"), size_bytes=SIZE, backing_file="a.qcow2").close()
    path.write_bytes(path.with_name("b.qcow2").read_bytes())
    with pytest.raises(ImageError, match="more than 16 images"):
        Image.open(path)


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ({"version": 4}, "version: 4"),
        ({"refcount_bits": 3}, "refcount_bits: 3"),
        ({"version": 2, "refcount_bits": 8}, "version: 2"),
    ],
)
def test_what_no_image_can_be_is_refused_when_it_is_made(wanted: dict[str, int], says: str) -> None:
    with pytest.raises(BlockError, match=says):
        small(**wanted)


def test_a_version_2_image_with_snapshots_keeps_its_size() -> None:
    file = small(version=2)
    with Image.open(file) as image:
        image.snapshot_create(SnapshotInfo(name="a"))
        with pytest.raises(BlockError, match="v2 image which has snapshots") as caught:
            image.resize(2 * SIZE)
        assert caught.value.errno is Errno.ENOTSUP
