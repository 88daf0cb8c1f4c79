"""Guardrails of a comparison: a tile for each metric, and the table of segments."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log2
from typing import NamedTuple

from kedge.core.evidence.rules import QUALITY, JudgeRules
from kedge.core.values import Value
from kedge.operations.evidence.view import ComparisonView, MetricVerdict
from kedge.web.dashboard.course import COST, CourseLine
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
"""The bar shows at most ratios from a quarter to four times."""
LEAST_OCTAVES = 0.02
"""It shows at least ratios of 1.4 % around equal."""
SPARE = 1.2
"""Free space beside what is shown."""
LEAST_RATIO = 1e-9
VERDICTS_READ = 300
"""Verdicts on segments that are read for the table, those with the most evidence."""
SEGMENTS = 30
"""Rows of the table of segments, the worst first."""
BANDS = 4
"""Shades of a cell on each side of equal."""


class IntervalBar(Value, frozen=True, kw_only=True):
    """Where an interval lies, in units of the bar's width."""

    low: float
    high: float
    value: float | None
    """None: there is no difference yet, only its bounds."""
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
    worst: tuple[float, float]
    """The evidence of its worst metric and the size of its difference, for the order."""


class HeatTable(Value, frozen=True):
    """Segments by metrics, the worst segment first."""

    metrics: tuple[str, ...]
    rows: tuple[HeatRow, ...]
    hidden: str
    """The number of segments that are not shown; empty: all are."""
    endpoint: str
    arms: tuple[str, str]


def title_of(metric: str) -> str:
    """Return the name of a metric as a heading."""
    return TITLES.get(metric, metric)


def tiles_of(
    evidence: ComparisonView, rules: JudgeRules | None, lines: Sequence[CourseLine]
) -> tuple[GuardrailTile, ...]:
    """Return a tile for each metric of all requests."""
    by_metric = {line.metric: line for line in (*lines, _quality_line(evidence))}
    return tuple(_tile(one, rules, by_metric.get(one.metric), evidence) for one in evidence.metrics)


def _quality_line(evidence: ComparisonView) -> CourseLine:
    """Return the declared loss of both releases, as outcomes came."""
    course = evidence.quality_course
    return CourseLine(QUALITY, tuple(map(float, course.at)), course.production, course.candidate)


class ShownRatio(NamedTuple):
    """The judged release over the measure: of rates, or of the declared loss."""

    ratio: float | None
    interval: tuple[float, float | None] | None


def shown_ratio(one: MetricVerdict) -> ShownRatio:
    """Return what a verdict compares, in the unit of its margin."""
    if one.losses is not None:
        return ShownRatio(one.loss_ratio, one.loss_interval)
    return ShownRatio(one.ratio, one.interval)


def _tile(
    one: MetricVerdict, rules: JudgeRules | None, line: CourseLine | None, evidence: ComparisonView
) -> GuardrailTile:
    rail = rules.rails.get(one.metric) if rules is not None else None
    margin = rail.shown if rail is not None else None
    ours, theirs = _figures(one, evidence)
    return GuardrailTile(
        metric=one.metric,
        title=title_of(one.metric),
        tone=VERDICTS[one.verdict][0],
        word=WORDS[one.verdict],
        sentence=one.reason,
        production=ours,
        candidate=theirs,
        difference=difference_of(one, evidence.candidate),
        interval=_interval(one),
        margin=NONE if margin is None else ratio(1 + margin),
        bar=_bar(one, margin),
        line=line,
    )


def _figures(one: MetricVerdict, evidence: ComparisonView) -> tuple[str, str]:
    """Return the figure of each release: its declared loss, its cost, or its share of bad units."""
    if one.metric == COST:
        spent = evidence.cost
        ours, theirs = spent.per_inference if spent is not None else (None, None)
        unit = f" {spent.currency}" if spent is not None else ""
    elif one.figures is not None:
        (ours, theirs), unit = one.figures, ""
    else:
        return _rate(one, 0), _rate(one, 1)
    return _number(ours, unit), _number(theirs, unit)


def _number(value: float | None, unit: str) -> str:
    return NONE if value is None else f"{value:.4g}{unit}"


def _rate(one: MetricVerdict, arm: int) -> str:
    return share(one.bad[arm] / one.units[arm]) if one.units[arm] else NONE


def difference_of(one: MetricVerdict, judged: str) -> str:
    """Return the relative difference of the judged release to the measure, as text."""
    shown = shown_ratio(one).ratio
    if shown is None and one.losses is None:
        if any(one.units) and not any(one.bad):
            return "none on either"
        if one.bad[1] and not one.bad[0]:
            return f"only on {judged}"
    return ratio(shown)


def _interval(one: MetricVerdict) -> str:
    shown, interval = shown_ratio(one)
    if interval is None:
        return "" if one.verdict == "pass" else "no interval yet"
    low, high = interval
    if shown is None:
        return "no interval yet" if high is None else f"at most {ratio(high)}"
    return f"{ratio(low)} to {ratio(high)}" if high is not None else f"from {ratio(low)}"


def _bar(one: MetricVerdict, margin: float | None) -> IntervalBar | None:
    """Return the bar of an interval of ratios, on a logarithmic scale."""
    shown, interval = shown_ratio(one)
    if interval is None or margin is None:
        return None
    low, high = interval
    if shown is None and high is None:
        return None
    # Losses differ by per cents, rates by multiples: the scale fits what is shown.
    ends = [1 + margin, low, *(value for value in (shown, high) if value is not None)]
    reach = max(abs(log2(max(value, LEAST_RATIO))) for value in ends) * SPARE
    octaves = min(max(reach, LEAST_OCTAVES), OCTAVES)

    def place(value: float) -> float:
        part = (log2(max(value, LEAST_RATIO)) / octaves + 1) / 2
        return round(min(max(part, 0.0), 1.0) * WIDTH, 1)

    return IntervalBar(
        low=place(low),
        high=WIDTH if high is None else place(high),
        value=None if shown is None else place(shown),
        margin=place(1 + margin),
        zero=place(1.0),
        is_open=high is None,
    )


# ---------------------------------------------------------------- segments


def heat_of(evidence: ComparisonView, rules: JudgeRules | None) -> HeatTable | None:
    """Return the table of segments; None if the endpoint declares none."""
    if not evidence.segments:
        return None
    judged = {
        v.metric
        for v in evidence.segments
        if v.ratio is not None or v.losses is not None or any(v.bad)
    }
    metrics = [v.metric for v in evidence.metrics if v.metric in judged]
    by_segment: dict[str, dict[str, MetricVerdict]] = {}
    for verdict in evidence.segments:
        by_segment.setdefault(verdict.segment, {})[verdict.metric] = verdict
    rows = sorted(
        (
            HeatRow(
                segment,
                tuple(cell_of(found.get(metric), rules, evidence.candidate) for metric in metrics),
                (
                    max(v.log_e for v in found.values()),
                    max(_size(v, rules) for v in found.values()),
                ),
            )
            for segment, found in by_segment.items()
        ),
        key=lambda row: (-row.worst[0], -row.worst[1], row.segment),
    )
    shown = rows[:SEGMENTS]
    titles = tuple(title_of(metric) for metric in metrics)
    arms = evidence.production, evidence.candidate
    hidden = count(len(rows) - len(shown), "segment") if len(rows) > len(shown) else ""
    if hidden and len(evidence.segments) >= VERDICTS_READ:
        hidden = f"at least {hidden}"
    return HeatTable(titles, tuple(shown), hidden, evidence.endpoint, arms)


def cell_of(verdict: MetricVerdict | None, rules: JudgeRules | None, judged: str) -> HeatCell:
    """Return the cell of one segment and metric."""
    if verdict is None:
        return HeatCell(text=NONE, tone="none", word="", detail="not counted")
    text = difference_of(verdict, judged)
    tone = _shade(verdict, rules)
    return HeatCell(text=text, tone=tone, word=WORDS[verdict.verdict], detail=verdict.reason)


def _size(verdict: MetricVerdict, rules: JudgeRules | None) -> float:
    """Return the difference in half octaves of the rate; a loss has two of them at its margin."""
    shown = shown_ratio(verdict).ratio
    if shown is None:
        return 0.0
    if verdict.losses is not None:
        rail = rules.rails.get(verdict.metric) if rules is not None else None
        return (shown - 1) / rail.shown * 2 if rail is not None and rail.shown else 0.0
    return log2(max(shown, 1e-3)) * 2


def _shade(verdict: MetricVerdict, rules: JudgeRules | None) -> str:
    """Return the shade: it grows with the evidence, so that noise of a few requests stays pale."""
    if verdict.verdict == "fail":
        return f"worse-{BANDS - 1}"
    size = _size(verdict, rules)
    if not size:
        return "even"
    worse = size > 0
    strength = min(int(abs(size)), BANDS - 1)
    if worse and exp(min(verdict.log_e, 50.0)) < 3 and not verdict.suspect:
        strength = min(strength, 1)
    return f"{'worse' if worse else 'better'}-{strength}"


def segment_title(evidence: ComparisonView, segment: str) -> str:
    """Return what is known of one segment in a line."""
    found = [v for v in evidence.segments if v.segment == segment]
    units = max((v.units for v in found), default=(0, 0))
    return f"{count(units[0], 'request')} of production, {units[1]:,} of the candidate"
