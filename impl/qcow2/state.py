"""One open image: its header, tables, refcounts and snapshots, and how they change together."""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from typing import ClassVar, Final, NamedTuple
from weakref import ref

from snapcheck.impl.blockfile import BlockError, BlockFile
from snapcheck.impl.qcow2.backing import Backing
from snapcheck.impl.qcow2.bitmaps import ALL_ONES, Bitmap, clusters_in, read_bitmaps
from snapcheck.impl.qcow2.extensions import Extensions, parse_extensions
from snapcheck.impl.qcow2.host import Host, Words, decoded, encoded, padded
from snapcheck.impl.qcow2.layout import (
    BITMAPS,
    FEATURE_FIELDS,
    L1_BYTES_MAX,
    L1_ENTRIES_MAX,
    REFCOUNT_FIELDS,
    RESIZE_FIELDS,
    SNAPSHOT_TABLE_BYTES_MAX,
    Header,
    ImageError,
    NeedMoreError,
    SnapshotEntry,
    pack_snapshots,
    parse_snapshots,
    require_table,
)
from snapcheck.impl.qcow2.refcounts import Clusters, Refcounts, RefcountTable, merged
from snapcheck.impl.qcow2.tables import Tables
from snapcheck.model.errno import Errno

_GUESS_BYTES: Final = 4096  # enough for most headers and snapshot tables, so that they take one read


class SnapshotTable(NamedTuple):
    """The snapshots in table order, and how many bytes they take on disk."""

    entries: list[SnapshotEntry]
    length: int


class Front(NamedTuple):
    """What an image says of itself: its header, and the extensions behind it."""

    header: Header
    extensions: Extensions
    backing_name: str  # "" without a backing file


def read_front(file: BlockFile, *, lenient: bool = False) -> Front:
    """Return what a supported image begins with, checked for sanity; `ImageError` says what stands against it.

    `lenient` lets pass what a repair can put right.
    """
    raw = file.pread(0, _GUESS_BYTES, region="header")
    header = Header.parse(raw)
    header.require_supported()
    header.require_sane(file_bytes=file.size(), lenient=lenient)
    try:
        extensions = parse_extensions(raw[: header.cluster_bytes], header)
    except NeedMoreError as more:
        raw = file.pread(0, more.length, region="header")
        extensions = parse_extensions(raw, header)
    name = b""
    if header.backing_offset:
        name = file.pread(header.backing_offset, header.backing_length, region="header")
    return Front(header, extensions, name.decode("utf-8", "surrogateescape"))


def read_header(file: BlockFile) -> Header:
    """Return the header of a supported image, checked for sanity; `ImageError` says what stands against it."""
    return read_front(file).header


def read_snapshots(file: BlockFile, header: Header, *, lenient: bool = False) -> SnapshotTable:
    """Return the snapshot table; what would lie behind the end of the file is read as zeroes.

    `lenient` lets pass what a repair can put right.
    """
    length, length_max = _GUESS_BYTES, SNAPSHOT_TABLE_BYTES_MAX + (1 << 18)  # so that too large ones are seen whole
    while header.snapshot_count:
        raw = file.pread(header.snapshots_offset, min(length, length_max), region="snapshot-table")
        try:
            return SnapshotTable(*parse_snapshots(raw, header, lenient=lenient))
        except NeedMoreError as more:
            length = max(more.length, 2 * length)
    return SnapshotTable([], 0)


class Parts(NamedTuple):
    """What an open image is made of. Another part in place of one of these is how a bug is planted."""

    host: type[Host] = Host
    refcounts: type[Refcounts] = Refcounts
    tables: type[Tables] = Tables


class State:
    """An open image. Whatever changes the header goes through `publish`; whatever frees clusters through `release`."""

    parts: ClassVar[Parts] = Parts()

    __slots__ = (
        "__weakref__", "_copied_stale", "_packed_end", "_raw_header", "backing", "backing_bytes", "bitmaps", "header",
        "host", "refcounts", "snapshot_table", "tables",
    )  # fmt: skip

    def __init__(
        self, file: BlockFile, *, read_only: bool, front: Front | None = None, backing: Backing | None = None
    ) -> None:
        """Open the image in `file`; `front` is what it begins with, where that was read already."""
        self.host = self.parts.host(file)
        front = front or read_front(file)
        self.header = front.header
        self._raw_header = b""  # as it was published last
        if not read_only:
            self.header.require_writable()
        self.backing = backing
        self.backing_bytes = backing.size_bytes if backing is not None else 0
        self.bitmaps = read_bitmaps(file, self.header, front.extensions)
        self.snapshot_table = read_snapshots(file, self.header)
        self.refcounts = self.parts.refcounts(self.host, self.header, _publisher(self))
        self.tables = self.parts.tables(self.host, self.header, self.refcounts)
        self._copied_stale = False
        self._packed_end = 0  # where compressed data may be appended, 0 where nowhere
        self._pin()
        kept = BITMAPS if self.bitmaps else 0
        if self.header.autoclear & ~kept and not read_only:  # features that this engine would not keep up to date
            self.publish(self.header._replace(autoclear=self.header.autoclear & kept), FEATURE_FIELDS)

    def clone(self) -> "State":
        """Return the same image over a clone of its file."""
        twin = object.__new__(type(self))
        twin.host, twin.header, twin._raw_header = self.host.clone(), self.header, self._raw_header
        twin.backing, twin.backing_bytes, twin.bitmaps = self.backing, self.backing_bytes, self.bitmaps
        twin.snapshot_table = self.snapshot_table
        twin.refcounts = self.refcounts.clone(twin.host, _publisher(twin))
        twin.tables = self.tables.clone(twin.host, twin.refcounts)
        twin._copied_stale, twin._packed_end = self._copied_stale, self._packed_end
        return twin

    # --- the header -------------------------------------------------------------------------------
    def publish(self, new: Header, fields: tuple[int, int], *, snapshots: SnapshotTable | None = None) -> None:
        """Make `new` the header, by one write of the bytes of `fields`: durably, or not at all."""
        start, end = fields
        raw, former = new.pack(), self._raw_header or self.header.pack()
        self.host.publish(start, raw[start:end], former[start:end])
        self.header, self._raw_header = new, raw
        if snapshots is not None:
            self.snapshot_table = snapshots
        self._pin()

    def publish_refcount_table(self, place: RefcountTable) -> None:
        """Make the header point to another refcount table, durably or not at all."""
        new = self.header._replace(refcount_table_offset=place.offset, refcount_table_clusters=place.clusters)
        self.publish(new, REFCOUNT_FIELDS)

    def _pin(self) -> None:
        """Tell the allocator which tables must never be handed out, whatever their refcounts say."""
        table = self.header.refcount_table_offset >> self.header.cluster_bits
        l1, snapshots = self.l1_clusters(), self.snapshot_clusters()
        self.refcounts.pinned = (
            (0, 1),
            (table, table + self.header.refcount_table_clusters),
            (l1.start, l1.stop),
            (snapshots.start, snapshots.stop),
        )

    # --- clusters ---------------------------------------------------------------------------------
    def clusters_of(self, length: int) -> int:
        """Return how many clusters `length` bytes take."""
        return -(-length >> self.header.cluster_bits)

    def range_of(self, offset: int, length: int) -> range:
        """Return the clusters of a table of `length` bytes at `offset`."""
        first = offset >> self.header.cluster_bits
        return range(first, first + self.clusters_of(length))

    def l1_clusters(self) -> range:
        return self.range_of(self.header.l1_offset, self.header.l1_size * 8)

    def snapshot_clusters(self) -> range:
        return self.range_of(self.header.snapshots_offset, self.snapshot_table.length)

    @contextmanager
    def holding(self, *clusters: Clusters, copied_stale: bool = False) -> Generator[None]:
        """Count `clusters` once more for what is built inside; when that fails they are released again."""
        held = merged(clusters)
        try:
            self.refcounts.raise_(held)
        except BlockError:
            self.settle()  # raise_ owes what it could not undo
            raise
        try:
            yield
        except BlockError:
            self.release(held, copied_stale=copied_stale)
            raise

    def take(self, count: int) -> list[int]:
        """Return `count` clusters, wherever they are, that are counted already."""
        clusters = self.refcounts.find_scattered(count)
        try:
            self.refcounts.raise_(clusters)
        except BlockError:
            self.settle()
            raise
        return clusters

    def take_bytes(self, length: int) -> tuple[int, list[int]]:
        """Return where `length` bytes of compressed data may go, and the cluster there, which is counted once more."""
        bits = self.header.cluster_bits
        offset, room = self._packed_end, -self._packed_end & (self.header.cluster_bytes - 1)
        clusters = [offset >> bits]
        full = self.refcounts.get(clusters[0]) >= self.header.refcount_max
        if length > room or full:
            clusters = self.take(1)
            offset = clusters[0] << bits
        else:
            with self.holding(clusters):
                pass
        self._packed_end = offset + length
        return offset, clusters

    def release(self, *clusters: Clusters, copied_stale: bool = False) -> None:
        """Lower the refcounts of `clusters`: now or, when the device does not allow it, later. Never raises."""
        self._packed_end = 0  # who knows whether that cluster is still there
        for some in clusters:
            self.refcounts.owe(some)
        self._copied_stale = self._copied_stale or copied_stale
        self.settle()

    def settle(self) -> None:
        """Pay what is owed to the image, as far as the device allows."""
        if self.host.dead or not (self._copied_stale or self.refcounts.in_debt):
            return
        with suppress(BlockError):  # what can not be paid stays owed
            self.refcounts.pay()
            if self._copied_stale:
                self.tables.refresh_copied()
                self._copied_stale = False

    # --- around the mapping -----------------------------------------------------------------------
    def read_backing(self, start: int, length: int) -> bytes:
        """Return what shows where nothing is mapped: the backing file within the virtual size, zeroes elsewhere."""
        there = min(length, min(self.backing_bytes, self.header.size) - start)
        if self.backing is None or there <= 0:
            return bytes(length)
        return self.backing.read(start, there) + bytes(length - there)

    def note_guest_write(self) -> None:
        """Make the bitmaps that are recording say that all has changed, before anything does."""
        for bitmap in self.bitmaps:
            if bitmap.recording and not bitmap.in_use:
                self._fill_bitmap(bitmap)

    def _fill_bitmap(self, bitmap: Bitmap) -> None:
        old = self.host.load(bitmap.table_offset, bitmap.table_entries, "l1")
        new = decoded(ALL_ONES.to_bytes(8, "big") * bitmap.table_entries)
        if old != new:
            self.host.store(bitmap.table_offset, new, 0, len(new), "l1", old=old)
            self.release([offset >> self.header.cluster_bits for offset in clusters_in(encoded(old))])

    # --- the snapshots ----------------------------------------------------------------------------
    def snapshot_l1(self, entry: SnapshotEntry) -> Words:
        """Return a snapshot's L1 table; EFBIG or EINVAL when it can not be one (SPEC B.3 step 3, BUGS B48 to B50)."""
        try:
            require_table("snapshot l1_table", entry.l1_offset, entry.l1_size * 8, self.header, bytes_max=L1_BYTES_MAX,
                          file_bytes=self.host.file.size())  # fmt: skip
        except ImageError as error:
            raise BlockError(error.errno, str(error)) from error
        return self.tables.load_l1(entry.l1_offset, entry.l1_size)

    def packed(self, entries: Sequence[SnapshotEntry]) -> bytes:
        """Return the snapshot table of `entries` as it is stored; EFBIG when it is too large (SPEC B.6)."""
        raw = pack_snapshots(entries)
        if len(raw) > SNAPSHOT_TABLE_BYTES_MAX:
            raise BlockError(Errno.EFBIG, "the snapshot table can not grow beyond 64 MiB")
        return raw

    # --- the active L1 table ----------------------------------------------------------------------
    def write_l1(self, first: int, l1: Words) -> int:
        """Write an L1 table that nothing refers to yet into the clusters from `first` on; return its offset."""
        offset = first << self.header.cluster_bits
        if l1:
            self.host.write(offset, encoded(l1), "l1")
        return offset

    def adopt_l1(self, l1: Words) -> None:
        """Take `l1` as the active table, now that the header points to it."""
        self.tables.l1, self.tables.l1_offset = l1, self.header.l1_offset

    def move_l1(self, l1: Words, *, size: int, dropped: Clusters = ()) -> None:
        """Make `l1` the active table, at a new place, and `size` the virtual size, both at once.

        `dropped` is what the former table referred to and `l1` does not; it is released with the former table.
        """
        former = self.l1_clusters()
        count = self.clusters_of(len(l1) * 8)
        first = self.refcounts.find(count) if count else 0
        with self.holding(range(first, first + count)):
            offset = self.write_l1(first, l1)
            self.publish(self.header._replace(size=size, l1_size=len(l1), l1_offset=offset), RESIZE_FIELDS)
        self.adopt_l1(l1)
        self.release(dropped, former)

    def grow_l1(self, entries: int) -> None:
        """Give the active L1 table at least `entries` entries; EFBIG beyond what the format allows."""
        if entries > L1_ENTRIES_MAX:
            raise BlockError(Errno.EFBIG, f"the L1 table can not have more than {L1_ENTRIES_MAX} entries")
        l1 = self.tables.l1
        larger = min(max(entries, len(l1) * 3 // 2), L1_ENTRIES_MAX)
        self.move_l1(padded(l1, larger), size=self.header.size)


def _publisher(state: State) -> Callable[[RefcountTable], None]:
    """Return what the refcounts of `state` publish their table with. It is no cycle: memory is free when that is."""
    weak = ref(state)

    def publish(place: RefcountTable) -> None:
        owner = weak()
        assert owner is not None, "its refcounts are used by an open image alone"
        owner.publish_refcount_table(place)

    return publish
