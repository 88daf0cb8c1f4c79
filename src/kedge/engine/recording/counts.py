"""Counts of several replicas, added up: requests answered, refused, mirrored and failed over."""

from __future__ import annotations

from collections.abc import Sequence

from kedge.core.stored.roster import Tally
from kedge.core.values import Value
from kedge.engine.recording.recorder import UNASKED, quantile_us


class ArmLatency(Value, frozen=True):
    """Durations of an arm's answers in microseconds: upper bounds, at most 12.5 % too high."""

    p50: int | None
    """Null: no observation."""
    p99: int | None
    n: int
    """Observations."""


class ShadowCounts(Value, frozen=True, kw_only=True):
    """The results of the copies of requests for a shadow."""

    requests: int
    """Copies to be sent."""
    answered: int
    pairs: int
    """Rows that both answered."""
    agreeing: int
    agreement: float | None
    """Share of pairs, 0 to 1; null: no pair."""
    coverage: float | None
    """Share of copies that were answered, 0 to 1; null: no copy."""
    dropped: int
    """Copies that the candidate was never asked, or could not answer."""
    dropped_by_cause: dict[str, int]
    late: int
    """Copies that were answered after their deadline; they are also in `answered`."""
    timed_out: int
    """Copies without an answer in time."""
    failed: int
    """Failed copies, without those that timed out."""
    failed_by_cause: dict[str, int]


class CanaryCounts(Value, frozen=True):
    """The results of the requests that a canary was to answer."""

    requests: int
    failovers: int
    """Requests that production answered instead."""
    unasked: int
    """Failovers in which the candidate was never asked."""


class CountSummary(Value, frozen=True, kw_only=True):
    """All counts of replicas for an endpoint's comparison."""

    requests: dict[str, int]
    """Answered requests by the arm that answered, without those of testers."""
    rows: dict[str, int]
    """Their rows, by arm."""
    keyless: int
    """Answered requests without an entity."""
    asked: int
    """Answered requests of testers, who named a release."""
    errors: dict[str, int]
    """By arm: requests that failed because the release had no other behind it."""
    refused: dict[str, int]
    """By error code."""
    violations: dict[str, dict[str, int]]
    """By arm and feature: values out of range or unseen."""
    failovers: int
    """Requests of a canary that production answered instead."""
    failovers_by_cause: dict[str, int]
    latency_us: dict[str, ArmLatency]
    """By arm."""
    shadow: ShadowCounts
    canary: CanaryCounts


def summary(tallies: Sequence[Tally]) -> CountSummary:
    """Add up the tallies of several replicas into what `status` shows."""
    counts: dict[str, int] = {}
    latency: dict[str, dict[int, int]] = {}
    for tally in tallies:
        for name, number in tally.counts.items():
            counts[name] = counts.get(name, 0) + number
        for arm, bins in tally.latency.items():
            into = latency.setdefault(arm, {})
            for index, number in bins.items():
                into[index] = into.get(index, 0) + number
    failovers = _group(counts, "failover.")
    return CountSummary(
        requests=_group(counts, "requests."),
        rows=_group(counts, "rows."),
        keyless=counts.get("keyless", 0),
        asked=counts.get("asked", 0),
        errors=_group(counts, "errors."),
        refused=_group(counts, "refused."),
        violations={
            arm: _group(counts, f"violations.{arm}.") for arm in ("production", "candidate")
        },
        failovers=sum(failovers.values()),
        failovers_by_cause=failovers,
        latency_us={
            arm: ArmLatency(quantile_us(b, 0.5), quantile_us(b, 0.99), sum(b.values()))
            for arm, b in sorted(latency.items())
        },
        shadow=_shadow(counts),
        canary=CanaryCounts(
            requests=counts.get("requests.candidate", 0) + sum(failovers.values()),
            failovers=sum(failovers.values()),
            unasked=sum(failovers.get(cause, 0) for cause in UNASKED),
        ),
    )


def _group(counts: dict[str, int], prefix: str) -> dict[str, int]:
    return {k.removeprefix(prefix): v for k, v in sorted(counts.items()) if k.startswith(prefix)}


def _shadow(counts: dict[str, int]) -> ShadowCounts:
    dropped, failed = _group(counts, "shadow.dropped."), _group(counts, "shadow.failed.")
    mirrored = counts.get("shadow.requests", 0)
    answered = counts.get("shadow.answered", 0)
    pairs = counts.get("shadow.pairs", 0)
    agreeing = counts.get("shadow.agreeing", 0)
    return ShadowCounts(
        requests=mirrored,
        answered=answered,
        pairs=pairs,
        agreeing=agreeing,
        agreement=agreeing / pairs if pairs else None,
        coverage=answered / mirrored if mirrored else None,
        dropped=sum(dropped.values()),
        dropped_by_cause=dropped,
        late=counts.get("shadow.late", 0),
        timed_out=failed.get("model_late", 0),
        failed=sum(failed.values()) - failed.get("model_late", 0),
        failed_by_cause=failed,
    )
