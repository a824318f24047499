"""The laws: what must hold at every step, each a small function over the facts of one step (DESIGN.md section 5).

A law is a generator. For each thing that it judged it yields the evidence against it, or None when it held; a law that
has nothing to judge at a step yields nothing. So the number of values is the number of checks. `RULES` says for which
operations a law is asked at all and what a system must show for it; without that it is not observable, never passed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from snapcheck.model.crash_laws import CRASH_RULES, CrashRule
from snapcheck.model.device import Outcome
from snapcheck.model.errno import Errno
from snapcheck.model.facts import HELD, STATE, WHERE, Evidence, Judged, Look, StepFacts, differs, error, warning
from snapcheck.model.group_laws import (
    all_or_nothing,
    drained,
    excluded_untouched,
    locks_balanced,
    nobody_skipped,
    prefix_applied,
    right_culprit,
    stops_at_first,
    vmstate_on_one,
)
from snapcheck.model.history import HANG, UNWRITTEN, Abilities, Check, Level, Purpose, Step, View
from snapcheck.model.law_names import Law
from snapcheck.model.match import (
    NAMES_A_DEVICE,
    Part,
    answer_text,
    bad_text,
    died_of,
    expected_text,
    is_dead,
    listing,
    listing_difference,
)
from snapcheck.model.operations import (
    KINDS,
    OPERATIONS,
    AddBitmap,
    AllCanSnapshot,
    AllCreate,
    AllDelete,
    AllFind,
    AllGoto,
    CanSnapshot,
    Create,
    Delete,
    DelVm,
    Discard,
    Find,
    FindByIdAndName,
    Flush,
    Goto,
    List,
    LoadTmp,
    LoadTmpByIdOrName,
    LoadVm,
    Operation,
    RemoveBitmap,
    Reopen,
    Resize,
    SaveVm,
    SetMedium,
    SetReadOnly,
    SubmitWrite,
    Transaction,
    VmstateRead,
    VmstateWrite,
    Write,
    WriteZeroes,
)
from snapcheck.model.snapshot import SnapshotInfo

# An operation reads and writes each sector, and the few blocks that count and point at it, at most a few times for each
# tree that holds it (the active one and one for each snapshot); opening an image adds a constant. Ten times that is far
# from anything that ends, and near enough that a loop is told from work.
IO_BASE: Final = 20_000
IO_PER_SECTOR: Final = 100


# --- the process ----------------------------------------------------------------------------------
def no_crash(facts: StepFacts) -> Judged:
    """No operation may end the process under test, nor keep hold of a device for ever."""
    crash = facts.step.result.crash
    if crash is not None and not crash.startswith(HANG):
        yield error(Law.NO_CRASH, facts.device, f"{facts.what} ended the process under test", "an answer", crash)
        return
    fallen = facts.fallen
    if fallen is not None:
        if HANG not in died_of(fallen):  # else no-hang says so
            summary = f"after {facts.what} a look at {fallen.device} ended the process under test"
            yield error(Law.NO_CRASH, fallen.device, summary, "an answer", died_of(fallen))
        return
    for seen in facts.step.observations:
        if seen.held:
            summary = f"after {facts.what} {seen.device} can not be closed any more"
            yield error(Law.NO_CRASH, seen.device, summary, "a device that is let go of", seen.held)
            return
    yield HELD


def no_hang(facts: StepFacts) -> Judged:
    """Every operation must end within a bound of I/O calls, and of wall-clock where the harness watches that."""
    crash, done, fallen = facts.step.result.crash, facts.trace.io_count, facts.fallen
    if crash is not None and crash.startswith(HANG):
        yield error(Law.NO_HANG, facts.device, f"{facts.what} did not end", "an answer in time", crash)
    elif fallen is not None and HANG in died_of(fallen):
        summary = f"after {facts.what} a look at {fallen.device} did not end"
        yield error(Law.NO_HANG, fallen.device, summary, "an answer in time", died_of(fallen))
    elif done > IO_BASE and done > (bound := io_bound(facts)):
        summary = f"{facts.what} took more I/O than any honest way of doing it"
        yield error(Law.NO_HANG, facts.device, summary, f"at most {bound} I/O calls", f"{done} I/O calls")
    else:
        yield HELD


def io_bound(facts: StepFacts) -> int:
    """Return the number of I/O calls that the step's operation may take at most."""
    images = [device.image for device in facts.before.devices.values() if device.image is not None]
    return IO_BASE + IO_PER_SECTOR * sum(image.sectors * (2 + len(image.snapshots)) for image in images)


# --- the answer -----------------------------------------------------------------------------------
def result(facts: StepFacts) -> Judged:
    """No result class or errno may be one that the model does not allow."""
    if facts.vague:
        return
    if facts.wrong and not {"errno", "answer", "device"}.isdisjoint(facts.wrong):
        expected, actual = _answers(facts)
        summary = f"{facts.what} answered {facts.step.result.errno.name}, which the model does not allow"
        if "errno" not in facts.wrong:
            summary = f"{facts.what} gave an answer that the model does not allow"
        yield error(Law.RESULT, facts.device, summary, expected, actual)
    else:
        yield HELD


def out_params(facts: StepFacts) -> Judged:
    """first_bad_bs was written on every path; `sn` and errp are as SPEC A.1, A.10.5 and B.2 say."""
    answer = facts.step.result
    if facts.abilities.first_bad and not facts.modern and isinstance(facts.step.operation, _GROUPS):
        yield _first_bad_written(facts)
    if facts.vague:
        return
    is_answered = {"errno", "answer"}.isdisjoint(facts.wrong)  # else `result` says what is wrong
    if is_answered and (answer.sn is not None or facts.nearest.expected.sn is not None):
        if "sn" in facts.wrong and facts.nearest.expected.sn is not None and answer.sn is not None:
            yield _wrong_sn(facts, facts.nearest.expected.sn, answer.sn)
        else:
            yield HELD
    if is_answered and "message" in facts.wrong:
        wanted, got = ("an error text", "none") if answer.message is None else ("no error text", f"{answer.message!r}")
        summary = f"{facts.what} answered {answer.errno.name} with errp in the wrong state"
        yield error(Law.OUT_PARAMS, facts.device, summary, wanted, got)


def _wrong_sn(facts: StepFacts, allowed: Sequence[SnapshotInfo], actual: SnapshotInfo) -> Evidence:
    summary = f"{facts.what} left something else in the caller's sn"
    texts = listing_difference(allowed[:1], (actual,))
    wanted = " or ".join(listing((sn,)) for sn in allowed) if len(allowed) > 1 else texts[0]
    return error(Law.OUT_PARAMS, facts.device, summary, wanted, texts[1])


def _first_bad_written(facts: StepFacts) -> Evidence | None:
    answer = facts.step.result
    if answer.first_bad == UNWRITTEN:
        culprit = facts.nearest.expected.first_bad
        summary = f"{facts.what} returned without writing first_bad_bs"
        return error(Law.OUT_PARAMS, culprit or "", summary, f"first_bad {bad_text(culprit)}", "first_bad not written")
    if facts.names_nobody and answer.first_bad is not None:
        summary = f"{facts.kind} succeeded and left {answer.first_bad} in first_bad_bs"
        return error(Law.OUT_PARAMS, answer.first_bad, summary, "first_bad NULL", f"first_bad {answer.first_bad}")
    return HELD


# --- what a device holds --------------------------------------------------------------------------
def list_exact(facts: StepFacts) -> Judged:
    """Ids, names, order, sizes and dates in the list equal the model's."""
    for name, look in facts.bound(Law.LIST_EXACT):
        bad = look.first(Part.LIST)
        yield bad and differs(Law.LIST_EXACT, name, f"the snapshot list of {name} {WHERE[bad.where]} is wrong", bad)
    answer = facts.step.result.snapshots
    if answer is not None and not facts.vague:
        expected = facts.nearest.expected.snapshots
        if "snapshots" in facts.wrong and expected is not None:
            summary = f"{facts.kind} returned a wrong list"
            yield error(Law.LIST_EXACT, facts.device, summary, *listing_difference(expected, answer))
        else:
            yield HELD


def content_exact(facts: StepFacts) -> Judged:
    """Active content, size, and what a new snapshot holds equal the model's."""
    for name, look in facts.bound(Law.CONTENT_EXACT):
        if look.seen.level is Level.LIST:
            continue
        bad = look.first(Part.SIZE, Part.CONTENT, Part.MEDIUM) or look.new_snapshot()
        yield bad and differs(Law.CONTENT_EXACT, name, f"the {bad.part} of {name} {WHERE[bad.where]} is wrong", bad)
    if "data" in facts.wrong and not facts.vague:
        summary = f"{facts.kind} read other VM state than was stored"
        yield error(Law.CONTENT_EXACT, facts.device, summary, *_data_difference(facts))


def snapshot_immutable(facts: StepFacts) -> Judged:
    """Nothing that happens later changes what a snapshot holds."""
    for name, look in facts.bound(Law.SNAPSHOT_IMMUTABLE):
        if look.seen.contents is None or look.before.image is None or not look.before.image.snapshots:
            continue
        bad = look.old_snapshot()
        yield bad and differs(Law.SNAPSHOT_IMMUTABLE, name, f"{facts.kind} changed a snapshot of {name}", bad)


def error_means_unchanged(facts: StepFacts) -> Judged:
    """After one device's failed operation it is wholly old or wholly new, the same before and after a reopen."""
    for name, look in facts.bound(Law.ERROR_MEANS_UNCHANGED):
        if name != facts.device:
            continue
        answer = facts.step.result.errno.name
        bad = look.first(*STATE)
        if bad:
            summary = f"{facts.kind} answered {answer} and left {name} neither old nor new"
            yield differs(Law.ERROR_MEANS_UNCHANGED, name, summary, bad)
        elif look.note:
            summary = f"{facts.kind} answered {answer} and yet took effect on {name} ({look.note})"
            yield warning(Law.ERROR_MEANS_UNCHANGED, name, summary, "the old state", "the new state")
        else:
            yield HELD


def success_means_done(facts: StepFacts) -> Judged:
    """Success must mean that the model's effect is there, and still is after a clean reopen."""
    for name, look in facts.bound(Law.SUCCESS_MEANS_DONE):
        if not look.changes or name not in facts.walk:
            continue
        bad = look.effect_missing()
        if bad is None:
            yield HELD
        else:
            summary = f"{facts.kind} reported success, but {WHERE[bad.where]} {name} does not show it"
            yield differs(Law.SUCCESS_MEANS_DONE, name, summary, bad)
    if facts.abilities.io and isinstance(facts.step.operation, _DURABLE):
        yield from _reached_the_medium(facts)


def _reached_the_medium(facts: StepFacts) -> Judged:
    """Guest writes must have been flushed when a flush reports success, a snapshot operation by itself."""
    is_flush = isinstance(facts.step.operation, Flush)
    for name, _ in facts.bound(Law.SUCCESS_MEANS_DONE):
        if name not in facts.walk:
            continue  # a guest's write to another device has landed meanwhile; nobody promised to flush it
        done = facts.trace.flushing(name)
        failed = [Errno(errno).name for errno in done.flushes if errno]
        if is_flush:
            owed = done.wrote_behind or name in facts.running.unflushed
            lost = bool(failed and done.flushes[-1]) or (owed and not done.flushes)
        else:  # what comes behind the commit, such as lowering refcounts, need not be flushed; but who asks is answered
            owed, lost = done.wrote, done.passed_over or (done.wrote and len(failed) == len(done.flushes))
        if lost:
            actual = f"flushes that failed: {', '.join(failed)}" if failed else "no flush behind what was written"
            summary = f"{facts.kind} reported success, but what {name} was to keep did not reach its medium"
            yield error(Law.SUCCESS_MEANS_DONE, name, summary, "a flush that succeeds", actual)
        elif owed:
            yield HELD


_DURABLE: Final = (Flush, Create, Goto, Delete, AllCreate, AllGoto, AllDelete, SaveVm, LoadVm, DelVm, Transaction)


def memory_is_disk(facts: StepFacts) -> Judged:
    """List and content in memory must equal those after a reopen."""
    for name, look in facts.bound(Law.MEMORY_IS_DISK):
        memory, disk = look.seen.memory, look.seen.disk
        if disk is None or not look.state.present:
            continue
        if is_dead(memory) and not is_dead(disk):
            if not look.struck:
                yield _unequal(name, f"{name} can not be read before a reopen, and no fault explains it", disk, memory)
            continue
        yield _memory_against_disk(name, look, memory, disk)


def _memory_against_disk(name: str, look: Look, memory: View, disk: View) -> Evidence | None:
    if memory.snapshots != disk.snapshots:
        summary = f"the list of {name} is another one after a reopen"
        if memory.snapshots is not None and disk.snapshots is not None:
            texts = listing_difference(disk.snapshots, memory.snapshots)
            return error(Law.MEMORY_IS_DISK, name, summary, f"on disk {texts[0]}", f"in memory {texts[1]}")
        return _unequal(name, summary, disk, memory)
    if look.state.image is None or look.state.image.view is not None or look.state.in_flight:
        return HELD  # load_tmp shows another content until close; requests in flight land when the device is closed
    if memory.sectors != disk.sectors:
        summary = f"the size of {name} is another one after a reopen"
        return _unequal(name, summary, disk, memory)
    if memory.content != disk.content:
        place = _first_unequal(memory.content or b"", disk.content or b"")
        summary = f"the content of {name} is another one after a reopen, from sector {place} on"
        return _unequal(name, summary, disk, memory, place)
    return HELD


def no_corruption(facts: StepFacts) -> Judged:
    """No count may be below the references, and COPIED must mean exactly one reference."""
    for name, look in facts.bound(Law.NO_CORRUPTION):
        check = look.seen.check
        if check is None:
            continue
        last = facts.running.checks.get(name, _CLEAN)
        if check.corruptions > last.corruptions:
            summary = f"{facts.kind} corrupted the image of {name}"
            yield error(Law.NO_CORRUPTION, name, summary, "no corruption", _check_text(check, check.corruptions))
        elif check.copied_missing > last.copied_missing:
            give = warning if name in facts.running.failed else error
            summary = f"{name} has clusters with one reference and without COPIED"
            yield give(Law.NO_CORRUPTION, name, summary, "COPIED", f"{check.copied_missing} without COPIED")
        else:
            yield HELD


def no_leak(facts: StepFacts) -> Judged:
    """No successful operation may raise the leak count; leaks after a failure are counted once, as a warning."""
    for name, look in facts.bound(Law.NO_LEAK):
        check = look.seen.check
        if check is None:
            continue
        last = facts.running.checks.get(name, _CLEAN)
        if check.leaks <= last.leaks:
            yield HELD
        elif name in facts.running.troubled:
            summary = f"a failed operation left leaks on {name}"
            yield warning(Law.NO_LEAK, name, summary, f"{last.leaks} leaks", f"{check.leaks} leaks")
        else:
            summary = f"{facts.kind} succeeded and left leaks on {name}"
            yield error(Law.NO_LEAK, name, summary, f"{last.leaks} leaks", _check_text(check, check.leaks))


# --- after a failure ------------------------------------------------------------------------------
def retry_heals(facts: StepFacts) -> Judged:
    """Once the fault is gone, repeating succeeds (delete: or ENOENT because it is gone) and adds no leak."""
    if facts.vague:
        return
    if all(_must_succeed(outcome) for outcome in facts.outcomes):  # the model knows when a delete left nothing to do
        if facts.failed:
            expected, actual = _answers(facts)
            summary = f"{facts.kind} still fails although its fault is gone"
            yield error(Law.RETRY_HEALS, facts.device, summary, expected, actual)
        else:
            yield HELD
    if facts.failed:  # what else keeps it from succeeding may leave something too, and no-leak counts that
        return
    for name, look in facts.bound(Law.RETRY_HEALS):
        check, last = look.seen.check, facts.running.checks.get(name)
        # Where nobody could look after the failure, what leaks now may be its doing: no-leak tells of that.
        if check is not None and last is not None and name not in facts.running.troubled:
            summary = f"repeating {facts.kind} leaks on {name}"
            leaks = f"{last.leaks} leaks", f"{check.leaks} leaks"
            yield error(Law.RETRY_HEALS, name, summary, *leaks) if check.leaks > last.leaks else HELD


def safe_to_use(facts: StepFacts) -> Judged:
    """Nothing that is done after a failure may change a snapshot or corrupt anything."""
    for name, look in facts.bound(Law.SAFE_TO_USE):
        if look.seen.contents is None and look.seen.check is None:
            continue
        bad = look.old_snapshot()
        last = facts.running.checks.get(name, _CLEAN).corruptions
        if bad:
            summary = f"going on with {facts.kind} changed a snapshot of {name}"
            yield differs(Law.SAFE_TO_USE, name, summary, bad)
        elif look.seen.check is not None and look.seen.check.corruptions > last:
            summary = f"going on with {facts.kind} corrupted the image of {name}"
            corruptions = _check_text(look.seen.check, look.seen.check.corruptions)
            yield error(Law.SAFE_TO_USE, name, summary, "no corruption", corruptions)
        else:
            yield HELD


# --- which law is asked when ----------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Rule:
    """A law's function, the operations that it speaks of, and what a system must show: one ability of each group.

    The rest says at which steps it has nothing to judge: unless a device was looked at `closely`; unless the operation
    `failed`, or unless it succeeded; at any `purpose` but this one.
    """

    judge: Callable[[StepFacts], Judged]
    operations: tuple[type[Operation], ...] = OPERATIONS
    needs: tuple[tuple[str, ...], ...] = ()
    closely: bool = False
    failed: bool | None = None
    purpose: Purpose | None = None

    def is_asked(self, at: "Occasion") -> bool:
        """Tell whether the law is asked at such a step."""
        return (
            at.operation in self.operations
            and at.closely >= self.closely
            and self.failed in (None, at.failed)
            and self.purpose in (None, at.purpose)
        )


class Occasion(NamedTuple):
    """What decides which laws a step is judged by."""

    operation: type[Operation]
    closely: bool
    failed: bool
    purpose: Purpose


def occasion(step: Step) -> Occasion:
    """Return which kind of step this is."""
    closely = False
    for seen in step.observations:
        closely = closely or seen.level is Level.FULL
    return Occasion(type(step.operation), closely, step.result.errno is not Errno.OK, step.purpose)


_CALLERS: Final = (SaveVm, LoadVm, DelVm)
_CHANGING_GROUPS: Final = (AllCreate, AllGoto, AllDelete)
_GROUPS: Final = (AllCanSnapshot, AllFind, *_CHANGING_GROUPS)
_CHANGES: Final = (
    Write, SubmitWrite, WriteZeroes, Discard, Resize, VmstateWrite, Create, Goto, Delete, LoadTmp, LoadTmpByIdOrName,
    *_CHANGING_GROUPS, *_CALLERS, Transaction,
)  # fmt: skip
_ONE_DEVICE: Final = (
    Write, WriteZeroes, Discard, Flush, Resize, VmstateWrite, VmstateRead, CanSnapshot, Find, FindByIdAndName, Create,
    Goto, Delete, List, LoadTmp, LoadTmpByIdOrName, AddBitmap, RemoveBitmap, Reopen, SetReadOnly, SetMedium,
)  # fmt: skip
_CLEAN: Final = Check()

# In the order in which evidence is reported: the most telling law first.
RULES: Final[Mapping[Law, Rule]] = {
    Law.NO_CRASH: Rule(no_crash),
    Law.NO_HANG: Rule(no_hang),
    Law.LOCKS_BALANCED: Rule(locks_balanced, needs=(("locks",), ("calls",))),
    Law.DRAINED: Rule(drained, (Delete, AllDelete, *_CALLERS, Transaction), (("drains",), ("calls",))),
    Law.STOPS_AT_FIRST: Rule(stops_at_first, (*_GROUPS, *_CALLERS), (("calls",), ("io",))),
    Law.EXCLUDED_UNTOUCHED: Rule(excluded_untouched, needs=(("io",),)),
    Law.RIGHT_CULPRIT: Rule(right_culprit, NAMES_A_DEVICE, (("first_bad",),)),
    Law.ALL_OR_NOTHING: Rule(all_or_nothing, (Transaction,), failed=True),
    Law.VMSTATE_ON_ONE: Rule(vmstate_on_one, (AllCreate, SaveVm), failed=False),
    Law.NOBODY_SKIPPED: Rule(nobody_skipped, (*_CHANGING_GROUPS, *_CALLERS, Transaction), failed=False),
    Law.PREFIX_APPLIED: Rule(prefix_applied, (*_CHANGING_GROUPS, *_CALLERS), failed=True),
    Law.OUT_PARAMS: Rule(out_params, needs=(("cells",),)),
    Law.SAFE_TO_USE: Rule(safe_to_use, needs=(("snapshot_contents", "check"),), closely=True, purpose=Purpose.PROBE),
    Law.NO_CORRUPTION: Rule(no_corruption, needs=(("check",),), closely=True),
    Law.SNAPSHOT_IMMUTABLE: Rule(snapshot_immutable, needs=(("snapshot_contents",),), closely=True),
    Law.MEMORY_IS_DISK: Rule(memory_is_disk, needs=(("reopen",),), closely=True),
    Law.ERROR_MEANS_UNCHANGED: Rule(error_means_unchanged, _ONE_DEVICE, failed=True),
    Law.SUCCESS_MEANS_DONE: Rule(success_means_done, (*_CHANGES, Flush), failed=False),
    Law.RETRY_HEALS: Rule(retry_heals, purpose=Purpose.RETRY),
    Law.NO_LEAK: Rule(no_leak, needs=(("check",),), closely=True),
    Law.LIST_EXACT: Rule(list_exact),
    Law.CONTENT_EXACT: Rule(content_exact),
    Law.RESULT: Rule(result),
}


def is_observable(law: Law, abilities: Abilities) -> bool:
    """Tell whether a system with these abilities can show what `law` is judged by."""
    rule: Rule | CrashRule = RULES[law] if law in RULES else CRASH_RULES[law]
    if not all(any(getattr(abilities, name) for name in group) for group in rule.needs):
        return False
    return abilities.operations is None or any(KINDS[kind] in abilities.operations for kind in rule.operations)


# --- texts ----------------------------------------------------------------------------------------
def _unequal(name: str, summary: str, disk: View, memory: View, place: int = 0) -> Evidence:
    on_disk, in_memory = f"on disk {_view_text(disk, place)}", f"in memory {_view_text(memory, place)}"
    if is_dead(disk):
        return error(Law.MEMORY_IS_DISK, name, f"{name} can not be read after a reopen", in_memory, on_disk)
    return error(Law.MEMORY_IS_DISK, name, summary, on_disk, in_memory)


def _view_text(view: View, place: int) -> str:
    if view.errors:
        return f"unreadable ({', '.join(view.errors)})"
    return f"{view.sectors} sectors, sector {place} tag {(view.content or b'')[place : place + 1].hex() or '-'}"


def _first_unequal(one: bytes, other: bytes) -> int:
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _check_text(check: Check, count: int) -> str:
    return f"{count}: {'; '.join(check.messages[:3])}" if check.messages else f"{count}"


def _data_difference(facts: StepFacts) -> tuple[str, str]:
    want, got = facts.nearest.expected.data or b"", facts.step.result.data
    if got is None:
        return f"{len(want)} bytes of VM state", "nothing"
    place = _first_unequal(want, got)
    return (
        f"{len(want)} bytes, byte {place} is {want[place : place + 1].hex() or 'past the end'}",
        f"{len(got)} bytes, byte {place} is {got[place : place + 1].hex() or 'past the end'}",
    )


def _answers(facts: StepFacts) -> tuple[str, str]:
    names = facts.abilities.first_bad and isinstance(facts.step.operation, NAMES_A_DEVICE)
    expected = expected_text([outcome.expected for outcome in facts.outcomes], names=names)
    return expected, answer_text(facts.step.result, names=names)


def _must_succeed(outcome: Outcome) -> bool:
    return outcome.expected.errnos == frozenset({Errno.OK})
