"""Going on with a run that was killed: the folder of its journals, inside that of its report, and whose they are."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final, cast

from snapcheck.cli.errors import CallError
from snapcheck.reports.files import write_whole

FOLDER: Final = "progress"
_RUN: Final = "run.json"


def begin(report: Path, run: Mapping[str, object], *, resume: bool) -> Path:
    """Return the folder for the journals of `run`: an empty one or, to resume it, the one that it has left.

    `run` is what makes two runs the same one. Raises `CallError` when there is none, or another one, to go on with.
    """
    folder = report / FOLDER
    if resume:
        _require_same(folder, run)
    else:
        forget(report)
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / _RUN, (json.dumps(run, indent=1) + "\n",))
    return folder


def forget(report: Path) -> None:
    """Delete the journals of a run that came to its end, and no file besides."""
    folder = report / FOLDER
    if folder.is_dir():
        for path in (*folder.glob("*-*.jsonl"), folder / _RUN):
            path.unlink(missing_ok=True)
        if not any(folder.iterdir()):
            folder.rmdir()


def _require_same(folder: Path, run: Mapping[str, object]) -> None:
    try:
        left = cast("object", json.loads((folder / _RUN).read_text(encoding="utf-8")))
    except OSError:
        raise CallError(f"--resume: no run was broken off in {folder.parent}; leave --resume out") from None
    except ValueError:
        raise CallError(f"--resume: {folder / _RUN} is damaged; leave --resume out to begin anew") from None
    former = cast("Mapping[str, object]", left) if isinstance(left, dict) else dict[str, object]()
    for name, value in run.items():
        if former.get(name) != value:
            what = f"its {name} is {former.get(name)!a}, not {value!a}"
            raise CallError(
                f"--resume: the run in {folder.parent} is another one: {what}; ask for the same, or begin anew"
            )
