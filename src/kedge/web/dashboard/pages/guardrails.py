"""Guardrails of a comparison: a tile for each metric, and the table of segments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import exp, log2

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
"""The bar shows ratios from a quarter to four times."""
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


def is_loss(one: MetricVerdict) -> bool:
    """Return whether a metric is a mean loss, which is compared by its difference."""
    return one.difference is not None and one.ratio is None


def _tile(
    one: MetricVerdict, rules: JudgeRules | None, line: CourseLine | None, evidence: ComparisonView
) -> GuardrailTile:
    rail = rules.rails.get(one.metric) if rules is not None else None
    margin = rail.shown if rail is not None else None
    losses = is_loss(one)
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
        margin=NONE if margin is None else f"{margin:+.3g}" if losses else ratio(1 + margin),
        bar=_bar(one, margin),
        line=line,
    )


def _figures(one: MetricVerdict, evidence: ComparisonView) -> tuple[str, str]:
    """Return the figure of each release: its declared loss, its cost, or its share of bad units."""
    if one.metric == COST:
        spent = evidence.cost
        ours, theirs = spent.per_inference if spent is not None else (None, None)
        unit = f" {spent.currency}" if spent is not None else ""
    elif is_loss(one):
        (ours, theirs), unit = evidence.labels.figures, ""
    else:
        return _rate(one, 0), _rate(one, 1)
    return _number(ours, unit), _number(theirs, unit)


def _number(value: float | None, unit: str) -> str:
    return NONE if value is None else f"{value:.4g}{unit}"


def _rate(one: MetricVerdict, arm: int) -> str:
    return share(one.bad[arm] / one.units[arm]) if one.units[arm] else NONE


def difference_of(one: MetricVerdict, judged: str) -> str:
    """Return the difference of the judged release to the measure, as text."""
    if is_loss(one):
        return f"{one.difference:+.3g}"
    if one.ratio is None and any(one.units) and not any(one.bad):
        return "none on either"
    if one.ratio is None and one.bad[1] and not one.bad[0]:
        return f"only on {judged}"
    return ratio(one.ratio)


def _interval(one: MetricVerdict) -> str:
    if one.interval is None:
        return "" if one.verdict == "pass" else "no interval yet"
    low, high = one.interval
    if one.ratio is None and one.difference is None:
        return "no interval yet" if high is None else f"at most {ratio(high)}"
    if is_loss(one):
        return f"{low:+.3g} to {high:+.3g}" if high is not None else f"from {low:+.3g}"
    return f"{ratio(low)} to {ratio(high)}" if high is not None else f"from {ratio(low)}"


def _bar(one: MetricVerdict, margin: float | None) -> IntervalBar | None:
    """Return the bar of an interval: ratios on a logarithmic scale, differences on a linear one."""
    if one.interval is None or margin is None:
        return None
    low, high = one.interval
    if one.ratio is None and one.difference is None and high is None:
        return None
    if is_loss(one) and one.difference is not None:
        reach = max(margin * 3, abs(low), abs(high or 0.0), 1e-9)
        place: Callable[[float], float] = partial(_on_line, reach)
        value: float | None
        value, limit, zero = one.difference, margin, 0.0
    else:
        place = _on_octaves
        value, limit, zero = one.ratio, 1 + margin, 1.0
    return IntervalBar(
        low=_within(place(low)),
        high=WIDTH if high is None else _within(place(high)),
        value=None if value is None else _within(place(value)),
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


def heat_of(evidence: ComparisonView, rules: JudgeRules | None) -> HeatTable | None:
    """Return the table of segments; None if the endpoint declares none."""
    if not evidence.segments:
        return None
    judged = {
        v.metric
        for v in evidence.segments
        if v.ratio is not None or v.difference is not None or any(v.bad)
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
    if is_loss(verdict) and verdict.difference is not None:
        rail = rules.rails.get(verdict.metric) if rules is not None else None
        return verdict.difference / rail.shown * 2 if rail is not None and rail.shown else 0.0
    return log2(max(verdict.ratio, 1e-3)) * 2 if verdict.ratio is not None else 0.0


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
