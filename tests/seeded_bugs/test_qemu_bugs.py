"""Each lie about a real QEMU breaks its law in a history that the honest one passes."""

from functools import lru_cache
from pathlib import Path

import pytest
from snapcheck.impl.targets import find_target
from snapcheck.model.facts import Evidence
from snapcheck.model.law_names import Law, Severity
from snapcheck.model.operations import DelVm, LoadVm, Operation, Resize, SaveVm, SnapshotAction, Transaction, Write
from snapcheck.model.setup import DeviceSpec, Kind, Semantics, Setup
from snapcheck.reports import known
from snapcheck.stateful_tests.run import RunOptions, Silent, run_driver
from snapcheck.stateful_tests.session import Session
from snapcheck.stateful_tests.units import Profile

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


# --- as a user finds them: by a run, beside what is known of an honest QEMU -------------------------
def news(driver: str) -> set[Law]:
    accepted = known.read(Path(__file__).parents[2] / "examples" / "known" / "qemu-7.2.toml")
    options = RunOptions(
        phases=("sweep",), profile=Profile.QUICK, histories=24, semantics=Semantics.MODERN, known=accepted,
        shrink_seconds=0.0,
    )  # fmt: skip
    violations = run_driver(find_target(driver), options, Silent()).result.violations
    return {each.law for each in violations if each.severity is Severity.ERROR and not each.known}


def test_a_short_run_has_no_news_of_an_honest_qemu() -> None:
    assert news("qemu") == set()


@pytest.mark.parametrize(
    ("lie", "law"), [("LoadsNothing", Law.NOBODY_SKIPPED), ("ShowsVmStateTwice", Law.VMSTATE_ON_ONE)]
)
def test_a_short_run_finds_a_lie(lie: str, law: Law) -> None:
    assert law in news(f"{HERE}:{lie}")
