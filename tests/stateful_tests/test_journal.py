"""A run that was killed goes on: nothing that was done is lost, and nothing is done again."""

from collections import Counter
from pathlib import Path

import pytest
from snapcheck.impl.targets import find_target
from snapcheck.model.law_names import Severity
from snapcheck.model.setup import Semantics
from snapcheck.reports.jsonl import HistoryError
from snapcheck.reports.verdict import RunResult
from snapcheck.stateful_tests.journal import Entry, Journal
from snapcheck.stateful_tests.phases import images, stateful, sweep, walk
from snapcheck.stateful_tests.run import RunOptions, Silent, run_driver
from snapcheck.stateful_tests.units import Answer, Unit
from snapcheck.stateful_tests.work import Control, Run

_NOTED = (images.NAME, sweep.NAME, walk.NAME, stateful.NAME)
LOCK_KEPT = "snapcheck.stateful_tests.seeded_bugs.group:lock_kept"


def answer_to(run: Run, journal: Path | None, *, histories: int) -> Answer:
    unit = Unit(
        driver=LOCK_KEPT, phase="any", semantics=Semantics.CLASSIC, devices=2, seed=0, shard=0, histories=histories,
        seconds=None, journal=None if journal is None else str(journal),
    )  # fmt: skip
    return run(unit, Control(lambda _tick: None))


def all_of(answer: Answer) -> tuple[object, ...]:
    """Return what an answer counts."""
    kinds = Counter(failure.kind for failure in answer.failures)
    counts = {name: count for name, count in answer.counts.items() if count}
    return answer.histories, answer.steps, answer.digests, answer.laws, answer.cells, kinds, counts


def kill(journal: Path, *, kept: int) -> None:
    """Leave of a journal what a killed process has written: some lines, and a piece of the next one."""
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:kept]) + lines[kept][:20])


@pytest.mark.parametrize("kept", [0, 1, 13])
def test_a_sweep_that_was_killed_ends_as_if_it_had_never_been(tmp_path: Path, kept: int) -> None:
    journal = tmp_path / "sweep-0.jsonl"
    whole = answer_to(sweep.run, journal, histories=25)
    kill(journal, kept=kept)
    assert all_of(answer_to(sweep.run, journal, histories=25)) == all_of(whole)
    assert len(journal.read_text().splitlines()) == 25


@pytest.mark.parametrize("kept", [0, 29])
def test_images_that_were_tried_are_not_tried_again(tmp_path: Path, kept: int) -> None:
    journal = tmp_path / "images-0.jsonl"
    whole = answer_to(images.run, journal, histories=40)
    kill(journal, kept=kept)
    assert all_of(answer_to(images.run, journal, histories=40)) == all_of(whole)
    assert [*Journal(journal).entries] == [str(number) for number in range(40)]


@pytest.mark.parametrize(("run", "histories"), [(walk.run, 3), (stateful.run, 9)])
def test_random_phases_go_on_with_histories_that_they_have_not_done(tmp_path: Path, run: Run, histories: int) -> None:
    journal = tmp_path / "journal.jsonl"
    whole = answer_to(run, journal, histories=histories)
    kill(journal, kept=histories - 1)
    again = answer_to(run, journal, histories=histories)
    assert again.digests[:-1] == whole.digests[:-1]
    assert len(set(Journal(journal).entries)) == again.histories == histories


def test_what_is_all_done_is_not_done_again(tmp_path: Path) -> None:
    journal = tmp_path / "walk-0.jsonl"
    whole = answer_to(walk.run, journal, histories=2)
    before = journal.read_bytes()
    assert all_of(answer_to(walk.run, journal, histories=2)) == all_of(whole)
    assert journal.read_bytes() == before


def test_a_whole_run_goes_on_and_shows_the_violations_that_it_had_found(tmp_path: Path) -> None:
    def run() -> RunResult:
        options = RunOptions(phases=_NOTED, histories=24, devices=2, journals=tmp_path)
        return run_driver(find_target(LOCK_KEPT), options, Silent()).result

    whole = run()
    assert sorted({path.name.partition("-")[0] for path in tmp_path.iterdir()}) == sorted(_NOTED)
    again = run()
    assert [(phase.name, phase.histories, phase.steps) for phase in again.phases] == [
        (phase.name, phase.histories, phase.steps) for phase in whole.phases
    ]
    assert again.laws == whole.laws
    assert {(each.law, each.operation) for each in again.violations if each.severity is Severity.ERROR} == {
        (each.law, each.operation) for each in whole.violations if each.severity is Severity.ERROR
    }


def test_a_journal_that_is_damaged_in_the_middle_is_named_with_the_line(tmp_path: Path) -> None:
    path = tmp_path / "walk-0.jsonl"
    with Journal(path) as journal:
        journal.append(Entry("d", 1, 0.5, "0"))
    path.write_text(path.read_text() + "nonsense\n")
    with pytest.raises(HistoryError, match=r"walk-0\.jsonl, line 2: "):
        Journal(path)
