import dataclasses
import json
from pathlib import Path

import pytest
from snapcheck.model.history import History
from snapcheck.reports import jsonl, result_json
from snapcheck.reports.result_json import ResultError
from snapcheck.reports.verdict import RunResult

CONTRACT = {
    "schema": 1, "version": "0.1.0", "verdict": "failed", "driver": "my.driver:factory", "semantics": "classic",
    "seed": 7, "devices": 3, "seconds": 41.2,
    "phases": [{"name": "stateful", "histories": 812, "steps": 9021, "seconds": 12.1, "complete": True,
                "scope": "812 histories", "counts": {"faults": 9}}],
    "laws": [{"law": "right-culprit", "checked": 1204, "violated": 1, "not_observable": False},
             {"law": "list-exact", "checked": 9021, "violated": 0, "not_observable": False},
             {"law": "locks-balanced", "checked": 0, "violated": 0, "not_observable": True}],
    "coverage": {"cells": 412, "reached": 398, "never": ["all-goto x flush-error x last"],
                 "phases": [{"name": "stateful", "reached": 2, "alone": 1, "never": ["create"]}]},
    "violations": [{"id": "a1b2c3d4", "law": "right-culprit", "severity": "error", "device": "d1",
                    "operation": "all-delete",
                    "summary": "all-delete on d1 failed with ENOSPC and the driver blamed d2", "operations": 4,
                    "faults": 1, "phase": "stateful", "found_after_s": 0.8, "known": False,
                    "replay": "snapcheck replay a1b2c3d4", "cause": "", "shrunk": True, "reproduced": True}],
}  # fmt: skip


def test_result_json_has_exactly_the_keys_of_the_contract(failed: RunResult, tmp_path: Path) -> None:
    result_json.write(tmp_path / "result.json", failed)
    assert json.loads((tmp_path / "result.json").read_text()) == CONTRACT
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_result_and_histories_together_give_the_run_back(failed: RunResult, tmp_path: Path) -> None:
    result_json.write(tmp_path / "result.json", failed)
    jsonl.write(tmp_path / "history.jsonl", failed, sample=[])

    plain = result_json.read(tmp_path / "result.json")
    again = result_json.with_histories(plain, jsonl.read(tmp_path / "history.jsonl"))

    assert plain.violations[0].history is None
    assert isinstance(again.violations[0].history, History)
    assert again == failed


def test_a_violation_without_a_recorded_history_stays_as_it_is(failed: RunResult, tmp_path: Path) -> None:
    bare = dataclasses.replace(failed, violations=(dataclasses.replace(failed.violations[0], history=None),))
    result_json.write(tmp_path / "result.json", bare)
    jsonl.write(tmp_path / "history.jsonl", bare)
    read = result_json.read(tmp_path / "result.json")
    joined = result_json.with_histories(read, jsonl.read(tmp_path / "history.jsonl"))
    assert joined.violations == read.violations


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("", "not JSON"), ("{}", "version is missing"), (json.dumps({**CONTRACT, "schema": 9}), "schema 9 is not 1"),
     (json.dumps({**CONTRACT, "verdict": "fine"}), "verdict: 'fine' is no verdict"),
     (json.dumps({**CONTRACT, "laws": [{"law": "gravity"}]}), "checked is missing")],
)  # fmt: skip
def test_a_bad_result_json_gives_one_line(text: str, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text(text)
    with pytest.raises(ResultError, match=complaint):
        result_json.read(path)
    with pytest.raises(ResultError, match="No such file"):
        result_json.read(tmp_path / "none.json")
