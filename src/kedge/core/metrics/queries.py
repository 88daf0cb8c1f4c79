"""Queries of Prometheus, built from the table of metrics: a query names no metric of its own."""

from __future__ import annotations

import json
import re

from kedge.core.metrics.definitions import READ_AT, Metric, MetricKind

NAME = re.compile(r"\bkedge_[a-z_]+")


def selector(metric: Metric, suffix: str = "", /, **labels: str) -> str:
    """Return a selector of a metric's series.

    Args:
        metric: a metric of the table.
        suffix: `_bucket`, `_count` or `_sum` of a histogram.
        labels: values that labels have; one that begins with `~` is a regular expression, and one
            that begins with `!` is excluded.
    """
    assert bool(suffix) == (metric.kind is MetricKind.HISTOGRAM), metric.name
    unknown = set(labels) - set(metric.labels)
    assert not unknown, f"{metric.name} has no label {unknown}"
    matchers = ",".join(f"{name}{_matcher(value)}" for name, value in labels.items())
    return f"{metric.name}{suffix}" + (f"{{{matchers}}}" if matchers else "")


def _matcher(value: str) -> str:
    if value.startswith("~"):
        return f"=~{json.dumps(value[1:])}"
    if value.startswith("!"):
        return f"!={json.dumps(value[1:])}"
    return f"={json.dumps(value)}"


def rate(metric: Metric, window: str, by: str, /, **labels: str) -> str:
    """Return a counter's increase a second, summed by some labels."""
    assert metric.kind is MetricKind.COUNTER, metric.name
    return f"sum by ({by}) (rate({selector(metric, **labels)}[{window}]))"


def increase(metric: Metric, window: str, by: str, /, **labels: str) -> str:
    """Return a counter's increase in a window, summed by some labels."""
    assert metric.kind is MetricKind.COUNTER, metric.name
    return f"sum by ({by}) (increase({selector(metric, **labels)}[{window}]))"


def occurred(metric: Metric, window: str, by: str, /, **labels: str) -> str:
    """Return a condition: a counter grew in a window, or its series began there.

    `increase` does not see the first value of a series, so that it misses an event whose labels are
    new. A scrape at the begin of the window tells such a series from one that was not scraped yet.
    """
    found = selector(metric, **labels)
    before = f"sum by ({by}) ({found} offset {window})"
    began = f"sum by ({by}) ({found}) > 0 unless {before}"
    scraped = f"{selector(READ_AT)} offset {window}"
    return f"{increase(metric, window, by, **labels)} > 0 or {began} and on () {scraped}"


def quantile(q: float, metric: Metric, window: str, by: str, /, **labels: str) -> str:
    """Return a quantile of a histogram in a window, by some labels."""
    counted = f"rate({selector(metric, '_bucket', **labels)}[{window}])"
    return f"histogram_quantile({q:g}, sum by (le,{by}) ({counted}))"


def named(text: str) -> frozenset[str]:
    """Return the names of kedge's metrics in a query."""
    return frozenset(NAME.findall(text))
