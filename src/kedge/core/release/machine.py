"""The release state machine: which events a command causes, and the row after them.

Theory of operation
-------------------
* `TABLE` holds every transition. `decide` looks a command up by (stage, command). The first rule
  whose guard holds gives events and the next stage, or a refusal's code. A pair that is missing in
  the table is refused as `no_rollout`. The docs draw their diagram from the table, so it is never
  outdated.
* `decide` changes nothing and reads nothing else: it gets the row (with policy and releases), the
  command and the instant. `apply` folds one event into the row. It also computes `back*`, so every
  flip names its own ways back.
* A *rollback undoes the newest change that callers see*. In a canary that is the candidate's share;
  otherwise it is production. A rollback condemns the release that it leaves, and no later rollback
  lands on it unless `--to` names it. So two rollbacks in a row go two steps back; they never
  alternate between two releases.
* `served` is the order in which releases became production. The way back is the newest one that is
  neither production nor condemned nor starved by the contract. The machine does no arithmetic on
  version numbers.
* Deliberately absent: time (only `at`, copied into events), permissions (the edge), how replicas
  follow (the engine), and any notion of "healthy" (policy and evidence).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from kedge.core.release.commands import (
    Abort,
    Aborted,
    AnyCommand,
    AnyEvent,
    Canary,
    CanaryStarted,
    CandidateRolledBack,
    Certify,
    Command,
    ComparisonFailed,
    Configure,
    Configured,
    ContractAdopted,
    Drill,
    DrillEnded,
    DrillStarted,
    Fail,
    Follow,
    Followed,
    Freeze,
    Frozen,
    Held,
    Hold,
    Pause,
    Paused,
    Promote,
    Promoted,
    Restored,
    Resume,
    Resumed,
    Return,
    Rollback,
    RolledBack,
    SampleSet,
    SetWeight,
    Shadow,
    ShadowPassed,
    ShadowStarted,
    Thaw,
    Thawed,
    WeightSet,
)
from kedge.core.release.guards import (
    GUARDS,
    bad_shares,
    broken,
    buckets,
    condemned,
    failure,
    next_step,
    overpromised,
    promised,
    subject,
    target,
    ungiven,
    unmet,
)
from kedge.core.release.refusals import REFUSALS
from kedge.core.release.ways_back import drilled, returned, ways_back
from kedge.core.values import Drilling, Failure, Field, Refusal, Stage, State, Value

FAILURES = 100
"""Limit of stored failed pairs: a year of two failed rollouts a week. The oldest is dropped."""
REASON = 300
"""Limit of a failure's reason in the row, in characters: each process reads it twice a second. The
event has the full text."""

# ---------------------------------------------------------------- the table


class Rule(Value, frozen=True):
    """If `when` holds: refuse with `refuse`, or emit `then` and enter `to` (None: stay)."""

    when: str
    then: tuple[str, ...] = ()
    to: Stage | None = None
    refuse: str | None = None


def no(when: str, code: str) -> Rule:
    """Return a rule that refuses."""
    return Rule(when=when, refuse=code)


def yes(when: str, *then: str, to: Stage | None = None) -> Rule:
    """Return a rule that emits events."""
    return Rule(when=when, then=then, to=to)


_CONFIGURE = (
    no("same policy", "unchanged"),
    no("bad share", "bad_weight"),
    no("starves a live release", "contract_breaks_live"),
    no("promises too much", "answers_break_live"),
    yes("always", "configured"),
)
_CANDIDATE = (
    no("unknown", "unknown_release"),
    no("in production", "already_production"),
    no("undeclared field", "undeclared_field"),
)
_NAMED = (no("unknown", "unknown_release"), no("other candidate", "rollout_running"))
_SAME = (*_NAMED, no("undeclared field", "undeclared_field"))
_LACKS = no("lacks an answer", "answers_missing")
_FORWARD = (no("condemned", "condemned"), no("failed", "verdict_fail"), _LACKS)
_BACK = (
    no("unknown target", "unknown_release"),
    no("unserved target", "never_in_production"),
    no("nothing to go back to", "nothing_to_go_back_to"),
    no("target is production", "already_production"),
    no("undeclared field", "undeclared_field"),
)
_FAIL = (*_NAMED, no("failed already", "unchanged"), yes("always", "comparison_failed"))
_RESUME = (
    no("not paused", "unchanged"),
    no("failed", "verdict_fail"),
    yes("always", "resumed"),
)
E_, S, W, C, D = Stage.EMPTY, Stage.SETTLED, Stage.SHADOW, Stage.CANARY, Stage.DRILL

TABLE: dict[tuple[Stage, type[Command]], tuple[Rule, ...]] = {
    (E_, Configure): _CONFIGURE,
    (E_, Promote): (
        no("nothing named", "no_rollout"),
        no("unknown", "unknown_release"),
        no("undeclared field", "undeclared_field"),
        _LACKS,
        yes("no contract", "contract_adopted", "promoted", to=S),
        yes("always", "promoted", to=S),
    ),
    (E_, Shadow): (no("always", "nothing_in_production"),),
    (E_, Canary): (no("always", "nothing_in_production"),),
    (E_, Rollback): (no("always", "nothing_to_go_back_to"),),
    (S, Configure): _CONFIGURE,
    (S, Shadow): (
        *_CANDIDATE,
        no("bad share", "bad_weight"),
        no("condemned", "condemned"),
        _LACKS,
        yes("always", "shadow_started", to=W),
    ),
    (S, Canary): (
        *_CANDIDATE,
        no("bad share", "bad_weight"),
        *_FORWARD,
        no("shadow first", "shadow_first"),
        yes("always", "canary_started", to=C),
    ),
    (S, Promote): (
        no("nothing named", "no_rollout"),
        *_CANDIDATE,
        *_FORWARD,
        no("not told", "rollout_first"),
        yes("always", "promoted", to=S),
    ),
    (S, Rollback): (
        *_BACK,
        yes("leaves the head", "rolled_back", "held", to=S),
        yes("always", "rolled_back", to=S),
    ),
    (W, Configure): _CONFIGURE,
    (W, Shadow): (
        *_SAME,
        no("bad share", "bad_weight"),
        no("same sample", "unchanged"),
        yes("always", "sample_set", to=W),
    ),
    (W, Canary): (
        *_SAME,
        no("bad share", "bad_weight"),
        *_FORWARD,
        no("shadow first", "shadow_first"),
        yes("always", "canary_started", to=C),
    ),
    (W, SetWeight): (no("always", "canary_first"),),
    (W, Promote): (
        *_SAME,
        *_FORWARD,
        no("not proven", "canary_first"),
        yes("always", "promoted", to=S),
    ),
    (W, Certify): (
        *_SAME,
        no("proven already", "unchanged"),
        yes("always", "shadow_passed"),
    ),
    (W, Fail): _FAIL,
    (W, Pause): (no("paused", "unchanged"), yes("always", "paused")),
    (W, Resume): _RESUME,
    (W, Abort): (yes("always", "aborted", to=S),),
    (W, Rollback): (
        *_BACK,
        yes("leaves the head", "aborted", "rolled_back", "held", to=S),
        yes("always", "aborted", "rolled_back", to=S),
    ),
    (C, Configure): _CONFIGURE,
    (C, Canary): (
        *_SAME,
        no("bad share", "bad_weight"),
        no("failed", "verdict_fail"),
        _LACKS,
        yes("same share, other hand", "canary_started", to=C),
        no("same weight", "unchanged"),
        yes("always", "weight_set", to=C),
    ),
    (C, Shadow): (no("always", "rollout_running"),),
    (C, Certify): (no("always", "not_shadowed"),),
    (C, Fail): _FAIL,
    (C, SetWeight): (
        no("bad share", "bad_weight"),
        no("same weight", "unchanged"),
        no("failed", "verdict_fail"),
        _LACKS,
        yes("always", "weight_set", to=C),
    ),
    (C, Promote): (
        *_SAME,
        no("failed", "verdict_fail"),
        _LACKS,
        yes("a step is left, paused", "resumed", "weight_set", to=C),
        yes("a step is left", "weight_set", to=C),
        yes("always", "promoted", to=S),
    ),
    (C, Pause): (
        no("paused", "unchanged"),
        yes("for a failure", "comparison_failed", "paused"),
        yes("always", "paused"),
    ),
    (C, Resume): _RESUME,
    (C, Abort): (yes("always", "aborted", to=S),),
    (C, Rollback): (
        yes("of the candidate", "candidate_rolled_back", to=S),
        *_BACK,
        yes("leaves the head", "aborted", "rolled_back", "held", to=S),
        yes("always", "aborted", "rolled_back", to=S),
    ),
    (E_, Drill): (no("always", "nothing_to_go_back_to"),),
    (S, Drill): (
        no("no way back", "nothing_to_go_back_to"),
        yes("always", "drill_started", to=D),
    ),
    (W, Drill): (no("always", "rollout_running"),),
    (C, Drill): (no("always", "rollout_running"),),
    (D, Configure): _CONFIGURE,
    (D, Return): (no("another drill", "no_drill"), yes("always", "drill_ended", to=S)),
    (D, Rollback): (
        no("target is production", "drill_running"),
        *_BACK,
        yes("leaves the head", "rolled_back", "held", to=S),
        yes("always", "rolled_back", to=S),
    ),
}

for _command in (Shadow, Canary, Promote, SetWeight, Pause, Resume, Abort, Certify, Fail, Drill):
    TABLE[D, _command] = (no("always", "drill_running"),)
for _stage in Stage:
    TABLE.setdefault((_stage, Return), (no("always", "no_drill"),))
    TABLE[_stage, Freeze] = (no("frozen", "unchanged"), yes("always", "frozen"))
    TABLE[_stage, Thaw] = (no("not frozen", "unchanged"), yes("always", "thawed"))
    TABLE[_stage, Follow] = (no("follows", "unchanged"), yes("always", "followed"))
    TABLE[_stage, Hold] = (no("holds", "unchanged"), yes("always", "held"))

# ---------------------------------------------------------------- decide


def decide(state: State, command: AnyCommand, at: str) -> tuple[AnyEvent, ...] | Refusal:
    """Return the events of a command at this endpoint, or the refusal.

    Args:
        state: the row, with policy and releases.
        command: the command to decide on.
        at: the instant, RFC 3339 in UTC; copied into events, never compared.
    """
    for rule in TABLE.get((state.stage, type(command)), (no("always", "no_rollout"),)):
        if GUARDS[rule.when](state, command):
            if rule.refuse is not None:
                return _refusal(rule.refuse, state, command)
            events = tuple(EVENTS[kind](state, command, at) for kind in rule.then)
            return (
                events
                if command.evidence is None
                else tuple(
                    msgspec.structs.replace(event, evidence=command.evidence) for event in events
                )
            )
    raise AssertionError(f"the table has no last word on {state.stage}, {type(command).__name__}")


def _refusal(code: str, state: State, command: AnyCommand) -> Refusal:
    message, hint = REFUSALS[code]
    number, starved = subject(state, command), unmet(state, command)
    lacked = ungiven(state, command)
    if isinstance(command, Configure):
        number, starved = broken(state, command) or (number, starved)
        if code == "answers_break_live":
            number, lacked = overpromised(state, command) or (number, lacked)
    left, bound = condemned(state, command), failure(state, command)
    known = {
        "endpoint": state.endpoint,
        "stage": state.stage.value,
        "release": f"r{number}",
        "candidate": f"r{state.candidate}",
        "fields": ", ".join(starved),
        "answers": ", ".join(lacked),
        "production": f"r{returned(state).production}",
        "failure": bound.reason if bound is not None else "",
        "share": ", ".join(f"{share:g} %" for share in bad_shares(command)),
        "drilled": f"r{returned(state).production}",
        "left": "it behind" if left == number else f"r{left} behind, and it answers the same",
    }
    return Refusal(code=code, message=message.format(**known), hint=hint.format(**known))


def _salt(state: State, command: AnyCommand) -> str:
    """Return the salt of the rollout: a canary that follows a shadow keeps its callers.

    A new rollout gets other callers, so that the same ones are not affected by every canary.
    """
    return state.salt if state.candidate is not None else f"{state.endpoint}/{state.epoch + 1}"


def _promoted(state: State, command: AnyCommand, at: str) -> AnyEvent:
    number = subject(state, command)
    assert number is not None
    return Promoted(
        release=number,
        replaced=state.production,
        at=at,
        override=getattr(command, "override", None),
        equivalence=getattr(command, "equivalence", None),
        answers=_taken(state, number),
    )


def _taken(state: State, number: int) -> tuple[Field, ...] | None:
    """Return the contract of answers that the first promotion takes: the outputs of its release.

    An endpoint promoted before such contracts existed takes the outputs of production.
    """
    if state.answers is not None:
        return None
    live = state.production is not None
    return promised(state) if live else state.releases[number].signature.outputs


def _weight_set(state: State, command: AnyCommand, at: str) -> AnyEvent:
    weight = next_step(state) if isinstance(command, Promote) else command.weight  # type: ignore[union-attr]
    override, release = _overridden(state, command)
    return WeightSet(
        weight=weight,  # type: ignore[arg-type]
        previously=state.weight,
        override=override,
        release=release,
    )


def _resumed(state: State, command: AnyCommand, at: str) -> AnyEvent:
    override, release = _overridden(state, command)
    return Resumed(override=override, release=release)


def _overridden(state: State, command: AnyCommand) -> tuple[str | None, int | None]:
    """Return the override of a command that names no release, and its candidate; else nothing."""
    why = getattr(command, "override", None)
    return (None, None) if why is None else (why, state.candidate)


def _comparison_failed(state: State, command: AnyCommand, at: str) -> AnyEvent:
    reason = command.failure if isinstance(command, Pause) else command.reason  # type: ignore[union-attr]
    assert state.candidate is not None
    assert state.production is not None
    return ComparisonFailed(
        release=state.candidate,
        production=state.production,
        reason=reason,  # type: ignore[arg-type]
    )


def _rolled_back(state: State, command: AnyCommand, at: str) -> AnyEvent:
    assert isinstance(command, Rollback)
    landing = target(state, command)
    left = returned(state).production
    assert landing is not None
    assert left is not None
    return RolledBack(release=landing, left=left, at=at, axis=command.axis)


EVENTS: dict[str, Callable[[Any, Any, str], AnyEvent]] = {
    "configured": lambda s, c, at: Configured(policy=c.policy, digest=c.digest, diff=c.diff),
    "contract_adopted": lambda s, c, at: ContractAdopted(
        fields=s.releases[c.release].signature.inputs
    ),
    "promoted": _promoted,
    "shadow_started": lambda s, c, at: ShadowStarted(
        release=c.release,
        sample=c.sample,
        salt=_salt(s, c),
        override=c.override,
    ),
    "sample_set": lambda s, c, at: SampleSet(sample=c.sample, previously=s.sample),
    "canary_started": lambda s, c, at: CanaryStarted(
        release=c.release,
        weight=c.weight,
        salt=_salt(s, c),
        override=c.override,
        auto=c.auto,
    ),
    "shadow_passed": lambda s, c, at: ShadowPassed(
        release=s.candidate,
        production=s.production,
    ),
    "comparison_failed": _comparison_failed,
    "frozen": lambda s, c, at: Frozen(),
    "thawed": lambda s, c, at: Thawed(),
    "followed": lambda s, c, at: Followed(),
    "held": lambda s, c, at: Held(),
    "weight_set": _weight_set,
    "paused": lambda s, c, at: Paused(),
    "resumed": _resumed,
    "aborted": lambda s, c, at: Aborted(release=s.candidate),
    "candidate_rolled_back": lambda s, c, at: CandidateRolledBack(
        release=s.candidate,
        weight=s.weight,
    ),
    "rolled_back": _rolled_back,
    "drill_started": lambda s, c, at: DrillStarted(
        release=s.back,
        left=s.production,
        until=c.until,
    ),
    "drill_ended": lambda s, c, at: DrillEnded(release=s.drill.left),
}
"""How each event is built from the row, the command and the time. `Any`: the table emits an event
only where a guard has checked the command and the row."""

# ---------------------------------------------------------------- apply


def apply(state: State, event: AnyEvent) -> State:
    """Fold one event into the row. Total: every stored event can be applied."""
    epoch = event.epoch if isinstance(event, Restored) else state.epoch + 1
    after = msgspec.structs.replace(_apply(state, event), epoch=epoch)
    return msgspec.structs.replace(after, **ways_back(after))


def _apply(state: State, event: AnyEvent) -> State:
    change = msgspec.structs.replace
    match event:
        case Configured():
            return _configured(state, event)
        case ContractAdopted():
            return change(state, fields=event.fields)
        case Promoted():
            return _promote(state, event)
        case ShadowStarted():
            return change(
                state,
                stage=Stage.SHADOW,
                candidate=event.release,
                sample=event.sample,
                weight=0,
                holdback=0,
                salt=event.salt,
                paused=False,
            )
        case SampleSet():
            return change(state, sample=event.sample)
        case CanaryStarted():
            return change(
                state,
                stage=Stage.CANARY,
                candidate=event.release,
                sample=0,
                holdback=0,
                weight=event.weight,
                salt=event.salt,
                paused=False,
                automation=change(state.automation, auto=event.auto),
            )
        case WeightSet():
            return change(state, weight=event.weight)
        case Paused():
            return change(state, paused=True)
        case Resumed():
            return change(state, paused=False)
        case ShadowPassed():
            proven = (event.release, event.production)
            failures = _without(state.automation.failures, *proven)
            return change(
                state, automation=change(state.automation, proven=proven, failures=failures)
            )
        case ComparisonFailed():
            return _failed(state, event)
        case Frozen():
            return change(state, automation=change(state.automation, frozen=True))
        case Thawed():
            return change(state, automation=change(state.automation, frozen=False, restored=""))
        case Followed():
            return change(state, follow=True)
        case Held():
            return change(state, follow=False)
        case Aborted():
            return _without_candidate(state)
        case CandidateRolledBack():
            return _without_candidate(_condemn(state, event.release))
        case DrillStarted():
            return drilled(state, event.release, Drilling(left=event.left, until=event.until))
        case DrillEnded():
            return returned(state)
        case Restored():
            # The process that would end the drill is gone.
            state = returned(state)
            return change(state, automation=change(state.automation, restored=event.at))
        case RolledBack():
            return _roll_back(state, event)


def _promote(state: State, event: Promoted) -> State:
    change = msgspec.structs.replace
    if event.answers is not None:
        state = change(state, answers=event.answers)
    salt = state.salt or f"{state.endpoint}/{state.epoch + 1}"
    held = 0 if event.replaced is None else buckets(state.policy.canary.holdback)
    state = _in_production(state, event.release, event.at)
    pardoned = tuple(r for r in state.condemned if r != event.release)
    state = _without_candidate(change(state, condemned=pardoned))
    return change(state, holdback=held, salt=salt if held else "")


def _roll_back(state: State, event: RolledBack) -> State:
    change = msgspec.structs.replace
    state = _in_production(returned(state), event.release, event.at)
    state = _condemn(state, event.left)
    pardoned = tuple(r for r in state.condemned if r != event.release)
    if state.holdback:
        state = change(state, holdback=0, salt="")
    return change(state, condemned=pardoned)


def _configured(state: State, event: Configured) -> State:
    policy = event.policy
    answers = state.answers if policy.answers is None else policy.answers
    # A running holdback can shrink or end; a new policy never starts one.
    held = min(state.holdback, buckets(policy.canary.holdback))
    # Only a changed value counts: a hold set after a rollback stays.
    follow = policy.features.follow
    if follow == state.policy.features.follow:
        follow = state.follow
    return msgspec.structs.replace(
        state,
        policy=policy,
        policy_digest=event.digest,
        fields=policy.fields or state.fields,
        answers=answers,
        holdback=held,
        follow=follow,
    )


def _failed(state: State, event: ComparisonFailed) -> State:
    """Store the failed pair, and discard a shadow window that it passed before."""
    pair = (event.release, event.production)
    failure = Failure(
        candidate=event.release,
        production=event.production,
        reason=event.reason[:REASON],
        salt=state.salt,
        stage=state.stage,
        policy=state.policy_digest,
    )
    known = state.automation
    failures = (*_without(known.failures, *pair), failure)[-FAILURES:]
    proven = None if known.proven == pair else known.proven
    return msgspec.structs.replace(
        state, automation=msgspec.structs.replace(known, proven=proven, failures=failures)
    )


def _without(failures: tuple[Failure, ...], candidate: int, production: int) -> tuple[Failure, ...]:
    return tuple(f for f in failures if (f.candidate, f.production) != (candidate, production))


def _in_production(state: State, release: int, at: str) -> State:
    served = (*(r for r in state.served if r != release), release)
    return msgspec.structs.replace(
        state,
        stage=Stage.SETTLED if state.candidate is None else state.stage,
        production=release,
        previous=state.production,
        served=served,
        flipped_at=at,
    )


def _without_candidate(state: State) -> State:
    return msgspec.structs.replace(
        state,
        stage=Stage.SETTLED,
        candidate=None,
        weight=0,
        sample=0,
        salt="",
        paused=False,
        automation=msgspec.structs.replace(state.automation, auto=False),
    )


def _condemn(state: State, release: int) -> State:
    if release in state.condemned:
        return state
    return msgspec.structs.replace(state, condemned=(*state.condemned, release))
