"""Marks of events: what happened on an endpoint, for charts and for the list of decisions."""

from __future__ import annotations

from collections.abc import Sequence

from kedge.core.release import commands as r
from kedge.core.stored import notes as n
from kedge.core.stored.ledger import Entry, Note
from kedge.core.stored.stories import story
from kedge.core.time.instants import read_instant
from kedge.core.values import Value

MARKED = (
    r.Promoted
    | r.RolledBack
    | r.CandidateRolledBack
    | r.CanaryStarted
    | r.ShadowStarted
    | r.WeightSet
    | r.Paused
    | r.Resumed
    | r.Aborted
    | r.DrillStarted
    | r.DrillEnded
)
MARKED_NOTES = n.AlertOpened | n.AlertResolved | n.EvidenceLost | n.FeaturesApplied | n.DrillResult
QUIET = n.RunbookNote | n.ReceiptNote
"""Notes that follow from another entry."""
BAD = r.RolledBack | r.CandidateRolledBack | r.Aborted
LABELS = {
    "promoted": "promoted",
    "rolled_back": "rolled back",
    "candidate_rolled_back": "rolled back",
    "canary_started": "canary",
    "shadow_started": "shadow",
    "weight_set": "weight",
    "drill_started": "drill",
    "drill_ended": "drill over",
}
"""Short names on a chart."""


class EventMark(Value, frozen=True):
    """An event on a chart."""

    at: float
    label: str
    tone: str
    text: str


class EventLine(Value, frozen=True, kw_only=True):
    """An entry of the ledger in a list."""

    seq: int
    at: str
    epoch: int
    by: str
    actor: str
    text: str
    reason: str
    tone: str
    took: str
    """How long it took to the last ack; empty: not measured."""


def marks_of(entries: Sequence[Entry], since: float) -> tuple[EventMark, ...]:
    """Return the marks of marked entries at a time or later, oldest first."""
    found = []
    for entry in reversed(entries):
        at = read_instant(entry.at)
        if at < since:
            continue
        found.append(EventMark(at, _label(entry), _tone(entry), story(entry.event)))
    return tuple(found)


def is_marked(entry: Entry) -> bool:
    """Return whether charts mark an entry: a flip, an alert, a change of features, a drill."""
    if isinstance(entry.event, Note):
        return isinstance(entry.event.body, MARKED_NOTES)
    return isinstance(entry.event, MARKED)


def _label(entry: Entry) -> str:
    if isinstance(entry.event, Note):
        return entry.event.kind.replace("_", " ").replace(" opened", "")
    tag = str(type(entry.event).__struct_config__.tag)
    return LABELS.get(tag, tag.replace("_", " "))


def _tone(entry: Entry) -> str:
    event = entry.event
    if isinstance(event, BAD):
        return "bad"
    if isinstance(event, r.Promoted):
        return "ok"
    if isinstance(event, Note):
        body = event.body
        if isinstance(body, n.AlertOpened):
            return "bad" if body.level == "page" else "warn"
        if isinstance(body, n.DrillResult):
            return "ok" if body.ok else "bad"
        if isinstance(body, n.ReadinessNote):
            return "ok" if body.ready else "warn"
    return "plain"


def changes_of(entries: Sequence[Entry], above: int = -1) -> tuple[EventLine, ...]:
    """Return the entries that changed the row to an epoch above one, newest first."""
    return lines_of([e for e in entries if not isinstance(e.event, Note) and e.epoch > above])


def lines_of(entries: Sequence[Entry]) -> tuple[EventLine, ...]:
    """Return the entries of a list, newest first, each with the time that its command took."""
    took = {
        entry.event.body.of: entry.event.body.parts.last_ack_ms
        for entry in entries
        if isinstance(entry.event, Note) and isinstance(entry.event.body, n.ReceiptNote)
    }
    return tuple(
        EventLine(
            seq=entry.seq,
            at=entry.at,
            epoch=entry.epoch,
            by=entry.by,
            actor=entry.actor.value,
            text=story(entry.event),
            reason=entry.reason,
            tone=_tone(entry),
            took=f"{took[entry.seq]:.0f} ms" if took.get(entry.seq) is not None else "",
        )
        for entry in entries
        if not (isinstance(entry.event, Note) and isinstance(entry.event.body, QUIET))
    )
