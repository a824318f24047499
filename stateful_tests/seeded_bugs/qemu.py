"""A real QEMU behind a proxy that lies: what an adapter of it, or a later QEMU, might do wrong.

Each class is a system: `snapcheck run snapcheck.stateful_tests.seeded_bugs.qemu:DeletesNothing`.
"""

import os
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, cast

from snapcheck.impl.adapters.qemu.keeper import KEEPER
from snapcheck.impl.adapters.qemu.monitor import Asked, Json, RefusedError
from snapcheck.impl.adapters.qemu.system import QemuSystem


class Proxy:
    """Passes everything on; what lies overrides a method."""

    def __init__(self, honest: Asked) -> None:
        self.honest = honest

    def execute(self, command: str, arguments: Mapping[str, object] | None = None) -> Any:  # noqa: ANN401  # JSON
        """Execute a command of QMP."""
        return self.honest.execute(command, arguments)

    def say(self, line: str) -> str:
        """Say a line to the monitor for people."""
        return self.honest.say(line)

    def run_job(self, command: str, arguments: Mapping[str, object]) -> None:
        """Run a job."""
        self.honest.run_job(command, arguments)

    def await_event(self, wanted: Callable[[Json], bool], what: str) -> None:
        """Wait for an event."""
        self.honest.await_event(wanted, what)

    def foresee(self, command: str, arguments: Mapping[str, object]) -> None:
        """Foresee a command."""
        self.honest.foresee(command, arguments)

    def drop(self, device: str, name: str) -> None:
        """Delete a snapshot behind everybody's back, if it is there."""
        with suppress(RefusedError):
            self.honest.execute("blockdev-snapshot-delete-internal-sync", {"device": device, "name": name})


def _name_in(line: str) -> str:
    return line.partition('"')[2].rstrip('"')


class _DeletesNothing(Proxy):
    def say(self, line: str) -> str:
        return "" if line.startswith("delvm") else super().say(line)


class _LoadsNothing(Proxy):
    def say(self, line: str) -> str:
        return "" if line.startswith("loadvm") else super().say(line)


class _SavesNotAll(Proxy):
    def say(self, line: str) -> str:
        answer = super().say(line)
        if line.startswith("savevm") and not answer:
            self.drop("d1", _name_in(line))
        return answer


class _DeletesAnother(Proxy):
    def say(self, line: str) -> str:
        return super().say(line.replace('delvm "a"', 'delvm "b"'))


class _BlamesAnother(Proxy):
    def say(self, line: str) -> str:
        return super().say(line).replace("'d1'", "'d0'")


class _BlamesNobody(Proxy):
    def say(self, line: str) -> str:
        return "Error: Input/output error" if super().say(line) else ""


class _SwallowsErrors(Proxy):
    def say(self, line: str) -> str:
        super().say(line)
        return ""


class _ChangesTheList(Proxy):
    """Changes the list that is shown of the device d1."""

    def execute(self, command: str, arguments: Mapping[str, object] | None = None) -> Any:  # noqa: ANN401  # JSON
        answer = super().execute(command, arguments)
        if command == "query-named-block-nodes":
            for node in cast("list[Json]", answer):
                if node["node-name"] == "d1" and node["image"].get("snapshots"):
                    node["image"]["snapshots"] = self.shown(node["image"]["snapshots"])
        return answer

    def shown(self, snapshots: list[Json]) -> list[Json]:
        return snapshots


class _ShowsAGhost(_ChangesTheList):
    def shown(self, snapshots: list[Json]) -> list[Json]:
        return [*snapshots, {**snapshots[-1], "id": "77", "name": "ghost"}]


class _TurnsTheListAround(_ChangesTheList):
    def shown(self, snapshots: list[Json]) -> list[Json]:
        return snapshots[::-1]


class _ShowsVmStateTwice(_ChangesTheList):
    def shown(self, snapshots: list[Json]) -> list[Json]:
        return [{**each, "vm-state-size": 765} for each in snapshots]


class _KeepsHalfOfATransaction(Proxy):
    def execute(self, command: str, arguments: Mapping[str, object] | None = None) -> Any:  # noqa: ANN401  # JSON
        try:
            return super().execute(command, arguments)
        except RefusedError:
            if command == "transaction" and arguments is not None:
                first = cast("list[Json]", arguments["actions"])[0]
                self.honest.execute(first["type"], first["data"])
            raise


class _TouchesAnother(Proxy):
    def execute(self, command: str, arguments: Mapping[str, object] | None = None) -> Any:  # noqa: ANN401  # JSON
        if command == "transaction" and arguments and len(cast("list[Json]", arguments["actions"])) == 1:
            self.honest.say('qemu-io d1 "write -P 0 0 512"')
            self.honest.say('qemu-io d1 "flush"')
        return super().execute(command, arguments)


class _ResizesNothing(Proxy):
    def execute(self, command: str, arguments: Mapping[str, object] | None = None) -> Any:  # noqa: ANN401  # JSON
        return {} if command == "block_resize" else super().execute(command, arguments)


class _DiesOfALoad(Proxy):
    def say(self, line: str) -> str:
        if line.startswith("loadvm"):
            os.kill(KEEPER.lent[-1].pid, signal.SIGABRT)
        return super().say(line)


def _behind(proxy: type[Proxy]) -> type[QemuSystem]:
    """Return a system that asks QEMU through `proxy`."""

    class Behind(QemuSystem):
        def through(self, monitor: Asked) -> Asked:
            return proxy(monitor)

    Behind.__name__ = Behind.__qualname__ = proxy.__name__.strip("_")
    return Behind


DeletesNothing = _behind(_DeletesNothing)
LoadsNothing = _behind(_LoadsNothing)
SavesNotAll = _behind(_SavesNotAll)
DeletesAnother = _behind(_DeletesAnother)
BlamesAnother = _behind(_BlamesAnother)
BlamesNobody = _behind(_BlamesNobody)
SwallowsErrors = _behind(_SwallowsErrors)
ShowsAGhost = _behind(_ShowsAGhost)
TurnsTheListAround = _behind(_TurnsTheListAround)
ShowsVmStateTwice = _behind(_ShowsVmStateTwice)
KeepsHalfOfATransaction = _behind(_KeepsHalfOfATransaction)
TouchesAnother = _behind(_TouchesAnother)
ResizesNothing = _behind(_ResizesNothing)
DiesOfALoad = _behind(_DiesOfALoad)
