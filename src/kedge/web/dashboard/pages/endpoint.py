"""Endpoint page: what is live, what is wrong, the evidence, and the buttons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kedge.core.evidence.rules import QUALITY
from kedge.core.values import Stage, Value
from kedge.engine.recording.recorder import bin_upper_us
from kedge.operations.evidence.view import ComparisonView
from kedge.operations.status.view import EndpointStatus, OpenAlert, ReplicaStatus
from kedge.web.dashboard.course import COST, CourseLine
from kedge.web.dashboard.pages.acts import ActButton, buttons_of
from kedge.web.dashboard.pages.charts import ChartView
from kedge.web.dashboard.pages.examples import ExampleLine, example_lines
from kedge.web.dashboard.pages.fleet import STAGES, VERDICTS, troubles_of
from kedge.web.dashboard.pages.guardrails import (
    GuardrailTile,
    HeatTable,
    heat_of,
    tiles_of,
)
from kedge.web.dashboard.pages.marks import EventLine, lines_of, marks_of
from kedge.web.dashboard.pages.page import DashboardPage, PagePart, Viewer
from kedge.web.dashboard.pages.quantities import micros, percent, rate, share, span
from kedge.web.dashboard.pages.readings import PageReading
from kedge.web.dashboard.pages.refusals import ActRefusal
from kedge.web.dashboard.pages.rollout import rollout_of
from kedge.web.dashboard.pages.way_back import Landing, landing_now, name, undo
from kedge.web.dashboard.rates import ARMS, TrafficRates

EXAMPLES = 5
"""Worked examples of disagreement on the page."""
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
    chart: ChartView
    """Requests a second."""
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


class TilesView(Value, frozen=True):
    """The tiles of all guardrails, with their charts."""

    tiles: tuple[GuardrailTile, ...]
    charts: dict[str, ChartView]
    arms: tuple[str, str]


class ExamplesView(Value, frozen=True):
    """The newest requests that both releases answered differently."""

    lines: tuple[ExampleLine, ...]
    endpoint: str
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


def head_of(
    reading: PageReading,
    refusals: Mapping[str, ActRefusal],
    viewer: Viewer,
    *,
    with_alerts: bool = True,
) -> EndpointHead:
    """Return the head of an endpoint's pages; `with_alerts`: also the open pages."""
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
        troubles=tuple(t for t in troubles if t[1] not in told or (t[0] == "bad" and with_alerts)),
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
    viewer: Viewer,
    at: float,
) -> DashboardPage:
    """Return the page of one endpoint."""
    one = reading.status
    evidence = reading.evidence
    parts = [
        PagePart(
            "head", "endpoint_head.html", head_of(reading, refusals, viewer, with_alerts=False)
        ),
        PagePart(
            "alerts",
            "endpoint_alerts.html",
            AlertsView(one.alerts, viewer.can_operate, one.endpoint),
        ),
        PagePart("rollout", "endpoint_rollout.html", rollout_of(reading)),
    ]
    if evidence is not None:
        tiles = tiles_of(evidence, reading.rules, lines)
        charts = {
            tile.metric: _chart(tile.line, reading, evidence)
            for tile in tiles
            if tile.line is not None
        }
        arms = (evidence.production, evidence.candidate)
        parts.append(PagePart("tiles", "endpoint_tiles.html", TilesView(tiles, charts, arms)))
        heat: HeatTable | None = heat_of(evidence, reading.rules)
        parts.append(PagePart("heat", "endpoint_heat.html", heat))
        newest = evidence.agreement.examples[:EXAMPLES] if evidence.agreement else ()
        view = ExamplesView(example_lines(newest), one.endpoint, arms)
        parts.append(PagePart("examples", "endpoint_examples.html", view))
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


def _chart(line: CourseLine, reading: PageReading, evidence: ComparisonView) -> ChartView:
    """Return both releases over time: shares in per cent, costs and losses in their own unit."""
    shares = line.metric not in (COST, QUALITY)
    return ChartView(
        at=line.at,
        series=tuple(
            tuple(_drawn(value, 100 if shares else 1) for value in arm)
            for arm in (line.production, line.candidate)
        ),
        names=(evidence.production, evidence.candidate),
        unit="%" if shares else "",
        marks=marks_of(reading.marked, line.at[0] if line.at else 0.0),
        scale="linear" if shares else "fit",
    )


def _drawn(value: float | None, times: float) -> float | None:
    """Return a value with the digits that a line shows."""
    return None if value is None else float(f"{value * times:.4g}")


def live_of(reading: PageReading, traffic: TrafficRates) -> TrafficView:
    """Return the traffic and the replicas."""
    one = reading.status
    counts = one.counts
    answered, errors = sum(counts.requests.values()), sum(counts.errors.values())
    arms = tuple(arm for arm in ARMS if traffic.bins.get(arm))
    indices = sorted({index for arm in arms for index in traffic.bins[arm]})
    return TrafficView(
        rate=rate(traffic.rate),
        chart=ChartView(
            at=traffic.at,
            series=(tuple(round(value, 1) for value in traffic.line),),
            names=("requests/s",),
            unit="/s",
            marks=marks_of(reading.marked, traffic.at[0]) if traffic.at else (),
        ),
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
