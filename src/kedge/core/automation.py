"""Automation of rollouts: guardrails, hard kills, gates. Values in, one decision out.

Theory of operation
-------------------
* Guardrails that a policy does not declare have defaults; every default has its reason below.
* The patrol rolls a candidate back at once in two cases. The candidate fails by itself
  (`hard_kill`: no statistics, and only about the candidate), or the judge's alarm sounds. This also
  holds while the rollout is paused: a gate blocks the way forward, never the way back.
* A step forward needs proof. In a canary: the certificate at the present step, the least units and
  the dwell. In a shadow: the healthy window, the pairs, the coverage, and every declared guardrail.
* Broken input (no windows, a ratio of arms that chance does not explain, labels none of which
  equals an answer) stops a pass. A proven failure stands: callers can choose their entity, and with
  it the ratio.
* An alarm needs bad units of several callers, or of several seconds if they have no name. In a
  canary an error counts for that only if production answered the same request. What a candidate
  does by itself (it crashes, does not respond, or answers nonsense) needs no number of callers.
* A fresh diagnosis that blames the world or the data, and neither release, holds an automatic
  rollback for a soft guardrail. An alert shows the operator the way forward instead. Nothing waits
  for a diagnosis.
* Evidence that was lost in a rollout pauses it: restarted evidence promotes nothing before an
  operator resumes.
* Frozen: the patrol does nothing, and reports what it would have done.
* A verdict `fail` on a candidate stands until the comparison restarts, and binds (`binding`). The
  patrol writes it into the row, where the release machine sees it.
* A forward step that the rules refuse waits for an operator: the patrol overrides nothing.
"""

from __future__ import annotations

from math import inf
from typing import Literal

import msgspec

from kedge.core.diagnosis.summary import DiagnosisSummary, holds
from kedge.core.evidence.faults import FaultSpread
from kedge.core.evidence.quality import margin
from kedge.core.evidence.rules import QUALITY, JudgeRules, Overall, Rail, Verdict
from kedge.core.evidence.verdicts import PROVABLE
from kedge.core.evidence.windows import CALLERS
from kedge.core.release.commands import AnyCommand, Certify, Fail, Pause, Promote, Rollback
from kedge.core.release.guards import latched, next_step
from kedge.core.release.machine import decide as allowed
from kedge.core.time.durations import seconds
from kedge.core.values import BUCKETS, Guardrail, Policy, Refusal, Stage, State, Value

DEFAULTS = {
    "errors": Guardrail(worse_by=0.5),
    "latency": Guardrail(worse_by=1.0),
    "quality": Guardrail(worse_by=0.05),
}
"""Default guardrails. Errors: half as many again is proven in minutes at 25 % and more of ordinary
traffic. Latency: twice production's own quantiles, since a fresh process with cold caches is slower
for a while. Quality: a twentieth, because two honest trainings differ by that much."""
WEIGHTS = {"errors": 0.7, "latency.p50": 0.05, "latency.p99": 0.1, "quality": 0.15}
"""Shares of the alarm's error budget. Errors get most, because callers feel their delay. A share w
costs them ln(1/w) more evidence, 0.36 of the 4.6 that alpha = 1 % takes."""
COST = "cost"
"""A guardrail only if declared: most endpoints have no price."""
VIOLATIONS = "violations"
"""Also only if declared: features out of range, unseen, or without a value by key. Most endpoints
have no schema."""
VIOLATIONS_WEIGHT = 0.1
"""Share of the alarm's error budget if declared; the other guardrails keep their proportions."""
EARLY = "errors.doubled"
"""The errors guardrail at twice the rate, which small steps can prove within their size."""
EARLY_STEP = 0.05 * BUCKETS
"""Largest share at which a step is left on that proof; above it the guardrail's own margin
counts."""
EARLY_FLOOR = 0.01
"""A small step is also left when fewer than one in a hundred is proven to fail, which takes 620 to
730 units. At 5 % of the callers that is one caller in 2,000, and production answers for it."""
SILENT_S = 3_600.0
"""Seconds without an alarm, after which a small step with too few callers for a proof is left: six
restarts of the bets. The next step has more callers, and proves what ten callers cannot."""
ALPHA = 0.01
"""Probability of a wrong rollback of a healthy release, in total and for ever."""
KILL_STREAK = 20
"""Failures in a row of requests that were sent and that production answered. A release that fails
as often as production, in a third of its requests at random, reaches it at 1e-13 a request."""
KILL_BROKEN = 3
"""Answers that do not fit the signature: one can be a strange input, three are the model."""
KILL_CRASHES = 3
"""Crashes of its process under requests: one can be the machine's fault, three are the model's."""
HELD = frozenset({"guardrail", "late_regression"})
"""Failures that a diagnosis can hold; a hard kill is the candidate's own fault."""
MIN_COVERAGE = 0.95
"""Least share of the mirrored requests that the copy answered. A silent shadow proves nothing."""
MAX_UNASKED = 0.05
"""Limit of the unasked part of the candidate's share at a step: the rest of a shadow's coverage."""
MIN_REQUESTS = 100
"""Least requests of each arm before a step is left."""
RARE = 0.01
"""Share of traffic below which a segment is named as unproven and does not block a pass."""


class PatrolFacts(Value, frozen=True, kw_only=True):
    """The facts that the patrol gathered about one comparison."""

    overall: Overall
    verdicts: tuple[Verdict, ...] = ()
    """Verdicts on all requests (segment ""), and on failing segments."""
    units: tuple[int, int] = (0, 0)
    """Requests of the whole comparison, by arm; pairs count in both arms."""
    requests: tuple[int, int] = (0, 0)
    """Requests at the present step, by arm."""
    callers: tuple[int, int] = (0, 0)
    """Callers whose arm the present step decides and who sent requests, by arm."""
    pairs: int = 0
    mirrored: int = 0
    copied: int = 0
    segments: dict[str, int] = {}
    """Pairs or candidate units by segment."""
    healthy_s: float = 0.0
    step_s: float = 0.0
    streak: int = 0
    """Failures in a row, of several callers or seconds, of requests that production answered."""
    broken: int = 0
    crashes: int = 0
    silent_s: float = 0.0
    """How long the candidate has responded to no worker; 0 while that is usual."""
    routed: int = 0
    """Requests of the candidate's share at this step."""
    unasked: dict[str, int] = {}
    """Requests of that share that the candidate was never asked, by cause."""
    spread: dict[str, FaultSpread] = {}
    """By metric: the number of callers and seconds with bad units, if known."""
    mismatch: str = ""
    """Why chance does not explain the ratio of the arms; empty if it does."""
    unfit_labels: str = ""
    """Why no label equals any answer of either release; empty if one does, or there is none.
    Quality then proves nothing."""
    labels_broken: bool = False
    """Whether there are enough labels to call that broken input."""
    stale_s: float = 0.0
    """Seconds since the newest window."""
    since_s: float = inf
    """Seconds since the row last changed. It is read only before the first request was counted."""
    uneven: str = ""
    """Why the arms' labels cannot be compared; empty if they can."""
    restarted: str = ""
    """Why the evidence was restarted; empty if it was not."""
    begun_anew: str = ""
    """Why evidence was lost, until the rollout is paused for it."""
    unread: str = ""
    """Why the evidence cannot be read; empty if it can."""
    unwritten: str = ""
    """Why some replica cannot write its counts; empty if all can. The other replicas' counts can
    still fail a candidate, and never pass one."""
    finding: DiagnosisSummary | None = None
    """The newest diagnosis, of any release; loaded when a rollback is due."""
    now: float = 0.0
    """Unix time, for the age of the diagnosis."""


class Decision(Value, frozen=True):
    """The command to submit, and why. `command` None: do nothing."""

    verdict: Literal["pass", "fail", "inconclusive", "broken input"]
    code: str
    reason: str
    command: AnyCommand | None = None


def guardrails(policy: Policy) -> dict[str, Guardrail]:
    """Return the guardrails in force: the declared ones, and defaults for the rest."""
    return {**DEFAULTS, **policy.guardrails}


def tolerated_latency(policy: Policy) -> float:
    """Return the multiple of production's own quantile above which a request is slow."""
    return 1.0 + guardrails(policy)["latency"].worse_by


def canary_steps(policy: Policy) -> tuple[int, ...]:
    """Return the declared steps in buckets."""
    return tuple(round(step * BUCKETS / 100) for step in policy.canary.steps)


def rules(policy: Policy, *, paired: bool, held: int = 0) -> JudgeRules:
    """Return the rules that the judge must prove.

    Args:
        policy: of the endpoint.
        paired: both releases answer the same requests.
        held: buckets that are held back after a promotion; 0: none.
    """
    rails = guardrails(policy)
    twice = tolerated_latency(policy)
    errors, quality = rails["errors"].worse_by, rails[QUALITY]
    metric = quality.metric or "error_rate"
    found = {
        "errors": Rail(worse_by=errors, weight=WEIGHTS["errors"]),
        EARLY: Rail(worse_by=max(1.0, errors), floor=EARLY_FLOOR, of="errors"),
        "latency.p50": Rail(worse_by=twice - 1, r0=twice, weight=WEIGHTS["latency.p50"]),
        "latency.p99": Rail(worse_by=twice - 1, r0=twice, weight=WEIGHTS["latency.p99"]),
        QUALITY: Rail(
            worse_by=margin(metric, quality.worse_by),
            weight=WEIGHTS[QUALITY],
            mean=metric != "error_rate",
            squared=metric == "rmse",
            stated=quality.worse_by,
        ),
    }
    if VIOLATIONS in policy.guardrails:
        found = {
            name: msgspec.structs.replace(rail, weight=rail.weight * (1 - VIOLATIONS_WEIGHT))
            for name, rail in found.items()
        }
        worse_by = policy.guardrails[VIOLATIONS].worse_by
        found[VIOLATIONS] = Rail(worse_by=worse_by, weight=VIOLATIONS_WEIGHT)
    steps = (0,) if paired else (BUCKETS - held,) if held else canary_steps(policy)
    return JudgeRules(
        alpha=ALPHA,
        min_units=policy.shadow.min_pairs if paired else MIN_REQUESTS,
        min_units_per_segment=policy.shadow.min_pairs_per_segment,
        rails=found,
        steps=steps,
    )


def hard_kill(facts: PatrolFacts) -> str:
    """Return why the candidate is left without statistics; empty if it is not."""
    if facts.streak >= KILL_STREAK:
        return f"{facts.streak} requests in a row failed on the candidate, and production answered"
    if facts.broken >= KILL_BROKEN:
        return f"{facts.broken} answers of the candidate do not fit its signature"
    if facts.crashes >= KILL_CRASHES:
        return f"the candidate's process died {facts.crashes} times under requests"
    if facts.silent_s:
        return f"the candidate did not respond for {facts.silent_s:.0f} s, and production answered"
    return ""


def decide(state: State, facts: PatrolFacts) -> Decision:
    """Return the decision on a rollout.

    Args:
        state: the row, in shadow or canary, or settled with the previous release to compare with.
        facts: of the comparison, all of them at this epoch's strata.
    """
    if facts.unread:
        return Decision("broken input", "unread", facts.unread)
    if state.stage is Stage.SETTLED:
        found = _after(state, facts)
    elif state.stage is Stage.SHADOW:
        found = _shadow(state, facts)
    else:
        found = _canary(state, facts)
    if isinstance(found.command, Rollback | Pause) and found.code in HELD:
        found = _held(state, facts, found)
    if facts.begun_anew and found.verdict != "fail":
        found = Decision("broken input", "begun_anew", facts.begun_anew, _paused(state))
    elif facts.unwritten and found.verdict != "fail":
        return Decision("broken input", "unwritten", facts.unwritten)
    if facts.labels_broken and found.verdict not in ("fail", "broken input"):
        found = Decision("broken input", "labels_unfit", facts.unfit_labels)
    found = _latched(state, found)
    if isinstance(found.command, Promote):
        found = _permitted(state, found, found.command)
    if state.automation.frozen and found.command is not None:
        why = f"frozen: would {_word(found.command)}, because {found.reason}"
        return Decision(found.verdict, "frozen", why)
    return found


def _paused(state: State) -> Pause | None:
    """Return the command that pauses a rollout; None if it is paused, or was promoted already."""
    return None if state.paused or state.stage is Stage.SETTLED else Pause()


def binding(state: State, decision: Decision) -> Fail | None:
    """Return the command that writes a failed verdict into the row; None if none is needed.

    A rollback condemns the candidate, which binds too. A frozen endpoint also gets the verdict,
    because it moves nothing.
    """
    failed = decision.verdict == "fail" and decision.command is None
    if not failed or state.candidate is None or latched(state) is not None:
        return None
    return Fail(release=state.candidate, reason=decision.reason)


def _latched(state: State, found: Decision) -> Decision:
    """Keep a failure of this comparison: more data of the same comparison does not undo it."""
    known = latched(state)
    if known is None or found.verdict == "fail":
        return found
    return Decision("fail", "latched", f"{known.reason}; since then: {found.reason}")


PERSONS = frozenset({"condemned", "verdict_fail", "answers_missing", "undeclared_field"})
"""Refusals that only an operator can resolve, by an override or a change of the contract."""


def _permitted(state: State, found: Decision, command: Promote) -> Decision:
    """Return a decision that waits for an operator if the rules refuse the command."""
    said = allowed(state, command, "")
    if not isinstance(said, Refusal) or said.code not in PERSONS:
        return found
    return Decision(found.verdict, "ask", f"{found.reason}; {said.message}: {said.hint}")


def _held(state: State, facts: PatrolFacts, found: Decision) -> Decision:
    """Return the decision on a failure that a diagnosis does not blame on the release."""
    old = state.production if state.candidate is not None else state.back
    new = state.candidate if state.candidate is not None else state.production
    failing = {verdict.metric for verdict in facts.verdicts if verdict.verdict == "fail"}
    if facts.overall.verdict == "fail":
        failing.add(facts.overall.metric)
    if new is None or old is None:
        return found
    why = holds(facts.finding, new, old, failing, facts.now)
    return Decision("fail", "not_the_release", f"{found.reason}; {why}") if why else found


def _word(command: AnyCommand) -> str:
    return type(command).__name__.lower()


def _left(state: State, code: str, reason: str) -> Decision:
    """Return the decision on a candidate that failed while callers saw it."""
    if state.policy.canary.on_fail == "pause":
        # Once: an operator who continues despite the verdict is not held again for it.
        known = state.paused or latched(state) is not None
        held = None if known else Pause()
        return Decision("fail", code, reason, held)
    return Decision("fail", code, reason, Rollback())


def _few(facts: PatrolFacts) -> str:
    """Return why an alarm with bad units of too few callers is ignored; empty if it is not."""
    overall = facts.overall
    spread = facts.spread.get(overall.metric)
    if overall.verdict != "fail" or spread is None or spread.enough:
        return ""
    return (
        f"{overall.reason}; bad units of {spread.text}, "
        f"and {spread.needed} or {CALLERS} separate seconds are needed"
    )


def _failed(policy: Policy, facts: PatrolFacts) -> str:
    """Return which guardrail failed, and how; empty if none did."""
    if facts.overall.verdict == "fail" and not _few(facts):
        spread = facts.spread.get(facts.overall.metric)
        whose = f"; bad units of {spread.text}" if spread is not None else ""
        split = f"; {facts.mismatch}" if facts.mismatch else ""
        return f"{facts.overall.reason}{whose}{split}"
    if COST not in policy.guardrails:
        return ""
    return next(
        (
            f"{COST}: {v.reason}"
            for v in facts.verdicts
            if v.metric == COST and not v.segment and v.verdict == "fail"
        ),
        "",
    )


def _after(state: State, facts: PatrolFacts) -> Decision:
    """Return the decision after a promotion: late regressions against the previous release."""
    failed = _failed(state.policy, facts)
    if not failed and facts.mismatch:
        return Decision("broken input", "sample_ratio", facts.mismatch)
    if not failed:
        return Decision("inconclusive", "watched", _few(facts) or facts.overall.reason)
    if state.policy.after.on_fail == "rollback":
        return Decision("fail", "late_regression", failed, Rollback())
    reason = f"{failed}; kedge rollback {state.endpoint} rolls it back"
    return Decision("fail", "late_regression", reason)


def _canary(state: State, facts: PatrolFacts) -> Decision:
    killed = hard_kill(facts)
    if killed:
        return _left(state, "hard_kill", killed)
    failed = _failed(state.policy, facts)
    if failed:
        return _left(state, "guardrail", failed)
    if facts.mismatch:
        return Decision("broken input", "sample_ratio", facts.mismatch)
    few = _few(facts)
    if few:
        return Decision("inconclusive", "few_callers", few)
    unasked = _unasked(facts)
    if unasked:
        return Decision("inconclusive", "unasked", unasked)
    missing = _unproven_step(state, facts)
    if missing:
        return Decision("inconclusive", "waiting", missing)
    if state.paused:
        return Decision("pass", "paused", "proven at this step; the rollout is paused")
    step = next_step(state)
    last = step is None
    share = state.weight * 100 / BUCKETS
    reason = f"proven at {share:g} %: {facts.overall.reason}"
    if _unproven(facts, (EARLY if state.weight <= EARLY_STEP else "errors",)):
        reason = (
            f"left unproven at {share:g} %: {facts.callers[1]} callers of the candidate cannot"
            " prove it, and no alarm sounded"
        )
    allowed = state.automation.auto and (not last or state.policy.canary.on_pass == "promote")
    if not allowed:
        return Decision("pass", "ask", f"{reason}; kedge promote {state.endpoint} continues")
    return Decision("pass", "advance", reason, Promote(release=state.candidate))


def _unasked(facts: PatrolFacts) -> str:
    """Return why too many unasked requests keep the step unproven; empty if they are few."""
    number = sum(facts.unasked.values())
    if facts.routed < MIN_REQUESTS or number <= MAX_UNASKED * facts.routed:
        return ""
    causes = ", ".join(
        f"{cause} {count}" for cause, count in sorted(facts.unasked.items(), key=lambda i: -i[1])
    )
    return (
        f"{number / facts.routed:.1%} of the candidate's {facts.routed} requests were never sent"
        f" to it (limit {MAX_UNASKED:.0%}): {causes}"
    )


def _unproven_step(state: State, facts: PatrolFacts) -> str:
    """Return what this step still lacks; empty if it is proven."""
    dwell = seconds(state.policy.canary.dwell)
    if facts.step_s < dwell:
        return f"{facts.step_s:.0f} of {dwell:.0f} s at this step"
    if min(facts.requests) < MIN_REQUESTS:
        return f"{min(facts.requests)} of {MIN_REQUESTS} requests on the smaller arm"
    if state.weight > EARLY_STEP:
        return _unproven(facts, proofs(state))
    missing = _unproven(facts, proofs(state))
    return "" if missing and too_small(facts) else missing


def too_small(facts: PatrolFacts) -> bool:
    """Return whether a small step showed all it can: no alarm, and too few callers for a proof."""
    by_callers = any(verdict.callers for verdict in facts.verdicts if not verdict.segment)
    return by_callers and 0 < facts.callers[1] < PROVABLE and facts.step_s >= SILENT_S


def proofs(state: State) -> tuple[str, ...]:
    """Return the metrics of the guardrails that must be proven before a rollout continues."""
    early = state.stage is Stage.CANARY and state.weight <= EARLY_STEP
    return (EARLY if early else "errors", *_declared(state.policy))


def _declared(policy: Policy) -> tuple[str, ...]:
    """Return the guardrails beyond errors that the policy sets: those need data to pass."""
    return tuple(
        metric
        for name, metrics in (
            ("latency", ("latency.p99",)),
            ("quality", ("quality",)),
            (VIOLATIONS, (VIOLATIONS,)),
            (COST, (COST,)),
        )
        if name in policy.guardrails
        for metric in metrics
    )


def _unproven(facts: PatrolFacts, metrics: tuple[str, ...]) -> str:
    of = {verdict.metric: verdict for verdict in facts.verdicts if verdict.segment == ""}
    for metric in metrics:
        verdict = of.get(metric)
        if verdict is None:
            return f"{metric}: no data"
        if metric == QUALITY and (facts.unfit_labels or facts.uneven):
            return f"{metric}: {facts.unfit_labels or facts.uneven}"
        if verdict.verdict != "pass":
            return f"{metric}: {verdict.reason}"
    return ""


def _shadow(state: State, facts: PatrolFacts) -> Decision:
    policy = state.policy.shadow
    killed = hard_kill(facts)
    if killed:
        return Decision("fail", "hard_kill", killed)
    failed = _failed(state.policy, facts)
    if failed:
        return Decision("fail", "guardrail", failed)
    few = _few(facts)
    if few:
        return Decision("inconclusive", "few_callers", few)
    missing = _unproven_window(state, facts)
    if missing:
        return Decision("inconclusive", "waiting", missing)
    rare = [s for s, n in facts.segments.items() if n < policy.min_pairs_per_segment]
    named = f"; not proven, with too few pairs: {', '.join(sorted(rare)[:10])}" if rare else ""
    reason = f"healthy for {facts.healthy_s:.0f} s over {facts.pairs} pairs{named}"
    if state.automation.proven != (state.candidate, state.production):
        assert state.candidate is not None
        return Decision("pass", "window_passed", reason, Certify(release=state.candidate))
    if state.paused:
        return Decision("pass", "paused", f"{reason}; the rollout is paused")
    if policy.on_pass == "promote":
        return Decision("pass", "advance", reason, Promote(release=state.candidate))
    return Decision("pass", "ask", f"{reason}; kedge canary or kedge promote continues")


def _unproven_window(state: State, facts: PatrolFacts) -> str:
    """Return what the shadow window still lacks; empty if it is passed."""
    policy = state.policy.shadow
    window = seconds(policy.window)
    covered = facts.copied / facts.mirrored if facts.mirrored else 0.0
    if facts.pairs < policy.min_pairs:
        return f"{facts.pairs} of {policy.min_pairs} pairs"
    if covered < MIN_COVERAGE:
        return f"coverage {covered:.1%}, at least {MIN_COVERAGE:.0%} is needed"
    if facts.healthy_s < window:
        return f"healthy for {facts.healthy_s:.0f} of {window:.0f} s"
    few = [
        f"{segment} has {n}"
        for segment, n in sorted(facts.segments.items())
        if RARE * facts.pairs <= n < policy.min_pairs_per_segment
    ]
    if few:
        return (
            f"{policy.min_pairs_per_segment} pairs are needed in each segment: {', '.join(few[:5])}"
        )
    return _unproven(facts, proofs(state))
