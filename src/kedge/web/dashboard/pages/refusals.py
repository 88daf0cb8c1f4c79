"""Refusals and outcomes of the commands on a page, by the rules of the machine."""

from __future__ import annotations

from typing import NamedTuple

from msgspec.structs import replace

from kedge.core.release.commands import (
    Abort,
    AnyCommand,
    Freeze,
    Pause,
    Promote,
    Resume,
    Rollback,
    SetWeight,
    Thaw,
)
from kedge.core.release.guards import next_step
from kedge.core.release.machine import apply, decide
from kedge.core.release.ways_back import returned
from kedge.core.stored.stories import story
from kedge.core.values import Refusal, State

EARLIER = 10
"""Earlier releases that the form of a rollback offers, the newest."""


class ActRefusal(NamedTuple):
    """Why a command is not possible now."""

    text: str
    hint: str = ""
    is_final: bool = True
    """Whether nothing in the form helps; else a reason to override it, or another landing, does."""


class RollbackChoice(NamedTuple):
    """One kind of rollback that is possible now, and what it changes."""

    kind: str
    """The value of the form: empty (the newest change), production, model, features, or r3."""
    lands: int
    """Production after it."""
    left: int | None
    """The release that callers leave; None: they leave none."""
    ends: int | None
    """The candidate whose rollout it ends."""
    condemns: int | None
    was_condemned: bool
    """Whether an earlier rollback condemned the landing."""


def trials_of(state: State) -> dict[str, AnyCommand]:
    """Return the commands whose refusals the buttons show."""
    step = next_step(state)
    return {
        "rollback": Rollback(),
        "promote": Promote(),
        "pause": Pause(),
        "resume": Resume(),
        "weight": SetWeight(weight=step or state.weight or 1),
        "abort": Abort(),
        "freeze": Freeze(),
        "thaw": Thaw(),
    }


def refusals_of(
    state: State, rollbacks: tuple[RollbackChoice, ...], at: str
) -> dict[str, ActRefusal]:
    """Return why a command is not possible now, by the name of the act.

    Args:
        state: the row.
        rollbacks: those that are possible.
        at: the time.
    """
    found = {}
    for act, command in trials_of(state).items():
        said = decide(state, command, at)
        if isinstance(said, Refusal):
            helps = _can_override(state, command, at) or (act == "rollback" and rollbacks)
            found[act] = ActRefusal(said.message, said.hint, is_final=not helps)
    live = state.releases.get(state.production) if state.production is not None else None
    if live is None or live.transformation is None:
        text = f"production of {state.endpoint} reads no features of its own"
        found["roll-features"] = ActRefusal(text, "kedge features apply FILE")
    return found


def _can_override(state: State, command: AnyCommand, at: str) -> bool:
    if not isinstance(command, Promote | Resume | SetWeight):
        return False
    return not isinstance(decide(state, replace(command, override="a reason"), at), Refusal)


def outcomes_of(state: State, at: str) -> dict[str, str]:
    """Return the entry that each possible command would write, as a sentence, by the act's name."""
    found = {}
    for act, command in trials_of(state).items():
        if act in ("rollback", "weight"):
            continue  # these depend on the form
        said = decide(state, command, at)
        if isinstance(said, Refusal) and isinstance(command, Promote | Resume):
            said = decide(state, replace(command, override="a reason"), at)
        if not isinstance(said, Refusal):
            found[act] = "; ".join(story(event) for event in said)
    return found


def rollbacks_of(state: State, at: str) -> tuple[RollbackChoice, ...]:
    """Return the rollbacks that are possible now and differ, the one without options first."""
    served = dict.fromkeys(reversed(state.served))
    kinds: list[tuple[str, Rollback]] = [
        ("", Rollback()),
        ("production", Rollback(production=True)),
        ("model", Rollback(axis="model")),
        ("features", Rollback(axis="features")),
        *((f"r{number}", Rollback(to=number)) for number in list(served)[: EARLIER + 1]),
    ]
    found: dict[tuple[int, int | None], RollbackChoice] = {}
    for kind, command in kinds:
        choice = _choice(state, kind, command, at)
        if choice is not None:
            found.setdefault((choice.lands, choice.left), choice)
    return tuple(found.values())


def _choice(state: State, kind: str, command: Rollback, at: str) -> RollbackChoice | None:
    events = decide(state, command, at)
    if isinstance(events, Refusal):
        return None
    after = state
    for event in events:
        after = apply(after, event)
    if after.production is None:
        return None
    moves = after.production != returned(state).production
    fresh = [number for number in after.condemned if number not in state.condemned]
    return RollbackChoice(
        kind=kind,
        lands=after.production,
        left=returned(state).production if moves else state.candidate,
        ends=state.candidate,
        condemns=fresh[-1] if fresh else None,
        was_condemned=after.production in state.condemned,
    )
