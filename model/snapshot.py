"""The values of the seed header: a snapshot's table entry, its field limits, and the snapshot selector."""

from dataclasses import dataclass, replace
from typing import Final

ID_BYTES_MAX: Final = 127  # char id_str[128], one byte for the NUL
NAME_BYTES_MAX: Final = 255  # char name[256]
_CHARACTER_BYTES_MAX: Final = 4  # of UTF-8

SNAPSHOT_OPT_BASE: Final = "snapshot."
SNAPSHOT_OPT_ID: Final = "snapshot.id"
SNAPSHOT_OPT_NAME: Final = "snapshot.name"


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """One snapshot as the API shows it (QEMUSnapshotInfo).

    Text is UTF-8; bytes that are not UTF-8 are kept as surrogate escapes. Sizes are bytes, clocks are nanoseconds.
    """

    id_str: str = ""
    name: str = ""
    vm_state_size: int = 0
    date_sec: int = 0
    date_nsec: int = 0
    vm_clock_nsec: int = 0


def cut_text(text: str, *, bytes_max: int) -> str:
    """Return what a C buffer keeps of `text`: at most `bytes_max` bytes of its UTF-8 (SPEC A.1, B.5)."""
    if len(text) * _CHARACTER_BYTES_MAX <= bytes_max or (len(text) <= bytes_max and text.isascii()):
        return text
    raw = text.encode("utf-8", "surrogateescape")
    return text if len(raw) <= bytes_max else raw[:bytes_max].decode("utf-8", "surrogateescape")


def as_listed(sn: SnapshotInfo) -> SnapshotInfo:
    """Return `sn` as the API lists it: id and name cut to their fields' limits (SPEC B.5)."""
    id_str, name = cut_text(sn.id_str, bytes_max=ID_BYTES_MAX), cut_text(sn.name, bytes_max=NAME_BYTES_MAX)
    return sn if id_str is sn.id_str and name is sn.name else replace(sn, id_str=id_str, name=name)


@dataclass(frozen=True, slots=True)
class SnapshotSelector:
    """Which snapshot a tool was asked for: by id, by name, by both, or by text that is an id or else a name."""

    snapshot_id: str | None = None
    name: str | None = None
    id_or_name: str | None = None


def snapshot_selector(text: str) -> SnapshotSelector:
    """Parse what tools take (internal_snapshot_opts, SPEC C.7): "snapshot.id=1,snapshot.name=x", or a bare id or name.

    In a value ",," stands for a comma. Of a key that is given twice the last value counts. A ValueError says what
    is wrong, and the way out.
    """
    if not text.startswith(SNAPSHOT_OPT_BASE):
        return SnapshotSelector(id_or_name=text)
    values: dict[str, str] = {}
    for part in text.replace(",,", "\0").split(","):
        key, equals, value = part.replace("\0", ",").partition("=")
        if key not in (SNAPSHOT_OPT_ID, SNAPSHOT_OPT_NAME):
            raise _bad_selector(text, f"unknown key {key!r}")
        if not equals:
            raise _bad_selector(text, f"{key} has no value")
        values[key] = value
    return SnapshotSelector(values.get(SNAPSHOT_OPT_ID), values.get(SNAPSHOT_OPT_NAME))


def _bad_selector(text: str, what: str) -> ValueError:
    form = f"{SNAPSHOT_OPT_ID}=ID, {SNAPSHOT_OPT_NAME}=NAME, both with a comma between, or a bare id or name"
    return ValueError(f"snapshot selector {text!r}: {what}; use {form}")
