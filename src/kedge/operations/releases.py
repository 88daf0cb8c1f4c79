"""What the verbs do, beyond parsing and printing. Uses the parts that `wiring` opens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from kedge.adapters.sql.sqlite.create import create, migrate
from kedge.config.locate import find_deletion, find_interrupted
from kedge.config.model import Settings
from kedge.core.automation import guardrails
from kedge.core.bounds import BOUNDS
from kedge.core.codec import fingerprint
from kedge.core.errors import Refused, Unavailable
from kedge.core.evidence.labels import is_own
from kedge.core.features.generations import Run, generation_of, runs_of
from kedge.core.features.schema import Spec, TransformVersion
from kedge.core.names import get_known, read_number
from kedge.core.release.commands import Configure
from kedge.core.release.guards import promised
from kedge.core.release.machine import decide
from kedge.core.stored.ledger import Note
from kedge.core.stored.roster import Tally
from kedge.core.values import (
    Bundle,
    Field,
    ModelVersion,
    Output,
    Placement,
    Policy,
    Proof,
    Refusal,
    Release,
    State,
)
from kedge.engine.libraries import find_differences
from kedge.engine.pins import HostDisk, read_pins
from kedge.engine.recording.custom import check_function, set_fence
from kedge.engine.status import describe
from kedge.engine.submission import SILENT_S
from kedge.engine.unrecorded import unrecorded
from kedge.gateway.auth import make_secret
from kedge.inspection import RULE
from kedge.inspection.independence import release_mark
from kedge.transforms.authoring import spec_of
from kedge.workspace import Workplace, actor

OPEN_ALERTS = 200
"""Open alerts of one endpoint that status shows at most."""


# ---------------------------------------------------------------- setting up


def create_workplace(state_dir: Path) -> bool:
    """Create the ledger, if there is none and never was one; True when it was made.

    Raises:
        Refused: `ledger_lost`: gateways of this host remember what a ledger told them.
        Unavailable: `restore_unfinished`.
    """
    interrupted = find_interrupted(state_dir)
    if interrupted is not None:
        raise interrupted
    try:
        if not (state_dir / "ledger").exists() and HostDisk(state_dir).remembered():
            raise Refused(
                f"there was a ledger in {state_dir}, and it is gone",
                code="ledger_lost",
                hint=(
                    "restore it from a backup; to begin again without its history, "
                    f"remove {state_dir / 'replicas'} too"
                ),
            )
        create(state_dir)
    except Refused as error:
        if error.code != "ledger_exists":
            raise
        return False
    make_secret(state_dir)
    return True


def ensure_ledger(state_dir: Path) -> bool:
    """Make the ledger at the very first start; bring an older one up to date; True when it was made.

    Raises:
        Unavailable: there was one, and it is gone. It is never silently made again.
    """
    try:
        made = create_workplace(state_dir)
    except Refused as error:
        raise Unavailable(str(error), code="ledger_gone", hint=error.hint) from error
    except OSError as error:
        raise Unavailable(
            f"no ledger can be made in {state_dir}: {error.strerror or error}",
            code="not_writable",
            hint="kedge doctor names what cannot be written",
        ) from error
    migrate(state_dir)
    return made


def apply_policies(place: Workplace, settings: Settings) -> dict[str, list[str]]:
    """Append `configured` for every endpoint whose policy differs from the one in force."""
    states = place.ledger.read().states
    changed: dict[str, list[str]] = {}
    for name, policy in settings.endpoints.items():
        state = states.get(name, State(endpoint=name))
        digest = fingerprint(policy)
        if digest == state.policy_digest:
            continue
        if policy.output.function is not None:
            set_fence(place.state_dir, place.fence)
            check_function(policy.output)
        own = guardrails(policy)["quality"].metric or ""
        if is_own(own):
            set_fence(place.state_dir, place.fence)
            check_function(
                Output(kind="custom", function=own),
                "guardrails.quality.metric",
                "with an answer and what was true, and gives a number from 0 (right) to 1",
            )
        diff = tuple(difference(*_as_shown(state, policy))) if state.policy_digest else ()
        at = place.clock.now()
        events = decide(state, Configure(policy=policy, digest=digest, diff=diff), at)
        if isinstance(events, Refusal):
            raise Refused(events.message, code=events.code, hint=events.hint)
        place.ledger.append(
            name, events, expect=state.epoch, by=actor(), reason="kedge apply", at=at
        )
        changed[name] = list(diff) or [
            "spelled anew, with the same meaning" if state.policy_digest else "first policy"
        ]
    return changed


def _as_shown(state: State, policy: Policy) -> tuple[dict[str, Any], dict[str, Any]]:
    """The policies before and after as plain values, with both contracts by the name of a field.

    A contract that is left out stays what it is, so it is no difference.
    """
    return tuple(
        msgspec.to_builtins(one)
        | {
            "fields": _by_name(one.fields or state.fields),
            "answers": _by_name(promised(state) if one.answers is None else one.answers),
        }
        for one in (state.policy, policy)
    )


def _by_name(fields: tuple[Field, ...]) -> dict[str, Any]:
    return {field.name: _described(field) for field in fields}


def _described(field: Field) -> str:
    bounds = {name: getattr(field, name) for name in BOUNDS}
    said = [
        f", {name} {bound if isinstance(bound, int) else list(bound)}"
        for name, bound in bounds.items()
        if bound is not msgspec.UNSET
    ]
    null = ", or null" if field.nullable else ""
    return f"{field.dtype}{list(field.shape) or ''}{null}{''.join(said)}"


def difference(old: Any, new: Any, place: str = "") -> list[str]:
    """What changed between two plain values: one line a leaf."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(old.keys() | new.keys())
        return [
            line
            for key in keys
            for line in difference(
                old.get(key), new.get(key), f"{place}.{key}" if place else str(key)
            )
        ]
    return [] if old == new else [f"{place}: {_spelled(old)} -> {_spelled(new)}"]


def _spelled(value: Any) -> str:
    """Return a value of a policy as JSON, which is close to what kedge.toml has."""
    return "not set" if value is None else json.dumps(value, ensure_ascii=False)


# ---------------------------------------------------------------- versions and releases


def release_of(
    place: Workplace,
    endpoint: str,
    text: str,
    *,
    transformation: int | None = None,
    generation: str | None = None,
) -> Release:
    """The release that `v2` (with today's options and features) or `r3` names.

    Args:
        place: where.
        endpoint: whose.
        text: a version or a release.
        transformation: this version of its features' code. None: today's.
        generation: the runs that it reads, or some of them, as labels joined by +; or "newest".
            None: today's, where today's read the same schema.

    Raises:
        Refused: there is no such version, release, transformation or run.
    """
    state = place.ledger.read().states.get(endpoint, State(endpoint=endpoint))
    number = read_number(text[1:] if text[:1] in ("v", "r") else text)
    if number is None:
        raise Refused(
            f"{text[:80]!r} is neither a version nor a release",
            code="unknown_release",
            hint="write v2 for a version, r2 for a release",
        )
    if text.startswith("r"):
        if number not in state.releases:
            raise Refused(
                f"{endpoint} has no release {text}",
                code="unknown_release",
                hint=f"kedge versions {endpoint}",
            )
        return state.releases[number]
    version = next((v for v in place.registry.versions(endpoint) if v.number == number), None)
    if version is None:
        raise Refused(
            f"no version v{number} of {endpoint} is registered",
            code="unknown_version",
            hint=f"kedge register {endpoint} PATH; kedge versions {endpoint} lists them",
        )
    code = transform_of(place, state, version.schema, transformation)
    proof = place.artifacts.proof(version.digest)
    bundle = Bundle(
        endpoint=endpoint,
        model=version.model,
        version=version.number,
        model_digest=version.digest,
        placement=placement_of(state.policy, version, proof, transformed=code is not None),
        schema=version.schema,
    )
    if code is None:
        return place.registry.release(bundle)
    spec = spec_of(place.artifacts.verify(code.digest))
    runs = read_by(place, state, spec, generation)
    bundle = msgspec.structs.replace(
        bundle, transformation=code.number, generation=generation_of(runs) if runs else None
    )
    return place.registry.release(bundle, raw=spec.raw, code=code.digest)


def read_by(
    place: Workplace, state: State, spec: Spec, asked: str | None = None
) -> tuple[Run, ...]:
    """The runs that a transformation reads: those that are asked for, today's, the newest.

    Raises:
        Refused: `unknown_generation`: a label names nothing that it reads; `no_generation`:
            nothing of a schema that it reads is materialised yet.
    """
    ready = [run for run, standing in place.generations.runs().items() if standing == "ready"]
    live = state.releases.get(state.production) if state.production is not None else None
    wanted = [*runs_of(asked if asked != "newest" else None)]
    schemas = {schema.name for schema in spec.read}
    stray = [run.label for run in wanted if run.schema not in schemas or run not in ready]
    if stray or (asked not in (None, "newest") and not wanted):
        raise Refused(
            f"{', '.join(stray) or asked} is no run that {spec.schema.name} could read",
            code="unknown_generation",
            hint=f"ready are: {', '.join(r.label for r in ready if r.schema in schemas) or 'none'}",
        )
    today = runs_of(live.generation) if live is not None and asked != "newest" else ()
    found = []
    for schema in spec.read:
        mine = [run for run in ready if run.schema == schema.name]
        kept = [run for run in (*today, *wanted) if run in mine]
        if not mine:
            view = schema.name.partition("/")[0]
            raise Refused(
                f"nothing of {schema.name} is materialised yet",
                code="no_generation",
                hint=f"kedge features materialise {view}",
            )
        found.append(kept[-1] if kept else mine[-1])
    return tuple(found)


def transform_of(
    place: Workplace, state: State, schema: str | None, number: int | None
) -> TransformVersion | None:
    """The transformation that a release of this schema has: the named one, production's, the newest.

    None: the model has no schema, or nothing implements it; then callers send its features.

    Raises:
        Refused: `unknown_transformation`.
    """
    known = {one.number: one for one in place.features.versions(schema)} if schema else {}
    production = state.releases.get(state.production) if state.production is not None else None
    if number is None and production is not None and production.schema == schema:
        number = production.transformation
    if number is None:
        return known[max(known)] if known else None
    if number not in known:
        raise Refused(
            f"{schema or 'a model without a schema'} has no transformation {number}",
            code="unknown_transformation",
            hint=f"known are: {', '.join(one.label for one in known.values()) or 'none'}",
        )
    return known[number]


def placement_of(
    policy: Policy, version: ModelVersion, proof: Proof, *, transformed: bool
) -> Placement:
    """Where a release runs in production.

    Inline: what has no transformation, stalls no worker while it loads, and is proven plain or let run there by an
    operator.

    Raises:
        Refused: `not_plain`: `runtime = "inline"`, and neither holds.
    """
    if policy.runtime == "process":
        return Placement.PROCESS
    why = inline_fault(proof, transformed=transformed)
    if policy.runtime == "auto":
        return Placement.PROCESS if why or version.stalls else Placement.INLINE
    if why:
        raise Refused(
            f"{version.label} may not run inline: {why}",
            code="not_plain",
            hint='runtime = "auto" runs it in a process'
            + ("" if transformed else "; kedge register --trust-inline REASON lets it run inline"),
        )
    return Placement.INLINE


def inline_fault(proof: Proof, *, transformed: bool) -> str:
    """Why a version may not run inline, in words; empty when it may."""
    if transformed:
        return "a transformation runs before it"
    if proof.plain is not None and proof.plain.apart:
        return proof.plain.why
    if proof.inline:
        return ""
    if proof.plain is None or proof.plain.rule != RULE:
        return "it was not walked yet: register it again"
    return "" if proof.plain.proven else proof.plain.why


# ---------------------------------------------------------------- looking


def status_of(place: Workplace, endpoint: str | None) -> list[dict[str, Any]]:
    """The status of one endpoint, or of all. Without the ledger: as this host remembers it.

    Raises:
        Refused: there is no such endpoint.
    """
    lost = ""
    try:
        states = place.ledger.read().states
    except Unavailable as error:
        fault = find_deletion(place.state_dir) or error
        states, lost = place.disk.remembered(), f"{fault.code}: {fault}"
        if not states:
            raise fault from (None if fault is error else error)
    if endpoint is not None:
        get_known(states, endpoint)
    found = []
    pins, unpinned = read_pins(place.disk)
    for name in sorted(states) if endpoint is None else [endpoint]:
        members = place.roster.members()
        tallies, aside, unread, missing = _observed(place, states[name])
        open_ = place.alerts.listed(name, over=False, limit=OPEN_ALERTS) if not lost else ()
        item = describe(
            states[name], members, tallies, pins, now=place.clock.unix(), alerts=open_, aside=aside
        )
        for part, number in (
            ("production", states[name].production),
            ("candidate", states[name].candidate),
        ):
            if item[part] is not None and number is not None:
                release = states[name].releases[number]
                item[part]["rows"] = release_mark(place.artifacts, release)
                item[part]["libraries"] = find_differences(place.artifacts, release.model_digest)
        item["unrecorded"] = missing
        item["readiness"] = None if lost else _readiness(place, name)
        if lost:
            item["faults"].insert(
                0, f"the ledger cannot be read ({lost}): this is what the host remembers"
            )
        if unread:
            item["faults"].append(f"the evidence cannot be read ({unread})")
        if unpinned:
            item["faults"].append(unpinned)
        found.append(item)
    return found


def _observed(
    place: Workplace, state: State
) -> tuple[tuple[Tally, ...], list[str], str, dict[str, Any] | None]:
    """What was counted of an endpoint, what is kept aside, why that cannot be read, and what left no record.

    A full disk hides no state.
    """
    tallies: tuple[Tally, ...] = ()
    try:
        tallies = place.evidence.tallies(state.endpoint)
        aside = place.list_aside(state)
        return tallies, aside, "", unrecorded(place.evidence, place.records, state.endpoint)
    except Unavailable as error:
        return tallies, [], f"{error.code}: {error}", None


def _readiness(place: Workplace, endpoint: str) -> dict[str, Any] | None:
    """What was filed last of an endpoint's readiness; None: no check has run yet."""
    for entry in place.ledger.entries(endpoint, "readiness"):
        if isinstance(entry.event, Note):
            return {
                "ready": entry.event.body.get("ready"),
                "at": entry.at,
                "failed": entry.event.body.get("failed", []),
            }
    return None


def forget_replica(place: Workplace, name: str) -> None:
    """Take a replica off the roster by hand.

    Raises:
        Refused: it is not known, or it still speaks.
    """
    member = next((m for m in place.roster.members() if m.name == name), None)
    if member is None:
        raise Refused(f"no replica {name}", code="unknown_replica", hint="kedge status lists them")
    if place.clock.unix() - member.beat_at < SILENT_S:
        raise Refused(f"{name} still speaks", code="replica_alive", hint="stop it first")
    place.roster.leave(name)
