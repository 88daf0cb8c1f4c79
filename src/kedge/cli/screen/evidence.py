"""Screen of evidence: two releases side by side, the worst segments, and what is missing."""

from __future__ import annotations

from collections.abc import Sequence

from kedge.cli.blocks import (
    BLANK,
    Cell,
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
from kedge.cli.text.evidence import (
    COURSE,
    NO_COURSE,
    get_cells,
    get_cost,
    get_course,
    get_disagreements,
    get_example,
    get_head,
    get_labels,
    get_losses,
    get_noise,
    get_outlook,
    get_rates,
    get_share,
    get_verdict,
    get_waits,
    names,
)
from kedge.core.evidence.rules import Word
from kedge.operations.evidence.view import (
    AgreementView,
    ComparisonView,
    CoursePoint,
    MetricVerdict,
)

TONES: dict[Word, Tone] = {
    "pass": Tone.GOOD,
    "fail": Tone.BAD,
    "inconclusive": Tone.FAINT,
    "broken input": Tone.WARN,
}
"""Tone of a verdict; its word is beside it."""


def evidence_screen(found: ComparisonView) -> Screen:
    """Return all evidence of a rollout."""
    blocks: list[Grid | Paragraph] = [
        Paragraph(strong(get_head(found))),
        Paragraph(Phrase(get_verdict(found), TONES[found.decision.verdict])),
        *map(Paragraph, get_outlook(found)),
    ]
    blocks += _figures(found)
    waits = get_waits(found)
    if waits:
        blocks += [BLANK, Paragraph(strong("still missing"), 2), facts(waits, 4)]
    if found.agreement is not None and found.agreement.pairs:
        blocks += _agreement(found, found.agreement)
    coverage = found.coverage
    if coverage.share is not None:
        blocks += [BLANK, Paragraph(get_share(coverage), 2)]
    blocks += [Paragraph(text, 2) for text in get_losses(coverage)]
    labels = get_labels(found)
    blocks += [BLANK] if labels else []
    return blocks + [Paragraph(text, 2) for text in (*labels, *get_cost(found))]


def _figures(found: ComparisonView) -> list[Grid | Paragraph]:
    """Return metrics, and below them segments, the worst first."""
    old, new = names(found)
    columns = (
        Column("METRIC", whole=True),
        Column("SEGMENT"),
        Column(old, right=True, whole=True),
        Column(new, right=True, whole=True),
        Column(f"{new} / {old}"),
        Column("VERDICT", whole=True),
    )
    shown = [*found.metrics, *found.segments]
    wide = Grid(columns, [_row(item, percent=True) for item in shown], 2)
    narrow = Grid(columns, [_row(item, percent=False) for item in shown], 2)
    least = Grid((Column("METRIC"), *columns[2:4], Column("VERDICT")), [*map(_least, shown)], 2)
    chosen = wide._replace(narrow=narrow._replace(narrow=least))
    return [BLANK, chosen] if shown else []


def _least(item: MetricVerdict) -> list[Cell]:
    """Return the same in four cells: the segment beside the metric, the ratio beside the verdict."""
    name, old, new, ratio, verdict = get_cells(item, percent=False)
    word = Phrase(verdict, TONES[item.verdict])
    return [name, old, new, (word, f", {ratio}") if ratio != "-" else word]


def _row(item: MetricVerdict, *, percent: bool) -> list[Cell]:
    _, old, new, ratio, verdict = get_cells(item, percent=percent)
    segment = item.segment or faint("all")
    return [item.metric, segment, old, new, ratio, Phrase(verdict, TONES[item.verdict])]


def _agreement(found: ComparisonView, shown: AgreementView) -> list[Grid | Paragraph]:
    old, new = names(found)
    examples = [get_example(item, old, new) for item in shown.examples[:3]]
    return [
        BLANK,
        Paragraph(get_rates(shown), 2),
        *(Paragraph(text, 4) for text in get_noise(shown, old, new)),
        Grid((Column(), Column(right=True, whole=True), Column()), get_disagreements(shown), 4),
        *(Paragraph(text, 4) for text in examples),
    ]


def course_screen(course: Sequence[CoursePoint], segment: str | None) -> Screen:
    """Return minutes and hours of a comparison."""
    rows = get_course(course, segment)
    if not rows:
        return [Paragraph(NO_COURSE)]
    left = {0, 2}
    columns = [
        Column(head.upper(), right=number not in left, whole=number != 2)
        for number, head in enumerate(COURSE)
    ]
    return [Grid(columns, rows)]
