"""Logs in the kernel's format: what real QEMU writes is read, what is written is read back, bad ones get one line."""

import struct
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from snapcheck.fault_injection.crash.cuts import image_of
from snapcheck.fault_injection.dm_log_writes import LogError, read_from, read_log, write_log
from snapcheck.fault_injection.write_log import Entry, LoggedFile, Mark, Sort, WriteLog
from snapcheck.impl.blockfile import DiskFile, MemoryFile
from snapcheck.impl.qcow2 import Image
from snapcheck.model.power_cut import Cut

SECTOR = 512
MAGIC = 0x6A736677736872


def superblock(entries: int, *, magic: int = MAGIC, version: int = 1, sector_bytes: int = SECTOR) -> bytes:
    return struct.pack("<QQQI", magic, version, entries, sector_bytes).ljust(max(sector_bytes, SECTOR), b"\0")


def entry(sector: int, count: int, flags: int = 0, text: bytes = b"", *, sector_bytes: int = SECTOR) -> bytes:
    return (struct.pack("<QQQQ", sector, count, flags, len(text)) + text).ljust(sector_bytes, b"\0")


def read(raw: bytes) -> WriteLog:
    return read_from(BytesIO(raw), device="d0")


def told(log: WriteLog) -> list[tuple[str, int, int]]:
    return [(each.sort.value, each.offset, each.length) for each in log.entries]


WRITTEN = entry(2, 1) + b"a" * SECTOR
MARKED = entry(0, 0, 8, b"answered (step 3)")


def test_writes_flushes_discards_fua_and_marks_are_read() -> None:
    zeroes = entry(4, 2) + bytes(2 * SECTOR)
    log = read(
        superblock(6) + WRITTEN + MARKED + entry(0, 0, 1) + zeroes + entry(8, 16, 4) + entry(1, 1, 3) + b"b" * SECTOR
    )
    assert told(log) == [
        ("write", 1024, 512), ("flush", 0, 0), ("zeroes", 2048, 1024), ("discard", 4096, 8192), ("flush", 0, 0),
        ("write", 512, 512),
    ]  # fmt: skip
    assert [each.fua for each in log.entries] == [False] * 5 + [True]
    assert log.marks == [Mark(1, "answered", 3)]


def test_what_stands_behind_the_last_entry_is_another_logs() -> None:
    assert told(read(superblock(1) + WRITTEN + WRITTEN + b"garbage")) == [("write", 1024, 512)]


@pytest.mark.parametrize("tail", [b"", bytes(SECTOR), bytes(3 * SECTOR)])
def test_a_log_whose_superblock_was_never_written_ends_with_the_file_or_with_zeroes(tail: bytes) -> None:
    assert told(read(bytes(SECTOR) + WRITTEN + entry(0, 0, 1) + tail)) == [("write", 1024, 512), ("flush", 0, 0)]


def test_sectors_may_be_larger() -> None:
    log = read(superblock(1, sector_bytes=4096) + entry(3, 1, sector_bytes=4096) + b"a" * 4096)
    assert told(log) == [("write", 3 * 4096, 4096)]


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "0 bytes are too few"),
        (b"QFI\xfb" + bytes(SECTOR), "not a dm-log-writes log: it begins with 514649fb00000000"),
        (superblock(1, version=2), "version 2, expected 1"),
        (superblock(1, sector_bytes=100), "sectors of 100 bytes"),
        (superblock(2) + WRITTEN, "cut off in entry 1 of 2"),
        (superblock(1) + WRITTEN[:-1], "cut off in entry 0 of 1"),
        (bytes(SECTOR) + WRITTEN + WRITTEN[:-1], "cut off in entry 1;"),
        (superblock(1) + entry(0, 1 << 40), "cut off in entry 0 of 1"),
        (superblock(1) + entry(1 << 60, 1), "entry 0 makes no sense"),
        (superblock(1) + entry(0, 1, 64), "entry 0 makes no sense"),
        (superblock(1) + entry(0, 0), "entry 0 makes no sense"),
    ],
)
def test_a_bad_log_gets_one_line(raw: bytes, why: str) -> None:
    with pytest.raises(LogError, match=why) as error:
        read(raw)
    assert "\n" not in str(error.value)


def test_what_is_written_is_read_back() -> None:
    base, log = MemoryFile("d0", bytes(range(256)) * 40), WriteLog()
    file = LoggedFile(log, base.clone(), "d0")
    file.pwrite(1000, b"x" * 100)
    log.mark("answered", step=0)
    file.flush()
    file.discard(2000, 3000)
    file.truncate(9000)
    log.mark("the end")
    other = LoggedFile(log, base.clone(), "d1")
    other.pwrite(0, b"another device's")

    again = read(write_log(log, base, device="d0"))

    everything, as_read = image_of(base, log, Cut("d0", log.position)), image_of(base, again, Cut("d0", again.position))
    assert as_read.pread(0, 20000) == everything.pread(0, 20000)
    assert told(again)[:2] == [("write", 512, 1024), ("flush", 0, 0)]
    assert again.marks == [Mark(1, "answered", 0), Mark(again.position, "the end")]


def test_a_write_with_fua_keeps_it() -> None:
    log = WriteLog([Entry(0, "d0", None, Sort.WRITE, 0, 512, b"a" * 512, fua=True)])
    assert read(write_log(log, MemoryFile(), device="d0")).entries[0].fua


# --- logs of a real QEMU --------------------------------------------------------------------------
Qemu = Callable[..., Any]


def through_a_log(image: Path, log: Path, *, options: str = "") -> str:
    """Return the option string that opens `image` with everything written to it noted in `log`."""
    log.touch()
    return (
        f"driver=qcow2,file.driver=blklogwrites,file.file.driver=file,file.file.filename={image},"
        f"file.log.driver=file,file.log.filename={log}{options}"
    )


@pytest.mark.qemu
@pytest.mark.parametrize("options", ["", ",cache.no-flush=on"])
def test_the_log_of_a_real_qemu_leads_to_what_it_wrote(qemu: Qemu, tmp_path: Path, options: str) -> None:
    image, log = tmp_path / "a.qcow2", tmp_path / "a.log"
    qemu("qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", image, "1M")
    base = MemoryFile("d0", image.read_bytes())
    done = qemu(
        "qemu-io", "--image-opts", through_a_log(image, log, options=options),
        "-c", "write -P 17 0 100k", "-c", "flush", "-c", "write -z 8k 16k", "-c", "discard 64k 16k", "-c", "flush",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr

    read_back = read_log(log, device="d0")

    assert len(read_back.entries) > 5
    assert any(each.sort is Sort.FLUSH for each in read_back.entries) != bool(options)
    left = image_of(base, read_back, Cut("d0", read_back.position))
    disk = DiskFile(image, read_only=True)
    size = max(disk.size(), left.size())
    assert left.pread(0, size) == disk.pread(0, size)
    assert Image.open(left).read(0, 8192) == b"\x11" * 8192
    disk.close()
