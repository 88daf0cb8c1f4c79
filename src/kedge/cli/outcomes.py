"""The command `kedge outcomes`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from kedge.cli.context import Context, prints, verb
from kedge.cli.endpoint import endpoint
from kedge.cli.text.outcomes import outcomes_text, warnings
from kedge.cli.uploads import STDIN, NamedFiles
from kedge.operations.outcomes import JoinedOutcomes, hand_in, hand_in_lines


@click.command()
@endpoint()
@click.option(
    "--file",
    "path",
    required=True,
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
    help=(
        "JSON lines, CSV or Parquet: id, value, at, label_version. A dash reads JSON lines from"
        " standard input."
    ),
)
@click.option(
    "--correct",
    is_flag=True,
    help="Replace labels that were handed in with another value; what they were is kept.",
)
@click.option(
    "--time-format",
    "form",
    metavar="FORMAT",
    help="How `at` is written where it is text, as for strptime, UTC without %z; else ISO 8601.",
)
@verb
@prints(JoinedOutcomes)
def outcomes(
    context: Context, endpoint: str, path: Path, *, correct: bool, form: str | None
) -> None:
    """Read late labels, and join them to predictions by id."""

    def work() -> JoinedOutcomes:
        place = context.place()
        place.records.keep(context.settings.server.records_gb)
        by = context.named_actor if correct else ""
        if path == STDIN:
            lines = sys.stdin.buffer
            return hand_in_lines(place, endpoint, lines, by=by, form=form, say=context.say)
        return hand_in(place, endpoint, path, by=by, form=form, say=context.say)

    found = context.result(work, lambda: {"file": NamedFiles(path)})
    for line in warnings(found):
        context.say(f"warning: {line}")
    context.out(found, outcomes_text(found))
