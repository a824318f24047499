"""`snapcheck bugs`: what it prints, what it writes, and what it answers to a call that is wrong."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from snapcheck.model.law_names import Law
from snapcheck.reports.scoreboard import Catch, Reproducer, Score, Scoreboard
from snapcheck.stateful_tests.hunt import HuntOptions, Listener
from snapcheck.stateful_tests.seeded_bugs import CATALOGUE, SeededBug

Snapcheck = Callable[..., CompletedProcess[str]]
LONGEST = max(CATALOGUE, key=lambda bug: len(bug.name))


def found(bug: SeededBug) -> Score:
    catch = Catch("stateful", Law.ERROR_MEANS_UNCHANGED, "create", 12.34)
    return Score(
        bug.name, "what", bug.row, bug.law, ("images", "sweep", "walk"), (catch,), Reproducer(12, 10),
        {"hypothesis": catch, "random": None},
    )  # fmt: skip


def missed(bug: SeededBug) -> Score:
    return Score(bug.name, "what", bug.row, bug.law, ("sweep",), (), None, {"hypothesis": None, "random": None})


class Hunt:
    """Stands in for a hunt: remembers what it was asked, finds what it was told to, and may be broken off."""

    def __init__(self) -> None:
        self.finds: Callable[[SeededBug], Score] = found
        self.broken_off = False
        self.bugs: Sequence[SeededBug] = ()
        self.options = HuntOptions()

    def __call__(self, bugs: Sequence[SeededBug], options: HuntOptions, listener: Listener) -> Scoreboard:
        self.bugs, self.options = bugs, options
        scores = [self.finds(bug) for bug in (bugs[:1] if self.broken_off else bugs)]
        for done, score in enumerate(scores, 1):
            listener.on_score(score, done=done, of=len(bugs))
        return Scoreboard(
            "0.1.0",
            options.profile.value,
            options.seconds_each,
            options.seed,
            tuple(bug.name for bug in bugs),
            tuple(scores),
        )


@pytest.fixture
def hunt(monkeypatch: pytest.MonkeyPatch) -> Hunt:
    stand_in = Hunt()
    monkeypatch.setattr("snapcheck.cli.bugs.hunt_all", stand_in)
    return stand_in


def test_all_bugs_fit_into_eighty_columns(snapcheck: Snapcheck, hunt: Hunt) -> None:
    done = snapcheck("bugs")
    assert done.returncode == 0
    assert hunt.bugs == CATALOGUE
    assert hunt.options.seconds_each == 60
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.startswith(LONGEST.name + " ") for line in lines)
    assert f"found      {len(CATALOGUE)} of {len(CATALOGUE)}" in done.stdout
    assert f"{len(CATALOGUE)} of {len(CATALOGUE)}: " in done.stderr


def test_a_bug_that_is_missed_is_named_and_fails_the_call(snapcheck: Snapcheck, hunt: Hunt) -> None:
    hunt.finds = missed
    done = snapcheck("bugs", "--only", "wrong-culprit", "--no-progress")
    assert done.returncode == 1
    assert "missed     wrong-culprit" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("only", ["B59", "lock_kept", "lock-kept"])
def test_bugs_are_chosen_by_row_and_by_name(snapcheck: Snapcheck, hunt: Hunt, only: str) -> None:
    snapcheck("bugs", "--only", only)
    assert [bug.name for bug in hunt.bugs] == ["lock-kept"]


def test_bugs_are_chosen_by_subject(snapcheck: Snapcheck, hunt: Hunt) -> None:
    snapcheck("bugs", "--only", "snapshot_table,B59")
    assert {bug.subject for bug in hunt.bugs} == {"snapshot_table", "group"}


def test_it_is_told_to_machines_and_kept_in_a_folder(snapcheck: Snapcheck, hunt: Hunt, tmp_path: Path) -> None:
    hunt.finds = missed
    done = snapcheck("bugs", "--only", "group", "--json", "--out", "out")
    told = json.loads(done.stdout)
    assert told == json.loads((tmp_path / "out/scoreboard.json").read_text())
    assert told["found"] == 0
    assert (tmp_path / "out/junit.xml").exists()


def test_a_hunt_that_was_broken_off_is_unknown_and_keeps_what_there_is(
    snapcheck: Snapcheck, hunt: Hunt, tmp_path: Path
) -> None:
    hunt.broken_off = True
    done = snapcheck("bugs", "--only", "group", "--out", "out")
    assert done.returncode == 3
    assert "broken off" in done.stdout
    assert len(json.loads((tmp_path / "out/scoreboard.json").read_text())["scores"]) == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--only", "nonsense"), "'nonsense' is no seeded bug"),
        (("--only", " , "), "--only names no bug"),
        (("--seconds", "0"), "--seconds 0.0"),
        (("--jobs", "0"), "--jobs 0"),
        (("--seed", "-1"), "--seed -1"),
        (("--profile", "long"), "--profile 'long'"),
    ],
)
def test_a_wrong_call_is_told_in_a_line(snapcheck: Snapcheck, hunt: Hunt, words: tuple[str, ...], told: str) -> None:
    done = snapcheck("bugs", *words)
    assert done.returncode == 2
    assert told in done.stderr
    assert hunt.bugs == ()


def test_a_folder_that_can_not_be_is_told_before_the_hunt(snapcheck: Snapcheck, hunt: Hunt, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = snapcheck("bugs", "--out", "file/out")
    assert done.returncode == 2
    assert "--out file/out" in done.stderr
    assert hunt.bugs == ()


def test_a_real_hunt_finds_an_easy_bug(snapcheck: Snapcheck) -> None:
    done = snapcheck("bugs", "--only", "culprit-not-cleared", "--seconds", 6, "--jobs", 1, "--no-baselines")
    assert done.returncode == 0
    assert "out-params" in done.stdout
