"""Late labels from files and requests: read, checked line by line, joined in batches.

A line that cannot be read is a fault with its place, and never stops the rest.
"""

from __future__ import annotations

import csv
import difflib
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from itertools import islice
from math import inf, isfinite
from pathlib import Path
from typing import Any

import msgspec

from kedge.core.errors import Refused
from kedge.core.evidence.answers import EXACT_BELOW, Target, get_target, normal, unfit
from kedge.core.evidence.labels import reason
from kedge.core.records import COUNTS, Ingested, Joined, Outcome
from kedge.judging import state_of
from kedge.wiring import Workplace

BATCH = 20_000
"""Outcomes joined in one transaction: a kill loses one batch, whole, and it can be handed in again."""
FAULTS = 100
"""Faulty lines that are named; beyond it they are only counted."""
SHOWN = 64
"""Characters of a label in a message."""
LONGEST = 1024
"""Characters of an id or a word: longer ones are somebody's document."""
LINE = 64 << 10
"""Bytes of a JSON line: three words of `LONGEST` and what else a table has."""
COLUMNS = 1_000
"""Columns of a JSON line: each is compared with the known ones."""
KNOWN = frozenset({"id", "value", "at", "label_version"})
"""What is read. Other columns are somebody's own, unless they look like one of these misspelt."""
MILLISECONDS = 1e11
"""Unix seconds end here, in the year 5138; what is larger counts milliseconds."""


class Fault(str):
    """What is wrong with a line, where, and how to mend it."""

    __slots__ = ()


def hand_in(place: Workplace, endpoint: str, path: Path) -> dict[str, Any]:
    """Join the outcomes in a file.

    Returns:
        How many were joined, declined, duplicates, conflicts, parked, unknown, ambiguous (also by
        cause) and unreadable, and the first faults in words; how many are unfit, by reason: those are kept,
        and not judged while the output stays as it is.

    Raises:
        Refused: no such endpoint; `needs_analytics` for Parquet; `unknown_format`.
        Unavailable: the records cannot be written.
    """
    target = _target(place, endpoint)
    return _join(place, endpoint, read(path, target), target)


def hand_in_lines(place: Workplace, endpoint: str, lines: Iterable[bytes]) -> dict[str, Any]:
    """Join outcomes that came as JSON lines; see `hand_in`."""
    target = _target(place, endpoint)
    return _join(place, endpoint, _json_lines(lines, "line ", target), target)


def _target(place: Workplace, endpoint: str) -> Target:
    """Return what labels of an endpoint are compared with.

    Raises:
        Refused: `unknown_endpoint`.
    """
    return get_target(state_of(place, endpoint))


def _join(
    place: Workplace, endpoint: str, found: Iterator[Outcome | Fault], target: Target
) -> dict[str, Any]:
    now = place.clock.unix()
    # What was answered a moment ago may be asked for already.
    while place.records.waiting() and place.records.ingest(now) != Ingested():
        pass
    total, faults, unreadable = Joined(), list[str](), 0
    reasons: Counter[str] = Counter()
    examples: dict[str, str] = {}
    while batch := list(islice(found, BATCH)):
        outcomes = [one for one in batch if isinstance(one, Outcome)]
        bad = [one for one in batch if isinstance(one, Fault)]
        unreadable += len(bad)
        faults += [str(one) for one in bad][: FAULTS - len(faults)]
        for one in outcomes:
            why = None if one.value is None else unfit(target, one.value)
            if why is not None:
                reasons[why] += 1
                examples.setdefault(why, str(one.value)[:SHOWN])
        done = place.records.join(endpoint, outcomes, now)
        total = total.plus(msgspec.structs.replace(done, labelled=()))
    return {**{name: getattr(total, name) for name in COUNTS},
            "ambiguous_because": total.ambiguous_because, "unreadable": unreadable, "unfit": reasons.total(), "faults": faults,
            "unfit_because": [
                {"code": why, "count": count, "reason": reason(why, examples[why], target)}
                for why, count in reasons.items()
            ]}  # fmt: skip


# ---------------------------------------------------------------- reading


def read(path: Path, target: Target | None = None) -> Iterator[Outcome | Fault]:
    """Return the outcomes of a file, and its faults, in order.

    `target` says what a value is: to an output of words, 007 in a CSV is a word.

    Raises:
        Refused: `unknown_format`, `needs_analytics`.
    """
    match path.suffix.lower():
        case ".jsonl" | ".ndjson" | ".json":
            return _json_file(path, target)
        case ".csv":
            return _csv(path, target)
        case ".parquet":
            return _parquet(path, target)
    raise Refused(
        f"{path.name}: outcomes are read from .jsonl, .csv or .parquet", code="unknown_format",
        hint='one JSON object a line: {"id": "...", "value": 1, "at": 1767600000, "label_version": "v1"}',
    )  # fmt: skip


def _json_file(path: Path, target: Target | None) -> Iterator[Outcome | Fault]:
    with path.open("rb") as lines:
        yield from _json_lines(lines, f"{path.name}:", target)


def _json_lines(
    lines: Iterable[bytes], place: str, target: Target | None
) -> Iterator[Outcome | Fault]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        if len(line) > LINE:
            yield Fault(f"{place}{number}: has {len(line):,} bytes (limit {LINE:,})")
            continue
        try:
            raw = msgspec.json.decode(line)
            one = _outcome(raw, f"{place}{number}", target)
        except (msgspec.DecodeError, ValueError, ArithmeticError, RecursionError) as error:
            # Whatever stands in a line (data nested a thousand deep, a number of 5,000 digits):
            # it costs this line, and never the rest.
            one = Fault(f"{place}{number}: not a JSON object: {error}")
        yield one


def _csv(path: Path, target: Target | None) -> Iterator[Outcome | Fault]:
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        reader = csv.DictReader(file)
        if not {"id", "value"} <= set(reader.fieldnames or ()):
            yield Fault(
                f"{path.name}:1: the header must name id and value; got {reader.fieldnames}"
            )
            return
        rows = iter(reader)
        while True:
            try:
                row = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                yield Fault(f"{path.name}:{reader.line_num + 1}: {error}")
                continue
            given: dict[str, Any] = {k: v for k, v in row.items() if k is not None and v}
            place = f"{path.name}:{reader.line_num}"
            yield _outcome({"value": None, **given, **_typed(given, target)}, place, target)


def _typed(given: dict[str, Any], target: Target | None) -> dict[str, Any]:
    """Return the numbers of a CSV, which has only text.

    What a value is, the output says. Where none is known yet, text that a number would not be
    written as (007, 1_000, more digits than a float holds) stays a word.
    """
    typed = {}
    known = target is not None and not target.unread
    for name in ("at",) if known else ("value", "at"):
        text = given.get(name, "_")
        if "_" in text or (name == "value" and PADDED.match(text)):
            continue  # Python would read 1_000 as a number
        try:
            typed[name] = float(text)
        except ValueError:
            continue
    return typed


PADDED = re.compile(r"\s*[+-]?(0\d|\d{17})")
"""Digits that begin with a zero, or are more than a float holds: a code, and no number."""


def _parquet(path: Path, target: Target | None) -> Iterator[Outcome | Fault]:
    try:
        import duckdb  # noqa: PLC0415 - the extra `analytics`: heavy, and only for those who have Parquet
    except ImportError:
        raise Refused("reading Parquet needs the extra analytics", code="needs_analytics",
                      hint="pip install 'kedge[analytics]', or hand in CSV or JSON lines") from None  # fmt: skip
    with duckdb.connect() as connection:
        try:
            cursor = connection.execute(
                f"SELECT {_columns(connection, path)} FROM read_parquet(?)",  # noqa: S608 - one of two words
                [str(path)],
            )
        except duckdb.Error as error:
            yield Fault(f"{path.name}: {error}")
            return
        names = [column[0] for column in cursor.description or ()]
        number = 0
        while rows := cursor.fetchmany(BATCH):
            for row in rows:
                number += 1
                given = dict(zip(names, row, strict=True))
                when = given.get("at")
                if isinstance(when, datetime):
                    given["at"] = when.isoformat()
                yield _outcome(given, f"{path.name}: row {number}", target)


def _columns(connection: Any, path: Path) -> str:
    """What to select: an instant with a time zone as Unix seconds, the rest as it is."""
    described = connection.execute("DESCRIBE SELECT * FROM read_parquet(?)", [str(path)]).fetchall()
    zoned = any(name == "at" and kind == "TIMESTAMP WITH TIME ZONE" for name, kind, *_ in described)
    return '* REPLACE (epoch("at") AS "at")' if zoned else "*"


def _outcome(raw: Any, place: str, target: Target | None) -> Outcome | Fault:
    if not isinstance(raw, dict):
        return Fault(f'{place}: not an object; write {{"id": "...", "value": 1}}')
    name, value, when = raw.get("id"), raw.get("value"), raw.get("at")
    version = raw.get("label_version") or ""
    if len(raw) > COLUMNS:
        return Fault(f"{place}: has {len(raw):,} columns (limit {COLUMNS:,})")
    for key in raw.keys() - KNOWN:
        near = _known_beside(str(key))
        if near is not None:
            return Fault(f"{place}: {key} is unknown, did you mean {near}?")
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST:
        return Fault(f"{place}: id must be the id of a prediction, as the gateway gave it")
    if "value" not in raw:
        return Fault(f"{place}: value is missing; null says that no label will ever come")
    if isinstance(value, int | Decimal) and not isinstance(value, bool):
        large = isinstance(value, int) and EXACT_BELOW < abs(value) < 2**64
        value = str(value) if large else _float(value)  # as a float it would be another number
    if not (value is None or isinstance(value, bool | float | str)) or (
        isinstance(value, float) and not isfinite(value)
    ):
        return Fault(f"{place}: value must be a finite number, a word, true, false or null")
    if isinstance(value, str) and len(value) > LONGEST:
        return Fault(f"{place}: value has {len(value)} characters; at most {LONGEST}")
    if not isinstance(version, str) or len(version) > LONGEST:
        return Fault(f"{place}: label_version must be a word")
    at = _instant(when)
    if isinstance(at, Fault):
        return Fault(f"{place}: {at}")
    return Outcome(name, normal(target, value), at, version)


@lru_cache(4096)  # the same columns stand in every line
def _known_beside(key: str) -> str | None:
    """Return the known column that a name looks like, if any."""
    if len(key) > 2 * max(map(len, KNOWN)):
        return None
    return next(iter(difflib.get_close_matches(key, KNOWN, n=1, cutoff=0.8)), None)


def _float(number: float | Decimal) -> float:
    """A number of any size; one that is too large is not finite."""
    try:
        return float(number)
    except OverflowError:
        return inf


def _instant(when: Any) -> float | Fault | None:
    if when is None or (isinstance(when, int | float) and not isinstance(when, bool)):
        seconds = None if when is None else _float(when)
        if seconds is not None and not 0 <= seconds < MILLISECONDS:
            return Fault(f"at must be Unix seconds or ISO 8601; got {seconds}")
        return seconds
    try:
        read_at = datetime.fromisoformat(when)
    except (TypeError, ValueError):
        return Fault(f"at must be Unix seconds or ISO 8601; got {repr(when)[:SHOWN]}")
    if read_at.tzinfo is None:
        return Fault(f"at has no time zone: {str(when)[:SHOWN]}; end it with Z or +01:00")
    return read_at.timestamp()
