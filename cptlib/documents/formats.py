"""Files in, raw documents out: a reader for each format, giving documents as they come, and a word on what it cannot read.

A reader never holds more of a text file than a piece of it, so files may be larger than memory. Formats with rows are
read in `rows`, those made to be looked at in `pages`, and plain text here.
"""

import gzip
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from cptlib.documents.decoding import DAMAGED_GZIP, TextFile, notes
from cptlib.documents.pages import read_docx, read_epub, read_html, read_pdf
from cptlib.documents.pieces import Piece, Problem, Unreadable
from cptlib.documents.tables import read_csv, read_json, read_jsonl, read_parquet
from cptlib.rows import cut_before

SEPARATOR = "<|endoftext|>"  # a line of its own between the documents of a .txt file, as in TinyStories' files
_SEPARATOR = re.compile(rf"\n[ \t]*{re.escape(SEPARATOR)}[ \t]*(?=\n)")
LONGEST_PIECE = 1_000_000  # characters; a longer text is handed out in pieces


def kind_of(path: Path) -> str | None:
    """The suffix that names the file's format, `.gz` set aside; None for a format that is not read."""
    suffix = Path(path.stem).suffix if path.suffix.lower() == ".gz" else path.suffix
    return suffix.lower() if suffix.lower() in READERS else None


def read(path: Path, column: str = "text") -> Iterator[Piece | Problem]:
    """The documents of one file in their order, and a Problem for each part that could not be read, or that was read but not
    just as it stands (`bad` is False then). A file that is Unreadable or damaged raises nothing: it is a Problem.

    column: the field that holds the text in .json, .jsonl, .csv and .parquet. ImportError where a library is missing.
    """
    kind = kind_of(path)
    try:
        if kind is None:
            raise Unreadable("not a format that is read")
        if not path.stat().st_size:
            raise Unreadable("empty file")
        with _open(path) as stream:
            some = False
            for found in READERS[kind](stream, column):
                some = some or isinstance(found, Piece) or found.bad
                yield found
            if not some:
                yield Problem("no documents in it")
    except ImportError:
        raise
    except Unreadable as error:
        yield Problem(str(error))
    except DAMAGED_GZIP:
        yield Problem("its gzip stream is damaged: what lies behind the damage is lost")
    except Exception as error:  # the libraries raise many kinds; each ends here as one line
        reason = (str(error).strip() or "no reason given").splitlines()[0][:200]
        yield Problem(f"not readable as {kind} ({type(error).__name__}: {reason})")


def _open(path: Path) -> BinaryIO:
    if path.suffix.lower() != ".gz":
        return path.open("rb")
    unzipped = cast(BinaryIO, gzip.open(path))  # noqa: SIM115  the caller closes it
    if kind_of(path) in (*TEXTS, ".html"):
        return unzipped
    with unzipped:  # the other formats are read from their end: unpack first, to disk
        whole = tempfile.TemporaryFile()  # noqa: SIM115  and this
        shutil.copyfileobj(unzipped, whole)
        whole.seek(0)
        return whole


def _read_text(stream: BinaryIO, column: str) -> Iterator[Piece | Problem]:
    """A document, or several between lines that hold only the separator."""
    text, rest, found = TextFile(stream), "\n", False
    for block in text.blocks(LONGEST_PIECE):
        *whole, rest = _SEPARATOR.split(rest + block)
        whole = [document for document in whole if document.strip()]
        yield from map(Piece, whole)
        found = found or bool(whole)
        while len(rest) > LONGEST_PIECE:
            at = cut_before(rest, LONGEST_PIECE)
            yield Piece(rest[:at], ends=False)
            rest = rest[at:]
    rest = rest.removesuffix("\n")
    if rest.rstrip(" \t").endswith(SEPARATOR):
        rest = rest.rstrip(" \t").removesuffix(SEPARATOR)
    if rest.strip() or not found:
        yield Piece(rest)
    yield from notes(text)


# what comes out of these is text only
CONVERTED = {".html": read_html, ".pdf": read_pdf, ".docx": read_docx, ".epub": read_epub}
TEXTS = {".txt": _read_text, ".md": _read_text, ".jsonl": read_jsonl, ".json": read_json, ".csv": read_csv}
READERS = {**TEXTS, **CONVERTED, ".parquet": read_parquet}
