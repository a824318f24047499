"""A long random walk beside a plain oracle: bytes in a dictionary, without clusters, tables or counts."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random

import pytest
from snapcheck.impl.blockfile import BlockError, MemoryFile
from snapcheck.impl.qcow2.image import Image
from snapcheck.model.errno import Errno
from snapcheck.model.snapshot import SnapshotInfo

OPERATIONS = 400
VMSTATE_BYTES = 3000


@dataclass
class Kept:
    """What a snapshot holds."""

    info: SnapshotInfo
    content: bytes
    vmstate: bytes


@dataclass
class Oracle:
    """What the image should hold; VM state is compared as far as it was written since it was last empty."""

    cluster_bytes: int
    content: bytearray
    vmstate: bytearray = field(default_factory=lambda: bytearray(VMSTATE_BYTES))
    snapshots: list[Kept] = field(default_factory=list[Kept])

    def zero_whole_clusters(self, start: int, end: int) -> None:
        size = self.cluster_bytes
        start = -(-start // size) * size
        end = end if end == len(self.content) else end // size * size
        if start < end:
            self.content[start:end] = bytes(end - start)

    def resize(self, size: int) -> None:
        self.vmstate = bytearray(VMSTATE_BYTES)
        self.content = self.content[:size] + bytes(max(0, size - len(self.content)))

    def create(self, name: str, state_bytes: int) -> SnapshotInfo:
        id_str = str(max((int(kept.info.id_str) for kept in self.snapshots), default=0) + 1)
        info = SnapshotInfo(id_str, name, state_bytes, date_sec=len(self.snapshots), vm_clock_nsec=1 << 40)
        self.snapshots.append(Kept(info, bytes(self.content), bytes(self.vmstate)))
        if state_bytes:
            self.vmstate = bytearray(VMSTATE_BYTES)
        return info


@dataclass
class Walk:
    """Both sides, and the chance that leads them."""

    rng: Random
    file: MemoryFile
    image: Image
    oracle: Oracle
    copies: list[tuple[Image, bytes]] = field(default_factory=list[tuple[Image, bytes]])

    def span(self) -> tuple[int, int]:
        sectors = len(self.oracle.content) // 512
        start = self.rng.randrange(sectors + 1)
        return start * 512, self.rng.randint(0, min(sectors - start, 60)) * 512

    def write(self) -> None:
        start, length = self.span()
        data = self.rng.randbytes(1) * length
        self.image.write(start, data)
        self.oracle.content[start : start + length] = data

    def write_zeroes(self) -> None:
        start, length = self.span()
        self.image.write_zeroes(start, length)
        self.oracle.content[start : start + length] = bytes(length)

    def discard(self) -> None:
        start, length = self.span()
        self.image.discard(start, length)
        self.oracle.zero_whole_clusters(start, start + length)

    def resize(self) -> None:
        size = self.rng.choice((0, 50, 64, 96, 128, 150, 400)) * 512
        changes = size != len(self.oracle.content)
        self.image.resize(size)
        if changes:
            self.oracle.resize(size)

    def create(self) -> None:
        name = self.rng.choice(("a", "b", "", "1"))
        info = self.oracle.create(name, self.rng.choice((0, VMSTATE_BYTES)))
        assert self.image.snapshot_create(replace(info, id_str="the caller's")) == info

    def goto(self) -> None:
        text = self.rng.choice(("1", "2", "3", "a", ""))
        snapshots = self.oracle.snapshots
        found = next((kept for kept in snapshots if kept.info.id_str == text), None)
        found = found or next((kept for kept in snapshots if kept.info.name == text), None)
        if self.answers(lambda: self.image.snapshot_goto(text), found):
            assert found is not None
            self.oracle.content, self.oracle.vmstate = bytearray(found.content), bytearray(found.vmstate)

    def delete(self) -> None:
        id_str, name = self.rng.choice((("1", None), (None, "a"), ("2", "b"), (None, ""), ("3", "a")))
        snapshots = self.oracle.snapshots
        found = next((s for s in snapshots if id_str in (None, s.info.id_str) and name in (None, s.info.name)), None)
        if self.answers(lambda: self.image.snapshot_delete(id_str, name), found):
            self.oracle.snapshots = [kept for kept in snapshots if kept is not found]

    def vmstate_write(self) -> None:
        start = self.rng.randrange(VMSTATE_BYTES)
        data = self.rng.randbytes(self.rng.randint(0, VMSTATE_BYTES - start))
        self.image.vmstate_write(start, data)
        self.oracle.vmstate[start : start + len(data)] = data

    def reopen(self) -> None:
        self.image.close()
        self.image = Image.open(self.file)

    def clone(self) -> None:
        """Go on with a copy; what happens to the original afterwards shows neither there nor in clones of it."""
        former, self.file = self.image, self.file.clone()
        self.image = Image.open(self.file)
        self.copies.append((former.clone(), former.read(0, former.size_bytes)))
        former.write(0, b"!" * former.size_bytes)
        former.close()
        for image, content in self.copies:
            assert image.read(0, image.size_bytes) == content

    def answers(self, call: Callable[[], object], found: Kept | None) -> bool:
        if found is not None:
            call()
            return True
        with pytest.raises(BlockError) as caught:
            call()
        assert caught.value.errno is Errno.ENOENT
        return False

    def compare(self) -> None:
        oracle = self.oracle
        assert self.image.read(0, self.image.size_bytes) == oracle.content
        assert self.image.vmstate_read(0, VMSTATE_BYTES) == oracle.vmstate
        assert self.image.snapshot_list() == [kept.info for kept in oracle.snapshots]

    def compare_fully(self) -> None:
        report = self.image.check()
        assert report.clean, report.problems
        for kept in self.oracle.snapshots:
            with self.image.clone() as there:
                there.snapshot_goto(kept.info.id_str)
                assert there.read(0, there.size_bytes) == kept.content
                assert there.vmstate_read(0, VMSTATE_BYTES) == kept.vmstate


STEPS = (
    *(Walk.write,) * 8, Walk.write_zeroes, Walk.write_zeroes, Walk.discard, Walk.resize, *(Walk.create,) * 4,
    *(Walk.goto,) * 3, *(Walk.delete,) * 4, *(Walk.vmstate_write,) * 2, Walk.reopen, Walk.clone,
)  # fmt: skip


@pytest.mark.parametrize("cluster_bytes", [512, 1024, 4096, 65536])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_random_walk_never_differs_from_a_plain_oracle(seed: int, cluster_bytes: int) -> None:
    file = MemoryFile()
    image = Image.create(file, size_bytes=128 * 512, cluster_bytes=cluster_bytes)
    walk = Walk(Random(seed), file, image, Oracle(cluster_bytes, bytearray(128 * 512)))  # noqa: S311  # chance for a test, no secret
    for number in range(OPERATIONS):
        walk.rng.choice(STEPS)(walk)
        walk.compare()
        if number % 20 == 0:
            walk.compare_fully()
    walk.compare_fully()
    assert len(walk.oracle.snapshots) > 0
