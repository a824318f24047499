"""A QEMU process: found, started, and gone when the harness is, however that ends.

Nothing of it is in a file system: its monitor is an inherited socket, its other sockets are abstract, its standard
error is a file without a name. When the harness is killed the kernel kills QEMU.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from snapcheck.impl.adapters.qemu.devices import UNLIMITED
from snapcheck.impl.adapters.qemu.disks import DiskServer
from snapcheck.impl.adapters.qemu.monitor import GoneError, Monitor, RefusedError
from snapcheck.impl.adapters.qemu.pump import Pump, StuckError
from snapcheck.impl.checked import StartError
from snapcheck.impl.targets import WHERE_QEMU

MACHINE: Final = "qemu-system-x86_64"
DAEMON: Final = "qemu-storage-daemon"
IMG: Final = "qemu-img"
PACKAGES: Final = {MACHINE: "qemu-system-x86", DAEMON: "qemu-system-common", IMG: "qemu-utils"}
_ARGUMENTS: Final = {
    MACHINE: ("-machine", "none", "-nodefaults", "-no-user-config", "-display", "none", "-S"),
    DAEMON: (),
}
_STDERR_KEPT: Final = 600
# What asks the kernel to kill it when its parent ends, and then becomes QEMU. In a process of its own, as nothing but
# an exec is safe after a fork while other threads run. 1 is PR_SET_PDEATHSIG.
_LAUNCH: Final = "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9); os.execv(sys.argv[1], sys.argv[1:])"


def find_program(name: str) -> str:
    """Return the path of one of QEMU's programs, or raise `StartError`."""
    where = os.environ.get(WHERE_QEMU)
    if where is None:
        found = shutil.which(name)
        if found:
            return found
        text = f"needs {name}: apt-get install {PACKAGES[name]} (Debian, Ubuntu), or say where it is: --qemu DIR"
        raise StartError(text)
    place = Path(where)
    program = place / name if place.is_dir() else place if place.name == name else place.with_name(name)
    if os.access(program, os.X_OK) and program.is_file():
        return str(program)
    raise StartError(f"--qemu {where}: there is no program {name} there")


class QemuProcess:
    """A running QEMU (or storage daemon) with a monitor, and the server of the disks below it.

    `why` says what it died of. `address` is that of its NBD server, for guests.
    """

    def __init__(self, program: str) -> None:
        self.program = program
        self.pump = Pump()
        name = f"snapcheck-{os.getpid()}-{secrets.token_hex(4)}"
        self.address = f"{name}-guests"
        self.disks = DiskServer(self.pump, f"{name}-disks")
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  # as long as the process
        ours, theirs = socket.socketpair()
        self._process = self._started(program, theirs)
        theirs.close()
        try:
            self.monitor = Monitor(self.pump, ours)
            address = {"type": "unix", "data": {"path": self.address, "abstract": True}}
            self.monitor.execute("nbd-server-start", {"addr": address})
            self.monitor.execute("object-add", {"qom-type": "throttle-group", "id": UNLIMITED})
        except (GoneError, StuckError, RefusedError) as error:
            raise StartError(f"{program} does not start: {str(error) or self.why()}") from error

    def _started(self, program: str, monitor: socket.socket) -> "subprocess.Popen[bytes]":
        chardev = ("--chardev", f"socket,id=monitor,fd={monitor.fileno()}")
        mode = () if program == DAEMON else ("--mon", "chardev=monitor,mode=control")
        launch = (sys.executable, "-I", "-S", "-c", _LAUNCH)
        command = [*launch, find_program(program), *_ARGUMENTS[program], *chardev, *mode]
        if program == DAEMON:
            command += ["--monitor", "chardev=monitor"]
        return subprocess.Popen(  # noqa: S603  # a program of QEMU
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self._stderr,
            pass_fds=(monitor.fileno(),), process_group=0,  # a Ctrl-C is for the harness, which ends QEMU in its time
        )  # fmt: skip

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def why(self) -> str:
        """Return how it ended, and the end of what it wrote to its standard error."""
        if self._stderr.closed:
            return "QEMU was ended by the harness"
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        status = self._process.returncode
        how = "still runs" if status is None else f"ended with status {status}"
        if status is not None and status < 0:
            how = f"was ended by {signal.Signals(-status).name}"
        self._stderr.seek(0)
        said = " / ".join(self._stderr.read().decode(errors="replace").split("\n")).strip(" /")
        return f"QEMU {how}{': ' if said else ''}{said[-_STDERR_KEPT:]}"

    def close(self) -> None:
        """End it, and wait until it is gone."""
        if self.alive:
            self._process.kill()
        self._process.wait()
        self.pump.close()
        self._stderr.close()


def run_program(pump: Pump, name: str, arguments: Sequence[str]) -> tuple[int, str, str]:
    """Run one of QEMU's programs to its end while `pump` serves its disks; return its status and both outputs."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        command = [find_program(name), *arguments]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err)  # noqa: S603  # as above
        try:
            pump.until_ended(process, name)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        texts: list[str] = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read().decode(errors="surrogateescape").strip())
        return process.returncode, texts[0], texts[1]
