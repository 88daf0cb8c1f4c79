"""Findings in the ledger, for a rollback, the patrol and alerts."""

from __future__ import annotations

from kedge.core.diagnosis.summary import DiagnosisSummary
from kedge.core.errors import Refused
from kedge.core.stored.ledger import Entry, Note
from kedge.ports import Ledger

WITHIN = 10_000
"""Limit of entries of the endpoint that are read: months of most endpoints; it delays a rollback by
some milliseconds."""


def newest_finding(ledger: Ledger, endpoint: str) -> DiagnosisSummary | None:
    """Return the newest recorded diagnosis of an endpoint.

    Raises:
        Unavailable: the ledger cannot be read.
        Refused: `finding_unreadable`.
    """
    entries = ledger.entries(endpoint, "finding", within=WITHIN)
    return finding_of(entries[0]) if entries else None


def finding_of(entry: Entry) -> DiagnosisSummary | None:
    """Return the finding in an entry; None if the entry is another one.

    Raises:
        Refused: `finding_unreadable`: another version of kedge wrote it.
    """
    if not isinstance(entry.event, Note) or entry.event.kind != "finding":
        return None
    if not isinstance(entry.event.body, DiagnosisSummary):
        raise Refused(
            f"entry {entry.seq}: another version of kedge wrote this diagnosis",
            code="finding_unreadable",
            hint=f"kedge diagnose {entry.endpoint} records a new one",
        )
    return entry.event.body
