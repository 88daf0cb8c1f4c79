"""Instants as people and files write them: parsing, and times that cannot be true.

A time is a number of Unix seconds or ISO 8601 text. Impossible times differ from old ones in size.
A clock that was never set, milliseconds read as seconds and a date without hyphens fall before 1971
or far into the future. No record of a prediction, an outcome or a source has such a time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from math import isfinite

from kedge.core.errors import Refused
from kedge.core.phrases import tell_value
from kedge.core.time.durations import seconds

EARLIEST_S = 31_536_000.0
"""1971-01-01, the earliest valid time. The year before it contains other values that are read as
Unix seconds: 0 (never set), 20261129 (a date without hyphens), 1796000 (milliseconds divided
twice)."""
AHEAD_S = 86_400.0
"""Limit of how far another host's clock, or a date for its whole day, is ahead of this host."""
SKEW_S = 300.0
"""Limit of the difference of two hosts' clocks: a label can be this much earlier than its
prediction."""
ROUNDED_S = 86_400.0
"""The same limit for a label whose time was rounded down to a day or an hour."""
QUARTER_S = 900.0
"""Every time zone is a whole number of quarters of an hour from UTC, so each date begins on one. A
time on a full quarter counts as rounded."""
FORMS = "Unix seconds, or ISO 8601 such as 2026-11-26 or 2026-11-26T09:30:00Z"
ZONED = "Unix seconds, or ISO 8601 with a time zone such as 2026-11-26T09:30:00Z"
"""The forms where a time zone is needed: a date alone has none."""
WRITE = "write 2h, 7d, 2026-11-24 or 2026-11-24T10:00:00Z"
_UNITS = ((1e17, "nanoseconds"), (1e14, "microseconds"), (1e11, "milliseconds"))
"""Sizes from which a number is in another unit than seconds; 1e11 s are the year 5138."""
_DATE = len("2026-11-26")
_LONGEST = 64
"""Limit of characters of a time; an error shows longer text cut."""
_HOUR, _SIXTY, _PART = "([01][0-9]|2[0-3])", "[0-5][0-9]", "([.,][0-9]{1,9})?"
_ZONE = rf"(\s*([Zz]|[+-]{_HOUR}(:?{_SIXTY})?))?"
ISO = (
    rf"([0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}([ Tt]{_HOUR}:{_SIXTY}(:{_SIXTY}{_PART})?{_ZONE})?"
    rf"|[0-9]{{8}}[Tt]{_HOUR}{_SIXTY}{_SIXTY}{_PART}{_ZONE})"
)
"""The part of ISO 8601 that kedge reads: calendar dates, and times of day with minutes. It is a
regular expression of Python and of DuckDB (RE2). A date without hyphens needs a time: alone it is a
number."""
SPELLINGS = (
    (r"\s+([Zz+-])", r"\1"),
    (r"^([0-9]{4})([0-9]{2})([0-9]{2})[Tt]([0-9]{2})([0-9]{2})", r"\1-\2-\3T\4:\5:"),
    (r"[.,]([0-9]{1,6})[0-9]*", r".\1"),
)
"""Replacements that convert such text to the spelling that Python and DuckDB read; each is done
once. Digits beyond microseconds are cut off."""


def check_form(form: str) -> None:
    """Raise if a time format is invalid.

    Raises:
        Refused: `bad_time_format`: it has no directives of `strptime`, unknown ones, or one twice.
    """
    some = datetime(2026, 11, 26, 9, 30, tzinfo=UTC)
    try:
        datetime.strptime(some.strftime(form), form)  # noqa: DTZ007 - only whether it can be read
        fault = "it has no directive" if some.strftime(form) == form else ""
    except ValueError as error:
        fault = str(error)
    except re.error:  # each directive is a group of one pattern
        fault = "a directive occurs twice"
    if fault:
        raise Refused(
            f"{form[:_LONGEST]!r} is not a form of times: {fault[:_LONGEST]}",
            code="bad_time_format",
            hint="write it as for strptime, such as %d/%m/%Y %H:%M",
        )


def read_formed(text: str, form: str) -> float:
    """Parse a time in a declared format; without `%z` it is UTC.

    Raises:
        ValueError: the text has another format.
    """
    try:
        found = datetime.strptime(text.strip()[: 2 * _LONGEST], form)  # noqa: DTZ007 - below
    except ValueError:
        raise ValueError(f"{text[:_LONGEST]!r} is not written as {form[:_LONGEST]}") from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def read_instant(given: object, *, zone_needed: bool = False) -> float:
    """Parse a time as people write it.

    Args:
        given: Unix seconds as a number, or ISO 8601 as text.
        zone_needed: raise for text without a time zone; else it is UTC.

    Returns:
        Unix seconds. They can still be impossible: see `untrue`.

    Raises:
        ValueError: it is neither; names the format of a time.
    """
    forms = ZONED if zone_needed else FORMS
    if isinstance(given, int | float) and not isinstance(given, bool):
        try:
            return float(given)
        except OverflowError:
            raise ValueError(
                f"{str(given)[:_LONGEST]} is not a valid time; write {forms}"
            ) from None
    text = given.strip() if isinstance(given, str) else ""
    try:
        found = datetime.fromisoformat(_spelt(text[: _LONGEST + 1]))
    except ValueError:
        told = repr(given) if isinstance(given, str) else tell_value(given)
        raise ValueError(f"{told[:_LONGEST]} is not a valid time; write {forms}") from None
    if found.tzinfo is None:
        if zone_needed:
            if len(text) == _DATE:
                raise ValueError(f"{text} is a date and has no time zone; write {text}T00:00:00Z")
            raise ValueError(f"{text} has no time zone; end it with Z or +01:00")
        found = found.replace(tzinfo=UTC)
    return found.timestamp()


def _spelt(text: str) -> str:
    """Return text that matches `ISO` in one spelling.

    Raises:
        ValueError: the text does not match.
    """
    if _READ.fullmatch(text) is None:
        raise ValueError(text)
    for pattern, spelling in SPELLINGS:
        text = re.sub(pattern, spelling, text, count=1)
    return text.upper()


_READ = re.compile(ISO)


def read_when(text: str, now: float) -> float:
    """Parse a time of a command: as `read_instant`, or a duration back from now such as 2h.

    Raises:
        Refused: `bad_time`: it is neither, or is impossible; `in_the_future`.
    """
    try:
        at = now - seconds(text)
    except ValueError:
        pass
    else:
        if at < EARLIEST_S:
            raise Refused(
                f"{text[:_LONGEST]} reaches back before 1971", code="bad_time", hint=WRITE
            )
        return at
    try:
        at = read_instant(text)
    except ValueError:
        raise Refused(
            f"{text[:_LONGEST]!r} is neither a duration nor a time", code="bad_time", hint=WRITE
        ) from None
    why = untrue(at, now)
    if why is not None:
        code = "in_the_future" if at > now else "bad_time"
        raise Refused(f"{text[:_LONGEST]}: {why}", code=code, hint=WRITE)
    return at


def bounds(now: float) -> tuple[float, float]:
    """Return the earliest and the latest valid Unix seconds of a record."""
    return EARLIEST_S, now + AHEAD_S


def untrue(at: float, now: float) -> str | None:
    """Return why a record cannot have this time (Unix seconds); None if it can."""
    low, high = bounds(now)
    if low <= at <= high:
        return None
    return next(_reasons(at))


def early(at: float, given: float) -> str | None:
    """Return why an outcome of this time cannot belong to a prediction of time `given`, or None.

    Clocks of hosts differ by `SKEW_S` at most, and a rounded time can stand for its whole day.
    """
    slack = SKEW_S if at % QUARTER_S else ROUNDED_S
    if at >= given - slack:
        return None
    return f"{iso(at)} is before its prediction, which was given at {iso(given)}"


def _reasons(at: float) -> Iterator[str]:
    if not isfinite(at):
        yield "is not finite"
        return
    for size, unit in _UNITS:
        if abs(at) >= size:
            yield f"{at:.0f} counts {unit}; a time is Unix seconds"
    if at > 0 and at >= EARLIEST_S:
        yield f"{iso(at)} lies in the future"
    if at == int(at) and _is_date(str(int(at))):
        yield f"{int(at)} is a date without hyphens; read as Unix seconds it is in 1970"
    if at == 0:
        yield "1970-01-01 is how a time is written that was never set"
    yield f"{iso(at)} is before 1971: was it ever set, and is it in seconds?"


def _is_date(digits: str) -> bool:
    try:
        # A date has 8 digits and no zone.
        return len(digits) == 8 and datetime.strptime(digits, "%Y%m%d").year >= 1971  # noqa: DTZ007
    except ValueError:
        return False


def iso(at: float) -> str:
    """Format Unix seconds as RFC 3339 in UTC, to the second; outside the calendar as a number."""
    try:
        return _zulu(at, "seconds")
    except (OverflowError, ValueError, OSError):
        return f"{at:.0f} s"


def stamp(at: float) -> str:
    """Format Unix seconds as in the ledger: RFC 3339 in UTC, to the microsecond."""
    return _zulu(at, "microseconds")


def _zulu(at: float, to: str) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec=to).replace("+00:00", "Z")


def to_minute(at: float) -> str:
    """Format Unix seconds for display, in UTC: 2026-03-01 09:00."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M}"
