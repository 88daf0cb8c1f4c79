"""What must be loaded where: derived from the row, never stored.

A replica holds what is live, what a command has asked for, and every way back. The ways back
stay for the policy's window after the last flip; after it a rollback has to load first, and
says so. A candidate always runs in a process of its own, whatever its release says: it has
not earned a place inside the gateway. A production release that runs in a process has a
second process beside it, so that the death of one is not an outage (ADR 0007). A drill adds to
what is held and takes nothing away: it returns to what was loaded all along.
"""

from __future__ import annotations

from datetime import datetime

from kedge.core.back import returned
from kedge.core.durations import seconds
from kedge.core.values import Placement, State, Value

PRODUCTION_COPIES = 2


class Need(Value, frozen=True):
    """A release to hold, and how."""

    release: int
    placement: Placement
    essential: bool = False
    """Without it the row cannot be served."""
    beside: bool = False
    """Only to be compared with: no command waits for it."""


def needs(
    state: State, wanted: tuple[tuple[int, Placement], ...] = (), *, now: float
) -> tuple[Need, ...]:
    """What a replica must hold for this row, most important first.

    Args:
        state: the row.
        wanted: (release, placement) of commands that are under way and not yet out of time.
        now: Unix time.
    """
    found: dict[tuple[int, Placement], Need] = {}

    def add(
        release: int | None, placement: Placement | None = None, *, essential: bool = False,
        beside: bool = False,
    ) -> None:  # fmt: skip
        if release is None or release not in state.releases:
            return
        where = placement or state.releases[release].placement
        if (release, where) not in found:
            found[release, where] = Need(release, where, essential, beside)

    add(state.production, essential=True)
    state = returned(state)
    add(state.production)
    add(state.candidate, Placement.PROCESS)
    for release, placement in wanted:
        add(release, placement)
    if within_window(state, now) or state.held is not None:
        add(state.back)
        add(state.back_model)
        add(state.back_features)
        if state.candidate is None and state.mirrored is not None:
            # A copy of the inputs goes to a process only: it may hang without anybody waiting.
            add(state.back, Placement.PROCESS, beside=True)
    return tuple(found.values())


def within_window(state: State, now: float) -> bool:
    """Whether what `back*` names is still to be kept loaded."""
    if not state.flipped_at:
        return True
    flipped = datetime.fromisoformat(state.flipped_at).timestamp()
    return now - flipped <= seconds(state.policy.back_window)


def copies(state: State, release: int) -> int:
    """How many processes one host runs for a release that runs in a process."""
    settled = returned(state).production
    if release == settled:
        return PRODUCTION_COPIES
    # In a drill the way back may be loaded inline, and beside it once to be compared with.
    own = state.releases[release].placement if release in state.releases else None
    apart = release == state.production and own is Placement.PROCESS
    return PRODUCTION_COPIES if apart else 1
