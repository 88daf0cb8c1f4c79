"""The command `kedge replay`."""

from __future__ import annotations

import click

from kedge.cli.blocks import Paragraph
from kedge.cli.completion import complete
from kedge.cli.context import Context, prints, verb
from kedge.cli.endpoint import endpoint
from kedge.cli.screen.evidence import evidence_screen
from kedge.cli.text.evidence import evidence_text
from kedge.cli.text.layout import get_width
from kedge.operations.replay.run import ReplayedComparison, replay_of
from kedge.system.terminal import one_line


@click.command()
@endpoint(required=True)
@click.argument("release", shell_complete=complete("version"))
@click.option(
    "--since",
    default="7d",
    show_default=True,
    help="From when: a date, a time, or a duration back such as 7d.",
)
@verb
@prints(ReplayedComparison)
def replay(context: Context, endpoint: str, release: str, since: str) -> None:
    """Replay logged requests to RELEASE, and judge its answers."""
    found = context.result(
        lambda: replay_of(context.place(), endpoint, release, since, say=context.say)
    )
    left = found.incomplete
    more = f"; {left:,} left out, of requests that were not logged whole" if left else ""
    told = f"{found.replayed:,} predictions asked again{more}"
    text = f"{told}\n{evidence_text(one_line(found), get_width())}"
    context.out(found, text, [Paragraph(told), *evidence_screen(one_line(found))])
