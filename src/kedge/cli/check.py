"""The command `kedge check`: whether a rollback would work now."""

from __future__ import annotations

import sys

import click

from kedge.cli.context import Context, prints, verb
from kedge.cli.endpoint import endpoint
from kedge.cli.failure import REFUSED
from kedge.cli.screen.check import check_screen
from kedge.cli.text.check import check_text
from kedge.operations.readiness.check import CheckedEndpoint, check_of
from kedge.system.terminal import one_line
from kedge.workspace import actor


@click.command()
@endpoint()
@click.option(
    "--no-proof",
    is_flag=True,
    help="Do not deploy the way back again; use the proof of the last day.",
)
@verb
@prints(CheckedEndpoint)
def check(context: Context, endpoint: str, *, no_proof: bool) -> None:
    """Check whether a rollback would work now."""
    found = context.result(
        lambda: check_of(context.place(), endpoint, by=actor(), again=not no_proof)
    )
    context.out(found, check_text(one_line(found)), check_screen(found))
    if not found.ready:
        context.say(f"hint: {found.failed[0]} first; kedge help readiness explains each")
        sys.exit(REFUSED)
