"""The states of a power cut: each is what its cut leaves, none is missing, none is there twice."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, combinations
from random import Random

import pytest
from snapcheck.fault_injection.crash.cuts import Persistence, filling, image_of, sector_writes
from snapcheck.fault_injection.crash.states import Funnel, states_of
from snapcheck.fault_injection.crash.tree import States
from snapcheck.fault_injection.write_log import Entry, LoggedFile, Sort, WriteLog
from snapcheck.impl.blockfile import MemoryFile
from snapcheck.model.power_cut import Cut, Filling, TornWrite

SECTOR = 512
LOST_MAX = {Persistence.PREFIX: 0, Persistence.ONE_DROPPED: 1, Persistence.TWO_DROPPED: 2}  # before one that is kept


def content(file: MemoryFile) -> bytes:
    return file.pread(0, file.size())


def as_rows(states: States) -> list[bytes]:
    """Return what the disks hold according to the columns alone."""
    found: list[bytes] = []
    versions: list[list[int]] = states.rows.tolist()
    for row in versions:
        image = states.columns.base.clone()
        for column, version in zip(states.columns.columns, row, strict=False):
            for sector, data in zip(column.sectors, column.contents[version], strict=True):
                image.pwrite(sector * SECTOR, data)
        image.truncate(states.columns.lengths[row[-1]])
        found.append(content(image))
    return found


def enumerated(
    log: WriteLog, base: MemoryFile, persistence: Persistence, *,
    fill: Filling = Filling.OLD, since: int = 0, bound: int = 1 << 15, seed: int = 0,
) -> tuple[set[bytes], Funnel]:  # fmt: skip
    """Return the different disks, after looking at them as `left_at` does."""
    left, funnel = left_at(log, base, persistence, fill=fill, since=since, bound=bound, seed=seed)
    return {disk for _, disk in left}, funnel


def left_at(
    log: WriteLog, base: MemoryFile, persistence: Persistence, *,
    fill: Filling = Filling.OLD, since: int = 0, bound: int = 1 << 15, seed: int = 0,
) -> tuple[set[tuple[int, bytes]], Funnel]:  # fmt: skip
    """Return positions and the disks that are left there.

    Looks that each is what its cut leaves, that the persistence model allows that cut, that no state is there twice at
    a position, and that the ways that were covered are counted.
    """
    funnel, left, ways = Funnel(), set[tuple[int, bytes]](), 0.0
    for states in states_of(
        log, base, device="d0", persistence=persistence, funnel=funnel, fill=fill, since=since, bound=bound, seed=seed
    ):
        rows = as_rows(states)
        cuts = [states.cut(number) for number in range(len(states))]
        assert rows == [content(image_of(base, log, cut)) for cut in cuts]
        assert all(is_allowed(cut, open_at(cut.at, log, persistence), persistence) for cut in cuts)
        assert all(cut.at == at <= until for cut, at, until in zip(cuts, states.at, states.until, strict=True))
        spans = [range(at, until + 1) for at, until in zip(states.at.tolist(), states.until.tolist(), strict=True)]
        versions: list[list[int]] = states.rows.tolist()  # of what lies behind the end of the file as well
        here = [(at, tuple(row)) for span, row in zip(spans, versions, strict=True) for at in span]
        assert len(set(here)) == len(here)
        left.update((at, disk) for span, disk in zip(spans, rows, strict=True) for at in span)
        ways += states.ways.sum()
    assert funnel.enumerated == min(ways, funnel.possible)
    return left, funnel


def open_at(position: int, log: WriteLog, persistence: Persistence) -> list[Entry]:
    """Return the entries before `position` that no flush has made durable."""
    entries: list[Entry] = []
    for entry in log.entries[:position]:
        if entry.sort is not Sort.FLUSH:
            entries.append(entry)
        elif persistence is not Persistence.NO_BARRIERS:
            entries.clear()
    return entries


def is_allowed(cut: Cut, entries: Sequence[Entry], persistence: Persistence) -> bool:
    """Tell whether a model allows a cut, by docs/reference/crash_states.md; `entries` are those that may be lost."""
    numbers = [entry.number for entry in entries]
    torn = {each.number for each in cut.torn}
    durable = {e.number for e in entries if e.fua and persistence is not Persistence.NO_BARRIERS}
    if not durable.isdisjoint((*cut.dropped, *torn)) or not {*cut.dropped, *torn} <= set(numbers):
        return False
    if torn:
        return persistence is Persistence.SECTOR_TORN and len(torn) == 1 and torn.isdisjoint(cut.dropped)
    kept = [number for number in numbers if number not in cut.dropped]
    if persistence is Persistence.ONE_KEPT:
        beside = [number for number in kept if number not in durable]
        return len(beside) <= 1 or not cut.dropped or max(beside) < min(cut.dropped)
    lost_before = [number for number in cut.dropped if kept and number < kept[-1]]
    return len(lost_before) <= LOST_MAX.get(persistence, len(numbers))


def allowed_cuts(log: WriteLog, base: MemoryFile, persistence: Persistence, fill: Filling) -> Iterator[Cut]:
    """Yield every cut that a model allows, one by one."""
    sectors = {write.entry.number: len(write.sectors) for write in sector_writes(iter(log.entries), base.clone())}
    for at in range(log.position + 1):
        entries = open_at(at, log, persistence)
        numbers = [entry.number for entry in entries]
        # Were all sectors lost, a write would be lost and not torn.
        tears = [TornWrite(n, lost) for n in numbers for lost in [*subsets_of(range(sectors[n]))][1:-1]]
        for dropped in subsets_of(numbers):
            for torn in ((), *((tear,) for tear in tears)):
                cut = Cut("d0", at, dropped, torn, fill)
                if is_allowed(cut, entries, persistence):
                    yield cut


def subsets_of(numbers: Sequence[int]) -> Iterator[tuple[int, ...]]:
    return chain.from_iterable(combinations(numbers, count) for count in range(len(numbers) + 1))


def by_brute_force(log: WriteLog, base: MemoryFile, persistence: Persistence, fill: Filling) -> set[tuple[int, bytes]]:
    """Return positions and the disks that are left there, by every cut that a model allows."""
    return {(cut.at, content(image_of(base, log, cut))) for cut in allowed_cuts(log, base, persistence, fill)}


def epochs_of(log: WriteLog) -> Iterator[list[Entry]]:
    epoch: list[Entry] = []
    for entry in log.entries:
        if entry.sort is Sort.FLUSH:
            yield epoch
            epoch = []
        else:
            epoch.append(entry)
    yield epoch


def a_log(seed: int, *, writes: int, fua: bool = False) -> tuple[MemoryFile, WriteLog]:
    """Return a small disk and a log with overlapping writes, parts of sectors, discards, truncates and flushes.

    With `fua` a third of the writes has it.
    """
    rng, log = Random(seed), WriteLog()  # noqa: S311  # a seed, so that it is the same log each time
    base = MemoryFile("d0", rng.randbytes(6 * SECTOR))
    file = LoggedFile(log, base.clone(), "d0")
    for _ in range(writes):
        offset, length = rng.randrange(0, 7 * SECTOR), rng.choice((12, SECTOR, 2 * SECTOR, 3 * SECTOR))
        match rng.randrange(12):
            case 0:
                file.discard(offset, length)
            case 1:
                file.truncate(offset)
            case 2:
                file.flush()
            case _:
                offset = offset if length == 12 else offset // SECTOR * SECTOR
                file.pwrite(offset, bytes([rng.choice((0, 1, 2))]) * length)
    for entry in log.entries:
        if fua and entry.sort is Sort.WRITE and rng.randrange(3) == 0:
            log.entries[entry.number] = replace(entry, fua=True)
    return base, log


@pytest.mark.parametrize("fua", [False, True], ids=["", "fua"])
@pytest.mark.parametrize("fill", Filling)
@pytest.mark.parametrize("persistence", Persistence)
def test_a_model_leaves_exactly_what_the_cuts_leave_that_it_allows(
    persistence: Persistence, fill: Filling, *, fua: bool
) -> None:
    for seed in range(8):
        base, log = a_log(seed, writes=5, fua=fua)
        left, funnel = left_at(log, base, persistence, fill=fill)
        assert left == by_brute_force(log, base, persistence, fill)
        assert funnel.exhaustive
        assert funnel.enumerated == funnel.possible


@pytest.mark.parametrize("fill", [Filling.OLD, Filling.ZERO])
@pytest.mark.parametrize("persistence", [each for each in Persistence if each is not Persistence.SECTOR_TORN])
def test_what_is_counted_are_the_ways_that_a_model_allows(persistence: Persistence, fill: Filling) -> None:
    for seed in range(4):
        base, log = a_log(seed, writes=6, fua=bool(seed % 2))
        _, funnel = enumerated(log, base, persistence, fill=fill)
        ways: set[tuple[int, ...]] = set()
        for cut in allowed_cuts(log, base, persistence, fill):
            entries = open_at(cut.at, log, persistence)
            # What is lost changes something unless old contents stay, and so does when the power fails.
            when = len(entries) if fill is not Filling.OLD else 0
            flushes = sum(entry.sort is Sort.FLUSH for entry in log.entries[: cut.at])
            kept = (entry.number for entry in entries if entry.number not in cut.dropped)
            ways.add((flushes * (persistence is not Persistence.NO_BARRIERS), when, *kept))
        assert funnel.enumerated == len(ways)


@pytest.mark.parametrize("seed", range(6))
def test_an_epoch_leaves_what_its_subsets_leave(seed: int) -> None:
    base, log = a_log(seed, writes=9)
    left, funnel = left_at(log, base, Persistence.EPOCH)
    assert left == by_brute_force(log, base, Persistence.EPOCH, Filling.OLD)
    assert funnel.enumerated == funnel.possible == sum(2 ** len(epoch) for epoch in epochs_of(log))


def test_a_lost_write_leaves_old_zero_or_garbage() -> None:
    log = WriteLog()
    base = MemoryFile("d0", b"o" * SECTOR)
    LoggedFile(log, base.clone(), "d0").pwrite(0, b"n" * SECTOR)
    left = {fill: content(image_of(base, log, Cut("d0", 1, (0,), fill=fill))) for fill in Filling}
    assert left == {
        Filling.OLD: b"o" * SECTOR,
        Filling.ZERO: bytes(SECTOR),
        Filling.GARBAGE: filling(Filling.GARBAGE, 0),
    }


def three_writes() -> tuple[MemoryFile, WriteLog]:
    log = WriteLog()
    base = MemoryFile("d0", bytes(3 * SECTOR))
    file = LoggedFile(log, base.clone(), "d0")
    for place, letter in enumerate(b"abc"):
        file.pwrite(place * SECTOR, bytes([letter]) * SECTOR)
    return base, log


def letters(disks: Iterable[bytes]) -> list[str]:
    return sorted(
        "".join(chr(disk[place]) if disk[place] else "-" for place in range(0, len(disk), SECTOR)) for disk in disks
    )


@pytest.mark.parametrize(
    ("persistence", "left"),
    [
        (Persistence.PREFIX, ["---", "a--", "ab-", "abc"]),
        (Persistence.ONE_DROPPED, ["---", "-b-", "-bc", "a--", "a-c", "ab-", "abc"]),
        (Persistence.ONE_KEPT, ["---", "--c", "-b-", "a--", "ab-", "abc"]),
        (Persistence.TWO_DROPPED, ["---", "--c", "-b-", "-bc", "a--", "a-c", "ab-", "abc"]),
    ],
)
def test_cheap_plans_leave_a_part_of_the_epoch(persistence: Persistence, left: list[str]) -> None:
    base, log = three_writes()
    disks, funnel = enumerated(log, base, persistence)
    assert letters(disks) == left
    assert funnel.exhaustive


def test_a_torn_write_leaves_any_of_its_sectors() -> None:
    log = WriteLog()
    base = MemoryFile("d0", bytes(3 * SECTOR))
    file = LoggedFile(log, base.clone(), "d0")
    file.pwrite(2 * SECTOR, b"c" * SECTOR)
    file.pwrite(0, b"a" * SECTOR + b"b" * SECTOR)
    disks, funnel = enumerated(log, base, Persistence.SECTOR_TORN)
    assert letters(disks) == ["---", "--c", "-b-", "-bc", "a--", "a-c", "ab-", "abc"]
    assert funnel.exhaustive


def test_a_write_that_lands_on_a_torn_one_hides_what_was_torn() -> None:
    log = WriteLog()
    base = MemoryFile("d0", bytes(3 * SECTOR))
    file = LoggedFile(log, base.clone(), "d0")
    file.pwrite(0, b"a" * SECTOR + b"b" * SECTOR)
    file.pwrite(SECTOR, b"c" * SECTOR)
    disks, funnel = enumerated(log, base, Persistence.SECTOR_TORN)
    assert letters(disks) == ["---", "-b-", "-c-", "a--", "ab-", "ac-"]
    assert funnel.possible == 4 * 2  # each of the sectors, and the write on top or not


def test_a_wide_torn_write_is_sampled_and_says_so() -> None:
    log = WriteLog()
    base = MemoryFile("d0", bytes(40 * SECTOR))
    LoggedFile(log, base.clone(), "d0").pwrite(0, b"a" * 40 * SECTOR)
    disks, funnel = enumerated(log, base, Persistence.SECTOR_TORN)
    assert 40 < len(disks) < 100
    assert not funnel.exhaustive
    assert funnel.possible == 2**40


def test_too_many_states_are_sampled_and_the_share_is_told() -> None:
    log = WriteLog()
    base = MemoryFile("d0", bytes(20 * SECTOR))
    file = LoggedFile(log, base.clone(), "d0")
    for place in range(14):
        file.pwrite(place * SECTOR, b"a" * SECTOR)
    disks, funnel = enumerated(log, base, Persistence.EPOCH, bound=500, seed=1)
    again, _ = enumerated(log, base, Persistence.EPOCH, bound=500, seed=1)
    other, _ = enumerated(log, base, Persistence.EPOCH, bound=500, seed=2)
    assert disks == again != other
    assert 250 < len(disks) < 1000
    assert funnel.possible == 2**14
    assert funnel.enumerated == len(disks)
    assert 0 < funnel.fraction < 0.1


def test_a_write_with_fua_is_there_whatever_comes_later() -> None:
    base, log = three_writes()
    log.entries[1] = Entry(1, "d0", None, Sort.WRITE, SECTOR, SECTOR, b"b" * SECTOR, fua=True)
    disks, funnel = enumerated(log, base, Persistence.EPOCH)
    assert letters(disks) == ["---", "-b-", "-bc", "a--", "ab-", "abc"]
    assert funnel.enumerated == funnel.possible == 6


def test_a_state_that_fua_has_ended_lives_again_when_it_is_written_again() -> None:
    log = WriteLog()
    base = MemoryFile("d0", bytes(SECTOR))
    for letter, fua in (b"a", False), (b"b", True), (b"a", False):
        log.add("d0", Sort.WRITE, 0, SECTOR, data=letter * SECTOR, fua=fua)
    assert spans_of(log, base, Persistence.EPOCH) == {
        "-": [range(2)], "a": [range(1, 2), range(3, 4)], "b": [range(2, 4)],
    }  # fmt: skip


def spans_of(log: WriteLog, base: MemoryFile, persistence: Persistence) -> dict[str, list[range]]:
    """Return at which positions each disk may be left."""
    spans: dict[str, list[range]] = {}
    for states in states_of(log, base, device="d0", persistence=persistence, funnel=Funnel()):
        for disk, at, until in zip(as_rows(states), states.at.tolist(), states.until.tolist(), strict=True):
            spans.setdefault(letters([disk])[0], []).append(range(at, until + 1))
    return spans


def test_what_lands_on_a_disk_that_is_there_again_is_told_by_writes_that_may_be_lost() -> None:
    log = WriteLog()
    base = MemoryFile("d0", bytes(2 * SECTOR))
    for place, letter in (0, b"a"), (0, b"b"), (0, b"a"), (1, b"x"):
        log.add("d0", Sort.WRITE, place * SECTOR, SECTOR, data=letter * SECTOR)
    states = next(states_of(log, base, device="d0", persistence=Persistence.ONE_DROPPED, funnel=Funnel()))
    assert max(len(states.cut(number).dropped) for number in range(len(states))) == 1


def test_epochs_that_ended_before_are_left_out() -> None:
    base, log = three_writes()
    log.add("d0", Sort.FLUSH)
    log.add("d0", Sort.WRITE, 0, SECTOR, data=b"x" * SECTOR)
    disks, _ = enumerated(log, base, Persistence.EPOCH, since=4)
    assert letters(disks) == ["abc", "xbc"]


def test_a_torn_write_is_told_by_the_sectors_that_were_lost() -> None:
    log = WriteLog()
    base = MemoryFile("d0", bytes(2 * SECTOR))
    LoggedFile(log, base.clone(), "d0").pwrite(0, b"a" * 2 * SECTOR)
    states = next(states_of(log, base, device="d0", persistence=Persistence.SECTOR_TORN, funnel=Funnel()))
    torn = {states.cut(number).torn for number in range(len(states))}
    assert torn == {(), (TornWrite(0, (0,)),), (TornWrite(0, (1,)),)}
