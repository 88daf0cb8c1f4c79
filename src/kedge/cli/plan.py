"""The command `kedge plan`."""

from __future__ import annotations

import click

from kedge.cli.context import Context, prints, verb
from kedge.cli.endpoint import endpoint
from kedge.cli.quantities import Count, Factor, Percent, Rate
from kedge.cli.screen.plan import plan_screen
from kedge.cli.text.layout import get_width
from kedge.cli.text.plan import plan_text
from kedge.operations.evidence.read import RolloutPlan, plan_of
from kedge.system.terminal import one_line


@click.command()
@endpoint()
@click.option("--rate", type=Rate(), help="Requests a second; default: as measured now.")
@click.option(
    "--errors", type=Percent(), help="Production's error rate, in per cent; default: as counted."
)
@click.option(
    "--times",
    type=Factor(),
    default=2.0,
    show_default=True,
    help="Multiple of that rate to detect.",
)
@click.option(
    "--callers", type=Count("callers"), help="Number of different callers; default: from the log."
)
@verb
@prints(RolloutPlan)
def plan(
    context: Context,
    endpoint: str,
    rate: float | None,
    errors: float | None,
    times: float,
    callers: int | None,
) -> None:
    """Estimate how soon each step would find a worse candidate."""
    found = context.result(
        lambda: plan_of(
            context.place(),
            endpoint,
            rate=rate,
            errors=errors,
            times=times,
            callers=callers,
            say=context.say,
        )
    )
    context.out(found, plan_text(one_line(found), get_width()), plan_screen(found))
