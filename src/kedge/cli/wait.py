"""The command `kedge wait`: wait until a rollout is promoted, for scripts."""

from __future__ import annotations

import sys
import time

import click

from kedge.cli.context import Context, prints, verb
from kedge.cli.endpoint import endpoint
from kedge.cli.failure import NOT_ACKNOWLEDGED, REFUSED
from kedge.cli.quantities import Duration
from kedge.core.errors import Refused, Unavailable
from kedge.core.time.durations import seconds
from kedge.core.values import Value
from kedge.operations.status.read import status_without_estimates
from kedge.operations.status.view import EndpointStatus
from kedge.system.pause import pause
from kedge.system.terminal import one_line

EVERY_S = 1.0
"""Interval of looks: as often as replicas report."""


class WaitedRollout(Value, frozen=True, kw_only=True):
    """The end of a wait for a rollout."""

    endpoint: str
    release: str
    """The candidate when the wait began, as r3."""
    reached: bool
    """Whether it became production."""
    timed_out: bool
    """Whether the rollout was still under way when the wait ended."""
    waited_s: float


@click.command()
@endpoint()
@click.option(
    "--for",
    "goal",
    type=click.Choice(["promoted"]),
    default="promoted",
    show_default=True,
    help="What is waited for.",
)
@click.option(
    "--timeout", type=Duration(), default="2h", show_default=True, help="How long to wait."
)
@verb
@prints(WaitedRollout)
def wait(context: Context, endpoint: str, goal: str, timeout: str) -> None:
    """Wait until the rollout of ENDPOINT is promoted."""
    began, limit = time.monotonic(), seconds(timeout)
    state = look(context, endpoint)
    if state.candidate is None:
        raise Refused(
            f"{endpoint} has no rollout to wait for",
            code="no_rollout",
            hint=f"kedge history {endpoint} shows how the last one ended",
        )
    release, shown = state.candidate.release, ""
    while get_candidate(state) == release:
        now = f"{endpoint} {release}: {state.stage}, {state.weight:g} %"
        if now != shown and not context.as_json:
            context.say(now)
        shown = now
        if time.monotonic() - began >= limit:
            break
        pause(EVERY_S)
        state = look_again(context, endpoint, state)
    is_under_way = get_candidate(state) == release
    reached = (
        not is_under_way and state.production is not None and state.production.release == release
    )
    done = WaitedRollout(
        endpoint=endpoint,
        release=release,
        reached=reached,
        timed_out=is_under_way,
        waited_s=round(time.monotonic() - began, 1),
    )
    told = "is under way still" if is_under_way else "ended otherwise"
    told = f"is {goal}" if reached else told
    context.out(done, one_line(f"{endpoint} {release} {told}"))
    if not reached:
        context.say(f"hint: kedge history {endpoint}")
        sys.exit(NOT_ACKNOWLEDGED if is_under_way else REFUSED)


def get_candidate(state: EndpointStatus) -> str | None:
    """Return the candidate's name; None without one."""
    return state.candidate.release if state.candidate is not None else None


def look(context: Context, endpoint: str) -> EndpointStatus:
    """Return the status of an endpoint, here or on the server."""
    if context.remote is not None:
        return context.remote.view(f"/endpoints/{endpoint}/status", EndpointStatus)
    (found,) = status_without_estimates(context.place(), endpoint)
    return found


def look_again(context: Context, endpoint: str, known: EndpointStatus) -> EndpointStatus:
    """Return the status of an endpoint; the known one while it cannot be read."""
    try:
        return look(context, endpoint)
    except Unavailable:
        return known
