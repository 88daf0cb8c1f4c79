"""Automation on what is known: guardrails, hard kills, gates. Values in, one decision out.

Theory of operation
-------------------
* Guardrails that a policy does not declare have defaults; every one has its reason below.
* A candidate is left at once when it fails by itself (`hard_kill`: no statistics, and only about
  the candidate) or when the judge's alarm sounds. This holds also while the rollout is paused: a gate holds
  the way forward, never the way back.
* Forward needs proof. In a canary: the certificate at the present step, the least units and the
  dwell. In a shadow: the healthy window, the pairs, the coverage, and every declared guardrail.
* Broken input (no windows, a ratio of arms that cannot be chance, labels none of which equals an
  answer) stops a pass. A failure that is proven stays one: callers may choose their entity, and with it
  the ratio.
* An alarm needs bad units of several callers, or of several seconds where they have no name. In a canary
  an error counts for that only when production answered the very request. What a candidate does by
  itself (it crashes, does not respond, or answers nonsense) needs no number of callers.
* A fresh diagnosis that blames the world or the data, and neither release, holds an automatic rollback
  for a soft guardrail: a person is told the way forward instead. Nothing waits for a diagnosis.
* Evidence that was lost in a rollout pauses it: what began anew promotes nothing before a person resumes.
* Frozen: nothing is done, and it says what would have been.
* A verdict `fail` on a candidate stands until the comparison begins anew, and binds (`binding`):
  the patrol writes it into the row, where the release machine sees it.
* A forward step that the rules refuse waits for a person: the patrol overrides nothing.
"""

from __future__ import annotations

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
"""errors: half as many again is proven in minutes at 25 % and more of ordinary traffic. latency:
twice production's own quantiles, since a fresh process with cold caches is slower for a while.
quality: a twentieth, because models differ by that much between two honest trainings."""
WEIGHTS = {"errors": 0.7, "latency.p50": 0.05, "latency.p99": 0.1, "quality": 0.15}
"""How the alarm's error budget is shared. Errors get most: their delay is what callers feel, and a
share w costs them ln(1/w) more evidence, 0.36 of the 4.6 that alpha = 1 % takes."""
COST = "cost"
"""A guardrail only where it is declared: most endpoints have no price."""
VIOLATIONS = "violations"
"""The same: features out of range, unseen, or without a value by key. Most endpoints have no schema."""
VIOLATIONS_WEIGHT = 0.1
"""Of the alarm's error budget, where it is declared; the others share the rest as they did."""
EARLY = "errors.doubled"
"""The same errors against twice the rate: what small steps can prove within their size."""
EARLY_STEP = 0.05 * BUCKETS
"""Up to this share a step is left on that proof; above it, on the guardrail's own margin."""
EARLY_FLOOR = 0.01
"""A small step is also left when fewer than one in a hundred is proven to fail, which takes 620 to 730
units: at 5 % of the callers that is one caller in 2,000, and production answers for it."""
SILENT_S = 3_600.0
"""A small step whose callers are too few to prove anything is left after an hour without an alarm: six
restarts of the bets. What no step can show of ten callers is left to the next one, which has more."""
ALPHA = 0.01
"""Wrong rollbacks of a healthy release, in total and for ever."""
KILL_STREAK = 20
"""Failures in a row, each of which was sent, and production answered. In a release that fails as often as
production, a third of its requests at random, it is 1e-13 a request."""
KILL_BROKEN = 3
"""Answers that do not fit the signature: one might be a strange input, three are the model."""
KILL_CRASHES = 3
"""Crashes of its process under questions: one may be the machine's, three are the model's."""
HELD = frozenset({"guardrail", "late_regression"})
"""Failures that a diagnosis may hold; a hard kill is the candidate's own."""
MIN_COVERAGE = 0.95
"""Of the mirrored requests, those the copy answered. A silent shadow proves nothing."""
MAX_UNASKED = 0.05
"""Of the candidate's share at a step, what it may not have been asked: the rest of a shadow's coverage."""
MIN_REQUESTS = 100
"""Requests of each arm before a step is left."""
RARE = 0.01
"""A segment with less of the traffic than this is named as unproven and does not hold up a pass."""


class PatrolFacts(Value, frozen=True, kw_only=True):
    """What the patrol gathered about one comparison."""

    overall: Overall
    verdicts: tuple[Verdict, ...] = ()
    """Of everything (segment ""), and those of segments that fail."""
    units: tuple[int, int] = (0, 0)
    """Requests of the whole comparison, by arm; in pairs, pairs twice."""
    requests: tuple[int, int] = (0, 0)
    """Requests at the present step, by arm."""
    callers: tuple[int, int] = (0, 0)
    """Callers whose arm the present step decides, by arm: those that asked."""
    pairs: int = 0
    mirrored: int = 0
    copied: int = 0
    segments: dict[str, int] = {}
    """Pairs or candidate units by segment."""
    healthy_s: float = 0.0
    step_s: float = 0.0
    streak: int = 0
    """Failures in a row, of several callers or seconds, that production answered."""
    broken: int = 0
    crashes: int = 0
    silent_s: float = 0.0
    """How long the candidate did not respond to any worker; 0 while that is usual."""
    routed: int = 0
    """Requests of the candidate's share at this step."""
    unasked: dict[str, int] = {}
    """Those of them that it was never asked, by cause."""
    spread: dict[str, FaultSpread] = {}
    """By metric: over how many callers and seconds its bad units are spread, where that is known."""
    mismatch: str = ""
    """Why the ratio of the arms cannot be chance; empty when it can."""
    unfit_labels: str = ""
    """Why no label equals any answer of either release; empty when one does, or there is none. Then
    quality proves nothing."""
    labels_broken: bool = False
    """There are labels enough to call that broken input."""
    stale_s: float = 0.0
    """Seconds since the newest window."""
    uneven: str = ""
    """Why the arms' labels cannot be compared; empty when they can."""
    restarted: str = ""
    """Why the evidence was begun anew; empty when it was not."""
    begun_anew: str = ""
    """Why evidence was lost, as long as the rollout is not paused for it."""
    unread: str = ""
    """Why the evidence cannot be read; empty when it can."""
    unwritten: str = ""
    """Why some replica cannot write what it counts; empty when all can. What the others write may
    still fail a candidate, and never pass one."""
    finding: DiagnosisSummary | None = None
    """The newest diagnosis, of whatever release; looked up when something is to be taken back."""
    now: float = 0.0
    """Unix time, for how old that is."""


class Decision(Value, frozen=True):
    """What to do, and why. `command` None: nothing."""

    verdict: Literal["pass", "fail", "inconclusive", "broken input"]
    code: str
    reason: str
    command: AnyCommand | None = None


def guardrails(policy: Policy) -> dict[str, Guardrail]:
    """The guardrails in force: declared, and the defaults for the rest."""
    return {**DEFAULTS, **policy.guardrails}


def tolerated_latency(policy: Policy) -> float:
    """How many times production's own quantile a request may take before it is slow."""
    return 1.0 + guardrails(policy)["latency"].worse_by


def canary_steps(policy: Policy) -> tuple[int, ...]:
    """Return the declared steps in buckets."""
    return tuple(round(step * BUCKETS / 100) for step in policy.canary.steps)


def rules(policy: Policy, *, paired: bool, held: int = 0) -> JudgeRules:
    """Return what the judge is asked to prove.

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
    """Why the candidate is left without statistics; empty when it is not."""
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
    """Say what to do about a rollout.

    Args:
        state: the row, in shadow or canary, or settled with a release that was left to compare with.
        facts: what is known of the comparison, all of it at this epoch's strata.
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
    """Pause a rollout that is not; what was promoted has nowhere to go forward to."""
    return None if state.paused or state.stage is Stage.SETTLED else Pause()


def binding(state: State, decision: Decision) -> Fail | None:
    """Return the command that writes a failed verdict into the row; None where none is needed.

    A candidate that is taken back is condemned, which binds too. A frozen endpoint gets it as
    well: a verdict moves nothing.
    """
    failed = decision.verdict == "fail" and decision.command is None
    if not failed or state.candidate is None or latched(state) is not None:
        return None
    return Fail(release=state.candidate, reason=decision.reason)


def _latched(state: State, found: Decision) -> Decision:
    """Keep a failure of this very comparison: more data of the same comparison does not undo it."""
    known = latched(state)
    if known is None or found.verdict == "fail":
        return found
    return Decision("fail", "latched", f"{known.reason}; since then: {found.reason}")


PERSONS = frozenset({"condemned", "verdict_fail", "answers_missing", "undeclared_field"})
"""Refusals that only a person can deal with, by an override or a change of the contract."""


def _permitted(state: State, found: Decision, command: Promote) -> Decision:
    """Leave to a person what the rules refuse to the patrol."""
    said = allowed(state, command, "")
    if not isinstance(said, Refusal) or said.code not in PERSONS:
        return found
    return Decision(found.verdict, "ask", f"{found.reason}; {said.message}: {said.hint}")


def _held(state: State, facts: PatrolFacts, found: Decision) -> Decision:
    """What becomes of a failure that a diagnosis says is not the release's."""
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
    """The candidate failed while callers saw it."""
    if state.policy.canary.on_fail == "pause":
        # Once: an operator who continues against the verdict is not held again for the same one.
        known = state.paused or latched(state) is not None
        held = None if known else Pause()
        return Decision("fail", code, reason, held)
    return Decision("fail", code, reason, Rollback())


def _few(facts: PatrolFacts) -> str:
    """Why an alarm is not acted on: its bad units are those of too few; empty when they are not."""
    overall = facts.overall
    spread = facts.spread.get(overall.metric)
    if overall.verdict != "fail" or spread is None or spread.enough:
        return ""
    return (
        f"{overall.reason}; bad units of {spread.text}, "
        f"and {spread.needed} or {CALLERS} separate seconds are needed"
    )


def _failed(policy: Policy, facts: PatrolFacts) -> str:
    """Which guardrail failed, and how; empty when none did."""
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
    """Production against the release that was left: late regressions."""
    failed = _failed(state.policy, facts)
    if not failed and facts.mismatch:
        return Decision("broken input", "sample_ratio", facts.mismatch)
    if not failed:
        return Decision("inconclusive", "watched", _few(facts) or facts.overall.reason)
    if state.policy.after.on_fail == "rollback":
        return Decision("fail", "late_regression", failed, Rollback())
    reason = f"{failed}; kedge rollback {state.endpoint} takes it back"
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
        return Decision("pass", "ask", f"{reason}; kedge promote {state.endpoint} goes on")
    return Decision("pass", "advance", reason, Promote(release=state.candidate))


def _unasked(facts: PatrolFacts) -> str:
    """Why the step proves nothing of what the candidate was not asked; empty when that is little."""
    number = sum(facts.unasked.values())
    if facts.routed < MIN_REQUESTS or number <= MAX_UNASKED * facts.routed:
        return ""
    causes = ", ".join(
        f"{cause} {count}" for cause, count in sorted(facts.unasked.items(), key=lambda i: -i[1])
    )
    return (
        f"{number / facts.routed:.1%} of the candidate's {facts.routed} requests were never put to"
        f" it (limit {MAX_UNASKED:.0%}): {causes}"
    )


def _unproven_step(state: State, facts: PatrolFacts) -> str:
    """What this step still lacks; empty when it is proven."""
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
    """Whether a small step showed what it can: no alarm, and too few callers to prove anything."""
    by_callers = any(verdict.callers for verdict in facts.verdicts if not verdict.segment)
    return by_callers and 0 < facts.callers[1] < PROVABLE and facts.step_s >= SILENT_S


def proofs(state: State) -> tuple[str, ...]:
    """Return the guardrails that are to be proven before a rollout goes on, by their metric."""
    early = state.stage is Stage.CANARY and state.weight <= EARLY_STEP
    return (EARLY if early else "errors", *_declared(state.policy))


def _declared(policy: Policy) -> tuple[str, ...]:
    """Guardrails beyond errors that the policy sets: those need data to pass."""
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
    return Decision("pass", "ask", f"{reason}; kedge canary or kedge promote goes on")


def _unproven_window(state: State, facts: PatrolFacts) -> str:
    """What the shadow window still lacks; empty when it is passed."""
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
