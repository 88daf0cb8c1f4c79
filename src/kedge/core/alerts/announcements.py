"""Announcements: which entries of the ledger are announced as a success, and in which words."""

from __future__ import annotations

from msgspec import UNSET

from kedge.core.alerts.alerts import SuccessAnnouncement, Topic
from kedge.core.release.commands import AnyEvent, CandidateRolledBack, Promoted, RolledBack
from kedge.core.values import Policy


def announced(event: AnyEvent) -> Topic | None:
    """Return what a change of the row is announced as; None: it is not announced.

    A drill changes the row by events of its own, so that it is neither a promotion nor a rollback.
    """
    match event:
        case Promoted():
            return Topic.PROMOTED
        case RolledBack() | CandidateRolledBack():
            return Topic.ROLLED_BACK
    return None


def announcement(
    event: AnyEvent,
    policy: Policy,
    *,
    seq: int,
    endpoint: str,
    at: str,
    by: str,
    reason: str,
    summary: str,
    now: float,
) -> SuccessAnnouncement | None:
    """Return the announcement of an entry of the ledger; None: the policy announces none.

    Args:
        event: what happened.
        policy: the policy in force.
        seq: the number of the entry.
        endpoint: its endpoint.
        at: the time of the entry, RFC 3339.
        by: the actor.
        reason: why; empty: none was given.
        summary: the event in one line.
        now: Unix time.
    """
    topic = announced(event)
    if topic is None or policy.announce is UNSET or topic.value not in policy.announce.events:
        return None
    return SuccessAnnouncement(
        number=seq,
        endpoint=endpoint,
        key=f"{topic}:{seq}",
        topic=topic,
        level="warn",  # one level, as a warning
        lasts="event",
        summary=summary,
        detail=f"by {by}" + (f": {reason}" if reason else ""),
        opened_at=at,
        seen=now,
    )
