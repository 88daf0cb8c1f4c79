"""Setup of a state directory: its ledger, and the policies of kedge.toml."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec

from kedge.adapters.sql.sqlite.create import create, migrate
from kedge.config.locate import find_interrupted
from kedge.config.model import Settings
from kedge.core.automation import guardrails
from kedge.core.bounds import BOUNDS
from kedge.core.codec import fingerprint
from kedge.core.errors import Refused, Unavailable
from kedge.core.evidence.labels import is_own
from kedge.core.release.commands import Configure
from kedge.core.release.guards import promised
from kedge.core.release.machine import decide
from kedge.core.values import Field, Output, Policy, Refusal, State, Value
from kedge.engine.pins import HostDisk
from kedge.engine.recording.custom import check_function, set_fence
from kedge.gateway.auth import make_secret
from kedge.workspace import Workplace, actor


def create_workplace(state_dir: Path) -> bool:
    """Create the ledger if none ever existed; return True if it was created.

    Raises:
        Refused: `ledger_lost`: gateways of this host remember a ledger.
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
    """Create the ledger at the first start, or migrate an older one; return True if it was created.

    Raises:
        Unavailable: a ledger existed and is missing. It is never silently created again.
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


class AppliedPolicies(Value, frozen=True):
    """The policies that came into force."""

    changed: dict[str, tuple[str, ...]]
    """By changed endpoint: the differences from the policy before, a line each."""


def apply_policies(place: Workplace, settings: Settings) -> AppliedPolicies:
    """Append `configured` for every endpoint whose policy differs from the one in force."""
    states = place.ledger.read().states
    changed: dict[str, tuple[str, ...]] = {}
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
        same = (
            "spelled differently, with the same meaning" if state.policy_digest else "first policy"
        )
        changed[name] = diff or (same,)
    return AppliedPolicies(changed)


def _as_shown(state: State, policy: Policy) -> tuple[dict[str, object], dict[str, object]]:
    """Return the policies before and after as plain values, with contracts by field name.

    A contract that is left out stays unchanged, so it is no difference.
    """
    return tuple(
        msgspec.to_builtins(one)
        | {
            "fields": _by_name(one.fields or state.fields),
            "answers": _by_name(promised(state) if one.answers is None else one.answers),
        }
        for one in (state.policy, policy)
    )


def _by_name(fields: tuple[Field, ...]) -> dict[str, str]:
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


def difference(old: object, new: object, place: str = "") -> list[str]:
    """Return the differences of two plain values, one line a leaf."""
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


def _spelled(value: object) -> str:
    """Return a value of a policy as JSON, which is close to its form in kedge.toml."""
    return "not set" if value is None else json.dumps(value, ensure_ascii=False)
