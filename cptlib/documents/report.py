"""What a folder held, what of it was left out and why, and what was read otherwise than it stands there."""

from dataclasses import asdict, dataclass, field
from typing import Any

from cptlib import hints

SHOWN = 30  # lines of each kind that are printed


@dataclass
class LeftOut:
    """Something of `file` that is not in the corpus, or not as it stands there: why, how many times, and where first.

    bad: True for what could not be read, False for what was read and dropped (a duplicate, filtered out, hidden).
    """

    file: str
    reason: str
    bad: bool
    count: int = 1
    where: str = ""

    def __str__(self) -> str:
        where = f" (first at {self.where})" if self.where else ""
        return f"{self.count:7,} × {self.file}: {self.reason}{where}"


@dataclass
class Report:
    """What a folder held. files: files looked at. texts: read from them. documents: rows kept (one too long to hold at
    once makes several). lengths: characters of each of these. left_out: a LeftOut for each file and reason. notes: the
    same for what was read, but not just as it stands: an encoding that was guessed, bytes replaced, markup taken out."""

    files: int = 0
    texts: int = 0
    documents: int = 0
    lengths: "hints.Lengths" = field(default=(), repr=False)
    left_out: list[LeftOut] = field(default_factory=list)
    notes: list[LeftOut] = field(default_factory=list)
    _lines: dict[tuple[str, str], LeftOut] = field(default_factory=dict, repr=False)

    def add(self, line: LeftOut, note: bool = False) -> None:
        """Count the line to the one of the same file and reason, if there is one already."""
        same = self._lines.setdefault((line.file, line.reason), line)
        if same is line:
            (self.notes if note else self.left_out).append(line)
        else:
            same.count += line.count

    @property
    def characters(self) -> int:
        """Of all documents kept."""
        return int(sum(self.lengths))

    def as_dict(self) -> dict[str, Any]:
        """All but the lengths of single documents, in types that JSON has."""
        counts = {name: getattr(self, name) for name in ("files", "texts", "documents", "characters")}
        return {**counts, **{name: [asdict(line) for line in getattr(self, name)] for name in ("left_out", "notes")}}

    def count(self, reason: str) -> int:
        """How much was left out for reasons that begin so."""
        return sum(left.count for left in self.left_out if left.reason.startswith(reason))

    def __str__(self) -> str:
        out = f"{self.files:,} files, {self.texts:,} texts in them, {self.documents:,} documents kept "
        out += f"({self.characters:,} characters)\n"
        out += f"duplicates dropped: {self.count('exact duplicate'):,} exact, {self.count('near duplicate'):,} near\n"
        out += _section("left out:", self.left_out, "report.left_out")
        out += _section("notes:", self.notes, "report.notes")
        return out.rstrip("\n")


def _section(title: str, lines: list[LeftOut], name: str) -> str:
    if not lines:
        return ""
    more = [f"        … and {len(lines) - SHOWN:,} more lines ({name} has them all)"] if len(lines) > SHOWN else []
    return "\n".join([title, *map(str, lines[:SHOWN]), *more, ""])
