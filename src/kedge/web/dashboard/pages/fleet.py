"""Fleet page: one line for each endpoint, the most urgent first."""

from __future__ import annotations

from collections.abc import Mapping

from kedge.core.values import Stage, Value
from kedge.operations.status.view import EndpointStatus
from kedge.web.dashboard.pages.page import DashboardPage, PagePart, Viewer
from kedge.web.dashboard.pages.quantities import count, percent, rate, spark
from kedge.web.dashboard.pages.readings import FleetReading, seen
from kedge.web.dashboard.pages.way_back import Landing, landing_now, name
from kedge.web.dashboard.rates import TrafficRates

STAGES = {
    Stage.EMPTY: "no release",
    Stage.SHADOW: "shadow",
    Stage.CANARY: "canary",
    Stage.SETTLED: "settled",
    Stage.DRILL: "drill",
}
VERDICTS = {
    "pass": ("ok", "may go on"),
    "fail": ("bad", "worse"),
    "inconclusive": ("wait", "not yet known"),
    "broken input": ("warn", "cannot be judged"),
}
"""Tone and words of a verdict."""


class FleetRow(Value, frozen=True, kw_only=True):
    """One endpoint in a line."""

    endpoint: str
    epoch: int
    rank: int
    """Urgency: 0 is the highest."""
    tone: str
    """bad, warn, busy or ok."""
    trouble: str
    """The most urgent problem; empty: there is none."""
    more: int
    """Number of further problems."""
    production: str
    candidate: str
    stage: str
    share: str
    """The candidate's share of callers or copies; empty without a candidate."""
    held: str
    """paused, frozen or both; empty otherwise."""
    landing: Landing
    verdict: str
    """The verdict on the candidate in words; empty without one."""
    verdict_tone: str
    pages: int
    warnings: int
    owner: str
    on_call: str
    replicas: str
    behind: bool
    """Whether a replica serves another epoch, or is silent."""
    rate: str
    per_second: float
    line: str
    """Points of the small chart."""


class FleetSummary(Value, frozen=True, kw_only=True):
    """The counts at the head of the fleet."""

    endpoints: int
    troubled: int
    rollouts: int
    pages: int
    unready: int
    rate: str


def fleet_page(
    reading: FleetReading, rates: Mapping[str, TrafficRates], viewer: Viewer, at: float
) -> DashboardPage:
    """Return the page of all endpoints that a viewer may see."""
    rows = sorted(
        (fleet_row(one, rates.get(one.endpoint)) for one in seen(reading.found, viewer.endpoints)),
        key=lambda row: (row.rank, row.endpoint),
    )
    summary = FleetSummary(
        endpoints=len(rows),
        troubled=sum(row.tone in ("bad", "warn") for row in rows),
        rollouts=sum(bool(row.candidate) for row in rows),
        pages=sum(row.pages for row in rows),
        unready=sum(
            row.landing.warmth in ("cold", "none") and bool(row.production) for row in rows
        ),
        rate=rate(sum(row.per_second for row in rows)),
    )
    parts = [PagePart("summary", "fleet_summary.html", summary)]
    parts += [PagePart(f"row-{row.endpoint}", "fleet_row.html", row) for row in rows]
    return DashboardPage(title="Fleet", template="fleet.html", parts=tuple(parts), at=at)


def fleet_row(one: EndpointStatus, traffic: TrafficRates | None) -> FleetRow:
    """Return the line of one endpoint."""
    traffic = traffic or TrafficRates()
    troubles = troubles_of(one)
    pages = sum(alert.level == "page" for alert in one.alerts)
    served = [replica for replica in one.replicas if not replica.silent]
    current = sum(replica.epoch == one.epoch for replica in served)
    tone, verdict = VERDICTS[one.decision.verdict] if one.decision else ("", "")
    candidate = one.candidate is not None
    share = one.weight if one.stage is Stage.CANARY else one.sample
    rank = 0 if pages else 1 if troubles and troubles[0][0] == "bad" else 2 if troubles else 3
    return FleetRow(
        endpoint=one.endpoint,
        epoch=one.epoch,
        rank=rank if rank < 3 else 3 if candidate else 4,
        tone=("bad" if rank < 2 else "warn") if troubles else "busy" if candidate else "ok",
        trouble=troubles[0][1] if troubles else "",
        more=max(len(troubles) - 1, 0),
        production=name(one.production),
        candidate=name(one.candidate),
        stage=STAGES[one.stage],
        share=percent(share) if candidate else "",
        held=" and ".join(
            word
            for word, on in (
                ("drill", one.drill is not None),
                ("paused", one.paused),
                ("frozen", one.frozen),
            )
            if on
        ),
        landing=landing_now(one),
        verdict=verdict,
        verdict_tone=tone,
        pages=pages,
        warnings=len(one.alerts) - pages,
        owner=one.owner or "",
        on_call=one.on_call or "",
        replicas=f"{current}/{len(one.replicas)} at {one.epoch}",
        behind=current < len(one.replicas) or not one.replicas,
        rate=rate(traffic.rate),
        per_second=traffic.rate or 0.0,
        line=spark(traffic.line[-60:]),
    )


def troubles_of(one: EndpointStatus) -> list[tuple[str, str]]:
    """Return the problems of an endpoint, each with its tone, the most urgent first."""
    found = [("bad", alert.summary) for alert in one.alerts if alert.level == "page"]
    if one.drill is not None:
        found.append(("warn", f"drill: {one.drill.left} is restored in {one.drill.left_s:.0f} s"))
    found += [("bad", fault) for fault in one.faults]
    found += [
        ("warn", f"{process.name}: {fault.place} failed")
        for process in one.processes
        for fault in process.faults
        if fault.standing
    ]
    found += [("warn", alert.summary) for alert in one.alerts if alert.level == "warn"]
    if one.readiness is not None and not one.readiness.ready:
        failed = count(len(one.readiness.failed), "check")
        found.append(("warn", f"not ready: {failed} failed"))
    return found
