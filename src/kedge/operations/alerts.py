"""Alerts for the person on call: their state, their channels, and the runbook."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace

import msgspec

from kedge.adapters.channels.dispatch import Outgoing
from kedge.config.model import Alerts
from kedge.core.alerts import alerts
from kedge.core.alerts.alerts import Alert, Message, Rung, Sight, Topic
from kedge.core.errors import KedgeError, Refused
from kedge.core.links import NO_LINKS, PageLinks
from kedge.core.names import get_known
from kedge.core.runbook import Runbook
from kedge.core.stored.notes import AlertTested, ChannelTest, LevelTest, build_note
from kedge.core.time.durations import seconds
from kedge.core.values import State, Value
from kedge.engine.control.alerting import Alerting
from kedge.engine.loop import Duty
from kedge.engine.runbook import filed
from kedge.workspace import Workplace, host_name

LISTED = 200
"""Limit of alerts in one list, the newest first."""


def outgoing(alerts_: Alerts, links: PageLinks = NO_LINKS) -> Outgoing:
    """Return the channels that kedge.toml and the environment configure."""
    return Outgoing(
        smtp=alerts_.smtp,
        sender=alerts_.sender,
        timeout_s=seconds(alerts_.timeout),
        links=links,
    )


def alerting_of(
    duty: Duty,
    place: Workplace,
    sight: Callable[[], Sight],
    alerts_: Alerts,
    *,
    stands_in: bool = False,
) -> Alerting:
    """Build the part that raises and sends alerts, with connections for its thread alone."""
    return Alerting(
        replace(duty, by=f"alerting@{host_name()}.{os.getpid()}"),
        store=place.alerts,
        ledger=place.ledger,
        stamp=place.ledger.stamp,
        channels=outgoing(alerts_, place.site.links),
        sight=sight,
        remembered=place.disk.remembered,
        stands_in=stands_in,
    )


class ListedAlert(Alert, frozen=True, kw_only=True):
    """An alert as lists show it."""

    open: bool
    """Whether the alert is open."""
    standing: str
    """Its state in a few words: sent, acknowledged, resolved, or why it could not be sent."""
    link: str = ""
    """Its page of the dashboard; empty without `[server] public_url`."""


class AlertTest(Value, frozen=True):
    """The result of a test of every channel of an endpoint's escalation."""

    endpoint: str
    delivered: bool
    """Whether every level has a channel that delivered."""
    levels: tuple[LevelTest, ...]


def alerts_of(place: Workplace, endpoint: str | None, *, over: bool) -> list[ListedAlert]:
    """Return alerts, newest first: those that are open, or all.

    Raises:
        Refused: the endpoint is not found.
    """
    states = place.ledger.read().states
    if endpoint is not None:
        get_known(states, endpoint)
    found = place.alerts.listed(endpoint, over=over, limit=LISTED)
    return [_list_alert(place, states, alert) for alert in found]


def find_alert(place: Workplace, number: int) -> ListedAlert:
    """Return one alert.

    Raises:
        Refused: `unknown_alert`.
    """
    alert = place.alerts.find(number)
    if alert is None:
        raise _unknown_alert(number)
    return _list_alert(place, place.ledger.read().states, alert)


def _unknown_alert(number: int) -> Refused:
    return Refused(
        f"there is no alert {number}", code="unknown_alert", hint="kedge alerts lists them"
    )


def _list_alert(place: Workplace, states: Mapping[str, State], alert: Alert) -> ListedAlert:
    """Return an alert with its state in words, and its page."""
    state = states.get(alert.endpoint)
    levels = alerts.rungs(state.policy, place.clock.unix()) if state is not None else ()
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
    return ListedAlert(
        **msgspec.structs.asdict(alert),
        open=alert.open,
        standing=standing,
        link=place.site.links.alert(alert.endpoint, alert.number),
    )


def acknowledge(place: Workplace, number: int, by: str) -> Alert:
    """Acknowledge an alert: it escalates no further.

    Raises:
        Refused: `unknown_alert`, `already_acknowledged`, or `already_resolved`.
    """
    before = place.alerts.find(number)
    if before is None:
        raise _unknown_alert(number)
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


def test_of(place: Workplace, endpoint: str, outgoing_: Outgoing, *, by: str) -> AlertTest:
    """Send a test through every channel of every level, and record the result in the history.

    Raises:
        Refused: `no_escalation`: the policy in force names no recipient.
    """
    state = get_known(place.ledger.read().states, endpoint)
    now = place.clock.unix()
    levels = alerts.rungs(state.policy, now)
    known = {target.channel for level in levels for target in level.targets}
    announced = alerts.announced_to(state.policy, now)
    # The channels of announcements come last, as a level of their own, unless alerts use them all.
    if not {target.channel for level in announced for target in level.targets} <= known:
        levels = (*levels, *announced)
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
        link=place.site.links.endpoint(endpoint),
    )
    found = tuple(
        _test_level(number, rung, outgoing_, message) for number, rung in enumerate(levels)
    )
    result = AlertTest(endpoint, all(level.works for level in found), found)
    place.ledger.note(
        endpoint,
        build_note(AlertTested(delivered=result.delivered, levels=found)),
        by=by,
        reason="kedge alerts test",
        at=message.opened_at,
    )
    _resolve_delivered(place, result, by)
    return result


def _test_level(number: int, rung: Rung, outgoing_: Outgoing, message: Message) -> LevelTest:
    channels = []
    for target in rung.targets:
        fault = ""
        try:
            outgoing_.send(target.url, message)
        except KedgeError as error:
            fault = str(error)
        channels.append(
            ChannelTest(channel=target.channel, who=target.who, delivered=not fault, fault=fault)
        )
    works = any(one.delivered for one in channels)
    return LevelTest(level=number, works=works, channels=tuple(channels))


def _resolve_delivered(place: Workplace, test: AlertTest, by: str) -> None:
    """Resolve the alerts about channels that delivered a test."""
    works = {one.channel for level in test.levels for one in level.channels if one.delivered}
    at = place.clock.now()
    for alert in place.alerts.listed(test.endpoint, over=False, limit=LISTED):
        if alert.lasts == "channel" and alert.channel in works:
            place.alerts.change(
                alert.number,
                lambda a: alerts.resolve(a, reason="it delivered a test", at=at),
                by=by,
                at=at,
            )


def runbook_of(place: Workplace, endpoint: str, *, by: str) -> Runbook:
    """Return the current runbook of an endpoint; record it in the history if it changed.

    Raises:
        Refused: the endpoint is not found.
    """
    state = get_known(place.ledger.read().states, endpoint)
    return filed(place.ledger, place.clock, state, place.site, by=by)
