"""Screen of doctor: one row for each finding, with the fault and its fix."""

from __future__ import annotations

from kedge.cli.blocks import Cell, Column, Grid, Screen, bad, good
from kedge.operations.doctor import DoctorFinding, DoctorReport

COLUMNS = (Column("RESULT", whole=True), Column("CHECK"), Column("FOUND"))


def doctor_screen(report: DoctorReport) -> Screen:
    """Return the findings, in the order of the checks."""
    return [Grid(COLUMNS, [_row(one) for one in report.findings])]


def _row(one: DoctorFinding) -> tuple[Cell, ...]:
    return good("ok") if one.ok else bad("BAD"), one.check, one.detail
