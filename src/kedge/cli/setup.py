"""Commands that set up: init, apply and doctor."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from click.core import ParameterSource

from kedge.cli.config import schema_text
from kedge.cli.context import Context, prints, verb
from kedge.cli.failure import REFUSED
from kedge.cli.quantities import Port
from kedge.cli.screen.setup import doctor_screen
from kedge.cli.text.setup import applied_text, audience_text, doctor_text
from kedge.core.stored.head import read_head
from kedge.operations.doctor import DoctorReport, examine, forget_replica
from kedge.operations.endpoints import DeclaredEndpoint, add_endpoint, begin_endpoint, write_schema
from kedge.operations.example import first_call
from kedge.operations.setup import AppliedPolicies, apply_policies
from kedge.system.terminal import one_line


@click.command()
@click.argument("endpoint")
@click.option("--port", type=Port(), default=8080, show_default=True, help="Port for callers.")
@verb
@prints(DeclaredEndpoint)
def init(context: Context, endpoint: str, port: int) -> None:
    """Write kedge.toml for ENDPOINT, or add it to the one here."""
    known = context.config.exists() and endpoint in context.settings.endpoints
    if context.config.exists():
        made = add_endpoint(context.config, context.settings, context.state_dir, endpoint)
        del context.settings  # kedge.toml has changed
        kept = context.settings.server.port
        source = click.get_current_context().get_parameter_source("port")
        if port != kept and source is not ParameterSource.DEFAULT:
            context.say(
                f"warning: --port {port} has no effect: the file is there, with port {kept}"
            )
    else:
        made = begin_endpoint(context.config, context.state_dir, endpoint, port)
        context.__dict__.pop("settings", None)
    write_schema(context.state_dir, schema_text())
    policy = context.settings.endpoints[endpoint]
    done = (
        f"{_named(context.config)} describes {endpoint}; the ledger is in"
        f" {_named(context.state_dir)}/"
    )
    following = f"kedge up, then kedge register {endpoint} PATH and kedge promote {endpoint} v1"
    if known and not made:
        done = f"{_named(context.config)} has {endpoint} already; nothing was changed"
        following = f"kedge status {endpoint}"
    call = first_call(context.place(), context.gateway_url, endpoint)
    more = (
        ""
        if " -d " in call
        else "   (what the model takes; kedge register prints a call with a row)"
    )
    context.out(
        DeclaredEndpoint(
            config=str(context.config),
            state_dir=str(context.state_dir),
            created=made,
            audience=policy.audience,
            shadow=policy.shadow,
            example=call,
        ),
        f"{done}\n{audience_text(policy)}\nnext: {following}\nask:  {one_line(call)}{more}",
    )


def _named(path: Path) -> str:
    """Return a path's name, or the whole path if it is not in the working directory."""
    return path.name if path.parent == Path.cwd() else str(path)


@click.command()
@verb
@prints(AppliedPolicies)
def apply(context: Context) -> None:
    """Check kedge.toml and bring its policies into force."""
    done = context.result(lambda: apply_policies(context.place(), context.settings))
    context.out(done, applied_text(one_line(done)) or "nothing changed")


@click.command()
@click.option(
    "--forget", metavar="REPLICA", help="Remove a replica that is permanently gone from the roster."
)
@click.option(
    "--head",
    "heads",
    multiple=True,
    metavar="NUMBER:HASH",
    help="A head of the ledger's chain, from an alert: is it still in the history?",
)
@click.option(
    "--accept-ledger",
    metavar="REASON",
    help="Follow a ledger whose history is missing heads, such as a restored copy, from now on.",
)
@verb
@prints(DoctorReport)
def doctor(
    context: Context, forget: str | None, heads: tuple[str, ...], accept_ledger: str | None
) -> None:
    """Check the ledger, artifacts, replicas and this machine."""
    known = [read_head(text) for text in heads]

    def look() -> DoctorReport:
        if forget is not None:
            forget_replica(context.place(), forget)
        findings = examine(context.state_dir, context.config, known, accept_ledger)
        return DoctorReport(all(finding.ok for finding in findings), tuple(findings))

    report = context.result(look)
    context.out(report, doctor_text(one_line(report)), doctor_screen(report))
    if not report.ok:
        context.say("hint: kedge help repair lists the fix for each finding")
        sys.exit(REFUSED)
