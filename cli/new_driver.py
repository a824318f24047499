"""`snapcheck new-driver`: a folder to start from, with a driver that works at once."""

import keyword
import sys
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Final

from snapcheck.cli.errors import CallError
from snapcheck.cli.say import say

PLACEHOLDER: Final = "DRIVERNAME"
TEMPLATES: Final = "skeleton-python"
FILES: Final[Mapping[str, str]] = {  # where each file goes: the template that it is made of
    "DRIVERNAME.py": "driver.py.template",
    "test_DRIVERNAME.py": "test.py.template",
    "pytest.ini": "pytest.ini.template",
    "README.md": "README.md.template",
    ".github/workflows/snapcheck.yml": "workflow.yml.template",
}


def new_driver_command(name: str) -> int:
    """Write the skeleton into a new folder called `name`, and say what to do with it."""
    require_name(name)
    folder = Path(name)
    try:
        folder.mkdir()
        for path, text in skeleton(name).items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
    except FileExistsError:
        raise CallError(f"{folder} is there already, and nothing is overwritten; choose another name") from None
    except OSError as error:
        raise CallError(f"{folder}: can not write there: {error.strerror or error}") from None
    say(f"{folder}/ holds a driver that works. Now:")
    say(f"  cd {folder} && snapcheck run {name}:open_driver --profile quick")
    return 0


def require_name(name: str) -> None:
    """Raise `CallError` unless `name` can be that of a Python module of one's own."""
    what = f"{name!a} can not be the name of the new module"
    if not name.isidentifier() or not name.isascii() or keyword.iskeyword(name):
        raise CallError(f"{what}: take letters, digits and underscores, such as my_driver")
    if name in sys.stdlib_module_names or name == "snapcheck":
        raise CallError(f"{what}: a module of that name exists; take another, such as my_{name}")


def skeleton(name: str) -> dict[str, str]:
    """Return the text of each file, by its path in the new folder."""
    templates = resources.files("snapcheck.cli").joinpath(TEMPLATES)
    return {
        path.replace(PLACEHOLDER, name): templates.joinpath(template).read_text("utf-8").replace(PLACEHOLDER, name)
        for path, template in FILES.items()
    }
