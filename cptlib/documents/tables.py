"""Rows with fields in, their texts out: JSON, lines of JSON, CSV and Parquet, a row at a time.

Read with Python's own json and csv and with pyarrow (the library under `datasets`' builders, which give a whole file up
at its first bad row).
"""

import csv
import io
import json
from collections.abc import Iterator
from typing import BinaryIO

from cptlib.documents.decoding import SAMPLE, TextFile, notes
from cptlib.documents.pieces import Piece, Problem, Unreadable


def read_jsonl(stream: BinaryIO, column: str) -> Iterator[Piece | Problem]:
    text = TextFile(stream)
    for number, line in enumerate(text.lines(), 1):
        if line.strip():
            yield _json_line(line, column, f"line {number}")
    yield from notes(text)


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


def read_json(stream: BinaryIO, column: str) -> Iterator[Piece | Problem]:
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


def read_csv(stream: BinaryIO, column: str) -> Iterator[Piece | Problem]:
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
    yield from notes(text)


def read_parquet(stream: BinaryIO, column: str) -> Iterator[Piece | Problem]:
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
