"""Outcomes: late labels from files and requests, read, checked line by line, joined in batches.

An unreadable line is a fault with its place, and never stops the other lines.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from decimal import Decimal
from functools import lru_cache
from itertools import islice
from math import inf, isfinite
from pathlib import Path
from typing import Any, NamedTuple, Self

import msgspec

from kedge.core import codec
from kedge.core.errors import Refused, Unavailable
from kedge.core.evidence.answers import EXACT_BELOW, Target, get_target, normal, unfit
from kedge.core.evidence.labels import UnfitLabels, reason
from kedge.core.evidence.records import COUNTS, PARKED_S, Ingested, Joined, Outcome
from kedge.core.phrases import tell_fault
from kedge.core.time.instants import check_form, early, read_formed, read_instant, untrue
from kedge.core.values import Value
from kedge.engine.submission import Say
from kedge.engine.unrecorded import UnrecordedPredictions, unrecorded
from kedge.operations.evidence.read import state_of
from kedge.operations.progress import Progress
from kedge.tabular.parquet import ColumnKind, UnreadableFile, column_as, kind_of, parquet_rows
from kedge.tabular.rows import (
    NOT_AN_OBJECT,
    BadRow,
    bounded_lines,
    each_csv_row,
    each_json_line,
)
from kedge.workspace import Workplace

BATCH = 20_000
"""Outcomes per transaction: a kill loses one whole batch, which can be sent again."""
FAULTS = 100
"""Limit of faulty lines that are named; further ones are only counted."""
SHOWN = 64
"""Limit of a label's characters in a message."""
LONGEST = 1024
"""Limit of characters of an id or a word: longer ones are whole documents."""
LINE = 64 << 10
"""Limit of bytes of a JSON line: three words of `LONGEST` and a table's other columns."""
COLUMNS = 1_000
"""Limit of columns of a JSON line: each is compared with the known ones."""
KNOWN = frozenset({"id", "value", "at", "label_version"})
"""The columns that are read. Others are ignored, unless they look like a misspelling of these."""


class LineFault(str):
    """A fault of a line or a file: its place, and how to fix it."""

    __slots__ = ("rows",)

    rows: int
    """Number of rows that are not read because of it."""

    def __new__(cls, text: str, rows: int = 1) -> Self:
        """Create a fault."""
        fault = super().__new__(cls, text)
        fault.rows = rows
        return fault


class Placed(NamedTuple):
    """An outcome and its place in the input."""

    place: str
    outcome: Outcome


class JoinedOutcomes(Value, frozen=True, kw_only=True):
    """The results of sent outcomes; each is in one of the counts up to `unreadable`."""

    joined: int
    declined: int
    """Joined with null: no label will come."""
    duplicates: int
    """Outcomes with the same value as a label that is joined already."""
    conflicts: int
    """Outcomes with another value than the current label: not joined."""
    parked: int
    """Outcomes without a prediction yet; each waits up to 24 h for one."""
    unknown: int
    """Outcomes that waited in vain, are beyond the horizon, or exceed the limit of waiting ones."""
    ambiguous: int
    """Outcomes whose id names more than one prediction: `ambiguous_because` names the cause."""
    unrecorded: int
    """Outcomes of an answered request, by the time in its id, whose prediction is not recorded."""
    corrected: int
    """Outcomes that replaced the current value."""
    early: int
    """Refused outcomes that are dated before their prediction."""
    ambiguous_because: dict[str, int]
    """By cause: `several_rows`, the request has several rows and the id names none; `id_reused`, more
    than one request used the id."""
    unreadable: int
    """Lines that cannot be read."""
    unfit: int
    """Labels that can equal no answer: stored, but not judged while the output is unchanged."""
    faults: tuple[str, ...]
    """The first faults of lines, each with its place."""
    unfit_because: tuple[UnfitLabels, ...]
    parked_until: float | None
    """Unix seconds until which the first parked one may still be joined; null: none is parked."""
    unrecorded_predictions: UnrecordedPredictions | None
    """Null: each label found its prediction, or it cannot be read."""
    log_sample: float
    """Per cent of entities whose predictions are recorded while there is no comparison."""


def hand_in(
    place: Workplace,
    endpoint: str,
    path: Path,
    *,
    by: str = "",
    form: str | None = None,
    say: Say = lambda text: None,
) -> JoinedOutcomes:
    """Join the outcomes of a file.

    Args:
        place: the state directory.
        endpoint: its name.
        path: JSON lines, CSV or Parquet.
        by: who corrects existing labels; empty: existing labels are not corrected.
        form: the format of a textual `at`, as for strptime; UTC without %z. None: ISO 8601.
        say: called at intervals with the progress.

    Raises:
        Refused: the endpoint is not found; `needs_analytics` for Parquet; `unknown_format`;
            `bad_time_format`.
        Unavailable: the records cannot be written.
    """
    target = _target(place, endpoint)
    if form is not None:
        check_form(form)
    reading = OutcomeReading(place.clock.unix(), target, form)
    return _join(place, endpoint, read(path, reading), target, by, say)


def hand_in_lines(
    place: Workplace,
    endpoint: str,
    lines: Iterable[bytes],
    *,
    by: str = "",
    form: str | None = None,
    say: Say = lambda text: None,
) -> JoinedOutcomes:
    """Join outcomes that were sent as JSON lines; see `hand_in`."""
    target = _target(place, endpoint)
    if form is not None:
        check_form(form)
    reading = OutcomeReading(place.clock.unix(), target, form)
    return _join(place, endpoint, _json_lines(lines, "line ", reading), target, by, say)


def _target(place: Workplace, endpoint: str) -> Target:
    """Return the output that labels of an endpoint are compared with.

    Raises:
        Refused: `unknown_endpoint`.
    """
    return get_target(state_of(place, endpoint))


def _join(
    place: Workplace,
    endpoint: str,
    found: Iterator[Placed | LineFault],
    target: Target,
    by: str,
    say: Say,
) -> JoinedOutcomes:
    now = place.clock.unix()
    # Labels of very recent answers may arrive already.
    while place.records.waiting() and place.records.ingest(now) != Ingested():
        pass
    total, faults, unreadable = Joined(), list[str](), 0
    reasons: Counter[str] = Counter()
    examples: dict[str, str] = {}
    work = Progress(say, place.clock.monotonic, "labels read")
    while batch := list(islice(found, BATCH)):
        placed = [one for one in batch if isinstance(one, Placed)]
        outcomes = [one.outcome for one in placed]
        bad = [one for one in batch if isinstance(one, LineFault)]
        unreadable += sum(one.rows for one in bad)
        faults += [str(one) for one in bad][: FAULTS - len(faults)]
        for one in outcomes:
            why = None if one.value is None else unfit(target, one.value)
            if why is not None:
                reasons[why] += 1
                examples.setdefault(why, str(one.value)[:SHOWN])
        done = place.records.join(endpoint, outcomes, now, by=by)
        faults += [
            f"{placed[one.place].place}: at: {early(one.at, one.given)}" for one in done.early_ones
        ][: FAULTS - len(faults)]
        total = total.plus(msgspec.structs.replace(done, labelled=(), early_ones=()))
        work.add(len(batch))
    since = total.parked_since
    return JoinedOutcomes(
        **{name: getattr(total, name) for name in COUNTS},
        ambiguous_because=total.ambiguous_because,
        unreadable=unreadable,
        unfit=reasons.total(),
        faults=tuple(faults),
        unfit_because=tuple(
            UnfitLabels(why, count, reason(why, examples[why], target))
            for why, count in reasons.items()
        ),
        parked_until=None if since is None else since + PARKED_S,
        unrecorded_predictions=_unrecorded(place, endpoint, total),
        log_sample=state_of(place, endpoint).policy.log.sample,
    )


def _unrecorded(place: Workplace, endpoint: str, total: Joined) -> UnrecordedPredictions | None:
    """Return why predictions that labels name may be unrecorded; None if each label was joined."""
    if total.parked + total.unrecorded + total.unknown + total.ambiguous:
        with suppress(Unavailable):  # the labels are still joined
            return unrecorded(place.evidence.tallies(endpoint), place.records, endpoint)
    return None


# ---------------------------------------------------------------- reading


class OutcomeReading(NamedTuple):
    """The rules by which lines of outcomes are read.

    Attributes:
        now: Unix seconds; an outcome dated later cannot be true.
        target: the output that labels are compared with. It decides a value's type: to an output
            of words, 007 in a CSV is a word. None: no output is known yet.
        form: the format of a textual `at`, as for strptime. None: ISO 8601 with a zone.
    """

    now: float
    target: Target | None = None
    form: str | None = None


def read(path: Path, reading: OutcomeReading) -> Iterator[Placed | LineFault]:
    """Return the outcomes and the faults of a file, in order.

    Raises:
        Refused: `unknown_format`, `needs_analytics`.
    """
    match path.suffix.lower():
        case ".jsonl" | ".ndjson" | ".json":
            return _json_file(path, reading)
        case ".csv":
            return _csv(path, reading)
        case ".parquet":
            return _parquet(path, reading)
    raise Refused(
        f"{path.name}: outcomes are read from .jsonl, .csv or .parquet",
        code="unknown_format",
        hint=(
            'one JSON object a line: {"id": "...", "value": 1, "at": 1767600000, "label_version":'
            ' "v1"}'
        ),
    )


def _json_file(path: Path, reading: OutcomeReading) -> Iterator[Placed | LineFault]:
    try:
        with path.open("rb") as file:
            yield from _json_lines(bounded_lines(file, LINE), f"{path.name}:", reading)
    except OSError as error:
        yield _unread(path, error)


def _unread(path: Path, error: OSError) -> LineFault:
    return LineFault(f"{path.name}: {error.strerror or error}")


def _json_lines(
    lines: Iterable[bytes], place: str, reading: OutcomeReading
) -> Iterator[Placed | LineFault]:
    for found in each_json_line(lines, LINE):
        if isinstance(found, BadRow):
            yield LineFault(f"{place}{found.line}: {found.why}")
            continue
        line, raw = found
        try:
            one = _outcome(raw, f"{place}{line}", reading)
        except (msgspec.DecodeError, ValueError, ArithmeticError, RecursionError) as error:
            # Any content of a line, such as a number of 5,000 digits, costs this line only.
            one = LineFault(f"{place}{line}: {NOT_AN_OBJECT}: {tell_fault(error)}")
        yield one


def _csv(path: Path, reading: OutcomeReading) -> Iterator[Placed | LineFault]:
    try:
        with path.open("rb") as raw:
            codec.utf8(raw.read(4))
        yield from _csv_rows(path, reading)
    except OSError as error:
        yield _unread(path, error)
    except ValueError as error:
        yield LineFault(f"{path.name}:1: {error}")


def _csv_rows(path: Path, reading: OutcomeReading) -> Iterator[Placed | LineFault]:
    for found in each_csv_row(path, _refuse_header):
        if isinstance(found, BadRow):
            yield LineFault(f"{path.name}:{found.line}: {found.why}")
            continue
        line, given = found
        raw = {"value": None, **given, **_typed(given, reading)}
        yield _outcome(raw, f"{path.name}:{line}", reading)


def _refuse_header(names: list[str]) -> str:
    """Return why a header does not fit outcomes; empty if it does."""
    if not {"id", "value"} <= set(names):
        header = ", ".join(names) or "nothing"
        return f"the header must name id and value; got {header[:SHOWN]!r}"
    twice = sorted(name for name in KNOWN if names.count(name) > 1)
    return f"the header names {twice[0]} twice" if twice else ""


def _typed(given: Mapping[str, str], reading: OutcomeReading) -> dict[str, float]:
    """Return the numbers of a CSV, which has only text.

    The output decides the type of a value. While none is known, text that is not the usual spelling
    of a number (007, 1_000, more digits than a float holds) stays a word.
    """
    typed: dict[str, float] = {}
    known = reading.target is not None and not reading.target.unread
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
"""Digits that begin with a zero or exceed a float's precision: a code, not a number."""


def _parquet(path: Path, reading: OutcomeReading) -> Iterator[Placed | LineFault]:
    hint = "pip install 'kedge[analytics]', or hand in CSV or JSON lines"
    try:
        for number, given in enumerate(parquet_rows(path, _picked, hint), 1):
            yield _outcome(given, f"{path.name}: row {number}", reading)
    except UnreadableFile as error:
        yield LineFault(f"{path.name}: {error}", error.rows)


_NUMBERS = (ColumnKind.WHOLE, ColumnKind.REAL, ColumnKind.WIDE)
_INSTANTS = (ColumnKind.ZONED, ColumnKind.NAIVE, ColumnKind.DATE)
COLUMN_KINDS: dict[str, tuple[ColumnKind, ...]] = {
    "id": (ColumnKind.TEXT, ColumnKind.NULL),
    "value": (ColumnKind.BOOL, *_NUMBERS, ColumnKind.TEXT, ColumnKind.NULL),
    "at": (*_NUMBERS, ColumnKind.TEXT, *_INSTANTS, ColumnKind.NULL),
    "label_version": (ColumnKind.TEXT, ColumnKind.NULL),
}
"""The columns of a Parquet file that are read, and the kinds that each accepts."""
WRITTEN_AS = {
    "id": "text",
    "value": "a number, text, or true and false",
    "at": "a timestamp with a time zone, or Unix seconds",
    "label_version": "text",
}


def _picked(kinds: Mapping[str, str]) -> dict[str, str]:
    """Return an expression for each column: whole numbers exactly, times with any zone.

    Raises:
        UnreadableFile: a column is missing, misspelt, or of a kind that is not read.
    """
    if not {"id", "value"} <= kinds.keys():
        raise UnreadableFile(f"has no column id or value; it has {', '.join(kinds)[:SHOWN]}")
    for name, allowed in COLUMN_KINDS.items():
        kind = kinds.get(name)
        if kind is not None and kind_of(kind) not in allowed:
            raise UnreadableFile(
                f"column {name} is {kind[:SHOWN]}, which is not read; "
                f"write it as {WRITTEN_AS[name]}"
            )
    for key in kinds.keys() - KNOWN:
        near = _known_beside(key)
        if near is not None:
            raise UnreadableFile(f"column {key} is unknown, did you mean {near}?")
    return {
        name: column_as(name, kinds[name], exact=True, naive=ColumnKind.TEXT)
        for name in COLUMN_KINDS
        if name in kinds
    }


def _outcome(raw: Any, place: str, reading: OutcomeReading) -> Placed | LineFault:
    if not isinstance(raw, dict):
        return LineFault(f'{place}: not an object; write {{"id": "...", "value": 1}}')
    name, value, when = raw.get("id"), raw.get("value"), raw.get("at")
    version = raw.get("label_version") or ""
    if len(raw) > COLUMNS:
        return LineFault(f"{place}: has {len(raw):,} columns (limit {COLUMNS:,})")
    for key in raw.keys() - KNOWN:
        near = _known_beside(str(key))
        if near is not None:
            return LineFault(f"{place}: {key} is unknown, did you mean {near}?")
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST:
        return LineFault(f"{place}: id must be the id of a prediction, as the gateway gave it")
    if "value" not in raw:
        return LineFault(f"{place}: value is missing; null says that no label will ever come")
    if isinstance(value, Decimal) and value.is_finite() and value == value.to_integral_value():
        value = int(value)
    if isinstance(value, int | Decimal) and not isinstance(value, bool):
        large = isinstance(value, int) and EXACT_BELOW < abs(value) < 2**64
        value = str(value) if large else _float(value)  # a float would be another number
    if not (value is None or isinstance(value, bool | float | str)) or (
        isinstance(value, float) and not isfinite(value)
    ):
        return LineFault(f"{place}: value must be a finite number, a word, true, false or null")
    if isinstance(value, str) and len(value) > LONGEST:
        return LineFault(f"{place}: value has {len(value)} characters; at most {LONGEST}")
    if not isinstance(version, str) or len(version) > LONGEST:
        return LineFault(f"{place}: label_version must be a word")
    at = _instant(when, reading.now, reading.form)
    if isinstance(at, LineFault):
        return LineFault(f"{place}: {at}")
    return Placed(place, Outcome(name, normal(reading.target, value), at, version))


@lru_cache(4096)  # every line has the same columns
def _known_beside(key: str) -> str | None:
    """Return the known column that a name resembles, or None."""
    if len(key) > 2 * max(map(len, KNOWN)):
        return None
    return next(iter(difflib.get_close_matches(key, KNOWN, n=1, cutoff=0.8)), None)


def _float(number: float | Decimal) -> float:
    """Return a number of any size as a float; one that is too large becomes infinite."""
    try:
        return float(number)
    except OverflowError:
        return inf


def _instant(when: Any, now: float, form: str | None = None) -> float | LineFault | None:
    """Return the time of an outcome: from Unix seconds, ISO 8601 with a time zone, or `form`."""
    if when is None:
        return None
    try:
        if form is not None and isinstance(when, str):
            at = read_formed(when, form)
        else:
            at = read_instant(float(when) if isinstance(when, Decimal) else when, zone_needed=True)
    except ValueError as error:
        return LineFault(f"at: {error}")
    why = untrue(at, now)
    return at if why is None else LineFault(f"at: {why}")
