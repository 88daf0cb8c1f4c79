"""Check of an endpoint's readiness for a rollback, and the gate of a promotion.

This module collects the facts and records the results; `core.readiness` judges.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeVar

import msgspec

from kedge.config.contacts import is_group
from kedge.core.errors import KedgeError, Refused
from kedge.core.features.generations import Run, runs_of
from kedge.core.hosts import is_loopback
from kedge.core.readiness import (
    DAY_S,
    EVIDENCE_S,
    PROOF_S,
    Check,
    NewestNote,
    ReadinessFacts,
    failed,
    judge,
    landing_of,
)
from kedge.core.release.commands import Configured
from kedge.core.stored.ledger import Note
from kedge.core.stored.notes import (
    AlertTested,
    AnyNoteBody,
    DrillResult,
    OverrideNote,
    Proven,
    ReadinessNote,
    RunbookNote,
    build_note,
    spell_kind,
)
from kedge.core.stored.roster import Member
from kedge.core.time.instants import read_instant
from kedge.core.values import Contact, Policy, State, Value
from kedge.engine.control.patrol import unwritten
from kedge.engine.libraries import find_differences
from kedge.engine.submission import Gate, Say, Unready, replicas
from kedge.operations.evidence.read import state_of
from kedge.operations.features.staleness import behind, lag_of
from kedge.operations.readiness.deployable import prove, proven_of
from kedge.operations.status.view import lacks_of, not_fenced
from kedge.workspace import Workplace

Proving = Literal["again", "missing", "never"]
"""Whether a release is proven again, only without a proof of the last day, or never."""
POLICIES = 50
"""Limit of policy changes searched for the newest one of the alert recipients."""
COUNTED_S = 1.5
"""Interval between two counts: workers count once a second, so that counts differ under traffic."""


# ---------------------------------------------------------------- facts


def look(
    place: Workplace,
    state: State,
    *,
    by: str,
    proving: Proving,
    promoting: bool = False,
) -> tuple[tuple[Check, ...], Proven | None]:
    """Judge one endpoint; return its checks and the proof of the landing.

    Args:
        place: the state directory.
        state: the row.
        by: the actor, for a recorded proof.
        proving: when a release is proven, which takes seconds to minutes.
        promoting: another release is about to replace production.

    Raises:
        Refused: `proof_busy`.
        Unavailable: the ledger or the roster cannot be read.
    """
    landing = landing_of(state, promoting=promoting)
    landing = landing if landing in state.releases else None
    proof = None
    if landing is not None:
        proof = proven_of(place, state, landing)
        fresh = proof is not None and place.clock.unix() - proof[1] <= PROOF_S
        if proving == "again" or (proving == "missing" and not fresh):
            proof = prove(place, state, landing, by=by, again=proving == "again")
    facts = _facts(place, state, landing, proof)
    return judge(facts), proof[0] if proof is not None else None


def _facts(
    place: Workplace,
    state: State,
    landing: int | None,
    proof: tuple[Proven, float] | None,
) -> ReadinessFacts:
    members = replicas(place.roster.members())
    now = place.clock.unix()
    kept, cold = (True, {}) if landing is None else lacks_of(state, landing, members, now)
    read = _runs(state, landing)
    stale, blind = _stale(place, read)
    return ReadinessFacts(
        state=state,
        now=now,
        landing=landing,
        grouped=_grouped(state.policy.owner),
        people_since=_people_since(place, state),
        tested=_newest(place, state, AlertTested),
        proven=proof[0] if proof is not None else None,
        proven_at=proof[1] if proof is not None else 0.0,
        replicas=tuple(member.name for member in members),
        cold={
            name: lack.text for name, lack in cold.items() if lack.code is not Unready.WINDOW_OVER
        },
        kept=kept,
        pinned=tuple(m.name for m in members if state.endpoint in m.pinned),
        drill=_newest(place, state, DrillResult),
        runbook=_newest(place, state, RunbookNote),
        unwritten=unwritten(place.roster),
        silence_s=_silence_s(place, state, now),
        runs=len(read),
        stale=stale,
        blind=blind,
    )


B = TypeVar("B")


def _newest(place: Workplace, state: State, body: type[B]) -> NewestNote[B] | None:
    """Return the newest note of a kind; None if this version can read none."""
    for entry in place.ledger.entries(state.endpoint, spell_kind(body)):
        if isinstance(entry.event, Note) and isinstance(entry.event.body, body):
            return NewestNote(read_instant(entry.at), entry.epoch, entry.event.body)
    return None


def _grouped(owner: Contact | None) -> bool:
    """Return whether an owner is a group: `kedge apply` refuses it, but a policy may be older."""
    if owner is None:
        return False
    address = owner.contact.removeprefix("mailto:").partition("@")[0]
    return is_group(owner.name) or ("@" in owner.contact and is_group(address))


def _people_since(place: Workplace, state: State) -> int:
    """Return the epoch at which the alert recipients last changed."""
    since = 0
    for entry in place.ledger.entries(state.endpoint, "configured", limit=POLICIES):
        if not isinstance(entry.event, Configured) or _people(entry.event.policy) != _people(
            state.policy
        ):
            break
        since = entry.epoch
    return since


def _people(policy: Policy) -> tuple[object, ...]:
    return policy.owner, policy.escalation, policy.rota


def _silence_s(place: Workplace, state: State, now: float) -> float | None:
    """Return how long nothing was counted under traffic; None if nothing is to be counted.

    Unreadable telemetry is ignored here: replicas report their own write errors.
    """
    if state.compared is None:
        return None
    # A change behind so many notes is old; the row itself has its newest flip.
    changed = next(
        (
            read_instant(e.at)
            for e in place.ledger.history(state.endpoint, POLICIES)
            if not isinstance(e.event, Note)
        ),
        read_instant(state.flipped_at) if state.flipped_at else 0.0,
    )
    try:
        newest = max(place.windows.newest(state.endpoint) or 0.0, changed)
        if now - newest <= EVIDENCE_S:
            return now - newest
        before = place.evidence.tallies(state.endpoint)
        place.clock.sleep(COUNTED_S)
        comes = place.evidence.tallies(state.endpoint) != before
    except KedgeError:
        return None
    return now - newest if comes else None


def _runs(state: State, landing: int | None) -> tuple[Run, ...]:
    """Return the runs that production and the landing read by key, each once."""
    roles = (state.releases.get(n) for n in (state.production, landing) if n is not None)
    return tuple(dict.fromkeys(run for one in roles if one for run in runs_of(one.generation)))


def _stale(place: Workplace, runs: tuple[Run, ...]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the stale runs by view, and the unreadable runs with the hint of their fault."""
    found: dict[str, str] = {}
    blind: dict[str, str] = {}
    for run in runs:
        try:
            lag, patience = lag_of(place, run)
        except KedgeError as error:
            blind[f"{run.label} cannot be looked at: {error}"] = (
                error.hint or "kedge features status"
            )
            continue
        if lag > patience:
            found[behind(run, lag, patience)] = run.view
    return found, blind


# ---------------------------------------------------------------- recording


def file_readiness(place: Workplace, state: State, checks: tuple[Check, ...], *, by: str) -> None:
    """Record the result if it changed or a day has passed."""
    found, known = _found(checks), _newest(place, state, ReadinessNote)
    same = known is not None and known.body.failed == found.failed
    if known is None or not same or place.clock.unix() - known.at >= DAY_S:
        _note(place, state, found, by=by)


def _found(checks: tuple[Check, ...]) -> ReadinessNote:
    names = failed(checks)
    why = {check.name: check.why for check in checks if check.name in names}
    return ReadinessNote(ready=not names, failed=names, why=why)


def _note(place: Workplace, state: State, body: AnyNoteBody, *, by: str, reason: str = "") -> None:
    place.ledger.note(state.endpoint, build_note(body), by=by, reason=reason, at=place.clock.now())


def checker(place: Workplace, *, by: str) -> Callable[[State], tuple[str, ...]]:
    """Return control's check of an endpoint, which returns the names of the failed checks."""

    def check(state: State) -> tuple[str, ...]:
        checks, _ = look(place, state, by=by, proving="missing")
        file_readiness(place, state, checks, by=by)
        return failed(checks)

    return check


# ---------------------------------------------------------------- kedge check


class CheckedEndpoint(Value, frozen=True, kw_only=True):
    """Whether a rollback of an endpoint would work now."""

    endpoint: str
    ready: bool
    """Whether no check fails."""
    failed: tuple[str, ...]
    """Names of the failed checks."""
    checks: tuple[Check, ...]
    proof: Proven | None
    """Result of the way back's deployment from nothing; null: none within a day."""
    fence: tuple[str, ...]
    """Parts of the fence around models that are missing on a host."""
    libraries: tuple[str, ...]
    """Releases that were written with other versions of their libraries; this is no check."""


def check_of(place: Workplace, endpoint: str, *, by: str, again: bool) -> CheckedEndpoint:
    """Run every check of an endpoint, and record the result.

    Args:
        place: the state directory.
        endpoint: its name.
        by: the actor.
        again: prove the way back again, even if the last proof is less than a day old.

    Raises:
        Refused: `unknown_endpoint`, `proof_busy`.
    """
    state = state_of(place, endpoint)
    checks, proof = look(place, state, by=by, proving="again" if again else "never")
    file_readiness(place, state, checks, by=by)
    return CheckedEndpoint(
        endpoint=endpoint,
        ready=not failed(checks),
        failed=failed(checks),
        checks=checks,
        proof=proof,
        fence=tuple(not_fenced(endpoint, replicas(place.roster.members()))),
        libraries=_libraries(place, state),
    )


def _libraries(place: Workplace, state: State) -> tuple[str, ...]:
    """Return the releases, live or next, that were written with other library versions.

    This is no check: their golden rows passed here, which proves more than a version number.
    """
    live = (state.production, state.candidate, landing_of(state))
    return tuple(
        f"{state.releases[number].label} was {said}"
        for number in sorted({number for number in live if number in state.releases})
        for said in find_differences(place.artifacts, state.releases[number].model_digest)
    )


# ---------------------------------------------------------------- the gate


def gate_of(place: Workplace, *, loopback: bool, say: Say) -> Gate:
    """Return the gate that a release passes before it becomes production.

    If the policy sets no `readiness`, a failed check is only a warning on loopback, where people
    experiment, and for the first release. For the latter no rollback is possible yet, and what
    is not set up cannot be tested before something serves. Otherwise it is a refusal. A warning
    never waits for a proof, since the proof could not change the outcome.

    Args:
        place: the state directory, of the thread that promotes.
        loopback: whether kedge.toml lets only this machine reach the gateways.
        say: called with failed checks that are not refused.
    """

    def gate(state: State, release: int, override: str | None, by: str) -> None:
        reached = not loopback or _exposed(place)
        first = state.production is None
        usual = "refuse" if reached and not first else "warn"
        refuses = (state.policy.readiness or usual) == "refuse"
        binds = refuses and override is None
        try:
            checks, _ = look(
                place, state, by=by, promoting=True, proving="missing" if binds else "never"
            )
        except KedgeError as error:
            if binds:
                raise
            say(f"warning: whether {state.endpoint} is ready cannot be judged: {error}")
            return
        if not failed(checks):
            return
        if binds:
            raise _not_ready(state, checks)
        _let_through(place, state, release, checks, override if refuses else None, by)
        later = reached and first and state.policy.readiness is None
        say(
            f"warning: a rollback of {state.endpoint} at night could fail or reach no one. Not set"
            f" up: {', '.join(failed(checks))}; kedge check {state.endpoint} shows how to fix each"
            + (
                "\nwarning: the first release is served anyway; the next promotion is refused until"
                " they pass"
                if later
                else ""
            )
        )

    return gate


def _exposed(place: Workplace) -> bool:
    """Return whether other machines reach a gateway, whatever kedge.toml says now."""
    return any(not is_loopback(_host(member)) for member in replicas(place.roster.members()))


def _host(member: Member) -> str:
    return member.address.rpartition(":")[0]


def _not_ready(state: State, checks: tuple[Check, ...]) -> Refused:
    why = "; ".join(f"{c.name}: {c.why}" for c in checks if c.outcome == "fail")
    return Refused(
        f"{state.endpoint} is not ready for a rollback: {why}",
        code="not_ready",
        hint=(
            f"kedge check {state.endpoint} shows how to fix each, and checks again; or use"
            ' --override "reason"'
        ),
        details={"checks": [msgspec.to_builtins(check) for check in checks]},
    )


def _let_through(
    place: Workplace,
    state: State,
    release: int,
    checks: tuple[Check, ...],
    override: str | None,
    by: str,
) -> None:
    """Record that a release became production on an endpoint that was not ready."""
    found, promoting = _found(checks), f"r{release}"
    if override is None:
        _note(place, state, msgspec.structs.replace(found, promoting=promoting), by=by)
        return
    body = OverrideNote(ready=found.ready, failed=found.failed, why=found.why, promoting=promoting)
    _note(place, state, body, by=by, reason=override)
