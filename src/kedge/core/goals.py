"""Goals of a wait for a rollout: those of `kedge wait`, and whether one is reached, missed or open."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from kedge.core.evidence.rules import Word
from kedge.core.values import Stage


class Goal(StrEnum):
    """What is waited for."""

    CANARY = "canary"
    """The candidate answers callers."""
    PASSED = "passed"
    """The evidence of the current step or window passes."""
    PROMOTED = "promoted"
    """The candidate is production."""
    ROLLED_BACK = "rolled-back"
    """The release was taken back: it answers no caller, and is condemned."""
    SETTLED = "settled"
    """There is no rollout and no drill, and every replica serves the newest epoch."""


FOLLOWS_CANDIDATE = frozenset({Goal.CANARY, Goal.PASSED, Goal.PROMOTED})
"""Goals that need a candidate when the wait begins."""


class End(StrEnum):
    """Whether a wait has ended."""

    OPEN = "open"
    REACHED = "reached"
    PROMOTED = "promoted"
    """Missed: the release became production."""
    ABORTED = "aborted"
    """Missed: the rollout ended, and the release stays eligible."""
    REPLACED = "replaced"
    """Missed: another release became production, without a rollback."""
    CONDEMNED = "condemned"
    """Missed: the release was rolled back."""
    FAILED = "failed"
    """Missed: the evidence is against the candidate."""


class Watched(NamedTuple):
    """The facts of an endpoint that a wait needs."""

    stage: Stage
    production: str | None
    candidate: str | None
    condemned: frozenset[str]
    verdict: Word | None
    """Of the policy on the rollout; None: no rollout, or no evidence."""
    is_acknowledged: bool
    """Whether every replica that responds serves the newest epoch."""


def follow(goal: Goal, watched: Watched) -> str | None:
    """Return the release that a wait that begins now follows; None: there is none.

    It is the candidate. Without one, `rolled-back` and `settled` follow production.
    """
    if watched.candidate is not None:
        return watched.candidate
    return None if goal in FOLLOWS_CANDIDATE else watched.production


def look(goal: Goal, release: str | None, watched: Watched, *, was_candidate: bool) -> End:
    """Return whether the goal is reached, can no longer be reached, or is open.

    Args:
        goal: what is waited for.
        release: the release that the wait follows.
        watched: the endpoint now.
        was_candidate: whether the release was the candidate when the wait began.
    """
    if goal is Goal.SETTLED:
        is_quiet = watched.stage in (Stage.SETTLED, Stage.EMPTY) and watched.is_acknowledged
        return End.REACHED if is_quiet else End.OPEN
    if watched.stage is Stage.DRILL:
        return End.OPEN  # a drill restores what was live
    if goal is Goal.ROLLED_BACK:
        return _rolled_back(release, watched, was_candidate=was_candidate)
    if watched.production == release and watched.candidate != release:
        return End.REACHED  # what came before it in the rollout is behind it
    if watched.candidate != release:
        return End.CONDEMNED if release in watched.condemned else End.ABORTED
    if goal is Goal.CANARY and watched.stage is Stage.CANARY:
        return End.REACHED
    if goal is Goal.PASSED and watched.verdict == "pass":
        return End.REACHED
    if goal is Goal.PASSED and watched.verdict == "fail":
        return End.FAILED
    return End.OPEN


def _rolled_back(release: str | None, watched: Watched, *, was_candidate: bool) -> End:
    if release in (watched.candidate, watched.production):
        promoted = was_candidate and watched.candidate != release
        return End.PROMOTED if promoted else End.OPEN
    if release in watched.condemned:
        return End.REACHED
    return End.ABORTED if was_candidate else End.REPLACED
