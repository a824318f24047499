"""Judging crash states: what they show, at which positions, and for how many disks a witness stands."""

from snapcheck.fault_injection.crash.cuts import Persistence, image_of
from snapcheck.fault_injection.crash.judge import Judge, Judged, consistent
from snapcheck.fault_injection.crash.seen import Known
from snapcheck.fault_injection.write_log import LoggedFile, WriteLog
from snapcheck.impl.blockfile import MemoryFile
from snapcheck.impl.qcow2 import Image
from snapcheck.model.content import pattern
from snapcheck.model.snapshot import SnapshotInfo


def a_disk(*, cluster_bytes: int = 4096) -> MemoryFile:
    """Return an image of 64 KiB, half of it stamped with tag 1."""
    disk = MemoryFile("d0")
    with Image.create(disk, size_bytes=65536, cluster_bytes=cluster_bytes) as image:
        image.write(0, pattern(tag=1, sector=0, count=64))
    return disk


def after_a_create(disk: MemoryFile) -> tuple[MemoryFile, WriteLog]:
    """Return what the disk held, and the log of a create that was answered."""
    base, log = disk.clone(), WriteLog()
    image = Image.open(LoggedFile(log, disk, "d0"))
    image.snapshot_create(SnapshotInfo(name="s"))
    log.mark("answered", step=0)
    return base, log


def names(judged: Judged) -> list[str]:
    return [info.name for info in judged.seen.view.snapshots or ()]


def test_every_state_of_a_create_shows_the_old_list_or_the_new_one() -> None:
    base, log = after_a_create(a_disk())
    judge = Judge()
    judged = list(judge.judge(log, base, device="d0", persistence=Persistence.EPOCH))

    assert {tuple(names(each)) for each in judged} == {(), ("s",)}
    assert all(each.seen.error == "" and each.seen.check and not each.seen.check.corruptions for each in judged)
    answered = [each for each in judged if each.until >= log.marks[0].number]
    assert answered
    assert all(names(each) == ["s"] for each in answered)
    assert sum(each.states for each in judged) == judge.funnel.distinct


def test_a_witness_shows_what_it_stands_for() -> None:
    base, log = after_a_create(a_disk())
    judge = Judge()
    for each in judge.judge(log, base, device="d0", persistence=Persistence.SECTOR_TORN):
        assert each.cut == each.witnesses[0]
        for cut in each.witnesses:
            assert judge.look(image_of(base, log, cut)).outline == each.seen


def test_tags_tell_what_the_active_state_and_the_snapshot_hold() -> None:
    base, log = after_a_create(a_disk())
    last = list(Judge().judge(log, base, device="d0", persistence=Persistence.PREFIX))[-1]
    tags = b"\1" * 64 + bytes(64)
    assert (last.seen.view.content, last.seen.view.sectors) == (tags, 128)
    assert [each.content for each in last.seen.contents] == [tags]
    assert last.seen.digests[0] == last.seen.digests[1]


def test_a_disk_that_does_not_open_says_why() -> None:
    base, log = MemoryFile("d0"), WriteLog()
    LoggedFile(log, base.clone(), "d0").pwrite(0, b"no image")
    judged = list(Judge().judge(log, base, device="d0", persistence=Persistence.EPOCH))
    assert [each.seen.error.partition(":")[0] for each in judged] == ["magic", "magic"]


def test_devices_are_cut_at_the_same_position() -> None:
    log = WriteLog()
    bases = [a_disk(), a_disk()]
    images = [Image.open(LoggedFile(log, base.clone(), f"d{n}")) for n, base in enumerate(bases)]
    for image in images:
        image.snapshot_create(SnapshotInfo(name="s"))
    judged = [
        list(Judge().judge(log, base, device=f"d{n}", persistence=Persistence.EPOCH)) for n, base in enumerate(bases)
    ]
    together = {
        (len(names(first)), len(names(second)))
        for first in judged[0]
        for second in judged[1]
        if consistent((first, second))
    }
    assert together == {(0, 0), (1, 0), (1, 1)}  # never the second device alone


def test_what_differs_in_a_byte_has_another_digest_and_what_is_known_the_same_one() -> None:
    known, foreign = Known(), b"x" * 4096
    first = known.held([foreign], b"")
    assert known.held([foreign[:100], foreign[100:]], b"") == first == Known().held([foreign], b"")
    others = [
        (foreign[:-1] + b"y", b""),
        (foreign, b"v"),
        (foreign + b"\0", b""),
        (bytes(4096), b""),
        (bytes(4097), b""),
    ]
    digests = {known.held([raw], vmstate).digest for raw, vmstate in others}
    assert len(digests | {first.digest}) == 6
