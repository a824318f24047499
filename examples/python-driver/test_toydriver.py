"""What is special about this driver. That its snapshots keep their promises is tested by snapcheck (see pytest.ini)."""

import pytest
from snapcheck.impl.blockfile import MemoryFile
from snapcheck.impl.driver import BlockError, CreateOptions, Out
from snapcheck.model.snapshot import SnapshotInfo

import toydriver

MIB = 1 << 20


def test_going_back_to_a_snapshot_brings_its_content_back() -> None:
    driver = toydriver.open_driver(MemoryFile(), read_only=False, create=CreateOptions(MIB))
    driver.write(0, b"before")
    driver.snapshot_create(Out(SnapshotInfo(name="s")))
    driver.write(0, b"after!")
    driver.snapshot_goto("s")
    assert driver.read(0, 6) == b"before"


def test_what_was_written_is_there_after_opening_again() -> None:
    disk = MemoryFile()
    driver = toydriver.open_driver(disk, read_only=False, create=CreateOptions(MIB))
    driver.write(MIB - 3, b"end")
    driver.close()
    assert toydriver.open_driver(disk, read_only=True, create=None).read(MIB - 3, 3) == b"end"


def test_a_file_that_is_no_image_is_refused() -> None:
    with pytest.raises(BlockError, match="no image"):
        toydriver.open_driver(MemoryFile(data=bytes(4096)), read_only=True, create=None)
