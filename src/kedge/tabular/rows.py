"""Rows of tables from operators: CSV, JSON lines and Parquet, each row with its place.

Memory is bounded: a line is held up to a limit, and Parquet is read in batches.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import msgspec

from kedge.core import codec
from kedge.core.phrases import tell_fault
from kedge.tabular.parquet import ColumnKind, UnreadableFile, column_as, kind_of, parquet_rows

LINE = 16 << 20
"""Maximum bytes of a JSON line: an image as numbers needs a tenth of that."""

HINT = "pip install 'kedge[analytics]', or give CSV or JSON lines"
Row = Mapping[str, Any]
"""Values by column; the file decides their types."""
Numbered = tuple[int, Row]
"""The line (of Parquet, the row), counted from 1, and its values."""
Rows = Iterator[Numbered]


def bounded_lines(file: BinaryIO, most: int) -> Iterator[bytes]:
    """Yield lines and hold at most `most` bytes and one; longer lines are cut."""
    while line := file.readline(most + 1):
        yield line
        while len(line) > most and not line.endswith(b"\n"):
            line = file.readline(most + 1)


def csv_rows(file: Path, names: Collection[str]) -> Rows:
    """Yield the rows of a CSV file; every value is text, or None where a row is too short.

    Args:
        file: UTF-8, with or without a byte order mark; its first line names the columns.
        names: the needed columns; each must occur once.

    Raises:
        UnreadableFile: it cannot be read; the error names the line.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines)
            try:
                header = list(reader.fieldnames or ())
                twice = [name for name in names if header.count(name) > 1]
                if twice:
                    raise UnreadableFile(f"column {twice[0]} stands there twice")
                for row in reader:
                    yield reader.line_num, row
            except csv.Error as error:
                raise UnreadableFile(f"line {reader.line_num + 1}: {error}") from None
    except UnicodeDecodeError:
        raise UnreadableFile(codec.NOT_UTF8) from None
    except OSError as error:
        raise UnreadableFile(error.strerror or str(error)) from error


class BadRow(NamedTuple):
    """A line of a table that cannot be read, where the other lines can."""

    line: int
    """Counted from 1."""
    why: str


def each_csv_row(file: Path, refuse: Callable[[list[str]], str]) -> Iterator[Numbered | BadRow]:
    """Yield the rows of a CSV file as text by column, without empty values; a bad line costs itself.

    Args:
        file: UTF-8, with or without a byte order mark; its first line names the columns.
        refuse: says why the named columns cannot be read, and the file then ends; empty if they can.

    Raises:
        OSError: the file cannot be read.
    """
    # Bytes that are not UTF-8 become surrogates, which make their line a bad one.
    with file.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as lines:
        reader = csv.DictReader(lines)
        try:
            why = refuse(list(reader.fieldnames or ()))
        except csv.Error as error:
            why = str(error)
        if why:
            yield BadRow(1, why)
            return
        rows = iter(reader)
        while True:
            try:
                row = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                yield BadRow(reader.line_num + 1, str(error))
                continue
            given = {name: text for name, text in row.items() if name is not None and text}
            if all(map(_is_utf8, given.values())):
                yield reader.line_num, given
            else:
                yield BadRow(reader.line_num, codec.NOT_UTF8)


NOT_AN_OBJECT = "not a JSON object"


def each_json_line(lines: Iterable[bytes], most: int) -> Iterator[tuple[int, Any] | BadRow]:
    """Yield the value of each JSON line that is not empty; a bad line costs itself.

    Args:
        lines: from `bounded_lines` with the same `most`. The first may have a byte order mark; text
            that is marked as UTF-16 there ends the file.
        most: bytes of a line.
    """
    for number, given in enumerate(lines, 1):
        line = given
        if number == 1:
            try:
                line = codec.utf8(line)
            except ValueError as error:
                yield BadRow(1, str(error))
                return
        if not line.strip():
            continue
        if len(line) > most:
            yield BadRow(number, f"has more than {most:,} bytes")
            continue
        try:
            read = msgspec.json.decode(line)
        except UnicodeDecodeError:
            yield BadRow(number, codec.NOT_UTF8)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            # Data that is nested a thousand deep costs this line only.
            yield BadRow(number, f"{NOT_AN_OBJECT}: {tell_fault(error)}")
        else:
            twice = codec.find_repeated(line, read)
            yield (number, read) if twice is None else BadRow(number, codec.tell_repeated(twice))


def _is_utf8(text: str) -> bool:
    return text.isascii() or not any("\udc80" <= each <= "\udcff" for each in text)


def csv_names(file: Path) -> list[str]:
    """Return the columns that a CSV file names, in its order.

    Raises:
        UnreadableFile: it cannot be read.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            return list(csv.DictReader(lines).fieldnames or ())
    except UnicodeDecodeError:
        raise UnreadableFile(codec.NOT_UTF8) from None
    except (OSError, csv.Error) as error:
        raise UnreadableFile(str(error)) from error


def json_rows(file: Path, names: Collection[str]) -> Rows:  # noqa: ARG001 - as the other readers
    """Yield the rows of a file with one JSON object a line; empty lines are skipped.

    Raises:
        UnreadableFile: it cannot be read; the error names the line.
    """
    decoder = msgspec.json.Decoder(dict[str, object])
    try:
        with file.open("rb") as lines:
            for number, line in enumerate(bounded_lines(lines, LINE), 1):
                if len(line) > LINE:
                    raise UnreadableFile(f"line {number} has more than {LINE:,} bytes")
                if not line.strip():
                    continue
                try:
                    row = codec.read_line(line, decoder)
                except msgspec.DecodeError as error:
                    raise UnreadableFile(f"line {number}: {error}") from None
                yield number, row
    except OSError as error:
        raise UnreadableFile(error.strerror or str(error)) from error


_NO_FIELD = (ColumnKind.NESTED, ColumnKind.BINARY, ColumnKind.OTHER)


def _as_sent(kinds: Mapping[str, str], names: Collection[str]) -> dict[str, str]:
    """Return expressions for columns as callers send them; instants become Unix seconds."""
    picked = {name: kind for name, kind in kinds.items() if name in names}
    for name, kind in picked.items():
        if kind_of(kind) in _NO_FIELD:
            raise UnreadableFile(
                f"column {name} is {kind:.60}, which no field supports; "
                "write numbers, words, truth values, or lists of them"
            )
    return {name: column_as(name, kind, whole="HUGEINT") for name, kind in picked.items()}


def table_rows(file: Path, names: Collection[str]) -> Rows:
    """Yield the rows of a Parquet file, with the columns that are needed.

    Raises:
        UnreadableFile: it cannot be read, or no field can hold a needed column.
        Refused: `needs_analytics`.
    """
    yield from enumerate(parquet_rows(file, lambda kinds: _as_sent(kinds, names), HINT), 1)


READERS: dict[str, Callable[[Path, Collection[str]], Rows]] = {
    ".csv": csv_rows,
    ".parquet": table_rows,
    ".jsonl": json_rows,
    ".ndjson": json_rows,
}
"""Reader for each file ending in lower case."""
