"""Receipts: the result of a command, from its thread while it runs, and from the ledger after it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from kedge.core.stored.ledger import Entry
from kedge.core.stored.notes import ReceiptParts
from kedge.core.stored.stories import story
from kedge.core.time.instants import read_instant
from kedge.core.values import Value
from kedge.operations.status.view import EndpointStatus, ReplicaStatus
from kedge.web.dashboard.pages.acts import OVERRIDABLE
from kedge.web.dashboard.pages.marks import EventLine, lines_of
from kedge.web.dashboard.pages.page import DashboardPage, PagePart
from kedge.web.dashboard.pages.quantities import milliseconds

ReceiptState = Literal["running", "done", "refused", "stale", "silent", "failed", "unknown"]
CHIPS: dict[ReceiptState, tuple[str, str]] = {
    "running": ("busy", "under way"),
    "done": ("ok", "done"),
    "refused": ("warn", "refused"),
    "stale": ("warn", "not done"),
    "silent": ("bad", "not acknowledged"),
    "failed": ("bad", "failed"),
    "unknown": ("warn", "interrupted"),
}
"""Tone and word of each state."""
AGAIN = ("refused", "stale", "failed")
"""States in which nothing was changed, so that the form can be sent again."""


class AckLine(Value, frozen=True):
    """One replica's part in a command."""

    replica: str
    tone: str
    text: str


class ActReceipt(Value, frozen=True, kw_only=True):
    """The result of a command, or its present state while it runs."""

    endpoint: str
    act: str
    label: str
    state: ReceiptState
    heading: str
    text: str = ""
    hint: str = ""
    by: str = ""
    reason: str = ""
    acks: tuple[AckLine, ...] = ()
    parts: tuple[tuple[str, str], ...] = ()
    """The duration of each part of it."""
    finding: str = ""
    epoch: int = 0
    seq: int | None = None
    """The number of its entry in the ledger; None: there is none, or it is not known."""
    changes: tuple[EventLine, ...] = ()
    """For a stale or interrupted command: what happened to the endpoint meanwhile."""
    began: float | None = None
    """Unix time at which it was sent; None: not known."""


class ReceiptView(Value, frozen=True, kw_only=True):
    """A receipt as its page shows it."""

    receipt: ActReceipt
    tone: str
    word: str
    can_repeat: bool
    """Whether the same form can be sent again."""
    can_override: bool
    """Whether its form takes a reason to override a check."""
    owner: str
    on_call: str


def receipt_page(receipt: ActReceipt, status: EndpointStatus, at: float) -> DashboardPage:
    """Return the page of a command under way, or of its result."""
    tone, word = CHIPS[receipt.state]
    view = ReceiptView(
        receipt=receipt,
        tone=tone,
        word=word,
        can_repeat=receipt.state in AGAIN,
        can_override=receipt.state == "refused" and receipt.act in OVERRIDABLE,
        owner=status.owner or "",
        on_call=status.on_call or "",
    )
    return DashboardPage(
        title=f"{receipt.label} · {receipt.endpoint}",
        template="act.html",
        parts=(PagePart("receipt", "act_receipt.html", view),),
        endpoint=receipt.endpoint,
        tab="endpoint",
        at=at,
        renews=receipt.state == "running",
    )


class WrittenCommand(Value, frozen=True, kw_only=True):
    """A command as the ledger has it."""

    entries: tuple[Entry, ...]
    """Its events, oldest first."""
    parts: ReceiptParts | None
    """Its durations; None: control ended before they were recorded."""


def interrupted(status: EndpointStatus, found: WrittenCommand | None, name: str) -> ActReceipt:
    """Return the receipt of a command that was sent before control was restarted.

    Args:
        status: the endpoint now.
        found: the command that followed the epoch of the form; None: no command did.
        name: the person who asks, as the ledger names them.
    """
    if found is None:
        return ActReceipt(
            endpoint=status.endpoint,
            act="",
            label="Command",
            state="failed",
            heading="Nothing was changed: control was restarted before the command was written",
            text=f"{status.endpoint} is still at epoch {status.epoch}.",
            epoch=status.epoch,
        )
    first, parts = found.entries[0], found.parts
    if first.by != name:
        return ActReceipt(
            endpoint=status.endpoint,
            act="",
            label="Command",
            state="stale",
            heading="Nothing happened: the endpoint changed meanwhile",
            text="Control was restarted since.",
            changes=lines_of(found.entries),
        )
    return ActReceipt(
        endpoint=status.endpoint,
        act="",
        label="Command",
        state="unknown" if parts is None else "silent" if parts.silent else "done",
        heading="; ".join(story(entry.event) for entry in found.entries),
        text="Control was restarted since. The ledger recorded this."
        if parts is not None
        else "Control was restarted before the end of the command was recorded. It is written, and"
        " this is what each replica does now.",
        by=first.by,
        reason=first.reason,
        acks=ack_lines(parts)
        if parts is not None
        else replica_lines(status.replicas, found.entries[-1].epoch, is_written=True),
        parts=part_lines(parts) if parts is not None else (),
        epoch=found.entries[-1].epoch,
        seq=first.seq,
        began=read_instant(first.at),
    )


def ack_lines(parts: ReceiptParts) -> tuple[AckLine, ...]:
    """Return a line for each replica, the fastest first."""
    found = [
        AckLine(name, "ok", f"acknowledged after {milliseconds(took)}")
        for name, took in sorted(parts.acks.items(), key=lambda item: item[1])
    ]
    found += [AckLine(name, "bad", "did not acknowledge") for name in parts.silent]
    found += [AckLine(name, "plain", "its process ended before it did") for name in parts.ended]
    return tuple(
        AckLine(line.replica, line.tone, f"{line.text}; it was cold: {parts.cold[line.replica]}")
        if line.replica in parts.cold
        else line
        for line in found
    )


def part_lines(parts: ReceiptParts) -> tuple[tuple[str, str], ...]:
    """Return how long each part of a command took since it was sent, in order."""
    measured: Mapping[str, float | None] = {
        "decided": parts.decide_ms,
        "prepared": parts.prepare_ms,
        "written": parts.write_ms,
        "last ack": parts.last_ack_ms,
        "first answer of the old release": parts.first_old_answer_ms,
        "in all": parts.total_ms,
    }
    return tuple((name, milliseconds(took)) for name, took in measured.items() if took is not None)


def replica_lines(
    replicas: tuple[ReplicaStatus, ...], epoch: int, *, is_written: bool
) -> tuple[AckLine, ...]:
    """Return what each replica does now, while a command runs or after control was restarted."""
    return tuple(
        AckLine(one.name, "busy", "prepares")
        if not is_written
        else AckLine(
            one.name,
            "bad" if one.silent else "ok" if (one.epoch or 0) >= epoch else "busy",
            f"silent, last heard {one.beat_age_s:.0f} s ago"
            if one.silent
            else f"serves epoch {one.epoch}",
        )
        for one in replicas
    )
