import ast
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from snapcheck.model.history import History, Purpose, Step
from snapcheck.model.operations import AllDelete, Create, Flush, Transaction
from snapcheck.model.setup import DeviceSpec, PreparedSnapshot, Setup
from snapcheck.reports import reproducer
from snapcheck.reports.jsonl import HistoryError
from snapcheck.reports.verdict import RunResult


def test_a_reproducer_asks_the_questions_of_its_history_and_nothing_else(failed: RunResult, tmp_path: Path) -> None:
    reproducer.write(tmp_path / "repro", failed)
    text = (tmp_path / "repro" / "a1b2c3d4.py").read_text()

    driver, read, reproduced = reproducer.read(tmp_path / "repro" / "a1b2c3d4.py")

    shown = failed.violations[0].history
    assert shown is not None
    assert (driver, reproduced) == ("my.driver:factory", True)
    assert [(step.operation, step.faults) for step in read.steps] == [
        (step.operation, step.faults) for step in shown.steps
    ]
    assert read.steps[3].events == ()
    assert "def test_right_culprit_a1b2c3d4() -> None:" in text
    assert "assert_holds(driver='my.driver:factory', history=history)" in text
    assert max(map(len, text.splitlines())) <= 120


def test_a_reproducer_imports_only_what_it_uses(failed: RunResult, tmp_path: Path) -> None:
    reproducer.write(tmp_path, failed)
    tree = ast.parse((tmp_path / "a1b2c3d4.py").read_text())

    imported = {name.name for node in tree.body if isinstance(node, ast.ImportFrom) for name in node.names}
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} - {"history"}

    assert imported == used
    assert {node.module for node in tree.body if isinstance(node, ast.ImportFrom)} <= {
        "snapcheck.model.errno", "snapcheck.model.faults", "snapcheck.model.history", "snapcheck.model.operations",
        "snapcheck.model.setup", "snapcheck.stateful_tests.replay",
    }  # fmt: skip


OPERATIONS = st.from_type(AllDelete) | st.from_type(Create) | st.from_type(Transaction)


@given(st.from_type(Setup), st.lists(st.builds(Step, operation=OPERATIONS)))
@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], deadline=None)
def test_whatever_is_spelled_evaluates_to_itself(setup: Setup, steps: list[Step]) -> None:
    history = History(setup, steps)
    names = dict(reproducer.NAMES)
    assert eval(reproducer.spell(history), names) == history  # noqa: S307  # our own text


def test_the_purpose_of_a_step_and_prepared_snapshots_survive(tmp_path: Path) -> None:
    setup = Setup((DeviceSpec("d0", snapshots=(PreparedSnapshot("x", "\udc80'\"", 8, 1, extra=b"\0\xff"),)),))
    history = History(setup, [Step(Flush("d0"), purpose=Purpose.RETRY)])
    path = tmp_path / "r.py"
    path.write_text(f"history = {reproducer.spell(history)}\nassert_holds(driver='qcow2', history=history)\n")
    assert reproducer.read(path) == ("qcow2", history, True)


SETUP = "Setup(devices=(DeviceSpec(name='d0'),))"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("def", "not Python"),
        ("x = 1", "no assert_holds"),
        ("assert_holds(driver=__import__('os').getcwd(), history=1)", "only the model's values"),
        ("assert_holds(driver='x', history=open('/etc/passwd'))", "only the model's values"),
        ("assert_holds(driver='x', history=7)", "needs a driver's name and a History"),
        ("assert_holds(driver='x', history=History())", "missing 1 required"),
        ("assert_holds(driver='x', history=History(setup=Setup(devices=7)))", "expected a list, found 7"),
        (f"assert_holds(driver='x', history=History({SETUP}, [Step(Flush('d8'))]))", "'d8' is no device"),
        (f"assert_holds(driver='x', history=History({SETUP}, [Step(Flush(Kind.NONE))]))", "no member NONE"),
    ],
)
def test_a_file_that_is_no_reproducer_is_refused_and_never_run(text: str, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "r.py"
    path.write_text(text)
    with pytest.raises(HistoryError) as refused:
        reproducer.read(path)
    assert complaint in str(refused.value)
    assert "\n" not in str(refused.value)
