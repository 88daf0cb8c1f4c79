"""Commands on versions of models: register and versions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from kedge.cli.context import Context, end_in_order, verb
from kedge.cli.endpoint import endpoint
from kedge.cli.text.report import MARKS, placing
from kedge.core.formats import fetching
from kedge.core.values import ModelVersion, Proof
from kedge.engine.libraries import find_differences
from kedge.engine.registration import find_source
from kedge.inspection.independence import mark_of
from kedge.operations.example import example_call
from kedge.operations.features.training_set import read_training_set
from kedge.operations.registration import (
    label_reading,
    label_reading_text,
    learned_contract,
    register_version,
    unsaid_lines,
)
from kedge.system.terminal import one_line
from kedge.workspace import Workplace


@click.command()
@endpoint(required=True, needs_row=False)
@click.argument("path")
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
    help="As --training, one that kedge made: it says the schema, and what it was made of.",
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
        "Let it run inside the gateway's workers although it is not proven plain, where no"
        " transformation runs before it."
    ),
)
@click.option("--schema", metavar="VIEW/N", help="The feature schema that it was trained on.")
@verb
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
    schema: str | None,
) -> None:
    """Register the model in PATH as a version of ENDPOINT."""
    end_in_order()
    if not Path(path).exists() and fetching(path) is None:
        raise click.BadParameter(f"{path} does not exist.", param_hint="PATH")
    source = find_source(path)
    if learn_bounds and training is None and training_set is None:
        raise click.UsageError("--learn-bounds needs --training or --training-set.")
    trained_on = None
    if training_set is not None:
        trained_on = read_training_set(training_set)
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
        learns=learn_bounds,
    )
    contract = learned_contract(place, endpoint, version, source) if learn_bounds else []
    proof = place.artifacts.proof(version.digest)
    data = _registered(context, place, endpoint, version, proof)
    data |= {"new": new, "contract": contract}
    context.out(data, _registered_text(one_line(data), one_line(proof)))


def _registered(
    context: Context, place: Workplace, endpoint: str, version: ModelVersion, proof: Proof
) -> dict[str, Any]:
    """Return what is known of a version that was registered, for --json."""
    # With a transformation callers send other columns than the model takes.
    example = (
        ""
        if version.schema
        else example_call(context.gateway_url, endpoint, version.signature.inputs, proof.inputs)
    )
    return {
        "endpoint": endpoint,
        "version": version.label,
        "flavour": version.flavour,
        "digest": version.digest,
        "size": version.size,
        "load_s": version.load_s,
        "golden": version.golden,
        "signature": version.signature,
        "schema": version.schema,
        "trained_on": version.trained_on,
        "rows": proof.rows,
        "rows_tested": proof.tested,
        "rows_why": proof.why,
        "plain": proof.plain,
        "inline": proof.inline,
        "labels": label_reading(place, endpoint, version),
        "example": example,
        "libraries": find_differences(place.artifacts, version.digest),
        "assumed": proof.assumed,
        "tolerant": proof.tolerant,
    }


def _registered_text(found: dict[str, Any], proof: Proof) -> str:
    """Return a version that was registered, for people."""
    takes, gives = (
        ", ".join(
            f"{f.name}:{f.dtype}{list(f.shape) or ''}{' or null' if f.nullable else ''}"
            for f in part
        )
        for part in (found["signature"].inputs, found["signature"].outputs)
    )
    again = "" if found["new"] else " (registered before: the same bytes)"
    why = f": {proof.why}" if proof.why else ""
    lines = [
        f"{found['endpoint']} {found['version']}{again}",
        f"  flavour   {found['flavour']}",
        f"  takes     {takes}",
        f"  gives     {gives}",
        f"  size      {found['size']:,} bytes",
        f"  digest    {found['digest']}",
        f"  loads in  {found['load_s']:.2f} s, answers its golden rows ({found['golden']})",
        f"  rows      {MARKS[proof.rows]}, on {proof.tested} rows{why}",
        f"  runs      {placing(proof)}",
    ]
    if found["libraries"]:
        lines.append(f"  libraries {'; '.join(found['libraries'])}")
    if found["trained_on"]:
        lines.append(f"  trained   on {found['trained_on'].label}")
    lines += unsaid_lines(proof)
    lines.append(label_reading_text(found["labels"]))
    if found["example"]:
        lines.append(f"  ask       {found['example']}")
    if found["contract"]:
        lines.append(
            "  bounds    are in force from its promotion on where there is no contract yet; else"
            " write into kedge.toml:"
        )
        lines += [f"            {line}" for line in found["contract"]]
    return "\n".join(lines)


@click.command()
@endpoint(needs_row=False)
@verb
def versions(context: Context, endpoint: str) -> None:
    """List the registered versions of ENDPOINT."""
    place = context.place()
    state = place.ledger.read().states.get(endpoint)
    rows: list[dict[str, Any]] = []
    for version in place.registry.versions(endpoint):
        mine = [r for r in state.releases.values() if r.version == version.number] if state else []
        rows.append(
            {
                "version": version.label,
                "flavour": version.flavour,
                "size": version.size,
                "digest": version.digest,
                "registered_at": version.registered_at,
                "schema": version.schema,
                "trained_on": version.trained_on,
                "rows": mark_of(place.artifacts, version.digest),
                "releases": [r.label for r in mine],
                "roles": [_role(state, r.number) for r in mine if state and _role(state, r.number)],
            }
        )
    text = "\n".join(
        f"{r['version']:>5}  {r['flavour']:8} {r['size']:>12,} B  {str(r['digest'])[:19]}…  "
        f"{', '.join(r['releases']) or '-':8} {', '.join(r['roles'])}".rstrip()
        + (f"\n       rows {MARKS[r['rows']]}" if r["rows"] != "independent" else "")
        + (
            f"\n       trained on {r['trained_on'].label}: {r['trained_on'].rows:,} rows"
            if r["trained_on"]
            else ""
        )
        for r in one_line(rows)
    )
    context.out(rows, text or f"no version of {endpoint} is registered")


def _role(state: Any, number: int) -> str:
    roles = {"production": state.production, "candidate": state.candidate, "back": state.back}
    found = [name for name, held in roles.items() if held == number]
    return ", ".join(found + (["condemned"] if number in state.condemned else []))
