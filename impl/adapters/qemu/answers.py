"""What QEMU says when it refuses, in the harness' terms: an errno, where the text has one, and the device it names."""

import os
import re
from collections.abc import Iterable
from typing import Final

from snapcheck.model.errno import Errno
from snapcheck.model.history import Result

# Texts without a system error in them, of which the errno is known all the same.
_SHAPES: Final = (
    (re.compile(r"does not exist on device"), Errno.ENOENT),
    (re.compile(r"[Bb]itmap .*(not found|doesn't exist)"), Errno.ENOENT),
    (re.compile(r"[Bb]itmap already exists"), Errno.EEXIST),
    (re.compile(r"Name or id must be provided"), Errno.EINVAL),
    (re.compile(r"Can't find (the )?snapshot"), Errno.ENOENT),
    (re.compile(r"snapshot not found"), Errno.ENOENT),
    (re.compile(r"dirty bitmaps"), Errno.EBUSY),
    (re.compile(r"does not support temporarily loading"), Errno.ENOTSUP),
    (re.compile(r"Cannot find device"), Errno.ENOMEDIUM),
    (re.compile(r"(is|Image is) read[- ]only"), Errno.EACCES),
)
_TOLD: Final = (
    Errno.EPERM, Errno.ENOENT, Errno.EIO, Errno.EAGAIN, Errno.ENOMEM, Errno.EACCES, Errno.EBUSY, Errno.EEXIST,
    Errno.EINVAL, Errno.EFBIG, Errno.ENOSPC, Errno.EROFS, Errno.ERANGE, Errno.ENOTSUP, Errno.ETIMEDOUT,
    Errno.ENOMEDIUM,
)  # fmt: skip
_STRERRORS: Final = {os.strerror(-errno): errno for errno in _TOLD}
_STRERROR: Final = re.compile("|".join(re.escape(text) for text in sorted(_STRERRORS, key=len, reverse=True)))
# The shapes in which a failure of several devices names one of them; the name is the last thing quoted in each.
_NAMING: Final = tuple(
    re.compile(shape)
    for shape in (
        r"Could not (?:create|load|delete) snapshot '.*?' on '([^']*)'",
        r"(?:Failed to create snapshot|Snapshot with name) '.*' (?:already exists )?on device '([^']*)'",
        r"[Dd]evice '([^']*)' is (?:writable but does not support snapshots|read only)",
        r"No block device node '([^']*)'",
        r"vmstate block device '([^']*)' does not",
        r"Cannot find device=\\?'([^']*)' nor node",
        r"used by device '([^']*)' does not support internal snapshots",
    )
)


def errno_of(text: str) -> Errno:
    """Return the errno that an error text tells; EUNTOLD when it tells none."""
    found = _STRERROR.findall(text)
    if found:
        return _STRERRORS[found[-1]]
    return next((errno for shape, errno in _SHAPES if shape.search(text)), Errno.EUNTOLD)


def device_in(text: str, devices: Iterable[str]) -> str | None:
    """Return which of `devices` an error text blames; None when it names none of them."""
    for shape in _NAMING:
        for found in shape.finditer(text):
            name = found[1].replace(".", "/")
            if name in devices:
                return name
    return None


def refusal(text: str, devices: Iterable[str] = ()) -> Result:
    """Return the result of an operation that QEMU refused with `text`."""
    line = " ".join(text.split())
    return Result(errno_of(text), first_bad=device_in(line, tuple(devices)), message=line)
