"""Diagnosis page: the newest diagnoses, their evidence, and what is missing."""

from __future__ import annotations

from kedge.core.diagnosis.findings import Estimate
from kedge.core.diagnosis.summary import DiagnosisSummary
from kedge.core.values import Value
from kedge.operations.diagnosis.document import DiagnosisReport
from kedge.web.dashboard.pages.endpoint import EndpointHead
from kedge.web.dashboard.pages.page import DashboardPage, PagePart, Viewer
from kedge.web.dashboard.pages.quantities import percent, span

SWAPS = ("release", "model", "features", "interaction", "swap", "back model", "back features")
"""Questions that exchange the model or the features alone."""


class EffectBar(Value, frozen=True):
    """An estimate as a bar around zero, in per cent of the widest one."""

    low: float
    high: float
    value: float
    text: str


class FindingLine(Value, frozen=True, kw_only=True):
    """One cause."""

    cause: str
    statement: str
    effect: str
    share: str
    columns: tuple[str, ...]


class EvidenceLine(Value, frozen=True):
    """One question of the diagnosis."""

    question: str
    answer: str
    verdict: str
    bar: EffectBar | None


class DiagnosisView(Value, frozen=True, kw_only=True):
    """A diagnosis."""

    at: float
    since: float
    until: float
    requests: int
    labelled: int
    about: str
    headline: str
    effect: EffectBar | None
    metric: str
    advice: str
    findings: tuple[FindingLine, ...]
    missing: tuple[str, ...]
    took: str


class DiagnosesView(Value, frozen=True, kw_only=True):
    """The diagnoses of an endpoint, and the whole of the newest that this process ran."""

    endpoint: str
    newest: tuple[DiagnosisView, ...]
    evidence: tuple[EvidenceLine, ...]
    """Empty: this process ran none since it started."""
    swaps: tuple[EvidenceLine, ...]
    """The comparison of model and features, each exchanged alone."""
    would_change: tuple[str, ...]
    running: bool
    fault: str
    """Why the last diagnosis from this page failed; empty: it did not."""
    can_operate: bool


def diagnosis_page(
    endpoint: str,
    found: tuple[DiagnosisSummary, ...],
    report: DiagnosisReport | None,
    head: EndpointHead,
    viewer: Viewer,
    *,
    running: bool,
    fault: str,
    at: float,
) -> DashboardPage:
    """Return the page of an endpoint's diagnoses."""
    lines = evidence_of(report)
    view = DiagnosesView(
        endpoint=endpoint,
        newest=tuple(view_of(one) for one in found),
        evidence=lines,
        swaps=tuple(line for line in lines if line.question in SWAPS),
        would_change=report.diagnosis.would_change if report is not None else (),
        running=running,
        fault=fault,
        can_operate=viewer.can_operate,
    )
    return DashboardPage(
        title=f"Diagnosis · {endpoint}",
        template="endpoint_page.html",
        parts=(
            PagePart("head", "endpoint_head.html", head),
            PagePart("diagnosis", "diagnosis.html", view),
        ),
        endpoint=endpoint,
        tab="diagnosis",
        at=at,
    )


def view_of(one: DiagnosisSummary) -> DiagnosisView:
    """Return a recorded diagnosis."""
    harms = one.harms or (None,) * len(one.causes)
    statements = one.statements or ("",) * len(one.causes)
    return DiagnosisView(
        at=one.at,
        since=one.since,
        until=one.until,
        requests=one.requests,
        labelled=one.labelled,
        about=f"r{one.new} against " + (f"r{one.old}" if one.old is not None else "no way back"),
        headline=one.headline,
        effect=bar_of(one.effect, _reach(one.effect)),
        metric=one.metric,
        advice=one.advice,
        findings=tuple(
            FindingLine(
                cause=str(cause).replace("_", " "),
                statement=statement,
                effect=harm.text() if harm is not None else "",
                share="",
                columns=(),
            )
            for cause, statement, harm in zip(one.causes, statements, harms, strict=False)
        ),
        missing=one.missing,
        took=span(one.took_s) if one.took_s is not None else "",
    )


def evidence_of(report: DiagnosisReport | None) -> tuple[EvidenceLine, ...]:
    """Return every question of a diagnosis with its answer."""
    if report is None:
        return ()
    lines = []
    for one in report.diagnosis.evidence:
        bar = None
        if one.figure is not None and one.low is not None and one.high is not None:
            reach = max(abs(one.low), abs(one.high), 1e-9)
            bar = bar_of(Estimate(one.figure, one.low, one.high, 0), reach)
        lines.append(EvidenceLine(one.question.replace("_", " "), one.answer, one.verdict, bar))
    return tuple(lines)


def findings_of(report: DiagnosisReport) -> tuple[FindingLine, ...]:
    """Return the causes of a whole diagnosis, with each one's share and columns."""
    return tuple(
        FindingLine(
            cause=str(one.cause).replace("_", " "),
            statement=one.statement,
            effect=one.effect.text() if one.effect is not None else "",
            share=percent(round(one.share * 100)) if one.share is not None else "",
            columns=one.columns,
        )
        for one in report.diagnosis.findings
    )


def _reach(one: Estimate | None) -> float:
    return max(abs(one.low), abs(one.high), 1e-9) if one is not None else 1.0


def bar_of(one: Estimate | None, reach: float) -> EffectBar | None:
    """Return an estimate as a bar from 0 to 200, with zero at 100."""
    if one is None:
        return None
    low, high, value = (round(100 + x / reach * 95, 1) for x in (one.low, one.high, one.value))
    return EffectBar(low, high, value, one.text())
