"""Bytes in, text out: the encoding of a file is found, and what does not fit it is counted."""

import codecs
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from cptlib.documents import guess
from cptlib.documents.pieces import Problem, Unreadable

DAMAGED_GZIP = (EOFError, gzip.BadGzipFile, zlib.error)

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_CONTROL = bytes(set(range(32)) - set(b"\t\n\v\f\r\x1b\x1c\x1d\x1e\x1f"))  # not those that part words and lines
_NOT_ASCII = bytes(range(128, 256))
_STRANGE = re.compile("[\udc80-\udcff]")  # what a byte that is not UTF-8 becomes under "surrogateescape"
SAMPLE = 1 << 16  # bytes from which the encoding is guessed


def encoding_of(stream: BinaryIO, claimed: str = "") -> tuple[str, int]:
    """The encoding of a text, and how many of its bytes do not fit it where it is UTF-8 (else they are counted in reading).

    By its byte order mark; UTF-8 where more of the text fits that than does not, since others seldom fit by chance: a byte
    pasted in from elsewhere, or an end cut off within a character, changes no file's encoding; else the one claimed, where
    it fits, or the likeliest by its letters (`guess`). The stream is back at its beginning afterwards. Raises Unreadable
    for what is no text.
    """
    head = stream.read(SAMPLE)
    stream.seek(0)
    marked = next((encoding for mark, encoding in _MARKS if head.startswith(mark)), "")
    if marked and marked != "utf-8-sig":
        return marked, 0
    if len(head) - len(head.translate(None, _CONTROL)) > len(head) / 100:
        raise Unreadable("binary, not text")
    fitting, strange, cut, line = _survey(stream)
    if marked or not strange + cut or fitting > strange:
        return marked or "utf-8", strange + cut
    sample = _whole_lines(stream, line) or head
    encoding = claimed if _fits(sample, claimed) else guess.likeliest(sample)
    if encoding is None:
        raise Unreadable("binary, or text in an encoding that could not be told")
    return encoding, 0


def _whole_lines(stream: BinaryIO, start: int) -> bytes:
    """A sample from there that ends with no part of a character; none where the file is damaged."""
    try:
        stream.seek(start)
        sample = stream.read(SAMPLE)
    except DAMAGED_GZIP:
        return b""
    finally:
        stream.seek(0)
    if len(sample) < SAMPLE:
        return sample
    return sample[: max(map(sample.rfind, b'\n ,.<"'))] or sample  # no character of two bytes ends in one of these


def _fits(sample: bytes, encoding: str) -> bool:
    try:
        return bool(encoding and sample.decode(encoding))
    except (UnicodeDecodeError, LookupError):
        return False


def _survey(stream: BinaryIO) -> tuple[int, int, bool, int]:
    """How well UTF-8 fits: (characters of several bytes, bytes that are no character, whether the end cuts a character off,
    where the line of the first strange byte begins)."""
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    fitting = strange = line = at = 0
    try:
        while block := stream.read(SAMPLE):
            text = decoder.decode(block)
            found = len(_STRANGE.findall(text))
            if not strange and (first := _STRANGE.search(text)):
                line = at + len(text[: first.start()].rpartition("\n")[0].encode())
            fitting += len(text) - len(block.translate(None, _NOT_ASCII)) - found
            strange, at = strange + found, at + len(block)
        return fitting, strange, bool(decoder.decode(b"", final=True)), line
    except DAMAGED_GZIP:
        return fitting, strange, False, line  # what lies before the damage can be read
    finally:
        stream.seek(0)


_WIDER = {"iso8859-1": "cp1252", "iso8859-9": "cp1254", "gb2312": "gb18030", "gbk": "gb18030", "shift_jis": "cp932"}
_WIDER |= {"euc_kr": "cp949", "tis-620": "cp874"}


def _as_browsers_read(claimed: str) -> str:
    """The encoding that a page means by the name it gives: a wider one for some, and none by one that does not exist or
    cannot be true (what is UTF-8 is seen from its bytes)."""
    try:
        name = codecs.lookup(claimed).name
    except LookupError:
        return ""
    return "" if name.startswith("utf") else _WIDER.get(name, name)


class TextFile:
    """A text stream in the file's own encoding. Bytes that are none of it become U+FFFD, and `replaced` counts them.

    claimed: the encoding that the file names. assumed: whether it was guessed.
    """

    def __init__(self, stream: BinaryIO, newline: str | None = None, claimed: str | None = None) -> None:
        believed = _as_browsers_read(claimed) if claimed else ""
        self.encoding, self.replaced = encoding_of(stream, believed)
        self.assumed = not self.encoding.startswith("utf") and self.encoding != believed
        self.stream = io.TextIOWrapper(stream, self.encoding, errors="replace", newline=newline)

    def peek(self) -> str:
        """The first characters; they are still to be read."""
        start = self.stream.read(SAMPLE)
        self.stream.seek(0)
        return start

    def read(self, size: int) -> str:
        """The next `size` characters, fewer only at the end."""
        return self._counted(self.stream.read(size))

    def blocks(self, size: int) -> Iterator[str]:
        """The text, `size` characters at a time."""
        while block := self.read(size):
            yield block

    def lines(self) -> Iterator[str]:
        """The text, line by line."""
        return map(self._counted, self.stream)

    def _counted(self, text: str) -> str:
        if self.encoding not in ("utf-8", "utf-8-sig"):
            self.replaced += text.count("\ufffd")
        return text


def notes(text: TextFile) -> Iterator[Problem]:
    """What is to be said of a text file that was read."""
    if text.assumed:
        yield Problem(f"read as {text.encoding}", bad=False)
    if text.replaced:
        encoding = text.encoding.removesuffix("-sig")
        yield Problem(f"{text.replaced} places are not {encoding}; they were read as \ufffd", bad=False)
