"""A folder of documents in, a cleaned corpus without duplicates out, and a report of everything that was left out."""

import atexit
import mmap
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cptlib import hints
from cptlib.documents import clean, duplicates, formats
from cptlib.documents.pieces import Piece, Problem
from cptlib.documents.report import LeftOut, Report
from cptlib.errors import CorpusError
from cptlib.paths import cache_folder

INSTALL = "pip install 'cptlib[documents]'"
BATCH = 500  # texts fingerprinted and written at once


def from_folder(
    path: str | Path,
    *,
    column: str = "text",
    languages: set[str] | None = None,
    shortest: int = 1,
    longest: int | None = None,
    markup: bool = False,
    strict: bool = False,
) -> tuple["hints.Dataset", Report]:
    """(documents, report) of all files below `path`, or of one file: a `datasets.Dataset` and a Report.

    Read are .txt, .md, .html, .pdf, .docx, .epub, .json, .jsonl, .csv and .parquet, each also with .gz behind. Texts are
    cleaned (`clean`; markup: leave HTML tags), and exact and near duplicates dropped (`duplicates`). The columns:
    `text`; `source`, the file; `document`, a number; `ends`, False where a document goes on in the next row.

    column: the field with the text, in formats that have fields. languages: codes to keep, as in {"en", "de"}.
    shortest, longest: characters. strict: raise CorpusError for the first thing that cannot be read, where otherwise it
    is left out and reported; what was read, but not just as it stands, has a note there. CorpusError too where nothing is
    left, or a library is missing.

    The corpus is streamed to a file in the cache folder that is deleted when Python ends, and read from there: memory
    holds a batch of texts, and about 100 bytes a document. Measured: 5.0 GB in 1.2 million documents took 393 s and 1.00
    GB resident at most on two CPU cores (Python 3.11, pyarrow 26.0.1, rensa 0.5.0, 2026-11); again by
    `pytest -m slow -s tests/test_ingest.py`. A PDF, a book or a page is held whole, one at a time.
    """
    path = Path(path)
    if not path.exists():
        raise CorpusError(f"{path}: there is no such file or folder.")
    _require("datasets", "ftfy", "rensa")
    reading = _Reading(path, column, languages, shortest, longest or float("inf"), markup, strict)
    return reading.corpus(), reading.report


def _require(*libraries: str) -> None:
    from importlib.util import find_spec

    if missing := [name for name in libraries if find_spec(name) is None]:
        raise CorpusError(f"Reading documents needs {', '.join(missing)}. Run: {INSTALL}")


@dataclass
class _Reading:
    """One pass over a folder: rows to a file, fingerprints and the report to memory; then duplicates are dropped."""

    path: Path
    column: str
    languages: set[str] | None
    shortest: int
    longest: float
    markup: bool
    strict: bool
    report: Report = field(default_factory=Report)
    _sources: dict[str, int] = field(default_factory=dict)
    _numbers: list[tuple[Any, ...]] = field(default_factory=list)  # memory holds no text

    def corpus(self) -> "hints.Dataset":
        file = _working_file()
        self._write(file)
        if not self._numbers:
            raise CorpusError(f"{self.path}: it holds no text that can be used.\n{self.report}")
        return self._without_duplicates(file)

    def _write(self, file: Path) -> None:
        import pyarrow as arrow

        schema = arrow.schema(
            {"text": arrow.string(), "source": arrow.string(), "document": arrow.int64(), "ends": arrow.bool_()}
        )
        with arrow.RecordBatchStreamWriter(str(file), schema) as writer:
            for rows in _batches(self._rows()):
                writer.write_batch(arrow.RecordBatch.from_pylist(rows, schema))
                self._numbers.append(self._numbers_of(rows))

    def _numbers_of(self, rows: list[dict[str, Any]]) -> tuple[Any, ...]:
        """All that memory keeps of some rows, arrays of one number (or 16) a row."""
        import numpy as np

        sources = [self._sources.setdefault(row["source"], len(self._sources)) for row in rows]
        documents = np.array([row["document"] for row in rows])
        return (*duplicates.fingerprint([row["text"] for row in rows]), documents, np.array(sources, dtype=np.int32))

    def _without_duplicates(self, file: Path) -> "hints.Dataset":
        import numpy as np
        from datasets import Dataset

        digests, bands, lengths, documents, sources = map(np.concatenate, zip(*self._numbers, strict=True))
        exact, near = duplicates.find(_Texts(file), digests, bands, documents)
        names = list(self._sources)
        for mask, reason in ((exact, "exact duplicate"), (near, "near duplicate")):
            for number, count in zip(*np.unique(sources[mask], return_counts=True), strict=True):
                self._leave_out(names[number], reason, bad=False, count=int(count))
        kept = np.flatnonzero(~(exact | near))
        self.report.lengths, self.report.documents = lengths[kept], len(kept)
        return Dataset.from_file(str(file)).select(kept)

    def _rows(self) -> Iterator[dict[str, Any]]:
        """Each text that passes the filters, cleaned; with progress on stderr where it takes over 10 seconds."""
        from tqdm import tqdm

        files = list(self._files())
        self.report.files, document = len(files), 0
        with tqdm(total=sum(file.stat().st_size for file in files), unit="B", unit_scale=True, delay=10) as bar:
            for file in files:
                source, end = self._name(file), bar.n + file.stat().st_size
                for found in self._read(file):
                    if isinstance(found, Problem):
                        self._say(source, found)
                        continue
                    if text := self._passed(file, source, found):
                        yield {"text": text, "source": source, "document": document, "ends": found.ends}
                    document += found.ends
                    bar.update(min(len(found.text), end - bar.n))  # characters are about bytes
                bar.update(end - bar.n)

    def _read(self, file: Path) -> Iterator[Piece | Problem]:
        try:
            yield from formats.read(file, self.column)
        except ImportError as error:
            problem = f"{error.name.partition('.')[0]} is missing" if error.name else str(error)
            raise CorpusError(f"{file.name}: {problem}. Run: {INSTALL}") from error

    def _passed(self, file: Path, source: str, piece: Piece) -> str | None:
        """The cleaned text; None where it is left out."""
        text = self._cleaned(file, source, piece.text)
        self.report.texts += 1
        if not text:
            self._leave_out(source, "no text in it", bad=True)
        elif not self.shortest <= len(text) <= self.longest:
            limit = f"shorter than {self.shortest:,}" if len(text) < self.shortest else f"longer than {self.longest:,}"
            self._leave_out(source, f"{limit} characters", bad=False)
        elif self.languages and (found := clean.language(text)) not in self.languages:
            self._leave_out(source, f"in another language ({found})", bad=False)
        else:
            return text
        return None

    def _cleaned(self, file: Path, source: str, text: str) -> str:
        kind, markup = formats.kind_of(file), 0
        if not (self.markup or kind in formats.CONVERTED):
            text, markup = clean.without_markup(text, markdown=kind == ".md")
        for what, count in (("HTML tags and entities", markup), ("control characters", clean.control_characters(text))):
            if count:
                self._note(source, f"{what} taken out", count=count)
        return clean.clean(text, markdown=kind == ".md")

    def _files(self) -> Iterator[Path]:
        if self.path.is_file():
            if formats.kind_of(self.path) is None:
                raise CorpusError(f"{self.path}: not a format that is read. Read are {', '.join(formats.READERS)}.")
            yield self.path
            return
        for folder, folders, names in os.walk(self.path, onerror=self._unlisted):
            here = Path(folder)
            folders[:] = [name for name in sorted(folders) if self._entered(here / name)]
            yield from filter(self._wanted, sorted(here / name for name in names))

    def _name(self, file: Path) -> str:
        return _printable(file.name if file == self.path else str(file.relative_to(self.path)))

    def _entered(self, folder: Path) -> bool:
        hidden = folder.name.startswith(".")
        if hidden or folder.is_symlink():
            reason = "hidden folder" if hidden else "a link to a folder, not followed"
            self._leave_out(self._name(folder), reason, bad=False)
            return False
        return True

    def _wanted(self, file: Path) -> bool:
        source = self._name(file)
        if file.name.startswith("."):
            self._leave_out(source, "hidden file", bad=False)
        elif not file.is_file():
            self._leave_out(source, "not a regular file, or a broken link", bad=True)
        elif formats.kind_of(file) is None:
            self._leave_out(source, "not a format that is read", bad=True)
        else:
            return True
        return False

    def _unlisted(self, error: OSError) -> None:
        self._leave_out(str(error.filename), f"folder not readable ({error.strerror})", bad=True)

    def _say(self, file: str, problem: Problem) -> None:
        if problem.bad:
            self._leave_out(file, problem.reason, bad=True, where=problem.where)
        else:
            self._note(file, problem.reason, where=problem.where)

    def _note(self, file: str, reason: str, where: str = "", count: int = 1) -> None:
        self.report.add(LeftOut(file, _printable(reason), False, count, where), note=True)

    def _leave_out(self, file: str, reason: str, bad: bool, where: str = "", count: int = 1) -> None:
        reason = _printable(reason)
        if bad and self.strict:
            raise CorpusError(f"{file}{', ' + where if where else ''}: {reason}.")
        self.report.add(LeftOut(file, reason, bad, count, where))


def _batches(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Rows in lists of at most BATCH, or of some 16 million characters."""
    batch: list[dict[str, Any]] = []
    characters = 0
    for row in rows:
        batch.append(row)
        characters += len(row["text"])
        if len(batch) == BATCH or characters > 1 << 24:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _printable(text: str) -> str:
    """A file's name, or what a file says of itself, may hold what is no character: escaped, it can be written."""
    return text.encode("utf-8", "backslashreplace").decode()


class _Texts:
    """The texts of an Arrow file by their row. What reading has drawn into memory is given back now and then: the system
    would do that by itself when memory is short, but a corpus should not look as if it filled the machine."""

    def __init__(self, file: Path) -> None:
        import pyarrow as arrow

        with file.open("rb") as opened:
            self._map = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
        self._column = arrow.ipc.open_stream(arrow.py_buffer(self._map)).read_all().column("text")
        self._reads = 0

    def __call__(self, row: int) -> str:
        self._reads += 1
        if self._reads % 1000 == 0 and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)
        return self._column[row].as_py()


def _working_file() -> Path:
    """A file in a new folder on disk, deleted when Python ends (after a kill it stays, in the cache folder)."""
    cache_folder().mkdir(parents=True, exist_ok=True)
    folder = tempfile.mkdtemp(dir=cache_folder(), prefix="corpus-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder) / "documents.arrow"
