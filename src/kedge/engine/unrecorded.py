"""Unrecorded predictions of an endpoint: what workers counted, and what was counted beside the records."""

from __future__ import annotations

from collections import Counter
from typing import Any

from kedge.core.evidence.unrecorded import PREFIX
from kedge.ports import EvidenceStore, RecordStore

ROWS = "rows."
"""What the counts begin with that have answered predictions, by arm."""


def unrecorded(evidence: EvidenceStore, records: RecordStore, endpoint: str) -> dict[str, Any]:
    """Return how many predictions were answered, and how many of them left no record, by cause.

    All comparisons together: counts of workers since telemetry began, those of records for thirty days.

    Raises:
        Unavailable: either cannot be read.
    """
    found: Counter[str] = Counter(records.unrecorded(endpoint))
    answered = 0
    for tally in evidence.tallies(endpoint):
        for name, count in tally.counts.items():
            if name.startswith(PREFIX):
                found[name.removeprefix(PREFIX)] += count
            answered += count if name.startswith(ROWS) else 0
    by_cause = {cause: count for cause, count in found.most_common() if count}
    return {"answered": answered, "by_cause": by_cause}
