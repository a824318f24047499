"""The NBD protocol as far as both ends of the adapter need it: newstyle negotiation, simple replies.

Source: the protocol's description (github.com/NetworkBlockDevice/nbd, doc/proto.md). All numbers are big-endian.
"""

import socket
import struct
from enum import IntEnum
from typing import Final

from snapcheck.impl.blockfile import BlockError
from snapcheck.model.errno import Errno

GREETING: Final = b"NBDMAGIC" + b"IHAVEOPT"
OPTION_MAGIC: Final = b"IHAVEOPT"
FIXED_NEWSTYLE_NO_ZEROES: Final = 3
OPTION: Final = struct.Struct(">8sII")  # magic, option, length
OPTION_REPLY: Final = struct.Struct(">QIII")  # magic, option, type, length
OPTION_REPLY_MAGIC: Final = 0x3E889045565A9
EXPORT_NAME: Final = 1
GO: Final = 7
ACK: Final = 1
INFO: Final = 3
UNSUPPORTED: Final = 0x80000001
UNKNOWN: Final = 0x80000006
INFO_EXPORT: Final = struct.Struct(">HQH")  # kind 0, size, flags
INFO_BLOCK_SIZE: Final = struct.Struct(">HIII")  # kind 3, minimum, preferred, maximum
EXPORT: Final = struct.Struct(">QH")  # size, flags
FLAGS: Final = 1 | 4 | 32 | 64  # has flags; flush, trim and write-zeroes are understood
REQUEST: Final = struct.Struct(">IHHQQI")  # magic, flags, type, handle, offset, length
REQUEST_MAGIC: Final = 0x25609513
REPLY: Final = struct.Struct(">IIQ")  # magic, error, handle
REPLY_MAGIC: Final = 0x67446698
TRANSFER_BYTES_MAX: Final = 32 << 20

# The errors that the protocol knows; it tells any other one as EINVAL.
ERRNOS: Final = (Errno.EPERM, Errno.EIO, Errno.ENOMEM, Errno.EINVAL, Errno.ENOSPC, Errno.ENOTSUP)


class Command(IntEnum):
    """What a request asks for."""

    READ = 0
    WRITE = 1
    DISCONNECT = 2
    FLUSH = 3
    TRIM = 4
    WRITE_ZEROES = 6


def number_of(error: BlockError) -> int:
    """Return what the protocol says for `error`."""
    return -error.errno if error.errno in ERRNOS else -Errno.EINVAL


class Inbox:
    """What has arrived on a socket and was not taken yet."""

    def __init__(self, endpoint: socket.socket) -> None:
        self._endpoint = endpoint
        self._data = bytearray()
        self.ended = False

    def fill(self) -> None:
        """Read what is there; `ended` tells that there will be no more."""
        try:
            data = self._endpoint.recv(1 << 20)
        except ConnectionError:
            data = b""
        self._data += data
        self.ended = self.ended or not data

    def __len__(self) -> int:
        return len(self._data)

    def peek(self, length: int) -> bytes | None:
        """Return the first `length` bytes and leave them there; None when they have not all arrived."""
        return bytes(self._data[:length]) if len(self._data) >= length else None

    def take(self, length: int) -> bytes:
        """Return the first `length` bytes, which must be there."""
        taken = bytes(self._data[:length])
        del self._data[:length]
        return taken

    def line(self) -> bytes | None:
        """Return the first line; None when it has not arrived to its end."""
        end = self._data.find(b"\n")
        return None if end < 0 else self.take(end + 1)
