"""A baseline for comparison: uniform random histories, with nothing that is meant to make them find more.

Every operation of the alphabet is as likely as any other, whatever state the devices are in, and so is every fault;
nothing is aimed, nothing is led on by what is new, and no history starts from the end of another. Setups, names and
ranges are drawn as by the other phases, so that what differs is the search alone.
"""

from itertools import count
from random import Random
from typing import Final

from snapcheck.impl.driver import UnsupportedSetupError
from snapcheck.impl.targets import Target, find_target
from snapcheck.model.errno import Errno
from snapcheck.model.faults import CALLS, CallFault, Fails, Fault, IoFault, LandsButFails
from snapcheck.model.history import Care
from snapcheck.model.operations import KINDS
from snapcheck.stateful_tests.chooser import RandomChooser
from snapcheck.stateful_tests.draw_operations import draw_operation
from snapcheck.stateful_tests.draw_setups import draw_setup
from snapcheck.stateful_tests.gather import Gatherer, gathering
from snapcheck.stateful_tests.session import Session
from snapcheck.stateful_tests.units import Answer, Unit
from snapcheck.stateful_tests.watchdog import Watchdog, watchdog
from snapcheck.stateful_tests.work import Control

NAME: Final = "random"
STEPS: Final = 25  # of a history
FAULTY_SHARE: Final = 0.3  # of the operations have a fault
AT_MAX: Final = 24
_CARES: Final = (Care.LATE, Care.LIVE)  # after a fault a device is opened again, or it keeps what it has in memory
_IO: Final = ("read", "write", "flush", "discard", "truncate")
_ERRNOS: Final = (Errno.EIO, Errno.ENOSPC, Errno.EPERM, Errno.ENOMEDIUM)


def run(unit: Unit, control: Control) -> Answer:
    """Run histories of one unit. Raises `TargetError` as any phase; on KeyboardInterrupt it ends with what it has."""
    with gathering(unit, control) as gatherer, watchdog() as dog:
        target = find_target(unit.driver)
        try:
            for number in count(gatherer.next_number()):
                if gatherer.must_stop():
                    break
                _history(unit, number, target, gatherer, dog)
        except KeyboardInterrupt:
            gatherer.answer.interrupted = True
    return gatherer.answer


def _history(unit: Unit, number: int, target: Target, gatherer: Gatherer, dog: Watchdog) -> None:
    rng = Random(f"{unit.seed}/{unit.shard}/{NAME}/{number}")  # noqa: S311  # the same again, not secret
    chooser, able = RandomChooser(rng), target.abilities.operations
    setup = draw_setup(
        chooser, semantics=unit.semantics, devices_max=unit.devices, qcow2_prepared=target.format == "qcow2"
    )
    try:
        session = Session(target, setup, care=rng.choice(_CARES), dog=dog)
    except UnsupportedSetupError:
        gatherer.skipped()
        return
    kinds = [word for word in KINDS.values() if able is None or word in able]
    with session:
        for _ in range(STEPS):
            if session.over:
                break
            operation = draw_operation(chooser, session.world, kinds=(rng.choice(kinds),))
            faults = (_draw_fault(rng, [*session.world.devices]),) if rng.random() < FAULTY_SHARE else ()
            gatherer.heard(session, session.step(operation, faults))
        gatherer.heard(session, session.finish())
        gatherer.ended(session, case=str(number))


def _draw_fault(rng: Random, devices: list[str]) -> Fault:
    device, errno = rng.choice(devices), rng.choice(_ERRNOS)
    if rng.random() < 0.5:
        return CallFault(device, rng.choice(CALLS), errno=errno)
    effect = rng.choice((Fails, LandsButFails))(errno)
    return IoFault(device, rng.choice(_IO), effect, at=rng.randint(1, AT_MAX), times=rng.choice((0, 1)))
