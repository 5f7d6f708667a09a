"""Documents made to be looked at in, their text out: .html, .docx and .epub by markitdown, .pdf by pypdfium2."""

import io
import posixpath
import re
import zipfile
from collections.abc import Iterator
from typing import Any, BinaryIO
from urllib.parse import unquote

from cptlib.documents.decoding import SAMPLE, TextFile, notes
from cptlib.documents.pieces import Piece, Problem, Unreadable

_PLAIN: dict[str, Any] = {  # for markdownify, behind markitdown's converters
    "strip": ["a", "img"],  # a link's words stay, its address goes
    "escape_asterisks": False,
    "escape_underscores": False,
    "escape_misc": False,
    "table_infer_header": True,  # else a table without a head gets an empty one
}


def read_html(stream: BinaryIO, column: str) -> Iterator[Piece | Problem]:
    """A page's text as Markdown, in the encoding that fits it; a note where that is not UTF-8."""
    text = _page(stream)
    yield Piece(_markdown(text))
    yield from notes(text)


def _page(stream: BinaryIO) -> TextFile:
    from bs4.dammit import EncodingDetector

    claimed = EncodingDetector.find_declared_encoding(stream.read(SAMPLE), is_html=True)
    stream.seek(0)
    return TextFile(stream, claimed=claimed)


_PAGE_END = re.compile(r"</(?:body|html)\s*>", re.IGNORECASE)  # the converter takes the first body only; let it not end


def _markdown(page: TextFile) -> str:
    from markitdown.converters import HtmlConverter

    html = _PAGE_END.sub("", "".join(page.blocks(SAMPLE)))
    return HtmlConverter().convert_string(html, **_PLAIN).markdown


_OLD_OFFICE = b"\xd0\xcf\x11\xe0"


def read_docx(stream: BinaryIO, column: str) -> Iterator[Piece | Problem]:
    """A Word file's text as Markdown. Raises Unreadable for one that is encrypted or from before 2007."""
    from markitdown import StreamInfo
    from markitdown.converters import DocxConverter

    if stream.read(4) == _OLD_OFFICE:
        raise Unreadable("encrypted, or in Word's format from before 2007: save it anew as .docx, without a password")
    stream.seek(0)
    yield Piece(DocxConverter().convert(stream, StreamInfo(extension=".docx"), **_PLAIN).markdown)


def read_epub(stream: BinaryIO, column: str) -> Iterator[Piece | Problem]:
    """A book's chapters as one Markdown text, and a Problem for each that is missing. Raises Unreadable for a locked one."""
    chapters, problems = [], []
    with zipfile.ZipFile(stream) as book:
        names = set(book.namelist())
        locks = book.read("META-INF/encryption.xml") if "META-INF/encryption.xml" in names else b""
        if b"html" in locks:  # fonts alone may be locked in a book that is open to read
            raise Unreadable("encrypted (copy protection)")
        for name in _chapters(book):
            if name not in names:
                problems.append(Problem(f"its chapter {name} is not in it"))
                continue
            try:
                page = _page(io.BytesIO(book.read(name)))
                chapters.append(_markdown(page).strip())
                problems += notes(page)
            except Unreadable as error:
                problems.append(Problem(f"its chapter {name}: {error}"))
    yield Piece("\n\n".join(chapters))
    yield from problems


def _chapters(book: zipfile.ZipFile) -> Iterator[str]:
    """The names of a book's files with text, in the order of reading."""
    from defusedxml.ElementTree import fromstring

    package = fromstring(book.read("META-INF/container.xml")).find(".//{*}rootfile").get("full-path")
    root = fromstring(book.read(package))
    files = {item.get("id"): item.get("href") for item in root.iterfind(".//{*}manifest/{*}item")}
    for chapter in root.iterfind(".//{*}spine/{*}itemref"):
        name = chapter.get("idref")
        yield posixpath.normpath(posixpath.join(posixpath.dirname(package), unquote(files.get(name) or name)))


def read_pdf(stream: BinaryIO, column: str) -> Iterator[Piece | Problem]:
    """The pages' lines joined into paragraphs; a note on pages without text. Raises Unreadable where none has any."""
    import pypdfium2

    try:
        pages = pypdfium2.PdfDocument(stream)
    except pypdfium2.PdfiumError as error:
        raise Unreadable("encrypted" if "password" in str(error).lower() else f"damaged ({error})") from None
    with pages:
        texts = [_unwrapped(_lines(page.get_textpage())) for page in pages]
        empty = [number for number, text in enumerate(texts) if not text.strip()]
        pictures = [number + 1 for number in empty if _has_picture(pages[number])]
    need = "scanned pages need OCR first (ocrmypdf, for one)"
    if len(empty) == len(texts):
        raise Unreadable(f"no text in it: {need}")
    yield Piece("\n".join(texts))
    if pictures:
        reason = f"{len(pictures)} of {len(texts)} pages are pictures without text: {need}"
        yield Problem(reason, f"page {pictures[0]}", bad=False)


def _has_picture(page: Any) -> bool:
    from pypdfium2.raw import FPDF_PAGEOBJ_IMAGE

    return any(page.get_objects(filter=[FPDF_PAGEOBJ_IMAGE]))


_DIVIDED = re.compile("[\x02\ufffe]")  # where PDFium saw a word divided at a line's end, and joined the lines


def _lines(page: Any) -> list[str]:
    """A page's lines, with \\x02 at the end of one that ends within a word.

    PDFium reads a page in two ways. The first knows all characters, the second all lines' ends: where they agree on the
    characters, the second is taken.
    """
    first, second = (_DIVIDED.sub("\x02", text) for text in (page.get_text_bounded(), page.get_text_range()))
    text = second if "".join(first.split()) == "".join(second.split()) else first
    return text.replace("\r\n", "\n").replace("\x02", "\x02\n").split("\n")


def _unwrapped(lines: list[str]) -> str:
    """A page's lines joined into paragraphs. A PDF only knows lines; one that stops well short of the widest ends a
    paragraph."""
    full, out = 0.75 * max(map(len, lines)), ""
    for line in map(str.rstrip, lines):
        if line.endswith("\x02"):
            out += line[:-1]
        elif len(line) > full:
            out += line if re.search(r"\w-$", line) else f"{line} "
        else:
            out += f"{line}\n\n"
    return out
