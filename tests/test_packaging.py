"""What is built must be what is written: every package, every file that a package needs, and no stray import."""

import ast
import re
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("model", "impl", "fault_injection", "reports", "stateful_tests", "cli")
OUR_OWN = {"snapcheck"}


@pytest.fixture
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def packages() -> dict[str, str]:
    """Return every folder with Python in it, by the name that it must be installed as."""
    folders = {path.parent.relative_to(ROOT) for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")}
    return {f"snapcheck.{'.'.join(folder.parts)}": str(folder) for folder in folders}


def test_every_package_is_listed(project: dict[str, Any]) -> None:
    setuptools = project["tool"]["setuptools"]
    assert sorted(setuptools["packages"]) == sorted(packages())
    assert setuptools["package-dir"] == packages()


def test_every_package_has_an_init_and_every_folder_says_that_it_is_typed() -> None:
    assert all((ROOT / folder / "__init__.py").exists() for folder in packages().values())
    assert all((ROOT / folder / "py.typed").exists() for folder in FOLDERS)


def test_every_file_that_is_not_python_is_package_data(project: dict[str, Any]) -> None:
    patterns = project["tool"]["setuptools"]["package-data"]["*"]
    for name, folder in packages().items():
        others = [
            path for path in (ROOT / folder).glob("**/*") if path.is_file() and path.suffix not in (".py", ".pyc")
        ]
        mine = [path for path in others if not any(path.is_relative_to(ROOT / each) for each in _below(name))]
        for path in mine:
            assert any(path.relative_to(ROOT / folder).match(pattern) for pattern in patterns), path


def _below(name: str) -> list[str]:
    return [folder for each, folder in packages().items() if each.startswith(f"{name}.")]


def test_nothing_at_the_root_hides_the_package() -> None:
    assert not (ROOT / "snapcheck").exists()
    assert not (ROOT / "__init__.py").exists()


def test_every_library_that_is_imported_is_a_dependency_and_every_dependency_is_imported(
    project: dict[str, Any],
) -> None:
    declared = {re.split(r"[^a-z0-9]", each)[0] for each in project["project"]["dependencies"]}
    imported = {name for folder in FOLDERS for path in (ROOT / folder).rglob("*.py") for name in _imports(path)}
    assert imported - set(sys.stdlib_module_names) - OUR_OWN == declared


def _imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {each.name.split(".")[0] for each in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def test_the_command_and_the_plugin_are_where_the_package_says() -> None:
    entries = {entry.group: entry for entry in distribution("snapcheck").entry_points}
    assert entries["console_scripts"].value == "snapcheck.cli.app:main"
    assert entries["pytest11"].value == "snapcheck.stateful_tests.plugin"
    assert all(entry.load() for entry in entries.values())


def test_every_link_between_pages_leads_somewhere() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")]
    links = [
        (page, link) for page in pages for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8"))
    ]
    assert len(links) > 50
    assert [f"{page.name}: {link}" for page, link in links if not (page.parent / link).exists()] == []
