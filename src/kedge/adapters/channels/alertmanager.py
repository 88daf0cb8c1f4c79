"""Alertmanager: an alert as its API accepts it, and as it would send it to a webhook."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from kedge.adapters.channels.webhook import dedup_key
from kedge.core.alerts.alerts import Message
from kedge.core.values import Value

FIRING_FOR = timedelta(days=30)
"""End time of an alert: Alertmanager drops an alert that is not sent again before its end time."""
TEST_FOR = timedelta(minutes=5)
"""Duration of a test alert, or an announcement, which ends without a resolving message."""
SEVERITIES = {"page": "critical", "warn": "warning", "info": "info"}
OPEN_END = "0001-01-01T00:00:00Z"
"""End time of a firing alert, as Alertmanager writes it to a webhook."""


class PostedAlert(Value, frozen=True, kw_only=True, rename="camel"):
    """An alert as clients send it to /api/v2/alerts."""

    labels: dict[str, str]
    annotations: dict[str, str]
    starts_at: str
    ends_at: str
    generator_url: str | UnsetType = msgspec.field(name="generatorURL", default=UNSET)
    """The alert's page of the dashboard."""


class GroupedAlert(PostedAlert, frozen=True, kw_only=True):
    """Alert within Alertmanager's payload for a webhook."""

    status: Literal["firing", "resolved"]
    generator_url: str = msgspec.field(name="generatorURL", default="")  # it always has one
    fingerprint: str


class AlertGroup(Value, frozen=True, kw_only=True, rename="camel"):
    """Payload that Alertmanager POSTs to a webhook_config, version 4."""

    version: str = "4"
    group_key: str
    truncated_alerts: int = 0
    status: Literal["firing", "resolved"]
    receiver: str = "kedge"
    group_labels: dict[str, str]
    common_labels: dict[str, str]
    common_annotations: dict[str, str]
    external_url: str = msgspec.field(name="externalURL", default="")
    alerts: tuple[GroupedAlert, ...]


def posted_alert(message: Message) -> PostedAlert:
    """Return a message in the form that clients send to /api/v2/alerts."""
    begun = datetime.fromisoformat(message.opened_at)
    stands = TEST_FOR if message.status in ("test", "announced") else FIRING_FOR
    return PostedAlert(
        labels={
            "alertname": f"kedge_{message.topic}",
            "endpoint": message.endpoint,
            "severity": SEVERITIES[message.level],
            "alert": str(message.number),
            "key": message.key,
        },
        annotations={
            "summary": message.summary,
            "description": message.text,
            **({"dashboard_url": message.link} if message.link else {}),
            **({"runbook_url": message.runbook} if message.runbook else {}),
        },
        generator_url=message.link or UNSET,
        starts_at=message.opened_at,
        ends_at=message.resolved_at or (begun + stands).isoformat(),
    )


def alert_group(message: Message) -> AlertGroup:
    """Return Alertmanager's webhook payload for a message; a test fires.

    The format has only two statuses: an alert that an operator overrode ends as "resolved" there,
    and its description gives the operator and the reason. An announcement is "resolved" from the
    start, so that it opens no incident.
    """
    one = posted_alert(message)
    over = message.resolved_at or message.status == "announced"
    status: Literal["firing", "resolved"] = "resolved" if over else "firing"
    return AlertGroup(
        group_key=dedup_key(message),
        status=status,
        group_labels={"alertname": one.labels["alertname"]},
        common_labels=one.labels,
        common_annotations=one.annotations,
        alerts=(
            GroupedAlert(
                labels=one.labels,
                annotations=one.annotations,
                starts_at=one.starts_at,
                ends_at=OPEN_END if status == "firing" else one.ends_at,
                status=status,
                generator_url=message.link,
                fingerprint=f"{abs(message.number):016x}",
            ),
        ),
    )
