"""The harness that users run: model and driver side by side.

Names are exported lazily, so that importing the pytest plugin imports neither Hypothesis nor numpy nor networkx.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from snapcheck.stateful_tests.machine import SnapshotMachine, machine_for, snapshot_test_case
    from snapcheck.stateful_tests.replay import assert_holds, replay
    from snapcheck.stateful_tests.run import RunOptions, run_driver
    from snapcheck.stateful_tests.units import Profile

_HOMES: Final = {
    "SnapshotMachine": "machine",
    "machine_for": "machine",
    "snapshot_test_case": "machine",
    "assert_holds": "replay",
    "replay": "replay",
    "Profile": "units",
    "RunOptions": "run",
    "run_driver": "run",
}

__all__ = [
    "Profile", "RunOptions", "SnapshotMachine", "assert_holds", "machine_for", "replay", "run_driver",
    "snapshot_test_case",
]  # fmt: skip


def __getattr__(name: str) -> object:
    """Import what is asked for when it is asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
