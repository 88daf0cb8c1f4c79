"""Webhooks: an alert as kedge's own JSON object, and the POST of any payload."""

from __future__ import annotations

import base64
import http.client
from typing import Literal
from urllib.parse import unquote, urlsplit

import msgspec

from kedge.adapters.channels.attempt import AttemptFailed, deadline
from kedge.core.alerts.alerts import Level, Message, MessageStatus, Topic
from kedge.core.values import Value


class WebhookAlert(Value, frozen=True, kw_only=True):
    """Alert in the payload of kedge's own webhooks: a flat object."""

    version: int = 1
    source: str = "kedge"
    dedup_key: str
    """Key of an alert; it never changes."""
    status: MessageStatus
    number: int
    endpoint: str
    key: str
    topic: Topic
    level: Level | Literal["info"]
    summary: str
    detail: str
    opened_at: str
    resolved_at: str
    reason: str
    head: str
    link: str
    """The alert's page of the dashboard; empty without `[server] public_url`."""
    runbook: str
    """The page with the endpoint's runbook; empty without `[server] public_url`."""
    title: str
    text: str


def webhook_alert(message: Message) -> WebhookAlert:
    """Return a message as a webhook's payload."""
    return WebhookAlert(
        dedup_key=dedup_key(message),
        **msgspec.structs.asdict(message),
        title=message.title,
        text=message.text,
    )


def dedup_key(message: Message) -> str:
    """Return the key of an alert, which never changes."""
    return f"kedge/{message.endpoint}/{message.number or message.key}"


def post(url: str, body: object, timeout_s: float) -> None:
    """POST a body as JSON, and return when the other end has accepted it.

    Raises:
        OSError, http.client.HTTPException, AttemptFailed: the end did not accept it.
    """
    parts = urlsplit(url)
    if parts.hostname is None:
        raise AttemptFailed("there is no host in it")
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname, parts.port, timeout=timeout_s)
    headers = {"content-type": "application/json", "user-agent": "kedge"}
    if parts.username is not None:
        known = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        headers["authorization"] = f"Basic {base64.b64encode(known).decode()}"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        with deadline(timeout_s, lambda: connection.sock):
            connection.request("POST", path, msgspec.json.encode(body), headers)
            answer = connection.getresponse()
            if not 200 <= answer.status < 300:
                raise AttemptFailed(f"HTTP {answer.status}")
    finally:
        connection.close()
