"""The log in front of a power cut, as a drawing, and what a cut took, in words."""

from dataclasses import replace

import pytest
from snapcheck.model.history import After, History, PowerCut, Step
from snapcheck.model.operations import Create, Goto
from snapcheck.model.power_cut import Cut, Filling, Sent, TornWrite
from snapcheck.model.setup import DeviceSpec, Setup
from snapcheck.reports import html, jsonl, timeline
from snapcheck.reports.codec import CodecError
from snapcheck.reports.verdict import PhaseReport, RunResult, ViolationReport
from snapcheck.reports.words import cut_words

SORTS = ("write", "write", "flush", "write", "write", "write")
LOG = tuple(
    Sent(number, "d0" if number < 4 else "d1", number // 3, sort, 512 * number, 512, "header" if number < 3 else "l2")
    for number, sort in enumerate(SORTS)
)
CUT = PowerCut(
    "sector-torn", (Cut("d0", 5, dropped=(3,)), Cut("d1", 5, torn=(TornWrite(4, (0,)),))), log=LOG
)  # fmt: skip
THREE_LOST = PowerCut("epoch", (Cut("d0", 7, dropped=(3,)),))


@pytest.fixture
def ended_by_a_cut() -> History:
    steps = [Step(Create("d0", "<script>")), Step(Goto("d0", "1"))]
    return History(Setup((DeviceSpec("d0"), DeviceSpec("d1"))), steps, cut=CUT)


def test_each_write_has_a_lane_a_colour_and_a_fate(ended_by_a_cut: History) -> None:
    drawn = timeline.timeline_of(ended_by_a_cut)
    assert drawn is not None
    assert [name for name, _ in drawn.lanes] == ["d0", "d1"]
    assert [block.fate for block in drawn.blocks] == ["survived", "survived", "flush", "lost", "torn", "later"]
    assert drawn.blocks[0].colour != drawn.blocks[3].colour
    assert drawn.blocks[3].y < drawn.blocks[4].y
    assert drawn.blocks[4].x < drawn.cut < drawn.blocks[5].x + timeline.COLUMN
    assert [stretch.label for stretch in drawn.stretches] == ["create d0 name='<script>'", "goto d0 snapshot_id='1'"]
    assert drawn.blocks[3].label == "3: write l2 512 bytes at 0x600: lost"


def test_a_long_log_shows_its_end(ended_by_a_cut: History) -> None:
    log = tuple(Sent(number, "d0", 0, "write") for number in range(200))
    drawn = timeline.timeline_of(replace(ended_by_a_cut, cut=replace(CUT, log=log)))
    assert drawn is not None
    assert (len(drawn.blocks), drawn.left_out) == (timeline.SHOWN_MAX, 120)


def test_a_history_without_a_cut_has_no_timeline(history: History) -> None:
    assert timeline.timeline_of(history) is None


def test_the_page_draws_it_and_escapes_what_is_in_it(
    failed: RunResult, violation: ViolationReport, ended_by_a_cut: History
) -> None:
    shown = replace(violation, history=ended_by_a_cut, step=1)
    phase = PhaseReport("crash", 1, 2, 0.1, complete=True, scope="", counts={"enumerated": 200, "distinct": 50})
    page = html.render(replace(failed, violations=(shown,), phases=(phase,)))
    assert page.count("lost</title>") == 1
    assert "<script>" not in page
    assert "What the devices hold after the cut" not in page  # nothing was seen
    assert "enumerated</span><b>200</b>" in page


def test_a_run_without_power_cuts_has_no_funnel(failed: RunResult) -> None:
    assert timeline.funnel_of(failed.phases) == ()
    assert "Power cuts" not in html.render(failed)


@pytest.mark.parametrize(("cut", "words"), [
    (PowerCut("epoch", (Cut("d0", 7),)), "the power goes before 7 is sent, and nothing that was sent is lost"),
    (PowerCut("epoch", (Cut("d0", 7, (3, 5)),)), "the power goes before 7 is sent, of d0 is lost: 3, 5"),
    (CUT, "the power goes before 5 is sent, of d0 is lost: 3; of d1 is lost: of 4 sector 0"),
    (
        PowerCut("epoch", (Cut("d0", 7, (3,), fill=Filling.GARBAGE),)),
        "the power goes before 7 is sent, of d0 is lost: 3, and garbage is there instead",
    ),
    (
        PowerCut("epoch", (Cut("d0", 7),), after=After.OPEN, again=Cut("d0", 2, (1,))),
        "the power goes before 7 is sent, and nothing that was sent is lost; the disk is opened, and the power goes"
        " again at position 2 of the log of the first open, of d0 is lost: 1",
    ),
    (
        PowerCut("epoch", (Cut("d0", 7),), after=After.REPAIR, again=Cut("d0", 0)),
        "the power goes before 7 is sent, and nothing that was sent is lost; the disk is repaired, and the power goes"
        " again at position 0 of the log of the repair, and nothing of it is lost",
    ),
    (
        replace(THREE_LOST, after=After.REPAIR),
        "the power goes before 7 is sent, of d0 is lost: 3; the disk is repaired",
    ),
    (
        replace(THREE_LOST, after=After.USE, then=(Step(Create("d0", "a")), Step(Goto("d0", "1")))),
        "the power goes before 7 is sent, of d0 is lost: 3; the disk is used further: create d0 name='a';"
        " goto d0 snapshot_id='1'",
    ),
])  # fmt: skip
def test_what_a_cut_took_is_told_in_words(cut: PowerCut, words: str) -> None:
    assert cut_words(cut) == words


def test_a_cut_comes_back_from_a_file_as_it_was(
    failed: RunResult, ended_by_a_cut: History, violation: ViolationReport, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("cut") / "history.jsonl"
    jsonl.write(path, replace(failed, violations=(replace(violation, history=ended_by_a_cut, step=1),)))
    (record,) = jsonl.read(path).records
    assert record.history == ended_by_a_cut


@pytest.mark.parametrize(("cut", "told"), [
    (replace(CUT, devices=(Cut("d7", 1),)), "'d7' is no device of this setup"),
    (replace(CUT, log=(Sent(0, "d0", 9, "write"),)), "step 9 is not one of 2 steps"),
])  # fmt: skip
def test_a_cut_that_does_not_fit_its_history_is_told_in_one_line(
    ended_by_a_cut: History, cut: PowerCut, told: str
) -> None:
    with pytest.raises(CodecError, match=told):
        jsonl.check_history(replace(ended_by_a_cut, cut=cut))


def test_a_cut_needs_a_step_to_happen_in(ended_by_a_cut: History) -> None:
    with pytest.raises(CodecError, match="no steps"):
        jsonl.check_history(replace(ended_by_a_cut, steps=[]))
