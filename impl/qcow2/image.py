"""A qcow2 image, open for use: the library's front."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Required, Self, TypedDict, Unpack

from snapcheck.impl.blockfile import BlockError, BlockFile, DiskFile
from snapcheck.impl.qcow2 import guest, snapshots
from snapcheck.impl.qcow2.backing import CHAIN_MAX, FORMATS, Backing, RawBacking, path_of
from snapcheck.impl.qcow2.bitmaps import Bitmap
from snapcheck.impl.qcow2.check import Report, inspect
from snapcheck.impl.qcow2.format import Format, format_image
from snapcheck.impl.qcow2.layout import DIRTY, MAGIC, SIZE_MAX, Header, ImageError, SnapshotEntry, ceil_div
from snapcheck.impl.qcow2.repair import repair
from snapcheck.impl.qcow2.resize import resize
from snapcheck.impl.qcow2.state import State, read_front
from snapcheck.model.errno import Errno
from snapcheck.model.snapshot import SnapshotInfo


def _ignore(_: str) -> None:
    pass


class Wanted(TypedDict, total=False):
    """The fields of `Format`, to be passed on by name; `size_bytes` is always needed."""

    size_bytes: Required[int]
    cluster_bytes: int
    version: int
    refcount_bits: int
    lazy_refcounts: bool
    compression: str
    backing_file: str
    backing_format: str


class Image:
    """An open image. Errors of I/O and of the API are `BlockError`, an image that can not be used is `ImageError`.

    After a failure the image says the same as the medium. Where that could not be brought about it is dead: every
    call but `close` raises, until the image is opened again.
    """

    __slots__ = ("_owned", "_read_only", "_state")

    state_type: ClassVar[type[State]] = State  # a seeded bug has one of its own

    def __init__(self, state: State, *, read_only: bool, owned: Sequence[BlockFile | Backing] = ()) -> None:
        self._state = state
        self._read_only = read_only
        self._owned = owned  # closed together with the image

    # --- opening and closing ----------------------------------------------------------------------
    @classmethod
    def open(cls, file: BlockFile | Path | str, *, read_only: bool = False, backing: Backing | None = None) -> Self:
        """Open the image in `file`. A file that is given by its path is closed together with the image.

        The backing file is opened too, when the image is given by its path; otherwise it comes as `backing`, which
        is never closed here. An image that was not closed cleanly (dirty bit) is repaired before it is written.
        """
        if isinstance(file, str | Path):
            return cls.open_chained(Path(file), read_only=read_only, backing=backing)
        return cls(cls._ready(file, backing, read_only=read_only), read_only=read_only)

    @classmethod
    def open_chained(cls, path: Path, *, read_only: bool, backing: Backing | None = None, above: int = 0) -> Self:
        """Open the image at `path`, which is below `above` others, with what is below it."""
        disk = DiskFile(path, read_only=read_only)
        owned: list[BlockFile | Backing] = [disk]
        try:
            if backing is None:
                backing = _backing_of(disk, path, above=above)
                owned += [backing] if backing is not None else []
            return cls(cls._ready(disk, backing, read_only=read_only), read_only=read_only, owned=owned)
        except BaseException:
            _close(owned)
            raise

    @classmethod
    def create(cls, file: BlockFile | Path | str, *, backing: Backing | None = None, **wanted: Unpack[Wanted]) -> Self:
        """Format `file` as an empty image and open it. Whatever was in it is lost.

        `wanted` is what the image is to be like: `size_bytes` at least, and whatever else `Format` has.
        """
        if not isinstance(file, str | Path):
            format_image(file, Format(**wanted))
            return cls.open(file, backing=backing)
        disk = DiskFile(Path(file), create=True)
        try:
            format_image(disk, Format(**wanted))
        finally:
            disk.close()
        return cls.open(file, backing=backing)

    def clone(self) -> Self:
        """Return the same image over a clone of its file: what is done to one does not show in the other."""
        state = self._state.clone()
        return type(self)(state, read_only=self._read_only, owned=(state.host.file,))

    def close(self) -> None:
        """Pay what is owed, flush, and close the file if it was opened here."""
        try:
            if not self._state.host.dead:
                if not self._read_only:
                    self._state.settle()
                self._state.host.barrier()
        finally:
            _close(self._owned)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @classmethod
    def _ready(cls, file: BlockFile, backing: Backing | None, *, read_only: bool) -> State:
        """Open what is in `file`, after repairing it if it says that its refcounts are stale."""
        front = read_front(file)
        name = front.backing_name
        if name and backing is None:
            raise ImageError(f"backing_file: {name!r} is needed; give it as `backing`, or open the image by its path")
        if front.header.incompatible & DIRTY and not read_only:
            repair(file)
            front = read_front(file)
        return cls.state_type(file, read_only=read_only, front=front, backing=backing)

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
            guest.write(self._changing(offset, len(data)), offset, data)

    def write_compressed(self, offset: int, data: bytes) -> None:
        """Write one whole cluster (the last one may be shorter) compressed; EIO where something is mapped already."""
        self._require_writable()
        size = self._state.header.cluster_bytes
        whole = len(data) == size or (len(data) < size and offset + len(data) == self.size_bytes)
        if offset % size or not whole:
            raise BlockError(Errno.EINVAL, f"compressed data comes in whole clusters of {size} bytes")
        guest.write_compressed(self._changing(offset, len(data)), offset, data.ljust(size, b"\0"))

    def write_zeroes(self, offset: int, length: int) -> None:
        """Make the range read as zeroes; whole clusters are freed."""
        self._require_writable()
        state = self._changing(offset, length)
        guest.zero(state, offset, self._cluster_end(offset + length))

    def discard(self, offset: int, length: int) -> None:
        """Free the clusters that lie wholly in the range, they read as zeroes then; other bytes stay as they are."""
        self._require_writable()
        state = self._changing(offset, length)
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

    @property
    def bitmaps(self) -> tuple[Bitmap, ...]:
        """Return the persistent dirty bitmaps; while there are any, goto and resize are refused."""
        return self._state.bitmaps

    def snapshot_goto(self, snapshot_id: str) -> None:
        """Go back to the snapshot with that id or, if there is none, that name; its virtual size comes back too."""
        self._state.host.require_alive()
        if self._state.bitmaps:
            raise BlockError(Errno.EBUSY, "Device has active dirty bitmaps")
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

    def _changing(self, offset: int, length: int) -> State:
        """Return the state, ready for a change of guest bytes in a range."""
        state = self._within(offset, length)
        if state.bitmaps and length:
            state.note_guest_write()
        return state

    def _within(self, offset: int, length: int) -> State:
        state = self._state
        state.host.require_alive()
        if offset < 0 or length < 0 or offset + length > state.header.size:
            raise BlockError(Errno.EIO, f"{length} bytes at {offset} are outside the size of {state.header.size}")
        return state


def _backing_of(disk: DiskFile, path: Path, *, above: int) -> Backing | None:
    """Open the backing file of the image at `path`, which itself is the backing file of `above` others."""
    _, extensions, name = read_front(disk)
    if not name:
        return None
    if above == CHAIN_MAX:
        raise ImageError(f"backing_file: more than {CHAIN_MAX} images above one another, perhaps in a circle")
    where = path_of(name, path)
    try:
        if where.exists() and not where.is_file():  # a pipe would never answer, a device has no size
            raise ImageError(f"backing_file: {name!r} is not a regular file")
        if (extensions.backing_format or _format_of(where)) == "qcow2":
            return Image.open_chained(where, read_only=True, above=above + 1)
        if extensions.backing_format not in ("", *FORMATS):
            raise ImageError(f"backing file format: {extensions.backing_format!r}, expected qcow2 or raw")
        return RawBacking(DiskFile(where, read_only=True))
    except (BlockError, OSError, ValueError) as error:
        raise ImageError(f"backing_file: {name!r} can not be opened: {error}") from error


def _format_of(path: Path) -> str:
    """Tell the format of a backing file where the image does not name it."""
    with path.open("rb") as file:
        return "qcow2" if file.read(len(MAGIC)) == MAGIC else "raw"


def _close(owned: Iterable[BlockFile | Backing]) -> None:
    for each in owned:
        each.close()
