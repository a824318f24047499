"""report.html: what a run found, as one page that needs no network and no script.

This module decides what is shown, as plain values; page.html says how it looks. Everything is escaped by the template.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import groupby
from pathlib import Path
from typing import Final

from jinja2 import Environment, FunctionLoader, StrictUndefined
from snapcheck.model.crash_laws import CRASH_RULES
from snapcheck.model.history import FaultMet, History, Observation, Step
from snapcheck.model.law_names import Law, Severity
from snapcheck.model.laws import RULES
from snapcheck.reports import culprit, timeline, words
from snapcheck.reports.culprit import Culprit
from snapcheck.reports.event_lines import EventLine, event_lines
from snapcheck.reports.files import write_whole
from snapcheck.reports.matrix import FAULTS, STATES, matrix_of
from snapcheck.reports.timeline import Timeline
from snapcheck.reports.verdict import NOT_REPRODUCED, LawReport, RunResult, ViolationReport

EVENTS_MAX: Final = 400
ZERO_TAG: Final = 0
FOREIGN_TAG: Final = 255
MATRICES: Final = (("By fault", FAULTS), ("By the state that the device was in", STATES))


# --- what the page shows --------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Run:
    """A stretch of sectors with one tag, and the colour that stands for it."""

    start: int
    count: int
    tag: int

    @property
    def fill(self) -> str:
        if self.tag in (ZERO_TAG, FOREIGN_TAG):
            return "var(--zero)" if self.tag == ZERO_TAG else "url(#foreign)"
        return f"hsl({self.tag * 137 % 360} 62% 52%)"  # the golden angle: neighbours in number are far apart in hue

    @property
    def label(self) -> str:
        what = {ZERO_TAG: "zeroes", FOREIGN_TAG: "foreign"}.get(self.tag, f"tag {self.tag}")
        last = self.start + self.count - 1
        return f"{self.start}-{last}: {what}" if self.count > 1 else f"{self.start}: {what}"


@dataclass(frozen=True, slots=True)
class Strip:
    """One content map: where it was seen, and its runs; `note` stands in when there is nothing to draw."""

    label: str
    sectors: int
    runs: tuple[Run, ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """What was observed of one device around the violating step."""

    device: str
    snapshots: str
    strips: tuple[Strip, ...]
    remarks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StepRow:
    """One step as the table of steps shows it."""

    number: int
    operation: str
    purpose: str
    faults: tuple[tuple[str, str], ...]  # words, and: met, unmet or skipped
    result: str
    parts: bool


@dataclass(frozen=True, slots=True)
class Case:
    """One violation with everything that the page tells of it."""

    report: ViolationReport
    devices: tuple[str, ...] = ()
    steps: tuple[StepRow, ...] = ()
    culprit: Culprit | None = None
    seen: tuple[Seen, ...] = ()
    events: tuple[EventLine, ...] = ()
    events_left_out: int = 0
    timeline: Timeline | None = None  # of what was sent down, when a power cut ended the history


@dataclass(frozen=True, slots=True)
class LawRow:
    """A law, what it says, how often it was checked, and how that went."""

    report: LawReport
    says: str
    state: str


# --- making it ------------------------------------------------------------------------------------
def write(path: Path, result: RunResult) -> None:
    """Write report.html."""
    write_whole(path, (render(result),))


def render(result: RunResult) -> str:
    """Return the page."""
    # autoescape: a snapshot may be called <script>; finalize: and it may hold bytes that no page can
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_clean,
        loader=FunctionLoader(_source),
    )  # fmt: skip
    return environment.get_template("page.html").render(
        run=result, cases=[case_of(each) for each in result.violations], laws=law_rows(result.laws),
        matrices=[(words, matrix_of(result.coverage, across=part)) for words, part in MATRICES], totals=totals(result),
        not_reproduced=NOT_REPRODUCED, funnel=timeline.funnel_of(result.phases),
    )  # fmt: skip


def _source(name: str) -> str:
    return resources.files("snapcheck.reports").joinpath(name).read_text(encoding="utf-8")


def _clean(value: object) -> object:
    if not isinstance(value, str) or value.isprintable() or hasattr(value, "__html__"):
        return value
    return "".join(each if each.isprintable() or each in "\n\t" else ascii(each)[1:-1] for each in value)


def totals(result: RunResult) -> Mapping[str, int]:
    """Return the numbers of the page's head."""
    known = sum(each.known for each in result.violations)
    warnings = sum(each.severity is Severity.WARNING and not each.known for each in result.violations)
    return {
        "histories": sum(phase.histories for phase in result.phases),
        "steps": sum(phase.steps for phase in result.phases),
        "errors": len(result.violations) - known - warnings, "warnings": warnings, "known": known,
    }  # fmt: skip


def law_rows(laws: Sequence[LawReport]) -> list[LawRow]:
    """Return the laws, broken ones first, then as they came."""
    rows = [LawRow(each, _says(each.law), _state(each)) for each in laws]
    return sorted(rows, key=lambda row: row.state != "broken")


def _says(law: Law) -> str:
    text = RULES[law].judge.__doc__ if law in RULES else CRASH_RULES[law].says
    return " ".join((text or "").split("\n\n")[0].replace("`", "").split())


def _state(law: LawReport) -> str:
    if law.violated:
        return "broken"
    return "not observable" if law.not_observable else "held" if law.checked else "never checked"


# --- one violation --------------------------------------------------------------------------------
def case_of(report: ViolationReport) -> Case:
    """Return all that there is to show of a violation; little when its history was not recorded."""
    history = report.history
    if history is None or not 0 <= report.step < len(history.steps):
        return Case(report)
    step = history.steps[report.step]
    lines = event_lines(step)
    return Case(
        report,
        devices=tuple(map(words.device_words, history.setup.devices)),
        steps=tuple(_step_row(index, each, parts=index == report.step) for index, each in enumerate(history.steps)),
        culprit=culprit.of_step(step, history) if history.cut is None else None,
        seen=tuple(_seen(history, report.step, each) for each in _looks(history, step)),
        events=tuple(lines[:EVENTS_MAX]),
        events_left_out=max(0, len(lines) - EVENTS_MAX),
        timeline=timeline.timeline_of(history),
    )


def _looks(history: History, step: Step) -> Sequence[Observation]:
    """Return what was seen when the law was broken: after the step, or of what a power cut left."""
    return step.observations if history.cut is None else history.cut.seen


def _step_row(index: int, step: Step, *, parts: bool) -> StepRow:
    struck = {event.fault for event in step.events if isinstance(event, FaultMet)}
    fates = ("met" if at in struck else "skipped" if at in step.skipped else "unmet" for at in range(len(step.faults)))
    faults = tuple(zip(map(words.fault_words, step.faults), fates, strict=True))
    operation = words.operation_words(step.operation)
    return StepRow(
        index + 1, operation, step.purpose.value, faults, words.result_words(step.operation, step.result), parts
    )


# --- what was seen --------------------------------------------------------------------------------
def _seen(history: History, at: int, now: Observation) -> Seen:
    before = next(
        (seen for step in reversed(history.steps[:at]) for seen in step.observations if seen.device == now.device), None
    )
    strips = [*_strips(now)]
    if before is not None and before.memory.content is not None:
        strips.insert(0, _strip("before", before.memory.content))
    return Seen(now.device, _list_words(now), tuple(strips), tuple(_remarks(now)))


def _strips(seen: Observation) -> Iterator[Strip]:
    disk = seen.disk.content if seen.disk else None
    if seen.memory.content is not None:
        same = disk == seen.memory.content
        yield _strip("now" if same or disk is None else "in memory", seen.memory.content)
    if disk is not None and disk != seen.memory.content:
        yield _strip("reopened", disk)
    listed = seen.disk.snapshots if seen.disk else None
    for info, held in zip(listed or (), seen.contents or (), strict=False):
        label = f"snapshot {words.snapshot_words(info)}"
        if held is not None and held.content is not None:
            yield _strip(label, held.content)
        else:
            yield Strip(label, 0, (), "out of reach" if held is None else held.error or "could not be read")


def _strip(label: str, content: bytes) -> Strip:
    runs: list[Run] = []
    for tag, stretch in groupby(content):
        start = runs[-1].start + runs[-1].count if runs else 0
        runs.append(Run(start, len(list(stretch)), tag))
    return Strip(label, len(content), tuple(runs), "" if content else "empty")


def _list_words(seen: Observation) -> str:
    entries = seen.memory.snapshots
    return "not looked at" if entries is None else ", ".join(map(words.snapshot_words, entries)) or "none"


def _remarks(seen: Observation) -> Iterator[str]:
    if seen.disk and seen.disk.snapshots is not None and seen.disk.snapshots != seen.memory.snapshots:
        yield f"after reopening: {', '.join(map(words.snapshot_words, seen.disk.snapshots)) or 'no snapshots'}"
    for where, view in (("in memory", seen.memory), ("reopened", seen.disk)):
        yield from (f"{where}: {error}" for error in (view.errors if view else ()))
    if seen.check is not None:
        check = seen.check
        if check.corruptions or check.leaks or check.copied_missing:
            yield f"check: {check.corruptions} corruptions, {check.leaks} leaks, {check.copied_missing} COPIED missing"
        yield from (f"check: {message}" for message in check.messages)
