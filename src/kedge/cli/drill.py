"""The commands `kedge drill` and `kedge speed`."""

from __future__ import annotations

import signal
import sys
import threading

import click

from kedge.cli.blocks import Paragraph
from kedge.cli.context import Context, prints, verb
from kedge.cli.endpoint import endpoint
from kedge.cli.failure import NOT_ACKNOWLEDGED, REFUSED
from kedge.cli.screen.drills import drill_screen, speed_screen
from kedge.cli.text.drills import drill_text, speed_text
from kedge.core.speed import Speed
from kedge.operations.drills import DrillReport, bound_of, drill_of, rehearse, speed_of
from kedge.system.terminal import one_line


@click.command()
@endpoint()
@click.option(
    "--for",
    "bound",
    metavar="DURATION",
    help=(
        "How long all of it may take, 60s at most. Default: 10s, and more when the way back is to"
        " be loaded first."
    ),
)
@click.option("--dry", is_flag=True, help="Everything but the flip: callers notice nothing.")
@verb
@prints(DrillReport)
def drill(context: Context, endpoint: str, bound: str | None, dry: bool) -> None:
    """Practise a rollback in production, then restore."""
    for_s = bound_of(bound) if bound is not None else None
    say = context.say if not context.as_json else lambda text: None

    def practise() -> DrillReport:
        place = context.place()
        if dry:
            return rehearse(place, endpoint, for_s=for_s, say=say)
        ended = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: ended.set())
        return drill_of(place, endpoint, for_s=for_s, ended=ended, say=say)

    filed = context.result(practise)
    context.out(filed, drill_text(endpoint, one_line(filed)), drill_screen(endpoint, filed))
    if not filed.ok:
        context.say(f"hint: {one_line(filed.why)}")
        silent = any(flip is not None and flip.silent for flip in (filed.back, filed.forward))
        sys.exit(NOT_ACKNOWLEDGED if silent else REFUSED)


@click.command()
@endpoint(every=True)
@verb
@prints(Speed | list[Speed])
def speed(context: Context, endpoint: str | None) -> None:
    """Show how long past rollbacks took, from harm to old answer."""

    def look() -> Speed | list[Speed]:
        listed = speed_of(context.place(), endpoint)
        return listed if endpoint is None else listed[0]

    data = context.result(look)
    found = data if isinstance(data, list) else [data]
    none = "no endpoint yet: kedge apply"
    screen = speed_screen(found) if found else [Paragraph(none)]
    context.out(data, speed_text(one_line(found)) or none, screen)
