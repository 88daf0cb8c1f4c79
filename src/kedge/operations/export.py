"""Export of the prediction log as Parquet: one file an hour, with labels, for other tools."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import groupby
from math import inf
from pathlib import Path
from typing import Any

import msgspec

from kedge.core.errors import Refused, Unavailable
from kedge.core.evidence.records import HOUR_S, JoinRow, row_hour
from kedge.core.time.instants import iso, read_when
from kedge.core.values import Value
from kedge.engine.submission import Say
from kedge.operations.evidence.read import state_of
from kedge.operations.progress import Progress
from kedge.system.durable import replacing
from kedge.tabular.parquet import database, load_duckdb
from kedge.tabular.quotes import first_line, quoted
from kedge.workspace import Workplace

WRITING = "writing Parquet"
"""The operation that needs DuckDB, for messages."""
LABELS = 20_000
"""Number of labels read at once."""
COLUMNS = {
    "id": "VARCHAR",
    "at": "DOUBLE",
    "unit": "VARCHAR",
    "production": "INTEGER",
    "candidate": "INTEGER",
    "salt": "VARCHAR",
    "weight": "INTEGER",
    "arm": "VARCHAR",
    "failed": "BOOLEAN",
    "segments": "VARCHAR[]",
    "score": "DOUBLE",
    "decision": "VARCHAR",
    "shadow_score": "DOUBLE",
    "shadow_decision": "VARCHAR",
    "paired": "BOOLEAN",
    "inputs": "JSON",
}
OUTCOME = {"id": "VARCHAR", "label": "JSON", "label_version": "VARCHAR", "labelled_at": "DOUBLE"}


class ExportedLabel(Value, frozen=True):
    """A label in the exported files."""

    id: str
    label: object
    label_version: str
    labelled_at: float


class ExportedLog(Value, frozen=True):
    """The result of an export of the prediction log."""

    predictions: int
    """Exported rows: one with labels of several versions counts once for each."""
    files: int
    to: str
    """The endpoint's directory."""


def export_of(
    place: Workplace, endpoint: str, since: str, to: Path, say: Say = lambda text: None
) -> ExportedLog:
    """Write predictions and their labels as Parquet files.

    Each hour becomes `ENDPOINT/DAY/HOUR.parquet`, written to a temporary file and then renamed,
    so that readers see complete files. Only whole hours are written: the first may replace a file
    of an earlier export. A prediction with labels of several versions has several rows.

    Returns:
        The numbers of predictions and files written, and the directory.

    Raises:
        Refused: the endpoint is not found; `bad_time`, `in_the_future`; `needs_analytics`;
            `nothing_logged`.
        Unavailable: `export_failed`: the directory cannot be written.
    """
    duckdb = load_duckdb(WRITING)
    state_of(place, endpoint)
    now = place.clock.unix()
    begin = read_when(since, now) // HOUR_S * HOUR_S
    written = files = 0
    total = place.records.counted(endpoint, begin, now)
    work = Progress(say, place.clock.monotonic, "predictions written", total)
    try:
        with tempfile.TemporaryDirectory(prefix="kedge-") as scratch, database(WRITING) as db:
            labels = Path(scratch) / "labels"
            _lines(labels, _labels(place, endpoint, begin))
            rows = place.records.rows(endpoint, begin, place.clock.unix() + HOUR_S)
            for hour, source, count in _by_hour(rows, Path(scratch)):
                _copy(db, source, labels, _path(to, endpoint, hour))
                source.unlink()
                written, files = written + count, files + 1
                work.add(count, f", up to {iso((hour + 1) * HOUR_S)}")
    except (OSError, duckdb.Error) as error:
        raise Unavailable(
            f"{to} cannot be written: {first_line(error)}",
            code="export_failed",
            hint="name a directory with room, with --to",
        ) from None
    if not written:
        raise Refused(
            f"no prediction of {endpoint} is recorded (--since {since})", code="nothing_logged"
        )
    return ExportedLog(written, files, str(to / endpoint))


def _by_hour(rows: Iterable[JoinRow], scratch: Path) -> Iterator[tuple[int, Path, int]]:
    """Write predictions to a file for each hour in which they were answered.

    They arrive in the order of the hours in their ids. An answer may be an hour off that,
    so that the rows of neighbouring hours alternate.

    Yields:
        Each hour since 1970 once, in order, when its file is complete; and its number of rows.
    """
    counts: Counter[int] = Counter()

    def complete(before: float) -> Iterator[tuple[int, Path, int]]:
        for hour in sorted(each for each in counts if each < before):
            yield hour, scratch / f"{hour}", counts.pop(hour)

    for kept_under, some in groupby(rows, key=lambda row: row_hour(row)[0]):
        yield from complete(kept_under - 1)
        for hour, part in groupby(some, key=lambda row: int(row.at // HOUR_S)):
            counts[hour] += _lines(scratch / f"{hour}", map(_plain, part))
    yield from complete(inf)


def _path(to: Path, endpoint: str, hour: int) -> Path:
    at = datetime.fromtimestamp(hour * HOUR_S, UTC)
    return to / endpoint / f"{at:%Y-%m-%d}" / f"{at:%H}.parquet"


def _plain(row: JoinRow) -> dict[str, object]:
    found = {name: getattr(row, name) for name in COLUMNS if name != "inputs"}
    return {**found, "inputs": msgspec.msgpack.decode(row.inputs) if row.inputs else None}


def _labels(place: Workplace, endpoint: str, begin: float) -> Iterator[ExportedLabel]:
    before, cursor = -1, 0
    while cursor > before:
        # Unreadable rows are skipped, so that a short batch need not be the last.
        before = cursor
        cursor, found = place.records.labels(endpoint, cursor, LABELS)
        for one in found:
            if one.row.at >= begin:
                yield ExportedLabel(
                    id=one.row.id,
                    label=one.outcome.value,
                    label_version=one.outcome.label_version,
                    labelled_at=one.joined_at,
                )


def _lines(path: Path, items: Iterable[object]) -> int:
    """Append JSON lines and return their number; numbers that JSON cannot express become null."""
    count = 0
    encode = msgspec.json.Encoder().encode
    with path.open("ab") as out:
        for item in items:
            out.write(encode(item) + b"\n")
            count += 1
    return count


def _copy(db: Any, source: Path, labels: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    with replacing(to, durable=False) as partial:
        db.execute(  # the paths are ours, and quoted
            f"COPY (SELECT * FROM {_table(source, COLUMNS)} AS rows"  # noqa: S608
            f" LEFT JOIN {_table(labels, OUTCOME)} AS labels USING (id)"
            f' ORDER BY "at", id) TO {quoted(partial)} (FORMAT parquet, COMPRESSION zstd)'
        )


def _table(path: Path, columns: dict[str, str]) -> str:
    return (
        f"read_json({quoted(path)}, format = 'newline_delimited', columns = {json.dumps(columns)})"
    )
