"""Stored report of a diagnosis: the newest of each endpoint, with its whole evidence.

The ledger has the summary of every diagnosis. The evidence is much larger, so that only the newest
is kept, in a file that can be lost.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from kedge.core.codec import decode, encode
from kedge.operations.diagnosis.document import DiagnosisReport
from kedge.system.durable import write_atomically

REPORTS_DIR = "diagnoses"
MOST_BYTES = 4 << 20
"""Largest report that is read; a long one has some ten kilobytes."""


def store_report(state_dir: Path, report: DiagnosisReport) -> str:
    """Store the report in place of the endpoint's former one; return why it could not be stored."""
    path = _path(state_dir, report.endpoint)
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        write_atomically(path, encode(report))
    except OSError as error:
        return f"the evidence could not be stored: {error.strerror}"
    return ""


def read_report(state_dir: Path, endpoint: str) -> DiagnosisReport | None:
    """Return the newest report; None: there is none, or this version cannot read it."""
    path = _path(state_dir, endpoint)
    try:
        if path.stat().st_size > MOST_BYTES:
            return None
        return decode(path.read_bytes(), DiagnosisReport)
    except (OSError, msgspec.DecodeError):
        return None


def _path(state_dir: Path, endpoint: str) -> Path:
    return state_dir / REPORTS_DIR / f"{endpoint}.json"
