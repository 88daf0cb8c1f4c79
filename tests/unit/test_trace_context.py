"""Trace context: what a header says, and the spans of a rollback."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from kedge.core.stored.ledger import Entry
from kedge.core.stored.notes import ReceiptNote, build_note
from kedge.core.trace_context import (
    LONGEST_STATE,
    TraceParent,
    read_context,
    read_parent,
    rollback_spans,
)

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize("flags, sampled", [("00", False), ("01", True), ("03", True)])
def test_a_header_is_read_and_spelled_back(flags: str, sampled: bool) -> None:
    found = read_parent(f"00-{TRACE}-{SPAN}-{flags}")
    assert found == TraceParent(int(TRACE, 16), int(SPAN, 16), sampled)
    assert read_parent(found.text) == found


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-0g",
        "\r\n" * 40,
    ],
)
def test_an_invalid_header_is_as_none(text: str) -> None:
    assert read_parent(text) is None


def test_a_later_version_may_say_more() -> None:
    assert read_parent(f"cc-{TRACE}-{SPAN}-01-what") is not None


RECEIPT = ReceiptNote(
    of=3,
    command="rollback",
    decide_ms=1.0,
    prepare_ms=2.0,
    write_ms=4.0,
    last_ack_ms=10.0,
    first_old_answer_ms=None,
    total_ms=20.0,
)
ENTRY = Entry(
    seq=4,
    endpoint="flights",
    epoch=9,
    at="2026-01-05T08:00:00.000000Z",
    by="ada",
    reason="",
    event=build_note(RECEIPT),
    previous_hash="a",
    hash="b",
)


def test_a_rollback_has_a_span_with_its_known_parts() -> None:
    whole, *parts = rollback_spans(ENTRY, 1_000.0)
    assert (whole.end_ns, whole.end_ns - whole.start_ns) == (1_000 * 10**9, 20 * 10**6)
    assert whole.attributes["kedge.endpoint"] == "flights"
    took = {part.name: (part.end_ns - part.start_ns) / 1e6 for part in parts}
    assert took == {
        "kedge.rollback.decide": 1.0,
        "kedge.rollback.prepare": 2.0,
        "kedge.rollback.write": 4.0,
        "kedge.rollback.acks": 3.0,
    }
    assert {part.parent for part in parts} == {whole.span}
    assert len({part.span for part in (whole, *parts)}) == 5


def test_two_processes_send_the_same_spans() -> None:
    assert rollback_spans(ENTRY, 1_000.0) == rollback_spans(ENTRY, 1_000.0)
    other = replace(ENTRY, hash="c")
    assert rollback_spans(other, 1_000.0)[0].trace != rollback_spans(ENTRY, 1_000.0)[0].trace


def test_other_commands_have_no_span() -> None:
    promoted = replace(ENTRY, event=build_note(replace(RECEIPT, command="promote")))
    assert rollback_spans(promoted, 1_000.0) == ()


def test_a_rollback_that_a_replica_did_not_acknowledge_has_a_fault() -> None:
    silent = replace(ENTRY, event=build_note(replace(RECEIPT, silent=("w0",), last_ack_ms=None)))
    assert rollback_spans(silent, 1_000.0)[0].fault == "not_acknowledged"


PARENT = (b"traceparent", f"00-{TRACE}-{SPAN}-01".encode())


@pytest.mark.parametrize(
    "headers, state",
    [
        ([PARENT, (b"tracestate", b"a=1,b=2")], "a=1,b=2"),
        ([(b"tracestate", b"a=1"), PARENT, (b"tracestate", b"b=2")], "a=1,b=2"),
        ([PARENT, (b"tracestate", b"a=" + b"x" * (LONGEST_STATE - 2))], "a=" + "x" * 510),
        ([PARENT, (b"tracestate", b"a=" + b"x" * (LONGEST_STATE - 1))], ""),
        ([PARENT], ""),
    ],
)
def test_a_state_is_passed_on_as_it_is_or_not_at_all(
    headers: list[tuple[bytes, bytes]], state: str
) -> None:
    parent, found = read_context(headers)
    assert parent is not None
    assert found == state


@pytest.mark.parametrize("parents", [[], [PARENT, PARENT], [(b"traceparent", b"00-no")]])
def test_a_state_without_one_valid_parent_means_nothing(
    parents: list[tuple[bytes, bytes]],
) -> None:
    assert read_context([*parents, (b"tracestate", b"a=1")]) == (None, "")
