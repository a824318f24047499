"""The fast judge says what the plain one says: of every state, whatever the image is like, well or wrecked."""

from collections.abc import Callable, Sequence
from random import Random

import pytest
from snapcheck.fault_injection.crash.cuts import Persistence
from snapcheck.fault_injection.crash.fast import FastJudge, OracleError
from snapcheck.fault_injection.crash.frame import framed
from snapcheck.fault_injection.crash.front import Front, fronts_of
from snapcheck.fault_injection.crash.judge import Judge
from snapcheck.fault_injection.crash.overlay import Overlay, Places
from snapcheck.fault_injection.crash.seen import Held, Seen, see, shown
from snapcheck.fault_injection.crash.states import Funnel, states_of
from snapcheck.fault_injection.write_log import LoggedFile, WriteLog
from snapcheck.impl.blockfile import MemoryFile
from snapcheck.impl.qcow2 import Image
from snapcheck.impl.qcow2.layout import FEATURE_FIELDS
from snapcheck.impl.qcow2.state import State, read_header
from snapcheck.model.content import pattern
from snapcheck.model.history import Check
from snapcheck.model.power_cut import Filling
from snapcheck.model.snapshot import SnapshotInfo

SIZE = 64 << 10


def stamp(image: Image, first: int, count: int, tag: int) -> None:
    image.write(first * 512, pattern(tag=tag, sector=first, count=count))


def recorded(disk: MemoryFile, act: Callable[[Image], object]) -> tuple[MemoryFile, WriteLog]:
    """Return what `disk` held, and the log of what `act` does to the image on it."""
    base, log = disk.clone(), WriteLog()
    act(Image.open(LoggedFile(log, disk.clone(), "d0")))
    return base, log


def everything(image: Image) -> None:
    image.snapshot_create(SnapshotInfo(name="b"))
    stamp(image, 3, 20, 5)
    image.snapshot_goto("a")
    image.vmstate_write(0, b"state" * 50)
    image.snapshot_create(SnapshotInfo(name="c", vm_state_size=250))
    image.discard(0, 16384)
    image.snapshot_delete(None, "b")
    image.resize(SIZE + 4096)


def an_image(*, cluster_bytes: int = 4096, refcount_bits: int = 16, version: int = 3) -> MemoryFile:
    disk = MemoryFile("d0")
    with Image.create(
        disk, size_bytes=SIZE, cluster_bytes=cluster_bytes, refcount_bits=refcount_bits, version=version
    ) as image:
        stamp(image, 0, 64, 1)
        image.snapshot_create(SnapshotInfo(name="a"))
        stamp(image, 8, 8, 2)
    return disk


def compare(
    base: MemoryFile, log: WriteLog, persistence: Persistence, *, every: int = 1, fill: Filling = Filling.OLD
) -> Funnel:
    """Judge all states fast, and see every (so many-th) one of them plainly; return what was counted."""
    funnel = Funnel()
    for states in states_of(log, base, device="d0", persistence=persistence, funnel=funnel, bound=1500, fill=fill):
        places = Places(states.columns)
        told = 0
        for alike in FastJudge(funnel, confirmed_every=1 << 60).judge(states, places):
            told += alike.states
            for number in alike.numbers[::every]:
                assert see(Overlay(places, states.rows[number]).clone()).outline == alike.seen
        assert told == len(states)
    return funnel


def frames_of(log: WriteLog, base: MemoryFile, persistence: Persistence) -> list[list[Front]]:
    """Return the fronts of the only window of a log, those together that have the same frame."""
    (states,) = states_of(log, base, device="d0", persistence=persistence, funnel=Funnel())
    return [fronts for _, fronts in framed(fronts_of(Places(states.columns), states.rows))]


@pytest.mark.parametrize("cluster_bytes", [512, 4096])
def test_every_state_of_every_operation_is_judged_as_the_plain_judge_does(cluster_bytes: int) -> None:
    base, log = recorded(an_image(cluster_bytes=cluster_bytes), everything)
    funnel = compare(base, log, Persistence.EPOCH, every=5)
    assert funnel.plain == 0
    assert funnel.distinct > 100


@pytest.mark.parametrize("refcount_bits", [4, 8, 64])
def test_refcounts_of_any_width_have_tables(refcount_bits: int) -> None:
    base, log = recorded(an_image(refcount_bits=refcount_bits), everything)
    assert compare(base, log, Persistence.EPOCH, every=3).plain == 0


@pytest.mark.parametrize("seed", range(3))
def test_images_wrecked_by_lost_barriers_are_judged_alike(seed: int) -> None:
    rng = Random(seed)  # noqa: S311  # a seed, so that it is the same log each time

    def act(image: Image) -> None:
        for number in range(3):
            match rng.randrange(4):
                case 0:
                    image.snapshot_create(SnapshotInfo(name=f"s{number}"))
                case 1:
                    image.snapshot_goto("a")
                case 2:
                    stamp(image, rng.randrange(100), 20, 100 + number)
                case _:
                    image.vmstate_write(rng.randrange(5000), b"v" * 600)

    base, log = recorded(an_image(cluster_bytes=rng.choice((512, 2048))), act)
    for fill in Filling:
        compare(base, log, Persistence.NO_BARRIERS, every=40, fill=fill)


def test_torn_tables_are_judged_alike() -> None:
    base, log = recorded(an_image(cluster_bytes=1024), everything)
    assert compare(base, log, Persistence.SECTOR_TORN, every=7).plain == 0


def test_compressed_clusters_have_tables() -> None:
    def act(image: Image) -> None:
        image.write_compressed(40960, b"abcd" * 1024)
        image.write_compressed(45056, b"efgh" * 1024)
        image.snapshot_create(SnapshotInfo(name="b"))
        image.write(40960, b"x" * 100)

    base, log = recorded(an_image(), act)
    assert compare(base, log, Persistence.EPOCH).plain == 0
    compare(base, log, Persistence.NO_BARRIERS, every=10)


def test_a_file_that_grows_and_shrinks_is_judged_alike() -> None:
    base, log = recorded(an_image(), lambda image: image.snapshot_create(SnapshotInfo(name="b")))
    file = LoggedFile(log, base.clone(), "d0")
    file.truncate(base.size() - 8192)
    file.truncate(base.size() + 100)
    compare(base, log, Persistence.EPOCH)


def test_odd_words_in_the_refcount_table_are_judged_alike() -> None:
    disk = an_image(cluster_bytes=512)
    base, log = disk.clone(), WriteLog()
    table, file = read_header(disk).refcount_table_offset, LoggedFile(log, disk, "d0")
    for place, word in enumerate((1 << 63 | 0x3400, 0x3401, 1 << 40, int.from_bytes(disk.pread(table, 8), "big"))):
        file.pwrite(table + 8 * (place + 12), word.to_bytes(8, "big"))
    assert compare(base, log, Persistence.EPOCH).plain == 0


def test_what_the_medium_put_behind_the_end_of_the_file_is_not_seen() -> None:
    disk = an_image(cluster_bytes=512)
    base, log = disk.clone(), WriteLog()
    image = Image.open(LoggedFile(log, disk, "d0"))
    image.snapshot_create(SnapshotInfo(name="n"))  # the new table ends the file, within a sector
    compare(base, log, Persistence.NO_BARRIERS, fill=Filling.GARBAGE)


def test_states_that_differ_in_the_copied_bits_of_the_active_l1_alone_are_judged_alike() -> None:
    disk = an_image(cluster_bytes=512)
    base, log = disk.clone(), WriteLog()
    header, file = read_header(disk), LoggedFile(log, disk, "d0")
    assert header.l1_size == 2
    for place in range(header.l1_size):
        offset = header.l1_offset + 8 * place
        file.pwrite(offset, bytes([disk.pread(offset, 1)[0] ^ 0x80]))
    funnel = compare(base, log, Persistence.EPOCH)
    assert (funnel.distinct, funnel.plain) == (3, 0)
    seen = [each.seen for each in Judge().judge(log, base, device="d0", persistence=Persistence.EPOCH)]
    assert len(frames_of(log, base, Persistence.EPOCH)) == 1  # they are judged together
    assert len({each.digests for each in seen}) == 1  # what is held is the same in all of them
    assert len({each.check for each in seen}) > 1  # and what the check says is not


def test_fronts_that_differ_in_a_date_alone_are_judged_together_and_told_apart() -> None:
    disk = an_image(cluster_bytes=512)
    base, log = disk.clone(), WriteLog()
    file = LoggedFile(log, disk, "d0")
    image = Image.open(file)
    file.pwrite(read_header(disk).snapshots_offset + 16, (77).to_bytes(4, "big"))  # the date of snapshot a
    stamp(image, 8, 3, 9)
    assert compare(base, log, Persistence.NO_BARRIERS).plain == 0
    shared = [fronts for fronts in frames_of(log, base, Persistence.NO_BARRIERS) if len(fronts) > 1]
    dates = [
        [front.state.snapshot_table.entries[0].info.date_sec for front in fronts if front.state] for fronts in shared
    ]
    assert dates == [[0, 77]]


def test_states_whose_tables_would_be_too_large_go_to_the_plain_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    base, log = recorded(an_image(), lambda image: image.snapshot_create(SnapshotInfo(name="b")))
    monkeypatch.setattr("snapcheck.fault_injection.crash.tables._CELLS_MAX", 0)
    funnel = compare(base, log, Persistence.EPOCH)
    assert funnel.plain == funnel.judged == funnel.distinct > 2


def test_what_an_opening_would_change_goes_to_the_plain_judge() -> None:
    disk = an_image()
    dirty = read_header(disk)._replace(incompatible=1)
    base, log = disk.clone(), WriteLog()
    LoggedFile(log, disk, "d0").pwrite(72, dirty.pack()[slice(*FEATURE_FIELDS)])
    funnel = compare(base, log, Persistence.EPOCH)
    assert (funnel.distinct, funnel.plain) == (2, 1)


def test_the_first_state_and_one_in_a_hundred_are_confirmed() -> None:
    base, log = recorded(an_image(cluster_bytes=512), everything)
    judge = Judge()
    list(judge.judge(log, base, device="d0", persistence=Persistence.EPOCH))
    assert judge.funnel.confirmed == -(-judge.funnel.judged // 100) > 0


def test_judges_that_differ_are_a_bug_and_say_which_state(monkeypatch: pytest.MonkeyPatch) -> None:
    base, log = recorded(an_image(), everything)

    def lying(state: State, active: Held, others: Sequence[Held], check: Check) -> Seen:
        return shown(state, active, others, Check(corruptions=1 - check.corruptions))

    monkeypatch.setattr("snapcheck.fault_injection.crash.fast.shown", lying)
    with pytest.raises(OracleError, match="the judges differ about Cut"):
        list(Judge().judge(log, base, device="d0", persistence=Persistence.EPOCH))


def test_what_is_corrupt_is_found_and_confirmed() -> None:
    disk = an_image()
    table = read_header(disk).refcount_table_offset
    block = int.from_bytes(disk.pread(table, 8), "big")
    base, log = disk.clone(), WriteLog()
    file = LoggedFile(log, disk, "d0")
    file.pwrite(block, bytes(64))  # all that is in use is counted as free
    judge = Judge()
    judged = list(judge.judge(log, base, device="d0", persistence=Persistence.EPOCH))
    assert [each.seen.check and each.seen.check.corruptions for each in judged] == [0, 1]
    assert judge.funnel.confirmed == 2  # the first state, and the corrupt one
