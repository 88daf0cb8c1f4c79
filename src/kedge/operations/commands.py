"""Commands on one endpoint, as control carries them out for a remote caller."""

from __future__ import annotations

from msgspec.structs import asdict

from kedge.core.alerts.alerts import Alert
from kedge.core.errors import Usage
from kedge.core.names import read_release
from kedge.core.release.commands import (
    Abort,
    AnyCommand,
    Follow,
    Freeze,
    Hold,
    Pause,
    Resume,
    Rollback,
    SetWeight,
    Thaw,
)
from kedge.core.release.guards import buckets
from kedge.engine.submission import Silent
from kedge.operations import parameters as given
from kedge.operations.alerts import acknowledge
from kedge.operations.ask import Ask
from kedge.operations.features.staleness import refuse_stale
from kedge.operations.probe import probe
from kedge.operations.receipts import CommandReceipt, RollbackReceipt, describe_receipt
from kedge.operations.rollback import finding_beside, landing_reads


def submit(ask: Ask, command: AnyCommand, reason: str) -> CommandReceipt:
    """Submit a command, and return its receipt.

    Raises:
        Silent: a replica does not acknowledge it; the details have the receipt.
        Others: as `engine.submission.Control.submit`.
    """
    control = ask.place.control(lambda _: None, probe(ask.place))
    try:
        receipt = control.submit(ask.named, command, by=ask.by, reason=reason, expect=ask.expect)
    except Silent as error:
        error.details |= asdict(describe_receipt(error.receipt))
        raise
    return describe_receipt(receipt)


def roll_back(ask: Ask) -> RollbackReceipt:
    """Go back to the previous good release, and add the newest diagnosis of the release left."""
    asked = ask.given(given.RollbackParameters)
    if asked.to is not None and (asked.axis is not None or asked.production):
        raise Usage("to names the release; axis and production look for one")
    target = read_release(asked.to) if asked.to is not None else None
    command = Rollback(production=asked.production, to=target, axis=asked.axis)
    runs = landing_reads(ask.place, ask.named, command)
    if runs:
        refuse_stale(ask.place, runs, asked.accept_stale)
    done = submit(ask, command, asked.reason)
    known = finding_beside(ask.place.state_dir, ask.named, done.left)
    return RollbackReceipt(**asdict(done), finding=known)


def pause(ask: Ask) -> CommandReceipt:
    """Hold the rollout where it is."""
    return submit(ask, Pause(), ask.given(given.ReasonParameters).reason)


def resume(ask: Ask) -> CommandReceipt:
    """Continue a held rollout."""
    asked = ask.given(given.ResumeParameters)
    return submit(ask, Resume(override=asked.override), asked.reason or asked.override or "")


def abort(ask: Ask) -> CommandReceipt:
    """End a rollout without condemning its candidate."""
    return submit(ask, Abort(), ask.given(given.ReasonParameters).reason)


def set_weight(ask: Ask) -> CommandReceipt:
    """Change the candidate's share."""
    asked = ask.given(given.WeightParameters)
    command = SetWeight(weight=buckets(asked.weight), override=asked.override)
    return submit(ask, command, asked.override or "")


def freeze(ask: Ask) -> CommandReceipt:
    """Stop automation."""
    return submit(ask, Freeze(), ask.given(given.ReasonParameters).reason)


def thaw(ask: Ask) -> CommandReceipt:
    """Let automation act again."""
    return submit(ask, Thaw(), ask.given(given.ReasonParameters).reason)


def follow(ask: Ask) -> CommandReceipt:
    """Let the endpoint follow the head of its feature schema."""
    return submit(ask, Follow(), ask.given(given.ReasonParameters).reason)


def hold(ask: Ask) -> CommandReceipt:
    """Keep the endpoint on its features."""
    return submit(ask, Hold(), ask.given(given.ReasonParameters).reason)


def ack(ask: Ask) -> Alert:
    """Acknowledge an alert."""
    assert ask.number is not None
    return acknowledge(ask.place, ask.number, ask.given(given.AckParameters).by or ask.by)
