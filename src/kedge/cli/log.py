"""The commands `kedge log export` and `kedge log forget`."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from kedge.cli.context import Context, prints, verb
from kedge.cli.endpoint import endpoint, endpoint_option
from kedge.cli.uploads import NamedResult
from kedge.operations.export import ExportedLog, export_of
from kedge.operations.forget import ForgottenEntity, forget
from kedge.system.terminal import one_line


@click.group()
def log() -> None:
    """Export the prediction log, or forget a caller in it."""


@log.command("export")
@endpoint()
@click.option(
    "--since",
    default="7d",
    show_default=True,
    help="From when: a date, a time, or a duration back such as 7d.",
)
@click.option(
    "--to",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="A directory; an hour is one file.",
)
@verb
@prints(ExportedLog)
def log_export(context: Context, endpoint: str, since: str, to: Path) -> None:
    """Write predictions and their labels as Parquet files."""
    found = context.result(
        lambda: export_of(context.place(), endpoint, since, to, context.say),
        dict,
        NamedResult("to", to),
    )
    found = msgspec.structs.replace(found, to=str(to / endpoint))
    context.out(found, f"{found.predictions:,} predictions in {found.files} files under {found.to}")


@log.command("forget")
@click.argument("unit")
@endpoint_option("Of this endpoint only.")
@verb
@prints(ForgottenEntity)
def log_forget(context: Context, unit: str, endpoint: str | None) -> None:
    """Remove every prediction and label of UNIT."""

    def remove() -> ForgottenEntity:
        done = forget(context.place(), unit, endpoint)
        return ForgottenEntity(done.removed, done.under_way or msgspec.UNSET, done.stays)

    found = context.result(remove)
    text = f"{found.removed:,} records of {one_line(unit)} removed"
    if found.under_way:
        text += f"; {found.under_way:,} on their way are dropped within seconds"
    for stays in found.stays:
        context.say(f"not reached: {one_line(stays)}")
    context.out(found, text)
