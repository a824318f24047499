"""Phase `images`: wrecked qcow2 images. Whatever is wrong with one, each call ends, in success or in a clear error.

An image of one of eight kinds is wrecked field by field (fault_injection/image_damage.py), opened by the driver,
checked and used: everything is read, written, snapshots are taken, gone back to and deleted, and on another copy of it
loaded for a look. The model can not say what is right there, so two laws are judged: `no-crash` (no answer but those of
the contract) and `no-hang` (a stated bound of I/O for one image, which bounds memory as well). The engine's own checker
and repair are tried on each image too.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from random import Random
from typing import Final, NamedTuple

from snapcheck.fault_injection.image_damage import draw_damage
from snapcheck.fault_injection.image_kinds import KINDS
from snapcheck.impl.blockfile import BlockError, BlockFile, MemoryFile
from snapcheck.impl.checked import CheckedDriver, CrashError, in_words, open_checked
from snapcheck.impl.checked import Failure as Refusal
from snapcheck.impl.driver import OpenDriver, Out
from snapcheck.impl.qcow2 import ImageError, repair
from snapcheck.impl.qcow2.prepare import prepared_image
from snapcheck.impl.targets import Target, find_target
from snapcheck.model.facts import error
from snapcheck.model.history import Abilities, History, Result, Step
from snapcheck.model.law_names import Law
from snapcheck.model.operations import (
    Create,
    Delete,
    Discard,
    Goto,
    List,
    LoadTmp,
    Operation,
    Resize,
    VmstateRead,
    VmstateWrite,
    Write,
    WriteZeroes,
)
from snapcheck.model.setup import Damage, DeviceSpec, Setup
from snapcheck.model.snapshot import SnapshotInfo
from snapcheck.stateful_tests.gather import Gatherer, gathering
from snapcheck.stateful_tests.units import SHARDS, Answer, Failure, Unit
from snapcheck.stateful_tests.watchdog import HangError, Watchdog, watchdog
from snapcheck.stateful_tests.work import Control

NAME: Final = "images"
CALLS_MAX: Final = 20_000  # of I/O for one image
BYTES_MAX: Final = 256 << 20  # that they read and write: what bounds memory too
SIZE_MAX: Final = 1 << 40  # of the file: who follows a pointer that nobody checked writes far behind its end
SCOPE: Final = f"random damage to qcow2 images of {len(KINDS)} kinds, {SHARDS} shards"
LAWS: Final = (Law.NO_CRASH, Law.NO_HANG)
READ_MAX: Final = 1 << 20  # of the content, at each end
_BLOCK: Final = 512
_NOT_QCOW2: Final = "images that were not tried: the driver does not open qcow2 images that are given"


class Ended(NamedTuple):
    """How a call ended: "done", "refused" (an errno, with what the driver said) or "crashed"."""

    how: str
    text: str = ""


class Wrong(NamedTuple):
    """What no driver may do: the law that it broke, the operation that stands for the call, and how it ended."""

    law: Law
    operation: Operation
    text: str


class Tried(NamedTuple):
    """A wrecked image and how it ended: what was wrecked, how opening went, and the call that went wrong.

    `read_only`: the driver refused to open it for writing.
    """

    words: tuple[str, ...]
    opened: Ended
    calls: int
    wrong: Wrong | None
    read_only: bool = False


class OverBudgetError(BaseException):
    """The driver did more than any small image is worth; says what. No driver that catches `Exception` swallows it."""


class _Budgeted:
    """A file that gives out so much I/O and no more."""

    def __init__(self, file: MemoryFile) -> None:
        self.file = file
        self._calls, self._bytes = CALLS_MAX, BYTES_MAX

    @property
    def name(self) -> str:
        return self.file.name

    def _spend(self, length: int) -> None:
        self._calls -= 1
        self._bytes -= length
        if self._calls < 0 or self._bytes < 0:
            raise OverBudgetError(f"more than {CALLS_MAX} I/Os or {BYTES_MAX >> 20} MiB for one small image")

    def _grow(self, size: int) -> None:
        if size > SIZE_MAX:
            raise OverBudgetError(f"the file of a small image grows beyond {SIZE_MAX >> 40} TiB")

    def size(self) -> int:
        return self.file.size()

    def pread(self, offset: int, length: int, *, region: str = "") -> bytes:
        self._spend(length)
        return self.file.pread(offset, length, region=region)

    def pwrite(self, offset: int, data: bytes, *, region: str = "") -> None:
        self._spend(len(data))
        self._grow(offset + len(data))
        self.file.pwrite(offset, data, region=region)

    def discard(self, offset: int, length: int, *, region: str = "") -> None:
        self._spend(0)
        self.file.discard(offset, length, region=region)

    def flush(self) -> None:
        self._spend(0)

    def truncate(self, size: int) -> None:
        self._spend(0)
        self._grow(size)
        self.file.truncate(size)

    def clone(self) -> MemoryFile:
        return self.file.clone()

    def close(self) -> None:
        pass


# --- the phase ------------------------------------------------------------------------------------
def run(unit: Unit, control: Control) -> Answer:
    """Try the images of one unit. Raises `TargetError` for a driver that can not be started.

    On KeyboardInterrupt it ends with what it has.
    """
    target = find_target(unit.driver)
    if target.open_driver is None or target.format != "qcow2":
        return Answer(unit, abilities=target.abilities, counts=Counter({_NOT_QCOW2: 1}))
    with gathering(unit, control) as gatherer, watchdog() as dog:
        gatherer.answer.abilities = target.abilities
        try:
            for number in count(gatherer.next_number()):
                if gatherer.must_stop():
                    gatherer.answer.out_of_time = gatherer.answer.histories != unit.histories
                    break
                image = draw_image(unit, number)
                _add(gatherer, image, try_image(target, image, dog=dog), number)
        except KeyboardInterrupt:
            gatherer.answer.interrupted = True
    return gatherer.answer


def _add(gatherer: Gatherer, image: "WreckedImage", tried: Tried, number: int) -> None:
    """Count an image and what came of it."""
    answer, wrong = gatherer.answer, tried.wrong
    answer.counts.update((f"opened: {tried.opened.how}", f"kind: {image.kind}"))
    answer.counts.update(dict.fromkeys(f"field: {word}" for word in image.words).keys())
    if wrong is not None:
        gatherer.keep_failure(
            failure_of(image, tried, wrong, answer.abilities or Abilities(), seconds=gatherer.seconds)
        )
    broken = wrong and wrong.law
    laws = {law: [1, int(law is broken)] for law in LAWS}
    gatherer.add(f"{tried.opened.how}/{tried.calls}", steps=tried.calls, laws=laws, case=str(number))


def failure_of(image: "WreckedImage", tried: Tried, wrong: Wrong, abilities: Abilities, *, seconds: float) -> Failure:
    """Return what went wrong with an image as a history: the image with its damage, and the call by itself."""
    summary = f"an image with a wrecked {' and '.join(image.words)}: {wrong.text}"
    evidence = error(wrong.law, "d0", summary, "success, or a BlockError that names the field", wrong.text)
    step = Step(wrong.operation, result=Result(crash=wrong.text))
    setup = Setup((spec_of(image.file, read_only=tried.read_only),))
    return Failure(NAME, (evidence,), History(setup, [step], abilities=abilities), seconds)


class WreckedImage(NamedTuple):
    """An image to be tried: what kind it was, which fields were wrecked, and the file."""

    kind: str
    words: tuple[str, ...]
    file: MemoryFile


def draw_image(unit: Unit, number: int) -> WreckedImage:
    """Return image `number` of a unit: the same one for the same seed and shard."""
    return wrecked_image(Random(f"{unit.seed}/{unit.shard}/{number}"))  # noqa: S311  # chance for tests, no secret


def wrecked_image(rng: Random) -> WreckedImage:
    """Draw a kind of image, and wreck one of that kind."""
    kind = rng.choice(tuple(KINDS))
    damaged = draw_damage(rng, kind)
    return WreckedImage(kind, damaged.words, damaged.file)


def spec_of(file: MemoryFile, *, read_only: bool = False) -> DeviceSpec:
    """Return a device whose image is `file`: what is prepared there differs in the blocks that are its damage."""
    spec = DeviceSpec("d0", sectors=96, cluster_bytes=512, read_only=read_only)
    base = prepared_image(spec)
    size = file.size()
    damage = [
        Damage(offset, file.pread(offset, min(_BLOCK, size - offset)))
        for offset in range(0, size, _BLOCK)
        if file.pread(offset, _BLOCK) != base.pread(offset, _BLOCK) or offset >= base.size()
    ]
    return replace(spec, damage=(*damage, Damage(size, b"", cut=True)))


# --- one image ------------------------------------------------------------------------------------
Call = Callable[[CheckedDriver], object]
Calls = Callable[[CheckedDriver], Iterator[tuple[Operation, Call]]]


def _calls(driver: CheckedDriver) -> Iterator[tuple[Operation, Call]]:
    """Yield what is tried, as far as the driver can do it, with the operation that stands for it in a history."""
    able = driver.capabilities
    yield List("d0"), _read_everything
    if able.check:
        yield List("d0"), lambda it: it.check()
    if able.vmstate:
        yield VmstateRead("d0", 0, 700), lambda it: it.vmstate_read(0, 700)
    yield Write("d0", 1, 8, 3), lambda it: it.write(512, b"w" * 4096)
    yield WriteZeroes("d0", 4, 16), lambda it: it.write_zeroes(2048, 8192)
    if able.snapshots:
        yield Create("d0", "c"), lambda it: it.snapshot_create(Out(SnapshotInfo(name="c")))
    if able.goto:
        yield Goto("d0", "a"), lambda it: it.snapshot_goto("a")
    if able.vmstate:
        yield VmstateWrite("d0", 0, 900, 5), lambda it: it.vmstate_write(0, b"v" * 900)
    if able.discard:
        yield Discard("d0", 2, 16), lambda it: it.discard(1024, 8192)
    if able.snapshots:
        yield Delete("d0", None, "b"), lambda it: it.snapshot_delete(None, "b")
        yield Delete("d0", None, "c"), lambda it: it.snapshot_delete(None, "c")
    if able.resize:
        yield Resize("d0", 40), lambda it: it.resize(40 * 512)
        yield Resize("d0", 200), lambda it: it.resize(200 * 512)
    if able.check:
        yield List("d0"), lambda it: it.check()


def _looks(driver: CheckedDriver) -> Iterator[tuple[Operation, Call]]:
    """Yield what is tried on an image that is open read-only: its snapshots are loaded for a look."""
    if driver.capabilities.load_tmp:
        for name in ("a", "b"):
            yield LoadTmp("d0", None, name), partial(_load, name)
            yield LoadTmp("d0", None, name), _read_everything


def _load(name: str, driver: CheckedDriver) -> Refusal | None:
    return driver.snapshot_load_tmp(None, name)


def _read_everything(driver: CheckedDriver) -> None:
    """Read both ends of the content, and list the snapshots."""
    size = driver.size()
    if isinstance(size, int):
        driver.read(0, min(size, READ_MAX))
        driver.read(max(size - READ_MAX, 0), min(size, READ_MAX))
    if driver.capabilities.snapshots:
        driver.snapshot_list()


def try_image(target: Target, image: WreckedImage, *, dog: Watchdog | None = None) -> Tried:
    """Open the image with the driver, check and use it, and tell how that ended."""
    assert target.open_driver is not None, "only drivers for one device open images that are given"
    attempt = _Attempt(dog)
    opened = _used(attempt, target.open_driver, _Budgeted(image.file.clone()), _calls)
    if attempt.wrong is None:
        _used(attempt, target.open_driver, _Budgeted(image.file.clone()), _looks, modes=(True,))
    if attempt.wrong is None and target.name == "qcow2":
        attempt.end(List("d0"), lambda: _repaired(_Budgeted(image.file.clone())))
    return Tried(image.words, opened, attempt.calls, attempt.wrong, attempt.read_only)


def _used(
    attempt: "_Attempt",
    open_driver: OpenDriver,
    disk: BlockFile,
    calls: Calls,
    *,
    modes: Sequence[bool] = (False, True),
) -> Ended:
    """Open the image in the first of `modes` (read-only or not) that it lets itself be opened in, and make calls."""
    opened: list[CheckedDriver] = []

    def open_it() -> Refusal | None:
        answer: Refusal | None = None
        for read_only in modes:
            attempt.read_only = read_only
            driver = open_checked(open_driver, disk, read_only=read_only)
            if not isinstance(driver, Refusal):
                opened.append(driver)
                return None
            answer = driver
        return answer

    ended = attempt.end(List("d0"), open_it)
    for driver in opened:
        _use(attempt, driver, calls(driver))
    return ended


def _use(attempt: "_Attempt", driver: CheckedDriver, calls: Iterable[tuple[Operation, Call]]) -> None:
    """Make calls to an open driver until one goes wrong, and close it."""
    for operation, call in calls:
        if attempt.wrong is None:
            attempt.end(operation, partial(call, driver))
    if attempt.wrong is None:
        attempt.end(List("d0"), driver.close)


def _repaired(disk: BlockFile) -> None:
    """Let the engine's checker and repair loose on the image; they refuse with an `ImageError`, and raise no other."""
    try:
        repair(disk)
    except (ImageError, BlockError):
        return
    except Exception as caught:
        raise CrashError(f"repair raised {in_words(caught)}") from caught


class _Attempt:
    """Calls to a driver, until one goes wrong."""

    def __init__(self, dog: Watchdog | None) -> None:
        self._dog = dog
        self.calls = 0
        self.wrong: Wrong | None = None
        self.read_only = False

    def end(self, operation: Operation, call: Callable[[], object]) -> Ended:
        """Make a call and tell how it ended."""
        self.calls += 1
        if self._dog is not None:
            self._dog.begin()
        try:
            answer = call()
        except CrashError as crash:
            return self._went_wrong(Law.NO_CRASH, operation, str(crash))
        except (MemoryError, RecursionError) as caught:
            return self._went_wrong(Law.NO_CRASH, operation, type(caught).__name__)
        except OverBudgetError as spent:
            return self._went_wrong(Law.NO_HANG, operation, str(spent))
        except HangError:
            return self._went_wrong(Law.NO_HANG, operation, "the call did not end")
        finally:
            if self._dog is not None:
                self._dog.end()
        return Ended("refused", answer.message) if isinstance(answer, Refusal) else Ended("done")

    def _went_wrong(self, law: Law, operation: Operation, text: str) -> Ended:
        self.wrong = Wrong(law, operation, text)
        return Ended("crashed", text)
