"""Commands of a rollout: plan, shadow, canary, set-weight, pause, resume, abort, promote, freeze and thaw."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from kedge.cli.context import Context, complete_version, endpoint, override, submit, verb
from kedge.cli.quantities import SAMPLE, WEIGHT, Count, Factor, Percent, Rate
from kedge.system.terminal import one_line

if TYPE_CHECKING:
    from kedge.core.release.commands import AnyCommand
    from kedge.core.values import Release, State
    from kedge.workspace import Workplace

    Find = Callable[[Workplace], tuple[State, Release]]
    """Returns the row, and the release that becomes the candidate."""

_why = click.option("--reason", default="", help="Why, for the ledger.")
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
    context: Context,
    endpoint: str,
    rate: float | None,
    errors: float | None,
    times: float,
    callers: int | None,
) -> None:
    """Estimate how soon each step would find a worse candidate."""
    from kedge.cli.text.layout import get_width
    from kedge.cli.text.plan import plan_text
    from kedge.operations.evidence.read import plan_of

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
@endpoint(required=True, needs_row=False)
@click.argument("version", shell_complete=complete_version)
@sample_option
@override
@verb
def shadow(
    context: Context, endpoint: str, version: str, sample: float | None, override: str | None
) -> None:
    """Send VERSION a silent copy of production's requests."""
    start_shadow(context, endpoint, lambda place: _find(place, endpoint, version), sample, override)


@click.command()
@endpoint(required=True, needs_row=False)
@click.argument("version", shell_complete=complete_version)
@weight_option
@auto_option
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
    start_canary(
        context,
        endpoint,
        lambda place: _find(place, endpoint, version),
        weight,
        override,
        auto=auto,
    )


def _find(place: Workplace, endpoint: str, version: str) -> tuple[State, Release]:
    from kedge.core.values import State
    from kedge.operations.releases import release_of

    release = release_of(place, endpoint, version)
    return place.ledger.read().states.get(endpoint, State(endpoint=endpoint)), release


def start_shadow(
    context: Context, endpoint: str, find: Find, sample: float | None, override: str | None
) -> None:
    """Start a shadow; without a `sample` with the policy's."""
    from kedge.core.release.commands import Shadow
    from kedge.core.release.guards import buckets

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
    """Start a canary; without a `weight` at the policy's first step."""
    from kedge.core.release.commands import Canary
    from kedge.core.release.guards import buckets

    def make(place: Workplace) -> AnyCommand:
        state, release = find(place)
        share = state.policy.canary.steps[0] if weight is None else weight
        return Canary(release=release.number, weight=buckets(share), override=override, auto=auto)

    submit(context, endpoint, make, override or "")


@click.command("set-weight")
@endpoint(required=True)
@click.argument("weight", type=WEIGHT)
@override
@verb
def set_weight(context: Context, endpoint: str, weight: float, override: str | None) -> None:
    """Change the candidate's share to WEIGHT per cent."""
    from kedge.core.release.commands import SetWeight
    from kedge.core.release.guards import buckets

    submit(
        context,
        endpoint,
        lambda _: SetWeight(weight=buckets(weight), override=override),
        override or "",
    )


@click.command()
@endpoint()
@_why
@verb
def pause(context: Context, endpoint: str, reason: str) -> None:
    """Hold the rollout where it is."""
    from kedge.core.release.commands import Pause

    submit(context, endpoint, lambda _: Pause(), reason)


@click.command()
@endpoint()
@_why
@override
@verb
def resume(context: Context, endpoint: str, reason: str, override: str | None) -> None:
    """Let a held rollout go on."""
    from kedge.core.release.commands import Resume

    submit(context, endpoint, lambda _: Resume(override=override), reason or override or "")


@click.command()
@endpoint()
@_why
@verb
def abort(context: Context, endpoint: str, reason: str) -> None:
    """End a rollout; the candidate stays eligible."""
    from kedge.core.release.commands import Abort

    submit(context, endpoint, lambda _: Abort(), reason)


@click.command()
@endpoint(required=True, needs_row=False)
@click.argument("version", required=False, shell_complete=complete_version)
@click.option("--full", is_flag=True, help="Skip the remaining canary steps.")
@override
@verb
def promote(
    context: Context, endpoint: str, version: str | None, full: bool, override: str | None
) -> None:
    """Move a rollout to its next step, or into production."""
    from kedge.core.release.commands import Promote
    from kedge.operations.releases import release_of

    def make(place: Workplace) -> AnyCommand:
        number = release_of(place, endpoint, version).number if version else None
        return Promote(release=number, full=full, override=override)

    submit(context, endpoint, make, override or "")


@click.command()
@endpoint()
@_why
@verb
def freeze(context: Context, endpoint: str, reason: str) -> None:
    """Stop automation on ENDPOINT; commands still work."""
    from kedge.core.release.commands import Freeze

    submit(context, endpoint, lambda _: Freeze(), reason)


@click.command()
@endpoint()
@_why
@verb
def thaw(context: Context, endpoint: str, reason: str) -> None:
    """Let automation act on ENDPOINT again."""
    from kedge.core.release.commands import Thaw

    submit(context, endpoint, lambda _: Thaw(), reason)
