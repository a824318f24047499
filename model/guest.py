"""One device and its guest: content, guest I/O, VM state, and requests in flight (docs/reference/alphabet.md).

Each function takes the device as it is and gives the replies that are allowed, as those of semantics.py do.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from snapcheck.model.content import ZERO, vmstate_pattern
from snapcheck.model.device import Allowed, Content, Device, Expected, Image
from snapcheck.model.errno import Errno
from snapcheck.model.operations import (
    Discard,
    Flush,
    Operation,
    Resize,
    SubmitWrite,
    VmstateRead,
    VmstateWrite,
    Write,
    WriteZeroes,
)
from snapcheck.model.replies import DONE, NO_ERRORS, NOT_UNDONE, Blow, Replies, Reply, failure, image_of, refusal
from snapcheck.model.setup import Kind


# --- content --------------------------------------------------------------------------------------
def stamped(content: Content, sector: int, count: int, tag: int) -> Content:
    """Return `content` with `tag` in `count` sectors."""
    tags, end = content.tags, sector + count
    if sector > len(tags):
        return content  # what lies in between is not specified, so this is not either
    maybe = content.maybe
    if maybe:
        maybe = tuple(entry for entry in maybe if not sector <= entry[0] < end)
    return Content(tags[:sector] + bytes((tag,)) * count + tags[end:], maybe)


def perhaps(content: Content, sector: int, count: int, tag: int) -> Content:
    """Return `content` where each of `count` sectors is as before, or holds `tag`."""
    tags, maybe = content.tags, dict(content.maybe)
    for at in range(sector, min(sector + count, len(tags))):
        others = maybe.get(at, b"")
        if tags[at] != tag and tag not in others:
            maybe[at] = others + bytes((tag,))
    return Content(tags, tuple(sorted(maybe.items())))


def _resized(content: Content, *, old: int, new: int) -> Content:
    """Return `content` cut to `new` sectors, or with zeroes behind it."""
    if new <= old:
        return Content(content.tags[:new], tuple(entry for entry in content.maybe if entry[0] < new))
    whole = len(content.tags) == old  # else its end is not specified, and what follows has no place
    return Content(content.tags + bytes(new - old), content.maybe) if whole else content


def _with_content(device: Device, content: Content) -> Device:
    return device._replace(image=image_of(device)._replace(content=content))


def _with_vmstate(device: Device, vmstate: bytes | None) -> Device:
    return device._replace(image=image_of(device)._replace(vmstate=vmstate))


# --- guest I/O ------------------------------------------------------------------------------------
def _write_refused(device: Device, sector: int, count: int) -> Errno | None:
    """Return why a guest may not write there: medium, then read-only, then bounds."""
    if not device.present:
        return Errno.ENOMEDIUM
    if device.read_only:
        return Errno.EPERM
    return None if sector + count <= image_of(device).sectors else Errno.EIO


def _written(device: Device, sector: int, count: int, tag: int, blow: Blow | None) -> Replies:
    refused = _write_refused(device, sector, count)
    if refused is not None:
        return refusal(refused)
    content = image_of(device).content
    done = Reply(DONE, (Allowed(_with_content(device, stamped(content, sector, count, tag))),))
    if blow is None or not blow.io:
        return (done,)
    torn = _with_content(device, perhaps(content, sector, count, tag))
    return done, Reply(Expected(blow.io), (Allowed(torn),))


def _write(device: Device, operation: Write, blow: Blow | None) -> Replies:
    return _written(device, operation.sector, operation.count, operation.tag, blow)


def _write_zeroes(device: Device, operation: WriteZeroes, blow: Blow | None) -> Replies:
    return _written(device, operation.sector, operation.count, ZERO, blow)


def _discard(device: Device, operation: Discard, blow: Blow | None) -> Replies:
    refused = _write_refused(device, operation.sector, operation.count)
    if refused is not None:
        return refusal(refused)
    content = perhaps(image_of(device).content, operation.sector, operation.count, ZERO)
    states = (Allowed(_with_content(device, content)),)
    done = Reply(DONE, states)
    return (done,) if blow is None or not blow.io else (done, Reply(Expected(blow.io), states))


def _flush(device: Device, operation: Flush, blow: Blow | None) -> Replies:  # noqa: ARG001  # the table's shape
    if not device.present:
        return refusal(Errno.ENOMEDIUM)
    return (Reply(DONE),) if blow is None or not blow.io else (Reply(DONE), failure(blow.io))


def _resize(device: Device, operation: Resize, blow: Blow | None) -> Replies:
    """Change the virtual size, with snapshots or without (5.1: SPEC B.5); active VM state may move or be lost (B.9)."""
    if not device.present:
        return refusal(Errno.ENOMEDIUM)
    if device.read_only:
        return refusal(Errno.EACCES)
    image, sectors = image_of(device), operation.sectors
    content = _resized(image.content, old=image.sectors, new=sectors)
    new = device._replace(image=Image(sectors, content, None if image.vmstate else image.vmstate, image.snapshots))
    done = Reply(DONE, (Allowed(new),))
    if blow is None or not blow.io:
        return (done,)
    # VM state goes before the size changes, or with it.
    old = _with_vmstate(device, None) if image.vmstate else device
    kept = blow.lasting or blow.landed
    return done, Reply(Expected(blow.io), (Allowed(old), Allowed(new, NOT_UNDONE)) if kept else (Allowed(old),))


def _vmstate_write(device: Device, operation: VmstateWrite, blow: Blow | None) -> Replies:
    if not device.present:
        return refusal(Errno.ENOMEDIUM)
    if device.read_only:
        nowhere = frozenset({Errno.ENOTSUP}) if device.spec.kind is Kind.PLAIN else NO_ERRORS
        return (failure(frozenset({Errno.EPERM}) | nowhere),)
    if device.spec.kind is Kind.PLAIN:
        return refusal(Errno.ENOTSUP)
    return vmstate_write(device, operation.offset, operation.length, operation.tag, blow)


def vmstate_write(device: Device, offset: int, length: int, tag: int, blow: Blow | None) -> Replies:
    """Return what writing VM state into a writable device may do: it is like guest data behind the end (SPEC B.9)."""
    old = image_of(device).vmstate
    new = None
    if old is not None:
        data = vmstate_pattern(tag=tag, offset=offset, length=length)
        new = old[:offset].ljust(offset, b"\0") + data + old[offset + length :]
    done = Reply(DONE, (Allowed(_with_vmstate(device, new)),))
    if blow is None or not blow.io:
        return (done,)
    return done, Reply(Expected(blow.io), (Allowed(_with_vmstate(device, None if length else old)),))


def _vmstate_read(device: Device, operation: VmstateRead, blow: Blow | None) -> Replies:
    if not device.present:
        return refusal(Errno.ENOMEDIUM)
    if device.spec.kind is Kind.PLAIN:
        return refusal(Errno.ENOTSUP)
    done = Reply(Expected(data=vmstate_data(device, operation.offset, operation.length)))
    return (done,) if blow is None or not blow.io else (done, failure(blow.io))


def vmstate_data(device: Device, offset: int, length: int) -> bytes | None:
    """Return what reading VM state gives, None where nothing is promised; what was never written reads as zeroes."""
    image = image_of(device)
    vmstate = image.vmstate
    if image.view is not None:  # under load_tmp the snapshot's, unless its place moved with the size
        vmstate = image.view.vmstate if image.view.sectors == image.sectors else None
    return None if vmstate is None else vmstate[offset : offset + length].ljust(length, b"\0")


# --- requests in flight ---------------------------------------------------------------------------
def _submit_write(device: Device, operation: SubmitWrite, blow: Blow | None) -> Replies:  # noqa: ARG001  # no I/O yet
    refused = _write_refused(device, operation.sector, operation.count)
    if refused is not None:
        return refusal(refused)
    return (Reply(DONE, (Allowed(device._replace(in_flight=(*device.in_flight, operation))),)),)


def landed(device: Device, blow: Blow | None, *, surely: bool = True) -> Device:
    """Return `device` after its guest requests in flight landed, in the order in which they were submitted.

    One that fails is lost without a word, each of its sectors old or new: for want of a medium or of room (a resize
    came first), or because I/O failed at this step. Not `surely`: nobody knows whether they did.
    """
    if not device.in_flight:
        return device
    image = image_of(device)
    content = image.content
    trusted = surely and device.present and not (blow is not None and blow.io)
    for write in device.in_flight:
        fits = write.sector + write.count <= image.sectors
        land = stamped if trusted and fits else perhaps
        content = land(content, write.sector, write.count, write.tag)
    return _with_content(device, content)._replace(in_flight=())


# --- all of it ------------------------------------------------------------------------------------
GUEST: Final[Mapping[type[Operation], Callable[[Device, Any, Blow | None], Replies]]] = {
    Write: _write, SubmitWrite: _submit_write, WriteZeroes: _write_zeroes, Discard: _discard, Flush: _flush,
    Resize: _resize, VmstateWrite: _vmstate_write, VmstateRead: _vmstate_read,
}  # fmt: skip
