"""View of a rollout's evidence, the same for text, JSON and pages."""

from __future__ import annotations

from math import exp
from typing import Literal

import msgspec

from kedge.core.automation import EARLY, Decision, PatrolFacts
from kedge.core.estimate import RolloutEstimate, estimate
from kedge.core.evidence.label_summary import LabelSummary
from kedge.core.evidence.rollup import Roll
from kedge.core.evidence.rules import Overall, Verdict, Word
from kedge.core.evidence.windows import Agreement, DisagreeingPair
from kedge.core.release.guards import next_step, on_pass, step_number
from kedge.core.values import BUCKETS, Arm, Stage, State, Value
from kedge.engine.recording.agreement import BIN_RATIO
from kedge.engine.watch import Watch, judged

WORST = 10
"""Limit of segments that are shown, the worst first."""
EXAMPLES = 5
"""Limit of worked examples of disagreement."""
LEAST_PAIRS = 20
"""Pairs from which on a segment's disagreement is ranked: below, one pair is five per cent."""


class ComparedRelease(Value, frozen=True):
    """One of the two releases that are compared."""

    release: str
    """The release, such as r2."""
    version: str
    """Its version, such as v2; empty if the release is no longer known."""
    role: Literal["production", "candidate", "previous"]
    """Its current role: `previous` is the release that a promotion left."""


class ReasonedVerdict(Value, frozen=True):
    """The policy's verdict on the evidence."""

    verdict: Word
    code: str
    reason: str


class MetricVerdict(Verdict, frozen=True, kw_only=True):
    """The verdict of one metric, as it is shown."""

    e: float
    """Evidence that the release is worse, as an e-value: the exponential of `log_e`."""
    figures: tuple[float | None, float | None] | None = None
    """With losses: the declared metric of each release, in its own unit."""


class SegmentDisagreement(Value, frozen=True):
    """The rate of different answers in one segment."""

    segment: str
    pairs: int
    disagreement: float
    """Share of the pairs."""


class OwnDisagreement(Value, frozen=True):
    """The rate at which production disagrees with itself when it answers twice."""

    pairs: int
    disagreement: float
    """Share of the pairs."""
    beyond: float | None
    """The candidate's disagreement above that rate; null: there are no pairs."""


class ScoreDecile(Value, frozen=True):
    """The difference of scores in a tenth of production's own scores."""

    up_to: float
    """The largest score of the tenth, about."""
    pairs: int
    within: float
    """Share of the pairs that agree."""
    bias: float
    """Mean difference, the candidate's score less production's."""
    distance: float
    """Mean size of the difference."""


class DifferingOutput(Value, frozen=True):
    """An output in which the answers differ, as text."""

    output: str
    production: str
    candidate: str


class DisagreementExample(Value, frozen=True):
    """A prediction that both releases answered differently."""

    id: str
    segments: tuple[str, ...]
    production: str
    candidate: str
    differs: tuple[DifferingOutput, ...]
    """The outputs that differ, the compared one first."""


class AgreementRates(Value, frozen=True, kw_only=True):
    """The rates at which both releases agree."""

    pairs: int
    agreeing: int
    missing: int
    """Pairs without an answer of the candidate: they count as disagreement."""
    raw: float | None
    """Share of the pairs that agree; null: there are none."""
    kappa: float | None
    """Cohen's kappa; null: no decision is yes or no, or chance alone explains all."""
    positive: float | None
    """Agreement on yes; null: no answer was yes."""
    flips: int
    """Decisions that are yes in one release only."""


class AgreementView(AgreementRates, frozen=True, kw_only=True):
    """The rates at which both releases agree, and the segments in which they disagree."""

    noise: OwnDisagreement | None
    """Null: production does not answer twice."""
    segments: tuple[SegmentDisagreement, ...]
    """Segments in which they disagree most."""
    deciles: tuple[ScoreDecile, ...]
    examples: tuple[DisagreementExample, ...]


class CandidateCoverage(Value, frozen=True, kw_only=True):
    """The requests that reached the candidate, and those that did not."""

    mirrored: int
    """Requests that were to be copied to the candidate."""
    copied: int
    """Copies that the candidate answered."""
    share: float | None
    """Share of the copies that were answered; null: nothing is mirrored."""
    routed: int
    """Requests of the candidate's share at this step."""
    unasked: dict[str, int]
    """Those requests that never reached it, by cause."""
    late: int
    """Answers after the deadline: production answered these callers."""
    lost: int
    """Requests that could not be counted."""
    other: int
    """Requests whose segment exceeded the limit of a window."""
    cut: int
    """Callers that exceeded the limit of a window."""


class InferenceCost(Value, frozen=True, kw_only=True):
    """The cost of an inference. Pairs are the measure, then the release that it judges."""

    currency: str
    per_inference: tuple[float | None, float | None]
    """Mean cost; null: no cost was reported."""
    cap: float | None = None
    """The cost at which the judge clips; null: not known yet, or cost is not guarded, as below."""
    clipped: tuple[int, int] | None = None
    """Requests that were clipped at the declared `cost.max`."""
    at_cap: tuple[int, int] | None = None
    """Units whose mean cost is at least the cap."""
    units: tuple[int, int] | None = None
    """Units that are judged."""
    left_out: int | None = None
    """Costs that exceeded a window's room."""


class EvidencePath(Value, frozen=True):
    """The evidence of harm since the comparison began, in at most 241 points, oldest first."""

    at: tuple[int, ...]
    """Unix seconds."""
    log_e: tuple[float, ...]
    """Natural logarithm of the e-value. The alarm sounds at `overall.needed`."""


class QualityCourse(Value, frozen=True):
    """The declared loss as outcomes came, in at most 240 points, oldest first."""

    at: tuple[int, ...]
    """Unix seconds at which the outcomes were counted."""
    production: tuple[float | None, ...]
    """The figure over all outcomes until then; null: there was none."""
    candidate: tuple[float | None, ...]


class ComparisonView(Value, frozen=True, kw_only=True):
    """The comparison of two releases. Pairs are the measure, then the release that it judges."""

    endpoint: str
    stage: Stage
    production: str
    """The release that is the measure."""
    candidate: str
    """The release that is judged by it: after a promotion, production itself."""
    weight: float
    """Per cent of callers that the candidate answers."""
    holdback: float
    """Per cent of callers that the previous release still answers."""
    arms: tuple[ComparedRelease, ...]
    by_arm: dict[str, str]
    """The release of each arm of the prediction log."""
    paused: bool
    step: int | None
    """The current canary step, from 1; 0: before the first; null: no canary."""
    steps: int | None
    """Number of steps; null: no canary."""
    next_weight: float | None
    """Per cent at the next step; null: there is no next step."""
    on_pass: str
    """The action after the last step, or the shadow's window, is proven."""
    estimate: RolloutEstimate | None
    """How long the rollout still waits; null: time alone changes nothing."""
    paired: bool
    """Whether both releases answer the same requests: a shadow."""
    frozen: bool
    auto: bool
    """Whether the patrol takes the steps."""
    decision: ReasonedVerdict
    overall: Overall
    path: EvidencePath
    """How `overall` came about."""
    quality_course: QualityCourse
    metrics: tuple[MetricVerdict, ...]
    """Metrics of all requests."""
    segments: tuple[MetricVerdict, ...]
    """Metrics by segment, the worst first."""
    units: tuple[int, int]
    """Requests of the whole comparison; in a shadow its pairs."""
    requests: tuple[int, int]
    """Requests at this step."""
    callers: tuple[int, int]
    """Callers at this step."""
    restarted: str
    """Why the evidence was restarted; empty: it was not."""
    healthy_s: float
    """Observed seconds of a shadow's window."""
    step_s: float
    """Seconds since this step began."""
    stale_s: float
    """Seconds since the newest request."""
    agreement: AgreementView | None
    """Null: the releases do not answer the same requests."""
    coverage: CandidateCoverage
    labels: LabelSummary
    cost: InferenceCost | None
    """Null: the policy declares no cost, or none was reported."""


class CoursePart(Value, frozen=True):
    """The counts of one segment. Pairs are (production, candidate)."""

    units: tuple[int, int]
    bad: dict[str, tuple[int, int]]
    """Bad units, by metric."""


class CoursePoint(Value, frozen=True, kw_only=True):
    """One minute or hour of a comparison. Pairs are (production, candidate)."""

    at: int
    """Unix seconds of its beginning."""
    span_s: int
    """60 or 3600."""
    production: str
    candidate: str
    weight: float
    """Per cent of callers."""
    paired: bool
    units: tuple[int, int]
    bad: dict[str, tuple[int, int]]
    """Bad units, by metric."""
    agreement: float | None
    """Share of the pairs that agree; null: there are none."""
    coverage: float | None
    """Share of mirrored requests that the candidate answered; null: nothing was mirrored."""
    lost: int
    """Requests that could not be counted."""
    segments: dict[str, CoursePart]


def describe(
    state: State,
    watch: Watch,
    decision: Decision,
    facts: PatrolFacts,
    *,
    segment: str | None = None,
    past: tuple[int, int] = (0, 0),
    worst: int = WORST,
    examples: int = EXAMPLES,
) -> ComparisonView:
    """Return the view of one rollout.

    Args:
        state: the row.
        watch: the folded windows.
        decision: the policy's decision.
        facts: the facts that the policy got.
        segment: the only segment to show beside the whole.
        past: production's earlier failures and requests, as `kedge plan` counts them.
        worst: limit of the verdicts on segments, without `segment`.
        examples: limit of the disagreements, the newest first.
    """
    number, steps = step_number(state)
    step = next_step(state) if state.stage is Stage.CANARY else None
    found = [v for v in watch.verdicts() if v.metric != EARLY]
    slices = [v for v in found if v.segment and (segment is None or v.segment == segment)]
    slices.sort(key=lambda v: -v.log_e)
    canary = state.stage is Stage.CANARY
    return ComparisonView(
        endpoint=state.endpoint,
        stage=state.stage,
        production=f"r{judged(state)[0]}",
        candidate=f"r{judged(state)[1]}",
        weight=state.weight * 100 / BUCKETS,
        holdback=state.holdback * 100 / BUCKETS if state.held is not None else 0.0,
        arms=_arms(state),
        by_arm=_by_arm(state),
        paused=state.paused,
        step=number if canary else None,
        steps=steps if canary else None,
        next_weight=step * 100 / BUCKETS if step is not None else None,
        on_pass=on_pass(state),
        estimate=estimate(state, decision, facts, watch.judge, past),
        paired=watch.paired,
        frozen=state.automation.frozen,
        auto=state.automation.auto,
        decision=ReasonedVerdict(decision.verdict, decision.code, decision.reason),
        overall=facts.overall,
        path=_path(watch, facts),
        quality_course=_quality(watch),
        metrics=tuple(_verdict(v, watch) for v in found if v.segment == ""),
        segments=tuple(
            _verdict(v, watch) for v in slices[: worst if segment is None else len(slices)]
        ),
        units=facts.units,
        requests=facts.requests,
        callers=facts.callers,
        restarted=facts.restarted,
        healthy_s=facts.healthy_s,
        step_s=facts.step_s,
        stale_s=round(facts.stale_s, 1),
        agreement=_agreement(watch, segment, examples) if watch.paired else None,
        coverage=_coverage(watch, facts),
        labels=watch.label_summary(),
        cost=_cost(state, watch),
    )


def _quality(watch: Watch) -> QualityCourse:
    at, ours, theirs = watch.quality_series()
    return QualityCourse(at, tuple(ours), tuple(theirs))


def _path(watch: Watch, facts: PatrolFacts) -> EvidencePath:
    """Return the path of the evidence, with what is known now as its last point."""
    at, values = watch.series.at, watch.series.values
    newest = watch.newest
    ended = bool(newest) and (not at or newest > at[-1])
    return EvidencePath(
        (*at, newest) if ended else at,
        (*(log_e for (log_e,) in values), *([facts.overall.log_e] if ended else [])),
    )


def _coverage(watch: Watch, facts: PatrolFacts) -> CandidateCoverage:
    return CandidateCoverage(
        mirrored=facts.mirrored,
        copied=facts.copied,
        share=facts.copied / facts.mirrored if facts.mirrored else None,
        routed=facts.routed,
        unasked=facts.unasked,
        late=watch.faults.late,
        lost=watch.counted.get("lost", 0),
        other=watch.counted.get("other", 0),
        cut=watch.counted.get("cut", 0),
    )


def _arms(state: State) -> tuple[ComparedRelease, ...]:
    """Return the measure and the release that it judges, with their current roles."""
    return tuple(
        ComparedRelease(
            f"r{number}",
            f"v{state.releases[number].version}" if number in state.releases else "",
            # A replay may compare production with itself, as a candidate.
            "candidate"
            if number == state.candidate
            else "production"
            if number == state.production
            else "previous",
        )
        for number in judged(state)
        if number is not None
    )


def _by_arm(state: State) -> dict[str, str]:
    """Return the release of each arm of the prediction log."""
    return {Arm.PRODUCTION.value: f"r{state.production}", Arm.CANDIDATE.value: f"r{state.compared}"}


def _verdict(verdict: Verdict, watch: Watch) -> MetricVerdict:
    losses = verdict.losses
    return MetricVerdict(
        **msgspec.structs.asdict(verdict),
        e=exp(min(verdict.log_e, 700.0)),
        figures=None if losses is None else (watch.figure(losses[0]), watch.figure(losses[1])),
    )


def _cost(state: State, watch: Watch) -> InferenceCost | None:
    """Return the cost of an inference by arm, production first, in the policy's currency."""
    spent = watch.costs.get("")
    if spent is None or state.policy.cost is None:
        return None
    ours, theirs = (s[1] / s[0] if s[0] else None for s in (spent.production, spent.candidate))
    figures = watch.cost_figures()
    return InferenceCost(
        currency=state.policy.cost.currency,
        per_inference=(ours, theirs),
        **({} if figures is None else msgspec.structs.asdict(figures)),
    )


def course(roll: Roll) -> CoursePoint:
    """Return one minute or hour of a comparison."""
    pairs = roll.agreement.get("", Agreement())
    whole = _part(roll, "")
    return CoursePoint(
        at=roll.at,
        span_s=roll.span,
        production=f"r{roll.production}",
        candidate=f"r{roll.candidate}",
        weight=roll.weight * 100 / BUCKETS,
        paired=roll.paired,
        units=whole.units,
        bad=whole.bad,
        agreement=pairs.agreeing / pairs.pairs if pairs.pairs else None,
        coverage=roll.copied / roll.mirrored if roll.mirrored else None,
        lost=roll.lost,
        segments={name: _part(roll, name) for name in roll.exposed if name},
    )


def _part(roll: Roll, segment: str) -> CoursePart:
    return CoursePart(
        roll.exposed.get(segment, (0, 0)),
        {metric: cells.get(segment, (0, 0)) for metric, cells in roll.bad.items()},
    )


def _noise(watch: Watch) -> OwnDisagreement | None:
    """Return production's disagreement with itself (A/A), and the candidate's beyond that."""
    asked, alike = watch.noise
    whole = watch.agreement.get("", Agreement())
    if not asked:
        return None
    own = 1 - alike / asked
    beyond = 1 - whole.agreeing / whole.pairs - own if whole.pairs else None
    return OwnDisagreement(asked, own, beyond)


def _agreement(watch: Watch, segment: str | None, examples: int) -> AgreementView:
    """Return the agreement of the pairs, and the segments that disagree most."""
    ranked = sorted(
        (
            (name, cell)
            for name, cell in watch.agreement.items()
            if name and cell.pairs >= LEAST_PAIRS and (segment is None or name == segment)
        ),
        key=lambda item: item[1].agreeing / item[1].pairs,
    )
    return AgreementView(
        **msgspec.structs.asdict(rates(watch.agreement.get("", Agreement()))),
        noise=_noise(watch),
        segments=tuple(
            SegmentDisagreement(name, cell.pairs, 1 - cell.agreeing / cell.pairs)
            for name, cell in ranked[:WORST]
        ),
        deciles=deciles(watch.scores),
        examples=tuple(
            _example(one)
            for one in [e for e in watch.examples if segment is None or segment in e.segments]
        )[:examples],
    )


def _example(one: DisagreeingPair) -> DisagreementExample:
    """Return a pair that disagrees, with the outputs that differ."""
    return DisagreementExample(
        one.id,
        one.segments,
        one.production,
        one.candidate,
        tuple(DifferingOutput(**msgspec.structs.asdict(each)) for each in one.differs),
    )


def rates(of: Agreement) -> AgreementRates:
    """Return raw agreement, Cohen's kappa and positive agreement of paired decisions.

    Raw agreement alone misleads where yes is rare. Two unrelated models that say yes once in a
    hundred agree in 98 %, with a kappa of 0 (Cohen 1960; positive agreement: Fleiss 1981).
    A pair whose copy is missing disagrees in all three.
    """
    n = of.pairs
    kappa = positive = None
    yes = 2 * of.both + of.only_production + of.only_candidate
    if yes and n:
        positive = 2 * of.both / (yes + of.missing)
        ours = (of.both + of.only_production) / n
        theirs = (of.both + of.only_candidate) / n
        chance = ours * theirs + (1 - ours) * (1 - theirs)
        if chance < 1:
            kappa = ((of.both + of.neither) / n - chance) / (1 - chance)
    return AgreementRates(
        pairs=n,
        agreeing=of.agreeing,
        missing=of.missing,
        raw=of.agreeing / n if n else None,
        kappa=kappa,
        positive=positive,
        flips=of.only_production + of.only_candidate,
    )


def deciles(scores: dict[int, tuple[int, int, float, float]]) -> tuple[ScoreDecile, ...]:
    """Return differences by tenth of production's own score, from the fixed bins."""
    total = sum(cell[0] for cell in scores.values())
    found: list[ScoreDecile] = []
    done = n = within = 0
    apart = size = 0.0
    for bin_ in sorted(scores):
        cell = scores[bin_]
        n, within, apart, size = n + cell[0], within + cell[1], apart + cell[2], size + cell[3]
        if n and done + n >= total * (len(found) + 1) / 10:
            found.append(ScoreDecile(_upper(bin_), n, within / n, apart / n, size / n))
            done += n
            n = within = 0
            apart = size = 0.0
    return tuple(found)


def _upper(bin_: int) -> float:
    if bin_ == 0:
        return 0.0
    power = abs(bin_) - 1000 + (1 if bin_ > 0 else 0)
    return (1 if bin_ > 0 else -1) * float(BIN_RATIO**power)
