"""Outcomes as values: the negative errno numbers that block drivers return."""

import errno as _errno
from enum import IntEnum
from typing import Self


class Errno(IntEnum):
    """Outcome of a call, with Linux's numbers, negative as QEMU returns them; OK is success.

    EUNTOLD is an error of which nobody told the number: it fits wherever any error does.
    Numbers that have no member here are made on demand: `Errno(-71)` is `Errno.EPROTO`.
    """

    OK = 0
    EPERM = -1
    ENOENT = -2
    EIO = -5
    EAGAIN = -11
    ENOMEM = -12
    EACCES = -13
    EBUSY = -16
    EEXIST = -17
    EINVAL = -22
    EFBIG = -27
    ENOSPC = -28
    EROFS = -30
    ERANGE = -34
    ENOTSUP = -95
    ETIMEDOUT = -110
    ENOMEDIUM = -123
    EUNTOLD = -4095

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, int) or not -4096 < value < 0:
            return None
        member = int.__new__(cls, value)
        member._name_ = _errno.errorcode.get(-value, f"E{-value}")
        member._value_ = value
        return cls._value2member_map_.setdefault(value, member)  # type: ignore[return-value]  # the map holds members of this class only
