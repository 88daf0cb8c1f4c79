"""The verbs that watch a rollout: what is known, what will be known when, and who may act."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kedge.console import Context, endpoint, endpoint_option, repeat, submit, verb
from kedge.quantities import Count, Factor, Percent, Rate
from kedge.terminal import clear, one_line

if TYPE_CHECKING:
    from kedge.wiring import Workplace

STDIN = Path("-")


@click.command()
@endpoint()
@click.option("--segment", metavar="FIELD=VALUE", help="Show this segment only, beside the whole.")
@click.option("--watch", is_flag=True, help="Show it again each second until Ctrl-C.")
@click.option("--since", help="Show the course of minutes and hours instead, such as 7d.")
@verb
def evidence(
    context: Context, endpoint: str, segment: str | None, watch: bool, since: str | None
) -> None:
    """Compare candidate and production, with a verdict each."""
    from kedge.judging import course_of, evidence_of
    from kedge.text.evidence import course_text, evidence_text
    from kedge.text.layout import get_width

    place = context.place()
    if since is not None:
        course = course_of(place, endpoint, since)
        context.out(course, course_text(one_line(course), segment, get_width()))
        return

    def show() -> None:
        found = evidence_of(place, endpoint, segment)
        if watch and not context.as_json:
            clear()
        context.out(found, evidence_text(one_line(found), get_width()))

    repeat(show, again=watch)


@click.command()
@endpoint()
@click.option(
    "--file",
    "path",
    required=True,
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
    help="JSON lines, CSV or Parquet: id, value, at, label_version. A dash reads JSON lines from standard input.",
)
@click.option(
    "--correct",
    is_flag=True,
    help="Replace labels that were handed in with another value; what they were is kept.",
)
@verb
def outcomes(context: Context, endpoint: str, path: Path, *, correct: bool) -> None:
    """Read late labels, and join them to predictions by id."""
    from kedge.labelling import hand_in, hand_in_lines
    from kedge.operations.outcomes.text import outcomes_text, warnings
    from kedge.wiring import actor

    place = context.place()
    place.records.keep(context.settings.server.records_gb)
    by = actor() if correct else ""
    if path == STDIN:
        found = hand_in_lines(place, endpoint, sys.stdin.buffer, by=by, say=context.say)
    else:
        found = hand_in(place, endpoint, path, by=by, say=context.say)
    for line in warnings(found):
        context.say(f"warning: {line}")
    context.out(found, outcomes_text(found))


@click.command()
@endpoint(required=True)
@click.argument("release")
@click.option(
    "--since",
    default="7d",
    show_default=True,
    help="From when: a date, a time, or a duration back such as 7d.",
)
@verb
def replay(context: Context, endpoint: str, release: str, since: str) -> None:
    """Replay logged requests to RELEASE, and judge its answers."""
    from kedge.replaying import replay_of
    from kedge.text.evidence import evidence_text
    from kedge.text.layout import get_width

    found = replay_of(
        context.place(), endpoint, release, since, online=context.online, say=context.say
    )
    left = found["incomplete"]
    more = f"; {left:,} left out, of requests that were not logged whole" if left else ""
    context.out(
        found,
        f"{found['replayed']:,} predictions asked again{more}\n{evidence_text(one_line(found), get_width())}",
    )


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
@click.option("--to", type=click.Path(file_okay=False, path_type=Path), required=True,
              help="A directory; an hour is one file.")  # fmt: skip
@verb
def log_export(context: Context, endpoint: str, since: str, to: Path) -> None:
    """Write predictions and their labels as Parquet files."""
    from kedge.exporting import export_of

    found = export_of(context.place(), endpoint, since, to, context.say)
    context.out(
        found, f"{found['predictions']:,} predictions in {found['files']} files under {found['to']}"
    )


@log.command("forget")
@click.argument("unit")
@endpoint_option("Of this endpoint only.")
@verb
def log_forget(context: Context, unit: str, endpoint: str | None) -> None:
    """Remove every prediction and label of UNIT."""
    from kedge.operations.forgetting import forget

    found = forget(context.place(), unit, endpoint)
    told: dict[str, object] = {"removed": found.removed}
    text = f"{found.removed:,} records of {one_line(found.entity)} removed"
    if found.under_way:
        told["under_way"] = found.under_way
        text += f"; {found.under_way:,} on their way are dropped within seconds"
    for stays in found.stays:
        context.say(f"not reached: {one_line(stays)}")
    context.out(told, text)


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
    help="How many times that rate is to be found.",
)
@click.option(
    "--callers", type=Count("callers"), help="How many different callers; default: by the log."
)
@verb
def plan(
    context: Context, endpoint: str, rate: float | None, errors: float | None, times: float,
    callers: int | None,
) -> None:  # fmt: skip
    """Estimate how soon each step would find a worse candidate."""
    from kedge.judging import plan_of
    from kedge.text.layout import get_width
    from kedge.text.plan import plan_text

    found = plan_of(
        context.place(),
        endpoint,
        rate=rate,
        errors=errors,
        times=times,
        callers=callers,
        say=context.say,
    )
    context.out(found, plan_text(one_line(found), get_width()))


@click.command()
@endpoint()
@click.option("--reason", default="", help="Why, for the ledger.")
@verb
def freeze(context: Context, endpoint: str, reason: str) -> None:
    """Stop automation on ENDPOINT; commands still work."""
    from kedge.core.commands import AnyCommand, Freeze

    def make(_: Workplace) -> AnyCommand:
        return Freeze()

    submit(context, endpoint, make, reason)


@click.command()
@endpoint()
@click.option("--reason", default="", help="Why, for the ledger.")
@verb
def thaw(context: Context, endpoint: str, reason: str) -> None:
    """Let automation act on ENDPOINT again."""
    from kedge.core.commands import AnyCommand, Thaw

    def make(_: Workplace) -> AnyCommand:
        return Thaw()

    submit(context, endpoint, make, reason)
