"""junit.xml: one suite for each phase, one test case for each law, so that any CI shows which law was broken where."""

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as Xml  # it writes here, and parses nothing

from snapcheck.model.law_names import Severity
from snapcheck.reports.files import write_whole
from snapcheck.reports.verdict import NOT_REPRODUCED, LawReport, PhaseReport, RunResult, Verdict, ViolationReport


def write(path: Path, result: RunResult) -> None:
    """Write junit.xml."""
    tree = to_xml(result)
    Xml.indent(tree)
    write_whole(path, ('<?xml version="1.0" encoding="utf-8"?>\n', Xml.tostring(tree, encoding="unicode"), "\n"))


def to_xml(result: RunResult) -> Xml.Element:
    """Return the document: violations of severity error that are not known are failures; the rest is text beside."""
    suites = [_suite(result, phase) for phase in result.phases]
    if result.verdict is Verdict.UNKNOWN:
        suites.append(_unknown(result))
    root = Xml.Element("testsuites", name="snapcheck", time=f"{result.seconds:.3f}")
    root.extend(suites)
    for counter in ("tests", "failures", "errors", "skipped"):
        root.set(counter, str(sum(int(suite.get(counter, "0")) for suite in suites)))
    return root


def _suite(result: RunResult, phase: PhaseReport) -> Xml.Element:
    suite = Xml.Element("testsuite", name=f"snapcheck {phase.name}", time=f"{phase.seconds:.3f}")
    for law in result.laws:
        found = [each for each in result.violations if each.law is law.law and each.phase == phase.name]
        suite.append(_case(result, phase, law, found))
    return _counted(suite)


def _case(result: RunResult, phase: PhaseReport, law: LawReport, violations: Sequence[ViolationReport]) -> Xml.Element:
    case = Xml.Element("testcase", name=law.law.value, classname=f"snapcheck.{_clean(result.driver)}.{phase.name}")
    failures = [each for each in violations if _counts(each)]
    others = [each for each in violations if not _counts(each)]
    if failures:
        message = "; ".join(each.summary for each in failures)
        failure = Xml.SubElement(case, "failure", type=law.law.value, message=_clean(message))
        failure.text = _clean("\n\n".join(map(_text, failures)))
    elif law.not_observable or not law.checked:
        why = "this system does not show what the law needs" if law.not_observable else "never checked"
        Xml.SubElement(case, "skipped", message=why)
    if others:
        Xml.SubElement(case, "system-out").text = _clean("\n\n".join(map(_text, others)))
    return case


def _counts(violation: ViolationReport) -> bool:
    return violation.severity is Severity.ERROR and not violation.known


def _text(violation: ViolationReport) -> str:
    title = "known" if violation.known else violation.severity.value
    lines = (
        f"{title}: {violation.summary}", f"expected: {violation.expected}", f"actual:   {violation.actual}",
        *violation.evidence, violation.replay, *(() if violation.reproduced else (NOT_REPRODUCED,)),
    )  # fmt: skip
    return "\n".join(line for line in lines if not line.endswith(": "))


def _unknown(result: RunResult) -> Xml.Element:
    suite = Xml.Element("testsuite", name="snapcheck verdict")
    case = Xml.SubElement(suite, "testcase", name="verdict", classname="snapcheck")
    Xml.SubElement(case, "error", type="unknown", message=_clean("; ".join(result.notes) or "verdict unknown"))
    return _counted(suite)


def _counted(suite: Xml.Element) -> Xml.Element:
    suite.set("tests", str(len(suite)))
    for counter, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(counter, str(len(suite.findall(f"testcase/{tag}"))))
    return suite


def _clean(text: str) -> str:
    """Return `text` without what XML 1.0 can not carry: control characters, surrogates and noncharacters."""
    return "".join(letter if letter in "\n\t" or letter.isprintable() else ascii(letter)[1:-1] for letter in text)
