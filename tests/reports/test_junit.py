from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as Xml

from snapcheck.model.law_names import Severity
from snapcheck.reports import junit
from snapcheck.reports.verdict import RunResult, Verdict


def test_each_law_is_a_case_and_a_violation_is_a_failure(failed: RunResult, tmp_path: Path) -> None:
    junit.write(tmp_path / "junit.xml", failed)
    root = Xml.parse(tmp_path / "junit.xml").getroot()  # noqa: S314  # our own file

    assert (root.get("tests"), root.get("failures"), root.get("skipped"), root.get("errors")) == ("3", "1", "1", "0")
    case = root.find("testsuite[@name='snapcheck stateful']/testcase[@name='right-culprit']")
    assert case is not None
    failure = case.find("failure")
    assert failure is not None
    assert "blamed d2" in str(failure.get("message"))
    assert "snapcheck replay a1b2c3d4" in str(failure.text)
    assert root.find("testsuite/testcase[@name='locks-balanced']/skipped") is not None


def test_known_violations_and_warnings_do_not_fail_a_case(failed: RunResult) -> None:
    for change in ({"known": True}, {"severity": Severity.WARNING}):
        root = junit.to_xml(replace(failed, violations=(replace(failed.violations[0], **change),)))  # type: ignore[arg-type]  # both changes fit
        assert root.get("failures") == "0"
        assert root.find("testsuite/testcase[@name='right-culprit']/system-out") is not None


def test_an_unknown_verdict_is_an_error_with_its_reason(failed: RunResult) -> None:
    root = junit.to_xml(replace(failed, verdict=Verdict.UNKNOWN, violations=(), notes=("interrupted",)))
    error = root.find("testsuite/testcase/error")
    assert error is not None
    assert error.get("message") == "interrupted"
    assert root.get("errors") == "1"
