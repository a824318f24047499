"""QEMU's monitor: commands and their answers, jobs, and the events that tell when something has ended."""

import json
import socket
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, cast

from snapcheck.impl.adapters.qemu.nbd import Inbox
from snapcheck.impl.adapters.qemu.pump import Pump

Json = dict[str, Any]
_JOB: Final = "snapcheck"


class RefusedError(Exception):
    """QEMU answered a command with an error; the text is its own."""


class GoneError(Exception):
    """QEMU has closed its monitor: it has died, or is about to."""


class Asked(Protocol):
    """What can be asked of QEMU; see `Monitor`."""

    def execute(self, command: str, arguments: Mapping[str, object] | None = None) -> Any: ...  # noqa: ANN401  # JSON
    def say(self, line: str) -> str: ...
    def run_job(self, command: str, arguments: Mapping[str, object]) -> None: ...
    def await_event(self, wanted: Callable[[Json], bool], what: str) -> None: ...
    def foresee(self, command: str, arguments: Mapping[str, object]) -> None: ...


class Monitor:
    """A QMP connection. Commands wait for their answer; what QEMU waits for meanwhile is served."""

    def __init__(self, pump: Pump, endpoint: socket.socket) -> None:
        self._pump = pump
        self._endpoint = endpoint
        self._inbox = Inbox(endpoint)
        self._answers: deque[Json] = deque()
        self._events: list[Json] = []
        self._foreseen: Json | None = None  # what goes with the next command
        self._ahead: Json | None = None  # what went with the last one, and was not asked for yet
        pump.add(endpoint, self._arrived)
        self.version = _version(self._answer("QEMU's greeting"))
        self.execute("qmp_capabilities")

    def _arrived(self) -> None:
        self._inbox.fill()
        while (line := self._inbox.line()) is not None:
            message: Json = json.loads(line)
            (self._events if "event" in message else self._answers).append(message)
        if self._inbox.ended:
            self._pump.drop(self._endpoint)

    def _answer(self, what: str) -> Json:
        """Wait for the next answer, and return it."""
        self._pump.until(lambda: bool(self._answers) or self._inbox.ended, what)
        if not self._answers:
            raise GoneError
        return self._answers.popleft()

    def foresee(self, command: str, arguments: Mapping[str, object]) -> None:
        """Send a command along with the next one: `execute` has its answer then without another way there and back.

        The answer counts as long as no other command was executed in between. The command must change nothing.
        """
        self._foreseen = _message(command, arguments)

    def execute(self, command: str, arguments: Mapping[str, object] | None = None) -> Any:  # noqa: ANN401  # JSON
        """Return what `command` answers; raises `RefusedError` for an error, and `GoneError` when QEMU is gone."""
        message = _message(command, arguments)
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead != message:
            self._answer(f"the command {ahead['execute']}")  # it is out of date
        if ahead != message:
            self._ahead, self._foreseen = self._foreseen, None
            self._send([message] if self._ahead is None else [message, self._ahead])
        answer = self._answer(f"the command {command}")
        if "error" in answer:
            raise RefusedError(str(cast("Json", answer["error"])["desc"]))
        return answer["return"]

    def _send(self, messages: list[Json]) -> None:
        try:
            self._endpoint.sendall("".join(json.dumps(message, ensure_ascii=True) for message in messages).encode())
        except OSError:
            raise GoneError from None

    def say(self, line: str) -> str:
        """Return what the monitor for people answers to `line`; nothing means that all went well."""
        return str(self.execute("human-monitor-command", {"command-line": line})).strip()

    def run_job(self, command: str, arguments: Mapping[str, object]) -> None:
        """Run a job to its end; `RefusedError` says why it failed."""
        self._events.clear()
        self.execute(command, {"job-id": _JOB, **arguments})
        self.await_event(_concluded, f"the job {command}")
        jobs = cast("list[Json]", self.execute("query-jobs"))
        self.execute("job-dismiss", {"id": _JOB})
        text = next((str(job["error"]) for job in jobs if job["id"] == _JOB and "error" in job), "")
        if text:
            raise RefusedError(text)

    def await_event(self, wanted: Callable[[Json], bool], what: str) -> None:
        """Wait until an event that is `wanted` has come since the last one that was waited for."""
        self._pump.until(lambda: any(map(wanted, self._events)) or self._inbox.ended, what)
        if self._inbox.ended:
            raise GoneError
        place = next(at for at, event in enumerate(self._events) if wanted(event))
        del self._events[: place + 1]


def _message(command: str, arguments: Mapping[str, object] | None) -> Json:
    return {"execute": command, "arguments": arguments} if arguments else {"execute": command}


def _concluded(event: Json) -> bool:
    data = cast("Json", event.get("data", {}))
    return bool(event["event"] == "JOB_STATUS_CHANGE" and data["id"] == _JOB and data["status"] == "concluded")


def _version(greeting: Json) -> str:
    qemu = greeting["QMP"]["version"]["qemu"]
    return f"{qemu['major']}.{qemu['minor']}.{qemu['micro']}"
