"""Running a history that a power cut ended once more, and making the disks that the cut leaves.

The cut is looked for anew among all that may be left at the end of the history: a driver that has changed sends down
other writes, and the numbers of a cut mean others then. Cuts that lose few writes come first, those that were recorded
before their like.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final, NamedTuple

from snapcheck.fault_injection.crash.cuts import Persistence, image_of
from snapcheck.impl.blockfile import MemoryFile
from snapcheck.impl.targets import Target
from snapcheck.model import crash_laws
from snapcheck.model.facts import Evidence
from snapcheck.model.history import After, History, PowerCut
from snapcheck.model.law_names import Law
from snapcheck.model.power_cut import Cut, Filling
from snapcheck.stateful_tests.power_cuts.going_on import GoingOn, remnant
from snapcheck.stateful_tests.power_cuts.judging import CutJudge, Found, Left, Plan, witnesses_of
from snapcheck.stateful_tests.power_cuts.recording import Recording, record
from snapcheck.stateful_tests.watchdog import Watchdog

_STATES_MAX: Final = 1 << 12  # of an epoch
_GO_ON_MAX: Final = 200  # disks
_BY_NAME: Final = {each.value: each for each in Persistence}
_LOSING_FEW: Final = (Persistence.ONE_DROPPED, Persistence.ONE_KEPT, Persistence.TWO_DROPPED)


class CutAgain(NamedTuple):
    """What came of it: the history with the cut that shows something, and what; without a cut where nothing did."""

    history: History
    evidence: tuple[Evidence, ...]


def cut_again(target: Target, history: History, *, law: Law | None = None, dog: Watchdog | None = None) -> CutAgain:
    """Perform the steps of `history` and cut its end in every way, until `law` is broken (any law when it is None).

    Raises `UnsupportedSetupError` when the driver can not build its devices.
    """
    cut = history.cut
    assert cut is not None, "the history was ended by a power cut"
    recorded = record(target, history.setup, [step.operation for step in history.steps], dog=dog)
    if recorded.recording is None:
        return CutAgain(recorded.session.history, recorded.found)
    whole, found = recorded.recording.history, list[Found]()
    for persistence in _simplest_first(cut):
        found = [
            each
            for each in _found(recorded.recording, cut, persistence, dog)
            if law is None or each.evidence.law is law
        ]
        if found:
            break
    else:
        return CutAgain(replace(whole, cut=None), ())
    best = min(found, key=lambda each: (each.cut.devices != cut.devices, lost_writes(each.cut)))
    others = tuple(each.evidence for each in found if each.cut.devices == best.cut.devices and each is not best)
    return CutAgain(replace(whole, cut=best.cut), (best.evidence, *others))


def lost_writes(cut: PowerCut) -> int:
    """Return how many writes a cut lost, wholly or in part."""
    return sum(len(each.dropped) + len(each.torn) for each in cut.devices)


def _simplest_first(cut: PowerCut) -> tuple[Persistence, ...]:
    """Return the models of the medium to try: those that lose few writes, then the one that the cut was found under."""
    found_under = _BY_NAME.get(cut.persistence, Persistence.EPOCH)  # a file may name what this version does not know
    if not all(crash_laws.binds(cut.persistence, each) for each in cut.devices):
        return (found_under,)
    return tuple(dict.fromkeys((*_LOSING_FEW, found_under)))


def _found(recording: Recording, cut: PowerCut, persistence: Persistence, dog: Watchdog | None) -> Iterator[Found]:
    """Yield what speaks against the driver under a model of the medium."""
    judge = CutJudge(recording, told_max=_STATES_MAX, dog=dog)
    fill = cut.devices[0].fill if cut.devices else Filling.OLD
    left: list[Left] = []
    for each in judge.judge(Plan((persistence,), _STATES_MAX, fill)):
        if isinstance(each, Found):
            yield each
        elif each.sound:
            left.append(each)
    if cut.after is not After.LOOK:
        yield from _found_by_going_on(judge, left, cut, GoingOn(dog))


def _found_by_going_on(judge: CutJudge, left: list[Left], cut: PowerCut, going_on: GoingOn) -> Iterator[Found]:
    """Go on with the disk that `cut` left first, then with others that lost more and more."""

    def loss(way: tuple[Left, Cut]) -> tuple[bool, int]:
        left, witness = way
        told = judge.as_judged(left, witness, at=judge.moment((left,)))
        return cut.devices != (told,), len(told.dropped) + len(told.torn)

    for each, witness in sorted(witnesses_of(left), key=loss)[:_GO_ON_MAX]:
        found = [*going_on.go_on(remnant(judge, each, witness))]
        yield from found
        if any(against.cut.after is cut.after for against in found):
            return


def disks_left(target: Target, history: History) -> Mapping[str, MemoryFile]:
    """Return the disks that the cut at the end of `history` leaves, by device; those that lost nothing included."""
    cut = history.cut
    recorded = record(target, history.setup, [step.operation for step in history.steps])
    recording = recorded.recording
    if cut is None or recording is None:
        return {}
    return {each.device: image_of(recording.bases[each.device], recording.log, each) for each in cut.devices}
