"""Text of a diagnosis: the report of `kedge diagnose`, and an accepted reference."""

from __future__ import annotations

from kedge.cli.text.layout import get_period
from kedge.core.diagnosis.findings import Estimate, Evidence, Finding
from kedge.operations.diagnosis.document import (
    AcceptedReference,
    DiagnosisReport,
    LogWindow,
    ReferenceWindow,
)

AGES = {"new": "newer", "old": "older"}
"""Releases that requests were replayed on."""


def diagnosis_text(report: DiagnosisReport) -> str:
    """Return a diagnosis as text, with the headline first."""
    found, window = report.diagnosis, report.window
    lines = [found.headline, "", *(f"  found   {get_finding(one)}" for one in found.findings)]
    lines += [f"  do      {found.action.sentence}", "", "  evidence"]
    lines += [_evidence_line(row) for row in found.evidence]
    of = f", {window.segment} only" if window.segment else ""
    lines += [
        "",
        f"  today      {get_window(window)}{of}",
        f"  reference  {get_reference(report.reference)}",
    ]
    lines += [
        f"  replayed   {count:,} requests on the {AGES[which]} release"
        for which, count in report.replayed.items()
    ]
    lines += [f"  without    {fault}" for fault in report.faults]
    lines += [f"  missing    {lack.log}" for lack in found.missing]
    lines += [f"  could change if  {text}" for text in found.would_change]
    return "\n".join(lines)


def accepted_text(found: AcceptedReference) -> str:
    """Return the new reference as text."""
    return (
        f"{found.endpoint}: {found.requests:,} requests of {found.release} are the reference now, "
        f"{found.labelled:,} of them labelled"
    )


def get_finding(one: Finding) -> str:
    """Return a finding: its cause, what was found, and its effect."""
    share = f", {one.share:.0%} of the rise" if one.share is not None else ""
    effect = f" ({_estimate(one.effect)}{share})" if one.effect is not None else ""
    kind = f", {one.kind.replace('_', ' ')}" if one.kind is not None else ""
    return f"{one.cause.replace('_', ' ')}{kind}: {one.statement}{effect}"


def _estimate(found: Estimate) -> str:
    return f"{found.value:+.3g} [{found.low:+.3g}, {found.high:+.3g}]"


def _evidence_line(row: Evidence) -> str:
    figure = get_figure(row)
    return f"    {row.question.replace('_', ' '):<14}{row.verdict:<11}{figure:<32} {row.answer}"


def get_figure(row: Evidence) -> str:
    """Return the figure of a question with its interval; empty if it has none."""
    if row.figure is None:
        return ""
    interval = "" if row.low is None else f" [{row.low:+.3g}, {row.high:+.3g}]"
    return f"{row.figure:+.4g}{interval}"


def get_reference(reference: ReferenceWindow | None) -> str:
    """Return the window that today is compared with."""
    if reference is None:
        return "none: no earlier window has enough labels"
    return f"{reference.rule}: {get_window(reference)}, of {reference.of}"


def get_window(window: LogWindow) -> str:
    """Return a window of the log: when, how many requests, and what is missing of it."""
    counts = (
        (window.unread, "older ones left out by the bound"),
        (window.beyond, "of those with an outcome"),
        (window.without_inputs, "left out: their inputs are not logged"),
        (window.torn_hours, "hours of the log torn"),
    )
    more = [f"{count:,} {text}" for count, text in counts if count]
    if window.lost:
        more.append(f"{window.lost:.1%} of the log lost")
    if window.left_out:
        more.append(f"{', '.join(window.left_out)} not compared: ids or times")
    when = get_period(window.since, window.until)
    said = f"{when}: {window.requests:,} requests, {window.labelled:,} labelled"
    return said + (f" ({'; '.join(more)})" if more else "")
