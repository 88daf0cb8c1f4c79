"""What must be loaded where: derived from the row, never stored.

A replica holds what is live, what a command has asked for, and every way back. The ways back
stay for the policy's window after the last flip; after it a rollback has to load first, and
says so. A candidate always runs in a process of its own, whatever its release says: it has
not earned a place inside the gateway. A production release that runs in a process has a
second process beside it, so that the death of one is not an outage (ADR 0007). What a single
command makes production, every way back, is held the same way, so that the second process is
loaded before the flip. A drill adds to what is held and takes nothing away: it returns to what
was loaded all along.
"""

from __future__ import annotations

from msgspec.structs import replace

from kedge.core.release.ways_back import returned
from kedge.core.time.durations import seconds
from kedge.core.time.instants import read_instant
from kedge.core.values import Placement, State, Value

PRODUCTION_COPIES = 2
"""Processes of one host for a release that answers callers, or would after one command."""


class Need(Value, frozen=True):
    """A release to hold, and how."""

    release: int
    placement: Placement
    essential: bool = False
    """Without it the row cannot be served."""
    beside: bool = False
    """Only to be compared with: no command waits for it."""
    copies: int = 1
    """How many processes one host runs for it; 1 inline."""


def needs(
    state: State, wanted: tuple[tuple[int, Placement, int], ...] = (), *, now: float
) -> tuple[Need, ...]:
    """What a replica must hold for this row, most important first.

    Args:
        state: the row.
        wanted: (release, placement, copies) of commands that are under way and not yet out of time.
        now: Unix time.
    """
    found: dict[tuple[int, Placement], Need] = {}

    def add(
        release: int | None,
        placement: Placement | None = None,
        *,
        essential: bool = False,
        beside: bool = False,
        copies: int = 1,
    ) -> None:
        if release is None or release not in state.releases:
            return
        where = placement or state.releases[release].placement
        copies = copies if where is Placement.PROCESS else 1
        known = found.get((release, where))
        if known is None:
            found[release, where] = Need(release, where, essential, beside, copies)
        elif known.copies < copies:
            found[release, where] = replace(known, copies=copies)

    add(state.production, essential=True, copies=PRODUCTION_COPIES)
    state = returned(state)
    add(state.production, copies=PRODUCTION_COPIES)
    add(state.candidate, Placement.PROCESS)
    for release, placement, copies in wanted:
        add(release, placement, copies=copies)
    if within_window(state, now) or state.held is not None:
        for back in (state.back, state.back_model, state.back_features):
            add(back, copies=PRODUCTION_COPIES)
        if state.candidate is None and state.mirrored is not None:
            # A copy of the inputs goes to a process only: it may hang without a caller waiting.
            add(state.back, Placement.PROCESS, beside=True)
    return tuple(found.values())


def within_window(state: State, now: float) -> bool:
    """Whether what `back*` names is still to be kept loaded."""
    if not state.flipped_at:
        return True
    flipped = read_instant(state.flipped_at)
    return now - flipped <= seconds(state.policy.back_window)
