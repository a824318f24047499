"""The write log notes everything that changes a disk, in one order, and nothing else."""

from pathlib import Path

import pytest
from snapcheck.fault_injection.write_log import LoggedFile, Mark, Sort, WriteLog
from snapcheck.impl.blockfile import BlockError, DiskFile, MemoryFile


def test_what_two_devices_send_down_has_one_order() -> None:
    log = WriteLog()
    first, second = LoggedFile(log, MemoryFile(), "d0"), LoggedFile(log, MemoryFile(), "d1")
    log.step = 0
    first.pwrite(512, b"ab", region="l1")
    second.discard(0, 1024)
    first.flush()
    log.mark("answered", step=0)
    log.step = 1
    second.truncate(100)

    told = [(each.number, each.device, each.step, each.sort, each.offset, each.length) for each in log.entries]
    assert told == [
        (0, "d0", 0, Sort.WRITE, 512, 2), (1, "d1", 0, Sort.DISCARD, 0, 1024), (2, "d0", 0, Sort.FLUSH, 0, 0),
        (3, "d1", 1, Sort.TRUNCATE, 100, 0),
    ]  # fmt: skip
    assert (log.entries[0].data, log.entries[0].region) == (b"ab", "l1")
    assert log.marks == [Mark(3, "answered", 0)]
    assert log.devices == ("d0", "d1")


def test_reads_clones_and_empty_writes_are_not_noted() -> None:
    log = WriteLog()
    file = LoggedFile(log, MemoryFile("disk", b"abc"))
    assert file.pread(0, 3) == b"abc"
    file.pwrite(0, b"")
    file.clone().pwrite(0, b"x")
    assert (log.entries, file.device, file.size()) == ([], "disk", 3)


def test_what_the_disk_refused_is_not_noted(tmp_path: Path) -> None:
    log = WriteLog()
    (tmp_path / "disk").write_bytes(b"old")
    disk = DiskFile(tmp_path / "disk", read_only=True)
    with pytest.raises(BlockError):
        LoggedFile(log, disk).pwrite(0, b"a")
    disk.close()
    assert not log.entries
