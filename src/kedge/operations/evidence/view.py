"""View of a rollout as plain values: the same for people, JSON and pages."""

from __future__ import annotations

from math import exp
from typing import Any

import msgspec

from kedge.core.automation import EARLY, Decision, PatrolFacts
from kedge.core.estimate import estimate
from kedge.core.evidence.rollup import Roll
from kedge.core.evidence.rules import Verdict
from kedge.core.evidence.windows import Agreement, DisagreeingPair
from kedge.core.release.guards import next_step, on_pass, step_number
from kedge.core.values import BUCKETS, Arm, Stage, State
from kedge.engine.recording.agreement import BIN_RATIO
from kedge.engine.watch import Watch, judged

WORST = 10
"""Segments that are shown, the worst first."""
LEAST_PAIRS = 20
"""Pairs from which a segment's disagreement is ranked: below, one pair is five per cent."""


def describe(
    state: State,
    watch: Watch,
    decision: Decision,
    facts: PatrolFacts,
    *,
    segment: str | None = None,
    past: tuple[int, int] = (0, 0),
) -> dict[str, Any]:
    """Everything `kedge evidence` says of one rollout.

    Args:
        state: the row.
        watch: what was folded.
        decision: what the policy makes of it.
        facts: what the policy was told.
        segment: show this one only, beside the whole.
        past: production's failures and requests before, as `kedge plan` counts them.
    """
    number, steps = step_number(state)
    step = next_step(state) if state.stage is Stage.CANARY else None
    reckoned = estimate(state, decision, facts, watch.judge, past)
    found = [v for v in watch.verdicts() if v.metric != EARLY]
    whole = [v for v in found if v.segment == ""]
    slices = [v for v in found if v.segment and (segment is None or v.segment == segment)]
    slices.sort(key=lambda v: -v.log_e)
    return {
        "endpoint": state.endpoint,
        "stage": state.stage.value,
        "production": f"r{judged(state)[0]}",
        "candidate": f"r{judged(state)[1]}",
        "weight": state.weight * 100 / BUCKETS,
        "holdback": state.holdback * 100 / BUCKETS if state.held is not None else 0.0,
        "arms": _arms(state),
        "by_arm": _by_arm(state),
        "paused": state.paused,
        "step": number if state.stage is Stage.CANARY else None,
        "steps": steps if state.stage is Stage.CANARY else None,
        "next_weight": step * 100 / BUCKETS if step is not None else None,
        "on_pass": on_pass(state),
        "estimate": None if reckoned is None else msgspec.to_builtins(reckoned),
        "paired": watch.paired,
        "frozen": state.automation.frozen,
        "auto": state.automation.auto,
        "decision": {"verdict": decision.verdict, "code": decision.code, "reason": decision.reason},
        "overall": msgspec.to_builtins(facts.overall),
        "metrics": [_verdict(v) for v in whole],
        "segments": [_verdict(v) for v in slices[: WORST if segment is None else len(slices)]],
        "units": list(facts.units),
        "requests": list(facts.requests),
        "callers": list(facts.callers),
        "restarted": facts.restarted,
        "healthy_s": facts.healthy_s,
        "step_s": facts.step_s,
        "stale_s": round(facts.stale_s, 1),
        "agreement": _agreement(watch, segment) if watch.paired else None,
        "coverage": {
            "mirrored": facts.mirrored,
            "copied": facts.copied,
            "share": facts.copied / facts.mirrored if facts.mirrored else None,
            "routed": facts.routed,
            "unasked": facts.unasked,
            "late": watch.faults.late,
            "lost": watch.counted.get("lost", 0),
            "other": watch.counted.get("other", 0),
            "cut": watch.counted.get("cut", 0),
        },
        "labels": watch.label_summary(),
        "cost": _cost(state, watch),
    }


def _arms(state: State) -> list[dict[str, Any]]:
    """Return the measure and the release that is judged by it, with the roles that they have now."""
    roles = {state.production: "production", state.candidate: "candidate"}
    return [
        {
            "release": f"r{number}",
            "version": f"v{state.releases[number].version}" if number in state.releases else "",
            "role": roles.get(number, "previous"),
        }
        for number in judged(state)
        if number is not None
    ]


def _by_arm(state: State) -> dict[str, str]:
    """Return which release each arm of the prediction log is."""
    return {Arm.PRODUCTION.value: f"r{state.production}", Arm.CANDIDATE.value: f"r{state.compared}"}


def _verdict(verdict: Verdict) -> dict[str, Any]:
    return {
        "metric": verdict.metric,
        "segment": verdict.segment,
        **{k: v for k, v in msgspec.to_builtins(verdict).items() if k not in ("metric", "segment")},
        "e": exp(min(verdict.log_e, 700.0)),
    }


def _cost(state: State, watch: Watch) -> dict[str, Any] | None:
    """Cost per inference by arm, production first, in the policy's currency."""
    spent = watch.costs.get("")
    if spent is None or state.policy.cost is None:
        return None
    means = [sums[1] / sums[0] if sums[0] else None for sums in (spent.production, spent.candidate)]
    figures = watch.cost_figures() or {}
    return {"currency": state.policy.cost.currency, "per_inference": means, **figures}


def course(roll: Roll) -> dict[str, Any]:
    """One minute or hour of a comparison as plain values. Pairs are production, then candidate."""
    pairs = roll.agreement.get("", Agreement())
    return {
        "at": roll.at,
        "span_s": roll.span,
        "production": f"r{roll.production}",
        "candidate": f"r{roll.candidate}",
        "weight": roll.weight * 100 / BUCKETS,
        "paired": roll.paired,
        "units": list(roll.exposed.get("", (0, 0))),
        "bad": {metric: list(cells.get("", (0, 0))) for metric, cells in roll.bad.items()},
        "agreement": pairs.agreeing / pairs.pairs if pairs.pairs else None,
        "coverage": roll.copied / roll.mirrored if roll.mirrored else None,
        "lost": roll.lost,
        "segments": {
            name: {
                "units": list(cell),
                "bad": {
                    metric: list(cells.get(name, (0, 0))) for metric, cells in roll.bad.items()
                },
            }
            for name, cell in roll.exposed.items()
            if name
        },
    }


def _noise(watch: Watch) -> dict[str, Any] | None:
    """What production disagrees with itself (A/A), and the candidate beyond that."""
    asked, alike = watch.noise
    whole = watch.agreement.get("", Agreement())
    if not asked:
        return None
    own = 1 - alike / asked
    beyond = 1 - whole.agreeing / whole.pairs - own if whole.pairs else None
    return {"pairs": asked, "disagreement": own, "beyond": beyond}


def _agreement(watch: Watch, segment: str | None) -> dict[str, Any]:
    """Agreement of the pairs, and where they disagree most."""
    whole = watch.agreement.get("", Agreement())
    ranked = sorted(
        (
            (name, cell)
            for name, cell in watch.agreement.items()
            if name and cell.pairs >= LEAST_PAIRS and (segment is None or name == segment)
        ),
        key=lambda item: item[1].agreeing / item[1].pairs,
    )
    return {
        **rates(whole),
        "noise": _noise(watch),
        "segments": [
            {"segment": name, "pairs": cell.pairs, "disagreement": 1 - cell.agreeing / cell.pairs}
            for name, cell in ranked[:WORST]
        ],
        "deciles": deciles(watch.scores),
        "examples": [_example(one) for one in watch.examples[:5]],
    }


def _example(one: DisagreeingPair) -> dict[str, Any]:
    """Return a pair that disagrees, with the outputs in which it does."""
    return {
        "id": one.id,
        "segments": list(one.segments),
        "production": one.production,
        "candidate": one.candidate,
        "differs": [msgspec.structs.asdict(each) for each in one.differs],
    }


def rates(of: Agreement) -> dict[str, Any]:
    """Raw agreement, Cohen's kappa and positive agreement of paired decisions.

    Raw agreement alone misleads where yes is rare. Two unrelated models that say yes once in a
    hundred agree in 98 %, with a kappa of 0 (Cohen 1960; positive agreement: Fleiss 1981).
    A pair whose copy is missing disagrees in all three.
    """
    n = of.pairs
    shown: dict[str, Any] = {
        "pairs": n,
        "agreeing": of.agreeing,
        "missing": of.missing,
        "raw": of.agreeing / n if n else None,
        "kappa": None,
        "positive": None,
        "flips": of.only_production + of.only_candidate,
    }
    yes = 2 * of.both + of.only_production + of.only_candidate
    if yes and n:
        shown["positive"] = 2 * of.both / (yes + of.missing)
        ours = (of.both + of.only_production) / n
        theirs = (of.both + of.only_candidate) / n
        chance = ours * theirs + (1 - ours) * (1 - theirs)
        if chance < 1:
            shown["kappa"] = ((of.both + of.neither) / n - chance) / (1 - chance)
    return shown


def deciles(scores: dict[int, tuple[int, int, float, float]]) -> list[dict[str, Any]]:
    """Differences by tenth of production's own score, from the fixed bins."""
    total = sum(cell[0] for cell in scores.values())
    found: list[dict[str, Any]] = []
    n = within = 0
    apart = size = 0.0
    for bin_ in sorted(scores):
        cell = scores[bin_]
        n, within, apart, size = n + cell[0], within + cell[1], apart + cell[2], size + cell[3]
        done = sum(item["pairs"] for item in found) + n
        if n and done >= total * (len(found) + 1) / 10:
            found.append(
                {
                    "up_to": _upper(bin_),
                    "pairs": n,
                    "within": within / n,
                    "bias": apart / n,
                    "distance": size / n,
                }
            )
            n = within = 0
            apart = size = 0.0
    return found


def _upper(bin_: int) -> float:
    if bin_ == 0:
        return 0.0
    power = abs(bin_) - 1000 + (1 if bin_ > 0 else 0)
    return (1 if bin_ > 0 else -1) * float(BIN_RATIO**power)
