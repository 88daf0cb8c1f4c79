"""Commands on versions of models: register and versions."""

from __future__ import annotations

from pathlib import Path

import click
from click.shell_completion import CompletionItem

from kedge.cli.blocks import Paragraph
from kedge.cli.context import Context, end_in_order, prints, verb
from kedge.cli.endpoint import endpoint
from kedge.cli.screen.models import versions_screen
from kedge.cli.text.models import registered_text, versions_text
from kedge.cli.uploads import NamedFiles
from kedge.core.formats import fetching
from kedge.engine.registration import find_source
from kedge.operations.features.training_set import read_training_set
from kedge.operations.registration import (
    ListedVersion,
    RegisteredVersion,
    describe_version,
    find_companions,
    learned_contract,
    list_versions,
    register_version,
)
from kedge.system.terminal import one_line


def _files(*_: object) -> list[CompletionItem[str]]:
    """Let the shell complete files and directories."""
    return [CompletionItem("", type="file")]


@click.command()
@endpoint(required=True, needs_row=False)
@click.argument("path", shell_complete=_files)
@click.option(
    "--golden", type=click.Path(exists=True, path_type=Path), help="Rows it must answer, as JSON."
)
@click.option(
    "--training",
    type=click.Path(exists=True, path_type=Path),
    help="The training set (CSV, JSON lines or Parquet), for its column statistics.",
)
@click.option(
    "--training-set",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A training set that kedge made; it states its schema and sources.",
)
@click.option(
    "--learn-bounds",
    is_flag=True,
    help=(
        "Take ranges, lengths and categories of the training set as bounds of what callers may"
        " send."
    ),
)
@click.option("--trust", multiple=True, help="A Python type that this version may load.")
@click.option(
    "--trust-inline",
    metavar="REASON",
    default="",
    help=(
        "Run it inside the gateway's workers although it is not proven plain, where no"
        " transformation runs before it."
    ),
)
@click.option(
    "--allow-code",
    metavar="REASON",
    default="",
    help=(
        "Let it run code when it is loaded, as a pickle does: in a fenced process of its own, and"
        " only if you trust who wrote it."
    ),
)
@click.option("--schema", metavar="VIEW/N", help="The feature schema that it was trained on.")
@verb
@prints(RegisteredVersion)
def register(
    context: Context,
    endpoint: str,
    path: str,
    golden: Path | None,
    training: Path | None,
    training_set: Path | None,
    learn_bounds: bool,
    trust: tuple[str, ...],
    trust_inline: str,
    allow_code: str,
    schema: str | None,
) -> None:
    """Register the model in PATH as a version of ENDPOINT."""
    end_in_order()
    if not Path(path).exists() and fetching(path) is None:
        raise click.BadParameter(f"{path} does not exist.", param_hint="PATH")
    source = find_source(path)
    if learn_bounds and training is None and training_set is None:
        raise click.UsageError("--learn-bounds needs --training or --training-set.")

    def work() -> RegisteredVersion:
        trained_on = None if training_set is None else read_training_set(training_set)
        place = context.place()
        version, new = register_version(
            place,
            endpoint,
            source,
            golden=golden,
            training=training or training_set,
            trusted=trust,
            schema=schema,
            trained_on=trained_on,
            inline=trust_inline,
            allow_code=allow_code,
            learns=learn_bounds,
            say=context.say if not context.as_json else lambda _: None,
        )
        contract = learned_contract(place, endpoint, version, source) if learn_bounds else []
        return describe_version(
            place, endpoint, version, gateway_url=context.gateway_url, new=new, contract=contract
        )

    def files() -> dict[str, NamedFiles]:
        model = NamedFiles(source, is_model=True, beside=find_companions(source))
        named = {"golden": golden, "training": training, "training_set": training_set}
        return {"path": model, **{k: NamedFiles(v) for k, v in named.items() if v is not None}}

    found = context.result(work, files)
    context.out(found, registered_text(one_line(found)))


@click.command()
@endpoint(needs_row=False)
@verb
@prints(list[ListedVersion])
def versions(context: Context, endpoint: str) -> None:
    """List the registered versions of ENDPOINT."""
    found = context.result(lambda: list_versions(context.place(), endpoint))
    none = f"no version of {endpoint} is registered"
    screen = versions_screen(found) if found else [Paragraph(none)]
    context.out(found, versions_text(one_line(found)) or none, screen)
