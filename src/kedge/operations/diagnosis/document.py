"""Documents of a diagnosis: what `kedge diagnose` and `kedge accept` report, as frozen values."""

from __future__ import annotations

from kedge.core.diagnosis.findings import Diagnosis
from kedge.core.values import Value


class LogWindow(Value, frozen=True, kw_only=True):
    """What was read of one window of the prediction log."""

    since: float
    """Its begin, Unix seconds; of a reference that of its oldest request."""
    until: float
    """Its end, Unix seconds; of a reference the time of its newest request."""
    requests: int
    """Requests that are diagnosed."""
    labelled: int
    """Those of them with an outcome."""
    lost: float
    """Share of the log that was torn or dropped, 0 to 1."""
    unread: int
    """Older requests that a bound left out."""
    beyond: int
    """Those of them with an outcome, as far as known."""
    torn_hours: int
    """Hours of the log that are torn."""
    without_inputs: int
    """Requests that were left out since their inputs are not logged."""
    left_out: tuple[str, ...]
    """Columns that are not compared: ids or times."""


class TodayWindow(LogWindow, frozen=True, kw_only=True):
    """The window that is diagnosed."""

    segment: str | None
    """The segment whose requests alone were read, such as origin=JFK; null: all."""


class ReferenceWindow(LogWindow, frozen=True, kw_only=True):
    """The window that today is compared with."""

    of: str
    """The release that answered it, such as r2 (v2)."""
    rule: str
    """By which rule it was chosen."""


class DiagnosisReport(Value, frozen=True, kw_only=True):
    """A diagnosis, what it was made from, and where it was recorded."""

    endpoint: str
    diagnosis: Diagnosis
    window: TodayWindow
    reference: ReferenceWindow | None
    """null where no earlier window has enough labels."""
    replayed: dict[str, int]
    """Requests that a release was asked again, by "new" or "old"."""
    faults: tuple[str, ...]
    """Why an answer is missing, such as a release that could not be replayed."""
    filed: int | None
    """Number of the ledger entry that has it in short; null where it could not be written."""
    not_filed: str
    """Why it could not be written to the ledger; empty where it was."""


class AcceptedReference(Value, frozen=True, kw_only=True):
    """A window that is the reference of later diagnoses."""

    endpoint: str
    since: float
    """Its begin, Unix seconds."""
    until: float
    """Its end, Unix seconds."""
    release: str
    """The release that answered it, such as r2 (v2)."""
    requests: int
    """Requests in it, 50,000 at most."""
    labelled: int
    """Those of the requests with an outcome."""
