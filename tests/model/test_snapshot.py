"""The seed header's values: the struct with its limits, and the selector that tools take (SPEC C.7)."""

from dataclasses import fields

import pytest
from snapcheck.model.snapshot import SnapshotInfo, SnapshotSelector, as_listed, cut_text, snapshot_selector


def test_a_snapshot_info_has_the_fields_of_the_header() -> None:
    names = [field.name for field in fields(SnapshotInfo)]
    assert names == ["id_str", "name", "vm_state_size", "date_sec", "date_nsec", "vm_clock_nsec"]


def test_texts_are_cut_by_bytes_even_inside_a_character() -> None:
    listed = as_listed(SnapshotInfo("9" * 128, "\u00e9" * 128))
    assert listed.id_str == "9" * 127
    assert listed.name == "\u00e9" * 127 + "\udcc3"
    assert cut_text(listed.name, bytes_max=255) == listed.name


def test_an_info_that_fits_is_listed_as_it_is() -> None:
    info = SnapshotInfo("1", "a")
    assert as_listed(info) is info


@pytest.mark.parametrize("text", ["1", "a name", "", "snapshot", "id=1,name=x", "x,snapshot.id=1"])
def test_a_text_without_the_prefix_is_an_id_or_a_name(text: str) -> None:
    assert snapshot_selector(text) == SnapshotSelector(id_or_name=text)


def test_a_selector_takes_an_id_a_name_or_both() -> None:
    assert snapshot_selector("snapshot.id=1") == SnapshotSelector(snapshot_id="1")
    assert snapshot_selector("snapshot.name=x y") == SnapshotSelector(name="x y")
    assert snapshot_selector("snapshot.name=x,snapshot.id=1") == SnapshotSelector(snapshot_id="1", name="x")


def test_a_value_may_be_empty_hold_an_equals_sign_or_a_doubled_comma_and_the_last_one_counts() -> None:
    assert snapshot_selector("snapshot.name=") == SnapshotSelector(name="")
    assert snapshot_selector("snapshot.name=a=b,,c") == SnapshotSelector(name="a=b,c")
    assert snapshot_selector("snapshot.id=1,snapshot.id=2") == SnapshotSelector(snapshot_id="2")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("snapshot.", "unknown key 'snapshot.'"),
        ("snapshot.tag=x", "unknown key 'snapshot.tag'"),
        ("snapshot.id=1,name=x", "unknown key 'name'"),
        ("snapshot.id=1,", "unknown key ''"),
        ("snapshot.id", "snapshot.id has no value"),
    ],
)
def test_an_unknown_key_is_refused_with_the_way_out(text: str, what: str) -> None:
    with pytest.raises(ValueError, match=r"use snapshot\.id=ID, snapshot\.name=NAME") as caught:
        snapshot_selector(text)
    assert str(caught.value).startswith(f"snapshot selector {text!r}: {what}; use ")
    assert "\n" not in str(caught.value)
