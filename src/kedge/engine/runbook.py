"""Runbook of an endpoint, made from the live configuration and recorded in the ledger."""

from __future__ import annotations

from kedge.core.runbook import Runbook, Site, markdown, measured, runbook
from kedge.core.stored.ledger import Note
from kedge.core.stored.notes import RunbookNote, build_note
from kedge.core.values import State
from kedge.ports import Clock, Ledger

READ = 500
"""Limit of entries read for the newest duration of a rollback. A busy month has fewer; an older
figure would be of another machine."""


def made(ledger: Ledger, clock: Clock, state: State, site: Site) -> Runbook:
    """Return the runbook of an endpoint as it is now, with the newest figures of the ledger."""
    notes = [
        (entry.at, entry.event.body)
        for entry in ledger.history(state.endpoint, READ)
        if isinstance(entry.event, Note)
    ]
    return runbook(state, measured(notes), at=clock.now(), now=clock.unix(), site=site)


def filed(ledger: Ledger, clock: Clock, state: State, site: Site, *, by: str) -> Runbook:
    """Make the runbook, and record it in the history unless the newest one there is still true."""
    book = made(ledger, clock, state, site)
    newest = [entry.event for entry in ledger.entries(state.endpoint, "runbook")]
    kept = [n.body for n in newest if isinstance(n, Note) and isinstance(n.body, RunbookNote)]
    if not any(body.digest == book.digest for body in kept):
        note = build_note(RunbookNote(digest=book.digest, markdown=markdown(book)))
        ledger.note(state.endpoint, note, by=by, reason="", at=book.made_at)
    return book
