"""Commands that show status: status, list and history."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import click

from kedge.adapters.clock import SystemClock
from kedge.cli.blocks import Paragraph, Screen
from kedge.cli.context import Context, Shown, prints, verb
from kedge.cli.endpoint import endpoint
from kedge.cli.quantities import Count
from kedge.cli.screen.history import history_screen
from kedge.cli.screen.status import list_screen, status_screen
from kedge.cli.text.history import history_text
from kedge.cli.text.status import list_text, status_text
from kedge.core.stored.ledger import Entry
from kedge.operations.history import history_of, write_cursor
from kedge.operations.parameters import MOST_ENTRIES
from kedge.operations.status.read import status_of
from kedge.operations.status.view import EndpointStatus
from kedge.system.terminal import one_line

NONE_YET = "no endpoint yet: kedge apply"


@click.command()
@endpoint(every=True)
@click.option("--watch", is_flag=True, help="Show it again each second until Ctrl-C.")
@verb
@prints(EndpointStatus | list[EndpointStatus])
def status(context: Context, endpoint: str | None, watch: bool) -> None:
    """Show what is live, what can take over, and what is wrong."""

    def whole(found: list[EndpointStatus]) -> str:
        return "\n".join(map(status_text, found))

    if endpoint is None:
        _show(context, None, list_text, list_screen, watch=watch)
    else:
        _show(context, endpoint, whole, status_screen, watch=watch)


@click.command("list")
@click.option("--watch", is_flag=True, help="Show it again each second until Ctrl-C.")
@verb
@prints(list[EndpointStatus])
def list_endpoints(context: Context, watch: bool) -> None:
    """List the endpoints, one line each."""
    _show(context, None, list_text, list_screen, watch=watch)


def _show(
    context: Context,
    endpoint: str | None,
    text: Callable[[list[EndpointStatus]], str],
    screen: Callable[[list[EndpointStatus]], Screen],
    *,
    watch: bool,
) -> None:
    open_place = functools.cache(context.place)

    def look() -> EndpointStatus | list[EndpointStatus]:
        listed = status_of(open_place(), endpoint)
        return listed if endpoint is None else listed[0]

    def read() -> Shown:
        seen = context.result(look)
        found = seen if isinstance(seen, list) else [seen]
        if not found and context.damage is not None:
            raise context.damage  # it could name endpoints
        data = found[0] if endpoint is not None else found
        drawn = screen(found) if found else [Paragraph(NONE_YET)]
        return Shown(data, text(one_line(found)) or NONE_YET, drawn)

    context.repeat(read, SystemClock().unix, again=watch)


@click.command()
@endpoint(needs_row=False)
@click.option(
    "--limit",
    type=Count("entries", most=MOST_ENTRIES),
    default=20,
    show_default=True,
    help="How many entries, newest first.",
)
@click.option(
    "--all", "whole", is_flag=True, help="Also entries on the runbook; --json always has them."
)
@click.option(
    "--cursor",
    metavar="CURSOR",
    default="",
    help="Where to begin: the cursor under an earlier history.",
)
@verb
@prints(list[Entry])
def history(context: Context, endpoint: str, limit: int, whole: bool, cursor: str) -> None:
    """Show what changed, by whom, why, and how long it took."""
    whole = whole or context.as_json
    click.get_current_context().params["whole"] = whole  # as a server is asked

    def look() -> Sequence[Entry]:
        return history_of(context.place(), endpoint, limit, whole=whole, cursor=cursor).entries

    entries = context.result(look)
    none = f"{endpoint} has no older entries" if cursor else f"{endpoint} has no history"
    screen = history_screen(entries) if entries else [Paragraph(none)]
    context.out(entries, history_text(entries) or none, screen)
    if len(entries) == limit:
        context.say(f"older entries, if any: --cursor {write_cursor(entries[-1])}")
