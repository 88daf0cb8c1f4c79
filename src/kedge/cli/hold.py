"""Commands that hold a rollout: set-weight, pause, resume, abort, and freeze and thaw.

They import little, so that an operator who stops a rollout does not wait for NumPy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from kedge.cli.context import Context, override, prints, verb
from kedge.cli.endpoint import endpoint
from kedge.cli.quantities import WEIGHT
from kedge.cli.submit import submit
from kedge.operations.receipts import CommandReceipt

if TYPE_CHECKING:
    from kedge.operations.commands import Order

why_option = click.option("--reason", default="", help="Why, for the ledger.")


@click.command("set-weight")
@endpoint(required=True)
@click.argument("weight", type=WEIGHT)
@override
@verb
@prints(CommandReceipt)
def set_weight(context: Context, endpoint: str, weight: float, override: str | None) -> None:
    """Change the candidate's share to WEIGHT per cent."""

    def run(order: Order) -> CommandReceipt:
        from kedge.operations import commands

        return commands.set_weight(order, weight, override)

    submit(context, endpoint, run)


@click.command()
@endpoint()
@why_option
@verb
@prints(CommandReceipt)
def pause(context: Context, endpoint: str, reason: str) -> None:
    """Hold the rollout where it is."""

    def run(order: Order) -> CommandReceipt:
        from kedge.operations import commands

        return commands.pause(order)

    submit(context, endpoint, run, reason)


@click.command()
@endpoint()
@why_option
@override
@verb
@prints(CommandReceipt)
def resume(context: Context, endpoint: str, reason: str, override: str | None) -> None:
    """Continue a held rollout."""

    def run(order: Order) -> CommandReceipt:
        from kedge.operations import commands

        return commands.resume(order, override)

    submit(context, endpoint, run, reason)


@click.command()
@endpoint()
@why_option
@verb
@prints(CommandReceipt)
def abort(context: Context, endpoint: str, reason: str) -> None:
    """End a rollout; the candidate stays eligible."""

    def run(order: Order) -> CommandReceipt:
        from kedge.operations import commands

        return commands.abort(order)

    submit(context, endpoint, run, reason)


@click.command()
@endpoint()
@why_option
@verb
@prints(CommandReceipt)
def freeze(context: Context, endpoint: str, reason: str) -> None:
    """Stop automation on ENDPOINT; commands still work."""

    def run(order: Order) -> CommandReceipt:
        from kedge.operations import commands

        return commands.freeze(order)

    submit(context, endpoint, run, reason)


@click.command()
@endpoint()
@why_option
@verb
@prints(CommandReceipt)
def thaw(context: Context, endpoint: str, reason: str) -> None:
    """Let automation act on ENDPOINT again."""

    def run(order: Order) -> CommandReceipt:
        from kedge.operations import commands

        return commands.thaw(order)

    submit(context, endpoint, run, reason)
