"""What qemu-img says of an image that our own engine has read and checked: whether it is sound, and what is in it.

It is asked for one image in so many, as it takes longer than all the rest.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from snapcheck.impl.adapters.qemu.disks import DiskServer
from snapcheck.impl.adapters.qemu.monitor import Json
from snapcheck.impl.adapters.qemu.process import IMG, run_program
from snapcheck.impl.adapters.qemu.pump import Pump
from snapcheck.impl.blockfile import BlockFile, MemoryFile
from snapcheck.impl.checked import StartError
from snapcheck.model.content import SECTOR, tags_of
from snapcheck.model.history import Check, Observation
from snapcheck.model.snapshot import ID_BYTES_MAX, NAME_BYTES_MAX, SnapshotInfo

_IMAGE: Final = "second-opinion"
_COPY: Final = "second-opinion-copy"
_IS_A_LEAK: Final = re.compile(r"OFLAG_COPIED .* refcount=(?!0$|1$)[0-9]+$")


class SecondOpinion:
    """Asks `qemu-img check`, and `qemu-img convert -l` for one of the snapshots.

    Where the two engines differ that is a corruption: one of them is wrong. The check of qemu-img holds COPIED against
    the count of a cluster, the law against its references: where only they differ, that is a leak.
    """

    EVERY: Final = 16

    def __init__(self, pump: Pump, disks: DiskServer) -> None:
        self._pump = pump
        self._disks = disks
        self._asked = 0

    def on(self, seen: Observation, image: BlockFile) -> Observation:
        """Return what was `seen` of a device and its `image`, with what qemu-img adds to it."""
        self._asked += 1
        check = seen.check
        if self._asked % self.EVERY or check is None or check.corruptions or check.copied_missing:
            return seen
        try:
            self._disks.offer(_IMAGE, image)
            complaint = self._complaint() or self._difference(seen)
        except StartError:
            return seen  # it is not installed: there is no second opinion
        return replace(seen, check=_with(check, complaint)) if complaint else seen

    def _complaint(self) -> str:
        """Return the first thing that its check complains of; nothing when all is well."""
        _, text, complaints = run_program(self._pump, IMG, ("check", "--output=json", self._node(_IMAGE, "qcow2")))
        said: Json = json.loads(text) if text else {}
        lines = [line for line in complaints.splitlines() if line.startswith("ERROR")]
        others = [line for line in lines if not _IS_A_LEAK.search(line)]
        if int(said.get("corruptions", 0)) - len(lines) + len(others) <= 0:
            return ""
        return f"qemu-img check finds corruptions, ours does not: {''.join(others[:1])}"

    def _difference(self, seen: Observation) -> str:
        """Return in what a snapshot read by qemu-img differs from what was seen; nothing when it does not."""
        listed = (seen.disk and seen.disk.snapshots) or ()
        place = self._asked // self.EVERY % len(listed) if listed else 0
        held = seen.contents[place] if seen.contents and listed else None
        if held is None or not held.content or not _is_unique(listed, place):
            return ""
        copy = MemoryFile(_COPY)
        self._disks.offer(_COPY, copy, size=len(held.content) * SECTOR)
        nodes = self._node(_IMAGE, "qcow2"), self._node(_COPY, "raw")
        which = selector(listed[place].id_str, listed[place].name)
        status, _, text = run_program(self._pump, IMG, ("convert", "-n", "-l", which, *nodes))
        if status:
            return f"qemu-img convert -l can not read a snapshot that ours can: {text}"
        raw = copy.pread(0, copy.size()).ljust(len(held.content) * SECTOR, b"\0")
        if tags_of(raw) == held.content:
            return ""
        return f"qemu-img convert -l reads something else than ours in snapshot {listed[place].id_str!r}"

    def _node(self, export: str, driver: str) -> str:
        server = {"type": "unix", "path": self._disks.address, "abstract": True}
        return f"json:{json.dumps({'driver': driver, 'file': {'driver': 'nbd', 'server': server, 'export': export}})}"


def _with(check: Check, complaint: str) -> Check:
    return replace(check, corruptions=1, messages=(complaint,))


def _is_unique(listed: Sequence[SnapshotInfo], place: int) -> bool:
    """Tell whether id and name, as they are listed, lead to this snapshot and no other; texts may have been cut."""
    info = listed[place]
    whole = _length(info.id_str) < ID_BYTES_MAX and _length(info.name) < NAME_BYTES_MAX
    return whole and sum((other.id_str, other.name) == (info.id_str, info.name) for other in listed) == 1


def _length(text: str) -> int:
    return len(text.encode("utf-8", "surrogateescape"))


def selector(snapshot_id: str | None, name: str | None) -> str:
    """Return what `-l` takes to pick a snapshot by id, by name, or by both; a comma in an option is written twice."""
    given = {"id": snapshot_id, "name": name}
    return ",".join(f"snapshot.{key}={text.replace(',', ',,')}" for key, text in given.items() if text is not None)
