"""Endpoint page: what is live, what is wrong, the evidence, and the buttons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kedge.core.values import Stage, Value
from kedge.engine.recording.recorder import bin_upper_us
from kedge.operations.status.view import EndpointStatus, OpenAlert, ReplicaStatus
from kedge.web.dashboard.course import CourseLine
from kedge.web.dashboard.pages.acts import ActButton, buttons_of
from kedge.web.dashboard.pages.fleet import STAGES, VERDICTS, troubles_of
from kedge.web.dashboard.pages.guardrails import (
    GuardrailTile,
    HeatTable,
    cell_of,
    heat_of,
    segment_title,
    tiles_of,
)
from kedge.web.dashboard.pages.guardrails import title_of as metric_title
from kedge.web.dashboard.pages.marks import EventLine, EventMark, lines_of, marks_of
from kedge.web.dashboard.pages.page import DashboardPage, PagePart, Viewer
from kedge.web.dashboard.pages.quantities import micros, percent, rate, share, span
from kedge.web.dashboard.pages.readings import PageReading
from kedge.web.dashboard.pages.refusals import ActRefusal
from kedge.web.dashboard.pages.rollout import rollout_of
from kedge.web.dashboard.pages.way_back import Landing, landing_now, name, undo
from kedge.web.dashboard.rates import ARMS, TrafficRates

NEWEST = 12
"""Entries of the history on the page."""


class EndpointHead(Value, frozen=True, kw_only=True):
    """The head of an endpoint's pages: what is live, and what a rollback would do."""

    endpoint: str
    epoch: int
    stage: str
    tone: str
    verdict: str
    verdict_tone: str
    production: str
    production_features: str
    candidate: str
    share: str
    held: tuple[str, ...]
    landing: Landing
    undo: str
    owner: str
    on_call: str
    buttons: tuple[ActButton, ...]
    troubles: tuple[tuple[str, str], ...]
    condemned: tuple[str, ...]


class TrafficView(Value, frozen=True, kw_only=True):
    """The traffic, and the replicas that answer it."""

    rate: str
    at: tuple[float, ...]
    line: tuple[float, ...]
    answered: int
    errors: int
    error_share: str
    refused: int
    latency: tuple[tuple[str, str, str], ...]
    """By arm: p50 and p99."""
    latency_bins: tuple[float, ...]
    """Upper bounds in milliseconds."""
    latency_shares: tuple[tuple[float, ...], ...]
    """By arm: per cent of its answers in each bin."""
    arms: tuple[str, ...]
    replicas: tuple[ReplicaStatus, ...]
    epoch: int
    unrecorded: int


class ChartView(Value, frozen=True, kw_only=True):
    """The lines of a chart as its script reads them."""

    at: tuple[float, ...]
    series: tuple[tuple[float | None, ...], ...]
    names: tuple[str, ...]
    unit: str
    marks: tuple[EventMark, ...] = ()
    level: float | None = None
    """A horizontal line, such as a threshold."""
    scale: str = "linear"


class TilesView(Value, frozen=True):
    """The tiles of all guardrails, with their charts."""

    tiles: tuple[GuardrailTile, ...]
    charts: dict[str, ChartView]
    arms: tuple[str, str]


class AlertsView(Value, frozen=True):
    """Open alerts of an endpoint."""

    alerts: tuple[OpenAlert, ...]
    can_operate: bool
    endpoint: str


class EventsView(Value, frozen=True):
    """The newest entries of the ledger."""

    lines: tuple[EventLine, ...]
    endpoint: str


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
    examples: tuple[tuple[str, str, str, str], ...]
    """Identity, production's answer, the candidate's, and the outputs that differ."""


def head_of(
    reading: PageReading, refusals: Mapping[str, ActRefusal], viewer: Viewer
) -> EndpointHead:
    """Return the head of an endpoint's pages."""
    one = reading.status
    candidate = one.candidate is not None
    weight = one.weight if one.stage is Stage.CANARY else one.sample
    told = {alert.summary for alert in one.alerts}
    troubles = tuple(troubles_of(one))
    tone, verdict = VERDICTS[one.decision.verdict] if one.decision else ("", "")
    worst = "bad" if any(t == "bad" for t, _ in troubles) else "warn" if troubles else tone or "ok"
    return EndpointHead(
        endpoint=one.endpoint,
        epoch=one.epoch,
        stage=STAGES[one.stage],
        tone=worst,
        verdict=verdict,
        verdict_tone=tone,
        production=name(one.production),
        production_features=(one.production.features or "") if one.production else "",
        candidate=name(one.candidate),
        share=percent(weight) if candidate else "",
        held=tuple(
            word
            for word, on in (
                ("paused", one.paused),
                ("frozen", one.frozen),
                ("pinned", one.pin is not None),
                (_restored(one), one.drill is not None),
            )
            if on
        ),
        landing=landing_now(one),
        undo=undo(one),
        owner=one.owner or "",
        on_call=one.on_call or "",
        buttons=buttons_of(one, dict(refusals), viewer),
        troubles=tuple(t for t in troubles if t[1] not in told or t[0] == "bad"),
        condemned=one.condemned,
    )


def _restored(one: EndpointStatus) -> str:
    """Return what ends a drill."""
    return f"{one.drill.left} is restored in {span(one.drill.left_s)}" if one.drill else ""


def endpoint_page(
    reading: PageReading,
    *,
    refusals: Mapping[str, ActRefusal],
    traffic: TrafficRates,
    lines: Sequence[CourseLine],
    path: Sequence[tuple[float, float]],
    viewer: Viewer,
    at: float,
) -> DashboardPage:
    """Return the page of one endpoint."""
    one = reading.status
    evidence = reading.evidence
    parts = [
        PagePart("head", "endpoint_head.html", head_of(reading, refusals, viewer)),
        PagePart(
            "alerts",
            "endpoint_alerts.html",
            AlertsView(one.alerts, viewer.can_operate, one.endpoint),
        ),
        PagePart("rollout", "endpoint_rollout.html", rollout_of(reading, path)),
    ]
    if evidence is not None:
        tiles = tiles_of(evidence, reading.rules, lines)
        charts = {
            tile.metric: _chart(tile.line, reading, evidence.production, evidence.candidate)
            for tile in tiles
            if tile.line is not None
        }
        arms = (evidence.production, evidence.candidate)
        parts.append(PagePart("tiles", "endpoint_tiles.html", TilesView(tiles, charts, arms)))
        heat: HeatTable | None = heat_of(evidence)
        parts.append(PagePart("heat", "endpoint_heat.html", heat))
    parts += [
        PagePart("live", "endpoint_live.html", live_of(reading, traffic)),
        PagePart(
            "events",
            "endpoint_events.html",
            EventsView(lines_of(reading.entries)[:NEWEST], one.endpoint),
        ),
    ]
    return DashboardPage(
        title=one.endpoint,
        template="endpoint.html",
        parts=tuple(parts),
        endpoint=one.endpoint,
        tab="endpoint",
        at=at,
        fault=reading.unread,
    )


def _chart(line: CourseLine, reading: PageReading, ours: str, theirs: str) -> ChartView:
    since = line.at[0] if line.at else 0.0
    return ChartView(
        at=line.at,
        series=tuple(
            tuple(None if value is None else round(value * 100, 3) for value in arm)
            for arm in (line.production, line.candidate)
        ),
        names=(ours, theirs),
        unit="%",
        marks=marks_of(reading.entries, since),
    )


def live_of(reading: PageReading, traffic: TrafficRates) -> TrafficView:
    """Return the traffic and the replicas."""
    one = reading.status
    counts = one.counts
    answered, errors = sum(counts.requests.values()), sum(counts.errors.values())
    arms = tuple(arm for arm in ARMS if traffic.bins.get(arm))
    indices = sorted({index for arm in arms for index in traffic.bins[arm]})
    return TrafficView(
        rate=rate(traffic.rate),
        at=traffic.at,
        line=tuple(round(value, 1) for value in traffic.line),
        answered=answered,
        errors=errors,
        error_share=share(errors / (answered + errors)) if answered + errors else "–",
        refused=sum(counts.refused.values()),
        latency=tuple(
            (arm, micros(traffic.p50_us[arm]), micros(traffic.p99_us[arm])) for arm in arms
        ),
        latency_bins=tuple(bin_upper_us(index) / 1e3 for index in indices),
        latency_shares=tuple(
            tuple(
                round(traffic.bins[arm].get(i, 0) * 100 / sum(traffic.bins[arm].values()), 2)
                for i in indices
            )
            for arm in arms
        ),
        arms=arms,
        replicas=one.replicas,
        epoch=one.epoch,
        unrecorded=sum(one.unrecorded.by_cause.values()) if one.unrecorded else 0,
    )


def segment_page(
    reading: PageReading, segment: str, head: EndpointHead, at: float
) -> DashboardPage:
    """Return the page of one segment."""
    evidence = reading.evidence
    assert evidence is not None
    found = [v for v in evidence.segments if v.segment == segment]
    agreement = evidence.agreement
    cells = [(metric_title(v.metric), cell_of(v)) for v in found]
    of = next((s for s in agreement.segments if s.segment == segment), None) if agreement else None
    view = SegmentView(
        endpoint=reading.status.endpoint,
        segment=segment,
        about=segment_title(evidence, segment),
        metrics=tuple(
            SegmentMetric(
                title=title,
                difference=cell.text,
                word=cell.word,
                tone=cell.tone,
                detail=cell.detail,
            )
            for title, cell in cells
        ),
        disagreement=f"{share(of.disagreement)} of {of.pairs:,} answers differ" if of else "",
        examples=tuple(
            (
                one.id,
                one.production,
                one.candidate,
                ", ".join(f"{d.output}: {d.production} → {d.candidate}" for d in one.differs),
            )
            for one in (agreement.examples if agreement else ())
            if segment in one.segments
        ),
    )
    return DashboardPage(
        title=f"{segment} · {reading.status.endpoint}",
        template="endpoint_page.html",
        parts=(
            PagePart("head", "endpoint_head.html", head),
            PagePart("segment", "segment.html", view),
        ),
        endpoint=reading.status.endpoint,
        tab="endpoint",
        at=at,
    )
