"""Receipts of commands on releases: what a command did, and how long each part of it took."""

from __future__ import annotations

from kedge.core.release.commands import AnyEvent, Held
from kedge.core.stored.notes import ReceiptParts
from kedge.core.values import BUCKETS, Stage, Value
from kedge.engine.submission import Receipt


class CommandReceipt(Value, frozen=True, kw_only=True):
    """What a command did to an endpoint, and how long each part took."""

    endpoint: str
    epoch: int
    """After the command."""
    event: str
    """The last event."""
    release: str
    """The release that it is about, as r3; production where it is about none."""
    left: str | None
    """The release that is left by it, as r3; null: it is about no release."""
    stage: Stage
    """After the command."""
    weight: float
    """Per cent of the callers that the candidate answers after it."""
    events: tuple[AnyEvent, ...]
    receipt: ReceiptParts


def describe_receipt(receipt: Receipt) -> CommandReceipt:
    """Return what a command did, as its document has it."""
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
