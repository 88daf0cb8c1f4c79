"""Alerts for the person on call: their state, their channels, and the runbook."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import msgspec

from kedge.adapters.channels.channels import Outgoing
from kedge.config.model import Alerts
from kedge.core.alerts import alerts
from kedge.core.alerts.alerts import Alert, Message, Rung, Sight, Topic
from kedge.core.errors import KedgeError, Refused
from kedge.core.names import get_known
from kedge.core.runbook import Runbook
from kedge.core.stored.ledger import Note
from kedge.core.time.durations import seconds
from kedge.engine.control.alerting import Alerting
from kedge.engine.process_faults import ProcessFaults
from kedge.engine.runbook import filed
from kedge.workspace import Workplace, host_name

LISTED = 200
"""Alerts in one list, newest first."""


def outgoing(alerts_: Alerts) -> Outgoing:
    """The channels, as kedge.toml and the environment say."""
    return Outgoing(
        smtp=alerts_.smtp,
        sender=alerts_.sender,
        timeout_s=seconds(alerts_.timeout),
    )


def alerting_of(
    place: Workplace,
    sight: Callable[[], Sight],
    leads: Callable[[], bool],
    alerts_: Alerts,
    faults: ProcessFaults,
    *,
    stands_in: bool = False,
) -> Alerting:
    """What raises and sends, with this place's connections for its thread alone."""
    return Alerting(
        store=place.alerts,
        ledger=place.ledger,
        stamp=place.ledger.stamp,
        channels=outgoing(alerts_),
        sight=sight,
        clock=place.clock,
        leads=leads,
        by=f"alerting@{host_name()}.{os.getpid()}",
        timeout_s=seconds(alerts_.timeout),
        remembered=place.disk.remembered,
        faults=faults,
        stands_in=stands_in,
    )


def alerts_of(place: Workplace, endpoint: str | None, *, over: bool) -> list[dict[str, Any]]:
    """Alerts as plain values, newest first: those that are open, or all.

    Raises:
        Refused: there is no such endpoint.
    """
    states = place.ledger.read().states
    if endpoint is not None:
        get_known(states, endpoint)
    now = place.clock.unix()
    return [
        described(
            alert,
            alerts.rungs(states[alert.endpoint].policy, now) if alert.endpoint in states else (),
        )
        for alert in place.alerts.listed(endpoint, over=over, limit=LISTED)
    ]


def described(alert: Alert, levels: tuple[Rung, ...]) -> dict[str, Any]:
    """One alert as plain values; `standing` says in a few words how it stands."""
    failing = [d for d in alert.deliveries if d.state != "delivered" and d.failures]
    if not alert.open:
        standing = alert.resolved if alert.ended == "continued" else f"resolved: {alert.resolved}"
    elif alert.acknowledged_by:
        standing = f"acknowledged by {alert.acknowledged_by}"
    elif alert.told:
        standing = f"sent: {', '.join(d.channel for d in alert.told)}"
    elif not levels:
        standing = "not sent: the policy has no escalation"
    elif failing:
        standing = f"COULD NOT BE SENT: {failing[0].fault}"
    else:
        standing = "not sent yet"
    return {**msgspec.to_builtins(alert), "open": alert.open, "standing": standing}


def alerts_text(found: list[dict[str, Any]]) -> str:
    """Alerts for people, two lines each."""
    return "\n".join(
        f"#{one['number']:<5} {one['level']:4}  {one['endpoint']}: {one['summary']}"
        + (f"  ({one['times']} times)" if one["times"] > 1 else "")
        + f"\n       {one['opened_at'][:19]}Z  {one['standing']}"
        + (f"\n       kedge ack {one['number']} says that you have it" if _waits(one) else "")
        for one in found
    )


def _waits(one: dict[str, Any]) -> bool:
    """Return whether a person should take it."""
    return bool(one["open"] and one["level"] == "page" and not one["acknowledged_by"])


def acknowledge(place: Workplace, number: int, by: str) -> Alert:
    """Acknowledge an alert: it escalates no further.

    Raises:
        Refused: `unknown_alert`, `already_acknowledged`, or `already_resolved`.
    """
    before = place.alerts.find(number)
    if before is None:
        raise Refused(
            f"there is no alert {number}", code="unknown_alert", hint="kedge alerts lists them"
        )
    if before.acknowledged_by:
        raise Refused(
            f"{before.acknowledged_by} has acknowledged alert {number} already",
            code="already_acknowledged",
            hint="it is not sent again",
        )
    if not before.open:
        raise Refused(
            f"alert {number} is over: {before.resolved}",
            code="already_resolved",
            hint="kedge alerts --all lists it",
        )
    at = place.clock.now()
    after = place.alerts.change(number, lambda a: alerts.acknowledge(a, by=by, at=at), by=by, at=at)
    assert after is not None
    return after


def test_of(place: Workplace, endpoint: str, outgoing_: Outgoing, *, by: str) -> dict[str, Any]:
    """Send a test through every channel of every level, and keep the result in the history.

    Raises:
        Refused: `no_escalation`: the policy in force names no recipient.
    """
    state = get_known(place.ledger.read().states, endpoint)
    levels = alerts.rungs(state.policy, place.clock.unix())
    if not levels:
        raise Refused(
            f"alerts of {endpoint} have no recipient: its policy has no escalation",
            code="no_escalation",
            hint=f"add [[endpoints.{endpoint}.escalation]], kedge apply; kedge help alerts",
        )
    message = Message(
        status="test",
        number=0,
        endpoint=endpoint,
        key="test",
        topic=Topic.TEST,
        level="warn",
        opened_at=place.clock.now(),
        summary="a test of the alerts",
        detail=f"{by} tries every channel; nothing is wrong",
    )
    found = []
    for number, rung in enumerate(levels):
        channels = []
        for target in rung.targets:
            fault = ""
            try:
                outgoing_.send(target.url, message)
            except KedgeError as error:
                fault = str(error)
            channels.append(
                {
                    "channel": target.channel,
                    "who": target.who,
                    "delivered": not fault,
                    "fault": fault,
                }
            )
        works = any(c["delivered"] for c in channels)
        found.append({"level": number, "works": works, "channels": channels})
    result = {
        "endpoint": endpoint,
        "delivered": all(level["works"] for level in found),
        "levels": found,
    }
    body = {"delivered": result["delivered"], "levels": found}
    place.ledger.note(
        endpoint,
        Note(kind="alert_tested", body=body),
        by=by,
        reason="kedge alerts test",
        at=message.opened_at,
    )
    _resolve_delivered(place, endpoint, found, by)
    return result


def _resolve_delivered(
    place: Workplace, endpoint: str, levels: list[dict[str, Any]], by: str
) -> None:
    """Resolve the alerts about channels that delivered a test."""
    works = {c["channel"] for level in levels for c in level["channels"] if c["delivered"]}
    at = place.clock.now()
    for alert in place.alerts.listed(endpoint, over=False, limit=LISTED):
        if alert.lasts == "channel" and alert.channel in works:
            place.alerts.change(
                alert.number,
                lambda a: alerts.resolve(a, reason="it delivered a test", at=at),
                by=by,
                at=at,
            )


def test_text(found: dict[str, Any]) -> str:
    """What came of a test, a line for each channel."""
    return "\n".join(
        f"level {level['level']}  {'delivered' if channel['delivered'] else 'FAILED   '} "
        f" {channel['channel']}"
        + (f" ({channel['who']})" if channel["who"] else "")
        + (f"  {channel['fault']}" if channel["fault"] else "")
        for level in found["levels"]
        for channel in level["channels"]
    )


def runbook_of(place: Workplace, endpoint: str, *, by: str) -> Runbook:
    """The runbook of an endpoint as it stands; kept in the history when that has no such one.

    Raises:
        Refused: there is no such endpoint.
    """
    state = get_known(place.ledger.read().states, endpoint)
    return filed(place.ledger, place.clock, state, place.site, by=by)
