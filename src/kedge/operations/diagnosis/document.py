"""Documents of a diagnosis: what `kedge diagnose` and `kedge accept` report, as frozen values."""

from __future__ import annotations

from kedge.core.diagnosis.findings import Diagnosis
from kedge.core.values import Value


class LogWindow(Value, frozen=True, kw_only=True):
    """One window of the prediction log, as it was read."""

    since: float
    """Its begin, Unix seconds; of a reference the time of its oldest request."""
    until: float
    """Its end, Unix seconds; of a reference the time of its newest request."""
    requests: int
    """Requests that are diagnosed."""
    labelled: int
    """Those of them with an outcome."""
    lost: float
    """Share of the log that was damaged or dropped, 0 to 1."""
    unread: int
    """Older requests that exceeded the limit."""
    beyond: int
    """Those with an outcome, if known."""
    torn_hours: int
    """Damaged hours of the log."""
    without_inputs: int
    """Requests left out because their inputs are not logged."""
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
    """The rule by which it was chosen."""


class DiagnosisReport(Value, frozen=True, kw_only=True):
    """A diagnosis, its basis, and the place where it was recorded."""

    endpoint: str
    diagnosis: Diagnosis
    window: TodayWindow
    reference: ReferenceWindow | None
    """Null: no earlier window has enough labels."""
    replayed: dict[str, int]
    """Requests that a release was asked again, by "new" or "old"."""
    faults: tuple[str, ...]
    """Reasons for missing answers, such as a release that could not be replayed."""
    filed: int | None
    """Number of the ledger entry with its summary; null: it could not be written."""
    not_filed: str
    """Why it could not be written to the ledger; empty: it was."""


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
