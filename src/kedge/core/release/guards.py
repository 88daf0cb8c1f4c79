"""Guards of the release machine: named conditions on a row that the transition table checks.

A guard gets the row and the command, and returns a boolean. The helpers beside them also return the
names that a refusal quotes. `core.release.machine` combines guards, refusals and events.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import Literal

from kedge.core.contract import lacking
from kedge.core.release.commands import (
    AnyCommand,
    Canary,
    Configure,
    Promote,
    Resume,
    Rollback,
    SetWeight,
    Shadow,
)
from kedge.core.release.ways_back import condemned_as, failed_as, first_starved, returned, starved
from kedge.core.values import BUCKETS, Failure, Field, Stage, State

# ---------------------------------------------------------------- helpers


def subject(state: State, command: AnyCommand) -> int | None:
    """Return the release of a command: the named one, the landing, or else the candidate."""
    if isinstance(command, Rollback):
        return target(state, command)
    number = _release(command)
    return state.candidate if number is None else number


def target(state: State, command: AnyCommand) -> int | None:
    """Return the release on which this rollback of production would land."""
    assert isinstance(command, Rollback)
    if command.to is not None:
        return command.to
    return {None: state.back, "model": state.back_model, "features": state.back_features}[
        command.axis
    ]


def _release(command: AnyCommand) -> int | None:
    return getattr(command, "release", None)


def unmet(state: State, command: AnyCommand) -> tuple[str, ...]:
    """Return the fields that the release needs and the request contract does not promise."""
    return starved(state, subject(state, command), state.fields)


def broken(state: State, command: Configure) -> tuple[int, tuple[str, ...]] | None:
    """Return the first live release that a new request contract would starve, and what it lacks."""
    return first_starved(state, command.policy.fields)


def condemned(state: State, command: AnyCommand) -> int | None:
    """Return the condemned release that the command's release equals, if any."""
    return condemned_as(state, subject(state, command))


def promised(state: State) -> tuple[Field, ...]:
    """Return the outputs that callers are promised.

    An endpoint that was promoted before such contracts existed promises the outputs of its
    production release. This ends when its next promotion or `kedge apply` records a contract.
    """
    if state.answers is not None:
        return state.answers
    live = state.releases.get(returned(state).production or 0)
    return live.signature.outputs if live is not None else ()


def ungiven(state: State, command: AnyCommand) -> tuple[str, ...]:
    """Return the outputs that callers are promised and the release does not give."""
    return _ungiven(state, subject(state, command), promised(state))


def _ungiven(state: State, number: int | None, answers: tuple[Field, ...]) -> tuple[str, ...]:
    release = state.releases.get(number) if number is not None else None
    return lacking(release.signature, answers) if release is not None else ()


def overpromised(state: State, command: Configure) -> tuple[int, tuple[str, ...]] | None:
    """Return the first live release that does not give a newly promised output.

    Only new promises count: an override for one release must not block every other policy change.
    """
    known = promised(state)
    new = tuple(field for field in command.policy.answers or () if field not in known)
    live = (
        state.production,
        returned(state).production,
        state.candidate,
        state.back,
        state.back_model,
        state.back_features,
    )
    for number in live:
        if found := _ungiven(state, number, new):
            return number, found  # type: ignore[return-value]
    return None


def failure(state: State, command: AnyCommand) -> Failure | None:
    """Return the failed verdict that binds the command's release, if any.

    A canary was started despite any earlier failure, so only its own failure binds in it. The same
    holds for a rollout that continues after a pause.
    """
    if state.stage is Stage.CANARY or isinstance(command, Resume):
        return failed_here(state)
    return failed_as(state, subject(state, command))


def failed_here(state: State) -> Failure | None:
    """Return the failed verdict of the present rollout and stage, if any."""
    here = (state.candidate, state.production, state.salt, state.stage)
    return next(
        (
            f
            for f in state.automation.failures
            if (f.candidate, f.production, f.salt, f.stage) == here
        ),
        None,
    )


def latched(state: State) -> Failure | None:
    """Return the failed verdict of the present comparison, if any.

    Another policy starts another comparison. The earlier failure still binds, but is not the
    verdict of the new comparison.
    """
    known = failed_here(state)
    return known if known is not None and known.policy == state.policy_digest else None


def _further(state: State, command: AnyCommand) -> bool:
    """Return whether a command advances the candidate; a smaller share never does."""
    if isinstance(command, SetWeight) or (
        isinstance(command, Canary) and state.stage is Stage.CANARY
    ):
        handed = isinstance(command, Canary) and command.auto and not state.automation.auto
        return command.weight > state.weight or handed
    return True


def _shares(command: AnyCommand) -> tuple[float, ...]:
    """Return the shares of callers in a command, in per cent."""
    match command:
        case Configure():
            steps = command.policy.canary
            return (command.policy.shadow.sample, *steps.steps, steps.holdback)
        case Shadow():
            return (per_cent(command.sample),)
        case Canary() | SetWeight():
            return (per_cent(command.weight),)
        case _:
            return ()


def bad_shares(command: AnyCommand) -> tuple[float, ...]:
    """Return the shares of a command that are outside 0 to 100 per cent."""
    return tuple(share for share in _shares(command) if not 0 <= share <= 100)


def next_step(state: State) -> int | None:
    """Return the next canary weight in buckets, or None after the last step."""
    steps = sorted(buckets(step) for step in state.policy.canary.steps)
    return next((step for step in steps if step > state.weight), None)


def on_pass(state: State) -> Literal["ask", "promote"]:
    """Return the policy's action once a shadow's window, or the last canary step, is proven."""
    policy = state.policy.shadow if state.stage is Stage.SHADOW else state.policy.canary
    return policy.on_pass


def step_number(state: State) -> tuple[int, int]:
    """Return the present canary step (from 1; 0 before the first) and the number of steps."""
    steps = [buckets(step) for step in state.policy.canary.steps]
    return sum(step <= state.weight for step in steps), len(steps)


def _proven(state: State, command: AnyCommand) -> bool:
    """Return whether the release passed a shadow window against the present production."""
    return (subject(state, command), state.production) == state.automation.proven


def _untold(command: AnyCommand) -> bool:
    return getattr(command, "override", None) is None


def _equivalent(command: AnyCommand) -> bool:
    return isinstance(command, Promote) and command.equivalence is not None


def _changes_features(state: State, command: AnyCommand) -> bool:
    """Return whether this rollback lands on another transformation than production's."""
    ends = (target(state, command), returned(state).production)
    found = {
        (release.schema, release.transformation)
        for number, release in state.releases.items()
        if number in ends
    }
    return len(found) > 1


# ---------------------------------------------------------------- the guards

Guard = Callable[[State, AnyCommand], bool]
GUARDS: dict[str, Guard] = {
    "always": lambda s, c: True,
    "unknown": lambda s, c: _release(c) is not None and _release(c) not in s.releases,
    "unknown target": lambda s, c: c.to is not None and c.to not in s.releases,  # type: ignore[union-attr]
    "unserved target": lambda s, c: c.to is not None and c.to not in s.served,  # type: ignore[union-attr]
    "target is production": lambda s, c: target(s, c) == returned(s).production,
    "nothing named": lambda s, c: subject(s, c) is None,
    "in production": lambda s, c: _release(c) == s.production,
    "other candidate": lambda s, c: _release(c) not in (None, s.candidate),
    "undeclared field": lambda s, c: bool(unmet(s, c)),
    "condemned": lambda s, c: _untold(c) and condemned(s, c) is not None,
    "shadow first": lambda s, c: (
        _untold(c) and s.policy.audience == "customer" and not _proven(s, c)
    ),
    "failed": lambda s, c: _untold(c) and _further(s, c) and failure(s, c) is not None,
    "failed already": lambda s, c: latched(s) is not None,
    "lacks an answer": lambda s, c: _untold(c) and _further(s, c) and bool(ungiven(s, c)),
    "not told": lambda s, c: _untold(c) and not _equivalent(c),
    "not proven": lambda s, c: _untold(c) and not _equivalent(c) and not _proven(s, c),
    "proven already": _proven,
    "frozen": lambda s, c: s.automation.frozen,
    "not frozen": lambda s, c: not s.automation.frozen and not s.unconfirmed,
    "follows": lambda s, c: s.follow,
    "holds": lambda s, c: not s.follow,
    "leaves the head": lambda s, c: s.follow and _changes_features(s, c),
    "same share, other hand": lambda s, c: (
        c.weight == s.weight and c.auto and not s.automation.auto  # type: ignore[union-attr]
    ),
    "bad share": lambda s, c: bool(bad_shares(c)),
    "starves a live release": lambda s, c: broken(s, c) is not None,  # type: ignore[arg-type]
    "promises too much": lambda s, c: overpromised(s, c) is not None,  # type: ignore[arg-type]
    "same sample": lambda s, c: c.sample == s.sample,  # type: ignore[union-attr]
    "same weight": lambda s, c: c.weight == s.weight,  # type: ignore[union-attr]
    "same policy": lambda s, c: c.digest == s.policy_digest,  # type: ignore[union-attr]
    "paused": lambda s, c: s.paused,
    "not paused": lambda s, c: not s.paused,
    "a step is left": lambda s, c: not c.full and next_step(s) is not None,  # type: ignore[union-attr]
    "a step is left, paused": lambda s, c: s.paused and GUARDS["a step is left"](s, c),
    "nothing to go back to": lambda s, c: target(s, c) is None,
    "of the candidate": lambda s, c: (
        not c.production and c.to is None and c.axis is None  # type: ignore[union-attr]
    ),
    "no contract": lambda s, c: not s.fields,
    "for a failure": lambda s, c: c.failure is not None and latched(s) is None,  # type: ignore[union-attr]
    "no way back": lambda s, c: s.back is None,
    "another drill": lambda s, c: c.until not in (None, s.drill.until),  # type: ignore[union-attr]
}


def buckets(per_cent: float) -> int:
    """Convert per cent, as people write a weight, to buckets; -1 if not finite."""
    return round(per_cent * BUCKETS / 100) if isfinite(per_cent) else -1


def per_cent(weight: int) -> float:
    """Convert buckets to per cent, as people read them."""
    return weight * 100 / BUCKETS
