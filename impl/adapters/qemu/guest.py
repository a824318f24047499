"""A guest of QEMU: whoever reads and writes a device from above, through an NBD export of QEMU's."""

import socket
from typing import Final

from snapcheck.impl.adapters.qemu import nbd
from snapcheck.impl.adapters.qemu.nbd import Command, Inbox
from snapcheck.impl.adapters.qemu.pump import Pump
from snapcheck.impl.blockfile import BlockError

_HANDLE: Final = 1  # there is never more than one request under way


class Guest:
    """One connection to an export; each request waits for its answer, and raises `BlockError` for an error.

    `size` is what the export had when it was made. ConnectionError says that QEMU has hung up.
    """

    def __init__(self, pump: Pump, address: str, export: str) -> None:
        self._pump = pump
        self._endpoint = socket.socket(socket.AF_UNIX)
        self._endpoint.connect(f"\0{address}")
        self._inbox = Inbox(self._endpoint)
        pump.add(self._endpoint, self._arrived)
        self._wait(len(nbd.GREETING) + 2)
        name = export.encode()
        option = nbd.OPTION.pack(nbd.OPTION_MAGIC, nbd.EXPORT_NAME, len(name))
        self._endpoint.sendall(nbd.FIXED_NEWSTYLE_NO_ZEROES.to_bytes(4, "big") + option + name)
        self.size, _ = nbd.EXPORT.unpack(self._wait(nbd.EXPORT.size))

    def _arrived(self) -> None:
        self._inbox.fill()
        if self._inbox.ended:
            self.close()

    def _wait(self, length: int) -> bytes:
        self._pump.until(lambda: len(self._inbox) >= length or self._inbox.ended, "an answer to a guest")
        if len(self._inbox) < length:
            raise ConnectionError("QEMU closed the connection of a guest")
        return self._inbox.take(length)

    def request(self, command: Command, offset: int = 0, length: int = 0, data: bytes = b"") -> bytes:
        """Send one request and return what was read."""
        self.ask(command, offset, length, data)
        return self.answer(length if command is Command.READ else 0)

    def ask(self, command: Command, offset: int = 0, length: int = 0, data: bytes = b"") -> None:
        """Send one request; `answer` has to follow before the next one."""
        head = nbd.REQUEST.pack(nbd.REQUEST_MAGIC, 0, command, _HANDLE, offset, length or len(data))
        try:
            self._endpoint.sendall(head + data)
        except OSError as error:
            raise ConnectionError("QEMU closed the connection of a guest") from error

    def answer(self, length: int) -> bytes:
        """Wait for the answer to what was asked, and return the `length` bytes that were read."""
        _, failed, _ = nbd.REPLY.unpack(self._wait(nbd.REPLY.size))
        if failed:
            raise BlockError(-failed)
        return self._wait(length) if length else b""

    def close(self) -> None:
        """Hang up."""
        self._pump.drop(self._endpoint)
