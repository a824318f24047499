"""Looking at a device without disturbing it: its list, size and content, on disk too, and what its snapshots hold.

What is seen is the driver's answer; nothing is believed that it did not say. Snapshots are read on clones of the disk.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from snapcheck.impl.blockfile import BlockError, BlockFile
from snapcheck.impl.callers import VM_STATE_BYTES_MAX
from snapcheck.impl.checked import CheckedDriver, CrashError, Failure, open_checked
from snapcheck.impl.device import Device
from snapcheck.impl.driver import Capabilities, OpenDriver
from snapcheck.model.content import FOREIGN, SECTOR, tags_of
from snapcheck.model.errno import Errno
from snapcheck.model.history import Check, Level, Observation, SnapshotContent, View
from snapcheck.model.snapshot import ID_BYTES_MAX, NAME_BYTES_MAX, SnapshotInfo

PARTS: Final = ("list", "size", "content")
ACTIVE: Final = -1  # the place of the active content, beside those of the snapshots
_STRIDE: Final = 7  # sectors: no multiple of a cluster, so that pieces begin anywhere in one
_PIECE_SECTORS_MAX: Final = 11
CONTENT_BYTES_MAX: Final = 1 << 28  # a damaged image may claim to be of any size


class Tags:
    """The tags of what was read of a device, remembered, as most looks find what the last one found."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[int, tuple[bytes, bytes]] = {}

    def of(self, raw: bytes, place: int) -> bytes:
        """Return the tags of `raw`, which is the active content (ACTIVE) or that of the snapshot at `place`."""
        known = self._known.get(place)
        if known is not None and known[0] == raw:
            return known[1]
        tags = tags_of(whole_sectors(raw))
        self._known[place] = raw, tags
        return tags


class Looker:
    """Looks at devices."""

    __slots__ = ("_looks", "_tags")

    def __init__(self) -> None:
        self._looks = 0
        self._tags: defaultdict[str, Tags] = defaultdict(Tags)

    def look(self, device: Device, level: Level, open_driver: OpenDriver) -> Observation:
        """Look at `device`. At level full it is closed and opened; `open_driver` opens clones of its disk."""
        memory = self._view(device, level)
        if level is not Level.FULL or device.root.driver is None:
            return Observation(device.name, level, memory)
        disk, contents, check = self._reopened(device), None, None
        if disk.snapshots is not None and device.bottom.driver is not None:
            able = device.bottom.driver.capabilities
            contents = contents_of(device.disk, disk.snapshots, open_driver, able, self._tags[device.name])
        try:
            check = _checked(device)
        except CrashError as crash:
            disk = replace(disk, errors=(*disk.errors, f"check: {crash}"))
        return Observation(device.name, level, memory, disk, contents, check)

    def _reopened(self, device: Device) -> View:
        """Close and open the device, and look at what is on disk."""
        try:
            failure = device.reopen()
        except CrashError as crash:
            return nothing_seen(str(crash))
        if device.root.driver is None:
            return nothing_seen(Errno.ENOMEDIUM.name if failure is None else failure.errno.name)
        return self._view(device, Level.FULL)

    def _view(self, device: Device, level: Level) -> View:
        errors: list[str] = []
        snapshots = _list(device, errors)
        if level is Level.LIST:
            return View(snapshots, errors=tuple(errors))
        size = _size(device, errors)
        content = None if size is None else self._content(device, size, errors, level)
        if size is None:
            errors.append(f"content: {errors[-1].partition(': ')[2]}")
        return View(snapshots, None if size is None else sectors_of(size), content, tuple(errors))

    def _content(self, device: Device, size: int, errors: list[str], level: Level) -> bytes | None:
        driver = device.root.driver
        assert driver is not None
        if size > CONTENT_BYTES_MAX:
            errors.append("content: EFBIG")
            return None
        try:
            raw = driver.read(0, size) if size else b""
            if isinstance(raw, Failure):
                errors.append(f"content: {raw.errno.name}")
                return None
            tags = self._tags[device.name].of(raw, ACTIVE)
            return self._with_piece(driver, raw, tags) if level is Level.FULL else tags
        except CrashError as crash:
            errors.append(f"content: {crash}")
            return None

    def _with_piece(self, driver: CheckedDriver, raw: bytes, tags: bytes) -> bytes:
        """Read one piece of the content again, another one each time; where it differs, FOREIGN is what was seen."""
        if len(tags) < 2:
            return tags
        self._looks += 1
        first = 1 + self._looks * _STRIDE % (len(tags) - 1)
        count = min(len(tags) - first, 1 + self._looks % _PIECE_SECTORS_MAX)
        start, end = first * SECTOR, min((first + count) * SECTOR, len(raw))
        if driver.read(start, end - start) == raw[start:end]:
            return tags
        return tags[:first] + bytes((FOREIGN,)) * count + tags[first + count :]


def _list(device: Device, errors: list[str]) -> tuple[SnapshotInfo, ...] | None:
    try:
        listed = device.root.snapshot_list()
    except CrashError as crash:
        errors.append(f"list: {crash}")
        return None
    if isinstance(listed, Failure):
        errors.append(f"list: {listed.errno.name}")
        return None
    return tuple(listed)


def _size(device: Device, errors: list[str]) -> int | None:
    driver = device.root.driver
    try:
        size = Failure(Errno.ENOMEDIUM, "") if driver is None else driver.size()
    except CrashError as crash:
        errors.append(f"size: {crash}")
        return None
    if isinstance(size, Failure):
        errors.append(f"size: {size.errno.name}")
        return None
    return size


def sectors_of(size: int) -> int:
    """Return how many sectors `size` bytes touch: a damaged image may end inside one."""
    return -(-size // SECTOR)


def whole_sectors(raw: bytes) -> bytes:
    """Return `raw` with zeroes up to the end of its last sector."""
    return raw if not len(raw) % SECTOR else raw.ljust(sectors_of(len(raw)) * SECTOR, b"\0")


def nothing_seen(why: str) -> View:
    """Return the view of a device of which nothing could be read."""
    return View(errors=tuple(f"{part}: {why}" for part in PARTS))


def _checked(device: Device) -> Check | None:
    """Return what the driver's checker, or ours for its format, says; None without one, or when it could not look.

    Raises `CrashError` for what no checker may do.
    """
    driver = device.bottom.driver
    if driver is None:
        return None
    if driver.capabilities.check:
        check = driver.check()
        return None if isinstance(check, Failure) else check
    return inspected(device.disk.clone()) if driver.capabilities.format == "qcow2" else None


def inspected(disk: BlockFile) -> Check:
    """Return what our own checker says of the qcow2 image on `disk`, which it only reads."""
    from snapcheck.impl.qcow2.check import inspect  # noqa: PLC0415  # numpy tables that most drivers do not need
    from snapcheck.impl.qcow2.layout import ImageError  # noqa: PLC0415

    try:
        return inspect(disk).as_check()
    except ImageError as error:
        return Check(corruptions=1, messages=(str(error),))


# --- what snapshots hold --------------------------------------------------------------------------
Selector = tuple[str | None, str | None]  # id and name, as load_tmp takes them


def contents_of(
    disk: BlockFile, snapshots: Sequence[SnapshotInfo], open_driver: OpenDriver, able: Capabilities,
    tags: Tags | None = None,
) -> tuple[SnapshotContent | None, ...] | None:  # fmt: skip
    """Return what each snapshot on `disk` holds, read on clones of it by a driver that is `able` to.

    None for one that the API can not reach, as it finds an earlier one instead.
    """
    if not (able.load_tmp or able.goto):
        return None
    reader = _Reader(disk, open_driver, able, tags or Tags())
    try:
        held = [reader.held(snapshots, place) for place in range(len(snapshots))]
    finally:
        reader.close()
    return _with_entries(held, disk) if able.format == "qcow2" and held else tuple(held)


def _with_entries(held: Sequence[SnapshotContent | None], disk: BlockFile) -> tuple[SnapshotContent | None, ...]:
    """Return `held` with what the entries of the qcow2 image on `disk` say beyond what the API shows."""
    from snapcheck.impl.qcow2.layout import ImageError  # noqa: PLC0415  # most drivers do not need it
    from snapcheck.impl.qcow2.state import read_header, read_snapshots  # noqa: PLC0415

    try:
        entries = read_snapshots(disk, read_header(disk)).entries
    except (ImageError, BlockError):
        return tuple(held)  # a checker says so
    if len(entries) != len(held):
        return tuple(held)
    return tuple(
        each and replace(each, stored_sectors=sectors_of(entry.disk_size), extra=entry.extra)
        for each, entry in zip(held, entries, strict=True)
    )


def selectors_by_pair(snapshots: Sequence[SnapshotInfo], place: int) -> list[Selector]:
    """Return what load_tmp can be given to find the entry at `place`: id and name, or one of them if that is enough."""
    info = snapshots[place]
    pairs: list[Selector] = [(info.id_str, info.name), (info.id_str, None), (None, info.name)]
    return [pair for pair in pairs if _finds(snapshots, pair, place)]


def selectors_by_text(snapshots: Sequence[SnapshotInfo], place: int) -> list[Selector]:
    """Return what goto can be given to find the entry at `place`: its id, or its name if no id is like it (B.3)."""
    info = snapshots[place]
    found: list[Selector] = [(info.id_str, None)] if _finds(snapshots, (info.id_str, None), place) else []
    if all(other.id_str != info.name for other in snapshots) and _finds(snapshots, (None, info.name), place):
        found.append((None, info.name))
    return found


def _finds(snapshots: Sequence[SnapshotInfo], selector: Selector, place: int) -> bool:
    snapshot_id, name = selector
    matches = [
        at for at, other in enumerate(snapshots) if snapshot_id in (None, other.id_str) and name in (None, other.name)
    ]
    # Texts that look the same may be cut from different ones, of which the driver finds a later one.
    return matches[0] == place and (len(matches) == 1 or not _may_be_cut(snapshots[place]))


def _may_be_cut(info: SnapshotInfo) -> bool:
    """Tell whether id or name fill their fields, so that the stored text may be longer and not be found (SPEC A.1)."""
    return _fills(info.id_str, ID_BYTES_MAX) or _fills(info.name, NAME_BYTES_MAX)


def _fills(text: str, bytes_max: int) -> bool:
    return len(text) * 4 >= bytes_max and len(text.encode("utf-8", "surrogateescape")) >= bytes_max


class _Reader:
    """Reads snapshots through load_tmp on read-only drivers, or by going back on writable ones; each on its own image.

    A driver that can be cloned is opened once.
    """

    def __init__(self, disk: BlockFile, open_driver: OpenDriver, able: Capabilities, tags: Tags) -> None:
        self._disk = disk
        self._open_driver = open_driver
        self._able = able
        self._tags = tags
        self._opened: CheckedDriver | None = None  # to be cloned

    def close(self) -> None:
        """Close what is open."""
        if self._opened is not None:
            self._opened.close()

    def held(self, snapshots: Sequence[SnapshotInfo], place: int) -> SnapshotContent | None:
        """Return what the snapshot at `place` holds, by the first selector that finds it."""
        info, failure = snapshots[place], Failure(Errno.ENOENT, "")
        selectors = (selectors_by_pair if self._able.load_tmp else selectors_by_text)(snapshots, place)
        for selector in selectors:
            try:
                content = self._read(info, selector, place)
            except CrashError as crash:
                return SnapshotContent(None, error=str(crash))
            if not isinstance(content, Failure):
                return content
            failure = content
            if failure.errno is not Errno.ENOENT:
                break
        if not selectors or (failure.errno is Errno.ENOENT and _may_be_cut(info)):
            return None
        return SnapshotContent(None, error=failure.errno.name)

    def _read(self, info: SnapshotInfo, selector: Selector, place: int) -> SnapshotContent | Failure:
        driver = self._driver()
        if isinstance(driver, Failure):
            return driver
        snapshot_id, name = selector
        if self._able.load_tmp:
            failure = driver.snapshot_load_tmp(snapshot_id, name)
        else:
            failure = driver.snapshot_goto(snapshot_id if snapshot_id is not None else name or "")
        content = failure or self._content(driver, info, place)
        driver.close()
        return content

    def _driver(self) -> CheckedDriver | Failure:
        """Open a driver that nobody has used yet."""
        if self._opened is not None:
            return self._opened.clone()
        driver = open_checked(self._open_driver, self._disk.clone(), read_only=self._able.load_tmp)
        if self._able.clone and not isinstance(driver, Failure):
            self._opened = driver
            return driver.clone()
        return driver

    def _content(self, driver: CheckedDriver, info: SnapshotInfo, place: int) -> SnapshotContent | Failure:
        """Return what the driver shows: its size, its content, and VM state when there is some."""
        size = driver.size()
        if isinstance(size, Failure):
            return size
        if size > CONTENT_BYTES_MAX:
            return Failure(Errno.EFBIG, "too many bytes to read")
        raw = driver.read(0, size) if size else b""
        kept = info.vm_state_size if self._able.vmstate else 0
        state = driver.vmstate_read(0, kept) if 0 < kept <= VM_STATE_BYTES_MAX else None
        if isinstance(raw, Failure):
            return raw
        if isinstance(state, Failure):
            return state
        return SnapshotContent(self._tags.of(raw, place), sectors_of(size), state)
