"""A table of two sectors that is written over in place: torn, it is neither the old one nor the new."""

from snapcheck.fault_injection.crash.cuts import Persistence
from snapcheck.impl.qcow2 import snapshots
from snapcheck.impl.qcow2.tables import without_copied
from snapcheck.impl.targets import Target, find_target
from snapcheck.model.law_names import Law
from snapcheck.model.operations import Goto
from snapcheck.stateful_tests.power_cuts.judging import CutJudge, Found, Plan
from snapcheck.stateful_tests.power_cuts.recording import record
from snapcheck.stateful_tests.power_cuts.workloads import STARTS
from snapcheck.stateful_tests.seeded_bugs.planting import Insider, in_engine


class _WritesOverTheActiveTable(Insider):
    """Goto copies the snapshot's L1 over the active one, both held and flushed as they should be."""

    __slots__ = ()

    def snapshot_goto(self, snapshot_id: str) -> None:
        state = self._state
        l1 = without_copied(state.snapshot_l1(snapshots.find_by_id_or_name(state, snapshot_id)))
        held, former = state.tables.gather(l1), state.tables.gather(state.tables.l1)
        with state.holding(held.clusters):
            state.tables.clear_copied(held.with_copied)
            state.host.barrier()
            state.host.write(state.header.l1_offset, b"".join(int(word).to_bytes(8, "big") for word in l1), "l1")
            state.host.barrier()
        state.adopt_l1(l1)
        state.release(former.clusters)


def broken_by_goto(target: Target, persistence: Persistence) -> set[Law]:
    """Return the laws that a cut during or after the first goto breaks, from an image with an L1 of two sectors."""
    start = dict(STARTS)["L1 of more than a sector"]
    recording = record(target, start.setup, (*start.before, Goto("d0", "1"))).recording
    assert recording is not None
    found = CutJudge(recording).judge(Plan((persistence,), 1 << 9))
    return {each.evidence.law for each in found if isinstance(each, Found)}


def test_a_goto_that_writes_over_the_active_table_in_place_is_found_where_sectors_are_torn() -> None:
    in_place = in_engine("goto writes over the active L1", driver=_WritesOverTheActiveTable)
    assert broken_by_goto(in_place, Persistence.EPOCH) == set()  # whole writes never show it
    assert broken_by_goto(in_place, Persistence.SECTOR_TORN) == {Law.ATOMIC_OP}


def test_the_engine_goes_back_to_a_snapshot_in_whatever_part_its_table_lands() -> None:
    for persistence in (Persistence.EPOCH, Persistence.SECTOR_TORN):
        assert broken_by_goto(find_target("qcow2"), persistence) == set()
