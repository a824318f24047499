"""What an image may not do to whoever opens it: block, take all memory, or be taken for clean when QEMU refuses it."""

import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from snapcheck.cli.check import data_of, lines, report_of
from snapcheck.impl.blockfile import MemoryFile
from snapcheck.impl.qcow2.check import CLUSTERS_MAX, inspect
from snapcheck.impl.qcow2.image import Image
from snapcheck.impl.qcow2.layout import CORRUPT, DIRTY, ImageError


def test_a_backing_file_that_is_a_pipe_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "base").write_bytes(bytes(65536))
    path = tmp_path / "top.qcow2"
    Image.create(path, size_bytes=65536, backing_file="base", backing_format="raw").close()
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b"base", b"pipe", 1))
    with pytest.raises(ImageError, match="'pipe' is not a regular file"):
        Image.open(path, read_only=True)


def test_a_file_of_more_clusters_than_can_be_checked_is_refused_by_its_size() -> None:
    file = MemoryFile()
    Image.create(file, size_bytes=65536, cluster_bytes=512).close()
    file.truncate((CLUSTERS_MAX + 1) * 512)
    with pytest.raises(ImageError, match="more than can be checked"):
        inspect(file)


def test_a_bitmap_whose_table_is_too_small_for_the_disk_is_refused(tmp_path: Path, qemu: Callable[..., object]) -> None:
    path = tmp_path / "bitmap.qcow2"
    qemu("qemu-img", "create", "-q", "-f", "qcow2", str(path), "4M")
    qemu("qemu-img", "bitmap", "--add", str(path), "x")
    raw = bytearray(path.read_bytes())
    directory = raw.index(struct.pack(">IIBBH", 1, 2, 1, 16, 1))  # table_size, flags (auto), type, granularity, name
    raw[directory : directory + 4] = bytes(4)
    path.write_bytes(raw)
    with pytest.raises(ImageError, match="table_size 0, the size of the disk needs 1"):
        Image.open(path, read_only=True)


def test_check_tells_of_an_image_that_is_marked_corrupt_or_dirty(tmp_path: Path) -> None:
    path = tmp_path / "marked.qcow2"
    Image.create(path, size_bytes=65536).close()
    raw = bytearray(path.read_bytes())
    raw[79] = CORRUPT | DIRTY
    path.write_bytes(raw)
    text = "\n".join(lines(path, report_of(path)))
    assert "marked corrupt" in text
    assert "marked dirty" in text
    assert data_of(path, report_of(path))["marked_corrupt"] is True
