"""Commands that advance a rollout: shadow, canary and promote."""

from __future__ import annotations

import click

from kedge.cli.completion import complete
from kedge.cli.context import Context, override, prints, verb
from kedge.cli.endpoint import endpoint
from kedge.cli.quantities import SAMPLE, WEIGHT
from kedge.cli.submit import submit
from kedge.operations import rollouts as operations
from kedge.operations.receipts import CommandReceipt

auto_option = click.option(
    "--auto", is_flag=True, help="The patrol walks the steps, each by proof."
)
sample_option = click.option(
    "--sample", type=SAMPLE, help="Per cent of the units; default: the policy's."
)
weight_option = click.option(
    "--weight", type=WEIGHT, help="Per cent of the callers; default: the policy's first step."
)


@click.command()
@endpoint(required=True, needs_row=False)
@click.argument("version", shell_complete=complete("version"))
@sample_option
@override
@verb
@prints(CommandReceipt)
def shadow(
    context: Context, endpoint: str, version: str, sample: float | None, override: str | None
) -> None:
    """Send VERSION a silent copy of production's requests."""
    submit(
        context,
        endpoint,
        lambda order: operations.start_shadow(order, version, sample=sample, override=override),
    )


@click.command()
@endpoint(required=True, needs_row=False)
@click.argument("version", shell_complete=complete("version"))
@weight_option
@auto_option
@override
@verb
@prints(CommandReceipt)
def canary(
    context: Context,
    endpoint: str,
    version: str,
    weight: float | None,
    auto: bool,
    override: str | None,
) -> None:
    """Send a percentage of traffic to VERSION."""
    submit(
        context,
        endpoint,
        lambda order: operations.start_canary(
            order, version, weight=weight, auto=auto, override=override
        ),
    )


@click.command()
@endpoint(required=True, needs_row=False)
@click.argument("version", required=False, shell_complete=complete("version"))
@click.option("--full", is_flag=True, help="Skip the remaining canary steps.")
@override
@verb
@prints(CommandReceipt)
def promote(
    context: Context, endpoint: str, version: str | None, full: bool, override: str | None
) -> None:
    """Move a rollout to its next step, or into production."""
    submit(
        context,
        endpoint,
        lambda order: operations.promote(
            order, version, full=full, override=override, loopback=context.loopback
        ),
    )
