"""Releases: the one that a command names, its transformation, its runs, and its placement."""

from __future__ import annotations

import msgspec

from kedge.core.errors import Refused
from kedge.core.features.generations import Run, generation_of, runs_of
from kedge.core.features.schema import Spec, TransformVersion
from kedge.core.names import read_number
from kedge.core.values import Bundle, ModelVersion, Placement, Policy, Proof, Release, State
from kedge.inspection import RULE
from kedge.transforms.authoring import spec_of
from kedge.workspace import Workplace


def release_of(
    place: Workplace,
    endpoint: str,
    text: str,
    *,
    transformation: int | None = None,
    generation: str | None = None,
) -> Release:
    """Return the release that `v2` (with today's options and features) or `r3` names.

    Args:
        place: the state directory.
        endpoint: its name.
        text: a version or a release.
        transformation: the version of its features' code. None: today's.
        generation: some or all of the runs that it reads, as labels joined by +; or "newest".
            None: today's, if today's read the same schema.

    Raises:
        Refused: the version, release, transformation or run is not found.
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
    """Return the runs that a transformation reads: the named ones, else today's, else the newest.

    Raises:
        Refused: `unknown_generation`: a label names no run that it reads; `no_generation`:
            a schema that it reads is not materialised yet.
    """
    ready = [run for run, standing in place.generations.runs().items() if standing == "ready"]
    live = state.releases.get(state.production) if state.production is not None else None
    wanted = [*runs_of(asked if asked != "newest" else None)]
    schemas = {schema.name for schema in spec.read}
    stray = [run.label for run in wanted if run.schema not in schemas or run not in ready]
    if stray or (asked not in (None, "newest") and not wanted):
        raise Refused(
            f"{', '.join(stray) or asked} is not a run that {spec.schema.name} could read",
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
    """Return the transformation of a release of this schema: the named, production's or newest one.

    None: the model has no schema, or no transformation implements it; callers send its features.

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
    """Return where a release runs in production.

    A release is inline if it has no transformation, stalls no worker while it loads, and is proven
    plain or allowed by an operator.

    Raises:
        Refused: `not_plain`: `runtime = "inline"` is set, but it is neither plain nor allowed.
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
    """Return why a version must not run inline, in words; empty if it can."""
    if transformed:
        return "a transformation runs before it"
    if proof.plain is not None and proof.plain.apart:
        return proof.plain.why
    if proof.inline:
        return ""
    if proof.plain is None or proof.plain.rule != RULE:
        return "it was not walked yet: register it again"
    return "" if proof.plain.proven else proof.plain.why
