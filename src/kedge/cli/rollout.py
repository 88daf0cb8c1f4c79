"""Commands that advance a rollout: shadow, canary and promote."""

from __future__ import annotations

from collections.abc import Callable

import click

from kedge.cli.completion import complete
from kedge.cli.context import Context, override, prints, verb
from kedge.cli.endpoint import endpoint
from kedge.cli.gate import gate_before
from kedge.cli.quantities import SAMPLE, WEIGHT
from kedge.cli.submit import submit
from kedge.core.release.commands import AnyCommand, Canary, Promote, Shadow
from kedge.core.release.guards import buckets
from kedge.core.values import Release, State
from kedge.operations.receipts import CommandReceipt
from kedge.operations.releases import release_of
from kedge.workspace import Workplace

Find = Callable[[Workplace], tuple[State, Release]]
"""A function that returns the row, and the release that becomes the candidate."""

auto_option = click.option(
    "--auto", is_flag=True, help="The patrol walks the steps, each by proof."
)
sample_option = click.option(
    "--sample", type=SAMPLE, help="Per cent of the units; default: the policy's."
)
weight_option = click.option(
    "--weight", type=WEIGHT, help="Per cent of the callers; default: the policy's first step."
)


@click.command()
@endpoint(required=True, needs_row=False)
@click.argument("version", shell_complete=complete("version"))
@sample_option
@override
@verb
@prints(CommandReceipt)
def shadow(
    context: Context, endpoint: str, version: str, sample: float | None, override: str | None
) -> None:
    """Send VERSION a silent copy of production's requests."""
    start_shadow(context, endpoint, lambda place: _find(place, endpoint, version), sample, override)


@click.command()
@endpoint(required=True, needs_row=False)
@click.argument("version", shell_complete=complete("version"))
@weight_option
@auto_option
@override
@verb
@prints(CommandReceipt)
def canary(
    context: Context,
    endpoint: str,
    version: str,
    weight: float | None,
    auto: bool,
    override: str | None,
) -> None:
    """Send a percentage of traffic to VERSION."""
    start_canary(
        context,
        endpoint,
        lambda place: _find(place, endpoint, version),
        weight,
        override,
        auto=auto,
    )


def _find(place: Workplace, endpoint: str, version: str) -> tuple[State, Release]:
    release = release_of(place, endpoint, version)
    return place.ledger.read().states.get(endpoint, State(endpoint=endpoint)), release


def start_shadow(
    context: Context, endpoint: str, find: Find, sample: float | None, override: str | None
) -> None:
    """Start a shadow; the default of `sample` is the policy's."""

    def make(place: Workplace) -> AnyCommand:
        state, release = find(place)
        share = state.policy.shadow.sample if sample is None else sample
        return Shadow(release=release.number, sample=buckets(share), override=override)

    submit(context, endpoint, make, override or "")


def start_canary(
    context: Context,
    endpoint: str,
    find: Find,
    weight: float | None,
    override: str | None,
    *,
    auto: bool,
) -> None:
    """Start a canary; the default of `weight` is the policy's first step."""

    def make(place: Workplace) -> AnyCommand:
        state, release = find(place)
        share = state.policy.canary.steps[0] if weight is None else weight
        return Canary(release=release.number, weight=buckets(share), override=override, auto=auto)

    submit(context, endpoint, make, override or "")


@click.command()
@endpoint(required=True, needs_row=False)
@click.argument("version", required=False, shell_complete=complete("version"))
@click.option("--full", is_flag=True, help="Skip the remaining canary steps.")
@override
@verb
@prints(CommandReceipt)
def promote(
    context: Context, endpoint: str, version: str | None, full: bool, override: str | None
) -> None:
    """Move a rollout to its next step, or into production."""

    def make(place: Workplace) -> AnyCommand:
        number = release_of(place, endpoint, version).number if version else None
        return Promote(release=number, full=full, override=override)

    submit(context, endpoint, make, override or "", gate=gate_before)
