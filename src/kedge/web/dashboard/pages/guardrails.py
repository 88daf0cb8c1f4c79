"""Guardrails of a comparison: a tile for each metric, and the table of segments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import exp, log2

from kedge.core.evidence.rules import QUALITY, JudgeRules
from kedge.core.values import Value
from kedge.operations.evidence.view import ComparisonView, MetricVerdict
from kedge.web.dashboard.course import CourseLine
from kedge.web.dashboard.pages.fleet import VERDICTS
from kedge.web.dashboard.pages.quantities import NONE, count, ratio, share

TITLES = {
    "errors": "Errors",
    "latency.p50": "Slow answers (p50)",
    "latency.p99": "Slow answers (p99)",
    "violations": "Values out of range",
    "quality": "Quality",
    "cost": "Cost",
}
WORDS = {
    "pass": "not worse",
    "fail": "worse",
    "inconclusive": "too early",
    "broken input": "cannot tell",
}
WIDTH = 200.0
"""Width of the bar of an interval."""
OCTAVES = 2.0
"""The bar shows ratios from a quarter to four times."""
SEGMENTS = 30
"""Rows of the table of segments, the worst first."""
BANDS = 4
"""Shades of a cell on each side of equal."""


class IntervalBar(Value, frozen=True, kw_only=True):
    """Where an interval lies, in units of the bar's width."""

    low: float
    high: float
    value: float
    margin: float
    zero: float
    """Where the releases are equal."""
    is_open: bool
    """Whether the interval has no upper bound yet."""


class GuardrailTile(Value, frozen=True, kw_only=True):
    """One guardrail: both arms, their difference with its interval, the margin and the verdict."""

    metric: str
    title: str
    tone: str
    word: str
    sentence: str
    production: str
    candidate: str
    bad: tuple[int, int]
    units: tuple[int, int]
    difference: str
    interval: str
    margin: str
    bar: IntervalBar | None
    line: CourseLine | None


class HeatCell(Value, frozen=True, kw_only=True):
    """One segment and one metric."""

    text: str
    tone: str
    """Shade: `worse-3` to `worse-0`, `better-1` and so on, or `none`."""
    word: str
    """The verdict in words."""
    detail: str


class HeatRow(Value, frozen=True):
    """One segment."""

    segment: str
    cells: tuple[HeatCell, ...]
    worst: float
    """The evidence of its worst metric, for the order."""


class HeatTable(Value, frozen=True):
    """Segments by metrics, the worst segment first."""

    metrics: tuple[str, ...]
    rows: tuple[HeatRow, ...]
    hidden: int
    """Segments that are not shown."""
    endpoint: str


def title_of(metric: str) -> str:
    """Return the name of a metric as a heading."""
    return TITLES.get(metric, metric)


def tiles_of(
    evidence: ComparisonView, rules: JudgeRules | None, lines: Sequence[CourseLine]
) -> tuple[GuardrailTile, ...]:
    """Return a tile for each metric of all requests."""
    by_metric = {line.metric: line for line in lines}
    figures = evidence.labels.figures
    return tuple(_tile(one, rules, by_metric.get(one.metric), figures) for one in evidence.metrics)


def _tile(
    one: MetricVerdict,
    rules: JudgeRules | None,
    line: CourseLine | None,
    figures: tuple[float | None, float | None],
) -> GuardrailTile:
    rail = rules.rails.get(one.metric) if rules is not None else None
    margin = rail.shown if rail is not None else None
    losses = one.difference is not None
    return GuardrailTile(
        metric=one.metric,
        title=title_of(one.metric),
        tone=VERDICTS[one.verdict][0],
        word=WORDS[one.verdict],
        sentence=one.reason,
        production=_loss(figures, 0) if losses else _rate(one, 0),
        candidate=_loss(figures, 1) if losses else _rate(one, 1),
        bad=one.bad,
        units=one.units,
        difference=f"{one.difference:+.3g}" if losses else ratio(one.ratio),
        interval=_interval(one),
        margin=NONE if margin is None else f"{margin:+.3g}" if losses else f"+{margin * 100:g} %",
        bar=_bar(one, margin),
        line=line,
    )


def _rate(one: MetricVerdict, arm: int) -> str:
    return share(one.bad[arm] / one.units[arm]) if one.units[arm] else NONE


def _loss(figures: tuple[float | None, float | None], arm: int) -> str:
    value = figures[arm]
    return NONE if value is None else f"{value:.4g}"


def _interval(one: MetricVerdict) -> str:
    if one.interval is None or (one.ratio is None and one.difference is None):
        return "no interval yet"
    low, high = one.interval
    if one.difference is not None:
        return f"{low:+.3g} to {high:+.3g}" if high is not None else f"from {low:+.3g}"
    return f"{ratio(low)} to {ratio(high)}" if high is not None else f"from {ratio(low)}"


def _bar(one: MetricVerdict, margin: float | None) -> IntervalBar | None:
    """Return the bar of an interval: ratios on a logarithmic scale, differences on a linear one."""
    if one.interval is None or margin is None:
        return None
    if one.ratio is None and one.difference is None:
        return None
    low, high = one.interval
    if one.difference is not None:
        reach = max(margin * 3, abs(low), abs(high or 0.0), 1e-9)
        place: Callable[[float], float] = partial(_on_line, reach)
        value, limit, zero = one.difference, margin, 0.0
    else:
        place = _on_octaves
        value, limit, zero = one.ratio if one.ratio is not None else 1.0, 1 + margin, 1.0
    return IntervalBar(
        low=_within(place(low)),
        high=WIDTH if high is None else _within(place(high)),
        value=_within(place(value)),
        margin=_within(place(limit)),
        zero=_within(place(zero)),
        is_open=high is None,
    )


def _on_line(reach: float, value: float) -> float:
    return (value / reach + 1) / 2 * WIDTH


def _on_octaves(value: float) -> float:
    return (log2(max(value, 1e-9)) + OCTAVES) / (2 * OCTAVES) * WIDTH


def _within(x: float) -> float:
    return round(min(max(x, 0.0), WIDTH), 1)


# ---------------------------------------------------------------- segments


def heat_of(evidence: ComparisonView) -> HeatTable | None:
    """Return the table of segments; None if the endpoint declares none."""
    if not evidence.segments:
        return None
    judged = {
        v.metric for v in evidence.segments if v.ratio is not None or v.difference is not None
    }
    metrics = [v.metric for v in evidence.metrics if v.metric in judged]
    by_segment: dict[str, dict[str, MetricVerdict]] = {}
    for verdict in evidence.segments:
        by_segment.setdefault(verdict.segment, {})[verdict.metric] = verdict
    rows = sorted(
        (
            HeatRow(
                segment,
                tuple(cell_of(found.get(metric)) for metric in metrics),
                max(v.log_e for v in found.values()),
            )
            for segment, found in by_segment.items()
        ),
        key=lambda row: (-row.worst, row.segment),
    )
    shown = rows[:SEGMENTS]
    titles = tuple(title_of(metric) for metric in metrics)
    return HeatTable(titles, tuple(shown), len(rows) - len(shown), evidence.endpoint)


def cell_of(verdict: MetricVerdict | None) -> HeatCell:
    """Return the cell of one segment and metric."""
    if verdict is None:
        return HeatCell(text=NONE, tone="none", word="", detail="not counted")
    ours, theirs = verdict.bad
    detail = (
        f"{ours} of {verdict.units[0]:,} against {theirs} of {verdict.units[1]:,}; {verdict.reason}"
    )
    losses = verdict.metric == QUALITY and verdict.difference is not None
    text = f"{verdict.difference:+.3g}" if losses else ratio(verdict.ratio)
    return HeatCell(text=text, tone=_shade(verdict), word=WORDS[verdict.verdict], detail=detail)


def _shade(verdict: MetricVerdict) -> str:
    """Return the shade: it grows with the evidence, so that noise of a few requests stays pale."""
    if verdict.verdict == "fail":
        return f"worse-{BANDS - 1}"
    if verdict.ratio is None or verdict.ratio == 1:
        return "even"
    worse = verdict.ratio > 1
    strength = min(int(abs(log2(max(verdict.ratio, 1e-3))) * 2), BANDS - 1)
    if worse and exp(min(verdict.log_e, 50.0)) < 3 and not verdict.suspect:
        strength = min(strength, 1)
    return f"{'worse' if worse else 'better'}-{strength}"


def segment_title(evidence: ComparisonView, segment: str) -> str:
    """Return what is known of one segment in a line."""
    found = [v for v in evidence.segments if v.segment == segment]
    units = max((v.units for v in found), default=(0, 0))
    return f"{count(units[0], 'request')} of production, {units[1]:,} of the candidate"
