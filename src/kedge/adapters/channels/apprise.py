"""Apprise: sends an alert to the services of its plug-ins (extra `alerts`)."""

from __future__ import annotations

import logging

from kedge.adapters.channels.attempt import AttemptFailed
from kedge.core.alerts.alerts import Message, shown
from kedge.core.errors import Refused


def notify(url: str, message: Message) -> None:
    """Send a message through Apprise.

    Raises:
        Refused: `needs_alerts`: Apprise is not installed.
        AttemptFailed: Apprise did not deliver the message.
    """
    try:
        import apprise  # noqa: PLC0415 - an extra, and a second to import
    except ImportError:
        raise Refused(
            f"{shown(url)} takes Apprise, which is not installed",
            code="needs_alerts",
            hint="pip install 'kedge[alerts]'",
        ) from None
    # A plug-in's log may contain its URL.
    logging.getLogger("apprise").disabled = True
    kinds = {
        "firing": apprise.NotifyType.FAILURE,
        "resolved": apprise.NotifyType.SUCCESS,
        "continued": apprise.NotifyType.WARNING,
        "announced": apprise.NotifyType.SUCCESS,
        "test": apprise.NotifyType.INFO,
    }
    try:
        one = apprise.Apprise()
        known = one.add(url)
        taken = known and one.notify(
            title=message.title, body=message.text, notify_type=kinds[message.status]
        )
    except Exception as error:  # noqa: BLE001 - a plug-in may raise anything
        raise AttemptFailed(f"Apprise raised {type(error).__name__}") from None
    if not known:
        raise AttemptFailed("Apprise knows no such channel")
    if not taken:
        raise AttemptFailed("Apprise could not deliver it")
