"""Holding what was answered and seen against what the model allows: where they part, in words that a person can use."""

from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple

from snapcheck.model.content import FOREIGN, ZERO
from snapcheck.model.device import ANY_ERROR, Content, Device, Expected, Image, Snapshot
from snapcheck.model.errno import Errno
from snapcheck.model.history import UNWRITTEN, Level, Observation, Result, SnapshotContent, View
from snapcheck.model.operations import (
    AllCanSnapshot,
    AllCreate,
    AllDelete,
    AllFind,
    AllFindVmstateBs,
    AllGoto,
    DelVm,
    LoadVm,
    Operation,
    SaveVm,
    Transaction,
)
from snapcheck.model.setup import Kind
from snapcheck.model.snapshot import SnapshotInfo, as_listed

NAMES_A_DEVICE = (AllCanSnapshot, AllFind, AllCreate, AllGoto, AllDelete, SaveVm, LoadVm, DelVm, Transaction)
HARD = frozenset({"errno", "answer", "device", "snapshots", "data"})  # the answer itself; the rest are out-parameters


class Part(StrEnum):
    """The part of a device in which what was seen differs."""

    LIST = "list"
    SIZE = "size"
    CONTENT = "content"
    SNAPSHOT = "snapshot"
    MEDIUM = "medium"


class Difference(NamedTuple):
    """One part of a device that is not as the model allows. `where` is memory or disk (after a reopen)."""

    part: Part
    where: str
    expected: str
    actual: str
    snapshot: Snapshot | None = None  # the model's, where what it holds differs


# --- answers --------------------------------------------------------------------------------------
def answer_differences(
    expected: Expected, result: Result, operation: Operation, *, first_bad: bool = True, data: bool = True
) -> tuple[str, ...]:
    """Return the fields of `result` that `expected` does not allow; `first_bad` and `data` tell which are visible."""
    wrong: list[str] = []
    if not errno_allowed(expected, result.errno):
        wrong.append("errno")
    if expected.answer is not None and result.answer is not expected.answer:
        wrong.append("answer")
    if expected.snapshots is not None and result.snapshots != expected.snapshots:
        wrong.append("snapshots")
    if data and expected.data is not None and result.data != expected.data:
        wrong.append("data")
    if type(operation) is AllFindVmstateBs and result.device != expected.device:
        wrong.append("device")
    if expected.sn is not None and result.sn is not None and result.sn not in expected.sn:
        wrong.append("sn")
    if expected.message is not None and (result.message is not None) is not expected.message:
        wrong.append("message")
    if result.first_bad != expected.first_bad and first_bad and isinstance(operation, NAMES_A_DEVICE):
        wrong.append("first_bad")
    return tuple(wrong)


def errno_allowed(expected: Expected, errno: Errno) -> bool:
    """Tell whether `errno` is allowed; where any error is, numbers that have no name here are too."""
    errnos = expected.errnos
    if errnos is None or errno in errnos:
        return True
    if errno is Errno.EUNTOLD:
        return any(allowed is not Errno.OK for allowed in errnos)
    return errno is not Errno.OK and errnos >= ANY_ERROR


# --- devices --------------------------------------------------------------------------------------
def state_differences(state: Device, seen: Observation, *, struck: bool) -> tuple[Difference, ...]:
    """Return where `seen` differs from `state`.

    `struck`: the device met a fault at this step, after which a driver may answer nothing until it is closed
    (impl/driver.py); then only the view after the reopen counts.
    """
    image = state.image
    if image is None or not state.present:
        return () if is_gone(seen.memory) else (Difference(Part.MEDIUM, "memory", "no medium", _readable(seen.memory)),)
    found: list[Difference] = []
    if not (struck and is_dead(seen.memory)):
        shown = image.content if image.view is None else image.view.content
        found += _view_differences("memory", seen.memory, state, shown, seen.level)
    elif seen.disk is None and seen.level is Level.FULL:
        found.append(Difference(Part.MEDIUM, "memory", "a device that can be opened again", "a node without a driver"))
    if seen.disk is not None:
        found += _view_differences(
            "disk", seen.disk, state, image.content if not state.in_flight else _landing(state, image), seen.level
        )
    if seen.contents is not None:
        for snapshot, held in pair_contents(image, seen):
            found.extend(_snapshot_differences(image, snapshot, held, None if seen.disk is None else seen.disk.sectors))
    return tuple(found)


def is_dead(view: View) -> bool:
    """Tell whether nothing of the device could be read."""
    return view.snapshots is None and view.sectors is None and view.content is None and bool(view.errors)


def is_gone(view: View) -> bool:
    """Tell whether the device answers ENOMEDIUM to everything, as one without a medium does."""
    return is_dead(view) and all(error.endswith("ENOMEDIUM") for error in view.errors)


def died_of(seen: Observation) -> str:
    """Return what a driver died of while it was looked at, a reason that is no errno; "" while it lives."""
    for view in (seen.memory, seen.disk):
        if view is None or not view.errors:
            continue
        for text in view.errors:
            part, _, reason = text.partition(": ")
            if not (reason.startswith("E") and reason.isupper() and reason.isalnum()):
                return f"{part}: {reason}"
    return ""


def fallen_in(observations: Sequence[Observation]) -> Observation | None:
    """Return the first look at a device during which the process under test died, or did not answer."""
    for seen in observations:
        if died_of(seen):
            return seen
    return None


def _readable(view: View) -> str:
    return unreadable(view) if is_dead(view) else "it can be read"


def _view_differences(where: str, view: View, state: Device, shown: Content, level: Level) -> list[Difference]:
    """Return where `view` differs from the list and size of `state` and the content `shown`."""
    found: list[Difference] = []
    image = state.image
    assert image is not None
    if not (view.snapshots is None and state.spec.kind is Kind.PLAIN) and not lists_equal(image, view.snapshots):
        found.append(Difference(Part.LIST, where, *_list_difference(image, view)))
    if level is Level.LIST:
        return found
    if view.sectors != image.sectors:
        actual = unreadable(view) if view.sectors is None else f"{view.sectors} sectors"
        found.append(Difference(Part.SIZE, where, f"{image.sectors} sectors", actual))
    if view.content is None:
        found.append(Difference(Part.CONTENT, where, "content that can be read", unreadable(view)))
    elif not content_fits(shown, view.content):
        found.append(Difference(Part.CONTENT, where, *_first_difference(shown, view.content)))
    return found


def _list_difference(image: Image, view: View) -> tuple[str, str]:
    if view.snapshots is None:
        return listing(listed(image)), unreadable(view)
    return listing_difference(listed(image), view.snapshots)


def _landing(state: Device, image: Image) -> Content:
    """Return the content where each sector of a request in flight is old or new: closing a device lets it land."""
    maybe = dict(image.content.maybe)
    for write in state.in_flight:
        for sector in range(write.sector, write.sector + write.count):
            maybe[sector] = maybe.get(sector, b"") + bytes((write.tag,))
    return Content(image.content.tags, tuple(maybe.items()))


def listed(image: Image) -> tuple[SnapshotInfo, ...]:
    """Return the image's snapshots as the API lists them."""
    return tuple(as_listed(snapshot.info) for snapshot in image.snapshots)


def lists_equal(image: Image, shown: Sequence[SnapshotInfo] | None) -> bool:
    """Tell whether `shown` is the list of the image's snapshots."""
    if shown is None or len(shown) != len(image.snapshots):
        return False
    for snapshot, info in zip(image.snapshots, shown, strict=True):
        if snapshot.info != info and as_listed(snapshot.info) != info:
            return False
    return True


def content_fits(content: Content, actual: bytes) -> bool:
    """Tell whether `actual` is one of the contents that `content` allows, as far as both reach."""
    tags = content.tags
    if actual == tags:
        return True
    if len(actual) != len(tags):
        shorter = min(len(actual), len(tags))
        actual, tags = actual[:shorter], tags[:shorter]
        if actual == tags:
            return True
    if not content.maybe:
        return False
    return _first_wrong_sector(tags, actual, dict(content.maybe)) is None


def _first_wrong_sector(tags: bytes, actual: bytes, maybe: dict[int, bytes]) -> int | None:
    for sector, (want, got) in enumerate(zip(tags, actual, strict=False)):
        if want != got and got not in maybe.get(sector, b""):
            return sector
    return None


def pair_contents(image: Image, seen: Observation) -> list[tuple[Snapshot, SnapshotContent]]:
    """Return the model's snapshots beside what was read of each; entries that are not the model's are left out.

    `contents` stands beside the list after the reopen (beside the one in memory where there is no other).
    """
    shown = (seen.disk or seen.memory).snapshots
    contents = seen.contents
    if shown is None or contents is None:
        return []
    pairs: list[tuple[Snapshot, SnapshotContent]] = []
    if lists_equal(image, shown):
        return [(sn, held) for sn, held in zip(image.snapshots, contents, strict=False) if held is not None]
    known = listed(image)
    for info, held in zip(shown, contents, strict=False):
        if held is not None and known.count(info) == 1 and list(shown).count(info) == 1:
            pairs.append((image.snapshots[known.index(info)], held))
    return pairs


def _snapshot_differences(
    image: Image, snapshot: Snapshot, held: SnapshotContent, shown: int | None
) -> Iterator[Difference]:
    """Yield where what was read of a snapshot differs from what it holds, in words.

    It may be read under the size of the disk (B.5), which is `shown`: another one than it should is not the snapshot's.
    """
    who = f"snapshot {snapshot.info.name!r} (id {printable(snapshot.info.id_str)})"

    def differs(want: str, got: str) -> Difference:
        return Difference(Part.SNAPSHOT, "disk", f"{who}: {want}", f"{who}: {got}", snapshot)

    if held.stored_sectors not in {None, snapshot.sectors}:
        yield differs(f"taken at {snapshot.sectors} sectors", f"taken at {held.stored_sectors} sectors")
    if snapshot.extra and held.extra not in {None, snapshot.extra}:
        yield differs(*_extra_texts(snapshot.extra, held.extra or b""))
    if held.content is None:
        yield differs("content that can be read", f"unreadable ({held.error})")
        return
    if not content_fits(snapshot.content, held.content):
        yield differs(*_first_difference(snapshot.content, held.content))
    elif held.sectors is not None and held.sectors not in {snapshot.sectors, image.sectors, shown}:
        yield differs(f"{snapshot.sectors} sectors", f"{held.sectors} sectors")
    if held.vmstate is None or snapshot.vmstate is None or snapshot.sectors != image.sectors:
        return  # nothing is promised of VM state read under another size
    if not vmstate_fits(snapshot.vmstate, held.vmstate):
        stored = snapshot.vmstate.ljust(len(held.vmstate), b"\0")
        place = next(at for at, got in enumerate(held.vmstate) if got != stored[at])
        yield differs(f"VM state byte {place} is {stored[place]}", f"VM state byte {place} is {held.vmstate[place]}")


def _extra_texts(want: bytes, got: bytes) -> tuple[str, str]:
    return f"unknown extra data {want.hex()}", f"unknown extra data {got.hex()}" if got else "no unknown extra data"


def vmstate_fits(expected: bytes, actual: bytes) -> bool:
    """Tell whether `actual` is the VM state; bytes that were never written read as zeroes."""
    return actual == expected or actual == expected.ljust(len(actual), b"\0")[: len(actual)]


# --- what was seen makes the model's state more exact ---------------------------------------------
def settled(state: Device, seen: Observation) -> Device:
    """Return `state` with what it left open (Content.maybe) decided by what was seen, which must fit it."""
    image = state.image
    if image is None:
        return state
    view = seen.memory if image.view is None and seen.memory.content is not None else seen.disk
    content = image.content
    if content.maybe and view is not None and view.content is not None:
        content = _decided(content, view.content)
    snapshots = image.snapshots
    if seen.contents is not None and any(sn.content.maybe for sn in snapshots):
        held = {id(sn): found.content for sn, found in pair_contents(image, seen)}
        snapshots = tuple(_settled_snapshot(sn, held.get(id(sn))) for sn in snapshots)
    if content is image.content and snapshots is image.snapshots:
        return state
    return state._replace(image=image._replace(content=content, snapshots=snapshots))


def _settled_snapshot(snapshot: Snapshot, actual: bytes | None) -> Snapshot:
    if actual is None or not snapshot.content.maybe:
        return snapshot
    return snapshot._replace(content=_decided(snapshot.content, actual))


def _decided(content: Content, actual: bytes) -> Content:
    reach = min(len(actual), len(content.tags))
    open_still = tuple(entry for entry in content.maybe if entry[0] >= reach)
    return Content(actual[:reach] + content.tags[reach:], open_still)


def merged(states: Sequence[Device]) -> Device | None:
    """Return one state that stands for all of `states`, None when they differ in more than content and VM state."""
    first = states[0]
    for other in states[1:]:
        if other == first:
            continue
        if first.image is None or other.image is None:
            return None
        image = _merged_images(first.image, other.image)
        if image is None or other._replace(image=first.image) != first:
            return None
        first = first._replace(image=image)
    return first


def _merged_images(one: Image, other: Image) -> Image | None:
    if one.sectors != other.sectors or len(one.snapshots) != len(other.snapshots) or one.view != other.view:
        return None
    snapshots: list[Snapshot] = []
    for left, right in zip(one.snapshots, other.snapshots, strict=True):
        if left.info != right.info or left.sectors != right.sectors:
            return None
        vmstate = left.vmstate if left.vmstate == right.vmstate else None
        snapshots.append(left._replace(content=_merged_content(left.content, right.content), vmstate=vmstate))
    return one._replace(
        content=_merged_content(one.content, other.content),
        vmstate=one.vmstate if one.vmstate == other.vmstate else None,
        snapshots=tuple(snapshots),
    )


def _merged_content(one: Content, other: Content) -> Content:
    if one == other:
        return one
    reach = min(len(one.tags), len(other.tags))
    maybe = {sector: tags for sector, tags in one.maybe if sector < reach}
    for sector, tags in other.maybe:
        if sector < reach:
            maybe[sector] = maybe.get(sector, b"") + tags
    for sector in range(reach):
        if one.tags[sector] != other.tags[sector]:
            maybe[sector] = maybe.get(sector, b"") + other.tags[sector : sector + 1]
    return Content(one.tags[:reach], tuple(sorted(maybe.items())))


# --- words ----------------------------------------------------------------------------------------
def unreadable(view: View) -> str:
    """Say why a part of a view is not there."""
    return f"unreadable ({', '.join(view.errors)})" if view.errors else "not there"


def listing(infos: Sequence[SnapshotInfo]) -> str:
    """Return a list of snapshots on one line: each as id:name, with its VM state's size where it has one."""
    shown = [_entry(info) for info in infos[:8]]
    return "[" + ", ".join(shown + [f"{len(infos) - 8} more"] * (len(infos) > 8)) + "]"


def _entry(info: SnapshotInfo) -> str:
    name = info.name if len(info.name) <= 24 else f"{info.name[:20]}... ({len(info.name)} characters)"
    state = f" vmstate {info.vm_state_size}" if info.vm_state_size else ""
    return f"{printable(info.id_str)}:{name!r}{state}"


def printable(text: str) -> str:
    """Return `text` on one line, without characters that no file or terminal takes."""
    return text if text.isascii() and text.isprintable() else repr(text)


def _first_difference(content: Content, actual: bytes) -> tuple[str, str]:
    maybe = dict(content.maybe)
    sector = _first_wrong_sector(content.tags, actual, maybe)
    assert sector is not None, "only called where the content differs"
    wrong = sum(got not in {want, *maybe.get(at, b"")} for at, (want, got) in enumerate(zip(content.tags, actual)))  # noqa: B905  # the shorter one counts
    wanted = " or ".join(_tag(tag) for tag in dict.fromkeys((content.tags[sector], *maybe.get(sector, b""))))
    others = f", and {wrong - 1} more sectors differ" if wrong > 1 else ""
    return f"sector {sector}: {wanted}", f"sector {sector}: {_tag(actual[sector])}{others}"


def _tag(tag: int) -> str:
    return {ZERO: "zeroes", FOREIGN: "bytes that nobody wrote there"}.get(tag, f"tag {tag}")


def listing_difference(want: Sequence[SnapshotInfo], got: Sequence[SnapshotInfo]) -> tuple[str, str]:
    """Return both lists in words; where they look the same in short, the first entry that differs in full."""
    short = listing(want), listing(got)
    if short[0] != short[1]:
        return short
    place = next((at for at, (one, other) in enumerate(zip(want, got, strict=False)) if one != other), 0)
    return f"entry {place}: {want[place]!r}", f"entry {place}: {got[place]!r}"


def answer_text(result: Result, *, names: bool) -> str:
    """Return an answer in words; `names` says whether the operation names a device."""
    words = [result.errno.name]
    if result.answer is not None:
        words.append("yes" if result.answer else "no")
    if names:
        words.append(f"first_bad {bad_text(result.first_bad)}")
    if result.device is not None:
        words.append(f"device {result.device}")
    return ", ".join(words)


def bad_text(first_bad: str | None) -> str:
    """Return what first_bad_bs named, in words."""
    return "not written" if first_bad == UNWRITTEN else first_bad or "NULL"


def expected_text(expected: Sequence[Expected], *, names: bool) -> str:
    """Return the answers that are allowed, in words, each once."""
    return " or ".join(dict.fromkeys(_expected_text(one, names=names) for one in expected))


def _expected_text(expected: Expected, *, names: bool) -> str:
    if expected.errnos is None:
        words = ["any answer"]
    elif len(expected.errnos) > 4:
        words = ["an error"]
    else:
        words = ["/".join(sorted(errno.name for errno in expected.errnos))]
    if expected.answer is not None:
        words.append("yes" if expected.answer else "no")
    if names:
        words.append(f"first_bad {bad_text(expected.first_bad)}")
    if expected.device is not None:
        words.append(f"device {expected.device}")
    return ", ".join(words)
