"""Commands on one endpoint, as the command line, the API and the dashboard carry them out.

It imports little, so that an operator who rolls back or stops a rollout does not wait. The commands that
find a release first are in `rollouts`, and in `feature_rollouts`.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from msgspec.structs import asdict

from kedge.core.errors import NotAcknowledged, Usage
from kedge.core.names import read_release
from kedge.core.release.commands import (
    Abort,
    AnyCommand,
    Freeze,
    Hold,
    Pause,
    Resume,
    Rollback,
    SetWeight,
    Thaw,
)
from kedge.core.release.guards import buckets
from kedge.engine.submission import Gate, Say, Silent
from kedge.operations.probe import probe
from kedge.operations.receipts import CommandReceipt, RollbackReceipt, describe_receipt
from kedge.operations.rollback import finding_beside, landing_reads
from kedge.workspace import Workplace


def say_nothing(_: str) -> None:
    """Drop a message: the caller prints none."""


class Order(NamedTuple):
    """A command's endpoint, who gives it, and why."""

    place: Workplace
    endpoint: str
    by: str
    reason: str = ""
    """For the ledger."""
    expect: int | None = None
    """The epoch that the operator saw; None: any."""
    say: Say = say_nothing
    """Called with progress messages."""


class SilentReplicas(NotAcknowledged):
    """A command is written, and a replica does not acknowledge it; `done` is its receipt."""

    def __init__(self, silent: Silent, done: CommandReceipt) -> None:
        super().__init__(str(silent), hint=silent.hint, details=silent.details | asdict(done))
        self.silent = silent
        self.done = done


def submit(order: Order, command: AnyCommand, gate: Gate | None = None) -> CommandReceipt:
    """Submit a command, and return its receipt; a promotion passes the gate.

    Raises:
        SilentReplicas: a replica does not acknowledge it.
        Others: as `engine.submission.Control.submit`.
    """
    control = order.place.control(order.say, probe(order.place), gate)
    links = order.place.site.links
    try:
        receipt = control.submit(
            order.endpoint, command, by=order.by, reason=order.reason, expect=order.expect
        )
    except Silent as error:
        raise SilentReplicas(error, describe_receipt(error.receipt, links)) from None
    return describe_receipt(receipt, links)


def roll_back(
    order: Order,
    *,
    production: bool = False,
    to: str | None = None,
    axis: Literal["model", "features"] | None = None,
    accept_stale: str | None = None,
) -> RollbackReceipt:
    """Go back to the previous good release, and add the newest diagnosis of the release left.

    Args:
        order: the endpoint, the actor and the reason.
        production: roll production back, also within a canary.
        to: a release that was production before, as r7.
        axis: the half that is rolled back; None: both.
        accept_stale: the age of values by key that is accepted.

    Raises:
        Refused: the rules refuse it, or the landing would read values that are too old.
        Others: as `submit`.
    """
    command = rollback_command(production=production, to=to, axis=axis)
    runs = landing_reads(order.place, order.endpoint, command)
    if runs:
        # Few endpoints read values by key: the others do not wait for the import.
        from kedge.operations.features.staleness import refuse_stale

        refuse_stale(order.place, runs, accept_stale)
    try:
        return _with_finding(order, submit(order, command))
    except SilentReplicas as error:
        raise SilentReplicas(error.silent, _with_finding(order, error.done)) from None


def rollback_command(
    *, production: bool, to: str | None, axis: Literal["model", "features"] | None
) -> Rollback:
    """Return the command of a rollback.

    Raises:
        Usage: it names the landing, and also looks for one.
        Refused: `unknown_release`.
    """
    if to is not None and (axis is not None or production):
        raise Usage("to names the release; axis and production look for one")
    target = read_release(to) if to is not None else None
    return Rollback(production=production, to=target, axis=axis)


def _with_finding(order: Order, done: CommandReceipt) -> RollbackReceipt:
    """Return a rollback's receipt with the finding. It is read only now, to delay no rollback."""
    known = finding_beside(order.place.state_dir, order.endpoint, done.left)
    return RollbackReceipt(**asdict(done), finding=known)


def pause(order: Order) -> CommandReceipt:
    """Hold the rollout where it is."""
    return submit(order, Pause())


def resume(order: Order, override: str | None) -> CommandReceipt:
    """Continue a held rollout; without a reason, that of the override counts."""
    return submit(with_reason(order, override), Resume(override=override))


def abort(order: Order) -> CommandReceipt:
    """End a rollout without condemning its candidate."""
    return submit(order, Abort())


def set_weight(order: Order, weight: float, override: str | None) -> CommandReceipt:
    """Change the candidate's share to `weight` per cent."""
    command = SetWeight(weight=buckets(weight), override=override)
    return submit(with_reason(order, override), command)


def freeze(order: Order) -> CommandReceipt:
    """Stop automation."""
    return submit(order, Freeze())


def thaw(order: Order) -> CommandReceipt:
    """Let automation act again."""
    return submit(order, Thaw())


def hold(order: Order) -> CommandReceipt:
    """Keep the endpoint on its features."""
    return submit(order, Hold())


def with_reason(order: Order, override: str | None) -> Order:
    """Return an order whose reason is that of the override, if it has none of its own."""
    return order if order.reason else order._replace(reason=override or "")
