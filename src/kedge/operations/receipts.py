"""Receipts of commands on releases: the effect of a command, and the duration of each part."""

from __future__ import annotations

from kedge.core.release.commands import AnyEvent, Held
from kedge.core.stored.notes import ReceiptParts
from kedge.core.values import BUCKETS, Stage, Value
from kedge.engine.submission import Receipt


class CommandReceipt(Value, frozen=True, kw_only=True):
    """The effect of a command on an endpoint, and the duration of each part."""

    endpoint: str
    epoch: int
    """The epoch after the command."""
    event: str
    """The last event."""
    release: str
    """The release of the command, as r3; production if the command names none."""
    left: str | None
    """The release that the command left, as r3; null: it left none."""
    stage: Stage
    """The stage after the command."""
    weight: float
    """Per cent of the callers that the candidate answers after the command."""
    events: tuple[AnyEvent, ...]
    receipt: ReceiptParts


def describe_receipt(receipt: Receipt) -> CommandReceipt:
    """Return a command's receipt as a document."""
    moves = [event for event in receipt.events if not isinstance(event, Held)]
    last = (moves or receipt.events)[-1]
    release = getattr(last, "release", None)
    left = getattr(last, "left", None) or release
    return CommandReceipt(
        endpoint=receipt.endpoint,
        epoch=receipt.epoch,
        event=str(type(last).__struct_config__.tag),
        release=f"r{release or receipt.state.production}",
        left=f"r{left}" if left is not None else None,
        stage=receipt.state.stage,
        weight=receipt.state.weight * 100 / BUCKETS,
        events=receipt.events,
        receipt=receipt.parts(),
    )
