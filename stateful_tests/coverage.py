"""The coverage matrix: which cells there are (cells.py says what one is), and which a run and its phases reached.

A cell is possible when the generators can draw it and the operation gets as far as the fault: nobody writes to a device
that is read-only, and a device without a medium does no I/O.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Final, NamedTuple

from snapcheck.model.facts import WALKS
from snapcheck.model.operations import (
    KINDS,
    OPERATIONS,
    AddBitmap,
    AllCreate,
    AllDelete,
    AllGoto,
    Delete,
    DelVm,
    Discard,
    Goto,
    LoadTmp,
    LoadTmpByIdOrName,
    LoadVm,
    LocalSnapshot,
    Operation,
    RemoveBitmap,
    Resize,
    SaveVm,
    SetMedium,
    Transaction,
    VmstateWrite,
    Write,
    WriteZeroes,
)
from snapcheck.model.setup import Semantics
from snapcheck.reports.verdict import Coverage, PhaseCoverage
from snapcheck.stateful_tests.cells import (
    BARE,
    BITMAP,
    CHILD,
    FIRST,
    LAST,
    MIDDLE,
    NO_FAULT,
    NO_MEDIUM,
    ONLY,
    READ_ONLY,
    ROOT,
    STATES,
    cell,
    parts_of,
)
from snapcheck.stateful_tests.draw_faults import fault_words

_GROUP_ROLES: Final = {1: (ONLY,), 2: (ONLY, FIRST, LAST)}  # by devices; three or more have all
_ON_CHILDREN_TOO: Final = (*LocalSnapshot.__args__, AddBitmap, RemoveBitmap)
_GUEST_CHANGES: Final = (Write, WriteZeroes, Discard, Resize, VmstateWrite)
_LOADS_TMP: Final = (LoadTmp, LoadTmpByIdOrName)
_GOES_BACK: Final = (Goto, AllGoto, LoadVm)
_NEEDS_A_SNAPSHOT: Final = (Goto, Delete, AllGoto, AllDelete, LoadVm, DelVm)


class _Place(NamedTuple):
    """One cell, before anybody asked whether it is possible."""

    operation: type[Operation]
    fault: str
    role: str
    state: str

    @property
    def is_group(self) -> bool:
        return self.operation in WALKS

    def is_possible(self, semantics: Semantics) -> bool:
        """Tell whether a history of this profile can get there."""
        if self.state in (NO_MEDIUM, READ_ONLY) and self.is_group and not _names_outsiders(self.operation, semantics):
            return False
        if self.fault == NO_FAULT:
            return True
        if self.state == NO_MEDIUM:
            return self.operation is SetMedium  # putting it in opens it
        if self.operation in _LOADS_TMP and self.state != READ_ONLY:
            return False
        if self.operation in _GOES_BACK and self.state == BITMAP and self.role != CHILD:
            return self.fault.endswith("find-call")  # EBUSY before the driver is asked (SPEC A.5)
        return self._call_is_made() if self.fault.endswith("-call") else self._io_is_done()

    def _call_is_made(self) -> bool:
        if self.fault == "delete-call" and self.operation is Transaction:
            return self.role != LAST  # rolled back because a later one failed
        by_name = self.fault in ("delete-call", "goto-call") and self.operation in (AllDelete, DelVm, SaveVm, LoadVm)
        return not (by_name and self.state == BARE)  # these find the snapshot first

    def _io_is_done(self) -> bool:
        if self.state == READ_ONLY and self.operation in _GUEST_CHANGES:
            return False
        return not (self.state == BARE and self.operation in _NEEDS_A_SNAPSHOT)


def _names_outsiders(operation: type[Operation], semantics: Semantics) -> bool:
    """Tell whether a group operation can be given devices that a walk would leave out (SPEC A.10.5, A.11, C.6)."""
    if operation in (Transaction, AllCreate):
        return True
    return semantics is Semantics.MODERN and "devices" in operation.__dataclass_fields__


def cells_of(devices: int, kinds: Sequence[str] | None, semantics: Semantics) -> Iterator[str]:
    """Yield all possible cells, for groups of up to `devices` and the operations of a system."""
    for operation in OPERATIONS:
        if kinds is None or KINDS[operation] in kinds:
            for place in _places(operation, devices):
                if place.is_possible(semantics):
                    yield cell(KINDS[operation], *place[1:])


def _places(operation: type[Operation], devices: int) -> Iterator[_Place]:
    if operation in WALKS:
        roles = _GROUP_ROLES.get(devices, (ONLY, FIRST, MIDDLE, LAST))
    else:
        roles = (ROOT, CHILD) if operation in _ON_CHILDREN_TOO else (ROOT,)
    for fault in (NO_FAULT, *fault_words(operation)):
        for role in roles:
            for state in STATES:
                yield _Place(operation, fault, role, state)


# --- what was reached -----------------------------------------------------------------------------
def coverage(hits: Mapping[str, Counter[str]], possible: Iterable[str]) -> Coverage:
    """Return which of the possible cells were reached how often, given what each phase has hit.

    A cell that was reached although nobody expected it counts as possible too.
    """
    cells = dict.fromkeys((*possible, *(each for reached in hits.values() for each in reached)), 0)
    for reached in hits.values():
        for each, count in reached.items():
            cells[each] += count
    phases = tuple(
        PhaseCoverage(name, len(reached), _alone(name, hits), _never(cells, reached), dict(reached))
        for name, reached in hits.items()
        if reached
    )
    return Coverage(len(cells), sum(map(bool, cells.values())), _never(cells, +Counter(cells)), cells, phases)


def _alone(name: str, hits: Mapping[str, Counter[str]]) -> int:
    others = {each for other, reached in hits.items() if other != name for each in reached}
    return sum(each not in others for each in hits[name])


def _never(cells: Iterable[str], reached: Mapping[str, int]) -> tuple[str, ...]:
    """Return the cells that were not reached; where none of those that begin alike was, what they begin with."""
    return tuple(" x ".join(prefix) for prefix in _gaps((), sorted(map(parts_of, cells)), reached))


def _gaps(
    prefix: tuple[str, ...], cells: Sequence[tuple[str, ...]], reached: Mapping[str, int]
) -> Iterator[tuple[str, ...]]:
    if not any(" x ".join(each) in reached for each in cells):
        yield prefix
    elif len(prefix) < len(cells[0]):
        for _, alike in groupby(cells, key=lambda each: each[: len(prefix) + 1]):
            some = list(alike)
            yield from _gaps(some[0][: len(prefix) + 1], some, reached)
