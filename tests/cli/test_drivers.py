from collections.abc import Callable
from subprocess import CompletedProcess

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


def test_what_is_not_built_is_not_listed_as_usable(snapcheck: Snapcheck) -> None:
    out = snapcheck("drivers").stdout
    assert "qemu" not in out[: out.index("not usable")]
    assert "not built yet" in out[out.index("not usable") :]
