"""History as text: one sentence for each entry of the ledger, in order of time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from kedge.core.commands import AnyEvent
from kedge.ports import Entry, Note
from kedge.report import story
from kedge.terminal import one_line

NOISE = {"runbook"}
"""Kinds of notes that follow from another entry: left out of a history for people, unless all of it is asked for."""
TOGETHER_S = 60.0
"""Entries that were written within this time are shown by their times; else a clock was set, and the ledger's order is true."""


def history_text(entries: Sequence[Entry]) -> str:
    """Return the ledger's entries, newest first."""
    return "\n".join(
        one_line(
            f"{entry.at[:23]}Z  epoch {entry.epoch:<4} {entry.by}: {sentence(entry.event)}"
            + (f" — {entry.reason}" if entry.reason else "")
        )
        for entry in by_time(entries)
    )


def sentence(event: AnyEvent | Note) -> str:
    """Return an entry as a sentence without a full stop."""
    match event:
        case Note(kind="registered", body=body):
            return f"{body['version']} was registered ({body['flavour']}, {body.get('digest', '')[:19]})"
        case Note(kind="inline_trusted", body=body):
            return f"{body['version']} may run inside the gateway's workers, unproven"
        case Note(kind="features_applied", body=body):
            compared = (
                f", {body['outcome']} against the version before" if body.get("outcome") else ""
            )
            return f"transformation {body['version']} was made{compared}"
        case Note(kind="pin_drifts", body=body):
            return f"host {body['host']} stays pinned: {body['why']}"
        case Note(kind="evidence_lost", body=body):
            return "evidence was lost" + (f"; kept: {body['detail']}" if body["detail"] else "")
        case Note(kind="alert_acknowledged", body=body):
            return f"alert {body['alert']} ({body['key']}) was acknowledged"
        case Note(kind="alert_resolved", body=body):
            return f"alert {body['alert']} ({body['key']}) is resolved"
        case Note(kind="alert_continued", body=body):
            return f"alert {body['alert']} ({body['key']}) goes on as another one"
        case _:
            return story(event)


def is_noise(entry: Entry) -> bool:
    """Whether an entry says what another entry brought with it."""
    return isinstance(entry.event, Note) and entry.event.kind in NOISE


def by_time(entries: Sequence[Entry]) -> list[Entry]:
    """Return entries, newest first, by their times.

    A note is written after what it measures and may bear an earlier time, so that the ledger's own order looks wrong.
    """
    found: list[tuple[float, Entry]] = []
    for entry in entries:
        at, place = datetime.fromisoformat(entry.at).timestamp(), len(found)
        while place and 0 < at - found[place - 1][0] < TOGETHER_S:
            place -= 1
        found.insert(place, (at, entry))
    return [entry for _, entry in found]
