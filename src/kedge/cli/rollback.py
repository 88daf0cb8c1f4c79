"""Commands of a rollback: rollback, and unpin, which ends a pin of this host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import click

from kedge.cli.completion import complete
from kedge.cli.context import Context, prints, verb
from kedge.cli.endpoint import endpoint
from kedge.cli.submit import submit
from kedge.cli.text.receipt import pinned_text
from kedge.core.errors import Refused
from kedge.core.names import read_release
from kedge.operations.receipts import EndedPin, PinnedHost, RollbackReceipt
from kedge.system.terminal import one_line

if TYPE_CHECKING:
    from kedge.operations.commands import Order


@click.command()
@endpoint()
@click.option("--production", is_flag=True, help="Roll production back, also within a canary.")
@click.option(
    "--to",
    metavar="RELEASE",
    shell_complete=complete("release"),
    help="A release that was production before, also a condemned one.",
)
@click.option("--axis", type=click.Choice(["model", "features"]), help="Roll back only one half.")
@click.option("--local", is_flag=True, help="Break glass: pin this host while the ledger is gone.")
@click.option(
    "--accept-stale",
    metavar="DURATION",
    help="Go back although the values that it reads by key are as old as this.",
)
@click.option(
    "--again",
    is_flag=True,
    help="Go back even if another command was first, so one release further.",
)
@click.option("--reason", default="", help="Why, for the ledger.")
@verb
@prints(RollbackReceipt | PinnedHost)
def rollback(
    context: Context,
    endpoint: str,
    production: bool,
    to: str | None,
    axis: str | None,
    local: bool,
    accept_stale: str | None,
    again: bool,
    reason: str,
) -> None:
    """Go back to the previous good release."""
    if to is not None and (axis is not None or production):
        raise click.UsageError("--to names the release; --axis and --production look for one")
    if to is not None:
        read_release(to)  # a typo is reported before anything is opened or sent
    half: Literal["model", "features"] | None = axis  # type: ignore[assignment]
    if local:
        from kedge.operations.commands import rollback_command
        from kedge.operations.rollback import pin_host

        context.check_here()
        command = rollback_command(production=production, to=to, axis=half)
        pinned = pin_host(context.state_dir, endpoint, command, reason=reason)
        context.out(pinned, pinned_text(one_line(pinned)))
        return

    def run(order: Order) -> RollbackReceipt:
        from kedge.operations.commands import roll_back

        order = order._replace(expect=None) if again else order  # whatever was seen
        return roll_back(order, production=production, to=to, axis=half, accept_stale=accept_stale)

    submit(context, endpoint, run, reason)


@click.command()
@endpoint()
@verb
@prints(EndedPin)
def unpin(context: Context, endpoint: str) -> None:
    """End a pin on this host; it follows the ledger again."""
    from kedge.engine.pins import HostDisk

    context.check_here()
    if not HostDisk(context.state_dir).unpin(endpoint):
        raise Refused(
            f"{endpoint} is not pinned on this host", code="not_pinned", hint="kedge status"
        )
    context.out(EndedPin(endpoint, pinned=False), f"{endpoint} follows the ledger again")
