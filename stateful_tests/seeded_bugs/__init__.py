"""Drivers with one known bug each: the harness must find them all.

`CATALOGUE` lists them. Each can be run like any driver: `snapcheck run` with its `driver`. Where a bug comes from is
in `rows.py`, and so is why some known ones are not here.
"""

from dataclasses import dataclass
from typing import Final

from snapcheck.model.law_names import Law
from snapcheck.model.setup import Semantics

_HERE: Final = "snapcheck.stateful_tests.seeded_bugs"


@dataclass(frozen=True, slots=True)
class SeededBug:
    """A bug: `driver` is what `snapcheck run` takes, `row` where it comes from, `law` the one that it breaks first."""

    driver: str
    law: Law
    row: str = ""  # of rows.py; empty for those that were thought up here
    semantics: Semantics = Semantics.CLASSIC

    @property
    def name(self) -> str:
        """What it is called in reports."""
        return self.driver.partition(":")[2].replace("_", "-")

    @property
    def subject(self) -> str:
        """The module that it lives in."""
        return self.driver.partition(":")[0].rpartition(".")[2]


def _bug(place: str, law: Law, row: str = "", semantics: Semantics = Semantics.CLASSIC) -> SeededBug:
    return SeededBug(f"{_HERE}.{place}", law, row, semantics)


# Found by every phase in seconds: what tests of the harness try themselves on.
CANARY: Final = (
    _bug("group:wrong_culprit", Law.RIGHT_CULPRIT),
    _bug("group:stale_first_bad", Law.OUT_PARAMS),
    _bug("group:innocent_touched", Law.STOPS_AT_FIRST),
    _bug("group:lock_kept", Law.LOCKS_BALANCED, "B59"),
    _bug("snapshot_table:count_not_restored", Law.ERROR_MEANS_UNCHANGED, "B08"),
    _bug("snapshot_table:narrow_id", Law.OUT_PARAMS, "B27"),
    _bug("generic:id_or_name", Law.RESULT, "B55"),
    _bug("callers:no_rollback", Law.PREFIX_APPLIED, "B77", Semantics.MODERN),
)
# Those that only a power cut shows: phase crash finds them.
POWER_CUTS: Final = (
    _bug("power_cuts:lowered_before_delete", Law.NO_CORRUPTION, "B01"),
    _bug("power_cuts:old_tree_dropped_first", Law.NO_CORRUPTION, "B02"),
    _bug("power_cuts:counts_not_flushed", Law.NO_CORRUPTION, "B04"),
    _bug("power_cuts:header_written_twice", Law.ATOMIC_OP, "B06"),
    _bug("power_cuts:discarded_before_delete", Law.ATOMIC_OP, "B15"),
)
CATALOGUE: Final = (
    *CANARY,
    *POWER_CUTS,
    # the group functions
    _bug("group:late_culprit", Law.RIGHT_CULPRIT),
    _bug("group:early_culprit", Law.RIGHT_CULPRIT),
    _bug("group:child_named", Law.RIGHT_CULPRIT),
    _bug("group:wrong_text", Law.RIGHT_CULPRIT, "", Semantics.MODERN),
    _bug("group:culprit_not_written", Law.OUT_PARAMS),
    _bug("group:culprit_not_cleared", Law.OUT_PARAMS),
    _bug("group:device_skipped", Law.NOBODY_SKIPPED),
    _bug("group:neighbour_skipped", Law.NOBODY_SKIPPED),
    _bug("group:excluded_touched", Law.EXCLUDED_UNTOUCHED),
    _bug("group:list_ignored", Law.EXCLUDED_UNTOUCHED, "", Semantics.MODERN),
    _bug("group:lock_not_taken", Law.LOCKS_BALANCED),
    _bug("group:partial_success", Law.NOBODY_SKIPPED),
    _bug("group:error_swallowed", Law.NOBODY_SKIPPED),
    _bug("group:errno_changed", Law.RESULT),
    _bug("group:missing_reverted", Law.RESULT),
    _bug("group:found_anywhere", Law.RESULT),
    _bug("group:sn_clobbered", Law.OUT_PARAMS),
    _bug("group:one_id_for_all", Law.NOBODY_SKIPPED),
    _bug("group:vmstate_on_wrong", Law.VMSTATE_ON_ONE),
    _bug("group:vmstate_on_several", Law.VMSTATE_ON_ONE),
    # the calls on one node
    _bug("generic:delete_by_one_string", Law.LIST_EXACT, "B56"),
    _bug("generic:child_lost", Law.RESULT, "B64"),
    _bug("generic:null_callback", Law.NO_CRASH, "B66"),
    _bug("generic:undrained_delete", Law.DRAINED, "B68"),
    _bug("generic:bitmaps_ignored", Law.RESULT, "B69"),
    _bug("generic:no_reason", Law.OUT_PARAMS, "B70"),
    _bug("generic:read_only_ignored", Law.RESULT, "B71"),
    _bug("generic:drain_under_lock", Law.LOCKS_BALANCED, "B73"),
    _bug("generic:load_by_one_string", Law.CONTENT_EXACT, "B74"),
    _bug("generic:stale_error", Law.NO_CRASH, "B99"),
    _bug("generic:garbage_freed", Law.NO_CRASH, "B101"),
    _bug("generic:node_left_closed", Law.SUCCESS_MEANS_DONE, "B109"),
    # savevm, loadvm, delvm and transactions
    _bug("callers:double_free", Law.NO_CRASH, "B58"),
    _bug("callers:nameless_crash", Law.NO_CRASH, "B75"),
    _bug("callers:nameless_stored", Law.LIST_EXACT, "B76"),
    _bug("callers:falls_through", Law.RIGHT_CULPRIT, "B80"),
    _bug("callers:close_ignored", Law.RESULT, "B81"),
    _bug("callers:refusal_is_success", Law.RESULT, "B83"),
    _bug("callers:no_error_set", Law.NO_CRASH, "B84"),
    _bug("callers:stuck_in_setup", Law.RETRY_HEALS, "B86"),
    _bug("callers:cached_vmstate_bs", Law.RESULT, "B87"),
    _bug("callers:removable_skipped", Law.NOBODY_SKIPPED, "B88"),
    _bug("callers:can_hard_coded", Law.RESULT, "B89"),
    _bug("callers:nested_lock", Law.LOCKS_BALANCED, "B90"),
    _bug("callers:compared_by_id", Law.RESULT, "B92"),
    _bug("callers:other_vmstate_bs", Law.RESULT, "B98"),
    _bug("callers:undrained_callers", Law.DRAINED),
    _bug("callers:not_aborted", Law.ALL_OR_NOTHING),
    _bug("callers:undrained_action", Law.DRAINED),
    # the engine's snapshot table
    _bug("snapshot_table:errno_lost", Law.RESULT, "B10"),
    _bug("snapshot_table:entries_packed", Law.MEMORY_IS_DISK, "B38"),
    _bug("snapshot_table:missing_deleted", Law.RESULT, "B103"),
    _bug("snapshot_table:name_cut_short", Law.LIST_EXACT, "B104"),
    _bug("snapshot_table:delete_is_a_stub", Law.SUCCESS_MEANS_DONE, "B105"),
    _bug("snapshot_table:empty_disk_refused", Law.RESULT, "B110"),
    _bug("snapshot_table:empty_list_fails", Law.RESULT, "B111"),
    _bug("snapshot_table:new_first", Law.LIST_EXACT),
    _bug("snapshot_table:deleted_in_memory", Law.MEMORY_IS_DISK),
    _bug("snapshot_table:busy_for_ever", Law.RETRY_HEALS),
    # refcounts, COPIED and the tables
    _bug("mapping:ends_at_compressed", Law.NO_CORRUPTION, "B11"),
    _bug("mapping:l1_left_swapped", Law.MEMORY_IS_DISK, "B12"),
    _bug("mapping:count_failure_ignored", Law.NO_CORRUPTION, "B14"),
    _bug("mapping:narrow_mask", Law.NO_CORRUPTION, "B19"),
    _bug("mapping:shared_overwritten", Law.SNAPSHOT_IMMUTABLE, "B20"),
    _bug("mapping:one_by_one", Law.NO_HANG, "B42"),
    _bug("mapping:stale_place", Law.SNAPSHOT_IMMUTABLE, "B107"),
    _bug("mapping:copied_kept", Law.NO_CORRUPTION),
    _bug("mapping:never_lowered", Law.NO_LEAK),
    _bug("mapping:copied_after_failure", Law.SAFE_TO_USE),
    _bug("mapping:commit_not_flushed", Law.SUCCESS_MEANS_DONE),
    # sizes and VM state
    _bug("sizes:vmstate_zero_filled", Law.CONTENT_EXACT, "B23"),
    _bug("sizes:vmstate_not_copied", Law.CONTENT_EXACT, "B24"),
    _bug("sizes:size_not_stored", Law.CONTENT_EXACT, "B25"),
    _bug("sizes:narrow_vmstate_size", Law.LIST_EXACT, "B26"),
    _bug("sizes:seek_ignored", Law.CONTENT_EXACT, "B97"),
    _bug("sizes:resized_first", Law.ERROR_MEANS_UNCHANGED),
    # images that are not what they claim to be
    _bug("malformed:pointers_unchecked", Law.NO_HANG, "B33"),
    _bug("malformed:count_believed", Law.NO_HANG, "B43"),
    _bug("malformed:load_unchecked", Law.NO_HANG, "B44"),
    _bug("malformed:null_cleanup", Law.NO_CRASH, "B46"),
    _bug("malformed:l1_unchecked", Law.NO_HANG, "B49"),
    # what needs several things at once
    _bug("conjunctions:last_moved_up", Law.LIST_EXACT),
    _bug("conjunctions:equal_skipped", Law.CONTENT_EXACT, "B25"),
    _bug("conjunctions:read_too_short", Law.CONTENT_EXACT),
    _bug("conjunctions:tail_kept", Law.CONTENT_EXACT),
    _bug("conjunctions:state_misplaced", Law.CONTENT_EXACT, "B25"),
    _bug("conjunctions:place_kept", Law.NO_CORRUPTION),
    _bug("conjunctions:lives_on", Law.MEMORY_IS_DISK),
    _bug("conjunctions:taken_back_twice", Law.NO_CORRUPTION),
    _bug("conjunctions:ends_looked_at", Law.NO_CORRUPTION),
    _bug("conjunctions:error_set_twice", Law.NO_CRASH, "", Semantics.MODERN),
    _bug("conjunctions:aborted_by_name", Law.LIST_EXACT),
    # what the harness was blind to
    _bug("blind_spots:tail_bared", Law.CONTENT_EXACT),
    _bug("blind_spots:vmstate_at_boundary", Law.CONTENT_EXACT),
    _bug("blind_spots:extra_dropped", Law.SNAPSHOT_IMMUTABLE),
    _bug("blind_spots:one_struct_each", Law.ALL_OR_NOTHING),
    _bug("blind_spots:left_drained", Law.DRAINED),
)
