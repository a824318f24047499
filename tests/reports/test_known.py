from dataclasses import replace
from pathlib import Path

import pytest
from snapcheck.model.law_names import Law
from snapcheck.reports import known
from snapcheck.reports.known import Accepted, KnownError
from snapcheck.reports.verdict import RunResult, Verdict


def test_a_file_of_accepted_divergences_is_read(tmp_path: Path) -> None:
    path = tmp_path / "known.toml"
    path.write_text('[[accept]]\nlaw = "no-leak"\noperation = "create"\nreason = "#1"\n')
    assert known.read(path) == (Accepted(Law.NO_LEAK, "#1", "create"),)


@pytest.mark.parametrize(
    ("entry", "covered"),
    [
        (Accepted(Law.RIGHT_CULPRIT, "why"), True),
        (Accepted(Law.RIGHT_CULPRIT, "why", "all-delete", "d1"), True),
        (Accepted(Law.RIGHT_CULPRIT, "why", "all-goto"), False),
        (Accepted(Law.RIGHT_CULPRIT, "why", device="d0"), False),
        (Accepted(Law.NO_LEAK, "why"), False),
        (Accepted(Law.RIGHT_CULPRIT, "why", outcome="error"), True),
        (Accepted(Law.RIGHT_CULPRIT, "why", outcome="ENOSPC"), True),
        (Accepted(Law.RIGHT_CULPRIT, "why", outcome="ENOENT"), False),
        (Accepted(Law.RIGHT_CULPRIT, "why", outcome="OK"), False),
        (Accepted(Law.RIGHT_CULPRIT, "why", outcome="crash"), False),
        (Accepted(Law.RIGHT_CULPRIT, "why", faults="some"), True),
        (Accepted(Law.RIGHT_CULPRIT, "why", faults="none"), False),
        (Accepted(Law.RIGHT_CULPRIT, "why", matches="first_bad.* d[0-9]"), True),
        (Accepted(Law.RIGHT_CULPRIT, "why", matches="somebody else"), False),
    ],
)
def test_what_is_accepted_matches_all_that_the_entry_says(failed: RunResult, entry: Accepted, *, covered: bool) -> None:
    result = known.apply(replace(failed, notes=()), [entry])
    assert result.violations[0].known is covered
    assert result.verdict is (Verdict.PASSED if covered else Verdict.FAILED)


def test_a_violation_that_nobody_accepted_keeps_the_verdict_failed(failed: RunResult) -> None:
    both = (failed.violations[0], replace(failed.violations[0], id="other", law=Law.NO_LEAK))
    result = known.apply(replace(failed, violations=both), [Accepted(Law.RIGHT_CULPRIT, "why")])
    assert [each.known for each in result.violations] == [True, False]
    assert result.verdict is Verdict.FAILED


def test_accepting_never_turns_a_run_that_could_not_tell_into_a_pass(failed: RunResult) -> None:
    interrupted = replace(failed, notes=("interrupted",))
    assert known.apply(interrupted, [Accepted(Law.RIGHT_CULPRIT, "why")]).verdict is Verdict.UNKNOWN
    unknown = replace(failed, verdict=Verdict.UNKNOWN)
    assert known.apply(unknown, [Accepted(Law.RIGHT_CULPRIT, "why")]).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[[accept", "not TOML"),
        ("\0", "not TOML"),
        ('law = "x"', "unknown key 'law'"),
        ("accept = 7", "accept is no list"),
        ("accept = [7]", "accept number 1 is no table"),
        ('[[accept]]\nlaw = "no-leak"', "reason is missing"),
        ('[[accept]]\nreason = "x"', "law is missing"),
        ('[[accept]]\nlaw = "no-leak"\nreason = " "', "reason must be text"),
        ('[[accept]]\nlaw = 7\nreason = "x"', "law must be text"),
        ('[[accept]]\nlaw = "gravity"\nreason = "x"', "unknown law 'gravity'; there are result,"),
        ('[[accept]]\nlaw = "no-leak"\noperation = "mount"\nreason = "x"', "unknown operation 'mount'"),
        ('[[accept]]\nlaw = "no-leak"\nwhy = "x"', "unknown key 'why'; there are law, operation, device, outcome,"),
        ('[[accept]]\nlaw = "no-leak"\noutcome = "bad"\nreason = "x"', "unknown outcome 'bad'; there are error, crash"),
        (
            '[[accept]]\nlaw = "no-leak"\nfaults = "1"\nreason = "x"',
            "unknown word for faults: '1'; there are some, none",
        ),
        ('[[accept]]\nlaw = "no-leak"\nmatches = "["\nreason = "x"', "matches '[' is no regular expression"),
    ],
)
def test_a_bad_file_gives_one_clear_line(text: str, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "known.toml"
    path.write_text(text)
    with pytest.raises(KnownError) as refused:
        known.read(path)
    assert complaint in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(KnownError, match=r"none\.toml: No such file"):
        known.read(tmp_path / "none.toml")
