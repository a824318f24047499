import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from snapcheck.fault_injection.crash.cuts import Persistence
from snapcheck.impl.adapters.qemu import pump
from snapcheck.impl.adapters.qemu.answers import device_in, errno_of
from snapcheck.impl.adapters.qemu.keeper import KEEPER
from snapcheck.impl.adapters.qemu.monitor import Monitor, RefusedError
from snapcheck.impl.adapters.qemu.process import DAEMON, MACHINE, QemuProcess
from snapcheck.impl.adapters.qemu.pump import StuckError
from snapcheck.impl.adapters.qemu.second_opinion import SecondOpinion
from snapcheck.impl.blockfile import BlockFile
from snapcheck.impl.driver import Capabilities, abandon
from snapcheck.impl.observe import contents_of
from snapcheck.impl.qcow2.driver import open_driver
from snapcheck.impl.qcow2.image import Image
from snapcheck.impl.qcow2.prepare import prepared_image
from snapcheck.impl.targets import StartError, find_target
from snapcheck.model.content import vmstate_pattern
from snapcheck.model.errno import Errno
from snapcheck.model.faults import Fails, Fault, IoFault
from snapcheck.model.history import Check, EventList, Io, Level, Observation, Step, View
from snapcheck.model.law_names import Law, Severity
from snapcheck.model.operations import (
    OWN_STATE_TAG,
    AddBitmap,
    Create,
    Delete,
    DelVm,
    Flush,
    Goto,
    LoadTmp,
    LoadTmpByIdOrName,
    LoadVm,
    Operation,
    Reopen,
    Resize,
    SaveVm,
    SetMedium,
    SetReadOnly,
    SnapshotAction,
    Transaction,
    Write,
)
from snapcheck.model.setup import DeviceSpec, Kind, PreparedSnapshot, Semantics, Setup
from snapcheck.stateful_tests.power_cuts.judging import CutJudge, Found, Left, Plan
from snapcheck.stateful_tests.power_cuts.recording import record
from snapcheck.stateful_tests.session import Care, Session

pytestmark = pytest.mark.usefixtures("running_qemu")
PLAIN = (Kind.DRIVER, Kind.DRIVER)


def group(kinds: Sequence[Kind]) -> Setup:
    return Setup(
        tuple(DeviceSpec(f"d{at}", kind, sectors=16, tag=9) for at, kind in enumerate(kinds)), Semantics.MODERN
    )


def performed(
    *operations: Operation, kinds: Sequence[Kind] = PLAIN, faults: tuple[Fault, ...] = (), driver: str = "qemu"
) -> tuple[list[Step], list[tuple[Law, str]]]:
    """Perform operations, the last one under `faults`; return the steps, and what broke a law in all of them."""
    with Session(find_target(driver), group(kinds)) as session:
        found = [each for one in operations[:-1] for each in session.step(one)]
        found += session.step(operations[-1], faults)
        steps = list(session.history.steps)
        found += session.finish()
    return steps, [(each.law, each.summary) for each in found if each.severity is Severity.ERROR]


def transaction(*devices: str, name: str = "t") -> Transaction:
    return Transaction(tuple(SnapshotAction(device, name) for device in devices))


# --- what it does ---------------------------------------------------------------------------------
@pytest.mark.parametrize("driver", ["qemu", "qemu-jobs"])
def test_a_saved_machine_comes_back_with_the_content_of_all_its_disks(driver: str) -> None:
    writes = Write("d0", 0, 8, 20), Write("d1", 8, 8, 21)
    steps, found = performed(SaveVm("a"), *writes, SaveVm("a"), *writes, LoadVm("a"), DelVm("a"), driver=driver)
    assert [step.result.errno for step in steps] == [Errno.OK] * 8
    assert found == []


@pytest.mark.parametrize("driver", ["qemu", "qemu-jobs"])
def test_a_machine_is_saved_under_a_name_that_two_snapshots_have(driver: str) -> None:
    names = ("n" * 255 + "x", "n" * 255 + "y")  # both are cut to the same 255 bytes
    steps, found = performed(*map(SaveVm, names), SaveVm("n" * 255), driver=driver)
    assert [step.result.errno for step in steps] == [Errno.OK] * 3
    assert found == []


def test_what_a_snapshot_holds_of_the_machine_is_compared() -> None:
    disks: dict[str, BlockFile] = {}

    def noted(name: str, disk: BlockFile) -> BlockFile:
        return disks.setdefault(name, disk)

    with Session(find_target("qemu"), group(PLAIN), below=noted) as session:
        assert session.step(SaveVm("a")) == []
        assert session.step(Flush("d0"), everywhere=True) == []
        image = disks["d0"].pread(0, disks["d0"].size())
        disks["d0"].pwrite(image.index(b"QEVM") + 40, b"somebody else's")
        found = session.finish()
    assert {each.law for each in found} == {Law.SNAPSHOT_IMMUTABLE}
    assert "VM state byte" in found[0].actual


def test_what_a_power_cut_leaves_of_the_machine_is_compared_as_it_is_shown() -> None:
    setup = Setup((DeviceSpec("d0", sectors=16, cluster_bytes=512),), Semantics.MODERN)
    recording = record(find_target("qemu"), setup, [SaveVm("a", tag=90)]).recording
    assert recording is not None
    judged = [*CutJudge(recording).judge(Plan((Persistence.EPOCH,), 512))]
    states = {
        held.vmstate for left in judged if isinstance(left, Left) for held in left.observed.contents or () if held
    }
    assert states == {vmstate_pattern(tag=OWN_STATE_TAG, offset=0, length=765)}
    assert not [each for each in judged if isinstance(each, Found)]


@pytest.mark.parametrize("driver", ["qemu", "qemu-jobs", "qemu-storage-daemon", "qemu-img"])
def test_a_device_in_which_nothing_can_be_shared_is_the_one_that_fails(driver: str) -> None:
    devices = (DeviceSpec("d0", sectors=16, tag=9), DeviceSpec("d1", sectors=16, tag=9, unshared=True))
    take = {"qemu-storage-daemon": transaction("d0", "d1"), "qemu-img": Create("d1", "a")}.get(driver, SaveVm("a"))
    with Session(find_target(driver), Setup(devices, Semantics.MODERN)) as session:
        found = session.step(take) + session.finish()
        result = session.history.steps[0].result
    assert result.errno in {Errno.EINVAL, Errno.EUNTOLD}  # savevm does not tell
    assert result.first_bad == (None if driver == "qemu-img" else "d1")
    assert [each.summary for each in found if each.severity is Severity.ERROR] == []


def test_a_raw_device_keeps_its_bitmaps_when_it_gets_another_size() -> None:
    operations = AddBitmap("d0", "bm0"), Resize("d0", 40), AddBitmap("d0", "bm0")
    steps, found = performed(*operations, kinds=(Kind.PLAIN,))
    assert [step.result.errno for step in steps] == [Errno.OK, Errno.OK, Errno.EEXIST]
    assert found == []


def test_the_environment_of_a_device_is_what_the_harness_makes_it() -> None:
    operations = (
        SetReadOnly("d0", read_only=True), Write("d0", 0, 1, 5), SetReadOnly("d0", read_only=False),
        AddBitmap("d0", "bm0"), AddBitmap("d0", "bm0"), Reopen("d0"), SetMedium("d0", present=False), Flush("d0"),
        SetMedium("d0", present=True), Resize("d0", 24), Write("d0", 16, 8, 6), Write("d0", 24, 1, 6),
    )  # fmt: skip
    steps, found = performed(*operations)
    expected = [
        Errno.OK, Errno.EPERM, Errno.OK, Errno.OK, Errno.EEXIST, Errno.OK, Errno.OK, Errno.ENOMEDIUM, Errno.OK,
        Errno.OK, Errno.OK, Errno.EIO,
    ]  # fmt: skip
    assert [step.result.errno for step in steps] == expected
    assert found == []


def test_a_device_keeps_its_place_in_the_walk_when_it_is_opened_again() -> None:
    steps, found = performed(SaveVm("a"), Reopen("d0"), SaveVm("b"))
    first = steps[-1].observations[0].memory.snapshots
    assert first is not None
    assert [snapshot.vm_state_size > 0 for snapshot in first] == [True, True]
    assert found == []


def test_going_back_gives_a_device_the_size_that_it_had() -> None:
    steps, found = performed(SaveVm("a"), Resize("d1", 40), LoadVm("a"))
    assert steps[-1].observations[1].memory.sectors == 16
    assert found == []


def test_empty_read_only_and_plain_devices_stand_beside_the_others() -> None:
    steps, found = performed(SaveVm("a"), kinds=(Kind.DRIVER, Kind.PLAIN, Kind.EMPTY))
    assert (steps[-1].result.errno is not Errno.OK, steps[-1].result.first_bad) == (True, "d1")
    assert found == []


def test_the_storage_daemon_takes_and_drops_snapshots_of_several_devices() -> None:
    operations = (transaction("d0", "d1"), Write("d0", 0, 8, 20), Delete("d0", None, "t"), transaction("d1"))
    steps, found = performed(*operations, driver="qemu-storage-daemon")
    assert steps[-1].result.first_bad == "d1"
    assert found == []


def test_qemu_img_works_on_images_that_nobody_else_has_open() -> None:
    operations = (
        Create("d0", "a"), Create("d0", "a"), Write("d0", 0, 8, 20), Goto("d0", "1"), Delete("d0", None, "a"),
        Goto("d0", "zz"), SetMedium("d0", present=False), Create("d0", "b"), SetMedium("d0", present=True),
    )  # fmt: skip
    steps, found = performed(*operations, driver="qemu-img")
    expected = [Errno.OK] * 5 + [Errno.ENOENT, Errno.OK, Errno.ENOMEDIUM, Errno.OK]
    assert [step.result.errno for step in steps] == expected
    assert found == []


def test_qemu_img_shows_what_a_snapshot_of_a_read_only_image_holds_until_the_image_is_closed() -> None:
    operations = (
        Create("d0", "a,b"), Write("d0", 0, 8, 20), Create("d0", "1"), LoadTmp("d0", None, "a,b"),
        SetReadOnly("d0", read_only=True), LoadTmp("d0", None, "a,b"), LoadTmpByIdOrName("d0", "2"),
        LoadTmp("d0", "1", "a,b"), LoadTmp("d0", "2", "a,b"), LoadTmpByIdOrName("d0", "zz"),
        LoadTmp("d0", None, None), Reopen("d0"),
    )  # fmt: skip
    steps, found = performed(*operations, driver="qemu-img")
    expected = [Errno.OK] * 3 + [Errno.EINVAL] + [Errno.OK] * 4 + [Errno.ENOENT] * 2 + [Errno.EUNTOLD, Errno.OK]
    assert [step.result.errno for step in steps] == expected
    shown = [step.observations[0].memory.content for step in steps]
    first, second = bytes([9] * 16), bytes([20] * 8 + [9] * 8)
    assert (shown[5], shown[6], shown[7], shown[11]) == (first, second, first, second)
    assert found == []


@pytest.mark.parametrize("kind", [Kind.RAW_OVER, Kind.FILTER_OVER, Kind.PLAIN])
def test_qemu_img_loads_no_snapshot_through_another_node(kind: Kind) -> None:
    operations = SetReadOnly("d0", read_only=True), LoadTmpByIdOrName("d0", "a"), Create("d0", "a")
    steps, found = performed(*operations, kinds=(kind,), driver="qemu-img")
    assert [step.result.errno for step in steps] == [Errno.OK, Errno.ENOTSUP, Errno.EUNTOLD]
    assert found == []


def test_qemu_img_can_not_tell_of_a_snapshot_in_an_image_that_it_can_not_open() -> None:
    fault = IoFault("d0", "read", Fails(Errno.EIO), times=0)
    operations = SetReadOnly("d0", read_only=True), LoadTmp("d0/file", "1", None)
    steps, found = performed(*operations, kinds=(Kind.RAW_OVER,), faults=(fault,), driver="qemu-img")
    assert (steps[-1].operation, steps[-1].result.errno) == (LoadTmp("d0", "1", None), Errno.EUNTOLD)
    assert found == []


# --- faults and what is seen ----------------------------------------------------------------------
def test_everything_that_reaches_a_disk_is_seen() -> None:
    steps, _ = performed(Write("d0", 0, 8, 20), Flush("d0"))
    kinds = {event.kind for step in steps for event in step.events if isinstance(event, Io) and event.device == "d0"}
    assert {"write", "flush"} <= kinds
    assert not any(isinstance(event, Io) and event.device == "d1" for step in steps for event in step.events)


def test_a_fault_strikes_the_disk_below_one_device_and_qemu_names_that_device() -> None:
    fault = IoFault("d1", "write", Fails(Errno.ENOSPC), at=1, times=0)
    steps, _ = performed(transaction("d0", "d1"), faults=(fault,))
    assert steps[-1].met == (fault,)
    assert (steps[-1].result.errno, steps[-1].result.first_bad) == (Errno.ENOSPC, "d1")


def test_a_delete_that_fails_leaves_memory_and_disk_disagreeing() -> None:
    fault = IoFault("d1", "any", Fails(Errno.EIO))
    _, found = performed(SaveVm("a"), DelVm("a"), faults=(fault,))
    assert Law.MEMORY_IS_DISK in {law for law, _ in found}


@pytest.fixture
def opinion(monkeypatch: pytest.MonkeyPatch) -> Iterator[SecondOpinion]:
    """Lend an opinion on every image."""
    monkeypatch.setattr(SecondOpinion, "EVERY", 1)
    process = KEEPER.lend(DAEMON)
    yield SecondOpinion(process.pump, process.disks)
    KEEPER.give_back(process)


def seen_on(image: BlockFile) -> Observation:
    """Return what our engine sees on an image, which it finds clean."""
    with Image.open(image.clone(), read_only=True) as opened:
        listed = tuple(opened.snapshot_list())
    contents = contents_of(image, listed, open_driver, Capabilities())
    return Observation("d0", Level.FULL, View(), View(listed), contents, Check())


def test_qemu_img_has_a_second_opinion_on_an_image_that_our_checker_finds_clean(opinion: SecondOpinion) -> None:
    image = prepared_image(DeviceSpec("d0", tag=3))
    seen = seen_on(image)
    assert opinion.on(seen, image) is seen
    leaky = image.clone()
    leaky.pwrite(8192 + 2 * 4, b"\0\2")  # what is counted twice and referenced once may be written to all the same
    assert opinion.on(seen, leaky) is seen
    image.pwrite(8192, bytes(64))  # refcounts
    told = opinion.on(seen, image).check
    assert told is not None
    assert "qemu-img check finds corruptions, ours does not: ERROR" in told.messages[0]


def test_qemu_img_has_a_second_opinion_on_what_a_snapshot_holds(opinion: SecondOpinion) -> None:
    snapshots = tuple(PreparedSnapshot(str(at), f"{at},x", sectors=24, tag=10 + at) for at in range(2))
    image = prepared_image(DeviceSpec("d0", sectors=16, tag=3, snapshots=snapshots))
    seen = seen_on(image)
    assert [opinion.on(seen, image) is seen for _ in snapshots] == [True, True]
    assert seen.contents is not None
    held = seen.contents[0]
    assert held is not None
    other = replace(seen, contents=(replace(held, content=b"\7" * 16), replace(held, content=b"\7" * 16)))
    told = opinion.on(other, image).check
    assert told is not None
    assert "qemu-img convert -l reads something else than ours in snapshot" in told.messages[0]


# --- QEMU dying, hanging, missing -----------------------------------------------------------------
def test_a_qemu_that_dies_is_a_violation_and_the_next_history_has_another_one() -> None:
    with Session(find_target("qemu"), group(PLAIN)) as session:
        os.kill(_pid(), signal.SIGKILL)
        found = session.step(SaveVm("a"))
    assert [(each.law, "SIGKILL" in each.actual) for each in found] == [(Law.NO_CRASH, True)]
    assert performed(SaveVm("a"))[1] == []


def test_a_qemu_that_does_not_answer_is_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    with Session(find_target("qemu"), group(PLAIN)) as session, monkeypatch.context() as patch:
        os.kill(_pid(), signal.SIGSTOP)
        patch.setattr(pump, "SECONDS_MAX", 0.5)
        found = session.step(SaveVm("a"))
    assert [each.law for each in found] == [Law.NO_HANG]
    assert performed(SaveVm("a"))[1] == []


def test_a_qemu_that_was_not_waited_for_to_the_end_serves_no_other_history() -> None:
    with Session(find_target("qemu"), group(PLAIN)):
        process = KEEPER.lent[-1]
        with pytest.raises(StuckError):
            process.pump.until(lambda: False, "what never comes", seconds=0.01)
    assert not process.alive
    assert performed(SaveVm("a"))[1] == []


def test_a_qemu_with_a_node_that_nobody_took_away_serves_no_other_history() -> None:
    with Session(find_target("qemu"), group(PLAIN)):
        process = KEEPER.lent[-1]
        process.monitor.execute("blockdev-add", {"driver": "null-co", "node-name": "left"})
    assert not process.alive


@pytest.mark.parametrize(
    "closing",
    [Reopen("d0"), SetReadOnly("d0", read_only=True), SetMedium("d0", present=False)],
    ids=lambda it: it.__class__.__name__,
)
def test_an_operation_that_closes_a_disk_which_a_savevm_holds_is_done_and_the_hold_is_told_once(
    closing: Operation,
) -> None:
    writes_fail = IoFault("d0", "write", Fails(), at=2, times=0)
    with Session(find_target("qemu"), group(PLAIN), care=Care.LIVE) as session:
        failed = session.step(SaveVm("a"), (writes_fail,))
        session.step(Write("d0", 0, 16, 20))
        told = session.step(closing)
        others = session.step(Write("d1", 0, 16, 21)) + session.step(SetMedium("d0", present=True)) + session.finish()
    assert [each for each in failed + others if each.severity is Severity.ERROR] == []
    assert [(each.law, each.actual) for each in told] == [(Law.NO_CRASH, "Block device d0 is in use")]


def test_an_image_in_use_is_held_also_below_another_node() -> None:
    with Session(find_target("qemu"), group((Kind.RAW_OVER,))) as session:
        monitor = KEEPER.lent[-1].monitor
        monitor.execute("blockdev-add", {"driver": "raw", "node-name": "user", "file": "d0.file"})
        found = session.step(Flush("d0"), everywhere=True)
    assert [(each.law, each.actual) for each in found] == [
        (Law.NO_CRASH, "Node 'd0.file' is in use, also without the node over it")
    ]


def test_a_resize_of_an_image_that_was_found_corrupt_holds_nothing_of_it() -> None:
    setup = Setup((DeviceSpec("d0", sectors=16),), Semantics.MODERN)
    disk = prepared_image(setup.devices[0])
    disk.pwrite(8192, bytes(64))  # refcounts: what the next write takes is the header
    system = find_target("qemu-storage-daemon").built([disk], semantics="modern", recorder=EventList())
    system.start(setup)
    results = [system.perform(each) for each in (Write("d0", 0, 8, 20), Resize("d0", 24), Reopen("d0"))]
    system.close()
    assert [result.errno is Errno.OK for result in results] == [False] * 3
    assert "can not be opened" in (results[-1].message or "").replace("cannot", "can not")


# --- the monitor ----------------------------------------------------------------------------------
@pytest.fixture
def daemon() -> Iterator[QemuProcess]:
    process = KEEPER.lend(DAEMON)
    yield process
    KEEPER.give_back(process)


def nodes(monitor: Monitor) -> list[str]:
    return [node["node-name"] for node in monitor.execute("query-named-block-nodes", {"flat": True})]


def test_what_is_foreseen_is_answered_along_with_the_next_command(daemon: QemuProcess) -> None:
    monitor = daemon.monitor
    monitor.foresee("query-named-block-nodes", {"flat": True})
    monitor.execute("blockdev-add", {"driver": "null-co", "node-name": "one"})
    assert nodes(monitor) == ["one"]
    monitor.execute("blockdev-del", {"node-name": "one"})
    assert nodes(monitor) == []


def test_what_is_foreseen_is_out_of_date_once_another_command_was_executed(daemon: QemuProcess) -> None:
    monitor = daemon.monitor
    monitor.foresee("query-named-block-nodes", {"flat": True})
    monitor.execute("blockdev-add", {"driver": "null-co", "node-name": "one"})
    with pytest.raises(RefusedError):
        monitor.execute("blockdev-add", {"driver": "null-co", "node-name": "one"})
    monitor.execute("blockdev-del", {"node-name": "one"})
    assert nodes(monitor) == []


def _pid() -> int:
    (process,) = (each for each in KEEPER.lent if each.program == MACHINE)
    return process.pid


def test_a_system_that_is_abandoned_writes_nothing_any_more() -> None:
    setup = Setup((DeviceSpec("d0", sectors=16, tag=9),), Semantics.MODERN)
    disk = prepared_image(setup.devices[0])
    system = find_target("qemu").built([disk], semantics="modern", recorder=EventList())
    system.start(setup)
    system.perform(Write("d0", 0, 8, 20))
    before, pid = disk.pread(0, disk.size()), _pid()
    abandon(system)
    assert disk.pread(0, disk.size()) == before
    assert not _runs(pid)


def test_a_harness_that_is_killed_leaves_no_qemu_behind() -> None:
    program = (
        "from snapcheck.impl.adapters.qemu.keeper import KEEPER; import time;"
        "print(KEEPER.lend('qemu-system-x86_64').pid, flush=True); time.sleep(60)"
    )
    harness = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert harness.stdout is not None
    pid = int(harness.stdout.readline())
    harness.kill()
    harness.wait()
    harness.stdout.close()
    deadline = time.monotonic() + 10
    while _runs(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _runs(pid)


def _runs(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().split()[2] != "Z"


def test_where_there_is_no_qemu_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SNAPCHECK_QEMU", str(tmp_path))
    KEEPER.end_all()
    with pytest.raises(StartError, match=r"--qemu .*there is no program qemu-system-x86_64"):
        _ = find_target("qemu").abilities


# --- error texts ----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "errno", "device"),
    [
        ("Could not create snapshot 'd1' on 'd0'", Errno.EUNTOLD, "d0"),
        ("Could not delete snapshot 'a' on 'd1': Failed to remove: Input/output error", Errno.EIO, "d1"),
        ("Failed to create snapshot 'x' on device 'd0.file': No space left on device", Errno.ENOSPC, "d0/file"),
        ("Device 'd1' is writable but does not support snapshots", Errno.EUNTOLD, "d1"),
        ("No block device node 'nowhere'", Errno.EUNTOLD, None),
        ("Device has active dirty bitmaps", Errno.EBUSY, None),
        (
            "Block format 'raw' used by device '' does not support temporarily loading internal snapshots",
            Errno.ENOTSUP,
            None,
        ),
        ("Error while writing VM state: Input/output error", Errno.EIO, None),
    ],
)
def test_an_error_text_tells_an_errno_and_a_device_or_neither(text: str, errno: Errno, device: str | None) -> None:
    assert errno_of(text) is errno
    assert device_in(text, ("d0", "d1", "d0/file")) == device
