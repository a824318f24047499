"""The disks below QEMU: block files of the harness, each an export of a small NBD server.

Whatever reaches a disk passes through the harness: it is recorded, meets faults, and can be cloned at any time.
"""

import socket
from typing import Final, NamedTuple

from snapcheck.impl.adapters.qemu import nbd
from snapcheck.impl.adapters.qemu.nbd import Command, Inbox
from snapcheck.impl.adapters.qemu.pump import Pump
from snapcheck.impl.blockfile import BlockError, BlockFile

ROOM_BYTES: Final = 64 << 20  # what an image may grow to: an NBD export does not grow, so it is large from the start


class Disk(NamedTuple):
    """A block file, and how large it looks to QEMU."""

    file: BlockFile
    size: int


class DiskServer:
    """Serves block files by name, at an abstract socket `address`: nothing of it is in a file system."""

    def __init__(self, pump: Pump, address: str) -> None:
        self._pump = pump
        self.address = address
        self.disks: dict[str, Disk] = {}
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(f"\0{address}")
        self._listener.listen(64)
        pump.add(self._listener, self._accept)

    def offer(self, name: str, file: BlockFile, *, size: int = ROOM_BYTES) -> None:
        """Let whoever connects to `name` have `file`; those that are connected keep what they had."""
        self.disks[name] = Disk(file, size)

    def _accept(self) -> None:
        endpoint, _ = self._listener.accept()
        _Connection(self, self._pump, endpoint)


class _Connection:
    """One client: first it negotiates, then it sends requests, each of which is answered before the next is read."""

    def __init__(self, server: DiskServer, pump: Pump, endpoint: socket.socket) -> None:
        self._server = server
        self._pump = pump
        self._endpoint = endpoint
        self._inbox = Inbox(endpoint)
        self._disk: Disk | None = None
        self._welcome = False  # the client has sent its flags
        endpoint.sendall(nbd.GREETING + nbd.FIXED_NEWSTYLE_NO_ZEROES.to_bytes(2, "big"))
        pump.add(endpoint, self._arrived)

    def _arrived(self) -> None:
        self._inbox.fill()
        if self._inbox.ended:
            self._pump.drop(self._endpoint)
            return
        try:
            while self._inbox and self._turn():
                pass
        except ConnectionError:  # it is gone before it had its answer
            self._pump.drop(self._endpoint)

    def _turn(self) -> bool:
        """Take one message; return whether there may be another."""
        if self._disk is not None:
            return self._request(self._disk)
        if not self._welcome:
            self._welcome = len(self._inbox) >= 4 and bool(self._inbox.take(4))
            return self._welcome
        return self._option()

    # --- negotiation ------------------------------------------------------------------------------
    def _option(self) -> bool:
        head = self._inbox.peek(nbd.OPTION.size)
        if head is None:
            return False
        _, option, length = nbd.OPTION.unpack(head)
        if len(self._inbox) < nbd.OPTION.size + length:
            return False
        data = self._inbox.take(nbd.OPTION.size + length)[nbd.OPTION.size :]
        if option != nbd.GO:
            self._answer(option, nbd.UNSUPPORTED)
            return True
        name = data[4 : 4 + int.from_bytes(data[:4], "big")].decode()
        disk = self._server.disks.get(name)
        if disk is None:
            self._answer(option, nbd.UNKNOWN)
            return True
        self._answer(option, nbd.INFO, nbd.INFO_EXPORT.pack(0, disk.size, nbd.FLAGS))
        self._answer(option, nbd.INFO, nbd.INFO_BLOCK_SIZE.pack(3, 1, 4096, nbd.TRANSFER_BYTES_MAX))
        self._answer(option, nbd.ACK)
        self._disk = disk
        return True

    def _answer(self, option: int, kind: int, data: bytes = b"") -> None:
        self._endpoint.sendall(nbd.OPTION_REPLY.pack(nbd.OPTION_REPLY_MAGIC, option, kind, len(data)) + data)

    # --- requests ---------------------------------------------------------------------------------
    def _request(self, disk: Disk) -> bool:
        head = self._inbox.peek(nbd.REQUEST.size)
        if head is None:
            return False
        _, _, kind, handle, offset, length = nbd.REQUEST.unpack(head)
        payload = length if kind == Command.WRITE else 0
        if len(self._inbox) < nbd.REQUEST.size + payload:
            return False
        data = self._inbox.take(nbd.REQUEST.size + payload)[nbd.REQUEST.size :]
        if kind == Command.DISCONNECT:
            self._pump.drop(self._endpoint)
            return False
        error, answer = _served(disk.file, kind, offset, length, data)
        self._endpoint.sendall(nbd.REPLY.pack(nbd.REPLY_MAGIC, error, handle) + answer)
        return True


def _served(file: BlockFile, kind: int, offset: int, length: int, data: bytes) -> tuple[int, bytes]:
    """Do what a request asks for; return the error that the protocol has for how it went, and what was read."""
    try:
        match kind:
            case Command.READ:
                return 0, file.pread(offset, length)
            case Command.WRITE:
                file.pwrite(offset, data)
            case Command.FLUSH:
                file.flush()
            case Command.TRIM | Command.WRITE_ZEROES:
                file.discard(offset, length)
            case _:
                return nbd.number_of(BlockError(-22)), b""
    except BlockError as error:
        return nbd.number_of(error), b""
    return 0, b""
