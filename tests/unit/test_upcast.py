"""Entries of an earlier kedge read as if this one had written them."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from kedge.core.alerts.alerts import Alert, Topic
from kedge.core.stored.notes import (
    KINDS,
    AlertOpened,
    DrillResult,
    ReceiptNote,
    VerdictNote,
    build_note,
)
from kedge.core.stored.upcast import decode_alert, derive_actor, read_body
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
def test_the_kind_of_an_old_actor_is_derived_from_the_name_of_kedge_itself(
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
def test_an_alert_without_fields_is_shown_by_its_key(key: str, fields: dict[str, Any]) -> None:
    found = decode_alert(msgspec.json.encode({**OLD, "key": key}))
    wanted = {"subject": None, "step": "", "channel": "", **fields, "topic": Topic(fields["topic"])}
    assert {name: getattr(found, name) for name in wanted} == wanted
    assert decode_alert(msgspec.json.encode(found)) == found, "and is stored with them"
    note = read_body("alert_opened", {"alert": 4, "key": key})
    assert isinstance(note, AlertOpened)
    assert (note.topic, note.subject) == (Topic(fields["topic"]), fields.get("subject"))


def test_fields_that_are_stored_stand_whatever_the_key_says() -> None:
    new = {**OLD, "key": "failing:r2", "topic": "blind", "subject": 9}
    assert decode_alert(msgspec.json.encode(new)).topic is Topic.BLIND
    body = {"alert": 1, "key": "failing:r2", "topic": "blind", "subject": 9}
    read = read_body("alert_opened", body)
    assert isinstance(read, AlertOpened)
    assert {name: getattr(read, name) for name in body} == body
    assert subject({"candidate": "r2", "subject": 9}) == 9


def subject(body: dict[str, Any]) -> int | None:
    read = read_body("verdict", {"verdict": "fail", **body})
    assert isinstance(read, VerdictNote)
    return read.subject


def test_a_verdict_names_its_release() -> None:
    assert subject({"candidate": "r2"}) == 2
    assert subject({"candidate": "rNone"}) is None
    assert subject({}) is None


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("receipt", {"of": 1}),
        ("drill", {"release": "one"}),
        ("of tomorrow", {"a": 1}),
        ("drill", []),
    ],
)
def test_a_body_that_fits_no_struct_stays_as_it_is(kind: str, body: object) -> None:
    assert read_body(kind, body) == body


def test_a_body_of_a_later_version_is_read_without_what_is_new() -> None:
    found = read_body("receipt", {"of": 1, "command": "promote", "total_ms": 5.0, "new": True})
    assert found == ReceiptNote(of=1, command="promote", total_ms=5.0)


def test_a_receipt_of_an_older_version_is_shown_as_it_was_stored() -> None:
    stored = {"of": 1, "command": "promote", "total_ms": 5.0}
    found = read_body("receipt", stored)
    assert isinstance(found, ReceiptNote)
    assert "ended" not in msgspec.to_builtins(found)
    assert found.parts.ended == ()


def test_replicas_that_ended_are_read_under_their_earlier_name() -> None:
    parts = {
        "decide_ms": 1.0,
        "prepare_ms": 1.0,
        "write_ms": 1.0,
        "last_ack_ms": None,
        "first_old_answer_ms": None,
        "total_ms": 5.0,
        "left": ["h-0"],
    }
    receipt = read_body("receipt", {"of": 1, "command": "rollback", **parts})
    assert isinstance(receipt, ReceiptNote)
    assert receipt.ended == ("h-0",)
    drill = read_body(
        "drill", {"ok": True, "release": 2, "left": 3, "back": parts, "forward": None}
    )
    assert isinstance(drill, DrillResult)
    assert drill.back is not None
    assert (drill.left, drill.back.ended, drill.forward) == (3, ("h-0",), None)


def example(kind: type) -> Any:
    """A value of a struct with each required field, the simplest that its type takes."""
    made = {
        field.encode_name: simplest(field.type)
        for field in msgspec.inspect.type_info(kind).fields  # type: ignore[attr-defined]
        if field.required
    }
    return msgspec.convert(made, kind)


def simplest(kind: Any) -> Any:
    match kind:
        case msgspec.inspect.UnionType(types=types):
            return None if msgspec.inspect.NoneType() in types else simplest(types[0])
        case msgspec.inspect.EnumType(cls=cls):
            return next(iter(cls)).value
        case msgspec.inspect.LiteralType(values=values):
            return values[0]
        case msgspec.inspect.StrType():
            return ""
        case msgspec.inspect.BoolType():
            return True
        case msgspec.inspect.VarTupleType() | msgspec.inspect.ListType():
            return []
    return 1


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_read_again(kind: str) -> None:
    """The stored form has the kind beside the body, as every version has written it."""
    body = example(KINDS[kind])
    stored = json.loads(msgspec.json.encode(build_note(body)))
    assert (stored["event"], stored["kind"], [*stored]) == (
        "noted",
        kind,
        ["event", "kind", "body"],
    )
    assert read_body(kind, stored["body"]) == body


@pytest.mark.parametrize("raw", [b"[]", b"{}", b'{"key": "x", "topic": "nonsense"}', b"{"])
def test_what_is_no_alert_is_none(raw: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        decode_alert(raw)


def test_an_alert_of_today_is_read_as_it_stands() -> None:
    one = Alert(**{**OLD, "key": "k", "topic": Topic.LEDGER})
    assert decode_alert(msgspec.json.encode(one)) == one
