"""`snapcheck crash`: write logs that something else recorded, judged for every state that a power cut may leave."""

import hashlib
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from snapcheck.cli.errors import CallError
from snapcheck.cli.say import say
from snapcheck.cli.summary import COLOURS
from snapcheck.fault_injection.crash.cuts import Persistence, image_of
from snapcheck.fault_injection.crash.states import Funnel
from snapcheck.fault_injection.dm_log_writes import LogError, read_log
from snapcheck.impl.blockfile import MemoryFile
from snapcheck.model.law_names import Law, Severity
from snapcheck.model.power_cut import Cut, Filling
from snapcheck.reports import folder as report_folder
from snapcheck.reports import timeline
from snapcheck.reports.verdict import EXIT_STATUS, Coverage, LawReport, PhaseReport, RunResult, Verdict, ViolationReport
from snapcheck.stateful_tests.foreign_bases import LogMismatchError, Recorded, require_base
from snapcheck.stateful_tests.foreign_logs import PERSISTENCES, Finding, Judgement, judge_logs
from snapcheck.stateful_tests.run import snapcheck_version

PHASE: Final = "crash"
IMAGES: Final = "crash-images"  # the folder of crash images in that of the report
_UNCHECKED: Final = (
    "no law was checked: where flushes lie, or lost sectors hold what they never held, nothing is promised;"
    " take another --persistence, or --lost old"
)
_UNFINISHED: Final = "the logs were not judged to their end"
TOLD_MAX: Final = 3  # different violations of one law on one device that are told; all are counted
BASE_BYTES_MAX: Final = 1 << 34
_PIECE_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class CrashCall:
    """What was typed, not yet checked: logs and bases in pairs."""

    logs: Sequence[Path]
    bases: Sequence[Path]
    persistence: str | None
    lost: str
    bound: int
    seed: int
    out: Path
    quiet: bool


def crash_command(call: CrashCall) -> int:
    """Judge the logs, write the report, tell what was found; the exit status is that of the verdict."""
    begun = time.monotonic()
    persistences, fill = persistences_of(call.persistence), _filling_of(call.lost)
    if call.bound < 1 or call.seed < 0:
        raise CallError(f"--bound {call.bound} --seed {call.seed}: give 1 or more, and 0 or more")
    logs = recorded(call.logs, call.bases)
    _begin(call, logs)
    judgements: list[Judgement] = []
    for judgement in judge_logs(logs, persistences=persistences, fill=fill, bound=call.bound, seed=call.seed):
        judgements.append(judgement)
        if not call.quiet:
            say(funnel_line(judgement))
    seconds = time.monotonic() - begun
    violations = _violations(judgements, logs, call.out, seconds)
    result = _result(call, logs, judgements, violations, seconds=seconds)
    report_folder.write(call.out, result)
    _tell(result, call.out, quiet=call.quiet)
    return EXIT_STATUS[result.verdict]


# --- what was typed -------------------------------------------------------------------------------
def persistences_of(text: str | None) -> tuple[Persistence, ...]:
    """Return the persistence models that `text` lists, or raise `CallError` for one that there is not."""
    if text is None:
        return PERSISTENCES
    names = [each.strip() for each in text.split(",")]
    unknown = [name for name in names if name not in {each.value for each in Persistence}]
    if unknown or not names:
        known = ", ".join(each.value for each in Persistence)
        raise CallError(f"--persistence {text}: there is no {unknown[0]!r}; there are {known}")
    return tuple(dict.fromkeys(map(Persistence, names)))


def _filling_of(text: str) -> Filling:
    """Return what `text` says that lost sectors hold, or raise `CallError`."""
    try:
        return Filling(text)
    except ValueError:
        known = ", ".join(each.value for each in Filling)
        raise CallError(f"--lost {text}: there is no such thing; lost sectors hold {known}") from None


def recorded(logs: Sequence[Path], bases: Sequence[Path]) -> list[Recorded]:
    """Return the logs with the images that they begin on, devices named d0, d1 and so on; `CallError` for a bad one."""
    if len(logs) != len(bases):
        raise CallError(
            f"{len(logs)} --log and {len(bases)} --base: give each log the image that it began on, in order"
        )
    return [_pair(f"d{number}", *pair) for number, pair in enumerate(zip(logs, bases, strict=True))]


def _pair(device: str, log: Path, base: Path) -> Recorded:
    for path in (log, base):
        if not path.exists():
            raise CallError(f"{path}: there is no such file")
        if not path.is_file():
            raise CallError(f"{path}: is no regular file; copy what is on the device to one")
    try:
        found = Recorded(device, read_log(log, device=device), _loaded(base))
        require_base(found)
    except LogError as error:
        raise CallError(f"{log}: {error}") from None
    except LogMismatchError as error:
        raise CallError(f"{log} and {base} do not belong together: {error}") from None
    except OSError as error:
        raise CallError(f"{error.filename}: {error.strerror}") from None
    return found


def _loaded(path: Path) -> MemoryFile:
    """Return a copy of the file in memory, without what is zero."""
    size = path.stat().st_size
    if size > BASE_BYTES_MAX:
        raise CallError(f"{path}: {size} bytes are more than the {BASE_BYTES_MAX} that are read into memory")
    copy = MemoryFile(str(path))
    with path.open("rb") as file:
        for place, piece in enumerate(iter(lambda: file.read(_PIECE_BYTES), b"")):
            if piece.strip(b"\0"):
                copy.pwrite(place * _PIECE_BYTES, piece)
    copy.truncate(size)
    return copy


def _begin(call: CrashCall, logs: Sequence[Recorded]) -> None:
    try:
        report_folder.begin(call.out, _result(call, logs, [], (), seconds=0.0))
        (call.out / IMAGES).mkdir(exist_ok=True)
        for former in (call.out / IMAGES).glob("*.qcow2"):
            former.unlink()
    except OSError as error:
        raise CallError(f"--out {call.out}: {error.strerror}") from None


# --- what was found -------------------------------------------------------------------------------
def _violations(
    judgements: Sequence[Judgement], logs: Sequence[Recorded], out: Path, seconds: float
) -> tuple[ViolationReport, ...]:
    """Return the first violations of each law on each device, and write the crash image of each."""
    by_device = {each.device: each for each in logs}
    told: dict[tuple[Law, str], set[str]] = {}
    found: list[ViolationReport] = []
    for judgement in judgements:
        for finding in judgement.findings:
            words = told.setdefault((finding.law, judgement.device), set())
            if finding.evidence[0] not in words and len(words) < TOLD_MAX:
                words.add(finding.evidence[0])
                found.append(_violation(finding, by_device[judgement.device], out, seconds))
    return tuple(found)


def _violation(finding: Finding, log: Recorded, out: Path, seconds: float) -> ViolationReport:
    name = hashlib.sha256(repr((finding.law.value, finding.persistence.value, finding.cut)).encode()).hexdigest()[:8]
    image = out / IMAGES / f"{name}.qcow2"
    disk = image_of(log.base, log.log, finding.cut)
    image.write_bytes(disk.pread(0, disk.size()))
    return ViolationReport(
        id=name, law=finding.law, severity=Severity.ERROR, device=log.device, operation=cut_words(finding.cut),
        summary=f"{finding.evidence[0]} ({finding.persistence.value})", operations=0,
        faults=len(finding.cut.dropped) + len(finding.cut.torn), phase=PHASE, found_after_s=round(seconds, 3),
        known=False, replay=f"snapcheck check {image}", evidence=(*finding.evidence, *_place_words(finding)),
    )  # fmt: skip


def cut_words(cut: Cut) -> str:
    """Return when the power went, and what did not survive."""
    lost = [str(number) for number in cut.dropped]
    lost += [f"{torn.number} (sectors {', '.join(map(str, torn.lost))})" for torn in cut.torn]
    entries = f"{'entry' if len(lost) == 1 else 'entries'} {', '.join(lost)}"
    return f"power fails before entry {cut.at}; lost {entries if lost else 'nothing'}"


def _place_words(finding: Finding) -> Iterator[str]:
    yield f"the power may go anywhere from before entry {finding.cut.at} to before entry {finding.until}"
    yield f"{finding.states} different disks show this"


# --- the report -----------------------------------------------------------------------------------
def _result(
    call: CrashCall, logs: Sequence[Recorded], judgements: Sequence[Judgement],
    violations: tuple[ViolationReport, ...], *, seconds: float,
) -> RunResult:  # fmt: skip
    checked = Counter[Law]()
    violated = Counter(finding.law for judgement in judgements for finding in judgement.findings)
    funnel = Funnel()
    for judgement in judgements:
        checked.update(judgement.checked)
        funnel.add(judgement.funnel)
    notes = () if checked.total() else (_UNCHECKED if judgements else _UNFINISHED,)
    scope = ", ".join(dict.fromkeys(each.persistence.value for each in judgements))
    scope += "" if call.lost == Filling.OLD.value else f", lost sectors with {call.lost}"
    phase = PhaseReport(
        PHASE, len(logs), sum(len(each.log.entries) for each in logs), round(seconds, 3), funnel.exhaustive, scope,
        {
            timeline.ENUMERATED: funnel.enumerated, "possible": funnel.possible, timeline.DISTINCT: funnel.distinct,
            timeline.DISTINCT_IN_WHAT_IS_READ: funnel.read_set_distinct, timeline.JUDGED: funnel.judged,
            "judged_plainly": funnel.plain, "confirmed": funnel.confirmed, "workloads": len(logs),
        },
    )  # fmt: skip
    return RunResult(
        version=snapcheck_version(), driver="write log", semantics="classic", seed=call.seed,
        devices=len(logs), seconds=round(seconds, 3), phases=(phase,),
        laws=tuple(LawReport(law, checked[law], violated[law], not_observable=False) for law in checked),
        verdict=Verdict.FAILED if violations else Verdict.UNKNOWN if notes else Verdict.PASSED,
        coverage=Coverage(0, 0), violations=violations, notes=notes,
    )  # fmt: skip


def funnel_line(judgement: Judgement) -> str:
    """Return what one log came to under one persistence model, in a line."""
    funnel = judgement.funnel
    share = "all" if funnel.exhaustive else f"{funnel.fraction:.1%}"
    found = f", {len(judgement.findings)} wrong" if judgement.findings else ""
    found += f", {judgement.unsound:,} do not open or are corrupt" if judgement.unsound else ""
    return (
        f"{judgement.device:<4} {judgement.persistence.value:<12} {_number(funnel.enumerated)} of"
        f" {_number(funnel.possible)} ways ({share}), {funnel.distinct:,} different disks,"
        f" {funnel.read_set_distinct:,} to judge, {funnel.confirmed:,} judged twice{found}"
    )


def _number(count: int) -> str:
    return f"{count:,}" if count < 10**12 else f"{float(count):.1e}" if count < 10**300 else "more than 1e300"


def _tell(result: RunResult, out: Path, *, quiet: bool) -> None:
    logs = f"{result.devices} write log{'' if result.devices == 1 else 's'}"
    scope = result.phases[0].scope
    say(
        f"{result.verdict.value.upper()}  {logs}, {scope}, {result.seconds:.1f} s",
        colour=COLOURS[result.verdict],
        bold=True,
    )
    for note in result.notes:
        say(f"note   {note}")
    for violation in result.violations:
        say(f"{violation.law.value}  {violation.device}: {violation.summary}")
        for line in (violation.operation, *violation.evidence[1:]):
            say(f"  {line}")
        say(f"  image  {violation.replay}")
    if not quiet or result.violations:
        say(f"report {out / report_folder.PAGE}")
