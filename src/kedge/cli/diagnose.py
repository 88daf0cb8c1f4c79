"""The commands `kedge diagnose` and `kedge accept`."""

from __future__ import annotations

import os
import signal

import click

from kedge.cli.context import Context, prints, verb
from kedge.cli.endpoint import endpoint
from kedge.cli.screen.diagnosis import diagnosis_screen
from kedge.cli.text.diagnosis import accepted_text, diagnosis_text
from kedge.operations.diagnosis.document import AcceptedReference, DiagnosisReport
from kedge.operations.diagnosis.run import DiagnoseOptions, diagnosis_of
from kedge.operations.diagnosis.run import accept as accepted
from kedge.system.terminal import one_line


@click.command()
@endpoint()
@click.option(
    "--since",
    default="24h",
    show_default=True,
    help="Where today's window begins: a duration back, or a time.",
)
@click.option("--until", help="Where it ends; default: now.")
@click.option("--reference-since", help="Where the window begins that today is compared with.")
@click.option("--reference-until", help="Where that one ends; default: where today's begins.")
@click.option("--segment", metavar="FIELD=VALUE", help="Only the requests of this segment.")
@click.option(
    "--production", is_flag=True, help="Ask about production, also while a candidate is under way."
)
@click.option("--within", type=float, hidden=True, help="As control starts it: niced and bounded.")
@verb
@prints(DiagnosisReport)
def diagnose(
    context: Context,
    endpoint: str,
    since: str,
    until: str | None,
    reference_since: str | None,
    reference_until: str | None,
    segment: str | None,
    within: float | None,
    *,
    production: bool,
) -> None:
    """Report why ENDPOINT became worse, and what would help."""
    # It asks models again thousands of times, and callers of this host go first.
    if context.remote is None:
        os.nice(10 if within is None else 19)
    if within is not None:
        signal.setitimer(signal.ITIMER_REAL, within)  # ends this process even if control is gone
    options = DiagnoseOptions(
        since, until, reference_since, reference_until, segment, production=production
    )
    say = context.say if not context.as_json else lambda text: None
    found = context.result(lambda: diagnosis_of(context.place(), endpoint, options, say=say))
    if found.not_filed:
        context.say(f"warning: it is not recorded: {one_line(found.not_filed)}")
    context.out(found, diagnosis_text(one_line(found)), diagnosis_screen(found))


@click.command()
@endpoint()
@click.option("--reason", required=True, help="Why the present state is accepted, for the ledger.")
@click.option(
    "--since",
    default="24h",
    show_default=True,
    help="Where the new reference begins: a duration back, or a time.",
)
@click.option("--until", help="Where it ends; default: now.")
@verb
@prints(AcceptedReference)
def accept(context: Context, endpoint: str, reason: str, since: str, until: str | None) -> None:
    """Make a window the reference of every later diagnosis."""
    found = context.result(
        lambda: accepted(context.place(), endpoint, reason=reason, since=since, until=until)
    )
    context.out(found, accepted_text(one_line(found)))
