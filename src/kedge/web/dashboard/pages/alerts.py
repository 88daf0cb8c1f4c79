"""Alerts page: open and past alerts of all endpoints, their escalation and their history."""

from __future__ import annotations

from kedge.core.alerts.alerts import Delivery, Rung
from kedge.core.values import Value
from kedge.operations.alerts import ListedAlert
from kedge.web.dashboard.pages.page import DashboardPage, PagePart, Viewer
from kedge.web.dashboard.pages.quantities import count, span
from kedge.web.dashboard.pages.readings import AlertDuty, AlertsReading

PAST = 50
"""Alerts that are over, the newest."""
NONE = AlertDuty()


class EscalationLine(Value, frozen=True, kw_only=True):
    """One recipient of one level."""

    level: int
    when: str
    to: str
    tone: str
    state: str


class AlertLine(Value, frozen=True, kw_only=True):
    """One alert."""

    number: int
    endpoint: str
    level: str
    tone: str
    summary: str
    detail: str
    standing: str
    opened_at: str
    times: str
    """How often it occurred; empty: once."""
    is_open: bool
    acknowledged_by: str
    owner: str
    on_call: str
    escalation: tuple[EscalationLine, ...]
    """Of an open alert: whom each level tells, and whether it has."""
    history: tuple[tuple[str, str], ...]
    """Times with what happened, oldest first."""
    refusal: str
    """Why the viewer cannot acknowledge it; empty: they can, or it needs none."""


class AllAlertsView(Value, frozen=True, kw_only=True):
    """Alerts of all endpoints."""

    opened: tuple[AlertLine, ...]
    past: tuple[AlertLine, ...]


def alerts_page(reading: AlertsReading, viewer: Viewer, at: float) -> DashboardPage:
    """Return the page of all alerts that a viewer may see."""
    mine = [
        line_of(alert, reading.duties.get(alert.endpoint, NONE), viewer, at)
        for alert in reading.found
        if viewer.sees(alert.endpoint)
    ]
    opened = sorted(
        (line for line in mine if line.is_open),
        key=lambda line: (bool(line.acknowledged_by), line.level != "page", -line.number),
    )
    view = AllAlertsView(
        opened=tuple(opened),
        past=tuple(line for line in mine if not line.is_open)[:PAST],
    )
    return DashboardPage(
        title="Alerts",
        template="alerts.html",
        parts=(PagePart("alerts", "alerts_list.html", view),),
        tab="alerts",
        at=at,
    )


class AlertView(Value, frozen=True, kw_only=True):
    """One alert, which a link named."""

    alert: AlertLine


def alert_page(reading: AlertsReading, viewer: Viewer, at: float) -> DashboardPage:
    """Return the page of one alert: the only one of the reading."""
    (found,) = reading.found
    view = AlertView(alert=line_of(found, reading.duties.get(found.endpoint, NONE), viewer, at))
    return DashboardPage(
        title=f"Alert {found.number}",
        template="alert.html",
        parts=(PagePart("alert", "alert_one.html", view),),
        tab="alerts",
        at=at,
    )


def line_of(alert: ListedAlert, duty: AlertDuty, viewer: Viewer, at: float) -> AlertLine:
    """Return one alert as a line."""
    return AlertLine(
        number=alert.number,
        endpoint=alert.endpoint,
        level=alert.level,
        tone="bad" if alert.level == "page" else "warn",
        summary=alert.summary,
        detail=alert.detail,
        standing=alert.standing,
        opened_at=alert.opened_at,
        times=count(alert.times, "time") if alert.times > 1 else "",
        is_open=alert.open,
        acknowledged_by=alert.acknowledged_by,
        owner=duty.owner,
        on_call=duty.on_call,
        escalation=escalation_of(alert, duty.levels, at) if alert.open else (),
        history=history_of(alert),
        refusal=""
        if viewer.can_operate
        else f"your role is {viewer.role}; an operator can do this",
    )


def escalation_of(
    alert: ListedAlert, levels: tuple[Rung, ...], at: float
) -> tuple[EscalationLine, ...]:
    """Return whom each level of an alert tells, and whether it has."""
    elapsed_s = alert.elapsed_s + max(at - alert.seen, 0.0) if alert.seen else alert.elapsed_s
    told = {(d.level, d.channel): d for d in alert.deliveries if d.kind == "told"}
    lines = []
    for number, rung in enumerate(levels):
        if number and alert.level != "page":
            break  # a warning goes to the first level only
        for target in rung.targets:
            tone, state = _state(
                told.get((number, target.channel)), rung.after_s - elapsed_s, alert.acknowledged_by
            )
            lines.append(
                EscalationLine(
                    level=number + 1,
                    when=f"after {span(rung.after_s)}" if rung.after_s else "at once",
                    to=f"{target.channel} ({target.who})" if target.who else target.channel,
                    tone=tone,
                    state=state,
                )
            )
    return tuple(lines)


def _state(delivery: Delivery | None, left_s: float, acknowledged_by: str) -> tuple[str, str]:
    """Return the tone and the words of a delivery."""
    if delivery is not None and delivery.state == "delivered":
        return "ok", "delivered"
    if delivery is not None and delivery.failures:
        times = count(delivery.failures, "time")
        return "bad", f"failed {times}: {delivery.fault}"
    if acknowledged_by:
        return "plain", "not needed: it is acknowledged"
    if delivery is not None:
        return "busy", "being sent"
    return ("plain", f"in {span(left_s)}") if left_s > 0 else ("busy", "due now")


def history_of(alert: ListedAlert) -> tuple[tuple[str, str], ...]:
    """Return what happened to an alert, oldest first."""
    found = [(alert.opened_at, "opened")]
    found += [
        (
            d.at,
            f"{'sent' if d.kind == 'told' else 'end sent'} by {d.channel}"
            + f" ({d.who})" * bool(d.who),
        )
        for d in alert.deliveries
        if d.at and d.state == "delivered"
    ]
    if alert.acknowledged_at:
        found.append((alert.acknowledged_at, f"acknowledged by {alert.acknowledged_by}"))
    if alert.resolved_at:
        found.append((alert.resolved_at, f"{alert.ended}: {alert.resolved}"))
    return tuple(sorted(found))
