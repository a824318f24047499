"""Stories of the DRIVER argument: what is found, and the one line that says why something is not."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest
from snapcheck.impl.blockfile import MemoryFile
from snapcheck.impl.checked import StartError
from snapcheck.impl.driver import System
from snapcheck.impl.targets import Target, TargetError, find_target, known_targets
from snapcheck.model.faults import REGIONS
from snapcheck.model.history import EventList, Level
from snapcheck.model.operations import List
from snapcheck.model.setup import DeviceSpec, Setup

Module = Callable[[str], str]
SETUP = Setup((DeviceSpec("d0", sectors=8),))
ENGINE = "from snapcheck.impl.qcow2.driver import open_driver as engine\n"


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Module]:
    """Write a module into the current folder, and return its name; each has another one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    names: list[str] = []

    def write(source: str) -> str:
        names.append(f"written_driver_{len(names)}")
        (tmp_path / f"{names[-1]}.py").write_text(dedent(source))
        return names[-1]

    yield write
    for name in names:
        sys.modules.pop(name, None)


def refusal(spec: str) -> str:
    with pytest.raises(TargetError) as caught:
        find_target(spec)
    text = str(caught.value)
    assert "\n" not in text
    return text


def started(target: Target) -> System:
    assert target.factory is not None
    system = target.factory([MemoryFile()], semantics="classic", recorder=EventList())
    system.start(SETUP)
    return system


# --- what is found --------------------------------------------------------------------------------
def test_our_engine_has_a_name_here() -> None:
    target = find_target("qcow2")
    assert (target.name, target.format, target.regions) == ("qcow2", "qcow2", REGIONS)
    assert target.capabilities is not None
    assert target.capabilities.check
    assert [known.name for known in known_targets()] == [
        "qcow2",
        "qemu",
        "qemu-jobs",
        "qemu-img",
        "qemu-storage-daemon",
    ]


def test_an_open_driver_of_a_module_in_the_current_folder(module: Module) -> None:
    name = module(
        ENGINE
        + """
        def mine(disk, *, read_only, create):
            return engine(disk, read_only=read_only, create=create)
        """.replace("\n        ", "\n")
    )
    target = find_target(f"{name}:mine")
    assert (target.name, target.format, target.factory) == (f"{name}:mine", "qcow2", None)
    assert target.regions == ()


def test_a_factory_is_told_by_its_keywords(module: Module) -> None:
    name = module(
        ENGINE
        + """
        from snapcheck.impl.local import LocalSystem

        class Mine(LocalSystem):
            def __init__(self, disks, *, semantics, recorder):
                super().__init__(engine, disks, semantics=semantics, recorder=recorder)
        """.replace("\n        ", "\n")
    )
    target = find_target(f"{name}:Mine")
    assert (target.open_driver, target.capabilities, target.format) == (None, None, "qcow2")
    assert started(target).perform(List("d0")).snapshots == ()


def test_a_target_in_a_module_is_taken_as_it_is_under_the_name_that_was_typed(module: Module) -> None:
    name = module(ENGINE + "from snapcheck.impl.targets import Target\nbug = Target('bug', 'a bug', engine)\n")
    assert (find_target(f"{name}:bug").name, find_target(f"{name}:bug").what) == (f"{name}:bug", "a bug")


def test_an_attribute_may_be_deep_inside(module: Module) -> None:
    name = module(ENGINE + "class Drivers:\n    mine = staticmethod(engine)\n")
    assert find_target(f"{name}:Drivers.mine").format == "qcow2"


# --- what is not ----------------------------------------------------------------------------------
@pytest.mark.parametrize("spec", ["raw", "", "nothing", "module:", ":attribute"])
def test_an_unknown_name_is_told_what_is_known(spec: str) -> None:
    text = refusal(spec)
    assert repr(spec) in text
    assert "qcow2" in text
    assert "package.module:attribute" in text


def test_a_slip_of_the_keyboard_is_guessed() -> None:
    assert "did you mean qcow2?" in refusal("qcow")


@pytest.mark.parametrize("spec", ["./mine.py:open_driver", "folder/mine:open_driver", "mine.py:open_driver"])
def test_a_file_is_not_a_module(spec: str) -> None:
    assert "name the module, mine:open_driver" in refusal(spec)


def test_a_module_that_is_not_there() -> None:
    assert refusal("no_such_module:x").startswith("there is no module 'no_such_module'")
    assert refusal("snapcheck.impl.nothing:x").startswith("there is no module 'snapcheck.impl.nothing'")


def test_a_module_that_misses_another_one_says_which(module: Module) -> None:
    name = module("import something_that_is_not_installed\n")
    text = f"the module '{name}' can not be imported: ModuleNotFoundError: No module named 'something_that_is_not_"
    assert refusal(f"{name}:x").startswith(text)


@pytest.mark.parametrize(
    ("source", "last_line"),
    [
        ("raise ValueError('no license')\n", "ValueError: no license"),
        ("def broken(:\n", "SyntaxError: "),
        ("raise SystemExit('bye')\n", "SystemExit: bye"),
    ],
)
def test_a_module_that_raises_on_import_tells_its_last_line(module: Module, source: str, last_line: str) -> None:
    name = module(source)
    assert f"the module '{name}' can not be imported: {last_line}" in refusal(f"{name}:x")


def test_a_missing_attribute_is_told_with_near_matches(module: Module) -> None:
    name = module("def open_driver(disk, *, read_only, create): ...\n")
    assert (
        refusal(f"{name}:open_drivr") == f"{name}:open_drivr: there is no 'open_drivr' in {name}; there is open_driver"
    )


def test_what_can_not_be_called_is_no_driver(module: Module) -> None:
    name = module("number = 5\n")
    assert refusal(f"{name}:number") == f"{name}:number is int, not a function: give a factory or an open_driver"


@pytest.mark.parametrize(
    "signature",
    ["", "disk", "disk, read_only", "disk, *, read_only, create, other", "*, read_only, create", "disks, *, semantics"],
)
def test_a_function_that_takes_something_else_is_told_what_to_take(module: Module, signature: str) -> None:
    name = module(f"def mine({signature}): ...\n")
    text = refusal(f"{name}:mine")
    assert f"takes ({signature})" in text
    assert "(disk, *, read_only, create)" in text
    assert "(disks, *, semantics, recorder)" in text


# --- drivers that can not start -------------------------------------------------------------------
@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("raise RuntimeError('no license')", "raised RuntimeError: no license (in mine, "),
        ("return None", "open_driver returned None, which has no `capabilities: Capabilities`"),
    ],
)
def test_an_open_driver_that_does_not_give_a_driver_can_not_start(module: Module, body: str, text: str) -> None:
    target = find_target(f"{module(f'def mine(disk, *, read_only, create):{chr(10)}    {body}{chr(10)}')}:mine")
    with pytest.raises(StartError) as caught:
        _ = target.format
    assert text in str(caught.value)


def test_a_driver_that_formats_nothing_can_not_start(module: Module) -> None:
    name = module(
        """
        from snapcheck.impl.driver import BlockError
        def mine(disk, *, read_only, create):
            raise BlockError(-22, "only clusters of 8 KiB")
        """
    )
    with pytest.raises(StartError, match="can not format a disk of 64 KiB: d0: EINVAL: only clusters of 8 KiB"):
        _ = find_target(f"{name}:mine").capabilities


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("raise RuntimeError('no license')", "can not start: it raised RuntimeError: no license (in mine, "),
        ("return 5", "returned 5, which is no System: it has no start"),
    ],
)
def test_a_factory_that_does_not_give_a_system_can_not_start(module: Module, body: str, text: str) -> None:
    target = find_target(f"{module(f'def mine(disks, *, semantics, recorder):{chr(10)}    {body}{chr(10)}')}:mine")
    with pytest.raises(StartError) as caught:
        started(target)
    assert text in str(caught.value)


def test_a_system_of_somebody_else_may_fail_anywhere_and_is_told_in_one_line(module: Module) -> None:
    name = module(
        """
        class mine:
            def __init__(self, disks, *, semantics, recorder):
                self.abilities = None
            def start(self, setup): ...
            def arm(self, faults): return faults
            def disarm(self): ...
            def perform(self, operation): raise IndexError(operation.device)
            def observe(self, device, *, level): return None
            def close(self): ...
        """
    )
    target = find_target(f"{name}:mine")
    system = started(target)
    crash = system.perform(List("d0")).crash
    assert crash is not None
    assert crash.startswith("perform raised IndexError: d0 (in perform, ")
    assert system.observe("d0", level=Level.LIGHT).memory.errors[0] == "list: observe returned None, not an Observation"
    with pytest.raises(StartError, match="its abilities are None, not Abilities"):
        _ = target.abilities
