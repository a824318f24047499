"""The names of the laws: the product's vocabulary (DESIGN.md section 5, one page each in docs/laws)."""

from enum import StrEnum


class Law(StrEnum):
    """What must hold; `laws.py` says when."""

    RESULT = "result"
    OUT_PARAMS = "out-params"
    LIST_EXACT = "list-exact"
    CONTENT_EXACT = "content-exact"
    ERROR_MEANS_UNCHANGED = "error-means-unchanged"
    SUCCESS_MEANS_DONE = "success-means-done"
    MEMORY_IS_DISK = "memory-is-disk"
    SNAPSHOT_IMMUTABLE = "snapshot-immutable"
    NO_CORRUPTION = "no-corruption"
    NO_LEAK = "no-leak"
    RETRY_HEALS = "retry-heals"
    RIGHT_CULPRIT = "right-culprit"
    STOPS_AT_FIRST = "stops-at-first"
    PREFIX_APPLIED = "prefix-applied"
    NOBODY_SKIPPED = "nobody-skipped"
    EXCLUDED_UNTOUCHED = "excluded-untouched"
    VMSTATE_ON_ONE = "vmstate-on-one"
    LOCKS_BALANCED = "locks-balanced"
    DRAINED = "drained"
    ALL_OR_NOTHING = "all-or-nothing"
    NO_HANG = "no-hang"
    NO_CRASH = "no-crash"
    SAFE_TO_USE = "safe-to-use"
    OPENS = "opens"
    DURABLE = "durable"
    ATOMIC_OP = "atomic-op"
    REPAIR_IS_SAFE = "repair-is-safe"
    GROUP_CUT = "group-cut"


class Severity(StrEnum):
    """How bad a violation is: warnings are counted and shown, and leave verdict and exit status alone."""

    ERROR = "error"
    WARNING = "warning"
