"""Refusals of the commands on a page: why one is not possible now, by the rules of the machine."""

from __future__ import annotations

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
from kedge.core.release.machine import decide
from kedge.core.values import Refusal, State


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


def refusals_of(state: State, at: str) -> dict[str, tuple[str, str]]:
    """Return why a command is not possible now, with its hint, by the name of the act."""
    found = {}
    for act, command in trials_of(state).items():
        said = decide(state, command, at)
        if isinstance(said, Refusal):
            found[act] = (said.message, said.hint)
    live = state.releases.get(state.production) if state.production is not None else None
    if live is None or live.transformation is None:
        text = f"production of {state.endpoint} reads no features of its own"
        found["roll-features"] = (text, "kedge features apply FILE")
    return found
