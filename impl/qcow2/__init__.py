"""A qcow2 engine for real images: `Image` opens one, `inspect` checks and `repair` repairs one."""

from snapcheck.impl.qcow2.check import inspect
from snapcheck.impl.qcow2.image import Image
from snapcheck.impl.qcow2.layout import ImageError
from snapcheck.impl.qcow2.repair import repair

__all__ = ["Image", "ImageError", "inspect", "repair"]
