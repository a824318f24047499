"""A replay looks as closely as what it replays needs, and says so when it can not tell whether a law is broken."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Self

import pytest
from snapcheck.impl.blockfile import BlockError, BlockFile
from snapcheck.impl.checked import Out
from snapcheck.impl.driver import CreateOptions
from snapcheck.impl.local import LocalSystem
from snapcheck.impl.qcow2.snapshots import SnapshotEntry
from snapcheck.impl.targets import find_target
from snapcheck.model.errno import Errno
from snapcheck.model.facts import Evidence
from snapcheck.model.faults import Fails, IoFault
from snapcheck.model.history import Care, History, Step
from snapcheck.model.law_names import Law, Severity
from snapcheck.model.operations import AllCreate, Create, Flush, Operation
from snapcheck.model.setup import DeviceSpec, Setup
from snapcheck.model.snapshot import SnapshotInfo
from snapcheck.reports import reproducer
from snapcheck.reports.verdict import RunResult, Verdict, ViolationReport
from snapcheck.stateful_tests import corpus
from snapcheck.stateful_tests.broken import LawBrokenError
from snapcheck.stateful_tests.corpus import READABLE, Corpus
from snapcheck.stateful_tests.replay import ReplayState, assert_holds, breaks, replay, run_again
from snapcheck.stateful_tests.run import RunOptions, Silent, run_driver
from snapcheck.stateful_tests.seeded_bugs.planting import Insider, in_engine
from snapcheck.stateful_tests.session import Session
from snapcheck.stateful_tests.shrink import Shrunk, shrink
from snapcheck.stateful_tests.units import Failure
from snapcheck.stateful_tests.violations import Violations


class _RemembersAFailure(Insider):
    """A create that follows two that failed is in memory only, where devices were opened after one of them alone.

    Only Care.LATE looks closely after the one that a fault struck, and not after the other one.
    """

    __slots__ = ()
    failed: ClassVar[int] = 0
    looks: ClassVar[int] = 0
    opened: ClassVar[bool] = False

    @classmethod
    def open(cls, disk: BlockFile, *, read_only: bool, create: CreateOptions | None = None) -> Self:
        _RemembersAFailure.opened = True
        return super().open(disk, read_only=read_only, create=create)

    def snapshot_create(self, sn: Out[SnapshotInfo]) -> None:
        memory = _RemembersAFailure
        memory.looks += memory.opened
        memory.opened = False
        if (memory.failed, memory.looks) == (2, 1):
            header = self._state.header
            entry = SnapshotEntry(replace(sn.value, id_str="1"), header.l1_offset, header.l1_size, header.size)
            self._state.snapshot_table.entries.append(entry)
            return
        try:
            super().snapshot_create(sn)
            memory.failed = 0
        except BlockError:
            memory.looks *= memory.failed == 1  # those after the first one count
            memory.failed += 1
            raise


class _StartsAnew(LocalSystem):
    """A system whose drivers have a memory of their own."""

    def start(self, setup: Setup) -> None:
        _RemembersAFailure.failed = _RemembersAFailure.looks = 0
        super().start(setup)


class _Dies(Insider):
    __slots__ = ()

    def snapshot_create(self, sn: Out[SnapshotInfo]) -> None:
        raise KeyError(sn)


remembers = replace(
    in_engine("a create after two that failed is in memory only", driver=_RemembersAFailure), layers=_StartsAnew
)
REMEMBERS = f"{__name__}:remembers"
WRONG_CULPRIT = "snapcheck.stateful_tests.seeded_bugs.group:wrong_culprit"
ONE_READ_ONLY = Setup((DeviceSpec("d0", sectors=16), DeviceSpec("d1", sectors=16, read_only=True)))
TWO = Setup((DeviceSpec("d0", sectors=16), DeviceSpec("d1", sectors=16)))


def found(*noise: Operation) -> Failure:
    """Return the failure that shows after these operations on the driver that remembers."""
    with Session(find_target(REMEMBERS), ONE_READ_ONLY, care=Care.LATE) as session:
        for operation in noise:
            assert session.step(operation) == []
        assert session.step(Create("d0", "a"), (IoFault("d0", "write", Fails()),)) == []
        assert session.step(Create("d1", "a")) == []
        return Failure("walk", tuple(session.step(Create("d1", "b"))), session.history, 0.0)


def struck_at(place: int) -> History:
    """Return a group create of which one device fails at that write, as a reproducer holds it."""
    return History(TWO, [Step(AllCreate("a"), (IoFault("d1", "write", Fails(Errno.EIO), at=place),))])


# --- what only shows while little is looked at ----------------------------------------------------
@pytest.fixture(scope="module")
def shrunk() -> Shrunk:
    failure = found(*[Flush("d0")] * 12)
    return shrink(find_target(REMEMBERS), failure.history, failure.evidence)


def test_what_no_closer_look_shows_stays_cut_down_and_says_how_to_look(shrunk: Shrunk) -> None:
    assert (shrunk.finished, shrunk.reproduced) == (True, True)
    assert len(shrunk.history.steps) == 3
    assert shrunk.history.care is Care.LATE


def test_it_still_fails_when_it_is_looked_at_like_that_and_not_as_files_without_it_are(shrunk: Shrunk) -> None:
    target = find_target(REMEMBERS)
    assert replay(target, shrunk.history).state is ReplayState.STILL_FAILS
    assert replay(target, replace(shrunk.history, care=None)).state is ReplayState.FIXED
    assert replay(find_target("qcow2"), shrunk.history).state is ReplayState.FIXED


def test_the_corpus_keeps_it_and_pytest_fails_with_it(shrunk: Shrunk, failed: RunResult, tmp_path: Path) -> None:
    # Given a corpus with it
    violation = replace(failed.violations[0], history=shrunk.history, cause="a1b2c3d4")
    result = replace(failed, driver=REMEMBERS, violations=(violation,))
    assert Corpus(tmp_path).add(result) == (1, ())
    # When the driver that has the bug still is run again
    again = run_with(REMEMBERS, tmp_path)
    # Then it is a violation, and its file stays
    assert again.verdict is Verdict.FAILED
    (path,) = tmp_path.iterdir()
    read = reproducer.read(path)
    assert read.history.care is Care.LATE
    with pytest.raises(LawBrokenError, match="is broken at step 2"):
        assert_holds(driver=read.driver, history=read.history)


def run_with(driver: str, folder: Path) -> RunResult:
    options = RunOptions(phases=("sweep",), histories=1, corpus=corpus.read(folder), shrink_seconds=0.0)
    return run_driver(find_target(driver), options, Silent()).result


# --- a fault that is met no more ------------------------------------------------------------------
def test_nobody_can_tell_from_a_fault_that_is_met_no_more() -> None:
    target = find_target(WRONG_CULPRIT)
    assert replay(target, struck_at(1)).state is ReplayState.STILL_FAILS
    done = replay(target, struck_at(999))
    assert done.state is ReplayState.CANNOT_TELL
    assert done.text.startswith("a fault is met no more, at step 0: the 999th write of d1 fails with EIO\n")
    assert "hunt again" in done.text
    with pytest.raises(LawBrokenError, match="can not tell"):
        assert_holds(driver=WRONG_CULPRIT, history=struck_at(999))


def test_a_fault_that_was_not_met_when_it_failed_does_not_count() -> None:
    never = IoFault("d0", "write", Fails(), at=999)
    asked = History(TWO, [Step(AllCreate("a"), (*struck_at(1).steps[0].faults, never))])
    ran = run_again(find_target(WRONG_CULPRIT), asked, care=Care.USUAL, telling=breaks(None))
    assert ran.evidence
    assert replay(find_target("qcow2"), ran.history).state is ReplayState.FIXED
    assert reproducer.questions(ran.history).steps[0].faults == struck_at(1).steps[0].faults


def test_a_history_that_ends_too_early_tells_nothing_of_its_end() -> None:
    history = History(TWO, [Step(Create("d0", "a")), Step(Flush("d0"))])
    done = replay(in_engine("dies of a create", driver=_Dies), history, law=Law.LIST_EXACT)
    assert done.state is ReplayState.CANNOT_TELL
    assert done.text.startswith("the replay ended at step 0 of 2, as nothing more was predictable\n")


def test_the_corpus_keeps_the_file_and_the_run_says_so(tmp_path: Path) -> None:
    path = tmp_path / "test_right_culprit_a1b2c3d4.py"
    path.write_text(written(struck_at(999)))
    result = run_with("qcow2", tmp_path)
    assert path.exists()
    assert result.verdict is Verdict.UNKNOWN
    (note,) = (each for each in result.notes if path.name in each)
    assert "may be mended or not, and is kept: a fault is met no more" in note
    assert "1 kept, as nobody can tell" in result.phases[0].scope


def written(history: History) -> str:
    imports = "".join(f"from {kind.__module__} import {name}\n" for name, kind in reproducer.NAMES.items())
    return f"{imports}\nassert_holds(driver='qcow2', history={reproducer.spell(history)})\n"


def test_looking_nearby_finds_it_where_it_has_gone() -> None:
    evidence = replay(find_target(WRONG_CULPRIT), struck_at(1)).evidence
    done = shrink(find_target(WRONG_CULPRIT), struck_at(999), evidence)
    assert done.reproduced
    assert done.history.steps[0].faults == struck_at(1).steps[0].faults


# --- what no replay shows -------------------------------------------------------------------------
def told_of(failure: Failure) -> ViolationReport:
    violations = Violations(find_target("qcow2"), (), 0.5, lambda _told: None)
    violations.shrink_all([failure])
    (told,) = violations.told
    return told


def test_what_no_replay_shows_is_told_as_that_and_is_not_fixed(failed: RunResult, tmp_path: Path) -> None:
    # Given a failure that nobody can see a second time
    evidence = Evidence(Law.LIST_EXACT, Severity.ERROR, "d0", "it was gone", "a", "nothing")
    told = told_of(Failure("walk", (evidence,), History(TWO, [Step(Flush("d0"))]), 0.0))
    # Then it is not called shrunk, and a replay that shows nothing proves nothing
    assert (told.shrunk, told.reproduced) == (False, False)
    assert told.history is not None
    done = replay(find_target("qcow2"), told.history, reproduced=told.reproduced)
    assert done.state is ReplayState.CANNOT_TELL
    assert done.text.startswith("not reproduced: no replay of it has shown it so far\n")
    # And its reproducer says so too, and the corpus leaves it out
    result = replace(failed, driver="qcow2", violations=(told,))
    path = tmp_path / "repro.py"
    path.write_text(reproducer.source(result, told, told.history))
    assert "# not reproduced: no replay of it has shown it so far\n" in path.read_text()
    assert reproducer.read(path).reproduced is False
    assert Corpus(tmp_path / "corpus").add(result) == (0, ("1 that no replay has shown",))


# --- what goes into the corpus --------------------------------------------------------------------
def violations_of(failed: RunResult, *sizes: tuple[str, int, bool]) -> Sequence[ViolationReport]:
    """Return violations by cause, number of operations, and whether nothing smaller was found."""
    return [
        replace(failed.violations[0], id=f"v{number}", cause=cause, operations=operations, shrunk=shrunk)
        for number, (cause, operations, shrunk) in enumerate(sizes)
    ]


def test_of_each_cause_the_shortest_goes_into_the_corpus_and_what_is_left_out_is_said(
    failed: RunResult, tmp_path: Path
) -> None:
    kinds = violations_of(failed, ("x", 1, True), ("x", 2, True), ("y", READABLE + 1, True), ("z", 145, False))
    added = Corpus(tmp_path).add(replace(failed, violations=tuple(kinds)))
    assert {path.name for path in tmp_path.iterdir()} == {"test_right_culprit_v0.py", "test_right_culprit_v2.py"}
    assert added.files == 2
    assert added.left_out == (
        "1 of a likely cause that has a file",
        "1 longer than 16 operations (replay ID --shrink, then copy its reproducer)",
    )


def test_what_a_file_shows_still_needs_no_other_file(failed: RunResult, tmp_path: Path) -> None:
    old, new = violations_of(failed, ("x", 1, True), ("x", 2, True))
    result = replace(failed, violations=(replace(old, phase=corpus.NAME), new))
    assert Corpus(tmp_path).add(result) == (0, ("1 of a likely cause that has a file",))
