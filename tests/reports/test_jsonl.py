import dataclasses
import json
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from snapcheck.model import faults, operations
from snapcheck.model.errno import Errno
from snapcheck.model.history import Event, History, Io, Result, Step
from snapcheck.model.operations import Create
from snapcheck.model.setup import DeviceSpec, Setup
from snapcheck.reports import codec, jsonl
from snapcheck.reports.jsonl import HistoryError
from snapcheck.reports.verdict import RunResult

ERRNOS = st.sampled_from(Errno) | st.just(Errno(-71))
TEXTS = st.text(st.characters(categories=None), max_size=8)  # surrogates too
for enum in (Errno,):
    st.register_type_strategy(enum, ERRNOS)

ANYTHING = {
    "operation": st.one_of(*map(st.from_type, operations.OPERATIONS)),
    "fault": st.from_type(faults.CallFault) | st.from_type(faults.IoFault),
    "event": st.one_of(*map(st.from_type, get_args(Event))),
    "step": st.from_type(Step),
    "setup": st.from_type(Setup),
    "history": st.from_type(History),
}


@pytest.mark.parametrize("what", ANYTHING)
def test_whatever_the_vocabulary_can_say_comes_back_equal(what: str) -> None:
    @given(ANYTHING[what])
    @settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], deadline=None)
    def round_trip(value: object) -> None:
        text = json.dumps(codec.dump(value), ensure_ascii=True)
        kind = {"operation": operations.Operation, "fault": faults.Fault, "event": Event}.get(what, type(value))
        assert codec.load(kind, json.loads(text)) == value  # type: ignore[arg-type]  # a union is no class

    round_trip()


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=1), st.integers(0, 300)), max_size=5))
def test_bytes_come_back_from_their_run_length_text(runs: list[tuple[bytes, int]]) -> None:
    data = b"".join(byte * count for byte, count in runs)
    assert codec.bytes_of(codec.runs_of(data)) == data


def test_content_of_a_device_is_short_text() -> None:
    assert codec.runs_of(b"\1" * 100 + b"\0" * 28) == "01*100 00*28"
    assert codec.runs_of(b"\1\1\2") == "010102"


def test_a_run_is_written_and_read_with_its_evidence(failed: RunResult, history: History, tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    passing = History(Setup((DeviceSpec("d0"),)), [Step(Create("d0", "x\udc80"))])

    jsonl.write(path, failed, sample=[passing])
    found = jsonl.read(path)

    assert len(path.read_text().splitlines()) == 3
    assert (found.header.driver, found.header.notes) == (failed.driver, failed.notes)
    assert found.header.hits == failed.coverage.hits
    shown = found.find("a1b2c3d4")
    assert shown is not None
    assert shown.history == history
    assert (shown.expected, shown.step) == ("ENOSPC, first_bad_bs is d1", 3)
    sample = found.find("passed-1")
    assert sample is not None
    assert (sample.history, sample.law) == (passing, None)
    assert found.find("nobody") is None


HEADER = '{"schema":1,"version":"0.1.0","driver":"qcow2"}'
SETUP = '"setup":{"devices":[{"name":"d0"}]}'


def line(step: str) -> str:
    return f'{{"id":"a","history":{{{SETUP},"steps":[{step}]}}}}'


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "line 1: not JSON"),
        ("hello", "line 1: not JSON"),
        ("[1]", "not a history.jsonl"),
        ('{"schema":2,"version":"9","driver":"x"}', "line 1: schema: 2 is not 1"),
        ('{"schema":1,"version":"9"}', "line 1: driver is missing"),
        (HEADER + "\n{", "line 2: not JSON"),
        (HEADER + "\n" + "[" * 100_000, "line 2: not JSON"),
        (HEADER + '\n{"id":NaN}', "line 2: NaN is no number"),
        (HEADER + "\n" + line('{"operation":{"type":"creat"}}'), "steps[0].operation: unknown type 'creat'"),
        (HEADER + "\n" + line('{"operation":{"type":"create","device":"d0"}}'), "steps[0].operation: name is missing"),
        (HEADER + "\n" + line('{"operation":{"type":"list","device":7}}'), "operation.device: expected text, found 7"),
        (HEADER + "\n" + line('{"operation":{"type":"list","device":"d0"},"x":1}'), "steps[0]: unknown key 'x'"),
        (HEADER + "\n" + line('{"operation":{"type":"list","device":"d9"}}'), "'d9' is no device of this setup"),
        (HEADER + "\n" + line('{"operation":{"type":"list","device":"d0"},"skipped":[0]}'), "a fault that is not"),
        (HEADER + "\n" + line('{"operation":{"type":"list","device":"d0"},"events":[["io","d0"]]}'), "its 6 fields"),
        (HEADER + "\n" + line('{"operation":{"type":"list","device":"d0"},"result":{"errno":5}}'), "5 is no errno"),
        (HEADER + "\n" + line('{"operation":{"type":"list","device":"d0"},"result":{"data":"zz"}}'), "neither hex"),
        (HEADER + "\n" + line('{"operation":{"type":"list","device":"d0"},"result":{"data":"00*999999999"}}'), "more"),
        (HEADER + '\n{"id":"a","history":{"setup":{"devices":[]}}}', "needs one device or more"),
        (HEADER + '\n{"id":"a","law":"result","step":4,"history":{' + SETUP + "}}", "step: 4 is not one of 0 steps"),
    ],
)
def test_a_bad_file_gives_one_line_that_says_where_and_what(text: str, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text(text)

    with pytest.raises(HistoryError) as refused:
        jsonl.read(path)

    assert complaint in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_missing_file_and_a_binary_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(HistoryError, match="No such file"):
        jsonl.read(tmp_path / "none")
    (tmp_path / "image").write_bytes(b"QFI\xfb\0\0")
    with pytest.raises(HistoryError, match="not a text file"):
        jsonl.read(tmp_path / "image")


def test_defaults_are_left_out_so_that_lines_stay_short() -> None:
    step = Step(Create("d0", "a"), result=Result(), events=(Io("d0", "flush", 0, 0),))
    assert codec.dump(step) == {
        "operation": {"type": "create", "device": "d0", "name": "a"}, "events": [["io", "d0", "flush", 0, 0, "", 0]]
    }  # fmt: skip
    assert dataclasses.is_dataclass(codec.load(Step, codec.dump(step)))
