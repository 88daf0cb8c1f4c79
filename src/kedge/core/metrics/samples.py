"""Samples of the exported metrics: values in, samples by metric out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from math import exp
from typing import get_args

from kedge.core.evidence.rules import QUALITY, Verdict, Word
from kedge.core.metrics import definitions as of
from kedge.core.metrics.definitions import METRICS, MODEL_BOUNDS, MOST_SEGMENTS, OTHER, Metric
from kedge.core.metrics.history import Durations, HistoryTotals
from kedge.core.metrics.readings import EndpointReading, EvidenceReading, SiteReading
from kedge.core.metrics.totals import COUNTED, SUM, Series
from kedge.core.stored.roster import Member
from kedge.core.values import BUCKETS, Stage, State, Value

LARGEST = 700.0
"""Largest logarithm that is exported: its exponential is still a number."""
WORDS: tuple[str, ...] = get_args(Word)


class MetricSample(Value, frozen=True):
    """One sample. The labels are in the order of its metric."""

    labels: tuple[str, ...]
    value: float | Durations


class MetricFamily(Value, frozen=True):
    """A metric with its samples."""

    metric: Metric
    samples: tuple[MetricSample, ...]


class _Rows:
    """Samples while they are collected."""

    def __init__(self) -> None:
        self._found: dict[str, dict[tuple[str, ...], float | Durations]] = {}

    def put(self, metric: Metric, value: float | Durations, *labels: str) -> None:
        """Add a sample; a later one with the same labels replaces it."""
        assert len(labels) == len(metric.labels), metric.name
        self._found.setdefault(metric.name, {})[labels] = value

    def families(self) -> tuple[MetricFamily, ...]:
        """Return the metrics that have samples, in the order of the table."""
        return tuple(
            MetricFamily(
                metric, tuple(MetricSample(k, v) for k, v in self._found[metric.name].items())
            )
            for metric in METRICS
            if metric.name in self._found
        )


def build(
    site: SiteReading,
    series: Mapping[Series, int],
    upper_us: Callable[[int], int],
    *,
    segments: bool,
) -> tuple[MetricFamily, ...]:
    """Return the samples of everything.

    Args:
        site: what was read.
        series: the totals of what workers and processes counted.
        upper_us: returns the largest microseconds of a bin of latency.
        segments: whether segments are named; their values can identify customers.
    """
    rows = _Rows()
    for one in site.endpoints:
        _row(rows, one)
        _replicas(rows, one.state, site.members, site.silent)
        _history(rows, one.state.endpoint, one.history)
        _alerts(rows, one)
        if one.evidence is not None:
            _evidence(rows, one.state.endpoint, one.evidence, site.at, segments=segments)
    _counted(rows, series, upper_us)
    for kind, number in Counter(member.kind for member in site.members).items():
        rows.put(of.PROCESSES, number, kind)
    rows.put(of.BUILD, 1, site.version)
    rows.put(of.LEDGER, float(site.ledger))
    rows.put(of.EVIDENCE, float(site.evidence))
    rows.put(of.READ_AT, site.at)
    return rows.families()


def _row(rows: _Rows, one: EndpointReading) -> None:
    state, name = one.state, one.state.endpoint
    for stage in Stage:
        rows.put(of.STAGE, float(stage is state.stage), name, stage.value)
    rows.put(of.EPOCH, state.epoch, name)
    rows.put(of.PAUSED, float(state.paused), name)
    rows.put(of.FROZEN, float(state.automation.frozen), name)
    rows.put(of.STEP, one.step[0], name)
    rows.put(of.STEPS, one.step[1], name)
    for arm, number, share in _live(state):
        release = f"r{number}"
        rows.put(of.WEIGHT, share / BUCKETS, name, release, arm)
        known = state.releases.get(number)
        version = f"v{known.version}" if known is not None else ""
        rows.put(of.RELEASE_INFO, 1, name, release, arm, version)
    if one.failed is not None:
        rows.put(of.READY, float(not one.failed), name)
        for check in one.failed:
            rows.put(of.UNREADY, 1, name, check)
    copies = one.copies
    if copies is not None and state.mirrored is not None:
        release = f"r{state.mirrored[0]}"
        if copies.requests:
            rows.put(of.COVERAGE, copies.answered / copies.requests, name, release)
        if copies.pairs:
            rows.put(of.AGREEMENT, copies.agreeing / copies.pairs, name, release)


def _live(state: State) -> Iterable[tuple[str, int, int]]:
    """Yield each release that answers callers or a copy: arm, number, and share in buckets."""
    theirs = state.weight if state.stage is Stage.CANARY else 0
    held = state.holdback if state.held is not None else 0
    if state.production is not None:
        yield "production", state.production, BUCKETS - theirs - held
    if state.candidate is not None:
        yield "candidate", state.candidate, theirs
    if state.held is not None:
        yield "previous", state.held, held


def _replicas(
    rows: _Rows, state: State, members: tuple[Member, ...], silent: Collection[str]
) -> None:
    name = state.endpoint
    found = dict.fromkeys(("acknowledged", "behind", "silent", "pinned"), 0)
    ready = known = 0
    for member in members:
        if member.kind != "gateway":
            continue
        current = member.epochs.get(name, -1) >= state.epoch
        found[
            "silent"
            if member.name in silent
            else "pinned"
            if name in member.pinned
            else "acknowledged"
            if current
            else "behind"
        ] += 1
        wanted = [h for h in member.holds if h.endpoint == name and h.release == state.back]
        ready += any(hold.state == "ready" for hold in wanted)
        known += 1
    for word, number in found.items():
        rows.put(of.REPLICAS, number, name, word)
    if state.back is not None:
        rows.put(of.BACK, ready, name, f"r{state.back}", "ready")
        rows.put(of.BACK, known - ready, name, f"r{state.back}", "cold")


def _history(rows: _Rows, name: str, known: HistoryTotals) -> None:
    for status, number in known.rollouts.items():
        rows.put(of.ROLLOUTS, number, name, status)
    for (arm, cause), number in known.rollbacks.items():
        rows.put(of.ROLLBACKS, number, name, arm, cause)
    for phase, taken in known.phases.items():
        rows.put(of.ROLLBACK_DURATION, taken, name, phase)
    for result, number in known.drills.items():
        rows.put(of.DRILLS, number, name, result)
    if known.drill_at is not None:
        rows.put(of.DRILL_AT, known.drill_at, name)
    if known.drill.counts[-1]:
        rows.put(of.DRILL_DURATION, known.drill, name)
    for level, number in known.alerts.items():
        rows.put(of.ALERTS_OPENED, number, name, level)


def _alerts(rows: _Rows, one: EndpointReading) -> None:
    found = Counter((alert.level, bool(alert.acknowledged_at)) for alert in one.alerts)
    for level in ("warn", "page"):
        for known in (False, True):
            number = found.get((level, known), 0)
            rows.put(of.ALERTS, number, one.state.endpoint, level, "yes" if known else "no")


# ---------------------------------------------------------------- evidence


def _evidence(rows: _Rows, name: str, found: EvidenceReading, at: float, *, segments: bool) -> None:
    releases = [f"r{number}" for number in found.judged]
    judged = releases[1]
    for word in WORDS:
        rows.put(of.DECISION, float(word == found.decision), name, judged, _spelled(word))
    rows.put(of.E_THRESHOLD, found.threshold, name)
    for metric, margin in found.margins.items():
        rows.put(of.MARGIN, margin, name, metric)
    for verdict in found.verdicts:
        if not verdict.segment:
            _whole(rows, name, judged, verdict)
    if found.window_s is not None:
        rows.put(of.HEALTHY, found.healthy_s, name)
        rows.put(of.HEALTHY_NEEDED, found.window_s, name)
    if found.newest is not None:
        rows.put(of.EVIDENCE_AGE, max(at - found.newest, 0.0), name)
    _labels(rows, name, found, releases)
    _segments(rows, name, found, releases, named=segments)


def _whole(rows: _Rows, name: str, release: str, verdict: Verdict) -> None:
    metric = verdict.metric
    rows.put(of.E_VALUE, exp(min(verdict.log_e, LARGEST)), name, release, metric)
    compared, estimate = of.RATE_RATIO, verdict.ratio
    if estimate is None:  # of losses, the interval is that of the difference
        compared, estimate = of.DIFFERENCE, verdict.difference
    if estimate is not None:
        _bounds(rows, compared, estimate, verdict.interval, (name, release, metric))
    if verdict.loss_ratio is not None:
        labels = name, release, metric
        _bounds(rows, of.LOSS_RATIO, verdict.loss_ratio, verdict.loss_interval, labels)


def _bounds(
    rows: _Rows,
    compared: of.Metric,
    estimate: float,
    interval: tuple[float, float | None] | None,
    labels: tuple[str, str, str],
) -> None:
    lower, upper = interval or (None, None)
    for bound, value in (("estimate", estimate), ("lower", lower), ("upper", upper)):
        if value is not None:
            rows.put(compared, value, *labels, bound)


def _labels(rows: _Rows, name: str, found: EvidenceReading, releases: list[str]) -> None:
    labels = found.labels
    arms = zip(found.arms, found.log_arms, strict=True)
    for release, (arm, logged), units, figure in zip(
        releases, arms, labels.units, labels.figures, strict=True
    ):
        rows.put(of.LABELS, units, name, release, arm)
        if figure is not None:
            rows.put(of.QUALITY, figure, name, release, arm, labels.metric)
        labelled, every = labels.coverage.get(logged, (0, 0))
        if every:
            rows.put(of.LABEL_COVERAGE, labelled / every, name, release, arm)
    for percentile, delay in (("50", labels.delay_s.p50), ("95", labels.delay_s.p95)):
        if delay is not None:
            rows.put(of.LABEL_DELAY, delay, name, percentile)


def _segments(
    rows: _Rows, name: str, found: EvidenceReading, releases: list[str], *, named: bool
) -> None:
    """Put units, bad units and verdicts by segment; the whole has an empty segment."""
    own = _largest(found.verdicts) if named else frozenset()
    units: Counter[tuple[int, str, str]] = Counter()
    bad: Counter[tuple[int, str, str]] = Counter()
    words: Counter[tuple[str, str, str]] = Counter()
    for verdict in found.verdicts:
        segment = verdict.segment
        if segment and not named:
            continue
        if segment and segment not in own:
            segment = OTHER
        # Of other losses than this one, no label is right or wrong.
        counts = verdict.metric != QUALITY or found.labels.metric == "error_rate"
        for arm in (0, 1):
            units[arm, verdict.metric, segment] += verdict.units[arm]
            if counts:
                bad[arm, verdict.metric, segment] += verdict.bad[arm]
        words[verdict.metric, segment, verdict.verdict] += 1
    for metric, counted in ((of.UNITS, units), (of.BAD_UNITS, bad)):
        for (arm, guarded, segment), number in counted.items():
            rows.put(metric, number, name, releases[arm], found.arms[arm], guarded, segment)
    for (guarded, segment, word), number in words.items():
        rows.put(of.VERDICTS, number, name, releases[1], guarded, segment, _spelled(word))


def _largest(verdicts: Iterable[Verdict]) -> frozenset[str]:
    """Return the segments with the most units, in any metric."""
    sizes: dict[str, int] = {}
    for verdict in verdicts:
        if verdict.segment:
            size = sum(verdict.units)
            sizes[verdict.segment] = max(size, sizes.get(verdict.segment, 0))
    ranked = sorted(sizes, key=lambda one: (-sizes[one], one))
    return frozenset(ranked[:MOST_SEGMENTS])


def _spelled(word: str) -> str:
    return word.replace(" ", "_")


# ---------------------------------------------------------------- counts

_COUNTERS = {metric.name: metric for metric in METRICS}


def _counted(rows: _Rows, series: Mapping[Series, int], upper_us: Callable[[int], int]) -> None:
    bins: dict[tuple[str, ...], dict[int, int]] = {}
    sums: dict[tuple[str, ...], int] = {}
    for one, number in series.items():
        if one.bin == COUNTED:
            rows.put(_COUNTERS[one.metric], number, *one.labels)
        elif one.bin == SUM:
            sums[one.labels] = number
        else:
            bins.setdefault(one.labels, {})[one.bin] = number
    for labels, counts in bins.items():
        rows.put(of.DURATION, _histogram(counts, sums.get(labels, 0), upper_us), *labels)


def _histogram(bins: Mapping[int, int], total_us: int, upper_us: Callable[[int], int]) -> Durations:
    """Return bins of whole microseconds as a histogram of seconds.

    A bin ends below its largest value plus one, which is where a bound is.
    """
    ends = [(upper_us(index) + 1) / 1e6 for index in bins]
    counts = list(bins.values())
    below = [
        sum(number for end, number in zip(ends, counts, strict=True) if end <= bound + 1e-12)
        for bound in MODEL_BOUNDS
    ]
    return Durations((*below, sum(counts)), total_us / 1e6)
