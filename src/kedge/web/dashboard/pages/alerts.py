"""Alerts page: open and past alerts of all endpoints, and what their escalation did."""

from __future__ import annotations

from kedge.core.values import Value
from kedge.operations.alerts import ListedAlert
from kedge.web.dashboard.pages.page import DashboardPage, PagePart, Viewer

PAST = 50
"""Alerts that are over, the newest."""


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
    is_open: bool
    acknowledged_by: str
    deliveries: tuple[tuple[str, str, str], ...]
    """Channel, who is on duty, and the state of the delivery."""


class AllAlertsView(Value, frozen=True, kw_only=True):
    """Alerts of all endpoints."""

    opened: tuple[AlertLine, ...]
    past: tuple[AlertLine, ...]
    can_operate: bool
    role: str


def alerts_page(found: tuple[ListedAlert, ...], viewer: Viewer, at: float) -> DashboardPage:
    """Return the page of all alerts that a viewer may see."""
    mine = [line_of(alert) for alert in found if viewer.sees(alert.endpoint)]
    opened = sorted(
        (line for line in mine if line.is_open),
        key=lambda line: (bool(line.acknowledged_by), line.level != "page", -line.number),
    )
    view = AllAlertsView(
        opened=tuple(opened),
        past=tuple(line for line in mine if not line.is_open)[:PAST],
        can_operate=viewer.can_operate,
        role=viewer.role,
    )
    return DashboardPage(
        title="Alerts",
        template="alerts.html",
        parts=(PagePart("alerts", "alerts_list.html", view),),
        tab="alerts",
        at=at,
    )


def line_of(alert: ListedAlert) -> AlertLine:
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
        is_open=alert.open,
        acknowledged_by=alert.acknowledged_by,
        deliveries=tuple((d.channel, d.who, d.state) for d in alert.deliveries if d.kind == "told"),
    )
