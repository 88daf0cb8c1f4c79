"""Segment page: the metrics of one segment, and worked examples of disagreement, one at a time."""

from __future__ import annotations

from math import isnan
from urllib.parse import quote

from kedge.core.evidence.rules import JudgeRules
from kedge.core.values import Value
from kedge.operations.evidence.view import ComparisonView, MetricVerdict
from kedge.web.dashboard.pages.endpoint import EndpointHead
from kedge.web.dashboard.pages.examples import ExampleLine, example_lines
from kedge.web.dashboard.pages.guardrails import cell_of, segment_title, title_of
from kedge.web.dashboard.pages.page import DashboardPage, PagePart, Viewer
from kedge.web.dashboard.pages.quantities import share
from kedge.web.dashboard.pages.readings import ExampleReading, PageReading

LONGEST = 300
"""Characters of a value that a page shows."""


class SegmentMetric(Value, frozen=True, kw_only=True):
    """One metric of a segment."""

    title: str
    difference: str
    word: str
    tone: str
    detail: str


class SegmentView(Value, frozen=True, kw_only=True):
    """One segment: its metrics, and worked examples of disagreement."""

    endpoint: str
    segment: str
    about: str
    metrics: tuple[SegmentMetric, ...]
    disagreement: str
    examples: tuple[ExampleLine, ...]
    arms: tuple[str, str]
    paired: bool
    """Whether both releases answer the same requests."""


class ExampleView(Value, frozen=True, kw_only=True):
    """One request, with both answers and its inputs."""

    endpoint: str
    id: str
    at: float | None
    segments: tuple[tuple[str, str], ...]
    """Each with the path of its page, below that of the endpoint."""
    arms: tuple[str, str]
    production: str
    candidate: str
    outputs: tuple[tuple[str, str, str], ...]
    """The outputs that differ: name, production's value, the candidate's."""
    inputs: tuple[tuple[str, str], ...]
    without_inputs: str
    """Why there are no inputs; empty: there are."""


def segment_page(
    reading: PageReading, evidence: ComparisonView, segment: str, head: EndpointHead, at: float
) -> DashboardPage:
    """Return the page of one segment."""
    agreement = evidence.agreement
    of = next((s for s in agreement.segments if s.segment == segment), None) if agreement else None
    examples = agreement.examples if agreement else ()
    view = SegmentView(
        endpoint=reading.status.endpoint,
        segment=segment,
        about=segment_title(evidence, segment),
        metrics=tuple(
            _metric(v, reading.rules, evidence.candidate)
            for v in evidence.segments
            if v.segment == segment
        ),
        disagreement=f"{share(of.disagreement)} of {of.pairs:,} answers differ" if of else "",
        examples=example_lines([one for one in examples if segment in one.segments]),
        arms=(evidence.production, evidence.candidate),
        paired=evidence.paired,
    )
    return _page(
        f"{segment} · {head.endpoint}", head, PagePart("segment", "segment.html", view), at
    )


def example_page(
    reading: PageReading, known: ExampleReading, head: EndpointHead, viewer: Viewer, at: float
) -> DashboardPage:
    """Return the page of one request that both releases answered differently."""
    pair, evidence = known.pair, reading.evidence
    arms = (evidence.production, evidence.candidate) if evidence else ("production", "candidate")
    segments = pair.segments if pair else known.segments
    view = ExampleView(
        endpoint=head.endpoint,
        id=known.id,
        at=known.at,
        segments=tuple((name, f"segment?name={quote(name, safe='')}") for name in segments),
        arms=arms,
        production=_short(pair.production if pair else known.answers[0]),
        candidate=_short(pair.candidate if pair else known.answers[1]),
        outputs=tuple(
            (d.output, _short(d.production), _short(d.candidate))
            for d in (pair.differs if pair else ())
        ),
        inputs=tuple((k, _short(v)) for k, v in known.inputs) if viewer.can_operate else (),
        without_inputs=_without(known, viewer),
    )
    return _page(
        f"{known.id} · {head.endpoint}", head, PagePart("example", "example.html", view), at
    )


def _without(known: ExampleReading, viewer: Viewer) -> str:
    if not viewer.can_operate:
        return f"inputs are customer data: an operator sees them, and your role is {viewer.role}"
    if known.at is None:
        return "the log does not have this request; workers hand in theirs every ten seconds"
    return "" if known.inputs else "the log keeps inputs of a sample, and not of this request"


def _metric(verdict: MetricVerdict, rules: JudgeRules | None, judged: str) -> SegmentMetric:
    cell = cell_of(verdict, rules, judged)
    return SegmentMetric(
        title=title_of(verdict.metric),
        difference=cell.text,
        word=cell.word,
        tone=cell.tone,
        detail=cell.detail,
    )


def _short(value: object) -> str:
    if value is None or (isinstance(value, float) and isnan(value)):
        return "missing"
    text = f"{value:.7g}" if isinstance(value, float) else str(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _page(title: str, head: EndpointHead, part: PagePart, at: float) -> DashboardPage:
    return DashboardPage(
        title=title,
        template="endpoint_page.html",
        parts=(PagePart("head", "endpoint_head.html", head), part),
        endpoint=head.endpoint,
        tab="endpoint",
        at=at,
    )
