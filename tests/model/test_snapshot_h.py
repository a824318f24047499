"""docs/reference/snapshot_h.md names every name of the seed header, and every file and test in it is really there."""

import re
from pathlib import Path
from typing import Final, NamedTuple

import pytest

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs/reference/snapshot_h.md"
HEADER: Final = (
    "QEMUSnapshotInfo", "id_str[128]", "name[256]", "vm_state_size", "date_sec", "date_nsec", "vm_clock_nsec",
    "SNAPSHOT_OPT_BASE", "SNAPSHOT_OPT_ID", "SNAPSHOT_OPT_NAME", "internal_snapshot_opts",
    "bdrv_snapshot_find", "bdrv_snapshot_find_by_id_and_name", "bdrv_can_snapshot", "bdrv_snapshot_create",
    "bdrv_snapshot_goto", "bdrv_snapshot_delete", "bdrv_snapshot_list", "bdrv_snapshot_load_tmp",
    "bdrv_snapshot_load_tmp_by_id_or_name", "bdrv_all_can_snapshot", "bdrv_all_delete_snapshot",
    "bdrv_all_goto_snapshot", "bdrv_all_find_snapshot", "bdrv_all_create_snapshot", "bdrv_all_find_vmstate_bs",
)  # fmt: skip


class Row(NamedTuple):
    """One row of the page; `meaning` and `implementation` are paths, `test` is path::function."""

    c_name: str
    python_name: str
    meaning: str
    implementation: str
    test: str


def rows() -> list[Row]:
    cells = [line.strip("| \n").split(" | ") for line in PAGE.read_text(encoding="utf-8").splitlines() if "`" in line]
    return [Row(*(cell.strip("`") for cell in row)) for row in cells if len(row) == 5]


def test_every_name_of_the_header_has_its_row() -> None:
    named = [row.c_name for row in rows()]
    assert sorted(named[:-1]) == sorted(HEADER)
    assert "AioContext" in named[-1]


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.c_name)
def test_the_files_of_a_row_are_there_and_have_the_name(row: Row) -> None:
    assert (ROOT / row.meaning).is_file(), f"{row.meaning} is not there: correct docs/reference/snapshot_h.md"
    source = (ROOT / row.implementation).read_text(encoding="utf-8")
    assert re.search(rf"\b{row.python_name}\b", source), f"{row.implementation} does not mention {row.python_name}"


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.c_name)
def test_the_test_of_a_row_is_there(row: Row) -> None:
    path, _, function = row.test.partition("::")
    assert (ROOT / path).is_file(), f"{path} is not there: correct docs/reference/snapshot_h.md"
    assert f"def {function}(" in (ROOT / path).read_text(encoding="utf-8"), f"{path} has no {function}"
