"""Upcasters: earlier kedges' stored values, read in today's format.

Stored bytes are never rewritten, and the ledger's hashes cover them. So this module alone derives
fields that were added later, from the older text. All other code reads the field.
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
"""The part before the @ and the host in the names that control's loops once used."""

_TOPICS = {topic.value: topic for topic in Topic}
_alert = msgspec.json.Decoder(Alert)


def derive_actor(by: str) -> ActorKind:
    """Return what kind of actor wrote an entry that has only a name."""
    if by == "supervisor":
        return ActorKind.SUPERVISOR
    name, at, _ = by.partition("@")
    return _WRITERS.get(name, ActorKind.PERSON) if at else ActorKind.PERSON


def read_body(kind: str, body: object) -> object:
    """Return a stored note's body as the struct of its kind, with today's fields.

    A body that fits no struct stays unchanged: a later version wrote it, or its kind is unknown.
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
    if kind == "receipt":
        return _rename_left(body)
    if kind == "drill":
        flips = {name: body[name] for name in ("back", "forward") if name in body}
        return body | {
            name: _rename_left(parts) if isinstance(parts, dict) else parts
            for name, parts in flips.items()
        }
    return body


def _rename_left(receipt: dict[str, object]) -> dict[str, object]:
    """Return a receipt whose ended replicas are in `ended`; older versions wrote `left`."""
    return {"ended": receipt["left"], **receipt} if "left" in receipt else receipt


def decode_alert(raw: bytes) -> Alert:
    """Decode a stored alert.

    Raises:
        msgspec.ValidationError: the bytes are not an alert.
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
    """Parse an alert's key: `failing:r3`, `waiting:r3@25 %`, `channel:mailto:a@b`, `blind`."""
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
