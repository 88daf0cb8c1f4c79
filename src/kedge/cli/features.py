"""The commands `kedge features`: transformations, values computed ahead, and training sets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
import msgspec

from kedge.cli.completion import complete
from kedge.cli.context import Context, override, prints, verb
from kedge.cli.endpoint import endpoint
from kedge.cli.quantities import NUMBER
from kedge.cli.rollout import auto_option, sample_option, weight_option
from kedge.cli.screen.features import runs_screen, transformations_screen
from kedge.cli.submit import submit
from kedge.cli.text.features import (
    applied_text,
    comparison_text,
    fed_text,
    head_text,
    runs_text,
    training_set_text,
    transformations_text,
    users_text,
)
from kedge.cli.uploads import NamedFiles, NamedResult
from kedge.core.time.instants import read_when
from kedge.operations.commands import hold
from kedge.operations.feature_rollouts import (
    canary_features,
    follow,
    roll_features,
    shadow_features,
)
from kedge.operations.features.apply import (
    AppliedFeatures,
    ListedTransformation,
    SchemaUser,
    apply_file,
    list_transformations,
    note_applied,
    on_schema,
    read_sources,
    version_of,
)
from kedge.operations.features.compare import TransformationDiff, comparison_of
from kedge.operations.features.head import HeadMove, move_head
from kedge.operations.features.materialise import FedRun, Feeder, RunStatus, status_of
from kedge.operations.features.training_set import WrittenTrainingSet, make
from kedge.operations.readiness.check import gate_of
from kedge.operations.receipts import CommandReceipt
from kedge.system.terminal import one_line
from kedge.transforms.store import open_store


@click.group()
def features() -> None:
    """Version feature transformations, and roll them out."""


@features.command("apply")
@click.argument("path", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--golden",
    type=click.Path(exists=True, path_type=Path),
    help="Raw rows to test it on, as JSON; default: from the prediction log.",
)
@click.option(
    "--training",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A training set with raw columns; some of its rows are tested.",
)
@verb
@prints(AppliedFeatures)
def features_apply(
    context: Context, path: Path, golden: Path | None, training: Path | None
) -> None:
    """Make versions of the transformations in PATH."""

    def work() -> AppliedFeatures:
        place, root = context.place(), context.config.parent
        applied = apply_file(place, path, golden=golden, root=root, training=training)
        for told in applied.transformations:
            if told.new:
                note_applied(place, told)
        return applied

    def files() -> dict[str, NamedFiles]:
        beside = [path.parent / name for name in read_sources(path) if name != path.name]
        named = {"golden": golden, "training": training}
        more = {key: NamedFiles(file) for key, file in named.items() if file is not None}
        return {"path": NamedFiles(path, beside=beside), **more}

    found = context.result(work, files)
    context.out(found, applied_text(one_line(found)))


@features.command("list")
@click.argument("schema", required=False, shell_complete=complete("schema"))
@verb
@prints(list[ListedTransformation])
def features_list(context: Context, schema: str | None) -> None:
    """List schemas, transformations, and endpoints on them."""
    found = context.result(lambda: list_transformations(context.place(), schema))
    screen = transformations_screen(found) if found else None
    context.out(found, transformations_text(one_line(found)), screen)


@features.command("diff")
@click.argument("old", shell_complete=complete("transformation"))
@click.argument("new", shell_complete=complete("transformation"))
@verb
@prints(TransformationDiff)
def features_diff(context: Context, old: str, new: str) -> None:
    """Compare two transformations on golden and logged rows."""

    def compare() -> TransformationDiff:
        place = context.place()
        sides = version_of(place, old), version_of(place, new)
        return comparison_of(place, *sides).between(old, new)

    found = context.result(compare)
    context.out(found, f"{new}: {comparison_text(one_line(found), old)}")


@features.command("impact")
@click.argument("version", shell_complete=complete("transformation"))
@verb
@prints(list[SchemaUser])
def features_impact(context: Context, version: str) -> None:
    """Name every endpoint that VERSION could reach."""

    def look() -> Sequence[SchemaUser]:
        place = context.place()
        return on_schema(place, version_of(place, version).schema)

    found = context.result(look)
    context.out(found, users_text(one_line(found)))


_generation = click.option(
    "--generation",
    metavar="RUNS",
    help="What it reads by key, such as carrier_delays/1#2@1, or newest; default: as today.",
)


@features.command("shadow")
@endpoint(required=True)
@click.argument("number", type=NUMBER)
@sample_option
@_generation
@override
@verb
@prints(CommandReceipt)
def features_shadow(
    context: Context,
    endpoint: str,
    number: int,
    sample: float | None,
    generation: str | None,
    override: str | None,
) -> None:
    """Shadow production's model with transformation NUMBER."""
    submit(
        context,
        endpoint,
        lambda order: shadow_features(
            order, number, sample=sample, generation=generation, override=override
        ),
    )


@features.command("canary")
@endpoint(required=True)
@click.argument("number", type=NUMBER)
@weight_option
@auto_option
@_generation
@override
@verb
@prints(CommandReceipt)
def features_canary(
    context: Context,
    endpoint: str,
    number: int,
    weight: float | None,
    auto: bool,
    override: str | None,
    generation: str | None,
) -> None:
    """Send a percentage of traffic to transformation NUMBER."""
    submit(
        context,
        endpoint,
        lambda order: canary_features(
            order, number, weight=weight, auto=auto, generation=generation, override=override
        ),
    )


@features.command("roll")
@endpoint(required=True)
@click.argument("number", type=NUMBER)
@_generation
@override
@verb
@prints(CommandReceipt)
def features_roll(
    context: Context, endpoint: str, number: int, generation: str | None, override: str | None
) -> None:
    """Put transformation NUMBER into production."""
    submit(
        context,
        endpoint,
        lambda order: roll_features(
            order, number, generation=generation, override=override, loopback=context.loopback
        ),
    )


@features.command("head")
@click.argument("version", shell_complete=complete("transformation"))
@click.option("--dry-run", "dry", is_flag=True, help="Only show which endpoints would move.")
@override
@verb
@prints(HeadMove)
def features_head(context: Context, version: str, override: str | None, dry: bool) -> None:
    """Make VERSION the head of its schema; followers move."""
    say = context.say if not context.as_json else lambda text: None

    def move() -> HeadMove:
        place = context.place()
        gate = gate_of(place, loopback=context.loopback, say=say)
        return move_head(place, version, override=override, dry=dry, say=say, gate=gate)

    found = context.result(move)
    context.out(found, head_text(one_line(found)))


@features.command("follow")
@endpoint()
@click.option("--reason", default="", help="Why, for the ledger.")
@verb
@prints(CommandReceipt)
def features_follow(context: Context, endpoint: str, reason: str) -> None:
    """Let ENDPOINT follow the head of its feature schema."""
    submit(context, endpoint, follow, reason)


@features.command("hold")
@endpoint()
@click.option("--reason", default="", help="Why, for the ledger.")
@verb
@prints(CommandReceipt)
def features_hold(context: Context, endpoint: str, reason: str) -> None:
    """Keep ENDPOINT on its features, whatever the head is."""
    submit(context, endpoint, hold, reason)


# ---------------------------------------------------------------- computed ahead


@features.command("materialise")
@click.argument("view")
@click.option(
    "--at", help="Up to when: a date, a time, or a duration back such as 2h; default: now."
)
@verb
@prints(list[FedRun])
def features_materialise(context: Context, view: str, at: str | None) -> None:
    """Compute the values of VIEW that are due."""
    found = context.result(lambda: feeder(context).materialise(view, _when(context, at)))
    context.out(found, fed_text(one_line(found)))


@features.command("backfill")
@click.argument("view")
@click.option(
    "--since",
    help=(
        "From when: a date, a time, or a duration back such as 90d; default: the source's first"
        " row."
    ),
)
@click.option(
    "--at", help="Up to when: a date, a time, or a duration back such as 2h; default: now."
)
@verb
@prints(FedRun)
def features_backfill(context: Context, view: str, since: str | None, at: str | None) -> None:
    """Recompute the newest version of VIEW in a new run."""
    found = context.result(
        lambda: feeder(context).backfill(view, _when(context, since), _when(context, at))
    )
    context.out(found, fed_text([one_line(found)]))


@features.command("status")
@click.argument("view", required=False)
@verb
@prints(list[RunStatus])
def features_status(context: Context, view: str | None) -> None:
    """Show how far each run is, its lag, and who reads it."""

    def look() -> list[RunStatus]:
        place = context.place()
        return status_of(place, open_store(place.online), view)

    found = context.result(look)
    screen = runs_screen(found) if found else None
    context.out(found, runs_text(one_line(found)), screen)


def _when(context: Context, text: str | None) -> float | None:
    """Return the time that a command was given, if any.

    Raises:
        Refused: `bad_time`.
    """
    return None if text is None else read_when(text, context.place().clock.unix())


def feeder(context: Context) -> Feeder:
    """Build the feeder of the runs of this state directory."""
    say = context.say if not context.as_json else lambda text: None
    place = context.place()
    return Feeder(place, open_store(place.online), context.config.parent, say)


@features.command("training-set")
@endpoint()
@click.option(
    "--spine",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Parquet or CSV: raw columns, a time, and other columns to keep.",
)
@click.option("--time", required=True, metavar="COLUMN", help="When each row was asked.")
@click.option(
    "--time-format",
    metavar="FORMAT",
    help="How COLUMN is written, as for strptime; default: ISO 8601 where it is text.",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The Parquet file to write.",
)
@click.option("--schema", metavar="VIEW/N", help="Which features; default: production's.")
@click.option(
    "--transformation",
    type=NUMBER,
    metavar="N",
    help="Which code; default: production's, else the newest.",
)
@click.option(
    "--generation",
    metavar="LABEL",
    help="Which values, such as delays/1#2@1; default: production's, else the newest.",
)
@verb
@prints(WrittenTrainingSet)
def features_training_set(
    context: Context,
    endpoint: str,
    spine: Path,
    time: str,
    out: Path,
    schema: str | None,
    transformation: int | None,
    generation: str | None,
    time_format: str | None,
) -> None:
    """Compute ENDPOINT's features of past rows, as of their time."""

    def work() -> WrittenTrainingSet:
        return make(
            context.place(),
            endpoint,
            spine=spine,
            time=time,
            out=out,
            schema=schema,
            transformation=transformation,
            generation=generation,
            form=time_format,
            say=context.say,
        )

    found = context.result(work, lambda: {"spine": NamedFiles(spine)}, NamedResult("out", out))
    found = msgspec.structs.replace(found, out=str(out))
    context.out(found, training_set_text(one_line(found)))
