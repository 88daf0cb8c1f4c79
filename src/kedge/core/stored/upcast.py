"""Upcasters: read what an earlier kedge stored as if this one had written it.

Stored bytes are never rewritten, and the ledger's hashes cover them. So a field that was added later
is derived here, once, from the text that was there before. Everything else reads the field.
"""

from __future__ import annotations

from typing import Any

import msgspec

from kedge.core.alerts.alerts import Alert, Topic
from kedge.core.stored.notes import KINDS
from kedge.core.values import ActorKind

_WRITERS = {
    "patrol": ActorKind.PATROL,
    "alerting": ActorKind.CONTROL,
    "readiness": ActorKind.CONTROL,
}
"""What stood before the @ and the host in the names that control's loops gave themselves."""

_TOPICS = {topic.value: topic for topic in Topic}
_alert = msgspec.json.Decoder(Alert)


def derive_actor(by: str) -> ActorKind:
    """Return what kind of actor wrote an entry that has only a name."""
    if by == "supervisor":
        return ActorKind.SUPERVISOR
    name, at, _ = by.partition("@")
    return _WRITERS.get(name, ActorKind.PERSON) if at else ActorKind.PERSON


def read_body(kind: str, body: object) -> object:
    """Return a stored note's body as the struct of its kind, with the fields of today.

    A body that fits no struct stays as it is: a later version wrote it, or its kind is unknown.
    """
    if kind not in KINDS or not isinstance(body, dict):
        return body
    try:
        return msgspec.convert(_upcast(kind, body), KINDS[kind])
    except msgspec.ValidationError:
        return body


def _upcast(kind: str, body: dict[str, object]) -> dict[str, Any]:
    if kind == "alert_opened" and "topic" not in body:
        told = _fields_of_key(str(body.get("key", "")))
        return {**body, "topic": told["topic"], "subject": told.get("subject")}
    if kind == "verdict" and "subject" not in body:
        return {**body, "subject": _release_number(str(body.get("candidate", "")))}
    return body


def decode_alert(raw: bytes) -> Alert:
    """Read a stored alert back.

    Raises:
        msgspec.ValidationError: it is not one.
    """
    try:
        return _alert.decode(raw)
    except msgspec.ValidationError:
        body = msgspec.json.decode(raw)
        if not isinstance(body, dict) or "topic" in body:
            raise
        told = _fields_of_key(str(body.get("key", "")))
        return msgspec.convert({**told, **body}, Alert)


def _fields_of_key(key: str) -> dict[str, object]:
    """Take an alert's key apart: `failing:r3`, `waiting:r3@25 %`, `channel:mailto:a@b`, `blind`."""
    word, _, rest = key.partition(":")
    topic = _TOPICS.get(word, Topic.OTHER)
    told: dict[str, object] = {"topic": topic.value}
    if topic is Topic.CHANNEL:
        return {**told, "channel": rest}
    label, _, step = rest.partition(":" if topic is Topic.FINDING else "@")
    if topic is Topic.WAITING:
        told["step"] = step
    number = _release_number(label)
    return told if number is None else {**told, "subject": number}


def _release_number(label: str) -> int | None:
    digits = label.removeprefix("r")
    return int(digits) if digits.isdecimal() and digits.isascii() else None
