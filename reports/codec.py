"""A strict codec between the frozen values of the model and plain JSON: data only, nothing is ever called by name.

* A dataclass is an object; fields that equal their default are left out.
* A member of a union (an operation, a fault, an effect) carries its name under `type`: `{"type": "all-delete", ...}`.
* An event is an array: its name, then its fields in order: `["io", "d0", "write", 65536, 512, "l2", 0]`.
* Bytes are text: two hex digits a byte, `*count` for a byte that repeats: `"01*4 00*124 a1b2"`.
* Text that is not UTF-8 keeps its surrogate escapes, so a file made with `ensure_ascii` holds any name.
"""

import re
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from functools import cache
from itertools import groupby
from operator import index
from typing import Any, Final, SupportsIndex, TypeAlias, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from snapcheck.model import faults, history
from snapcheck.model.operations import KINDS

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
Load: TypeAlias = Callable[[Json, str], object]
T = TypeVar("T")


class CodecError(ValueError):
    """The data is not what the schema allows; the text starts with the place: `steps[3].operation: ...`."""

    def __init__(self, where: str, what: str) -> None:
        super().__init__(f"{where}: {what}" if where else what)


def _dashed(name: str) -> str:
    """Return a class name as it stands in files: `FaultMet` is `fault-met`."""
    return re.sub(r"(?<=.)(?=[A-Z])", "-", name).lower()


_FAULTS: Final = (*get_args(faults.Fault), *get_args(faults.Effect))
_EVENTS: Final = get_args(history.Event)
_TAGS: Final[Mapping[type, str]] = {**KINDS, **{each: _dashed(each.__name__) for each in (*_FAULTS, *_EVENTS)}}


# --- to JSON --------------------------------------------------------------------------------------
def dump(value: object) -> Json:
    """Return `value` (of the model's vocabulary) as JSON-able data."""
    if isinstance(value, Enum):
        return cast("Json", value.value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, SupportsIndex):
        return index(value)  # a driver may work with numpy's integers, and they get into the events
    if isinstance(value, bytes):
        return runs_of(value)
    if isinstance(value, Mapping):
        return {key: dump(each) for key, each in cast("Mapping[str, object]", value).items()}
    return _dump_list(cast("Sequence[object]", value)) if isinstance(value, tuple | list) else _dump_dataclass(value)


def _dump_list(value: Sequence[object]) -> Json:
    parts = [dump(each) for each in value]
    tag = _TAGS.get(type(value))
    return parts if tag is None else [tag, *parts]


def _dump_dataclass(value: object) -> Json:
    assert is_dataclass(value), f"{type(value).__name__} has no place in a history"
    tag = _TAGS.get(type(value))
    data: dict[str, Json] = {} if tag is None else {"type": tag}
    for each in fields(value):
        part = getattr(value, each.name)
        if part != _default_of(each):
            data[each.name] = dump(part)
    return data


def _default_of(spec: "Field[Any]") -> object:
    if spec.default_factory is not MISSING:
        return spec.default_factory()
    return spec.default


def runs_of(data: bytes) -> str:
    """Return `data` as text: hex, with `*count` behind a byte that repeats more than three times."""
    words: list[str] = []
    plain = ""
    for byte, run in groupby(data):
        count = len(list(run))
        if count > 3:
            words += [plain, f"{byte:02x}*{count}"]
            plain = ""
        else:
            plain += f"{byte:02x}" * count
    return " ".join(word for word in (*words, plain) if word)


# --- from JSON ------------------------------------------------------------------------------------
_WORD: Final = re.compile(r"([0-9a-f]{2})\*([1-9][0-9]{0,8})|((?:[0-9a-f]{2})+)", re.ASCII)
BYTES_MAX: Final = 1 << 26  # a damaged count must not fill the memory


def bytes_of(text: str) -> bytes:
    """Return the bytes that `text` spells, the inverse of `runs_of`; raise ValueError for anything else."""
    pieces: list[bytes] = []
    length = 0
    for word in text.split(" ") if text else ():
        found = _WORD.fullmatch(word)
        if found is None:
            raise ValueError(f"{word[:20]!r} is neither hex nor hex*count")
        byte, count, plain = found.groups()
        length += int(count) if byte else len(plain) // 2
        if length > BYTES_MAX:
            raise ValueError(f"more than {BYTES_MAX} bytes")
        pieces.append(bytes.fromhex(byte) * int(count) if byte else bytes.fromhex(plain))
    return b"".join(pieces)


def load(kind: type[T], raw: Json, where: str = "") -> T:
    """Return `raw` as a value of `kind`, or raise `CodecError` that says where it is wrong and how."""
    return cast("T", _loader(cast("object", kind))(raw, where))


@cache
def _loader(hint: object) -> Load:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is None:
        assert isinstance(hint, type)
        return _load_class(cast("type[Any]", hint))
    if origin in (Union, types.UnionType):
        return _load_union(arguments)
    if origin in (tuple, list):
        return _load_list(arguments[0], immutable=origin is tuple)
    return _load_mapping(arguments[1])


def _load_class(kind: type[Any]) -> Load:
    if kind is bytes:
        return _load_bytes
    if issubclass(kind, Enum):
        return _load_enum(kind)
    if issubclass(kind, tuple):
        return _load_event(cast("type[Any]", kind))
    return _load_dataclass(kind) if is_dataclass(kind) else _load_plain(kind)


def _load_plain(kind: type[Any]) -> Load:
    accepted = (int, float) if kind is float else (kind,)

    def read(raw: Json, where: str) -> object:
        if type(raw) not in accepted:  # not isinstance: True is no number here
            raise CodecError(where, f"expected {_NAMES.get(kind, kind.__name__)}, found {_name(raw)}")
        return raw

    return read


def _load_bytes(raw: Json, where: str) -> object:
    if not isinstance(raw, str):
        raise CodecError(where, f"expected bytes as text, found {_name(raw)}")
    try:
        return bytes_of(raw)
    except ValueError as error:
        raise CodecError(where, str(error)) from None


def _load_enum(kind: type[Enum]) -> Load:
    plain = _load_plain(int if issubclass(kind, int) else str)

    def read(raw: Json, where: str) -> object:
        value = plain(raw, where)
        try:
            return kind(value)
        except ValueError:
            raise CodecError(where, f"{_name(raw)} is no {kind.__name__.lower()}") from None

    return read


def _load_list(item: object, *, immutable: bool) -> Load:
    def read(raw: Json, where: str) -> object:
        if not isinstance(raw, list):
            raise CodecError(where, f"expected a list, found {_name(raw)}")
        each = _loader(item)
        parts = [each(part, f"{where}[{index}]") for index, part in enumerate(raw)]
        return tuple(parts) if immutable else parts

    return read


def _load_mapping(item: object) -> Load:
    def read(raw: Json, where: str) -> object:
        return {key: _loader(item)(part, f"{where}.{key}") for key, part in _object(raw, where).items()}

    return read


def _load_union(members: tuple[object, ...]) -> Load:
    tagged = {_TAGS[each]: each for each in members if isinstance(each, type) and each in _TAGS}
    if tagged:
        return _load_tagged(tagged)
    (other,) = (each for each in members if each is not types.NoneType)  # every other union is `X | None`

    def read(raw: Json, where: str) -> object:
        return None if raw is None else _loader(other)(raw, where)

    return read


def _load_tagged(kinds: Mapping[str, type]) -> Load:
    def read(raw: Json, where: str) -> object:
        match raw:
            case [str() as tag, *_] | {"type": str() as tag}:
                if tag in kinds:
                    return _loader(kinds[tag])(raw, where)
                raise CodecError(where, f"unknown type {_name(tag)}")
            case _:
                raise CodecError(where, f"expected an object with a type, found {_name(raw)}")

    return read


def _load_event(kind: type[Any]) -> Load:
    hints = list(get_type_hints(kind).values())

    def read(raw: Json, where: str) -> object:
        if not isinstance(raw, list) or len(raw) != len(hints) + 1:
            raise CodecError(where, f"expected {_TAGS[kind]!r} and its {len(hints)} fields")
        parts = [
            _loader(hint)(part, f"{where}[{index}]")
            for index, (hint, part) in enumerate(zip(hints, raw[1:], strict=True), 1)
        ]
        return kind(*parts)

    return read


def _load_dataclass(kind: type[Any]) -> Load:
    hints = get_type_hints(kind)
    required = [spec.name for spec in fields(kind) if _default_of(spec) is MISSING]
    known = {*hints, "type"} if kind in _TAGS else {*hints}

    def read(raw: Json, where: str) -> object:
        data = _object(raw, where)
        for name in required:
            if name not in data:
                raise CodecError(where, f"{name} is missing")
        for name in data:
            if name not in known:
                raise CodecError(where, f"unknown key {_name(name)}")
        prefix = f"{where}." if where else ""
        return kind(**{name: _loader(hints[name])(data[name], prefix + name) for name in data if name in hints})

    return read


def _object(raw: Json, where: str) -> dict[str, Json]:
    if not isinstance(raw, dict):
        raise CodecError(where, f"expected an object, found {_name(raw)}")
    return raw


_NAMES: Final = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def _name(raw: Json) -> str:
    """Return a short name of `raw` for an error text, safe to print."""
    if isinstance(raw, list | dict):
        return "a list" if isinstance(raw, list) else "an object"
    return ascii(raw) if len(ascii(raw)) <= 40 else ascii(raw)[:36] + "...'"
