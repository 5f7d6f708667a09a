"""Rows with fields in, their texts out: JSON, lines of JSON, CSV and Parquet, a row at a time.

Read with Python's own json and csv and with pyarrow (the library under `datasets`' builders, which give a whole file up
at its first bad row).
"""

import csv
import io
import json
import re
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any, BinaryIO

from cptlib.documents.decoding import SAMPLE, TextFile, notes
from cptlib.documents.pieces import Piece, Problem, Unreadable

LONGEST = 1 << 25  # characters of a field or an object; a longer one is damage


def read_jsonl(stream: BinaryIO, column: str) -> Iterator[Piece | Problem]:
    """An object or a string a line, or one array of them; a Problem for each line that is neither."""
    text = TextFile(stream)
    if text.peek().lstrip().startswith("["):  # one array, which files of lines hold at times
        yield from _objects(text, column)
    else:
        yield from _lines(text, column)
    yield from notes(text)


def read_json(stream: BinaryIO, column: str) -> Iterator[Piece | Problem]:
    """An array of objects or strings; one object; or objects on lines, which .json files often hold."""
    text = TextFile(stream)
    yield from _objects(text, column)
    yield from notes(text)


def _lines(text: TextFile, column: str) -> Iterator[Piece | Problem]:
    for number, line in enumerate(text.lines(), 1):
        if line.strip():
            yield _json_line(line, column, f"line {number}")


def _json_line(line: str, column: str, where: str) -> Piece | Problem:
    try:
        return _row(json.loads(line), column, where)
    except (ValueError, RecursionError) as error:
        return Problem(f"not a JSON object ({_fault(error)}); each line must be one", where)


def _fault(error: Exception) -> str:
    return "nested too deep" if isinstance(error, RecursionError) else getattr(error, "msg", str(error))


def _objects(text: TextFile, column: str) -> Iterator[Piece | Problem]:
    number = 0
    try:
        for number, row in enumerate(_values(text), 1):
            yield _row(row, column, f"object {number}")
    except (ValueError, RecursionError) as error:
        yield Problem(f"damaged behind object {number} ({_fault(error)}): what follows is not read")


_BETWEEN = re.compile(r"[\s,]*")


def _values(text: TextFile) -> Iterator[Any]:
    """The values of a JSON text, those in an array one by one, read a piece at a time."""
    decode, rest, array, more = json.JSONDecoder().raw_decode, "", False, True
    while more:
        block = text.read(max(SAMPLE, len(rest)))  # twice as much where a value is not whole yet
        rest, at, more = rest + block, 0, bool(block)
        while (between := _BETWEEN.match(rest, at)) and (at := between.end()) < len(rest):
            if rest[at] == ("]" if array else "["):
                array, at = not array, at + 1
                continue
            try:
                value, end = decode(rest, at)
            except json.JSONDecodeError:
                if more and len(rest) < LONGEST:
                    break
                raise
            if end == len(rest) and more:  # a number may go on
                break
            yield value
            at = end
        rest = rest[at:]
    if array:
        raise ValueError("the array does not end")


def _row(row: object, column: str, where: str) -> Piece | Problem:
    if isinstance(row, str):
        return Piece(row)
    if isinstance(row, dict) and isinstance(row.get(column), str):
        return Piece(row[column], ends=row.get("ends") is not False)  # as `corpus --out` writes it
    kind = f"it is a {type(row).__name__}"
    has = f"its fields are {', '.join(map(str, row))}"[:200] if isinstance(row, dict) else kind
    return Problem(f'no string field "{column}" ({has}); write {{"{column}": "..."}} or name another column', where)


def read_csv(stream: BinaryIO, column: str) -> Iterator[Piece | Problem]:
    """The field `column` of each row, whatever the dialect. Raises Unreadable where the header does not name it."""
    csv.field_size_limit(LONGEST)
    text = TextFile(stream, newline="")
    lines = text.lines()
    delimiter, names = _header(lines)
    if column not in names:
        raise Unreadable(f'no column "{column}", only {", ".join(names)[:200]}: rename one or name another column')
    rows = (found for found in _records(lines, delimiter, len(names)) if any(map(str.strip, found[0])))
    for number, (row, bare) in enumerate(rows, 1):
        where = f"row {number}"
        yield from _field(row, names, column, delimiter, where)
        if bare:
            yield Problem("quotes that do not match: they were read as characters", where, bad=False)
    yield from notes(text)


def _header(lines: Iterator[str]) -> tuple[str, list[str]]:
    """What separates the columns, and their names."""
    filled = filter(str.strip, lines)
    header = next(filled, "")
    if for_excel := re.match('"?sep=(.)', header):
        header = next(filled, "")
    while header.count('"') % 2 and len(header) < SAMPLE and (line := next(lines, "")):
        header += line
    delimiter = for_excel[1] if for_excel else max(",;\t|", key=header.count)
    return delimiter, next(csv.reader(io.StringIO(header, newline=""), delimiter=delimiter), [])


def _field(row: list[str], names: list[str], column: str, delimiter: str, where: str) -> Iterator[Piece | Problem]:
    """The text of a row. One longer than the header had a delimiter in its text that no quotes protect."""
    at, longer = names.index(column), any(row[len(names) :])
    if at >= len(row):
        yield Problem(f'no field "{column}" in this row', where)
    elif longer and at == len(names) - 1:
        yield Piece(delimiter.join(row[at:]))
        yield Problem("more fields than the header has: what stands behind the text was joined to it", where, bad=False)
    elif longer:
        yield Problem("more fields than the header has, so that its text cannot be told: put it in quotes", where)
    else:
        yield Piece(row[at])


def _records(lines: Iterator[str], delimiter: str, columns: int) -> Iterator[tuple[list[str], bool]]:
    """Rows of fields, and whether a row's quotes were read as characters.

    A quote that nothing closes would take all rows that follow into one field. So a row that is no good CSV is read again
    with \\" for a quote within a field, as some programs write it, and then, its first line alone, without any quoting.
    """
    waiting: deque[str] = deque()  # lines that were looked at and given back

    def take(taken: list[str]) -> Iterator[str]:
        while line := waiting.popleft() if waiting else next(lines, ""):
            taken.append(line)
            yield line

    while True:
        for doubled in (str, partial(_ESCAPED.sub, '""')):
            taken: list[str] = []
            row = None
            with suppress(csv.Error):
                row = next(csv.reader(map(doubled, take(taken)), delimiter=delimiter, strict=True), None)
            if not taken:
                return
            if row is not None and not _are_rows(taken, delimiter, columns):
                yield row, False
                break
            waiting.extendleft(reversed(taken))
        else:
            yield waiting.popleft().rstrip("\r\n").split(delimiter), True


_ESCAPED = re.compile(r'(?<!\\)\\"')


def _are_rows(lines: list[str], delimiter: str, columns: int) -> bool:
    """Whether the lines of one row are rows themselves, as only tabs tell: few texts hold any."""
    return delimiter == "\t" and len(lines) > 1 and all(line.count("\t") == columns - 1 for line in lines)


def read_parquet(stream: BinaryIO, column: str) -> Iterator[Piece | Problem]:
    """The column `column`, 256 rows at a time. Raises Unreadable where there is none of that name."""
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
