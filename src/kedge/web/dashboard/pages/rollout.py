"""Rollout of a candidate: its steps, the healthy window, the estimate, and the e-value's path."""

from __future__ import annotations

from math import exp

from kedge.core.estimate import RolloutEstimate, UnmetCondition
from kedge.core.values import Stage, Value
from kedge.operations.evidence.view import ComparisonView
from kedge.web.dashboard.pages.charts import ChartView
from kedge.web.dashboard.pages.fleet import VERDICTS
from kedge.web.dashboard.pages.marks import marks_of
from kedge.web.dashboard.pages.quantities import count, percent, rate, share, span
from kedge.web.dashboard.pages.readings import PageReading
from kedge.web.dashboard.pages.way_back import name

WAITS = {
    "dwell": "the step's least time",
    "requests": "enough requests of each release",
    "pairs": "enough compared answers",
    "window": "the shadow's healthy window",
    "segments": "enough compared answers in each segment",
    "silence": "an hour without an alarm",
    "coverage": "copies that are answered",
    "errors": "proof that errors are not worse",
    "errors.doubled": "proof that errors are not doubled",
    "latency.p50": "proof that slow answers are not more frequent (p50)",
    "latency.p99": "proof that slow answers are not more frequent (p99)",
    "violations": "proof that values out of range are not more frequent",
    "quality": "proof that quality is not worse",
    "cost": "proof that an inference is not dearer",
}
"""What a rollout waits for, in words."""
LEAST_E = 1e-6
"""Smallest e-value on a chart: how small it is says nothing more."""
CAUSES = {
    "": "",
    "starting": "the first requests are being counted",
    "no_traffic": "no requests come",
    "no_labels": "no outcome came yet",
    "few_callers": "too few callers for a proof; promote by hand",
    "beyond": "not within a month of this traffic",
    "coverage": "too many copies go without an answer",
    "unknown": "no estimate",
}


class StepMark(Value, frozen=True):
    """One step of a canary."""

    label: str
    state: str
    """done, now or next."""
    word: str
    """The state in words."""


class WaitLine(Value, frozen=True):
    """One condition that does not hold yet."""

    what: str
    left: str


class EvidenceMeter(Value, frozen=True, kw_only=True):
    """The e-value on the way to its threshold."""

    e: str
    threshold: str
    part: float
    """How far it is, from 0 to 1, on a logarithmic scale."""
    chart: ChartView
    """The e-value since the comparison began, with its threshold."""
    alpha: str
    where: str
    """The metric and segment that add most."""


class RolloutView(Value, frozen=True, kw_only=True):
    """A rollout under way, or the comparison after a promotion."""

    heading: str
    tone: str
    verdict: str
    reason: str
    steps: tuple[StepMark, ...]
    window_part: float | None
    """Share of the healthy window that has passed; None: no shadow."""
    window: str
    estimate: str
    waits: tuple[WaitLine, ...]
    auto: bool
    path: EvidenceMeter
    requests: str
    restarted: str
    coverage: str
    agreement: str
    labels: str
    cost: str


def rollout_of(reading: PageReading) -> RolloutView | None:
    """Return the view of a comparison; None if nothing is compared."""
    evidence = reading.evidence
    if evidence is None:
        return None
    tone, words = VERDICTS[evidence.decision.verdict]
    return RolloutView(
        heading=_heading(reading, evidence),
        tone=tone,
        verdict=words,
        reason=evidence.decision.reason,
        steps=_steps(reading, evidence),
        window_part=_window_part(reading, evidence),
        window=f"{span(evidence.healthy_s)} of {span(reading.shadow_window_s)}",
        estimate=estimate_text(evidence.estimate),
        waits=tuple(
            WaitLine(WAITS.get(part.waits_for, part.waits_for), _left(part))
            for part in (evidence.estimate.parts if evidence.estimate else ())
        ),
        auto=evidence.auto,
        path=_path(reading, evidence),
        requests=_requests(evidence),
        restarted=evidence.restarted,
        coverage=_coverage(evidence),
        agreement=_agreement(evidence),
        labels=_labels(evidence),
        cost=_cost(evidence),
    )


def _heading(reading: PageReading, evidence: ComparisonView) -> str:
    status = reading.status
    if status.candidate is None:
        return f"{evidence.candidate} against {evidence.production}, after the promotion"
    if status.stage is Stage.SHADOW:
        return f"{name(status.candidate)} shadows {name(status.production)}"
    return (
        f"{name(status.candidate)} answers {percent(status.weight)} of the callers,"
        f" {name(status.production)} the others"
    )


def _steps(reading: PageReading, evidence: ComparisonView) -> tuple[StepMark, ...]:
    if reading.status.stage is not Stage.CANARY:
        return ()
    found = []
    for number, step in enumerate((*reading.steps, 100.0), 1):
        now = evidence.step or 0
        state = "done" if number < now else "now" if number == now else "next"
        word = {"done": "done", "now": "now", "next": "to come"}[state]
        label = "production" if number > len(reading.steps) else percent(step)
        found.append(StepMark(label, state, word))
    return tuple(found)


def _window_part(reading: PageReading, evidence: ComparisonView) -> float | None:
    if reading.status.stage is not Stage.SHADOW or evidence.estimate is None:
        return None
    parts = [part for part in evidence.estimate.parts if part.waits_for == "window"]
    needed = parts[0].needed if parts else None
    return min(evidence.healthy_s / needed, 1.0) if needed else 1.0


def estimate_text(found: RolloutEstimate | None) -> str:
    """Return the time until the next step, as a sentence without a full stop."""
    if found is None:
        return ""
    aim = WAITS.get(found.waits_for, found.waits_for)
    if found.seconds is None:
        return f"No end in sight: {CAUSES[found.cause]}; it waits for {aim}"
    least = "at least " if found.at_least else "about "
    return f"Next step in {least}{span(found.seconds)} at {rate(found.rate)}: it waits for {aim}"


def _left(part: UnmetCondition) -> str:
    return CAUSES[part.cause] if part.seconds is None else f"about {span(part.seconds)}"


def _path(reading: PageReading, evidence: ComparisonView) -> EvidenceMeter:
    overall = evidence.overall
    alpha = reading.rules.alpha if reading.rules is not None else 0.01
    needed = overall.needed or 1.0
    where = " in ".join(filter(None, [overall.metric, overall.segment]))
    return EvidenceMeter(
        e=_e(overall.log_e),
        threshold=_e(needed),
        part=min(max(overall.log_e / needed, 0.0), 1.0),
        chart=ChartView(
            at=tuple(map(float, evidence.path.at)),
            series=(tuple(_shown(log_e) for log_e in evidence.path.log_e),),
            names=("e-value",),
            unit="",
            marks=marks_of(reading.marked, evidence.path.at[0] if evidence.path.at else 0.0),
            level=_shown(needed),
            scale="log",
        ),
        alpha=share(alpha, 0),
        where=where,
    )


def _shown(log_e: float) -> float:
    """Return an e-value as it is drawn: `LEAST_E` at least."""
    return float(f"{max(exp(min(log_e, 50.0)), LEAST_E):.4g}")


def _e(log_e: float) -> str:
    value = _shown(log_e)
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _requests(evidence: ComparisonView) -> str:
    if evidence.paired:
        return count(evidence.units[1], "compared answer")
    ours, theirs = evidence.requests
    return f"{theirs:,} requests of {evidence.candidate}, {ours:,} of {evidence.production}"


def _coverage(evidence: ComparisonView) -> str:
    found = evidence.coverage
    if found.share is None:
        unasked = sum(found.unasked.values())
        return f"{unasked:,} of {found.routed:,} never reached the candidate" if unasked else ""
    return f"{share(found.share, 1)} of {found.mirrored:,} copies answered"


def _agreement(evidence: ComparisonView) -> str:
    found = evidence.agreement
    if found is None or found.raw is None:
        return ""
    kappa = f", kappa {found.kappa:.2f}" if found.kappa is not None else ""
    return f"{share(found.raw)} of {found.pairs:,} answers agree{kappa}"


def _labels(evidence: ComparisonView) -> str:
    found = evidence.labels
    if found.fault:
        return found.fault
    if not any(found.units):
        return "no outcome came yet"
    covered = ", ".join(
        f"{arm} {share(have / of, 0)}" for arm, (have, of) in found.coverage.items() if of
    )
    late = f"; half within {span(found.delay_s.p50)}" if found.delay_s.p50 is not None else ""
    return f"{sum(found.units):,} outcomes ({covered}){late}"


def _cost(evidence: ComparisonView) -> str:
    if evidence.cost is None:
        return ""
    ours, theirs = evidence.cost.per_inference
    if ours is None or theirs is None:
        return ""
    return f"{ours:.4g} against {theirs:.4g} {evidence.cost.currency} an inference"
