"""What a person did wrong, or what stands in the way: one or two lines, and the exit status."""

from typing import Final

WRONG_CALL: Final = 2
UNKNOWN: Final = 3


class CallError(Exception):
    """The command can not do what it was asked; the text says what was wrong and the way out."""

    def __init__(self, text: str, *, status: int = WRONG_CALL) -> None:
        self.status = status
        super().__init__(text)
