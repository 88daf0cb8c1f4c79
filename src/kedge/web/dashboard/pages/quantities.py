"""Quantities of pages as short text: shares, rates, spans, ratios and counts."""

from __future__ import annotations

from collections.abc import Sequence

NONE = "–"
"""Text of a figure that is not known."""
MOST_RATIO = 99.0
"""Largest bound of a ratio that is shown; a larger one counts as none."""


def share(value: float | None, digits: int = 2) -> str:
    """Return a share from 0 to 1 in per cent."""
    return NONE if value is None else f"{value * 100:.{digits}f} %"


def percent(value: float) -> str:
    """Return a number of per cent without trailing zeros."""
    return f"{value:g} %"


def rate(per_second: float | None) -> str:
    """Return a rate of requests."""
    if per_second is None:
        return NONE
    if per_second >= 10 or per_second == 0:
        return f"{per_second:,.0f}/s"
    return f"{per_second:.1f}/s" if per_second >= 0.1 else f"{per_second * 3600:.0f}/h"


def span(seconds: float | None) -> str:
    """Return a span of time in one unit."""
    if seconds is None:
        return NONE
    for least, unit, size in ((129_600, "days", 86_400), (5_400, "h", 3_600), (90, "min", 60)):
        if seconds >= least:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.0f} s"


def milliseconds(value: float | None) -> str:
    """Return a duration given in milliseconds."""
    if value is None:
        return NONE
    if value >= 10_000:
        return span(value / 1e3)
    return f"{value:,.0f} ms" if value >= 10 else f"{value:.1f} ms"


def micros(value: float | None) -> str:
    """Return a duration given in microseconds."""
    return NONE if value is None else milliseconds(value / 1e3)


def ratio(value: float | None) -> str:
    """Return a ratio of two rates as a relative difference: 1.25 is +25 %."""
    if value is None:
        return NONE
    if value > MOST_RATIO:
        return f"over {MOST_RATIO:.0f} times"
    if value >= 3:
        return f"{value:.1f} times"
    more = round((value - 1) * 100, 6)
    return f"{more:+.0f} %" if abs(more) >= 10 else f"{more:+.2g} %"


def count(value: int, what: str) -> str:
    """Return a number with its noun, in the plural if needed."""
    return f"{value:,} {what}{'' if value == 1 else 's'}"


def spark(values: Sequence[float], width: float = 96.0, height: float = 22.0) -> str:
    """Return the points of a small line chart, for an SVG polyline; empty if there is no line."""
    if len(values) < 2:
        return ""
    top = max(*values, 1e-9)
    step = width / (len(values) - 1)
    return " ".join(
        f"{n * step:.1f},{height - 1 - value / top * (height - 2):.1f}"
        for n, value in enumerate(values)
    )
