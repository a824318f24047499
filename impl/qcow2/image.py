"""A qcow2 image, open for use: the library's front."""

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from snapcheck.impl.blockfile import BlockError, BlockFile, DiskFile
from snapcheck.impl.qcow2 import guest, snapshots
from snapcheck.impl.qcow2.check import Report, inspect
from snapcheck.impl.qcow2.format import format_image
from snapcheck.impl.qcow2.layout import SIZE_MAX, Header, SnapshotEntry, ceil_div
from snapcheck.impl.qcow2.resize import resize
from snapcheck.impl.qcow2.state import State
from snapcheck.model.errno import Errno
from snapcheck.model.snapshot import SnapshotInfo


def _ignore(_: str) -> None:
    pass


class Image:
    """An open image. Errors of I/O and of the API are `BlockError`, an image that can not be used is `ImageError`.

    After a failure the image says the same as the medium. Where that could not be brought about it is dead: every
    call but `close` raises, until the image is opened again.
    """

    __slots__ = ("_owns_file", "_read_only", "_state")

    def __init__(self, state: State, *, read_only: bool, owns_file: bool) -> None:
        self._state = state
        self._read_only = read_only
        self._owns_file = owns_file

    # --- opening and closing ----------------------------------------------------------------------
    @classmethod
    def open(cls, file: BlockFile | Path | str, *, read_only: bool = False) -> Self:
        """Open the image in `file`. A file that is given by its path is closed together with the image."""
        if isinstance(file, str | Path):
            disk = DiskFile(Path(file), read_only=read_only)
            return cls._opened(disk, lambda: State(disk, read_only=read_only), read_only=read_only)
        return cls(State(file, read_only=read_only), read_only=read_only, owns_file=False)

    @classmethod
    def create(cls, file: BlockFile | Path | str, *, size_bytes: int, cluster_bytes: int = 65536) -> Self:
        """Format `file` as an empty image and open it. Whatever was in it is lost."""
        if isinstance(file, str | Path):
            disk = DiskFile(Path(file), create=True)
            return cls._opened(disk, lambda: _formatted(disk, size_bytes, cluster_bytes), read_only=False)
        return cls(_formatted(file, size_bytes, cluster_bytes), read_only=False, owns_file=False)

    @classmethod
    def _opened(cls, disk: DiskFile, make: Callable[[], State], *, read_only: bool) -> Self:
        try:
            return cls(make(), read_only=read_only, owns_file=True)
        except BaseException:
            disk.close()
            raise

    def clone(self) -> "Image":
        """Return the same image over a clone of its file: what is done to one does not show in the other."""
        return Image(self._state.clone(), read_only=self._read_only, owns_file=True)

    def close(self) -> None:
        """Pay what is owed, flush, and close the file if it was opened here."""
        try:
            if not self._state.host.dead:
                if not self._read_only:
                    self._state.settle()
                self._state.host.barrier()
        finally:
            if self._owns_file:
                self._state.host.file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # --- facts ------------------------------------------------------------------------------------
    @property
    def header(self) -> Header:
        return self._state.header

    @property
    def size_bytes(self) -> int:
        return self._state.header.size

    @property
    def snapshots(self) -> tuple[SnapshotEntry, ...]:
        """Return the entries of the snapshot table, as stored."""
        return tuple(self._state.snapshot_table.entries)

    @property
    def dead(self) -> bool:
        return self._state.host.dead

    # --- guest I/O --------------------------------------------------------------------------------
    def read(self, offset: int, length: int) -> bytes:
        return guest.read(self._within(offset, length), offset, length)

    def write(self, offset: int, data: bytes) -> None:
        """Write; after a failure each sector is old or new."""
        self._require_writable()
        if data:
            guest.write(self._within(offset, len(data)), offset, data)

    def write_zeroes(self, offset: int, length: int) -> None:
        """Make the range read as zeroes; whole clusters are freed."""
        self._require_writable()
        state = self._within(offset, length)
        guest.zero(state, offset, self._cluster_end(offset + length))

    def discard(self, offset: int, length: int) -> None:
        """Free the clusters that lie wholly in the range, they read as zeroes then; other bytes stay as they are."""
        self._require_writable()
        state = self._within(offset, length)
        guest.discard_in_file(state, guest.unmap(state, offset, self._cluster_end(offset + length)))

    def flush(self) -> None:
        """Make everything that was written durable."""
        self._state.host.require_alive()
        self._state.host.flush()

    def resize(self, size_bytes: int) -> None:
        """Change the virtual size; what is new reads as zeroes, active VM state is dropped."""
        self._require_writable(Errno.EACCES)
        resize(self._state, size_bytes)

    # --- VM state ---------------------------------------------------------------------------------
    def vmstate_read(self, offset: int, length: int) -> bytes:
        """Read VM state of the active state; bytes that were never written are zeroes."""
        return guest.read(self._state, self._vmstate_start(offset, length), length)

    def vmstate_write(self, offset: int, data: bytes) -> None:
        """Write VM state beside the guest's data; create moves it from the active state to the snapshot."""
        self._require_writable()
        start, state = self._vmstate_start(offset, len(data)), self._state
        if not data:
            return
        entries = ceil_div(start + len(data), state.header.l2_span)
        if entries > len(state.tables.l1):
            state.grow_l1(entries)
        guest.write(state, start, data)

    def _vmstate_start(self, offset: int, length: int) -> int:
        self._state.host.require_alive()
        header = self._state.header
        start = header.vm_state_index * header.l2_span + offset
        if offset < 0 or start + length > SIZE_MAX:
            raise BlockError(Errno.EFBIG, f"VM state at {offset} is out of reach")
        return start

    # --- snapshots --------------------------------------------------------------------------------
    def snapshot_create(self, info: SnapshotInfo, *, chose_id: Callable[[str], None] = _ignore) -> SnapshotInfo:
        """Take a snapshot and return its entry; its id is chosen here (`chose_id` hears it, on failure too)."""
        self._require_writable()
        return snapshots.create(self._state, info, chose_id=chose_id)

    def add_snapshot(self, info: SnapshotInfo, *, extra: bytes = b"") -> None:
        """Take a snapshot with the id, the name and the unknown extra data that are given, whatever they are."""
        self._require_writable()
        snapshots.add(self._state, info, extra=extra)

    def snapshot_goto(self, snapshot_id: str) -> None:
        """Go back to the snapshot with that id or, if there is none, that name; its virtual size comes back too."""
        self._state.host.require_alive()
        snapshots.find_by_id_or_name(self._state, snapshot_id)
        self._require_writable()
        snapshots.goto(self._state, snapshot_id)

    def snapshot_delete(self, snapshot_id: str | None, name: str | None) -> None:
        """Delete the first snapshot that matches all that is given."""
        self._state.host.require_alive()
        snapshots.find(self._state, snapshot_id, name)
        self._require_writable()
        snapshots.delete(self._state, snapshot_id, name)

    def snapshot_list(self) -> list[SnapshotInfo]:
        """Return the snapshots as the API shows them, oldest first."""
        self._state.host.require_alive()
        return snapshots.listed(self._state)

    def snapshot_load_tmp(self, snapshot_id: str | None, name: str | None) -> None:
        """Show a snapshot's content until the image is closed; the image must be open read-only (SPEC A.8)."""
        self._state.host.require_alive()
        if not self._read_only:
            raise BlockError(Errno.EINVAL, "Device is not readonly")
        snapshots.load_tmp(self._state, snapshot_id, name)

    def check(self) -> Report:
        """Check the image as it is on the medium, after paying what is owed to it."""
        self._state.host.require_alive()
        if not self._read_only:
            self._state.settle()
        return inspect(self._state.host.file)

    def _cluster_end(self, end: int) -> int:
        """Return `end`; at the end of the disk where its last cluster ends, which may be behind it."""
        header = self._state.header
        return self._state.clusters_of(end) * header.cluster_bytes if end == header.size else end

    # --- guards -----------------------------------------------------------------------------------
    def require_alive(self) -> None:
        """Raise when the image is dead after a failure."""
        self._state.host.require_alive()

    def _require_writable(self, errno: Errno = Errno.EPERM) -> None:
        self._state.host.require_alive()
        if self._read_only:
            raise BlockError(errno, "the image is open read-only")

    def _within(self, offset: int, length: int) -> State:
        state = self._state
        state.host.require_alive()
        if offset < 0 or length < 0 or offset + length > state.header.size:
            raise BlockError(Errno.EIO, f"{length} bytes at {offset} are outside the size of {state.header.size}")
        return state


def _formatted(file: BlockFile, size_bytes: int, cluster_bytes: int) -> State:
    format_image(file, size_bytes=size_bytes, cluster_bytes=cluster_bytes)
    return State(file, read_only=False)
