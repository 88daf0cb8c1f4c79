"""The verbs that watch a rollout: what is known, what will be known when, and who may act."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kedge.console import Context, repeat, submit, verb
from kedge.quantities import Count, Factor, Percent, Rate
from kedge.terminal import clear, one_line

if TYPE_CHECKING:
    from kedge.wiring import Workplace

STDIN = Path("-")


@click.command()
@click.argument("endpoint")
@click.option("--segment", metavar="FIELD=VALUE", help="Show this segment only, beside the whole.")
@click.option("--watch", is_flag=True, help="Show it again each second until Ctrl-C.")
@click.option("--since", help="Show the course of minutes and hours instead, such as 7d.")
@verb
def evidence(
    context: Context, endpoint: str, segment: str | None, watch: bool, since: str | None
) -> None:
    """Show production and candidate side by side, with a verdict and its reason for each figure."""
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
@click.argument("endpoint")
@click.option(
    "--file",
    "path",
    required=True,
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
    help="JSON lines, CSV or Parquet: id, value, at, label_version. A dash reads JSON lines from standard input.",
)
@verb
def outcomes(context: Context, endpoint: str, path: Path) -> None:
    """Hand in what was true: late labels, joined to the predictions by id."""
    from kedge.labelling import hand_in, hand_in_lines
    from kedge.report import AMBIGUOUS

    place = context.place()
    place.records.keep(context.settings.server.records_gb)
    if path == STDIN:
        found = hand_in_lines(place, endpoint, sys.stdin.buffer)
    else:
        found = hand_in(place, endpoint, path)
    faults, because = found.pop("faults"), found.pop("unfit_because")
    several = found.pop("ambiguous_because")
    for fault in faults[:20]:
        context.say(f"warning: {one_line(fault)}")
    for item in because:
        context.say(
            f"warning: {item['count']:,} are unfit and not judged: {one_line(item['reason'])}"
        )
    for cause, count in several.items():
        context.say(f"warning: {count:,} are ambiguous and not joined: {AMBIGUOUS[cause]}")
    text = ", ".join(f"{name} {count:,}" for name, count in found.items() if count)
    told = {"faults": faults, "unfit_because": because, "ambiguous_because": several}
    context.out({**found, **told}, text or "nothing to join")


@click.command()
@click.argument("endpoint")
@click.argument("release")
@click.option("--since", default="7d", show_default=True, help="How far back, such as 7d.")
@verb
def replay(context: Context, endpoint: str, release: str, since: str) -> None:
    """Ask RELEASE what production was asked, and judge its answers as a shadow's."""
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
    """The prediction log: what is kept of requests, exporting and forgetting it."""


@log.command("export")
@click.argument("endpoint")
@click.option("--since", default="7d", show_default=True, help="How far back, such as 7d.")
@click.option("--to", type=click.Path(file_okay=False, path_type=Path), required=True,
              help="A directory; an hour is one file.")  # fmt: skip
@verb
def log_export(context: Context, endpoint: str, since: str, to: Path) -> None:
    """Write predictions and their labels as Parquet files (extra `analytics`)."""
    from kedge.exporting import export_of

    found = export_of(context.place(), endpoint, since, to)
    context.out(
        found, f"{found['predictions']:,} predictions in {found['files']} files under {found['to']}"
    )


@log.command("forget")
@click.argument("unit")
@click.option("--endpoint", help="Of this endpoint only.")
@verb
def log_forget(context: Context, unit: str, endpoint: str | None) -> None:
    """Remove every prediction and label of UNIT, also those under way to the store."""
    place = context.place()
    removed = place.records.forget(unit, endpoint, until=place.clock.unix())
    context.out({"removed": removed}, f"{removed:,} records of {unit} removed")


@click.command()
@click.argument("endpoint")
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
    """Say how soon a worse candidate would be found at each step, and how many would meet it."""
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
@click.argument("endpoint")
@click.option("--reason", default="", help="Why, for the ledger.")
@verb
def freeze(context: Context, endpoint: str, reason: str) -> None:
    """Stop automation on ENDPOINT; what humans ask for is done as ever."""
    from kedge.core.commands import AnyCommand, Freeze

    def make(_: Workplace) -> AnyCommand:
        return Freeze()

    submit(context, endpoint, make, reason)


@click.command()
@click.argument("endpoint")
@click.option("--reason", default="", help="Why, for the ledger.")
@verb
def thaw(context: Context, endpoint: str, reason: str) -> None:
    """Let automation act on ENDPOINT again."""
    from kedge.core.commands import AnyCommand, Thaw

    def make(_: Workplace) -> AnyCommand:
        return Thaw()

    submit(context, endpoint, make, reason)
