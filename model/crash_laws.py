"""The laws of power cuts: what must hold of what is left, whatever survived (DESIGN.md section 5).

A law looks at one device after a cut, beside the stages that the operation at work goes through; `group_cut` looks at
all devices. What is done with the remains afterwards is judged like any other history, from the state that was left;
what that shows against a driver breaks `safe-to-use` or `repair-is-safe`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from snapcheck.model.crash import Course, differences
from snapcheck.model.device import Device
from snapcheck.model.facts import HELD, Evidence, error
from snapcheck.model.history import HANG, After, Observation
from snapcheck.model.law_names import Law
from snapcheck.model.match import died_of, is_dead
from snapcheck.model.operations import (
    OPERATIONS,
    AllCreate,
    AllDelete,
    AllGoto,
    DelVm,
    LoadVm,
    Operation,
    SaveVm,
    Transaction,
)
from snapcheck.model.power_cut import Cut, Filling

# Models of the medium under which nothing is promised but that nobody dies: flushes that lie.
LYING: Final = frozenset({"no-barriers"})


def binds(persistence: str, cut: Cut) -> bool:
    """Tell whether the laws bind under a cut: the medium kept what was flushed, and tore no sector to pieces."""
    return persistence not in LYING and cut.fill is Filling.OLD


@dataclass(frozen=True, slots=True)
class CutFacts:
    """What was seen of one device after a cut.

    what      the operation that was at work, in words
    returned  it had returned before the power went
    fitting   the stages of the operation in which the device may be what was seen (crash.stages_that_fit)
    bound     the persistence model is one under which more is promised than that nobody dies
    told      when the power went, in words, where that is neither during `what` nor after it
    """

    what: str
    device: Device
    course: Course
    returned: bool
    seen: Observation
    fitting: frozenset[int]
    bound: bool = True
    told: str = ""

    @property
    def name(self) -> str:
        return self.device.spec.name

    @property
    def when(self) -> str:
        return self.told or (f"a cut after {self.what}" if self.returned else f"a cut during {self.what}")

    @property
    def opened(self) -> bool:
        return not is_dead(self.seen.memory)


Judged = Iterator[Evidence | None]


def no_crash(facts: CutFacts) -> Judged:
    """No operation may end the process under test."""
    fallen = died_of(facts.seen)
    if HANG in fallen:
        return  # no-hang says so
    if fallen:
        summary = f"{facts.when}: opening {facts.name} ended the process under test"
        yield error(Law.NO_CRASH, facts.name, summary, "an answer", fallen)
    else:
        yield HELD


def no_hang(facts: CutFacts) -> Judged:
    """Whatever a cut leaves, to open and read it must end."""
    fallen = died_of(facts.seen)
    if HANG in fallen:
        summary = f"{facts.when}: opening {facts.name} did not end"
        yield error(Law.NO_HANG, facts.name, summary, "an answer in time", fallen)
    else:
        yield HELD


def opens(facts: CutFacts) -> Judged:
    """Every state that a cut may leave must open."""
    if not facts.bound or died_of(facts.seen):
        return
    if facts.opened:
        yield HELD
    else:
        told = (*facts.seen.memory.errors, *(facts.seen.check.messages[:1] if facts.seen.check else ()))
        summary = f"{facts.when} leaves {facts.name} so that it does not open"
        yield error(Law.OPENS, facts.name, summary, "an image that opens", "; ".join(told))


def no_corruption(facts: CutFacts) -> Judged:
    """No count may be lower than the references, and COPIED means exactly one; clusters that leak may."""
    check = facts.seen.check
    if not facts.bound or not facts.opened or check is None:
        return
    if check.corruptions:
        summary = f"{facts.when} corrupts the image of {facts.name}"
        told = "; ".join(check.messages[:3])
        actual = f"{check.corruptions}: {told}" if told else f"{check.corruptions}"
        yield error(Law.NO_CORRUPTION, facts.name, summary, "no corruption", actual)
    else:
        yield HELD


def durable(facts: CutFacts) -> Judged:
    """Create, goto and delete must be durable by themselves once they have returned, guest writes once flushed."""
    if not facts.bound or not facts.opened or not (facts.returned or facts.name not in facts.course.changing):
        return
    if facts.course.last in facts.fitting:
        yield HELD
    else:
        summary = f"{facts.when} loses what {facts.name} had made durable"
        yield _unlike(Law.DURABLE, facts, (facts.course.last,), summary)


def atomic_op(facts: CutFacts) -> Judged:
    """No operation that a cut breaks off may leave anything but the old state or the new one."""
    if not facts.bound or not facts.opened or facts.returned or facts.name not in facts.course.changing:
        return
    if facts.fitting:
        yield HELD
    else:
        summary = f"{facts.when} leaves {facts.name} neither old nor new"
        yield _unlike(Law.ATOMIC_OP, facts, range(len(facts.course.stages)), summary)


def _unlike(law: Law, facts: CutFacts, stages: "range | tuple[int, ...]", summary: str) -> Evidence:
    """Return evidence that tells where what was seen differs from each of these stages."""
    remains = dict.fromkeys(id(facts.course.stages[number][facts.name]) for number in stages)
    by_id = {id(stage[facts.name]): stage[facts.name] for stage in facts.course.stages}
    found = [differences(by_id[each], facts.device, facts.seen)[0] for each in remains]
    expected = " or ".join(dict.fromkeys(bad.expected for bad in found))
    return error(law, facts.name, summary, expected, " or ".join(dict.fromkeys(bad.actual for bad in found)))


# --- several devices ------------------------------------------------------------------------------
def group_cut(course: Course, what: str, fitting: Mapping[str, frozenset[int]]) -> Evidence | None:
    """Over several devices every consistent cut leaves a prefix: all devices in one and the same stage.

    `fitting` has the stages that each device may be in, at least one. None when there is one for all.
    """
    if any(all(number in stages for stages in fitting.values()) for number in range(len(course.stages))):
        return HELD
    seen = ", ".join(f"{name} {_stage_words(stages, course)}" for name, stages in fitting.items())
    summary = f"a cut during {what} leaves the devices at different stages of it"
    expected = "a prefix: each device as far as the operation had come"
    return error(Law.GROUP_CUT, _behind(fitting), summary, expected, seen)


def _behind(fitting: Mapping[str, frozenset[int]]) -> str:
    """Return the device that is least far, although another one was only touched after it."""
    return min(fitting, key=lambda name: max(fitting[name]))


def _stage_words(stages: frozenset[int], course: Course) -> str:
    return "new" if 0 not in stages else "old" if course.last not in stages else "unchanged"


# --- going on -------------------------------------------------------------------------------------
def going_on(after: After, what: str, name: str, found: Evidence) -> Evidence:
    """Return what was found against a driver while it was used, or repaired, after a cut, as evidence of that law.

    That it died or did not answer stays evidence of that.
    """
    law = Law.SAFE_TO_USE if after is After.USE else Law.REPAIR_IS_SAFE
    doing = {After.USE: "", After.REPAIR: "repairing it: "}.get(after, "opening it: ")
    told = found.law if found.law in {Law.NO_CRASH, Law.NO_HANG} else law
    return error(told, name, f"{what}, then {doing}{found.summary}", found.expected, found.actual)


# --- all of them ----------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class CrashRule:
    """What a law of power cuts is called for people, what a system must show for it, and the operations at work."""

    says: str
    needs: tuple[tuple[str, ...], ...]
    operations: tuple[type[Operation], ...] = OPERATIONS


_FILES: Final = (("io",), ("reopen",))  # its I/O goes through files that can be looked at after a cut
CRASH_RULES: Final[Mapping[Law, CrashRule]] = {
    Law.OPENS: CrashRule("Every state that a power cut may leave opens.", _FILES),
    Law.DURABLE: CrashRule("What has returned, and what was flushed, survives a power cut.", _FILES),
    Law.ATOMIC_OP: CrashRule("An operation that a power cut breaks off has happened or has not.", _FILES),
    Law.GROUP_CUT: CrashRule(
        "A power cut during an operation on several devices leaves a prefix of it.", _FILES,
        (AllCreate, AllDelete, AllGoto, SaveVm, LoadVm, DelVm, Transaction),
    ),
    Law.REPAIR_IS_SAFE: CrashRule(
        "Repair after a power cut keeps all that is durable, ends clean, and may itself be cut.", _FILES
    ),
}  # fmt: skip

# What is asked of each device after a cut, the most telling first.
LOOKS: Final[tuple[tuple[Law, Callable[[CutFacts], Judged]], ...]] = (
    (Law.NO_CRASH, no_crash), (Law.NO_HANG, no_hang), (Law.OPENS, opens), (Law.NO_CORRUPTION, no_corruption),
    (Law.DURABLE, durable), (Law.ATOMIC_OP, atomic_op),
)  # fmt: skip


def judge(facts: CutFacts) -> Iterator[tuple[Law, Evidence | None]]:
    """Yield each law that has something to judge here, with the evidence against it or None."""
    for law, rule in LOOKS:
        for judged in rule(facts):
            yield law, judged
