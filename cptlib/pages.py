"""Documents made to be looked at in, their text out: .html, .docx and .epub by markitdown, .pdf by pypdfium2."""

import re
import zipfile
from collections.abc import Iterator
from typing import BinaryIO

from cptlib.decoding import SAMPLE, TextFile, notes
from cptlib.pieces import Piece, Problem, Unreadable

_OLD_OFFICE = b"\xd0\xcf\x11\xe0"


def read_html(stream: BinaryIO, column: str) -> Iterator[Piece | Problem]:
    from bs4.dammit import EncodingDetector
    from markitdown.converters import HtmlConverter

    claimed = EncodingDetector.find_declared_encoding(stream.read(SAMPLE), is_html=True)
    stream.seek(0)
    text = TextFile(stream, claimed=claimed)
    yield Piece(HtmlConverter().convert_string("".join(text.blocks(SAMPLE)), **_BARE).markdown)
    yield from notes(text)


_BARE = {"strip": ["a", "img"]}  # a link's words stay, its address goes


def read_docx(stream: BinaryIO, column: str) -> Iterator[Piece | Problem]:
    from markitdown import StreamInfo
    from markitdown.converters import DocxConverter

    if stream.read(4) == _OLD_OFFICE:
        raise Unreadable("encrypted, or in Word's format from before 2007: save it anew as .docx, without a password")
    stream.seek(0)
    yield Piece(DocxConverter().convert(stream, StreamInfo(extension=".docx"), **_BARE).markdown)


def read_epub(stream: BinaryIO, column: str) -> Iterator[Piece | Problem]:
    from markitdown import StreamInfo
    from markitdown.converters import EpubConverter

    with zipfile.ZipFile(stream) as book:
        locks = book.read("META-INF/encryption.xml") if "META-INF/encryption.xml" in book.namelist() else b""
    if b"html" in locks:  # fonts alone may be locked in a book that is open to read
        raise Unreadable("encrypted (copy protection)")
    stream.seek(0)
    book = EpubConverter().convert(stream, StreamInfo(extension=".epub"), **_BARE).markdown
    yield Piece(book.partition("\n\n")[2])  # the converter puts title and authors first


def read_pdf(stream: BinaryIO, column: str) -> Iterator[Piece | Problem]:
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
