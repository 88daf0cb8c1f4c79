"""Unrecorded predictions of an endpoint: counts of workers, and counts beside the records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from kedge.core.evidence.unrecorded import PREFIX
from kedge.core.stored.roster import Tally
from kedge.core.values import Value
from kedge.ports import RecordStore

ROWS = "rows."
"""Prefix of the counts of answered predictions, by arm."""


class UnrecordedPredictions(Value, frozen=True):
    """The number of predictions of an endpoint that left no record."""

    answered: int
    """Predictions that were answered, with and without a record."""
    by_cause: dict[str, int]
    """Predictions without a record, the most frequent cause first."""


def unrecorded(
    tallies: Iterable[Tally], records: RecordStore, endpoint: str
) -> UnrecordedPredictions:
    """Return how many predictions were answered, and how many left no record, by cause.

    All comparisons together: counts of workers since telemetry began (`tallies` of the endpoint),
    those of records for thirty days.

    Raises:
        Unavailable: the counts of records cannot be read.
    """
    found: Counter[str] = Counter(records.unrecorded(endpoint))
    answered = 0
    for tally in tallies:
        for name, count in tally.counts.items():
            if name.startswith(PREFIX):
                found[name.removeprefix(PREFIX)] += count
            answered += count if name.startswith(ROWS) else 0
    by_cause = {cause: count for cause, count in found.most_common() if count}
    return UnrecordedPredictions(answered, by_cause)
