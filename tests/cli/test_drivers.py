from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from snapcheck.impl.adapters.qemu.keeper import KEEPER

Snapcheck = Callable[..., CompletedProcess[str]]


def test_the_engine_is_listed_with_what_it_can_do(snapcheck: Snapcheck) -> None:
    done = snapcheck("drivers")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("qcow2 ")
    assert "snapshots" in next(line for line in lines if "can: " in line)
    assert max(map(len, lines)) <= 100


def test_a_driver_of_ones_own_is_explained(snapcheck: Snapcheck) -> None:
    assert "snapcheck new-driver" in snapcheck("drivers").stdout


def test_what_is_missing_is_listed_with_what_to_install(
    snapcheck: Snapcheck, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("SNAPCHECK_QEMU", raising=False)
    KEEPER.end_all()
    out = snapcheck("drivers").stdout
    there, _, missing = out.partition("not usable here")
    assert "savevm" not in there
    assert "apt-get install qemu-system-x86" in missing
