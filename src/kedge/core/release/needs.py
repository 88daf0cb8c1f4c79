"""Needs: the releases that a replica must load, derived from the row and never stored.

A replica holds the live releases, those that a command wishes for, and every way back. Ways back
stay loaded for the policy's window after the last flip. Later a rollback must load first, and
reports that. A candidate always runs in a process of its own, whatever its release says, because it
is not yet trusted inside the gateway. A production release that runs in a process has a second
process beside it, so that the death of one is no outage (ADR 0007). Releases that one command makes
production, and every way back, are held the same way. Their second process is thus loaded before
the flip. A drill adds to the held releases and removes none: it restores a release that stayed
loaded.
"""

from __future__ import annotations

from msgspec.structs import replace

from kedge.core.release.ways_back import returned
from kedge.core.time.durations import seconds
from kedge.core.time.instants import read_instant
from kedge.core.values import Placement, State, Value

PRODUCTION_COPIES = 2
"""Processes per host of a release that answers callers, or would after one command."""


class NeededRelease(Value, frozen=True):
    """A release to hold, and how to hold it."""

    release: int
    placement: Placement
    essential: bool = False
    """Whether the row cannot be served without it."""
    beside: bool = False
    """Whether it is held only for comparison, so that no command waits for it."""
    copies: int = 1
    """Processes per host; 1 inline."""


def needs(
    state: State, wanted: tuple[tuple[int, Placement, int], ...] = (), *, now: float
) -> tuple[NeededRelease, ...]:
    """Return the releases that a replica must hold for this row, most important first.

    Args:
        state: the row.
        wanted: (release, placement, copies) of the commands' unexpired wishes.
        now: Unix time.
    """
    found: dict[tuple[int, Placement], NeededRelease] = {}

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
            found[release, where] = NeededRelease(release, where, essential, beside, copies)
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
            # Only a process gets copies of the inputs: it can hang without delaying a caller.
            add(state.back, Placement.PROCESS, beside=True)
    return tuple(found.values())


def within_window(state: State, now: float) -> bool:
    """Return whether the releases in `back*` must still be loaded."""
    if not state.flipped_at:
        return True
    flipped = read_instant(state.flipped_at)
    return now - flipped <= seconds(state.policy.back_window)
