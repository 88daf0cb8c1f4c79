"""Samples for tests: small real releases and rows, and commands run on the pure core."""

from __future__ import annotations

import msgspec

from kedge.core.errors import Refused
from kedge.core.release.commands import AnyCommand
from kedge.core.release.machine import apply, decide
from kedge.core.values import Field, Placement, Policy, Refusal, Release, Signature, State

AT = "2026-01-05T08:00:00.000000Z"
NEEDS = "dep_delay:float32"
GIVES = "p_late:float32"


def fields(text: str) -> tuple[Field, ...]:
    """Read `dep_delay:float32,origin:string?`; a question mark means that null is allowed."""
    found = []
    for part in filter(None, text.split(",")):
        name, _, dtype = part.partition(":")
        raw = {"name": name, "dtype": dtype.rstrip("?"), "nullable": dtype.endswith("?")}
        found.append(msgspec.convert(raw, Field))
    return tuple(found)


def release(
    number: int,
    *,
    version: int | None = None,
    needs: str = NEEDS,
    gives: str = GIVES,
    transformation: int = 1,
    placement: Placement = Placement.INLINE,
) -> Release:
    """Make a release of `flights`; its version defaults to its number."""
    version = number if version is None else version
    return Release(
        endpoint="flights",
        number=number,
        digest=f"sha256:release-{number}",
        model="flights",
        version=version,
        model_digest=f"sha256:model-{version}",
        flavour="onnx",
        signature=Signature(inputs=fields(needs), outputs=fields(gives)),
        placement=placement,
        schema="flight/1",
        transformation=transformation,
    )


def endpoint(*releases: Release, policy: Policy | None = None) -> State:
    """Make an empty endpoint `flights` that knows these releases."""
    return State(
        endpoint="flights",
        policy=policy or Policy(audience="internal"),
        releases={r.number: r for r in releases},
    )


def run(state: State, *commands: AnyCommand, at: str = AT) -> State:
    """Run commands on the row.

    Raises:
        Refused: the rules refuse one of them.
    """
    for command in commands:
        events = decide(state, command, at)
        if isinstance(events, Refusal):
            raise Refused(events.message, code=events.code, hint=events.hint)
        for event in events:
            state = apply(state, event)
    return state
