"""The commands `kedge alerts`, `kedge ack` and `kedge runbook`."""

from __future__ import annotations

import sys

import click

from kedge.cli.blocks import Paragraph
from kedge.cli.completion import complete
from kedge.cli.context import Context, prints, verb
from kedge.cli.endpoint import endpoint
from kedge.cli.failure import REFUSED
from kedge.cli.quantities import NUMBER
from kedge.cli.screen.alerts import alerts_screen
from kedge.cli.text.alerts import alert_test_text, alerts_text
from kedge.core.alerts.alerts import Alert
from kedge.core.runbook import Runbook, markdown, page
from kedge.operations.alerts import (
    AlertTest,
    ListedAlert,
    acknowledge,
    alerts_of,
    outgoing,
    runbook_of,
    test_of,
)
from kedge.system.terminal import one_line
from kedge.workspace import actor

NONE = "no alert is open"


class _Alerts(click.Group):
    """The group of `kedge alerts [ENDPOINT]`, which lists, and `kedge alerts test ENDPOINT`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the first word as an endpoint, unless it is a verb."""
        named = bool(args) and args[0] in self.commands
        ctx.allow_interspersed_args = not named
        return super().parse_args(ctx, ["", *args] if named else args)


@click.group(cls=_Alerts, invoke_without_command=True)
@endpoint(every=True)
@click.option("--all", "over", is_flag=True, help="Include resolved alerts.")
@verb
@prints(list[ListedAlert])
def alerts(context: Context, endpoint: str | None, *, over: bool) -> None:
    """Show open alerts, newest first, and who was notified."""
    if click.get_current_context().invoked_subcommand is not None:
        return

    found = context.result(lambda: alerts_of(context.place(), endpoint, over=over))
    screen = alerts_screen(found) if found else [Paragraph(NONE)]
    context.out(found, alerts_text(one_line(found)) or NONE, screen)


@alerts.command("test")
@endpoint()
@verb
@prints(AlertTest)
def alerts_test(context: Context, endpoint: str) -> None:
    """Send a test through every channel of every level."""
    found = context.result(
        lambda: test_of(context.place(), endpoint, outgoing(context.settings.alerts), by=actor())
    )
    context.out(found, alert_test_text(one_line(found)))
    if not found.delivered:
        context.say("hint: a level without a working channel reaches no recipient")
        sys.exit(REFUSED)


@click.command()
@click.argument("number", type=NUMBER, shell_complete=complete("alert"))
@click.option("--by", help="Who acknowledges it; default: as the ledger would name you.")
@verb
@prints(Alert)
def ack(context: Context, number: int, by: str | None) -> None:
    """Acknowledge alert NUMBER: it escalates no further."""
    done = context.result(lambda: acknowledge(context.place(), number, by or actor()))
    over = "" if done.open else ", and it is over"
    context.out(done, f"alert {number} is acknowledged by {one_line(done.acknowledged_by)}{over}")


@click.command()
@endpoint()
@click.option("--html", is_flag=True, help="Print a page for a browser instead of Markdown.")
@verb
@prints(Runbook)
def runbook(context: Context, endpoint: str, *, html: bool) -> None:
    """Print what to do when ENDPOINT misbehaves."""
    book = context.result(lambda: runbook_of(context.place(), endpoint, by=actor()))
    context.out(book, (page if html else markdown)(one_line(book)).rstrip())
