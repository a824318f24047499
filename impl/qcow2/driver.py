"""The qcow2 engine as a driver to be put under test: `open_driver` (impl/driver.py says what a driver offers)."""

from collections.abc import Sequence
from typing import ClassVar, Final, Self

from snapcheck.impl.blockfile import BlockError, BlockFile
from snapcheck.impl.driver import Capabilities, CreateOptions, Out
from snapcheck.impl.qcow2.image import Image
from snapcheck.impl.qcow2.layout import ImageError, with_id
from snapcheck.model.history import Check
from snapcheck.model.snapshot import SnapshotInfo

CAPABILITIES: Final = Capabilities(clone=True, check=True, format="qcow2")


def open_driver(disk: BlockFile, *, read_only: bool, create: CreateOptions | None) -> "Qcow2Driver":
    """Return a driver for the image on `disk`; with `create` the disk is formatted first, whatever it holds.

    An image that can not be used is a `BlockError` whose text names the field. The disk stays the caller's to close.
    """
    return Qcow2Driver.open(disk, read_only=read_only, create=create)


class Qcow2Driver:
    """One open image behind the driver contract. After a failure nobody could see the end of, every call is refused."""

    __slots__ = ("_image", "capabilities")

    image_type: ClassVar[type[Image]] = Image  # a seeded bug has one of its own

    def __init__(self, image: Image) -> None:
        self._image = image
        self.capabilities = CAPABILITIES

    @classmethod
    def open(cls, disk: BlockFile, *, read_only: bool, create: CreateOptions | None) -> Self:
        """Open what is on `disk` (see `open_driver`)."""
        image_type = cls.image_type
        try:
            if create is None:
                return cls(image_type.open(disk, read_only=read_only))
            image = image_type.create(disk, size_bytes=create.size_bytes, cluster_bytes=create.cluster_bytes)
            if read_only:
                image.close()
                image = image_type.open(disk, read_only=True)
            return cls(image)
        except ImageError as error:
            raise BlockError(error.errno, str(error)) from error

    def clone(self) -> Self:
        """Return a driver for a copy of the image, open as this one is; neither sees what is done to the other."""
        return type(self)(self._image.clone())

    def close(self) -> None:
        self._image.close()

    def size(self) -> int:
        self._image.require_alive()
        return self._image.size_bytes

    # --- guest I/O --------------------------------------------------------------------------------
    def read(self, offset: int, length: int) -> bytes:
        return self._image.read(offset, length)

    def write(self, offset: int, data: bytes) -> None:
        self._image.write(offset, data)

    def write_zeroes(self, offset: int, length: int) -> None:
        self._image.write_zeroes(offset, length)

    def discard(self, offset: int, length: int) -> None:
        self._image.discard(offset, length)

    def flush(self) -> None:
        self._image.flush()

    def resize(self, size_bytes: int) -> None:
        self._image.resize(size_bytes)

    # --- snapshots --------------------------------------------------------------------------------
    def snapshot_create(self, sn: Out[SnapshotInfo]) -> None:
        """Take a snapshot. The id is written into the cell as soon as it is chosen, so on failure too (SPEC B.2)."""

        def chose_id(id_str: str) -> None:
            sn.value = with_id(sn.value, id_str)

        self._image.snapshot_create(sn.value, chose_id=chose_id)

    def snapshot_goto(self, snapshot_id: str) -> None:
        self._image.snapshot_goto(snapshot_id)

    def snapshot_delete(self, snapshot_id: str | None, name: str | None) -> None:
        self._image.snapshot_delete(snapshot_id, name)

    def snapshot_list(self) -> Sequence[SnapshotInfo]:
        return self._image.snapshot_list()

    def snapshot_load_tmp(self, snapshot_id: str | None, name: str | None) -> None:
        self._image.snapshot_load_tmp(snapshot_id, name)

    # --- VM state and the checker -----------------------------------------------------------------
    def vmstate_read(self, offset: int, length: int) -> bytes:
        return self._image.vmstate_read(offset, length)

    def vmstate_write(self, offset: int, data: bytes) -> None:
        self._image.vmstate_write(offset, data)

    def check(self) -> Check:
        """Check what is on the disk, after paying what earlier failures left to be freed."""
        try:
            return self._image.check().as_check()
        except ImageError as error:
            raise BlockError(error.errno, str(error)) from error
