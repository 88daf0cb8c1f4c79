"""The `kedge` command. Verbs parse, call and print; data to stdout, talk to stderr.

Exit codes: 0 done, 1 refused, 2 usage or configuration, 3 written but not acknowledged,
4 something that is needed cannot be reached. A failure ends with a `hint:`.

Imports of the house stand inside the verbs: `kedge --help` must not pay for SQLAlchemy.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kedge.checking import check
from kedge.cli.backup import backup, restore
from kedge.cli.config import config
from kedge.cli.demo import demo
from kedge.cli.help import add_examples, completion, show_help
from kedge.cli.rollback import rollback, unpin
from kedge.cli.root import Root
from kedge.cli.serve import control, gateway, gateway_worker, restart, up
from kedge.cli.status import history, list_endpoints, status
from kedge.console import (
    REFUSED,
    Context,
    complete_version,
    end_in_order,
    endpoint,
    override,
    submit,
    verb,
)
from kedge.explaining import accept, diagnose
from kedge.paging import ack, alerts, runbook
from kedge.practising import drill, speed
from kedge.quantities import SAMPLE, WEIGHT, Port
from kedge.terminal import one_line
from kedge.transforming import features
from kedge.watching import evidence, freeze, log, outcomes, plan, replay, thaw

if TYPE_CHECKING:
    from kedge.core.commands import AnyCommand
    from kedge.wiring import Workplace


@click.group(
    cls=Root, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.option(
    "--config",
    "-c",
    type=click.Path(path_type=Path),
    envvar="KEDGE_CONFIG",
    help="The configuration file; default: the nearest kedge.toml, here or above.",
)
@click.option("--acting-as", type=click.Choice(["person", "control"]), default="person", hidden=True,
              help="Which component runs the command; control names itself.")  # fmt: skip
@click.version_option(package_name="kedge")
@click.pass_context
def main(context: click.Context, config: Path | None, acting_as: str) -> None:
    """Ship model versions safely, and take them back in seconds.

    kedge COMMAND --help has examples; kedge help lists the documentation.
    """
    from kedge.files import set_umask

    set_umask()
    context.obj = Context(config, acting_as)


# ---------------------------------------------------------------- setting up


@main.command()
@click.argument("endpoint")
@click.option(
    "--port", type=Port(), default=8080, show_default=True, help="Where callers will ask."
)
@verb
def init(context: Context, endpoint: str, port: int) -> None:
    """Write kedge.toml for ENDPOINT, or add it to the one here."""
    from kedge.cli.config import schema_text
    from kedge.operations.endpoints import add_endpoint, begin_endpoint, write_schema
    from kedge.report import audience_text

    if context.config.exists():
        made = add_endpoint(context.config, context.settings, context.state_dir, endpoint)
        del context.settings  # it has changed
    else:
        made = begin_endpoint(context.config, context.state_dir, endpoint, port)
        context.__dict__.pop("settings", None)
    write_schema(context.state_dir, schema_text())
    policy = context.settings.endpoints[endpoint]
    context.out(
        {
            "config": str(context.config),
            "state_dir": str(context.state_dir),
            "created": made,
            "audience": policy.audience,
            "shadow": policy.shadow,
        },
        f"{context.config.name} describes {endpoint}; the ledger is in {context.state_dir.name}/\n"
        f"{audience_text(policy)}\n"
        f"next: kedge up, then kedge register {endpoint} PATH and kedge promote {endpoint} v1",
    )


@main.command()
@verb
def apply(context: Context) -> None:
    """Check kedge.toml and bring its policies into force."""
    from kedge.verbs import apply_policies

    changed = apply_policies(context.place(), context.settings)
    text = "\n".join(f"{name}: {'; '.join(diff)}" for name, diff in one_line(changed).items())
    context.out({"changed": changed}, text or "nothing changed")


# ---------------------------------------------------------------- versions


@main.command()
@endpoint(required=True, needs_row=False)
@click.argument("path")
@click.option(
    "--golden", type=click.Path(exists=True, path_type=Path), help="Rows it must answer, as JSON."
)
@click.option("--training", type=click.Path(exists=True, path_type=Path),
              help="The training set (CSV, JSON lines or Parquet), for its column statistics.")  # fmt: skip
@click.option("--training-set", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="As --training, one that kedge made: it says the schema, and what it was made of.")  # fmt: skip
@click.option(
    "--learn-bounds",
    is_flag=True,
    help="Take ranges and categories of the training set as bounds of what callers may send.",
)
@click.option("--trust", multiple=True, help="A Python type that this version may load.")
@click.option(
    "--trust-inline",
    metavar="REASON",
    default="",
    help="Let it run inside the gateway's workers although it is not proven plain, where no transformation runs before it.",
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
    from kedge.core.formats import fetching
    from kedge.engine.libraries import find_differences
    from kedge.engine.registration import find_source
    from kedge.enrol import (
        label_reading,
        label_reading_text,
        learned_contract,
        register_version,
    )

    if not Path(path).exists() and fetching(path) is None:
        raise click.BadParameter(f"{path} does not exist.", param_hint="PATH")
    source = find_source(path)
    if learn_bounds and training is None and training_set is None:
        raise click.UsageError("--learn-bounds needs --training or --training-set.")
    trained_on = None
    if training_set is not None:
        from kedge.datasets import read_training_set

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
    labels = label_reading(place, endpoint, version)
    from kedge.operations.example import example_call
    from kedge.report import MARKS, placing

    proof = place.artifacts.proof(version.digest)
    libraries = find_differences(place.artifacts, version.digest)
    fields, outputs = (
        one_line(", ".join(f"{f.name}:{f.dtype}{list(f.shape) or ''}" for f in part))
        for part in (version.signature.inputs, version.signature.outputs)
    )
    # With a transformation callers send other columns than the model takes.
    example = "" if version.schema else example_call(
        _gateway_url(context), endpoint, version.signature.inputs, proof.inputs
    )  # fmt: skip
    context.out(
        {"endpoint": endpoint, "version": version.label, "new": new, "flavour": version.flavour,
         "digest": version.digest, "size": version.size, "load_s": version.load_s,
         "golden": version.golden, "signature": version.signature, "schema": version.schema,
         "trained_on": version.trained_on, "rows": proof.rows, "rows_tested": proof.tested,
         "rows_why": proof.why, "plain": proof.plain, "inline": proof.inline, "labels": labels, "example": example,
         "contract": contract, "libraries": libraries},
        f"{endpoint} {version.label}" + ("" if new else " (registered before: the same bytes)") +
        f"\n  flavour   {version.flavour}\n  takes     {fields}\n  gives     {outputs}\n"
        f"  size      {version.size:,} bytes\n  digest    {version.digest}\n"
        f"  loads in  {version.load_s:.2f} s, answers its golden rows ({version.golden})" +
        f"\n  rows      {MARKS[proof.rows]}, on {proof.tested} rows" + (f": {one_line(proof.why)}" if proof.why else "") +
        f"\n  runs      {placing(one_line(proof))}" +
        (f"\n  libraries {one_line('; '.join(libraries))}" if libraries else "") +
        (f"\n  trained   on {one_line(version.trained_on.label)}" if version.trained_on else "") +
        f"\n{label_reading_text(one_line(labels))}" +
        (f"\n  ask       {one_line(example)}" if example else "") +
        ("\n  bounds    are in force from its promotion on where there is no contract yet; else write into kedge.toml:"
         if contract else "") + "".join(f"\n            {line}" for line in one_line(contract)),
    )  # fmt: skip


def _gateway_url(context: Context) -> str:
    """Return where the gateway listens by kedge.toml; by default where that cannot be read."""
    from kedge.core.errors import BadConfig
    from kedge.runtime.announcement import get_url
    from kedge.settings import Server

    try:
        server = context.settings.server
    except BadConfig:
        server = Server()
    return get_url(server.host, server.port)


@main.command()
@endpoint(needs_row=False)
@verb
def versions(context: Context, endpoint: str) -> None:
    """List the registered versions of ENDPOINT."""
    from kedge.independence import mark_of
    from kedge.report import MARKS

    place = context.place()
    state = _state(place, endpoint)
    rows: list[dict[str, Any]] = []
    for version in place.registry.versions(endpoint):
        mine = [r for r in state.releases.values() if r.version == version.number] if state else []
        rows.append({
            "version": version.label, "flavour": version.flavour, "size": version.size,
            "digest": version.digest, "registered_at": version.registered_at,
            "schema": version.schema, "trained_on": version.trained_on,
            "rows": mark_of(place.artifacts, version.digest),
            "releases": [r.label for r in mine],
            "roles": [_role(state, r.number) for r in mine if state and _role(state, r.number)],
        })  # fmt: skip
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


# ---------------------------------------------------------------- commands


def _state(place: Workplace, endpoint: str) -> Any:
    return place.ledger.read().states.get(endpoint)


@main.command()
@endpoint(required=True, needs_row=False)
@click.argument("version", required=False, shell_complete=complete_version)
@click.option("--full", is_flag=True, help="Skip the remaining canary steps.")
@override
@verb
def promote(
    context: Context, endpoint: str, version: str | None, full: bool, override: str | None
) -> None:
    """Move a rollout to its next step, or into production."""
    from kedge.core.commands import Promote
    from kedge.verbs import release_of

    def make(place: Workplace) -> AnyCommand:
        number = release_of(place, endpoint, version).number if version else None
        return Promote(release=number, full=full, override=override)

    submit(context, endpoint, make, override or "")


@main.command()
@endpoint(required=True, needs_row=False)
@click.argument("version", shell_complete=complete_version)
@click.option("--sample", type=SAMPLE, help="Per cent of the units; default: the policy's.")
@override
@verb
def shadow(
    context: Context, endpoint: str, version: str, sample: float | None, override: str | None
) -> None:
    """Send VERSION a silent copy of production's requests."""
    from kedge.core.commands import Shadow
    from kedge.core.guards import buckets
    from kedge.verbs import release_of

    def make(place: Workplace) -> AnyCommand:
        release = release_of(place, endpoint, version)
        state = _state(place, endpoint)
        share = sample if sample is not None else state.policy.shadow.sample if state else 100.0
        return Shadow(release=release.number, sample=buckets(share), override=override)

    submit(context, endpoint, make, override or "")


@main.command()
@endpoint(required=True, needs_row=False)
@click.argument("version", shell_complete=complete_version)
@click.option(
    "--weight", type=WEIGHT, help="Per cent of the callers; default: the policy's first step."
)
@click.option("--auto", is_flag=True, help="The patrol walks the steps, each by proof.")
@override
@verb
def canary(
    context: Context,
    endpoint: str,
    version: str,
    weight: float | None,
    auto: bool,
    override: str | None,
) -> None:
    """Send a percentage of traffic to VERSION."""
    from kedge.core.commands import Canary
    from kedge.core.guards import buckets
    from kedge.verbs import release_of

    def make(place: Workplace) -> AnyCommand:
        release = release_of(place, endpoint, version)
        state = _state(place, endpoint)
        share = weight if weight is not None else state.policy.canary.steps[0] if state else 1.0
        return Canary(release=release.number, weight=buckets(share), override=override, auto=auto)

    submit(context, endpoint, make, override or "")


@main.command("set-weight")
@endpoint(required=True)
@click.argument("weight", type=WEIGHT)
@override
@verb
def set_weight(context: Context, endpoint: str, weight: float, override: str | None) -> None:
    """Change the candidate's share to WEIGHT per cent."""
    from kedge.core.commands import SetWeight
    from kedge.core.guards import buckets

    submit(context, endpoint, lambda _: SetWeight(weight=buckets(weight), override=override),
           override or "")  # fmt: skip


_why = click.option("--reason", default="", help="Why, for the ledger.")


@main.command()
@endpoint()
@_why
@verb
def pause(context: Context, endpoint: str, reason: str) -> None:
    """Hold the rollout where it is."""
    from kedge.core.commands import Pause

    submit(context, endpoint, lambda _: Pause(), reason)


@main.command()
@endpoint()
@_why
@override
@verb
def resume(context: Context, endpoint: str, reason: str, override: str | None) -> None:
    """Let a held rollout go on."""
    from kedge.core.commands import Resume

    submit(context, endpoint, lambda _: Resume(override=override), reason or override or "")


@main.command()
@endpoint()
@_why
@verb
def abort(context: Context, endpoint: str, reason: str) -> None:
    """End a rollout; the candidate stays eligible."""
    from kedge.core.commands import Abort

    submit(context, endpoint, lambda _: Abort(), reason)


# ---------------------------------------------------------------- looking


@main.command()
@click.option(
    "--forget", metavar="REPLICA", help="Take a replica that is gone for good off the roster."
)
@click.option("--head", "heads", multiple=True, metavar="NUMBER:HASH",
              help="A head of the ledger's chain, from an alert: is it still in the history?")  # fmt: skip
@click.option("--accept-ledger", metavar="REASON",
              help="Follow a ledger whose history lacks heads, such as a restored copy, from now on.")  # fmt: skip
@verb
def doctor(
    context: Context, forget: str | None, heads: tuple[str, ...], accept_ledger: str | None
) -> None:
    """Check the ledger, artifacts, replicas and this machine."""
    from kedge.core.stored.head import read_head
    from kedge.doctor import examine
    from kedge.verbs import forget_replica

    if forget is not None:
        forget_replica(context.place(), forget)
    known = [read_head(text) for text in heads]
    findings = examine(context.state_dir, context.config, known, accept_ledger)
    bad = [finding for finding in findings if not finding["ok"]]
    lines = [
        f"{'ok  ' if f['ok'] else 'BAD '} {f['check']}: {f['detail']}" for f in one_line(findings)
    ]
    context.out({"ok": not bad, "findings": findings}, "\n".join(lines))
    if bad:
        context.say("hint: kedge help repair says what to do about each finding")
        sys.exit(REFUSED)


for _command in (
    accept, ack, alerts, backup, check, completion, config, control, demo, diagnose, drill, evidence, features, freeze, gateway,
    gateway_worker, history, list_endpoints, log, outcomes, plan, replay, restart, restore, rollback, runbook, show_help,
    speed, status, thaw, unpin, up,
):  # fmt: skip
    main.add_command(_command)
add_examples(main)
