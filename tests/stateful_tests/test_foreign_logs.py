"""Logs that something else recorded: a sound driver's have nothing against them, and each kind of harm is named."""

from collections.abc import Callable
from io import BytesIO

import pytest
from snapcheck.fault_injection.crash.cuts import Persistence, apply
from snapcheck.fault_injection.dm_log_writes import read_from, write_log
from snapcheck.fault_injection.write_log import LoggedFile, Mark, Sort, WriteLog
from snapcheck.impl.blockfile import MemoryFile
from snapcheck.impl.qcow2 import Image
from snapcheck.model.content import pattern
from snapcheck.model.law_names import Law
from snapcheck.model.snapshot import SnapshotInfo
from snapcheck.stateful_tests.foreign_bases import LogMismatchError, Recorded, require_base
from snapcheck.stateful_tests.foreign_logs import Finding, judge_logs

EVERYTHING = (Persistence.PREFIX, Persistence.EPOCH, Persistence.SECTOR_TORN)


def stamp(image: Image, tag: int, *, first: int = 0, count: int = 32) -> None:
    image.write(first * 512, pattern(tag=tag, sector=first, count=count))


def an_image() -> MemoryFile:
    disk = MemoryFile("d0")
    with Image.create(disk, size_bytes=65536, cluster_bytes=4096) as image:
        stamp(image, 1)
        image.snapshot_create(SnapshotInfo(name="a"))
        stamp(image, 2, count=8)
    return disk


def recorded(act: Callable[[Image, WriteLog], object], base: MemoryFile | None = None) -> Recorded:
    base, log = base or an_image(), WriteLog()
    act(Image.open(LoggedFile(log, base.clone(), "d0")), log)
    return Recorded("d0", log, base)


def without_flushes(each: Recorded) -> Recorded:
    """Return the log of a driver that forgets to flush."""
    log = WriteLog()
    for entry in each.log.entries:
        log.marks += [Mark(log.position, mark.text) for mark in each.log.marks if mark.number == entry.number]
        if entry.sort is not Sort.FLUSH:
            log.add("d0", entry.sort, entry.offset, entry.length, data=entry.data)
    log.marks += [Mark(log.position, mark.text) for mark in each.log.marks if mark.number == each.log.position]
    return Recorded("d0", log, each.base)


def findings(each: Recorded, *persistences: Persistence) -> list[Finding]:
    return [finding for judgement in judge_logs([each], persistences=persistences) for finding in judgement.findings]


def several_operations(image: Image, log: WriteLog) -> None:
    log.mark("begin")
    image.snapshot_create(SnapshotInfo(name="b"))
    log.mark("b is there")
    stamp(image, 3, first=20, count=40)
    image.snapshot_goto("a")
    log.mark("back at a")
    image.snapshot_delete(None, "b")
    log.mark("b is gone")


def test_nothing_stands_against_the_log_of_a_sound_driver() -> None:
    each = recorded(several_operations)
    require_base(each)
    judgements = list(judge_logs([each], persistences=EVERYTHING))
    assert [judgement.persistence for judgement in judgements] == list(EVERYTHING)
    assert [judgement.findings for judgement in judgements] == [[], [], []]
    assert all(count > 0 for judgement in judgements for count in judgement.checked.values())


def test_without_marks_a_sound_log_is_sound_as_well() -> None:
    each = recorded(several_operations)
    each.log.marks.clear()
    assert findings(each, *EVERYTHING) == []


def create(image: Image, log: WriteLog) -> None:
    image.snapshot_create(SnapshotInfo(name="b"))
    log.mark("answered")


def test_a_snapshot_that_was_answered_and_not_flushed_is_not_durable() -> None:
    found = findings(without_flushes(recorded(create)), Persistence.EPOCH)
    durable = [each for each in found if each.law is Law.DURABLE]
    assert any("the list is [1 'a'], and should be [1 'a', 2 'b']" in each.evidence for each in durable)


def test_a_header_that_overtakes_the_refcounts_is_a_corruption() -> None:
    found = findings(without_flushes(recorded(create)), Persistence.EPOCH)
    assert any(each.law is Law.NO_CORRUPTION and "references" in each.evidence[0] for each in found)


def test_where_flushes_lie_nothing_is_promised() -> None:
    assert findings(without_flushes(recorded(create)), Persistence.NO_BARRIERS) == []


def test_a_header_in_two_steps_leaves_what_never_was() -> None:
    def count_and_place_apart(image: Image, log: WriteLog) -> None:
        create(image, log)
        header = next(entry for entry in log.entries if entry.region == "header")
        parts = [(header.offset, header.data[:-12]), (60, header.data[-12:-8]), (64, header.data[-8:])]
        before = log.entries[: header.number]
        after = log.entries[header.number + 1 :]
        log.entries.clear()
        log.marks.clear()
        for entry in before:
            log.add("d0", entry.sort, entry.offset, entry.length, data=entry.data)
        for offset, data in parts:
            log.add("d0", Sort.WRITE, offset, len(data), data=data)
            log.add("d0", Sort.FLUSH)
        for entry in after:
            log.add("d0", entry.sort, entry.offset, entry.length, data=entry.data)
        log.mark("answered")

    found = findings(recorded(count_and_place_apart), Persistence.PREFIX)
    assert {each.law for each in found} & {Law.OPENS, Law.ATOMIC_OP, Law.NO_CORRUPTION}


def test_stale_data_under_a_new_mapping_is_told_by_the_sector() -> None:
    def write_elsewhere(image: Image, _: WriteLog) -> None:
        stamp(image, 4, first=80, count=8)

    base = an_image()
    data = next(entry for entry in recorded(write_elsewhere, base).log.entries if entry.region == "data")
    base.pwrite(data.offset, b"what somebody deleted long ago".ljust(data.length, b"."))

    found = findings(without_flushes(recorded(write_elsewhere, base)), Persistence.EPOCH)
    lost = [each for each in found if each.law is Law.DURABLE]
    assert lost
    assert lost[0].evidence == (
        "sector 80, 81, 82 and others: neither what was flushed last nor what was written since",
    )


def test_a_log_that_begins_on_another_image_is_refused() -> None:
    each = recorded(create)
    other = MemoryFile("d0")
    Image.create(other, size_bytes=65536, cluster_bytes=512).close()
    with pytest.raises(LogMismatchError, match="what the whole log leads to is not sound"):
        require_base(Recorded("d0", each.log, other))


def test_a_base_that_is_no_image_is_refused() -> None:
    with pytest.raises(LogMismatchError, match=r"the base image is not sound: it does not open \(magic"):
        require_base(Recorded("d0", WriteLog(), MemoryFile("d0", b"no image")))


def test_a_log_without_a_write_is_refused() -> None:
    log = WriteLog()
    log.add("d0", Sort.FLUSH)
    with pytest.raises(LogMismatchError, match="the log has no write"):
        require_base(Recorded("d0", log, an_image()))


def test_the_image_as_it_is_after_the_log_is_refused() -> None:
    each = recorded(several_operations)
    after = each.base.clone()
    for entry in each.log.entries:
        apply(entry, after)
    with pytest.raises(LogMismatchError, match="the log changes nothing in the image"):
        require_base(Recorded("d0", each.log, after))


def test_the_header_of_another_image_is_noticed() -> None:
    """Given a log of whole sectors, as dm-log-writes has them: its header carries along what the image was."""

    def base(size_bytes: int, *, snapshots: int = 0) -> MemoryFile:
        disk = MemoryFile("d0")
        with Image.create(disk, size_bytes=size_bytes, cluster_bytes=4096) as image:
            for number in range(snapshots):
                image.snapshot_create(SnapshotInfo(name=str(number)))
        return disk

    each = recorded(create, base(65536))
    log = read_from(BytesIO(write_log(each.log, each.base, device="d0")), device="d0")
    require_base(Recorded("d0", log, each.base))
    for other, why in ((base(131072), "size of 65536 bytes"), (base(65536, snapshots=3), "has 1 snapshots")):
        with pytest.raises(LogMismatchError, match=why):
            require_base(Recorded("d0", log, other))


def test_what_only_another_image_can_hold_is_noticed() -> None:
    """Given the log of a guest's writes, which leave the header alone, and images that it did not begin on."""

    def shared() -> MemoryFile:
        disk = MemoryFile("d0")
        with Image.create(disk, size_bytes=1 << 20, cluster_bytes=4096) as image:
            stamp(image, 1, count=2048)
            image.snapshot_create(SnapshotInfo(name="a"))
            image.snapshot_create(SnapshotInfo(name="b"))
        return disk

    def empty(cluster_bytes: int) -> MemoryFile:
        disk = MemoryFile("d0")
        Image.create(disk, size_bytes=1 << 20, cluster_bytes=cluster_bytes).close()
        return disk

    each = recorded(lambda image, _: (stamp(image, 2, count=8), image.flush()), shared())
    require_base(each)
    for other, why in ((empty(4096), "neither the image nor the log holds"), (empty(512), "nothing that the log")):
        with pytest.raises(LogMismatchError, match=f"{why}.*; --base must be the image as it was before"):
            require_base(Recorded("d0", each.log, other))


def test_what_a_log_that_was_cut_off_has_counted_and_not_yet_written_is_no_reason_to_refuse() -> None:
    each = recorded(several_operations)
    for position in range(1, each.log.position + 1):
        require_base(Recorded("d0", WriteLog(each.log.entries[:position]), each.base))
