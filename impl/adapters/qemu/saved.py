"""The state of a machine as QEMU saves it: a stream of its own, in which the harness' patterns have no place.

A machine without devices saves the same bytes every time, but for the name of the run state that it is in. So what
belongs there is known, wherever it is read back from.
"""

from dataclasses import dataclass
from typing import Final

from snapcheck.model.content import vmstate_pattern
from snapcheck.model.operations import OWN_STATE_TAG

_RUN_STATE: Final = b"\x0bglobalstate"  # the name of the section, behind its length
_BEFORE_RUN_STATE: Final = 12  # bytes: instance, version, size of what follows
_RUN_STATE_BYTES: Final = 100


@dataclass(frozen=True, slots=True)
class SavedMachine:
    """What a program saved when it was started: `raw`."""

    raw: bytes

    def shown(self, raw: bytes) -> bytes:
        """Return the pattern that stands for a machine's own state where `raw` is one, and any other `raw` as it is."""
        if len(raw) != len(self.raw) or _without_run_state(raw) != _without_run_state(self.raw):
            return raw
        return vmstate_pattern(tag=OWN_STATE_TAG, offset=0, length=len(raw))


def _without_run_state(raw: bytes) -> bytes:
    found = raw.find(_RUN_STATE)
    if found < 0:
        return raw
    begin = found + len(_RUN_STATE) + _BEFORE_RUN_STATE
    return raw[:begin] + raw[begin + _RUN_STATE_BYTES :]
