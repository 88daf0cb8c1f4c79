"""Receipts of commands on releases: the effect of a command, and the duration of each part.

It imports no operation and no engine: the remote command line decodes receipts, and starts fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import UNSET, UnsetType

from kedge.core.diagnosis.findings import Act, Cause, Estimate
from kedge.core.links import PageLinks
from kedge.core.release.commands import AnyEvent, Held
from kedge.core.stored.notes import ReceiptParts
from kedge.core.values import BUCKETS, Stage, Value

if TYPE_CHECKING:
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
    seq: int = 0
    """The number of its first entry in the ledger."""
    link: str = ""
    """Its page of the dashboard; empty without `[server] public_url`."""


class EndedPin(Value, frozen=True):
    """A pin of this host that was ended: its gateways follow the ledger again."""

    endpoint: str
    pinned: bool
    """Whether the host is still pinned: false."""


class PinnedHost(Value, frozen=True, kw_only=True):
    """The result of a rollback of this host alone."""

    endpoint: str
    serves: str
    """The release that it is pinned to."""
    left_epoch: int
    """The endpoint's epoch when it was pinned."""
    acks: dict[str, float]
    """By replica: milliseconds until it served that release."""
    silent: tuple[str, ...]
    """Replicas that did not acknowledge."""


class FindingBeside(Value, frozen=True, kw_only=True):
    """The newest diagnosis beside a rollback's receipt.

    If it cannot be read, only `fault` and `against` are present.
    """

    fault: str
    """Why it cannot be read; empty: it was read."""
    age_s: float | UnsetType = UNSET
    against: bool
    """Whether the diagnosis advises against the rollback."""
    headline: str | UnsetType = UNSET
    causes: tuple[Cause, ...] | UnsetType = UNSET
    effect: Estimate | UnsetType | None = UNSET
    """Effect of the rollback; negative is better. Null: unknown."""
    action: Act | UnsetType = UNSET
    advice: str | UnsetType = UNSET
    new: str | UnsetType = UNSET
    """The diagnosed release, as r3."""
    old: str | UnsetType | None = UNSET
    """The release before it; null: there was none."""


class RollbackReceipt(CommandReceipt, frozen=True, kw_only=True):
    """The effect of a rollback, and the newest diagnosis of the release that was left."""

    finding: FindingBeside | None
    """Null: there is none of the last day."""


def describe_receipt(receipt: Receipt, links: PageLinks) -> CommandReceipt:
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
        seq=receipt.seq,
        link=links.decision(receipt.endpoint, receipt.seq),
    )
