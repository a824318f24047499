import pytest
from snapcheck.model.errno import Errno
from snapcheck.model.faults import (
    BitFlip,
    CallFault,
    Delay,
    DropsUnflushed,
    Fails,
    Fault,
    Fill,
    IoFault,
    LandsButFails,
    Lost,
    Misdirected,
    Short,
    Torn,
)
from snapcheck.model.history import UNWRITTEN, UNWRITTEN_INFO, Result
from snapcheck.model.operations import AllDelete, AllGoto, Create, Find, List, Operation, SnapshotAction, Transaction
from snapcheck.model.setup import DeviceSpec, PreparedSnapshot
from snapcheck.model.snapshot import SnapshotInfo
from snapcheck.reports import words


@pytest.mark.parametrize(
    ("operation", "text"),
    [
        (Create("d0", "a", vm_state_size=765), "create d0 name='a' vm_state_size=765"),
        (AllGoto("a", ("d0", "d1")), "all-goto name='a' devices=d0,d1"),
        (AllGoto("a", ()), "all-goto name='a' devices=none"),
        (Transaction((SnapshotAction("d0", "x"),)), "transaction (d0 name='x')"),
        (Find("d0", "n" * 255), f"find d0 name='{'n' * 27}...' (255 characters)"),
        (Find("d0", "\x1b[31m\udcff"), r"find d0 name='\x1b[31m\udcff'"),
    ],
)
def test_an_operation_is_one_printable_line(operation: Operation, text: str) -> None:
    assert words.operation_words(operation) == text


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (CallFault("d1", "delete"), "the first delete call on d1 answers EIO"),
        (CallFault("d1", "goto", 2, 0, Errno.ENOSPC), "the 2nd goto call on d1 answers ENOSPC, and all later ones"),
        (IoFault("d0", "write", Fails(), "l2", 11, 3), "the 11th write of d0 to l2 fails with EIO, 3 times"),
        (IoFault("d0", "any", LandsButFails()), "the first I/O of d0 lands and yet reports EIO"),
        (IoFault("d0", "write", Short(1)), "the first write of d0 lands 1 sector only and reports EIO"),
        (IoFault("d0", "write", Torn(2)), "the first write of d0 lands 2 sectors only and reports success"),
        (IoFault("d0", "write", Lost()), "the first write of d0 is acknowledged and lost"),
        (IoFault("d0", "write", Misdirected(-2)), "the first write of d0 lands -2 sectors off"),
        (IoFault("d0", "read", BitFlip(9)), "the first read of d0 has bit 9 flipped"),
        (IoFault("d0", "write", Fill(garbage=True)), "the first write of d0 leaves garbage"),
        (IoFault("d0", "flush", DropsUnflushed()), "the first flush of d0 reports EIO and drops what was not flushed"),
        (IoFault("d0", "read", Delay(5)), "the first read of d0 takes 5 ns"),
    ],
)
def test_a_fault_is_a_sentence(fault: Fault, text: str) -> None:
    assert words.fault_words(fault) == text


def test_an_answer_names_the_first_bad_device_where_there_can_be_one() -> None:
    assert words.result_words(AllDelete("a"), Result(Errno.EIO, first_bad="d1")) == "EIO, first_bad_bs d1"
    assert words.result_words(AllDelete("a"), Result(first_bad=UNWRITTEN)) == "ok, first_bad_bs not written"
    assert words.result_words(AllDelete("a"), Result()) == "ok, first_bad_bs NULL"
    assert words.result_words(List("d0"), Result(snapshots=(SnapshotInfo("1", "a", 9),))) == (
        "ok, [1:'a' (+9 B VM state)]"
    )
    untouched = Result(answer=False, sn=UNWRITTEN_INFO, device="d0", data=b"xy", message="m", crash="SIGSEGV")
    assert words.result_words(List("d0"), untouched) == (
        "ok, no, device d0, sn not written, 2 bytes, message 'm', died: 'SIGSEGV'"
    )


def test_a_device_is_described_with_what_is_on_it() -> None:
    spec = DeviceSpec("d1", read_only=True, tag=3, snapshots=(PreparedSnapshot("1", "a", 8, 1),))
    assert words.device_words(spec) == (
        "d1: driver, 128 sectors, 4096 B clusters, read-only, stamped with tag 3, snapshots 1:'a'"
    )
