"""Bytes in, text out: the encoding of a file is found, and what does not fit it is counted."""

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from cptlib.pieces import Problem, Unreadable

DAMAGED_GZIP = (EOFError, gzip.BadGzipFile, zlib.error)

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_CONTROL = bytes(set(range(32)) - set(b"\t\n\r\f\x1b"))
SAMPLE = 1 << 16  # bytes from which the encoding is guessed


def encoding_of(stream: BinaryIO) -> str:
    """The encoding of a text: by its byte order mark, UTF-8 where all of it is, else the likeliest by charset-normalizer.

    The stream is back at its beginning afterwards. Raises Unreadable for what is no text.
    """
    head = stream.read(SAMPLE)
    stream.seek(0)
    if marked := [encoding for mark, encoding in _MARKS if head.startswith(mark)]:
        return marked[0]
    if len(head) - len(head.translate(None, _CONTROL)) > len(head) / 100:
        raise Unreadable("binary, not text")
    strange = _first_not_utf8(stream)
    if strange is None:
        return "utf-8"
    from charset_normalizer import from_bytes

    best = from_bytes(head[: SAMPLE // 2] + strange).best()
    if best is None:
        raise Unreadable("binary, or text in an encoding that could not be told")
    return best.encoding


def _first_not_utf8(stream: BinaryIO) -> bytes | None:
    """The bytes around the first that are not UTF-8, None where all are."""
    decoder, before = codecs.getincrementaldecoder("utf-8")(), b""
    try:
        while block := stream.read(1 << 20):
            decoder.decode(block)
            before = block
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        block = block or before
        return block[max(error.start - 1000, 0) : error.start + SAMPLE // 2]
    except DAMAGED_GZIP:
        return None  # what lies before the damage can be read
    finally:
        stream.seek(0)
    return None


class TextFile:
    """A text stream in the file's own encoding. Bytes that are none of it become U+FFFD, and `replaced` counts them."""

    def __init__(self, stream: BinaryIO, newline: str | None = None):
        self.encoding, self.replaced = encoding_of(stream), 0
        self.stream = io.TextIOWrapper(stream, self.encoding, errors="replace", newline=newline)

    def blocks(self, size: int) -> Iterator[str]:
        """The text, `size` characters at a time."""
        while block := self.stream.read(size):
            yield self._counted(block)

    def lines(self) -> Iterator[str]:
        """The text, line by line."""
        return map(self._counted, self.stream)

    def _counted(self, text: str) -> str:
        if self.encoding not in ("utf-8", "utf-8-sig"):
            self.replaced += text.count("\ufffd")
        return text


def notes(text: TextFile) -> Iterator[Problem]:
    if text.replaced:
        yield Problem(f"{text.replaced} places are not {text.encoding}; they were read as \ufffd")
