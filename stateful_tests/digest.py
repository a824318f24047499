"""A short name for what happened in a history."""

import hashlib
from dataclasses import fields
from operator import attrgetter
from typing import Final

from snapcheck.model.history import History, Result

_ANSWERED: Final = attrgetter(*(each.name for each in fields(Result)))  # a third of the time that its own repr takes


class Digest:
    """The digest of a history that goes on: each step is hashed once."""

    __slots__ = ("_hash", "_steps")

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(b"[", digest_size=6)
        self._steps = 0  # that were hashed

    def twin(self) -> "Digest":
        """Return the digest of a history that goes on from here by itself."""
        twin = Digest()
        twin._hash, twin._steps = self._hash.copy(), self._steps
        return twin

    def of(self, history: History) -> str:
        """Return a short hash of what was done and answered in `history`, which begins with what was hashed before."""
        for step in history.steps[self._steps :]:
            text = repr((step.operation, step.faults, _ANSWERED(step.result)))
            self._hash.update((f", {text}" if self._steps else text).encode("utf-8", "surrogateescape"))
            self._steps += 1
        whole = self._hash.copy()
        whole.update(b"]")
        return whole.hexdigest()


def digest(history: History) -> str:
    """Return a short hash of what was done and answered: equal for equal histories."""
    return Digest().of(history)


def digest_of(text: str) -> str:
    """Return a short hash of a text."""
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=6).hexdigest()
