"""The DRIVER argument."""

from snapcheck.cli.errors import CallError
from snapcheck.impl.targets import Target, TargetError, find_target


def target_of(spec: str) -> Target:
    """Return the driver that `spec` names; `CallError` when there is none."""
    try:
        return find_target(spec)
    except TargetError as error:
        raise CallError(str(error)) from None
