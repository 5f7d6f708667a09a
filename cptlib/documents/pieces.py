"""What a reader gives: documents, parts of them, and a word on what it could not read."""

from dataclasses import dataclass


class Unreadable(ValueError):
    """A file that no reader can make text of; its message says why in a few words."""


@dataclass(frozen=True)
class Piece:
    """A document, or a part of one too long to hold: `ends` is False for all its parts but the last."""

    text: str
    ends: bool = True


@dataclass(frozen=True)
class Problem:
    """What was not read, and why. where: the place in the file, such as `line 3`, or nothing for the whole file.

    bad: False for a note: something was read, but not just as it stands there.
    """

    reason: str
    where: str = ""
    bad: bool = True
