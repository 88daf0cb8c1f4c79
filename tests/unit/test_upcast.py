"""What an earlier kedge stored reads as if this one had written it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from kedge.core.alerts.alerts import Alert, Topic
from kedge.core.stored.upcast import decode_alert, derive_actor, upcast_body
from kedge.core.values import ActorKind

OLD: dict[str, Any] = {
    "number": 4,
    "endpoint": "flights",
    "level": "page",
    "lasts": "condition",
    "summary": "it fails",
    "opened_at": "2026-01-05T08:00:00.000000Z",
}


@pytest.mark.parametrize(
    ("by", "kind"),
    [
        ("patrol@host", ActorKind.PATROL),
        ("alerting@host.412", ActorKind.CONTROL),
        ("readiness@host", ActorKind.CONTROL),
        ("supervisor", ActorKind.SUPERVISOR),
        ("ada@host", ActorKind.PERSON),
        ("ada", ActorKind.PERSON),
        ("patrol", ActorKind.PERSON),
        ("patrolling@host", ActorKind.PERSON),
        ("supervisor@host", ActorKind.PERSON),
        ("", ActorKind.PERSON),
    ],
)
def test_an_actor_without_a_kind_is_told_by_the_name_that_kedge_gave_itself(
    by: str, kind: ActorKind
) -> None:
    assert derive_actor(by) is kind


@pytest.mark.parametrize(
    ("key", "fields"),
    [
        ("failing:r2", {"topic": "failing", "subject": 2}),
        ("waiting:r12@25 %", {"topic": "waiting", "subject": 12, "step": "25 %"}),
        ("waiting:r3@shadow", {"topic": "waiting", "subject": 3, "step": "shadow"}),
        ("rolled_back:r2", {"topic": "rolled_back", "subject": 2}),
        ("finding:r7:world, data:page", {"topic": "finding", "subject": 7}),
        ("channel:https://x.org/…3f2a1b", {"topic": "channel", "channel": "https://x.org/…3f2a1b"}),
        ("broken", {"topic": "broken"}),
        ("unready", {"topic": "unready"}),
        ("failing:production", {"topic": "failing"}),
        ("something else", {"topic": "other"}),
    ],
)
def test_an_alert_without_fields_is_told_by_its_key(key: str, fields: dict[str, Any]) -> None:
    found = decode_alert(msgspec.json.encode({**OLD, "key": key}))
    wanted = {"subject": None, "step": "", "channel": "", **fields, "topic": Topic(fields["topic"])}
    assert {name: getattr(found, name) for name in wanted} == wanted
    assert decode_alert(msgspec.json.encode(found)) == found, "and is stored with them"
    note = upcast_body("alert_opened", {"alert": 4, "key": key})
    assert (note["topic"], note["subject"]) == (fields["topic"], fields.get("subject"))


def test_fields_that_are_stored_stand_whatever_the_key_says() -> None:
    new = {**OLD, "key": "failing:r2", "topic": "blind", "subject": 9}
    assert decode_alert(msgspec.json.encode(new)).topic is Topic.BLIND
    body = {"key": "failing:r2", "topic": "blind", "subject": 9}
    assert upcast_body("alert_opened", body) == body
    assert upcast_body("verdict", {"candidate": "r2", "subject": 9})["subject"] == 9


def test_a_verdict_names_its_release() -> None:
    assert upcast_body("verdict", {"candidate": "r2"})["subject"] == 2
    assert upcast_body("verdict", {"candidate": "rNone"})["subject"] is None
    assert upcast_body("verdict", {})["subject"] is None
    assert upcast_body("receipt", {"of": 1}) == {"of": 1}


@pytest.mark.parametrize("raw", [b"[]", b"{}", b'{"key": "x", "topic": "nonsense"}', b"{"])
def test_what_is_no_alert_is_none(raw: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        decode_alert(raw)


def test_an_alert_of_today_is_read_as_it_stands() -> None:
    one = Alert(**{**OLD, "key": "k", "topic": Topic.LEDGER})
    assert decode_alert(msgspec.json.encode(one)) == one
