"""Trace context: the headers `traceparent` and `tracestate` of W3C, and spans as values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import NamedTuple

from kedge.core.stored.ledger import Entry, Note
from kedge.core.stored.notes import ReceiptNote

HEADER = b"traceparent"
STATE_HEADER = b"tracestate"
LONGEST_STATE = 512
"""Characters of a state that is passed on; the standard demands these, and a longer one is left out
as a whole."""
_FORM = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
SAMPLED = 1
ROLLBACK = "rollback"


class TraceParent(NamedTuple):
    """The span that a caller is in."""

    trace: int
    span: int
    sampled: bool

    @property
    def text(self) -> str:
        """The header's value."""
        return f"00-{self.trace:032x}-{self.span:016x}-{int(self.sampled):02x}"


class SpanRecord(NamedTuple):
    """A span that has ended. Times are Unix nanoseconds."""

    name: str
    trace: int
    span: int
    parent: int | None
    start_ns: int
    end_ns: int
    attributes: Mapping[str, str | int | float | bool]
    fault: str = ""
    """The error code; empty if it succeeded."""
    serves: bool = False
    """Whether it answers a request of a caller."""
    state: str = ""
    """The caller's `tracestate`, as it was given."""


def read_parent(value: str) -> TraceParent | None:
    """Return what a header says; None if it is not valid, as the standard asks."""
    found = _FORM.fullmatch(value.strip())
    if found is None:
        return None
    version, trace, span, flags, more = found.groups()
    if version == "ff" or (version == "00" and more) or not int(trace, 16) or not int(span, 16):
        return None
    return TraceParent(int(trace, 16), int(span, 16), bool(int(flags, 16) & SAMPLED))


def read_context(headers: Iterable[tuple[bytes, bytes]]) -> tuple[TraceParent | None, str]:
    """Return the span that a caller is in, and its state; None and "" if that is not valid.

    A state without a valid parent, and a second parent, mean nothing by the standard. Several
    headers of a state are one.
    """
    parents, states = [], []
    for name, value in headers:
        if name == HEADER:
            parents.append(value)
        elif name == STATE_HEADER:
            states.append(value)
    if len(parents) != 1:
        return None, ""
    parent = read_parent(parents[0].decode("latin-1"))
    if parent is None:
        return None, ""
    state = b",".join(states).decode("latin-1")
    return parent, state if len(state) <= LONGEST_STATE else ""


def rollback_spans(entry: Entry, written: float) -> tuple[SpanRecord, ...]:
    """Return the spans of a rollback, from its receipt: the whole, and each known part.

    The numbers follow from the entry, so that two processes that send them send the same spans.

    Args:
        entry: an entry of the ledger.
        written: Unix time at which it was written.
    """
    note = entry.event.body if isinstance(entry.event, Note) else None
    if not isinstance(note, ReceiptNote) or note.command != ROLLBACK:
        return ()
    digest = sha256(entry.hash.encode()).digest()
    trace, root = int.from_bytes(digest[:16]), int.from_bytes(digest[16:24])
    start = round((written - note.total_ms / 1e3) * 1e9)
    whole = SpanRecord(
        "kedge.rollback",
        trace,
        root,
        None,
        start,
        start + round(note.total_ms * 1e6),
        {"kedge.endpoint": entry.endpoint, "kedge.epoch": entry.epoch, "kedge.by": entry.by},
        "not_acknowledged" if note.silent else "",
    )
    prepared = note.decide_ms + note.prepare_ms
    written_ms = prepared + note.write_ms
    ends = {
        "decide": (0.0, note.decide_ms),
        "prepare": (note.decide_ms, prepared),
        "write": (prepared, written_ms),
        "acks": (written_ms, note.last_ack_ms),
        "first_answer": (written_ms, note.first_old_answer_ms),
    }
    parts = [
        SpanRecord(
            f"kedge.rollback.{name}",
            trace,
            root ^ number,
            root,
            start + round(began * 1e6),
            start + round(max(ended, began) * 1e6),
            {"kedge.endpoint": entry.endpoint},
        )
        for number, (name, (began, ended)) in enumerate(ends.items(), start=1)
        if ended is not None
    ]
    return (whole, *parts)
