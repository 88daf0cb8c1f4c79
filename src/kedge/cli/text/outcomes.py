"""Text of outcomes: the result for each kind of submitted labels."""

from __future__ import annotations

from kedge.core.evidence.records import COUNTS, ID_REUSED, SEVERAL_ROWS
from kedge.core.evidence.unrecorded import SAMPLING, sentence
from kedge.core.time.instants import iso
from kedge.engine.unrecorded import UnrecordedPredictions
from kedge.operations.outcomes import JoinedOutcomes
from kedge.system.terminal import one_line

SHOWN = 20
"""Maximum number of printed faulty lines; `--json` has up to a hundred."""
AMBIGUOUS = {
    SEVERAL_ROWS: "the request has several rows; write REQUEST/ROW",
    ID_REUSED: "more than one request used the id",
}
"""Text on ambiguous labels, by cause."""
SHOWN_COUNTS = (*COUNTS, "unreadable", "unfit")


def outcomes_text(found: JoinedOutcomes) -> str:
    """Return the counts in one line."""
    counts = [(name, getattr(found, name)) for name in SHOWN_COUNTS]
    return ", ".join(f"{name} {count:,}" for name, count in counts if count) or "nothing to join"


def warnings(found: JoinedOutcomes) -> list[str]:
    """Return the faults of labels that were not joined or cannot be judged, one line each."""
    lines = [one_line(fault) for fault in found.faults[:SHOWN]]
    lines += [
        f"{item.count:,} are unfit and not judged: {one_line(item.reason)}"
        for item in found.unfit_because
    ]
    lines += [
        f"{count:,} are ambiguous and not joined: {AMBIGUOUS[cause]}"
        for cause, count in found.ambiguous_because.items()
    ]
    if found.conflicts:
        lines.append(
            f"{found.conflicts:,} have another value than the label that stands, and are not"
            " joined: kedge outcomes --correct replaces it, and keeps what it was"
        )
    if found.parked and found.parked_until is not None:
        lines.append(
            f"{found.parked:,} name no prediction that is known: each waits 24 h from when it"
            f" was first handed in (the earliest until {iso(found.parked_until)}), and is"
            " unknown then"
        )
    if found.unrecorded:
        lines.append(
            f"{found.unrecorded:,} name requests that were answered, by the time in their ids,"
            " and whose predictions are not recorded: they are not judged"
        )
    return lines + _missing(found.unrecorded_predictions, found.log_sample)


def _missing(lost: UnrecordedPredictions | None, sample: float) -> list[str]:
    """Return why predictions are not recorded; empty if all labels found their predictions."""
    said = sentence(lost.answered, lost.by_cause) if lost is not None else ""
    if lost is None or not said:
        return []
    hint = (
        f"while nothing is compared log.sample keeps {sample:g} % of the entities: "
        "log = {sample = 100} keeps all"
    )
    return [said, hint] if SAMPLING in lost.by_cause else [said]
