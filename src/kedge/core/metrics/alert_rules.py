"""Alert rules for Prometheus: the limits come from each endpoint's policy.

kedge sends its own alerts, and needs no Prometheus for them. These rules also see what kedge cannot
report: that control, or the whole machine, does not run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, Literal

from kedge.core.automation import EARLY, MIN_COVERAGE, guardrails
from kedge.core.metrics import definitions as of
from kedge.core.metrics.queries import increase, occurred, quantile, rate, selector
from kedge.core.time.durations import seconds
from kedge.core.values import Policy, Value

STALE_S = 180
"""Age of the samples from which control counts as stopped: it renews them every minute."""
KNOWN_FOR = "1d"
"""How long a site that cannot be scraped is remembered, in Prometheus's spelling."""
OWN_REFUSALS = ("bodies_full", "decoder_lost", "internal", "not_loaded", "queue_full", "stopping")
"""Codes of refusals for which the caller cannot be blamed: those with a status from 500 on."""
MOST_ERRORS = 0.01
"""Share of requests that production fails: a policy has only limits relative to production."""
TIMEOUT_PART = 0.5
"""Part of the time limit of an answer from which the slowest hundredth of requests is reported."""
OVERDUE = 1.5
"""Times the interval of drills after which one is overdue: a drill waits for a quiet moment."""
UNANSWERED_S = 900.0
"""How long a page waits for an acknowledgement if the escalation has no second level."""
ACT: Final = "page"
LOOK: Final = "warn"


class AlertRule(Value, frozen=True, kw_only=True):
    """One alert rule."""

    alert: str
    """Its name in Prometheus."""
    expr: str
    for_s: int
    """Seconds for which the condition holds before the alert fires."""
    severity: Literal["page", "warn"]
    endpoint: str = ""
    summary: str
    description: str
    """What to do."""


class RuleGroup(Value, frozen=True):
    """Rules that Prometheus evaluates together."""

    name: str
    rules: tuple[AlertRule, ...]


class AlertRules(Value, frozen=True):
    """All rules."""

    groups: tuple[RuleGroup, ...]


def make_rules(policies: Mapping[str, Policy]) -> AlertRules:
    """Return the rules for kedge itself and for each endpoint."""
    own = RuleGroup("kedge", tuple(_own()))
    each = (
        RuleGroup(f"kedge-{name}", tuple(_of_endpoint(name, policy)))
        for name, policy in sorted(policies.items())
    )
    return AlertRules((own, *each))


def _own() -> Iterator[AlertRule]:
    newest = f"max_over_time({selector(of.READ_AT)}[{KNOWN_FOR}])"
    yield AlertRule(
        alert="KedgeControlStopped",
        expr=(
            f"absent({newest}) or time() - {newest} > {STALE_S}"
            # Prometheus still has the target: a site that was removed from it does not page.
            " and on (job, instance) up"
        ),
        for_s=60,
        severity=ACT,
        summary="kedge's control process does not report",
        description="Callers are served, but no rollout is watched: kedge doctor",
    )
    yield AlertRule(
        alert="KedgeLedgerUnreadable",
        expr=f"{selector(of.LEDGER)} == 0",
        for_s=60,
        severity=ACT,
        summary="kedge cannot read its ledger",
        description="Commands fail; kedge rollback --local still works: kedge doctor",
    )
    yield AlertRule(
        alert="KedgeCountsUnreadable",
        expr=f"{selector(of.EVIDENCE)} == 0",
        for_s=300,
        severity=LOOK,
        summary="kedge cannot read the counts of its workers",
        description="Requests are served, and no rollout is judged: kedge doctor",
    )
    yield AlertRule(
        alert="KedgeProcessFaults",
        expr=occurred(of.FAULTS, "10m", "kind,place"),
        for_s=0,
        severity=LOOK,
        summary="{{ $labels.place }} of kedge's {{ $labels.kind }} failed and goes on",
        description="kedge status shows the fault",
    )


def _of_endpoint(name: str, policy: Policy) -> Iterator[AlertRule]:
    yield from _traffic(name, policy)
    yield from _replicas(name, policy)
    yield from _rollout(name, policy)
    yield from _practice(name, policy)


def _rule(
    alert: str,
    endpoint: str,
    expr: str,
    for_s: float,
    severity: Literal["page", "warn"],
    summary: str,
    description: str,
) -> AlertRule:
    return AlertRule(
        alert=alert,
        expr=expr,
        for_s=round(for_s),
        severity=severity,
        endpoint=endpoint,
        summary=f"{endpoint}: {summary}",
        description=description,
    )


def _traffic(name: str, policy: Policy) -> Iterator[AlertRule]:
    failed = rate(of.ERRORS, "5m", "endpoint", endpoint=name)
    answered = rate(of.REQUESTS, "5m", "endpoint", endpoint=name)
    codes = f"~{'|'.join(OWN_REFUSALS)}"
    own = rate(of.REFUSED, "5m", "endpoint", endpoint=name, code=codes)
    failed = f"({failed} + ({own} or 0 * {failed}))"
    yield _rule(
        "KedgeRequestsFail",
        name,
        f"{failed} / ({answered} + {failed}) > {MOST_ERRORS:g}",
        120,
        ACT,
        "more than 1 in 100 requests fail",
        f"kedge diagnose {name}; kedge rollback {name}",
    )
    # Above the last bound a quantile is not known: it is at most that bound.
    limit_s = min(policy.limits.timeout_ms / 1e3 * TIMEOUT_PART, of.MODEL_BOUNDS[-2])
    slowest = quantile(0.99, of.DURATION, "5m", "endpoint", endpoint=name, arm="production")
    yield _rule(
        "KedgeModelSlow",
        name,
        f"{slowest} > {limit_s:g}",
        300,
        LOOK,
        f"the slowest hundredth of answers takes more than {limit_s:g} s",
        f"production's limit is {policy.limits.timeout_ms} ms: kedge status {name}",
    )


def _replicas(name: str, policy: Policy) -> Iterator[AlertRule]:
    yield _rule(
        "KedgeNoReplica",
        name,
        f"sum by (endpoint) ({selector(of.REPLICAS, endpoint=name, state='!silent')}) == 0",
        60,
        ACT,
        "no gateway worker reports",
        "kedge up; kedge doctor",
    )
    for state in ("behind", "silent"):
        yield _rule(
            f"KedgeReplica{state.capitalize()}",
            name,
            f"{selector(of.REPLICAS, endpoint=name, state=state)} > 0",
            60,
            LOOK,
            f"a gateway worker is {state}",
            f"kedge status {name} names it",
        )
    yield _rule(
        "KedgeRollbackTargetCold",
        name,
        f"{selector(of.BACK, endpoint=name, state='cold')} > 0",
        300,
        LOOK,
        "a rollback would wait for a load",
        f"kedge check {name}",
    )
    yield _rule(
        "KedgeNotReady",
        name,
        f"{selector(of.READY, endpoint=name)} == 0",
        900,
        ACT if policy.readiness == "refuse" else LOOK,
        "a rollback might not work now",
        f"kedge check {name} lists the failing checks with their fixes",
    )


def _rollout(name: str, policy: Policy) -> Iterator[AlertRule]:
    for metric, rail in sorted(guardrails(policy).items()):
        if metric == EARLY or rail.worse_by <= 0:
            continue
        # A guardrail of latency has a row for each quantile, and one of losses has no ratio.
        found = selector(of.E_VALUE, endpoint=name, metric=f"~{metric}.*")
        fails_at = selector(of.E_THRESHOLD, endpoint=name)
        yield _rule(
            f"KedgeCandidateWorse{metric.title().replace('_', '')}",
            name,
            f"{found} >= on (job, instance, endpoint) group_left () {fails_at}",
            0,
            LOOK,
            f"{metric} of {{{{ $labels.release }}}} is proven worse than its margin of"
            f" {rail.worse_by:g}",
            f"kedge evidence {name}",
        )
    yield _rule(
        "KedgeVerdictFail",
        name,
        f"{selector(of.DECISION, endpoint=name, verdict='fail')} == 1",
        0,
        ACT,
        "{{ $labels.release }} is proven worse",
        f"kedge evidence {name}; kedge diagnose {name}",
    )
    yield _rule(
        "KedgeBrokenInput",
        name,
        f"{selector(of.DECISION, endpoint=name, verdict='broken_input')} == 1",
        600,
        LOOK,
        "the evidence of {{ $labels.release }} proves nothing",
        f"kedge evidence {name} names the broken input",
    )
    yield _rule(
        "KedgeShadowCoverage",
        name,
        f"{selector(of.COVERAGE, endpoint=name)} < {MIN_COVERAGE:g}",
        900,
        LOOK,
        "the shadow answers too few copies to pass",
        f"kedge status {name} lists the causes",
    )


def _practice(name: str, policy: Policy) -> Iterator[AlertRule]:
    yield _rule(
        "KedgeRolledBack",
        name,
        f"{increase(of.ROLLBACKS, '10m', 'endpoint,arm,cause', endpoint=name)} > 0",
        0,
        LOOK,
        "the {{ $labels.arm }} was rolled back ({{ $labels.cause }})",
        f"kedge history {name}",
    )
    wait_s = seconds(policy.escalation[1].after) if len(policy.escalation) > 1 else UNANSWERED_S
    yield _rule(
        "KedgePageUnacknowledged",
        name,
        f"{selector(of.ALERTS, endpoint=name, level='page', acknowledged='no')} > 0",
        wait_s,
        ACT,
        "a page has no acknowledgement",
        f"kedge alerts {name}; kedge ack NUMBER",
    )
    if policy.drill.every is not None:
        late_s = seconds(policy.drill.every) * OVERDUE
        yield _rule(
            "KedgeDrillOverdue",
            name,
            f"time() - {selector(of.DRILL_AT, endpoint=name)} > {round(late_s)}",
            600,
            LOOK,
            f"no drill succeeded for {OVERDUE:g} times its interval ({policy.drill.every})",
            f"kedge drill {name}",
        )
