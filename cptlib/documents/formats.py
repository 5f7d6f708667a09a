"""Files in, raw documents out: a reader for each format, giving documents as they come, and a word on what it cannot read.

A reader never holds more of a text file than a piece of it, so files may be larger than memory. The text formats are
read here line by line with Python's own json and csv and with pyarrow (the library under `datasets`' builders, which give
a whole file up at its first bad row); .docx, .html and .epub are converted by markitdown, .pdf by pypdfium2.
"""

import csv
import gzip
import io
import json
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from cptlib.documents.decoding import DAMAGED_GZIP, SAMPLE, TextFile, Unreadable, encoding_of
from cptlib.rows import cut_before

SEPARATOR = "<|endoftext|>"  # a line of its own between the documents of a .txt file, as in TinyStories' files
LONGEST_PIECE = 1_000_000  # characters; a longer text is handed out in pieces


@dataclass(frozen=True)
class Piece:
    """A document, or a part of one too long to hold: `ends` is False for all its parts but the last."""

    text: str
    ends: bool = True


@dataclass(frozen=True)
class Problem:
    """What was not read, and why. where: the place in the file, such as `line 3`, or nothing for the whole file."""

    reason: str
    where: str = ""


def kind_of(path: Path) -> str | None:
    """The suffix that names the file's format, `.gz` set aside; None for a format that is not read."""
    suffix = Path(path.stem).suffix if path.suffix.lower() == ".gz" else path.suffix
    return suffix.lower() if suffix.lower() in READERS else None


def read(path: Path, column: str = "text") -> Iterator[Piece | Problem]:
    """The documents of one file in their order, and a Problem for each part that could not be read; raises neither.

    column: the field that holds the text in .json, .jsonl, .csv and .parquet. ImportError where a library is missing.
    """
    try:
        if not path.stat().st_size:
            raise Unreadable("empty file")
        with _open(path) as stream:
            documents = READERS[kind_of(path)](stream, column)
            yield next(documents, Problem("no documents in it"))
            yield from documents
    except ImportError:
        raise
    except Unreadable as error:
        yield Problem(str(error))
    except DAMAGED_GZIP:
        yield Problem("its gzip stream is damaged: what lies behind the damage is lost")
    except Exception as error:  # the libraries raise many kinds; each ends here as one line
        reason = (str(error).strip() or "no reason given").splitlines()[0][:200]
        yield Problem(f"not readable as {kind_of(path)} ({type(error).__name__}: {reason})")


def _open(path: Path) -> BinaryIO:
    if path.suffix.lower() != ".gz":
        return path.open("rb")
    unzipped = gzip.open(path)  # noqa: SIM115  the caller closes it
    if kind_of(path) in TEXTS:
        return unzipped
    with unzipped:  # the other formats are read from their end: unpack first, to disk
        whole = tempfile.TemporaryFile()  # noqa: SIM115  and this
        shutil.copyfileobj(unzipped, whole)
        whole.seek(0)
        return whole


# Text


def _replaced(text: TextFile) -> Iterator[Problem]:
    if text.replaced:
        yield Problem(f"{text.replaced} places are not {text.encoding}; they were read as \ufffd")


def _read_text(stream: BinaryIO, column: str) -> Iterator[Piece | Problem]:
    """A document, or several between lines that hold only the separator."""
    text, rest, found = TextFile(stream), "\n", False
    for block in text.blocks(LONGEST_PIECE):
        *whole, rest = re.split(rf"\n{re.escape(SEPARATOR)}(?=\n)", rest + block)
        whole = [document for document in whole if document.strip()]
        yield from map(Piece, whole)
        found = found or bool(whole)
        while len(rest) > LONGEST_PIECE:
            at = cut_before(rest, LONGEST_PIECE)
            yield Piece(rest[:at], ends=False)
            rest = rest[at:]
    rest = rest.removesuffix("\n").removesuffix(SEPARATOR)
    if rest.strip() or not found:
        yield Piece(rest)
    yield from _replaced(text)


def _read_jsonl(stream: BinaryIO, column: str) -> Iterator[Piece | Problem]:
    text = TextFile(stream)
    for number, line in enumerate(text.lines(), 1):
        if line.strip():
            yield _json_line(line, column, f"line {number}")
    yield from _replaced(text)


def _json_line(line: str, column: str, where: str) -> Piece | Problem:
    try:
        return _row(json.loads(line), column, where)
    except (ValueError, RecursionError) as error:
        return Problem(f"not a JSON object ({getattr(error, 'msg', 'nested too deep')}); each line must be one", where)


def _row(row, column: str, where: str) -> Piece | Problem:
    if isinstance(row, dict) and isinstance(row.get(column), str):
        return Piece(row[column], ends=row.get("ends") is not False)  # as `corpus --out` writes it
    has = (
        f"its fields are {', '.join(map(str, row))}"[:200] if isinstance(row, dict) else f"it is a {type(row).__name__}"
    )
    return Problem(f'no string field "{column}" ({has}); write {{"{column}": "..."}} or name another column', where)


def _read_json(stream: BinaryIO, column: str) -> Iterator[Piece | Problem]:
    """An array of objects, streamed; one object; or objects on lines, which .json files often hold."""
    import ijson

    text = TextFile(stream)
    array = text.stream.read(SAMPLE).lstrip().startswith("[")
    text.stream.seek(0)
    items = ijson.items(_Utf8(text.stream), "item" if array else "", multiple_values=not array)
    for number, row in enumerate(items, 1):
        yield _row(row, column, f"object {number}")


class _Utf8:
    """A text stream as the bytes that ijson reads."""

    def __init__(self, text: io.TextIOBase):
        self._text = text

    def read(self, size: int = -1) -> bytes:
        return self._text.read(size).encode("utf-8", "replace")


def _read_csv(stream: BinaryIO, column: str) -> Iterator[Piece | Problem]:
    csv.field_size_limit(2**31 - 1)
    text = TextFile(stream, newline="")
    lines = text.lines()
    header = next(lines, "")
    delimiter = max(",;\t|", key=header.count)
    [names] = csv.reader([header], delimiter=delimiter)
    if column not in names:
        raise Unreadable(f'no column "{column}", only {", ".join(names)[:200]}: rename one or name another column')
    at, table = names.index(column), csv.reader(lines, delimiter=delimiter)
    for number, row in enumerate(table, 1):
        yield Piece(row[at]) if at < len(row) else Problem(f'no field "{column}" in this row', f"row {number}")
    yield from _replaced(text)


def _read_parquet(stream: BinaryIO, column: str) -> Iterator[Piece | Problem]:
    import pyarrow.parquet as parquet

    table = parquet.ParquetFile(stream)
    if column not in table.schema_arrow.names:
        names = ", ".join(table.schema_arrow.names)[:200]
        raise Unreadable(f'no column "{column}", only {names}: rename one or name another column')
    number = 0
    for batch in table.iter_batches(batch_size=256, columns=[column]):
        for text in batch.column(0).to_pylist():
            number += 1
            yield _row({column: text}, column, f"row {number}")


# Documents

_OLD_OFFICE = b"\xd0\xcf\x11\xe0"


def _read_html(stream: BinaryIO, column: str) -> Iterator[Piece | Problem]:
    from bs4.dammit import EncodingDetector
    from markitdown import StreamInfo
    from markitdown.converters import HtmlConverter

    declared = EncodingDetector.find_declared_encoding(stream.read(SAMPLE), is_html=True)
    stream.seek(0)
    encoding = encoding_of(stream)
    if declared and not encoding.startswith("utf"):  # what is UTF-8 throughout is UTF-8, whatever the page claims
        encoding = declared
    info = StreamInfo(extension=".html", charset=encoding)
    yield Piece(HtmlConverter().convert(stream, info, **_BARE).markdown)


_BARE = {"strip": ["a", "img"]}  # a link's words stay, its address goes


def _read_docx(stream: BinaryIO, column: str) -> Iterator[Piece | Problem]:
    from markitdown import StreamInfo
    from markitdown.converters import DocxConverter

    if stream.read(4) == _OLD_OFFICE:
        raise Unreadable("encrypted, or in Word's format from before 2007: save it anew as .docx, without a password")
    stream.seek(0)
    yield Piece(DocxConverter().convert(stream, StreamInfo(extension=".docx"), **_BARE).markdown)


def _read_epub(stream: BinaryIO, column: str) -> Iterator[Piece | Problem]:
    from markitdown import StreamInfo
    from markitdown.converters import EpubConverter

    with zipfile.ZipFile(stream) as book:
        locks = book.read("META-INF/encryption.xml") if "META-INF/encryption.xml" in book.namelist() else b""
    if b"html" in locks:  # fonts alone may be locked in a book that is open to read
        raise Unreadable("encrypted (copy protection)")
    stream.seek(0)
    book = EpubConverter().convert(stream, StreamInfo(extension=".epub"), **_BARE).markdown
    yield Piece(book.partition("\n\n")[2])  # the converter puts title and authors first


def _read_pdf(stream: BinaryIO, column: str) -> Iterator[Piece | Problem]:
    import pypdfium2

    try:
        pages = pypdfium2.PdfDocument(stream)
    except pypdfium2.PdfiumError as error:
        raise Unreadable("encrypted" if "password" in str(error).lower() else f"damaged ({error})") from None
    with pages:
        texts = [_unwrapped(page.get_textpage().get_text_bounded()) for page in pages]
    if not any(map(str.strip, texts)):
        raise Unreadable("no text in it: scanned pages need OCR first (ocrmypdf, for one)")
    yield Piece("\n".join(texts))


def _unwrapped(page: str) -> str:
    """A page's lines joined into paragraphs. A PDF only knows lines; one that stops well short of the widest ends a
    paragraph. \\x02 and U+FFFE are where PDFium saw a word divided."""
    lines = page.replace("\r\n", "\n").split("\n")
    full = 0.75 * max(map(len, lines))
    out = ""
    for line in map(str.rstrip, lines):
        out += line + (" " if len(line) > full else "\n\n")
    return re.sub("[\x02\ufffe-] ", lambda match: match[0].strip(" \x02\ufffe"), out)


TEXTS = {".txt": _read_text, ".md": _read_text, ".jsonl": _read_jsonl, ".json": _read_json, ".csv": _read_csv}
TEXTS[".html"] = _read_html
READERS = {**TEXTS, ".pdf": _read_pdf, ".docx": _read_docx, ".epub": _read_epub, ".parquet": _read_parquet}
