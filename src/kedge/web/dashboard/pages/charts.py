"""Charts: lines over time, event marks and thresholds, as the script of the pages reads them."""

from __future__ import annotations

from typing import Literal

from kedge.core.values import Value
from kedge.web.dashboard.pages.marks import EventMark


class ChartView(Value, frozen=True, kw_only=True):
    """The lines of a chart as its script reads them."""

    at: tuple[float, ...]
    series: tuple[tuple[float | None, ...], ...]
    names: tuple[str, ...]
    unit: str
    marks: tuple[EventMark, ...] = ()
    level: float | None = None
    """A horizontal line, such as a threshold."""
    scale: Literal["linear", "fit", "log"] = "linear"
    """linear: from zero; fit: around the values."""
