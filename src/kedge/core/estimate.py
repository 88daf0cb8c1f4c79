"""Estimate of a rollout: its wait for the next step, if the candidate is not worse.

The estimate has one part for each condition of the policy that does not hold yet, and equals the
longest part. It does not predict a worse candidate, an alarm, or callers that stop sending
requests.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from kedge.core.automation import (
    COST,
    EARLY,
    EARLY_STEP,
    MIN_COVERAGE,
    MIN_REQUESTS,
    RARE,
    SILENT_S,
    Decision,
    PatrolFacts,
    guardrails,
    proofs,
    rules,
)
from kedge.core.evidence.forecast import ExpectedTraffic
from kedge.core.evidence.judge import Judge
from kedge.core.evidence.rules import QUALITY, Verdict
from kedge.core.evidence.step import span
from kedge.core.evidence.time_left import Callers, Row, get_row, needed_s
from kedge.core.evidence.verdicts import PROVABLE
from kedge.core.time.durations import seconds
from kedge.core.values import BUCKETS, Policy, Stage, State, Value

STALE_S = 60.0
"""Seconds without a request after which there is no rate for an estimate."""
Cause = Literal[
    "", "starting", "no_traffic", "no_labels", "few_callers", "beyond", "coverage", "unknown"
]
"""Why there is no number of seconds: none was counted yet since the start, no requests come, no outcome came, or too few callers exist
for a proof. Others: the time exceeds a month of this traffic, copies are missing, or the judge of
cost gives no number."""


class UnmetCondition(Value, frozen=True):
    """One condition that does not hold yet."""

    waits_for: str
    """A guardrail's metric, or `dwell`, `requests`, `pairs`, `coverage`, `window`, `segments`, `silence`."""
    seconds: float | None
    """None: `cause` says why there is no number."""
    cause: Cause = ""
    margin: float | None = None
    """For a guardrail: the margin that the candidate must stay within."""
    needed: float | None = None
    """Requests, pairs or seconds that are needed in total."""
    metric: str = ""
    """For quality: the metric that is judged."""


class RolloutEstimate(Value, frozen=True, kw_only=True):
    """The time until the rollout can continue."""

    seconds: float | None
    """Seconds of the longest part; None: a part without a number prevents an end."""
    waits_for: str
    """The part that takes longest, or that has no number."""
    cause: Cause = ""
    at_least: bool = False
    """Whether another part has no estimate."""
    rate: float
    """Requests a second of both releases together; in a shadow, those that both answered."""
    parts: tuple[UnmetCondition, ...] = ()

    @property
    def part(self) -> UnmetCondition:
        """The part that takes longest."""
        return next(part for part in self.parts if part.waits_for == self.waits_for)


def estimate(
    state: State,
    decision: Decision,
    facts: PatrolFacts,
    judge: Judge,
    past: tuple[int, int] = (0, 0),
) -> RolloutEstimate | None:
    """Return how long a rollout still waits; None if it waits for nothing that time brings.

    Args:
        state: the row.
        decision: the policy's decision on the row.
        facts: the facts of that decision.
        judge: the judge of the same comparison.
        past: production's earlier failures and requests, as `kedge plan` counts them.
    """
    if state.stage not in (Stage.CANARY, Stage.SHADOW) or decision.code != "waiting":
        return None
    asked = facts.requests if state.stage is Stage.CANARY else (0, facts.pairs)
    rate = sum(asked) / max(facts.step_s, 1.0)
    stale = facts.stale_s > STALE_S or rate <= 0
    found = [part for part in _parts(state, facts, judge, past) if part.seconds != 0]
    if stale:
        # Workers count once a second, and the patrol reads that: a new step has no count at first.
        dry: Cause = "starting" if rate <= 0 and facts.since_s <= STALE_S else "no_traffic"
        found = [_dry(part, dry) for part in found]
    if not found:
        return None
    known = [part for part in found if part.seconds is not None]
    lost = [part for part in found if part.seconds is None and part.cause != "unknown"]
    longest = max(known, key=lambda part: part.seconds or 0.0) if known else found[0]
    chosen = lost[0] if lost else longest
    return RolloutEstimate(
        seconds=chosen.seconds,
        waits_for=chosen.waits_for,
        cause=chosen.cause,
        at_least=chosen.seconds is not None and len(known) < len(found),
        rate=rate,
        parts=tuple(found),
    )


def _dry(part: UnmetCondition, cause: Cause) -> UnmetCondition:
    """Return a part as it is while no requests come: only a dwell ends by itself."""
    if part.waits_for == "dwell" or part.cause == "unknown":
        return part
    return msgspec.structs.replace(part, seconds=None, cause=cause)


def _parts(
    state: State, facts: PatrolFacts, judge: Judge, past: tuple[int, int]
) -> list[UnmetCondition]:
    step_s = max(facts.step_s, 1.0)
    if state.stage is Stage.SHADOW:
        found = _window(state, facts, facts.pairs / step_s)
    else:
        dwell, least = seconds(state.policy.canary.dwell), min(facts.requests)
        found = [
            UnmetCondition("dwell", max(dwell - facts.step_s, 0.0), needed=dwell),
            _count("requests", MIN_REQUESTS, least, least / step_s),
        ]
    of = {verdict.metric: verdict for verdict in facts.verdicts if not verdict.segment}
    metric = guardrails(state.policy)[QUALITY].metric or ""
    proven = [
        msgspec.structs.replace(part, metric=metric) if part.waits_for == QUALITY else part
        for part in (_proof(name, of.get(name), facts, judge, past) for name in proofs(state))
    ]
    return found + _silent(state, facts, proven, of)


def _silent(
    state: State, facts: PatrolFacts, found: list[UnmetCondition], of: dict[str, Verdict]
) -> list[UnmetCondition]:
    """Return the parts of a small step: with few callers it ends after an hour without an alarm."""
    few = any(part.seconds is None or part.seconds > SILENT_S for part in found)
    by_callers = any(v.callers for v in of.values()) and 0 < facts.callers[1] < PROVABLE
    left = max(SILENT_S - facts.step_s, 0.0)
    if state.stage is not Stage.CANARY or state.weight > EARLY_STEP or not few or not by_callers:
        return found
    return [UnmetCondition("silence", left, needed=SILENT_S)]


def _window(state: State, facts: PatrolFacts, rate: float) -> list[UnmetCondition]:
    """Return the conditions that a shadow's window still lacks."""
    policy = state.policy.shadow
    covered = facts.copied / facts.mirrored if facts.mirrored else 0.0
    window = seconds(policy.window)
    found = [
        _count("pairs", policy.min_pairs, facts.pairs, rate),
        UnmetCondition("window", max(window - facts.healthy_s, 0.0), needed=window),
    ]
    if facts.mirrored and covered < MIN_COVERAGE:
        found.append(UnmetCondition("coverage", None, "coverage", needed=MIN_COVERAGE))
    lacking = [
        _count("segments", policy.min_pairs_per_segment, n, n / max(facts.step_s, 1.0))
        for n in facts.segments.values()
        if RARE * facts.pairs <= n < policy.min_pairs_per_segment
    ]
    if lacking:
        found.append(max(lacking, key=lambda part: part.seconds or 0.0))
    return found


def _count(name: str, needed: int, have: int, rate: float) -> UnmetCondition:
    """Return the time until this many have come."""
    if have >= needed:
        return UnmetCondition(name, 0.0, needed=needed)
    if rate <= 0:
        return UnmetCondition(name, None, "no_traffic", needed=needed)
    return UnmetCondition(name, (needed - have) / rate, needed=needed)


def _proof(
    name: str, verdict: Verdict | None, facts: PatrolFacts, judge: Judge, past: tuple[int, int]
) -> UnmetCondition:
    """Return the time until a guardrail is proven."""
    if name == COST:
        passes = verdict is not None and verdict.verdict == "pass"
        return UnmetCondition(name, 0.0) if passes else UnmetCondition(name, None, "unknown")
    rail, asked = judge.rules.rails[name], judge.rules
    if verdict is not None and verdict.verdict == "pass":
        return UnmetCondition(name, 0.0, margin=rail.shown)
    row = get_row(judge, name, facts.requests, past)
    if row is None:
        return UnmetCondition(
            name, None, "no_labels" if name == QUALITY else "no_traffic", rail.shown
        )
    took = needed_s(row, rail, asked.alpha, asked.callers_floor)
    if took is None:
        few = verdict is not None and not verdict.provable
        return UnmetCondition(name, None, "few_callers" if few else "beyond", rail.shown)
    if name == QUALITY and verdict is not None and verdict.units[1] < asked.min_units:
        rate = verdict.units[1] / max(row.elapsed, 1.0)
        took = max(took, (asked.min_units - verdict.units[1]) / rate if rate else took)
    return UnmetCondition(name, took, margin=rail.shown)


def proven_after(policy: Policy, traffic: ExpectedTraffic, weight: int) -> float | None:
    """Return the seconds until a canary step passes a candidate that fails as often as production.

    Only errors are considered, as in `kedge plan`. None: not within a month.

    Args:
        policy: of the endpoint.
        traffic: of the endpoint.
        weight: the step's share in buckets.
    """
    asked = rules(policy, paired=False)
    early, share = weight <= EARLY_STEP, weight / BUCKETS
    known = traffic.callers
    callers = None if known is None else Callers(known, traffic.rate / max(known, 1))
    row = Row(
        span=span(weight, [step for step in asked.steps if step < weight], paired=False),
        rate=0.0 if callers else traffic.rate,
        bad=traffic.errors,
        callers=callers,
    )
    took = needed_s(
        row, asked.rails[EARLY if early else "errors"], asked.alpha, asked.callers_floor
    )
    if early and known is not None and known * share < PROVABLE:
        took = min(SILENT_S if took is None else took, SILENT_S)
    if took is None:
        return None
    smaller = traffic.rate * min(share, 1 - share)
    return max(took, seconds(policy.canary.dwell), MIN_REQUESTS / smaller if smaller else 0.0)
