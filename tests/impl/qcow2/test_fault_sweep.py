"""Every operation under every single I/O that fails, and every power cut: nothing is lost, and going on is safe."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from random import Random

import pytest
from snapcheck.fault_injection.plan import FaultPlan
from snapcheck.impl.blockfile import BlockError, BlockFile, MemoryFile
from snapcheck.impl.qcow2.check import inspect
from snapcheck.impl.qcow2.image import Image
from snapcheck.model.errno import Errno
from snapcheck.model.faults import Effect, Fails, IoFault, LandsButFails, Short
from snapcheck.model.history import EventList, FaultMet
from snapcheck.model.snapshot import SnapshotInfo

STEPS_MAX = 200  # I/Os of one operation; none has so many
VMSTATE_BYTES = 1500


@dataclass(frozen=True)
class Seen:
    """All that users of an image can see: its size, content and VM state, its list, and what each snapshot holds."""

    size: int
    content: bytes
    vmstate: bytes
    snapshots: tuple[SnapshotInfo, ...]
    kept: tuple["Seen", ...] = ()


def seen(image: Image) -> Seen:
    content = image.read(0, image.size_bytes)
    return Seen(image.size_bytes, content, image.vmstate_read(0, VMSTATE_BYTES), tuple(image.snapshot_list()))


def seen_on_disk(file: BlockFile) -> Seen:
    """Look at the image in `file` through a fresh open; snapshots by going to each on a copy."""
    with Image.open(file.clone(), read_only=True) as image:
        now = seen(image)
    kept: list[Seen] = []
    for entry in now.snapshots:
        with Image.open(file.clone()) as copy:
            copy.snapshot_goto(entry.id_str)
            kept.append(seen(copy))
    return replace(now, kept=tuple(kept))


@dataclass(frozen=True)
class Case:
    """One operation on a cluster size. `mixes` allows each sector to be old or new after a failure."""

    name: str
    act: Callable[[Image, int], object]
    mixes: bool = False
    gone: bool = False  # when it took place although it failed, doing it again finds nothing (ENOENT)


CASES = (
    Case("write in place", lambda image, c: image.write(6 * c + 600, b"x" * c), mixes=True),
    Case("write to shared clusters", lambda image, c: image.write(2 * c + 512, b"x" * (5 * c)), mixes=True),
    Case("write to new clusters", lambda image, c: image.write(50 * c, b"x" * (3 * c)), mixes=True),
    Case("write across tables", lambda image, c: image.write(60 * c, b"x" * (8 * c)), mixes=True),
    Case("write until refcounts grow", lambda image, _: image.write(0, b"x" * image.size_bytes), mixes=True),
    Case("zero", lambda image, c: image.write_zeroes(3 * c + 512, 5 * c), mixes=True),
    Case("zero a whole table", lambda image, _: image.write_zeroes(0, image.size_bytes), mixes=True),
    Case("discard", lambda image, c: image.discard(3 * c + 512, 8 * c), mixes=True),
    Case("grow", lambda image, c: image.resize(300 * c)),
    Case("grow within a table", lambda image, c: image.resize(129 * c)),
    Case("shrink", lambda image, c: image.resize(5 * c + 512)),
    Case("shrink to nothing", lambda image, _: image.resize(0)),
    Case("create", lambda image, _: image.snapshot_create(SnapshotInfo(name="c"))),
    Case("create with VM state", lambda image, _: image.snapshot_create(SnapshotInfo(name="c", vm_state_size=900))),
    Case("goto", lambda image, _: image.snapshot_goto("a")),
    Case("delete the first", lambda image, _: image.snapshot_delete("1", "a"), gone=True),
    Case("delete the last", lambda image, _: image.snapshot_delete("2", None), gone=True),
    Case("write VM state", lambda image, _: image.vmstate_write(0, b"y" * 1200), mixes=True),
    Case("write much VM state", lambda image, c: image.vmstate_write(70 * c, b"y" * 700), mixes=True),
)
EFFECTS: tuple[tuple[str, Effect, int], ...] = (
    ("fails once", Fails(Errno.EIO), 1),
    ("fails from then on", Fails(Errno.ENOMEDIUM), 0),
    ("lands but fails", LandsButFails(Errno.EIO), 1),
    ("lands in part", Short(1, Errno.ENOSPC), 1),
    ("lands but fails from then on", LandsButFails(Errno.EIO), 0),
)


@dataclass
class Struck:
    """An operation that met its fault: what it answered, the image as it was left open, and the medium."""

    image: Image
    medium: MemoryFile
    error: BlockError | None


def struck_at_every_io(
    base: MemoryFile, act: Callable[[Image], object], effect: Effect, times: int
) -> Iterator[Struck]:
    """Try the operation again and again, with the fault one I/O later each time, until it is not met any more."""
    for at in range(1, STEPS_MAX):
        medium, events = base.clone(), EventList()
        plan = FaultPlan(events)
        image = Image.open(plan.wrap_file("d0", medium))
        plan.arm([IoFault("d0", "any", effect, at=at, times=times)])
        error = None
        try:
            act(image)
        except BlockError as caught:
            error = caught
        plan.disarm()
        if not any(isinstance(event, FaultMet) for event in events.take()):
            return
        yield Struck(image, medium, error)
    pytest.fail(f"an operation of more than {STEPS_MAX} I/Os: it does not end")


def is_mix(now: bytes, old: bytes, new: bytes) -> bool:
    """Tell whether each sector (each byte of what has no sectors) is as before or as it should become."""
    return all(piece in (old[at : at + 512], new[at : at + 512]) or _bytewise(piece, old, new, at)
               for at, piece in ((at, now[at : at + 512]) for at in range(0, len(now), 512)))  # fmt: skip


def _bytewise(piece: bytes, old: bytes, new: bytes, at: int) -> bool:
    return at + len(piece) > len(old) and piece in (old[at:], new[at:])


def require_old_or_new(now: Seen, old: Seen, new: Seen, *, mixes: bool) -> None:
    if mixes:
        assert is_mix(now.content, old.content, new.content)
        assert is_mix(now.vmstate, old.vmstate, new.vmstate)
        assert replace(now, content=b"", vmstate=b"") == replace(old, content=b"", vmstate=b"")
    else:
        assert now in (old, new)


@pytest.mark.parametrize("cluster_bytes", [512, 4096])
@pytest.mark.parametrize("effect", EFFECTS, ids=lambda effect: effect[0])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_failing_io_leaves_old_or_new_and_trying_again_heals(
    case: Case, effect: tuple[str, Effect, int], cluster_bytes: int, image_with_a_past: Callable[[int], MemoryFile]
) -> None:  # fmt: skip
    base = image_with_a_past(cluster_bytes)
    old = seen_on_disk(base)

    def act(image: Image) -> object:
        return case.act(image, cluster_bytes)

    done = base.clone()
    with Image.open(done) as image:
        act(image)
    new = seen_on_disk(done)
    assert inspect(done).clean

    met = 0
    for struck in struck_at_every_io(base, act, effect[1], effect[2]):
        met += 1
        # given what the failure left, memory and a fresh look at the medium agree
        disk = seen_on_disk(struck.medium)
        if not struck.image.dead:
            assert seen(struck.image) == replace(disk, kept=())
        # and it is wholly old or new; success means new, on the medium too
        require_old_or_new(disk, old, new, mixes=case.mixes)
        if struck.error is None:
            assert disk == new
            assert not struck.image.dead
        report = inspect(struck.medium)
        assert report.corruptions == 0, report.problems
        # then the one who goes on, and the one who starts anew from the medium, both get it done
        for image, medium in _lives(struck):
            before = inspect(medium).leaks
            _again(act, image, case, struck.error)
            image.close()
            after = inspect(medium)
            assert (after.corruptions, after.leaks <= before) == (0, True), after.problems
            if image is struck.image:  # which knew what it owed
                assert after.clean, after.problems
            if struck.error is not None and disk == old:
                assert seen_on_disk(medium) == new
    assert met >= (1 if isinstance(effect[1], Short) else 2)


def _lives(struck: Struck) -> Iterator[tuple[Image, MemoryFile]]:
    copy = struck.medium.clone()
    if struck.image.dead:
        with pytest.raises(BlockError):
            struck.image.snapshot_list()
    else:
        yield struck.image, struck.medium
    yield Image.open(copy), copy


def _again(act: Callable[[Image], object], image: Image, case: Case, error: BlockError | None) -> None:
    if error is None:
        return
    if case.gone and len(image.snapshot_list()) == 1:
        with pytest.raises(BlockError) as again:
            act(image)
        assert again.value.errno is Errno.ENOENT
    else:
        act(image)


# --- power cuts -----------------------------------------------------------------------------------
class Logged(MemoryFile):
    """A file that keeps what changes it, in epochs: lists of changes between two flushes."""

    __slots__ = ("epochs",)

    def __init__(self, base: MemoryFile) -> None:
        super().__init__("logged", base.pread(0, base.size()))
        self.epochs: list[list[tuple[int, bytes]]] = [[]]

    def pwrite(self, offset: int, data: bytes, *, region: str = "") -> None:
        super().pwrite(offset, data, region=region)
        if hasattr(self, "epochs"):
            self.epochs[-1].append((offset, bytes(data)))

    def discard(self, offset: int, length: int, *, region: str = "") -> None:
        super().discard(offset, length, region=region)
        if hasattr(self, "epochs"):
            self.epochs[-1].append((offset, bytes(length)))

    def flush(self) -> None:
        self.epochs.append([])


def cuts(base: MemoryFile, epochs: list[list[tuple[int, bytes]]], rng: Random) -> Iterator[MemoryFile]:
    """Give what a power cut may leave: all epochs before one, and of that one any subset (all but one, one, some)."""
    done = base.clone()
    for epoch in epochs:
        everything = range(len(epoch))
        subsets = [set[int](), *({n} for n in everything), *(set(everything) - {n} for n in everything)]
        subsets += [{n for n in everything if rng.random() < 0.5} for _ in range(10)]
        for subset in subsets:
            state = done.clone()
            for number in sorted(subset):
                state.pwrite(*epoch[number])
            yield state
        for offset, data in epoch:
            done.pwrite(offset, data)
    yield done


@pytest.mark.parametrize("cluster_bytes", [512, 4096])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_power_cut_leaves_old_or_new_and_nothing_that_harms(
    case: Case, cluster_bytes: int, image_with_a_past: Callable[[int], MemoryFile]
) -> None:
    base = image_with_a_past(cluster_bytes)
    logged = Logged(base)
    with Image.open(logged) as image:
        case.act(image, cluster_bytes)
    old, new = seen_on_disk(base), seen_on_disk(logged)
    rng = Random(1)  # noqa: S311  # chance for a test, no secret
    for state in cuts(base, logged.epochs, rng):
        report = inspect(state)
        assert report.corruptions == 0, report.problems
        require_old_or_new(seen_on_disk(state), old, new, mixes=case.mixes)
        with Image.open(state) as image:  # going on is safe
            image.write(0, b"g" * min(8 * cluster_bytes, image.size_bytes))
            image.snapshot_create(SnapshotInfo(name="after"))
            image.snapshot_goto(image.snapshot_list()[0].id_str)
        report = inspect(state)
        assert report.corruptions == 0, report.problems
