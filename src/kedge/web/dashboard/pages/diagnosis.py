"""Diagnosis page: the newest diagnoses, the evidence of the newest, and what is missing."""

from __future__ import annotations

from collections.abc import Iterable

from kedge.core.diagnosis.findings import Estimate, Evidence, Finding
from kedge.core.diagnosis.summary import DiagnosisSummary
from kedge.core.values import Value
from kedge.operations.diagnosis.document import DiagnosisReport
from kedge.web.dashboard.pages.endpoint import EndpointHead
from kedge.web.dashboard.pages.page import DashboardPage, PagePart, Viewer
from kedge.web.dashboard.pages.quantities import count, percent, span
from kedge.web.dashboard.pages.readings import FindingsReading

PARTS = ("model", "features")
"""Questions about the share of each part in the loss."""
NOW = "the release now"


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
    """Its part of the whole rise; empty: not known."""
    columns: tuple[str, ...]
    suspects: tuple[tuple[str, str], ...] = ()
    """Columns to check, each with the reason."""


class EvidenceLine(Value, frozen=True):
    """One question of the diagnosis."""

    question: str
    answer: str
    verdict: str
    figure: str
    bar: EffectBar | None


class ShareLine(Value, frozen=True):
    """What a part of a release, or one exchanged feature, adds to the loss."""

    what: str
    share: str
    """Its part of the difference of both releases; empty: not known."""
    bar: EffectBar
    verdict: str


class SquareCell(Value, frozen=True):
    """The loss with one model and one set of features, against that of the release now."""

    text: str
    bar: EffectBar | None


class ModelSquare(Value, frozen=True):
    """The comparison of both models on both sets of features: rows by model, columns by features."""

    new: str
    old: str
    rows: tuple[tuple[str, tuple[SquareCell, SquareCell]], ...]
    """The new model and the old one, each on the new features and on the old ones."""


class DiagnosisView(Value, frozen=True, kw_only=True):
    """A diagnosis."""

    at: float
    since: float
    until: float
    requests: int
    labelled: int
    about: str
    segment: str
    headline: str
    effect: EffectBar | None
    metric: str
    advice: str
    against: bool
    """Whether it speaks against a rollback."""
    findings: tuple[FindingLine, ...]
    missing: tuple[str, ...]
    took: str


class WholeEvidence(Value, frozen=True, kw_only=True):
    """The evidence of one diagnosis."""

    is_newest: bool
    """Whether it belongs to the first diagnosis of the page."""
    headline: str
    square: ModelSquare | None
    shares: tuple[ShareLine, ...]
    lines: tuple[EvidenceLine, ...]
    would_change: tuple[str, ...]
    windows: tuple[tuple[str, str], ...]
    faults: tuple[str, ...]


class DiagnosesView(Value, frozen=True, kw_only=True):
    """The diagnoses of an endpoint, and the whole evidence of the newest."""

    endpoint: str
    newest: tuple[DiagnosisView, ...]
    evidence: WholeEvidence | None
    """None: it is not stored."""
    running: float | None
    """Unix time since which a diagnosis of this page runs; None: none runs."""
    fault: str
    """Why the last diagnosis from this page failed; empty: it did not."""
    can_operate: bool
    role: str


def diagnosis_page(
    endpoint: str,
    reading: FindingsReading,
    head: EndpointHead,
    viewer: Viewer,
    *,
    running: float | None,
    fault: str,
    at: float,
) -> DashboardPage:
    """Return the page of an endpoint's diagnoses."""
    report, newest = reading.report, reading.found[0][0] if reading.found else None
    is_newest = report is not None and report.filed is not None and report.filed == newest
    view = DiagnosesView(
        endpoint=endpoint,
        newest=tuple(
            view_of(one, report if is_newest and seq == newest else None)
            for seq, one in reading.found
        ),
        evidence=whole_of(report, is_newest=is_newest) if report is not None else None,
        running=running,
        fault=fault,
        can_operate=viewer.can_operate,
        role=viewer.role,
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


def view_of(one: DiagnosisSummary, report: DiagnosisReport | None) -> DiagnosisView:
    """Return a recorded diagnosis; of its whole report also shares and columns."""
    harms = one.harms or (None,) * len(one.causes)
    statements = one.statements or ("",) * len(one.causes)
    recorded = tuple(
        FindingLine(
            cause=str(cause).replace("_", " "),
            statement=statement,
            effect=harm.text() if harm is not None else "",
            share="",
            columns=(),
        )
        for cause, statement, harm in zip(one.causes, statements, harms, strict=False)
    )
    whole = report.diagnosis.findings if report is not None else ()
    return DiagnosisView(
        at=one.at,
        since=one.since,
        until=one.until,
        requests=one.requests,
        labelled=one.labelled,
        about=f"r{one.new} against " + (f"r{one.old}" if one.old is not None else "no way back"),
        segment=one.segment,
        headline=one.headline,
        effect=bar_of(one.effect, reach_of([one.effect])),
        metric=one.metric.replace("_", " "),
        advice=one.advice,
        against=one.against,
        findings=tuple(finding_of(each) for each in whole) or recorded,
        missing=one.missing,
        took=span(one.took_s) if one.took_s is not None else "",
    )


def finding_of(one: Finding) -> FindingLine:
    """Return a cause with its share and its columns."""
    kind = f", {one.kind.replace('_', ' ')}" if one.kind is not None else ""
    return FindingLine(
        cause=f"{one.cause.replace('_', ' ')}{kind}",
        statement=one.statement,
        effect=one.effect.text() if one.effect is not None else "",
        share=percent(round(one.share * 100)) if one.share is not None else "",
        columns=one.columns,
        suspects=tuple((suspect.column, suspect.text) for suspect in one.suspects),
    )


def whole_of(report: DiagnosisReport, *, is_newest: bool) -> WholeEvidence:
    """Return every question of a diagnosis, the square of model and features, and the shares."""
    found, window, reference = report.diagnosis, report.window, report.reference
    windows = [("today", _window(window.since, window.until, window.requests, window.labelled))]
    if reference is not None:
        text = _window(reference.since, reference.until, reference.requests, reference.labelled)
        windows.append(("reference", f"{reference.rule}, of {reference.of}: {text}"))
    else:
        windows.append(("reference", "none: no earlier window has enough labels"))
    windows += [
        ("replayed", f"{count(number, 'request')} on the {which} release")
        for which, number in report.replayed.items()
    ]
    return WholeEvidence(
        is_newest=is_newest,
        headline=found.headline,
        square=square_of(report),
        shares=shares_of(found.evidence),
        lines=tuple(evidence_line(one) for one in found.evidence if one.question != "swap"),
        would_change=found.would_change,
        windows=tuple(windows),
        faults=report.faults,
    )


def _window(since: float, until: float, requests: int, labelled: int) -> str:
    took = span(max(until - since, 0.0))
    return f"{count(requests, 'request')}, {labelled:,} with an outcome, of {took}"


def square_of(report: DiagnosisReport) -> ModelSquare | None:
    """Return the losses of both models on both sets of features, against the release now."""
    found = report.diagnosis
    model = _estimate(found.evidence, "back_model")
    features = _estimate(found.evidence, "back_features")
    if found.effect is None or found.old is None or (model is None and features is None):
        return None
    reach = reach_of([found.effect, model, features])
    cells = {one: _cell(one, reach) for one in (found.effect, model, features)}
    return ModelSquare(
        found.new,
        found.old,
        (
            ("new model", (SquareCell(NOW, None), cells[features])),
            ("old model", (cells[model], cells[found.effect])),
        ),
    )


def _cell(one: Estimate | None, reach: float) -> SquareCell:
    bar = bar_of(one, reach)
    return SquareCell(bar.text if bar is not None else "not replayed", bar)


def shares_of(evidence: Iterable[Evidence]) -> tuple[ShareLine, ...]:
    """Return what model, features and each exchanged feature add to the loss, on one scale."""
    lines = [(one, _of(one)) for one in evidence if one.question in (*PARTS, "swap", "release")]
    known = [(one, estimate) for one, estimate in lines if estimate is not None]
    whole = next((e.value for one, e in known if one.question == "release"), None)
    reach = reach_of([estimate for _, estimate in known])
    return tuple(
        ShareLine(
            what=f"feature {one.answer}" if one.question == "swap" else f"the {one.question}",
            share=percent(round(estimate.value / whole * 100)) if whole and whole > 0 else "",
            bar=bar,
            verdict=one.verdict,
        )
        for one, estimate in known
        if one.question != "release" and (bar := bar_of(estimate, reach)) is not None
    )


def evidence_line(one: Evidence) -> EvidenceLine:
    """Return one question with its answer."""
    estimate = _of(one)
    figure = f"{one.figure:+.3g}" if one.figure is not None else ""
    return EvidenceLine(
        one.question.replace("_", " "),
        one.answer,
        one.verdict,
        estimate.text() if estimate is not None else figure,
        bar_of(estimate, reach_of([estimate])),
    )


def _estimate(evidence: Iterable[Evidence], question: str) -> Estimate | None:
    return next((_of(one) for one in evidence if one.question == question), None)


def _of(one: Evidence) -> Estimate | None:
    if one.figure is None or one.low is None or one.high is None:
        return None
    return Estimate(one.figure, one.low, one.high, 0)


def reach_of(found: Iterable[Estimate | None]) -> float:
    """Return the largest bound of these, as the end of their common scale."""
    bounds = [abs(bound) for one in found if one is not None for bound in (one.low, one.high)]
    return max(*bounds, 1e-9) if bounds else 1.0


def bar_of(one: Estimate | None, reach: float) -> EffectBar | None:
    """Return an estimate as a bar from 0 to 200, with zero at 100."""
    if one is None:
        return None
    low, high, value = (round(100 + x / reach * 95, 1) for x in (one.low, one.high, one.value))
    return EffectBar(low, high, value, one.text())
