"""Stories of bugs in how images are taken that are not what they claim to be, told without laws or phases."""

import struct
from typing import Any

import pytest
from snapcheck.fault_injection.image_kinds import sound_image
from snapcheck.impl.blockfile import BlockError, MemoryFile
from snapcheck.impl.driver import OpenDriver
from snapcheck.impl.qcow2.state import read_header

REFUSED = "refused"


class Watched(MemoryFile):
    """A file that tells how much was to be read at once, and gives out no more than a few megabytes."""

    __slots__ = ("most",)

    def __init__(self, data: bytes) -> None:
        super().__init__(data=data)
        self.most = 0

    def pread(self, offset: int, length: int, *, region: str = "") -> bytes:
        self.most = max(self.most, length)
        return super().pread(offset, min(length, 1 << 22), region=region)


def wrecked(offset: int, layout: str, value: int) -> Watched:
    """Return an image with two snapshots, of which one field holds `value`."""
    file = sound_image("clusters of 4 KiB")
    file.pwrite(offset, struct.pack(layout, value))
    return Watched(file.pread(0, file.size()))


def first_entry() -> int:
    """Return where the first entry of the snapshot table is; it begins with the offset and the size of its L1 table."""
    return read_header(sound_image("clusters of 4 KiB")).snapshots_offset


def outcome(call: Any) -> str:
    try:
        call()
    except BlockError:
        return REFUSED
    except Exception as error:  # noqa: BLE001  # whatever a bug raises
        return type(error).__name__
    return "done"


@pytest.mark.bug("count-believed")
def test_gigabytes_are_read_for_a_count_that_can_not_be(tried: Any) -> None:
    def story(open_driver: OpenDriver) -> object:
        file = wrecked(60, ">I", 0xFFFF_FFFF)
        return outcome(lambda: open_driver(file, read_only=False, create=None)), file.most > 1 << 30

    assert tried.opening(story) == ((REFUSED, False), (REFUSED, True))


@pytest.mark.bug("null-cleanup")
def test_an_image_that_is_refused_ends_the_process(tried: Any) -> None:
    def story(open_driver: OpenDriver) -> object:
        file = wrecked(40, ">Q", 0x1234)  # the active L1 table is not where a cluster begins
        return outcome(lambda: open_driver(file, read_only=False, create=None))

    assert tried.opening(story) == (REFUSED, "MemoryError")


@pytest.mark.bug("load-unchecked")
def test_gigabytes_are_read_to_show_a_snapshot(tried: Any) -> None:
    def story(open_driver: OpenDriver) -> object:
        file = wrecked(first_entry() + 8, ">I", 0xFFFF_FFFF)
        driver = open_driver(file, read_only=True, create=None)
        return outcome(lambda: driver.snapshot_load_tmp(None, "a")), file.most > 1 << 30

    assert tried.opening(story) == ((REFUSED, False), (REFUSED, True))


@pytest.mark.bug("l1-unchecked")
def test_the_disk_becomes_what_is_no_l1_table(tried: Any) -> None:
    def story(open_driver: OpenDriver) -> object:
        file = wrecked(first_entry(), ">Q", 0x1_0000_0000 + 512)  # far behind the end, and no cluster begins there
        driver = open_driver(file, read_only=False, create=None)
        done = outcome(lambda: driver.snapshot_goto("a"))
        return done, not any(driver.read(0, 4096))

    assert tried.opening(story) == ((REFUSED, False), ("done", True))


@pytest.mark.bug("pointers-unchecked")
def test_data_is_read_from_where_no_cluster_begins(tried: Any) -> None:
    def story(open_driver: OpenDriver) -> object:
        sound = sound_image("clusters of 4 KiB")
        l2 = int.from_bytes(sound.pread(read_header(sound).l1_offset, 8), "big") & (1 << 56) - 512
        entry = int.from_bytes(sound.pread(l2, 8), "big")
        driver = open_driver(wrecked(l2, ">Q", entry + 0x800_0000_0000), read_only=False, create=None)
        return outcome(lambda: driver.read(0, 4096))

    assert tried.opening(story) == (REFUSED, "done")
