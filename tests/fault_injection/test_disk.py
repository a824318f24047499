"""Stories of a block file that obeys a plan: one for each effect, and what healing gives back."""

from collections.abc import Callable
from contextlib import suppress
from random import Random

import pytest
from snapcheck.fault_injection.disk import UNFLUSHED_MAX, FaultyFile
from snapcheck.fault_injection.plan import FaultPlan, medium_vanishes, turns_read_only
from snapcheck.impl.blockfile import BlockError, MemoryFile
from snapcheck.model.errno import Errno
from snapcheck.model.faults import (
    BitFlip,
    Delay,
    DropsUnflushed,
    Effect,
    Fails,
    Fill,
    IoFault,
    LandsButFails,
    Lost,
    Misdirected,
    Short,
    Torn,
)
from snapcheck.model.history import EventList, FaultMet, Io

SECTOR = 512
A, B, C = b"A" * SECTOR, b"B" * SECTOR, b"C" * SECTOR
ZERO = bytes(SECTOR)


class Bench:
    """A plan with one device, whose file holds four sectors of A, flushed."""

    def __init__(self) -> None:
        self.events = EventList()
        self.plan = FaultPlan(self.events)
        self.medium = MemoryFile("m", A * 4)
        self.file = self.plan.wrap_file("d0", self.medium)
        self.events.take()

    def arm(self, kind: str, effect: Effect, *, at: int = 1, times: int = 1, region: str = "") -> None:
        self.plan.arm([IoFault("d0", kind, effect, at=at, times=times, region=region)])

    def holds(self) -> bytes:
        return self.medium.pread(0, self.medium.size())

    def met(self) -> list[int]:
        return [event.fault for event in self.events.take() if isinstance(event, FaultMet)]

    def healed(self) -> bytes:
        self.plan.heal("d0")
        assert not self.plan.damaged("d0")
        return self.holds()


def errno_of(call: Callable[[], object]) -> Errno:
    with pytest.raises(BlockError) as caught:
        call()
    return caught.value.errno


def test_every_io_is_an_event_even_when_nothing_is_armed() -> None:
    bench = Bench()
    bench.file.pwrite(0, B, region="l1")
    bench.file.pread(512, 8)
    bench.file.flush()
    bench.file.discard(512, 512, region="data")
    bench.file.truncate(1024)
    assert bench.events.take() == [
        Io("d0", "write", 0, 512, "l1"),
        Io("d0", "read", 512, 8),
        Io("d0", "flush", 0, 0),
        Io("d0", "discard", 512, 512, "data"),
        Io("d0", "truncate", 1024, 0),
    ]
    assert bench.holds() == B + ZERO


def test_a_failing_write_has_no_effect_and_the_next_one_succeeds() -> None:
    bench = Bench()
    bench.arm("write", Fails(Errno.ENOSPC))
    assert errno_of(lambda: bench.file.pwrite(0, B)) is Errno.ENOSPC
    assert bench.events.take() == [FaultMet("d0", 0), Io("d0", "write", 0, 512, "", Errno.ENOSPC)]
    assert bench.holds() == A * 4
    bench.file.pwrite(0, B)
    assert bench.holds() == B + A * 3
    assert not bench.file.damaged


@pytest.mark.parametrize("kind", ["read", "write", "flush", "discard", "truncate"])
def test_any_io_fails_under_a_fault_of_kind_any(kind: str) -> None:
    bench = Bench()
    bench.arm("any", Fails(Errno.EIO))
    assert errno_of(lambda: do(bench.file, kind)) is Errno.EIO
    assert bench.holds() == A * 4
    do(bench.file, kind)
    assert bench.met() == [0]


def do(file: FaultyFile, kind: str) -> None:
    match kind:
        case "read":
            file.pread(0, 512)
        case "write":
            file.pwrite(0, B)
        case "flush":
            file.flush()
        case "discard":
            file.discard(0, 512)
        case _:
            file.truncate(512)


def test_a_write_that_lands_although_it_fails_is_no_damage() -> None:
    bench = Bench()
    bench.arm("write", LandsButFails(Errno.EIO))
    assert errno_of(lambda: bench.file.pwrite(512, B)) is Errno.EIO
    assert bench.holds() == A + B + A * 2
    assert bench.healed() == A + B + A * 2


def test_a_flush_that_lands_although_it_fails_leaves_nothing_to_drop() -> None:
    bench = Bench()
    bench.file.pwrite(0, B)
    bench.plan.arm([
        IoFault("d0", "flush", LandsButFails(Errno.EIO)), IoFault("d0", "flush", DropsUnflushed(Errno.EIO), at=2),
    ])  # fmt: skip
    assert errno_of(bench.file.flush) is Errno.EIO
    assert errno_of(bench.file.flush) is Errno.EIO
    assert bench.holds() == B + A * 3


def test_a_short_write_lands_its_first_sectors_and_says_so() -> None:
    bench = Bench()
    bench.arm("write", Short(2, Errno.ENOSPC))
    assert errno_of(lambda: bench.file.pwrite(0, B * 4)) is Errno.ENOSPC
    assert bench.holds() == B * 2 + A * 2
    assert not bench.file.damaged


def test_a_torn_write_lands_its_first_sectors_and_claims_success_until_it_is_healed() -> None:
    bench = Bench()
    bench.arm("write", Torn(1))
    bench.file.pwrite(0, B * 3)
    assert bench.holds() == B + A * 3
    assert bench.file.damaged
    assert bench.healed() == B * 3 + A


def test_a_tear_falls_between_sectors_of_the_medium_and_always_loses_the_last_one() -> None:
    bench = Bench()
    bench.arm("write", Torn(7), times=0)
    bench.file.pwrite(500, b"B" * 24)  # sectors 0 and 1
    assert bench.holds() == A[:500] + b"B" * 12 + A * 3
    bench.file.pwrite(1030, b"C" * 8)  # inside sector 2: lost whole
    assert bench.holds() == A[:500] + b"B" * 12 + A * 3
    assert bench.healed() == A[:500] + b"B" * 24 + A[:500] + A[:6] + b"C" * 8 + A[14:] + A


def test_a_lost_write_is_acknowledged_and_comes_back_when_healed() -> None:
    bench = Bench()
    bench.arm("write", Lost())
    bench.file.pwrite(1024, B * 4)  # two sectors past the end
    assert bench.holds() == A * 4
    assert bench.healed() == A * 2 + B * 4


def test_a_lost_discard_and_a_lost_truncate_come_back_when_healed() -> None:
    bench = Bench()
    bench.arm("any", Lost(), times=0)
    bench.file.discard(0, 512)
    bench.file.truncate(1500)
    assert bench.holds() == A * 4
    assert bench.healed() == ZERO + A + A[:476]


def test_a_misdirected_write_lands_elsewhere_and_healing_mends_both_places() -> None:
    bench = Bench()
    bench.arm("write", Misdirected(2))
    bench.file.pwrite(0, B)
    assert bench.holds() == A * 2 + B + A
    assert bench.healed() == B + A * 3


def test_a_write_that_can_not_be_misdirected_backwards_goes_forwards() -> None:
    bench = Bench()
    bench.arm("write", Misdirected(-1), times=2)
    bench.file.pwrite(0, B)
    bench.file.pwrite(1024, C)
    assert bench.holds() == A + C + A * 2  # both went to sector 1


def test_a_flipped_bit_in_a_read_is_in_the_returned_copy_only() -> None:
    bench = Bench()
    bench.arm("read", BitFlip(9))
    assert bench.file.pread(0, 4) == b"ACAA"
    assert bench.file.pread(0, 4) == b"AAAA"
    assert not bench.file.damaged


def test_a_flipped_bit_in_a_write_is_on_the_medium() -> None:
    bench = Bench()
    bench.arm("write", BitFlip(8 * 512 + 1))  # counted modulo the length: bit 1 of the first byte
    bench.file.pwrite(0, B)
    assert bench.file.pread(0, 2) == b"@B"
    assert bench.healed() == B + A * 3


@pytest.mark.parametrize("garbage", [False, True])
def test_a_filled_write_ruins_its_sectors_and_no_others(garbage: bool) -> None:  # noqa: FBT001  # parametrized
    bench = Bench()
    bench.arm("write", Fill(garbage=garbage))
    bench.file.pwrite(520, b"B" * 8)
    ruined = bench.file.pread(512, 512)
    assert (ruined == ZERO) is not garbage
    assert b"B" * 8 not in ruined
    assert bench.holds() == A + ruined + A * 2
    assert bench.healed() == A + A[:8] + b"B" * 8 + A[:496] + A * 2


def test_garbage_is_the_same_each_time() -> None:
    seen: set[bytes] = set()
    for _ in range(2):
        bench = Bench()
        bench.arm("write", Fill(garbage=True))
        bench.file.pwrite(0, B * 2)
        seen.add(bench.holds())
    assert len(seen) == 1


def test_a_flush_that_drops_loses_what_came_after_the_last_flush_and_the_next_one_succeeds() -> None:
    bench = Bench()
    bench.file.pwrite(0, B)
    bench.file.flush()
    bench.file.pwrite(512, B)
    bench.file.pwrite(512, C)
    bench.file.pwrite(4 * 512, C)
    bench.file.discard(0, 512)
    bench.file.truncate(1024)
    bench.arm("flush", DropsUnflushed(Errno.EIO))
    assert errno_of(bench.file.flush) is Errno.EIO
    assert bench.holds() == B + A * 3
    assert bench.file.damaged
    bench.file.flush()
    assert bench.holds() == B + A * 3
    assert bench.healed() == ZERO + C


def test_what_left_the_cache_by_itself_is_not_dropped() -> None:
    bench = Bench()
    bench.file.pwrite(0, B)
    for _ in range(UNFLUSHED_MAX):
        bench.file.pwrite(512, C)
    bench.arm("flush", DropsUnflushed())
    errno_of(bench.file.flush)
    assert bench.holds()[:512] == B


def test_a_delay_moves_the_simulated_clock_and_nothing_else() -> None:
    bench = Bench()
    bench.plan.arm([IoFault("d0", "any", Delay(5_000), times=2), IoFault("d0", "write", Fails(Errno.EIO))])
    assert errno_of(lambda: bench.file.pwrite(0, B)) is Errno.EIO
    assert bench.file.pread(0, 512) == A
    assert bench.file.pread(0, 512) == A
    assert bench.plan.clock_ns == 10_000
    assert bench.met() == [0, 1, 0]


def test_a_vanished_medium_answers_nothing_any_more_until_it_is_disarmed() -> None:
    bench = Bench()
    bench.plan.arm([medium_vanishes("d0", at=2)])
    bench.file.pread(0, 512)
    for kind in ("read", "write", "flush", "discard", "truncate"):
        assert errno_of(lambda kind=kind: do(bench.file, kind)) is Errno.ENOMEDIUM  # type: ignore[misc]  # a bound default
    bench.plan.disarm()
    assert bench.file.pread(0, 2048) == A * 4


def test_a_medium_that_turned_read_only_refuses_every_change_and_is_still_read() -> None:
    bench = Bench()
    bench.plan.arm([turns_read_only("d0", at=2)])
    bench.file.discard(1024, 512)  # before the second write it is writable
    bench.file.pwrite(0, B)
    for kind in ("write", "discard", "truncate", "write"):
        assert errno_of(lambda kind=kind: do(bench.file, kind)) is Errno.EROFS  # type: ignore[misc]  # a bound default
    do(bench.file, "read")
    do(bench.file, "flush")
    assert bench.holds() == B + A + ZERO + A


def test_a_good_write_over_damage_clears_it() -> None:
    bench = Bench()
    bench.arm("write", Lost())
    bench.file.pwrite(0, B * 2)
    bench.file.pwrite(0, C)
    assert bench.file.damaged
    bench.file.pwrite(512, C)
    assert not bench.file.damaged
    assert bench.healed() == C * 2 + A * 2


def test_a_good_write_inside_a_damaged_sector_keeps_the_rest_of_it_to_be_healed() -> None:
    bench = Bench()
    bench.arm("write", Lost())
    bench.file.pwrite(0, B)
    bench.file.pwrite(4, b"CCCC")
    assert bench.holds() == b"AAAACCCC" + A[8:] + A * 3
    assert bench.healed() == b"BBBBCCCC" + B[8:] + A * 3


def test_what_is_truncated_away_does_not_come_back_when_healed() -> None:
    bench = Bench()
    bench.arm("write", Lost())
    bench.file.pwrite(1024, B * 2)
    bench.file.truncate(1030)
    bench.file.truncate(2048)
    assert bench.healed() == A * 2 + b"B" * 6 + bytes(1018)


def test_disarming_stops_the_striking_and_heals_nothing() -> None:
    bench = Bench()
    bench.arm("write", Lost(), times=0)
    bench.file.pwrite(0, B)
    bench.plan.disarm()
    bench.file.pwrite(512, C)
    assert bench.holds() == A + C + A * 2
    assert bench.plan.damaged("d0")
    assert bench.healed() == B + C + A * 2


def test_a_clone_is_plain_and_shows_the_damage() -> None:
    bench = Bench()
    bench.arm("write", Torn(1), times=0)
    bench.file.pwrite(0, B * 2)
    twin = bench.file.clone()
    bench.events.take()
    twin.pwrite(1024, C * 2)
    assert bench.events.take() == []
    assert twin.pread(0, 2048) == B + A + C * 2
    assert bench.holds() == B + A * 3


def test_at_and_times_count_the_io_of_that_kind_and_region_only() -> None:
    bench = Bench()
    bench.arm("write", Fails(), at=2, times=2, region="l2")
    outcomes: list[bool] = []
    for region in ("l2", "data", "l2", "", "l2", "l2"):
        try:
            bench.file.pwrite(0, B, region=region)
            outcomes.append(True)
        except BlockError:
            outcomes.append(False)
    assert outcomes == [True, True, False, True, False, True]


def test_counting_starts_anew_when_the_same_faults_are_armed_again() -> None:
    bench = Bench()
    for _ in range(2):
        bench.arm("read", Fails(), at=2)
        bench.file.pread(0, 1)
        assert errno_of(lambda: bench.file.pread(0, 1)) is Errno.EIO


def test_of_two_faults_on_one_io_the_first_armed_one_wins_and_the_other_goes_on_counting() -> None:
    bench = Bench()
    bench.plan.arm([IoFault("d0", "write", Fails(Errno.EIO)), IoFault("d0", "any", Fails(Errno.ENOSPC), times=2)])
    assert errno_of(lambda: bench.file.pwrite(0, B)) is Errno.EIO
    assert errno_of(lambda: bench.file.pwrite(0, B)) is Errno.ENOSPC
    bench.file.pwrite(0, B)
    assert bench.met() == [0, 1]


def test_a_fault_of_one_device_never_strikes_another() -> None:
    bench = Bench()
    other = bench.plan.wrap_file("d1", MemoryFile("other"))
    bench.plan.arm([IoFault("d0", "any", Fails(), times=0)])
    other.pwrite(0, B)
    assert other.pread(0, 512) == B
    assert bench.met() == []


def test_an_error_of_the_real_file_is_an_event_too() -> None:
    class Broken(MemoryFile):
        def flush(self) -> None:
            raise BlockError(Errno.ENOSPC)

    events = EventList()
    file = FaultPlan(events).wrap_file("d0", Broken())
    assert errno_of(file.flush) is Errno.ENOSPC
    assert events.take() == [Io("d0", "flush", 0, 0, "", Errno.ENOSPC)]


EFFECTS: tuple[Effect, ...] = (
    Torn(0), Torn(1), Lost(), Misdirected(3), Misdirected(-2), BitFlip(77), Fill(), Fill(garbage=True),
)  # fmt: skip


@pytest.mark.parametrize("seed", range(20))
def test_whatever_was_damaged_healing_gives_what_a_good_medium_would_hold(seed: int) -> None:
    rng = Random(seed)  # noqa: S311  # chance for a test, no secret
    bench, good = Bench(), MemoryFile("good", A * 4)
    for _ in range(60):
        bench.plan.arm([IoFault("d0", "any", rng.choice(EFFECTS))] if rng.random() < 0.3 else [])
        offset, length = rng.randrange(3000), rng.randrange(1, 1500)
        data = rng.randbytes(length)
        match rng.randrange(6):
            case 0:
                bench.file.discard(offset, length)
                good.discard(offset, length)
            case 1:
                bench.file.truncate(offset)
                good.truncate(offset)
            case 2:
                bench.plan.arm([IoFault("d0", "flush", DropsUnflushed())] if rng.random() < 0.3 else [])
                with suppress(BlockError):
                    bench.file.flush()
            case _:
                bench.file.pwrite(offset, data)
                good.pwrite(offset, data)
        if rng.random() < 0.1:
            bench.plan.heal("d0")
            assert bench.holds() == good.pread(0, good.size())
        assert bench.file.damaged == (bench.holds() != good.pread(0, good.size()))
    assert bench.healed() == good.pread(0, good.size())
