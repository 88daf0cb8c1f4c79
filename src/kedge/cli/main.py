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
from kedge.cli.serve import control, gateway, gateway_worker, restart, up
from kedge.console import REFUSED, Context, end_in_order, override, repeat, submit, verb
from kedge.explaining import accept, diagnose
from kedge.paging import ack, alerts, runbook
from kedge.practising import drill, speed
from kedge.quantities import SAMPLE, WEIGHT, Count, Port
from kedge.terminal import clear, one_line
from kedge.transforming import features
from kedge.watching import evidence, freeze, log, outcomes, plan, replay, thaw

if TYPE_CHECKING:
    from kedge.core.commands import AnyCommand
    from kedge.wiring import Workplace


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--config", "-c", type=click.Path(path_type=Path), default=Path("kedge.toml"),
              envvar="KEDGE_CONFIG", show_default=True, help="The configuration file.")  # fmt: skip
@click.option("--acting-as", type=click.Choice(["person", "control"]), default="person", hidden=True,
              help="Which component runs the command; control names itself.")  # fmt: skip
@click.version_option(package_name="kedge")
@click.pass_context
def main(context: click.Context, config: Path, acting_as: str) -> None:
    """Ship model versions safely, and take them back in seconds."""
    from kedge.files import set_umask

    set_umask()
    context.obj = Context(config.absolute(), acting_as)


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
@click.argument("endpoint")
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
    """Register the model in PATH as a version of ENDPOINT's model."""
    end_in_order()
    from kedge.core.formats import fetching
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
         "contract": contract},
        f"{endpoint} {version.label}" + ("" if new else " (registered before: the same bytes)") +
        f"\n  flavour   {version.flavour}\n  takes     {fields}\n  gives     {outputs}\n"
        f"  size      {version.size:,} bytes\n  digest    {version.digest}\n"
        f"  loads in  {version.load_s:.2f} s, answers its golden rows ({version.golden})" +
        f"\n  rows      {MARKS[proof.rows]}, on {proof.tested} rows" + (f": {one_line(proof.why)}" if proof.why else "") +
        f"\n  runs      {placing(one_line(proof))}" +
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
@click.argument("endpoint")
@verb
def versions(context: Context, endpoint: str) -> None:
    """List the registered versions of ENDPOINT's model."""
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
@click.argument("endpoint")
@click.argument("version", required=False)
@click.option("--full", is_flag=True, help="Skip the remaining canary steps.")
@override
@verb
def promote(
    context: Context, endpoint: str, version: str | None, full: bool, override: str | None
) -> None:
    """Advance the rollout a step, or into production; the first release goes there directly."""
    from kedge.core.commands import Promote
    from kedge.verbs import release_of

    def make(place: Workplace) -> AnyCommand:
        number = release_of(place, endpoint, version).number if version else None
        return Promote(release=number, full=full, override=override)

    submit(context, endpoint, make, override or "")


@main.command()
@click.argument("endpoint")
@click.argument("version")
@click.option("--sample", type=SAMPLE, help="Per cent of the units; default: the policy's.")
@override
@verb
def shadow(
    context: Context, endpoint: str, version: str, sample: float | None, override: str | None
) -> None:
    """Silently give VERSION the inputs that production gets."""
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
@click.argument("endpoint")
@click.argument("version")
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
    """Let VERSION answer a share of the callers."""
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
@click.argument("endpoint")
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
@click.argument("endpoint")
@_why
@verb
def pause(context: Context, endpoint: str, reason: str) -> None:
    """Hold the rollout where it is."""
    from kedge.core.commands import Pause

    submit(context, endpoint, lambda _: Pause(), reason)


@main.command()
@click.argument("endpoint")
@_why
@override
@verb
def resume(context: Context, endpoint: str, reason: str, override: str | None) -> None:
    """Let a held rollout go on."""
    from kedge.core.commands import Resume

    submit(context, endpoint, lambda _: Resume(override=override), reason or override or "")


@main.command()
@click.argument("endpoint")
@_why
@verb
def abort(context: Context, endpoint: str, reason: str) -> None:
    """End a candidate without condemning it."""
    from kedge.core.commands import Abort

    submit(context, endpoint, lambda _: Abort(), reason)


@main.command()
@click.argument("endpoint")
@click.option("--production", is_flag=True, help="Take production back, also within a canary.")
@click.option(
    "--to", metavar="RELEASE", help="A release that was production before, also a condemned one."
)
@click.option("--axis", type=click.Choice(["model", "features"]), help="Take only one half back.")
@click.option("--local", is_flag=True, help="Break glass: pin this host while the ledger is gone.")
@click.option("--accept-stale", metavar="DURATION",
              help="Go back although the values that it reads by key are as old as this.")  # fmt: skip
@click.option("--reason", default="", help="Why, for the ledger.")
@verb
def rollback(
    context: Context,
    endpoint: str,
    production: bool,
    to: str | None,
    axis: str | None,
    local: bool,
    accept_stale: str | None,
    reason: str,
) -> None:
    """Undo the newest change that callers were served. Needs no argument."""
    from kedge.core.commands import Rollback

    if to is not None and (axis is not None or production):
        raise click.UsageError("--to names the release; --axis and --production look for one")
    target = _number(to) if to is not None else None
    command = Rollback(production=production, to=target, axis=axis)  # type: ignore[arg-type]
    if local:
        from kedge.verbs import pin_host

        context.check_here()

        data = pin_host(context.state_dir, endpoint, command, reason=reason)
        acks = "".join(f"\n  ack {name} {ms:.1f} ms" for name, ms in data["acks"].items())
        context.out(data, f"this host is pinned to {data['serves']} (it left epoch {data['left_epoch']}){acks}\n"
                    "the command is handed in when the ledger is back; kedge unpin ends the pin")  # fmt: skip
        return

    def make(place: Workplace) -> Rollback:
        from kedge.verbs import landing_reads

        runs = landing_reads(place, endpoint, command)
        if runs:
            from kedge.materialising import refuse_stale

            refuse_stale(place, lambda: context.online, runs, accept_stale)
        return command

    submit(context, endpoint, make, reason, finding=True)


def _number(text: str) -> int:
    from kedge.core.errors import Refused

    if not text.removeprefix("r").isdigit():
        raise Refused(
            f"{text!r} is not a release", code="unknown_release", hint="releases are written r7"
        )
    return int(text.removeprefix("r"))


@main.command()
@click.argument("endpoint")
@verb
def unpin(context: Context, endpoint: str) -> None:
    """End a pin on this host; it follows the ledger again."""
    from kedge.core.errors import Refused
    from kedge.engine.pins import HostDisk

    context.check_here()
    if not HostDisk(context.state_dir).unpin(endpoint):
        raise Refused(
            f"{endpoint} is not pinned on this host", code="not_pinned", hint="kedge status"
        )
    context.out({"endpoint": endpoint, "pinned": False}, f"{endpoint} follows the ledger again")


# ---------------------------------------------------------------- looking


@main.command()
@click.argument("endpoint", required=False)
@click.option("--watch", is_flag=True, help="Show it again each second until Ctrl-C.")
@verb
def status(context: Context, endpoint: str | None, watch: bool) -> None:
    """Show what is live, what is ready to take over, and what is wrong."""
    from kedge.operations.status import status_of
    from kedge.report import status_text

    place = context.place()

    def show() -> None:
        found = status_of(place, endpoint)
        if watch and not context.as_json:
            clear()
        data = found[0] if endpoint is not None else found
        text = "\n\n".join(status_text(one_line(item)) for item in found)
        context.out(data, text or "no endpoint yet: kedge apply")

    repeat(show, again=watch)


@main.command()
@click.argument("endpoint")
@click.option(
    "--limit",
    type=Count("entries"),
    default=20,
    show_default=True,
    help="How many entries, newest first.",
)
@verb
def history(context: Context, endpoint: str, limit: int) -> None:
    """Show what changed, by whom, why, and how long it took to take effect."""
    from kedge.report import history_text

    entries = context.place().ledger.history(endpoint, limit)
    context.out(entries, history_text(entries) or f"nothing is known of {endpoint}")


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
    """Check the ledger's chain and its heads, every artifact's bytes, the replicas and this machine."""
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
        context.say("hint: docs/howto/repair.md says what to do about each finding")
        sys.exit(REFUSED)


for _verb in (accept, ack, alerts, backup, check, config, control, diagnose, drill, evidence, gateway, gateway_worker, outcomes, plan,
              replay, restart, restore, runbook, log, freeze, speed, thaw, features, up):  # fmt: skip
    main.add_command(_verb)
