"""Images that somebody wrecked on purpose: every call ends, in success or in an error of ours and no other."""

from collections.abc import Callable
from contextlib import suppress
from random import Random

import pytest
from snapcheck.impl.blockfile import BlockError, MemoryFile
from snapcheck.impl.qcow2.image import Image
from snapcheck.impl.qcow2.layout import ImageError
from snapcheck.model.snapshot import SnapshotInfo

CALLS: tuple[Callable[[Image], object], ...] = (
    lambda image: image.read(0, min(image.size_bytes, 1 << 20)),
    lambda image: image.snapshot_list(),
    lambda image: image.check(),
    lambda image: image.vmstate_read(0, 1000),
    lambda image: image.write(512, b"x" * 8192),
    lambda image: image.write_zeroes(0, 8192),
    lambda image: image.discard(1024, 8192),
    lambda image: image.vmstate_write(0, b"y" * 1000),
    lambda image: image.snapshot_create(SnapshotInfo(name="c")),
    lambda image: image.snapshot_goto("a"),
    lambda image: image.snapshot_delete(None, "b"),
    lambda image: image.resize(30000 // 512 * 512),
    lambda image: image.resize(100000 // 512 * 512),
    lambda image: image.check(),
)


def outcomes(file: MemoryFile, *, read_only: bool = False) -> list[str]:
    """Open the image and try everything; return how each call ended. What is neither success nor ours comes through."""
    try:
        image = Image.open(file, read_only=read_only)
    except (ImageError, BlockError) as error:
        return [type(error).__name__]
    told: list[str] = ["opened"]
    for call in CALLS:
        try:
            call(image)
            told.append("done")
        except (ImageError, BlockError) as error:
            told.append(type(error).__name__)
    with suppress(BlockError):
        image.close()
    return told


@pytest.mark.parametrize("cluster_bytes", [512, 4096])
def test_an_image_that_was_cut_off_anywhere_does_no_harm(
    image_with_a_past: Callable[[int], MemoryFile], cluster_bytes: int
) -> None:
    whole = image_with_a_past(cluster_bytes)
    for size in range(0, whole.size(), whole.size() // 60 + 13):
        file = whole.clone()
        file.truncate(size)
        assert outcomes(file)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("cluster_bytes", [512, 4096])
def test_flipped_bits_in_any_table_do_no_harm(
    image_with_a_past: Callable[[int], MemoryFile], cluster_bytes: int, seed: int
) -> None:
    rng = Random(seed)  # noqa: S311  # chance for a test, no secret
    whole = image_with_a_past(cluster_bytes)
    with Image.open(whole, read_only=True) as image:
        header, entries = image.header, image.snapshots
    l1 = int.from_bytes(whole.pread(header.l1_offset, 8), "big") & (1 << 56) - 512
    block = int.from_bytes(whole.pread(header.refcount_table_offset, 8), "big")
    tables = (
        0,
        header.l1_offset,
        header.refcount_table_offset,
        header.snapshots_offset,
        l1,
        block,
        entries[0].l1_offset,
    )
    for _ in range(40):
        file = whole.clone()
        for _ in range(rng.randint(1, 3)):
            place = rng.choice(tables) + rng.randrange(104)
            file.pwrite(place, bytes([file.pread(place, 1)[0] ^ 1 << rng.randrange(8)]))
        assert outcomes(file)
        assert outcomes(file, read_only=True)


@pytest.mark.parametrize("seed", range(4))
def test_garbage_behind_a_good_magic_does_no_harm(seed: int) -> None:
    rng = Random(seed)  # noqa: S311  # chance for a test, no secret
    for _ in range(100):
        raw = b"QFI\xfb\0\0\0\3" + rng.randbytes(rng.choice((0, 50, 96, 4096)))
        assert outcomes(MemoryFile("m", raw))


def test_huge_numbers_in_a_small_file_take_neither_time_nor_memory(
    image_with_a_past: Callable[[int], MemoryFile],
) -> None:
    for offset, length in ((24, 8), (36, 4), (40, 8), (48, 8), (56, 4), (60, 4), (64, 8), (80, 8), (88, 8), (100, 4)):
        for value in (1, 1 << 9, 1 << 20, 1 << 31, 1 << 40, 1 << 62, (1 << 64) - 1):
            file = image_with_a_past(512)
            file.pwrite(offset, (value & (1 << 8 * length) - 1).to_bytes(length, "big"))
            assert outcomes(file)
