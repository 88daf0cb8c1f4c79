"""Records: predictions that wait for their outcome, and labels."""

from __future__ import annotations

from typing import Protocol

from kedge.core.evidence.records import Coverage, Ingested, Labelled, Reused


class RecordStore(Protocol):
    """The store of predictions that wait for their outcome, and of their labels."""

    def waiting(self) -> int:
        """Return how many spool files can be ingested now."""

    def ingest(self, now: float) -> Ingested:
        """Store some of the workers' records, then join outcomes that had arrived before them."""

    def labels(self, endpoint: str, after: int, limit: int) -> tuple[int, tuple[Labelled, ...]]:
        """Return the next cursor, and the labels after this one in the order of their joins.

        The next cursor is 0 if the labels were rebuilt since.
        """

    def coverage(self, endpoint: str) -> tuple[Coverage, ...]:
        """Return how many predictions of each arm have a label, by comparison."""

    def unrecorded(self, endpoint: str) -> dict[str, int]:
        """Return how many predictions are missing from the records, by cause."""

    def corrected(self, endpoint: str, after: int) -> tuple[int, int | None]:
        """Return the newest correction's number, and the first label corrected after `after`."""

    def reused(self, endpoint: str) -> Reused:
        """Return how many ids several requests used, and how many labels it left unjoined."""

    def newest_label(self, endpoint: str) -> int:
        """Return the cursor after the newest label; 0 if there is none."""

    def prune(self, now: float) -> int:
        """Drop records that are beyond the horizon; return their number."""

    def strip(self, now: float, retention_s: float, endpoint: str) -> int:
        """Remove the raw inputs of predictions older than this; return how many had them."""
