"""Records: predictions that wait for their outcome, and labels."""

from __future__ import annotations

from typing import Protocol

from kedge.core.evidence.records import Coverage, Ingested, Labelled, Reused


class RecordStore(Protocol):
    """Predictions that wait for their outcome, and the labels that came."""

    def waiting(self) -> int:
        """How many spool files may be taken now."""

    def ingest(self, now: float) -> Ingested:
        """Store some of what workers wrote, then adopt outcomes that had come before."""

    def labels(self, endpoint: str, after: int, limit: int) -> tuple[int, tuple[Labelled, ...]]:
        """Labels in the order in which they were joined, after a cursor; and the next cursor.

        The next one is 0 where the labels were made anew since.
        """

    def coverage(self, endpoint: str) -> tuple[Coverage, ...]:
        """How many predictions of each arm have a label, comparison by comparison."""

    def unrecorded(self, endpoint: str) -> dict[str, int]:
        """How many predictions came in and are not among the records, by cause."""

    def corrected(self, endpoint: str, after: int) -> tuple[int, int | None]:
        """The newest correction's number, and the first label that was corrected after one."""

    def reused(self, endpoint: str) -> Reused:
        """How many ids more than one request used, and the labels that are not joined for it."""

    def newest_label(self, endpoint: str) -> int:
        """The cursor after the newest label; 0 when there is none."""

    def prune(self, now: float) -> int:
        """Drop what is beyond the horizon."""

    def strip(self, now: float, retention_s: float, endpoint: str) -> int:
        """Remove the raw inputs of predictions older than this; how many had them."""
