"""Screen of a diagnosis: the headline, the findings, the evidence for each question."""

from __future__ import annotations

from kedge.cli.blocks import (
    BLANK,
    Column,
    Grid,
    Paragraph,
    Phrase,
    Screen,
    Tone,
    facts,
    faint,
    strong,
)
from kedge.cli.text.diagnosis import AGES, get_figure, get_finding, get_reference, get_window
from kedge.operations.diagnosis.document import DiagnosisReport

COLUMNS = (
    Column("QUESTION", whole=True),
    Column("VERDICT", whole=True),
    Column("FIGURE"),
    Column("ANSWER"),
)


def diagnosis_screen(report: DiagnosisReport) -> Screen:
    """Return a diagnosis, with the headline first."""
    found, window = report.diagnosis, report.window
    of = f", {window.segment} only" if window.segment else ""
    rows = [
        (row.question.replace("_", " "), row.verdict, get_figure(row), row.answer)
        for row in found.evidence
    ]
    below = [
        ("today", f"{get_window(window)}{of}"),
        ("reference", get_reference(report.reference)),
        *(
            ("replayed", f"{count:,} requests on the {AGES[which]} release")
            for which, count in report.replayed.items()
        ),
        *(("without", fault) for fault in report.faults),
        *(("missing", lack.log) for lack in found.missing),
        *(("could change if", text) for text in found.would_change),
    ]
    return [
        Paragraph(strong(found.headline)),
        BLANK,
        facts(
            [
                *((Phrase("found", Tone.WARN), get_finding(one)) for one in found.findings),
                (strong("do"), strong(found.action.sentence)),
            ]
        ),
        BLANK,
        Grid(COLUMNS, rows, 2),
        BLANK,
        facts([(faint(name), text) for name, text in below]),
    ]
