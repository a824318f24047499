"""repro/ID.py: a violation as a pytest function that needs nothing but snapcheck and the driver.

The history is spelled as constructor calls with literals. `read` takes such a file apart again by its syntax tree,
without running it: replaying a stranger's reproducer executes none of the stranger's code.
"""

import ast
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass, replace
from enum import Enum
from itertools import groupby
from pathlib import Path
from typing import Any, Final, NamedTuple, cast, get_args

from snapcheck.model import errno, faults, history, operations, power_cut, setup
from snapcheck.model.history import History, Step
from snapcheck.reports import codec
from snapcheck.reports.codec import CodecError
from snapcheck.reports.files import write_whole
from snapcheck.reports.jsonl import HistoryError, check_history
from snapcheck.reports.verdict import NOT_REPRODUCED, RunResult, ViolationReport

WIDTH: Final = 100
NAMES: Final[Mapping[str, type[Any]]] = {
    each.__name__: each
    for each in (
        *operations.OPERATIONS, operations.SnapshotAction, *get_args(faults.Fault), *get_args(faults.Effect),
        setup.Setup, setup.DeviceSpec, setup.PreparedSnapshot, setup.Damage, setup.Kind, setup.Semantics,
        setup.Unfinished,
        history.Care, history.History, history.Step, history.Purpose, errno.Errno, history.PowerCut, history.After,
        power_cut.Cut, power_cut.TornWrite, power_cut.Filling,
    )
}  # fmt: skip


_ENUMS: Final = {name: kind for name, kind in NAMES.items() if issubclass(kind, Enum)}


class Reproducer(NamedTuple):
    """What is in such a file. `reproduced` is false where no replay has shown the violation yet."""

    driver: str
    history: History
    reproduced: bool = True


# --- writing --------------------------------------------------------------------------------------
def write(folder: Path, result: RunResult) -> None:
    """Write `folder`/ID.py for each violation whose history was recorded."""
    for violation in result.violations:
        if violation.history is not None:
            folder.mkdir(exist_ok=True)
            write_whole(folder / f"{violation.id}.py", (source(result, violation, violation.history),))


def source(result: RunResult, violation: ViolationReport, shown: History) -> str:
    """Return the text of a reproducer: it fails while the driver breaks the law, and passes once it is fixed."""
    body = spell(questions(shown), indent=1)
    name = "".join(letter if letter.isalnum() else "_" for letter in violation.law.value)
    doubt, told = ("", ()) if violation.reproduced else (", reproduced=False", _comment(NOT_REPRODUCED))
    return "\n".join((
        *_comment(violation.law.value, "on", violation.device, "at", violation.operation + ":", violation.summary),
        *_comment(f"Found by snapcheck {result.version}, phase {violation.phase}, seed {result.seed}."),
        *told,
        "#", f"# Run it: pytest {violation.id}.py", "", *_imports(body), "", "",
        f"def test_{name}_{violation.id}() -> None:",
        f"    history = {body}",
        f"    assert_holds(driver={result.driver!a}, history=history{doubt})", "",
    ))  # fmt: skip


def questions(answered: History) -> History:
    """Return `answered` without what was answered and seen: the part that a replay needs.

    Faults that struck nobody are left out, as a replay that meets a fault no more can not tell whether all is well.
    """
    cut, care = answered.cut, answered.care
    asked = None if cut is None else replace(cut, then=(), seen=(), log=())
    steps = [
        Step(each.operation, each.met if answered.answered else each.faults, each.purpose) for each in answered.steps
    ]
    return History(answered.setup, steps, cut=asked, care=care if cut is None else None)


def _comment(*words: str) -> Iterator[str]:
    text = " ".join(words).encode("ascii", "backslashreplace").decode()
    yield "# " + " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def _imports(body: str) -> Iterator[str]:
    used = {node.id for node in ast.walk(ast.parse(body.strip(), mode="eval")) if isinstance(node, ast.Name)}
    by_module = sorted((NAMES[name].__module__, name) for name in used)
    for module, names in groupby(by_module, key=lambda pair: pair[0]):
        yield f"from {module} import {', '.join(name for _, name in names)}"
    yield "from snapcheck.stateful_tests.replay import assert_holds"


def spell(value: object, *, indent: int = 0) -> str:
    """Return `value` as a Python expression, on one line where it fits in."""
    if is_dataclass(value):
        return _bracket(f"{type(value).__name__}(", _arguments(value, indent + 1), ")", indent)
    if isinstance(value, Enum):
        known = value.name in type(value).__members__
        return f"{type(value).__name__}.{value.name}" if known else f"{type(value).__name__}({value.value})"
    if isinstance(value, tuple | list):
        opening, closing = "()" if isinstance(value, tuple) else "[]"
        parts = [spell(each, indent=indent + 1) for each in cast("Sequence[object]", value)]
        comma = "," if isinstance(value, tuple) and len(parts) == 1 else ""
        return _bracket(opening, parts, comma + closing, indent)
    return ascii(value)


def _arguments(value: object, indent: int) -> list[str]:
    """Return the arguments that are not defaults, each with its name."""
    parts = ((spec, getattr(value, spec.name)) for spec in fields(value))  # type: ignore[arg-type]  # a dataclass
    return [f"{spec.name}={spell(part, indent=indent)}" for spec, part in parts if not _is_default(spec, part)]


def _is_default(spec: "Field[Any]", part: object) -> bool:
    return bool(part == (spec.default if spec.default_factory is MISSING else spec.default_factory()))


def _bracket(opening: str, parts: Sequence[str], closing: str, indent: int) -> str:
    line = opening + ", ".join(parts) + closing
    if "\n" not in line and len(line) + 4 * indent <= WIDTH:
        return line
    pad = "    " * (indent + 1)
    return opening + "".join(f"\n{pad}{part}," for part in parts) + "\n" + "    " * indent + closing.lstrip(",")


# --- reading --------------------------------------------------------------------------------------
def read(path: Path) -> Reproducer:
    """Return what is in a reproducer; raise `HistoryError` for anything that is not one."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise HistoryError(f"{path}: {error.strerror or error}") from None
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        raise HistoryError(f"{path}: not Python, so not a reproducer") from None
    driver, shown, reproduced = (_found(tree, name) for name in Reproducer._fields)
    if driver is None or shown is None:
        raise HistoryError(f"{path}: no assert_holds(driver=..., history=...) in it, so not a reproducer")
    try:
        return _judged(_value(driver), _value(shown), True if reproduced is None else _value(reproduced))
    except (CodecError, TypeError, ValueError, RecursionError) as error:
        raise HistoryError(f"{path}: {error}") from None


def _found(tree: ast.Module, name: str) -> ast.expr | None:
    """Return what `name` stands for: the last assignment to it, or the keyword of assert_holds."""
    assigned: ast.expr | None = None
    keyword: ast.expr | None = None
    for node in ast.walk(tree):
        match node:
            case ast.Assign(targets=[ast.Name(id=target)], value=value) if target == name:
                assigned = value
            case ast.keyword(arg=argument, value=value) if argument == name and not isinstance(value, ast.Name):
                keyword = value
            case _:
                pass
    return keyword if assigned is None else assigned


def _judged(driver: object, shown: object, reproduced: object) -> Reproducer:
    """Return them once they are known to be of the right types, down to the last field."""
    if not isinstance(driver, str) or not isinstance(shown, History) or not isinstance(reproduced, bool):
        raise CodecError("", "assert_holds needs a driver's name and a History, and perhaps reproduced=False")
    checked = codec.load(History, codec.dump(shown))
    check_history(checked)
    return Reproducer(driver, checked, reproduced)


def _value(node: ast.expr) -> object:
    match node:
        case ast.Constant(value=value) if value is None or isinstance(value, str | int | bytes):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int(number))):
            return -number
        case ast.Tuple(elts=parts):
            return tuple(_value(each) for each in parts)
        case ast.List(elts=parts):
            return [_value(each) for each in parts]
        case ast.Attribute(value=ast.Name(id=name), attr=member) if name in _ENUMS:
            return _member(_ENUMS[name], member)
        case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords) if name in NAMES:
            named = {each.arg: _value(each.value) for each in keywords if each.arg}
            make = cast("Callable[..., object]", NAMES[name])
            return make(*(_value(each) for each in args), **named)
        case _:
            raise ValueError(f"line {node.lineno}: only the model's values and literals belong in a history")


def _member(kind: type[Enum], name: str) -> object:
    if name not in kind.__members__:
        raise ValueError(f"{kind.__name__} has no member {name}")
    return kind[name]
