"""Each lie about a real QEMU breaks its law in a history that the honest one passes."""

from functools import lru_cache

import pytest
from snapcheck.impl.targets import find_target
from snapcheck.model.facts import Evidence
from snapcheck.model.law_names import Law
from snapcheck.model.operations import DelVm, LoadVm, Operation, Resize, SaveVm, SnapshotAction, Transaction, Write
from snapcheck.model.setup import DeviceSpec, Kind, Semantics, Setup
from snapcheck.stateful_tests.session import Session

pytestmark = pytest.mark.usefixtures("running_qemu")
HERE = "snapcheck.stateful_tests.seeded_bugs.qemu"
HALF = Transaction((SnapshotAction("d0", "t"), SnapshotAction("d1", "t"), SnapshotAction("d1", "t")))
STORY: tuple[Operation, ...] = (
    SaveVm("a"), Write("d0", 0, 8, 20), SaveVm("b"), Write("d1", 8, 8, 21), LoadVm("a"), HALF, Resize("d0", 40),
    DelVm("a"), DelVm("b"), Transaction((SnapshotAction("d0", "u"),)),
)  # fmt: skip
REFUSED: tuple[Operation, ...] = (SaveVm("a"),)
LIES = (
    ("DeletesNothing", Law.SUCCESS_MEANS_DONE), ("LoadsNothing", Law.SUCCESS_MEANS_DONE),
    ("SavesNotAll", Law.NOBODY_SKIPPED), ("DeletesAnother", Law.LIST_EXACT), ("ShowsAGhost", Law.LIST_EXACT),
    ("TurnsTheListAround", Law.LIST_EXACT), ("ShowsVmStateTwice", Law.VMSTATE_ON_ONE),
    ("KeepsHalfOfATransaction", Law.ALL_OR_NOTHING), ("ResizesNothing", Law.SUCCESS_MEANS_DONE),
    ("DiesOfALoad", Law.NO_CRASH), ("TouchesAnother", Law.EXCLUDED_UNTOUCHED),
)  # fmt: skip
LIES_ABOUT_A_REFUSAL = (
    ("BlamesAnother", Law.RIGHT_CULPRIT), ("BlamesNobody", Law.RIGHT_CULPRIT), ("SwallowsErrors", Law.RESULT),
)  # fmt: skip


def found(driver: str, story: tuple[Operation, ...], last: Kind) -> list[Evidence]:
    """Return all that broke a law, as far as the story could be told."""
    devices = (DeviceSpec("d0", sectors=16, tag=9), DeviceSpec("d1", last, sectors=16, tag=9))
    with Session(find_target(driver), Setup(devices, Semantics.MODERN)) as session:
        evidence: list[Evidence] = []
        for operation in story:
            if not session.over:
                evidence += session.step(operation)
        return evidence + session.finish()


@lru_cache
def honest(story: tuple[Operation, ...], last: Kind) -> list[Evidence]:
    return found("qemu", story, last)


@pytest.mark.parametrize(("lie", "law"), LIES)
def test_a_lie_breaks_its_law(lie: str, law: Law) -> None:
    assert honest(STORY, Kind.DRIVER) == []
    assert law in {each.law for each in found(f"{HERE}:{lie}", STORY, Kind.DRIVER)}


@pytest.mark.parametrize(("lie", "law"), LIES_ABOUT_A_REFUSAL)
def test_a_lie_about_a_refusal_breaks_its_law(lie: str, law: Law) -> None:
    assert honest(REFUSED, Kind.PLAIN) == []
    assert law in {each.law for each in found(f"{HERE}:{lie}", REFUSED, Kind.PLAIN)}
