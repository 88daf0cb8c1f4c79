"""Unrecorded predictions: the causes for which an answered request has no record, in words.

A label finds its prediction among the records only. Each missing record is counted under one of
these causes, by row, where it happens.
"""

from __future__ import annotations

from collections.abc import Mapping

from kedge.core.evidence.records import ID_REUSED

SAMPLING = "sampling"
TESTER = "tester"
RECORDER = "recorder"
SPOOL = "spool"
FAULT = "fault"
EXCUSED = "excused"
RETRY = "retry"
HOUR_BYTES = "hour_bytes"
ALL_BYTES = "all_bytes"

PREFIX = "unrecorded."
"""Prefix of a worker's counts with one of these causes."""

BY_WORKERS = (SAMPLING, TESTER, EXCUSED, RECORDER, SPOOL, FAULT)
"""Causes that workers count, with their other counts."""
BY_RECORDS = (ID_REUSED, RETRY, HOUR_BYTES, ALL_BYTES)
"""Causes that are counted beside the records, when predictions are stored."""

CAUSES = {
    SAMPLING: "nothing was compared, and their entity is not in log.sample",
    TESTER: "a tester named the release",
    EXCUSED: "production answered for the candidate: a value by key was not there",
    RECORDER: "a worker had more to count than its bound",
    SPOOL: "a worker could not write them: its spool was full, or the disk was below its reserve",
    FAULT: "a worker could not count them: kedge status names the fault",
    ID_REUSED: "another request used their id before",
    RETRY: "the same request was sent before under their id: both are one prediction",
    HOUR_BYTES: "their hour had its share of [server] records_gb",
    ALL_BYTES: "they were dropped before their time: [server] records_gb was reached",
}
"""Texts of all causes, which follow "because"."""


def sentence(answered: int, by_cause: Mapping[str, int]) -> str:
    """Return how many predictions are not recorded, and why; empty when all are."""
    ranked = sorted(by_cause.items(), key=lambda item: (-item[1], item[0]))
    said = [f"{count:,} because {CAUSES.get(cause, cause)}" for cause, count in ranked if count]
    if not said:
        return ""
    total = sum(by_cause.values())
    return f"{total:,} of {max(answered, total):,} predictions are not recorded: {'; '.join(said)}"
