"""The log in front of a power cut, drawn: a lane for each device, what was sent in order, what of it survived.

Positions are pixels; timeline.html says how it looks. `funnel_of` gives the counts of phase crash beside it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from snapcheck.model.faults import REGIONS
from snapcheck.model.history import History, PowerCut
from snapcheck.model.power_cut import Cut, Sent
from snapcheck.reports import words
from snapcheck.reports.verdict import PhaseReport

SHOWN_MAX: Final = 80  # the last ones of the log
COLUMN: Final = 24
LANE: Final = 44
LEFT: Final = 56
TOP: Final = 40
_HUES: Final = {region: 360 * place // len(REGIONS) + 10 for place, region in enumerate(REGIONS)}
ENUMERATED: Final = "enumerated"
DISTINCT: Final = "distinct"
DISTINCT_IN_WHAT_IS_READ: Final = "distinct in what is read"
JUDGED: Final = "judged"
_STAGES: Final = (ENUMERATED, DISTINCT, DISTINCT_IN_WHAT_IS_READ, JUDGED)  # counts of phase crash, as in result.json


@dataclass(frozen=True, slots=True)
class Block:
    """Something that was sent: where it stands, what colour its region has, and what became of it.

    fate  survived, lost, torn, flush, or later: the power had gone before it was sent
    """

    x: int
    y: int
    number: int
    colour: str
    fate: str
    label: str


@dataclass(frozen=True, slots=True)
class Stretch:
    """The part of the log that one step sent, from x on."""

    x: int
    width: int
    label: str


@dataclass(frozen=True, slots=True)
class Timeline:
    """All that is drawn. `cut` is where the power goes; `left_out` what does not fit in at the left."""

    width: int
    height: int
    lanes: tuple[tuple[str, int], ...]
    blocks: tuple[Block, ...]
    stretches: tuple[Stretch, ...]
    cut: int
    regions: tuple[tuple[str, str], ...]
    words: str
    left_out: int


def timeline_of(history: History) -> Timeline | None:
    """Return the timeline of a history that a power cut ended; None for any other, and where there is no log."""
    cut = history.cut
    if cut is None or not cut.log:
        return None
    log = cut.log[-SHOWN_MAX:]
    names = [spec.name for spec in history.setup.devices if any(each.device == spec.name for each in log)]
    rows = {name: TOP + LANE * place for place, name in enumerate(names)}
    at = max((each.at for each in cut.devices), default=log[-1].number + 1)
    return Timeline(
        width=LEFT + COLUMN * len(log) + COLUMN, height=TOP + LANE * len(names) + 6, lanes=tuple(rows.items()),
        blocks=tuple(_blocks(log, rows, cut, at)), stretches=tuple(_stretches(log, history)),
        cut=LEFT + COLUMN * (at - log[0].number) - 3, regions=tuple(_legend(log)), words=words.cut_words(cut),
        left_out=len(cut.log) - len(log),
    )  # fmt: skip


def _blocks(log: Sequence[Sent], rows: Mapping[str, int], cut: PowerCut, at: int) -> Iterator[Block]:
    cuts = {each.device: each for each in cut.devices}
    for place, sent in enumerate(log):
        fate = _fate(sent, cuts.get(sent.device), at)
        yield Block(
            LEFT + COLUMN * place, rows[sent.device], sent.number, _colour(sent.region), fate, _label(sent, fate)
        )  # fmt: skip


def _fate(sent: Sent, cut: Cut | None, at: int) -> str:
    if sent.number >= at:
        return "later"
    if sent.sort == "flush":
        return "flush"
    if cut is not None and sent.number in cut.dropped:
        return "lost"
    return "torn" if cut is not None and any(each.number == sent.number for each in cut.torn) else "survived"


def _label(sent: Sent, fate: str) -> str:
    where = "" if sent.sort == "flush" else f" {sent.length} bytes at {sent.offset:#x}"
    if sent.sort == "truncate":
        where = f" to {sent.offset} bytes"
    told = {"later": "not sent any more", "flush": "flush"}.get(fate, fate)
    return f"{sent.number}: {sent.sort} {sent.region}{where}: {told}".replace("  ", " ")


def _colour(region: str) -> str:
    return f"hsl({_HUES[region]} 55% 52%)" if region in _HUES else "var(--soft)"


def _stretches(log: Sequence[Sent], history: History) -> Iterator[Stretch]:
    begun = 0
    for place in range(1, len(log) + 1):
        if place == len(log) or log[place].step != log[begun].step:
            step = log[begun].step
            label = "before" if step is None else words.operation_words(history.steps[step].operation)
            yield Stretch(LEFT + COLUMN * begun, COLUMN * (place - begun) - 4, label)
            begun = place


def _legend(log: Sequence[Sent]) -> Iterator[tuple[str, str]]:
    for region in dict.fromkeys(each.region for each in log if each.sort != "flush"):
        yield region or "not told", _colour(region)


# --- the funnel -----------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Stage:
    """How many states were left at a stage of the funnel, and how wide that is beside the first, in percent."""

    name: str
    count: int
    percent: float


def funnel_of(phases: Sequence[PhaseReport]) -> tuple[Stage, ...]:
    """Return the stages from the subsets of writes to the states that were judged; none without a phase crash."""
    counts: dict[str, int] = dict.fromkeys(_STAGES, 0)
    for phase in phases:
        if phase.name == "crash":
            counts = {name: counts[name] + phase.counts.get(name, 0) for name in _STAGES}
    most = max(counts.values())
    return tuple(Stage(name, count, max(1.0, 100 * count / most)) for name, count in counts.items()) if most else ()
