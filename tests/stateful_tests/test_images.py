"""Stories of phase `images`: nothing but success and clear errors from the engine; what a bad driver does is found."""

import re
import tracemalloc
from random import Random

import pytest
from snapcheck.fault_injection.image_damage import damage_one, places
from snapcheck.fault_injection.image_kinds import KINDS, sound_image
from snapcheck.impl.blockfile import BlockError, BlockFile
from snapcheck.impl.driver import CreateOptions, Driver
from snapcheck.impl.qcow2 import Image
from snapcheck.impl.qcow2.driver import Qcow2Driver
from snapcheck.impl.targets import Target, find_target
from snapcheck.model.history import Check
from snapcheck.model.law_names import Law
from snapcheck.model.operations import Write
from snapcheck.model.setup import Semantics
from snapcheck.reports import codec
from snapcheck.reports.verdict import Verdict
from snapcheck.stateful_tests.phases import images
from snapcheck.stateful_tests.phases.images import WreckedImage, try_image, wrecked_image
from snapcheck.stateful_tests.replay import ReplayState, replay
from snapcheck.stateful_tests.run import RunOptions, Silent, run_driver
from snapcheck.stateful_tests.shrink import shrink
from snapcheck.stateful_tests.units import Unit
from snapcheck.stateful_tests.work import Control

FIELD = re.compile(r"(header extension 0x[0-9a-f]+|[a-z][a-z0-9_ :]*): ")  # what a refusal begins with
MEMORY_BYTES_MAX = 64 << 20


@pytest.fixture(scope="module")
def engine() -> Target:
    return find_target("qcow2")


def unit(driver: str, *, histories: int, seed: int = 0) -> Unit:
    return Unit(
        driver=driver, phase="images", semantics=Semantics.CLASSIC, devices=1, seed=seed, shard=0, histories=histories,
        seconds=None,
    )  # fmt: skip


def ran(driver: str, *, histories: int) -> images.Answer:
    return images.run(unit(driver, histories=histories), Control(lambda _: None))


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_of_every_kind_of_image_ends_in_success_or_in_an_error_that_names_a_field(
    engine: Target, kind: str
) -> None:
    rng = Random(kind)  # noqa: S311  # chance for a test, no secret
    known = places(sound_image(kind))
    landmarks = [place.offset for each in known.values() for place in each]
    for field in sorted(known):
        for _ in range(4):
            file = sound_image(kind)
            damage_one(rng, file, rng.choice(known[field]), landmarks)
            tried = try_image(engine, WreckedImage(kind, (field,), file))
            assert tried.wrong is None, f"{field}: {tried.wrong}"
            assert tried.opened.how == "done" or FIELD.match(tried.opened.text), tried.opened.text


def test_several_fields_at_once_and_cut_off_files_do_no_more_harm() -> None:
    answer = ran("qcow2", histories=300)
    assert (answer.histories, answer.counts["violations"], answer.failures) == (300, 0, [])
    assert answer.counts["opened: done"] > 50
    assert answer.counts["opened: refused"] > 50
    assert answer.counts["field: cut off"] > 0
    assert answer.laws[Law.NO_CRASH] == [300, 0]


def test_memory_stays_within_its_bound(engine: Target) -> None:
    wrecked_image(Random(0))  # noqa: S311  # what is kept of sound images does not count
    tracemalloc.start()
    for number in range(150):
        try_image(engine, wrecked_image(Random(number)))  # noqa: S311  # chance for a test, no secret
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MEMORY_BYTES_MAX


def test_the_same_seed_gives_the_same_images() -> None:
    assert ran("qcow2", histories=40).digests == ran("qcow2", histories=40).digests


# --- bad drivers ----------------------------------------------------------------------------------
def opened(disk: BlockFile, *, read_only: bool, create: CreateOptions | None) -> Image:
    if create is not None:
        Image.create(disk, size_bytes=create.size_bytes, cluster_bytes=create.cluster_bytes).close()
    return Image.open(disk, read_only=read_only)


class _Trusting(Qcow2Driver):
    """Believes what the snapshot table says of the size of a VM state."""

    __slots__ = ()

    def snapshot_delete(self, snapshot_id: str | None, name: str | None) -> None:
        if any(each.vm_state_size > 1 << 30 for each in self.snapshot_list()):
            raise IndexError("VM state")
        super().snapshot_delete(snapshot_id, name)


def trusting(disk: BlockFile, *, read_only: bool, create: CreateOptions | None) -> Driver:
    return _Trusting(opened(disk, read_only=read_only, create=create))


class _Endless(Qcow2Driver):
    """Looks for a cluster until it finds one."""

    __slots__ = ()

    def check(self) -> Check:
        while True:
            self.read(0, 512)


def endless(disk: BlockFile, *, read_only: bool, create: CreateOptions | None) -> Driver:
    return _Endless(opened(disk, read_only=read_only, create=create))


class _Sprawling(Qcow2Driver):
    """Puts a write where a pointer says, however far behind the end of the file that is."""

    __slots__ = ("disk",)

    def write(self, offset: int, data: bytes) -> None:
        self.disk.pwrite(1 << 50, data)
        super().write(offset, data)


def sprawling(disk: BlockFile, *, read_only: bool, create: CreateOptions | None) -> Driver:
    driver = _Sprawling(opened(disk, read_only=read_only, create=create))
    driver.disk = disk
    return driver


def test_a_driver_that_raises_what_it_must_not_is_found_and_replay_shows_it() -> None:
    target = Target("trusting", "a driver with a bug", trusting)
    known = places(sound_image("version 3"))["snapshot.extra.vm_state_size"]
    file = sound_image("version 3")
    file.pwrite(known[0].offset, b"\1" * 8)
    image = WreckedImage("version 3", ("snapshot.extra.vm_state_size",), file)
    tried = try_image(target, image)
    assert tried.wrong is not None
    assert tried.wrong.law is Law.NO_CRASH
    assert "IndexError" in tried.wrong.text
    failure = images.failure_of(image, tried, tried.wrong, target.abilities, seconds=0.0)
    assert codec.load(type(failure.history), codec.dump(failure.history)) == failure.history
    again = replay(target, failure.history)
    assert again.state is ReplayState.STILL_FAILS
    assert "no-crash" in again.text


def dies_of_a_wrecked_header(disk: BlockFile, *, read_only: bool, create: CreateOptions | None) -> Driver:
    if create is None and disk.pread(0, 4) != b"QFI\xfb":
        raise IndexError("magic")
    return Qcow2Driver(opened(disk, read_only=read_only, create=create))


def test_a_driver_that_dies_while_it_opens_an_image_still_fails_in_a_replay_and_refusing_is_no_failure() -> None:
    target = Target("dying", "a driver with a bug", dies_of_a_wrecked_header)
    file = sound_image("version 3")
    file.pwrite(0, b"NOPE")
    file.pwrite(8192, b"\xee" * 512)  # more damage, which has nothing to do with it
    image = WreckedImage("version 3", ("magic",), file)
    tried = try_image(target, image)
    assert tried.wrong is not None
    failure = images.failure_of(image, tried, tried.wrong, target.abilities, seconds=0.0)
    again = replay(target, failure.history, law=Law.NO_CRASH)
    assert again.state is ReplayState.STILL_FAILS
    assert "IndexError" in again.text
    assert replay(find_target("qcow2"), failure.history).state is ReplayState.FIXED
    shrunk = shrink(target, failure.history, failure.evidence)
    assert [damage.offset for damage in shrunk.history.setup.devices[0].damage] == [0]


def test_a_driver_that_reads_for_ever_is_stopped_by_its_budget() -> None:
    target = Target("endless", "a driver with a bug", endless)
    tried = try_image(target, WreckedImage("version 3", (), sound_image("version 3")))
    assert tried.wrong is not None
    assert tried.wrong.law is Law.NO_HANG


def test_a_driver_that_makes_a_small_image_a_file_of_a_pebibyte_is_stopped_by_its_budget() -> None:
    target = Target("sprawling", "a driver with a bug", sprawling)
    tried = try_image(target, WreckedImage("version 3", (), sound_image("version 3")))
    assert tried.wrong is not None
    assert (tried.wrong.law, type(tried.wrong.operation)) == (Law.NO_HANG, Write)
    assert "TiB" in tried.wrong.text


def test_a_driver_that_does_not_open_images_is_skipped_and_says_so() -> None:
    answer = ran("snapcheck.stateful_tests.seeded_bugs.group:lock_kept", histories=5)
    assert answer.histories in (0, 5)
    assert answer.histories or "not tried" in next(iter(answer.counts))


def test_an_error_of_the_file_is_an_error_of_the_driver_and_no_crash(engine: Target) -> None:
    assert engine.open_driver is not None
    with pytest.raises(BlockError):
        engine.open_driver(sound_image("version 2"), read_only=False, create=CreateOptions(-1))


def test_a_driver_that_dies_of_opening_an_image_fails_the_run_and_does_not_end_it() -> None:
    driver = "snapcheck.stateful_tests.seeded_bugs.malformed:null_cleanup"
    result = run_driver(find_target(driver), RunOptions(phases=("images",), histories=60), Silent()).result
    assert result.verdict is Verdict.FAILED
    assert result.violations[0].law is Law.NO_CRASH
