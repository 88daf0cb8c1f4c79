"""Commands that hold a rollout: set-weight, pause, resume, abort, and freeze and thaw.

They import little, so that an operator who stops a rollout does not wait for NumPy.
"""

from __future__ import annotations

import click

from kedge.cli.context import Context, override, prints, verb
from kedge.cli.endpoint import endpoint
from kedge.cli.quantities import WEIGHT
from kedge.cli.submit import submit
from kedge.core.release.commands import Abort, Freeze, Pause, Resume, SetWeight, Thaw
from kedge.core.release.guards import buckets
from kedge.operations.receipts import CommandReceipt

why_option = click.option("--reason", default="", help="Why, for the ledger.")


@click.command("set-weight")
@endpoint(required=True)
@click.argument("weight", type=WEIGHT)
@override
@verb
@prints(CommandReceipt)
def set_weight(context: Context, endpoint: str, weight: float, override: str | None) -> None:
    """Change the candidate's share to WEIGHT per cent."""
    submit(
        context,
        endpoint,
        lambda _: SetWeight(weight=buckets(weight), override=override),
        override or "",
    )


@click.command()
@endpoint()
@why_option
@verb
@prints(CommandReceipt)
def pause(context: Context, endpoint: str, reason: str) -> None:
    """Hold the rollout where it is."""
    submit(context, endpoint, lambda _: Pause(), reason)


@click.command()
@endpoint()
@why_option
@override
@verb
@prints(CommandReceipt)
def resume(context: Context, endpoint: str, reason: str, override: str | None) -> None:
    """Continue a held rollout."""
    submit(context, endpoint, lambda _: Resume(override=override), reason or override or "")


@click.command()
@endpoint()
@why_option
@verb
@prints(CommandReceipt)
def abort(context: Context, endpoint: str, reason: str) -> None:
    """End a rollout; the candidate stays eligible."""
    submit(context, endpoint, lambda _: Abort(), reason)


@click.command()
@endpoint()
@why_option
@verb
@prints(CommandReceipt)
def freeze(context: Context, endpoint: str, reason: str) -> None:
    """Stop automation on ENDPOINT; commands still work."""
    submit(context, endpoint, lambda _: Freeze(), reason)


@click.command()
@endpoint()
@why_option
@verb
@prints(CommandReceipt)
def thaw(context: Context, endpoint: str, reason: str) -> None:
    """Let automation act on ENDPOINT again."""
    submit(context, endpoint, lambda _: Thaw(), reason)
