"""The command `kedge wait`: wait until a rollout reaches a goal, for scripts."""

from __future__ import annotations

import sys
import time
from urllib.parse import quote

import click

from kedge.cli.context import Context, prints, verb
from kedge.cli.endpoint import endpoint
from kedge.cli.failure import NOT_ACKNOWLEDGED, REFUSED
from kedge.cli.quantities import Duration
from kedge.core.errors import Refused, Unavailable
from kedge.core.goals import End, Goal, Watched, follow
from kedge.core.goals import look as judge
from kedge.core.time.durations import seconds
from kedge.core.values import Value
from kedge.operations.progress import Advance, Meter, duration
from kedge.operations.status.read import status_of
from kedge.operations.status.view import EndpointStatus
from kedge.system.pause import pause
from kedge.system.terminal import one_line

EVERY_S = 1.0
"""Interval of looks: as often as replicas report."""
WORDS = {
    End.OPEN: "is still under way",
    End.PROMOTED: "ended otherwise: it was promoted",
    End.ABORTED: "ended otherwise: its rollout was aborted",
    End.REPLACED: "ended otherwise: another release became production",
    End.CONDEMNED: "ended otherwise: it was rolled back",
    End.FAILED: "ended otherwise: the evidence is against it",
}


class WaitedRollout(Value, frozen=True, kw_only=True):
    """The end of a wait for a rollout."""

    endpoint: str
    goal: Goal
    """What was waited for."""
    release: str | None
    """The release that was followed, as r3: the candidate, or else production, at the beginning."""
    reached: bool
    """Whether the goal was reached."""
    timed_out: bool
    """Whether it could still be reached when the wait ended."""
    end: End
    """Why the wait ended; open: it timed out."""
    waited_s: float


@click.command()
@endpoint()
@click.option(
    "--for",
    "goal",
    type=click.Choice([one.value for one in Goal]),
    default=Goal.PROMOTED.value,
    show_default=True,
    help="What is waited for.",
)
@click.option(
    "--timeout", type=Duration(), default="2h", show_default=True, help="How long to wait."
)
@verb
@prints(WaitedRollout)
def wait(context: Context, endpoint: str, goal: str, timeout: str) -> None:
    """Wait for a goal of ENDPOINT's rollout, such as promoted."""
    aim, began, limit = Goal(goal), time.monotonic(), seconds(timeout)
    state = look(context, endpoint)
    watched = watch(state)
    release = follow(aim, watched)
    if release is None and aim is not Goal.SETTLED:
        raise Refused(
            f"{endpoint} has no rollout to wait for",
            code="no_rollout",
            hint=f"kedge history {endpoint} shows how the last one ended",
        )
    was_candidate, shown = watched.candidate is not None, ""
    while (end := judge(aim, release, watched, was_candidate=was_candidate)) is End.OPEN:
        waited = time.monotonic() - began
        shown = tell(context, state, release, shown, waited)
        if waited >= limit:
            break
        pause(min(EVERY_S, limit - waited))
        state = look_again(context, endpoint, state)
        watched = watch(state)
    done = WaitedRollout(
        endpoint=endpoint,
        goal=aim,
        release=release,
        reached=end is End.REACHED,
        timed_out=end is End.OPEN,
        end=end,
        waited_s=round(time.monotonic() - began, 1),
    )
    context.clear()
    told = f"is {aim}" if done.reached else WORDS[end]
    named = endpoint if aim is Goal.SETTLED else f"{endpoint} {release}"
    context.out(done, one_line(f"{named} {told}"))
    if not done.reached:
        context.say(f"hint: kedge history {endpoint}")
        sys.exit(NOT_ACKNOWLEDGED if done.timed_out else REFUSED)


def watch(state: EndpointStatus) -> Watched:
    """Return the facts of a status that a wait needs."""
    return Watched(
        stage=state.stage,
        production=state.production.release if state.production is not None else None,
        candidate=state.candidate.release if state.candidate is not None else None,
        condemned=frozenset(state.condemned),
        verdict=state.decision.verdict if state.decision is not None else None,
        is_acknowledged=all(one.silent or one.epoch == state.epoch for one in state.replicas),
    )


def tell(
    context: Context, state: EndpointStatus, release: str | None, shown: str, waited: float
) -> str:
    """Print a stage or weight that was not shown yet, and draw the wait; return what is shown."""
    if context.as_json:
        return shown
    now = f"{state.endpoint} {release or ''}: {state.stage}, {state.weight:g} %"
    if now != shown:
        context.say(now)
    left = state.estimate.seconds if state.estimate is not None else None
    if isinstance(context.say, Meter):
        text = f"{now}, {duration(waited)}"
        if left is not None:
            text += f"; the next step in about {duration(left)}"
        total = waited + left if left is not None else 0
        context.say.move(Advance(round(waited), round(total), text))
    return now


def look(context: Context, endpoint: str) -> EndpointStatus:
    """Return the status of an endpoint, here or on the server."""
    if context.remote is not None:
        return context.remote.view(f"/endpoints/{quote(endpoint, safe='')}/status", EndpointStatus)
    (found,) = status_of(context.place(), endpoint)
    return found


def look_again(context: Context, endpoint: str, known: EndpointStatus) -> EndpointStatus:
    """Return the status of an endpoint; the known one while it cannot be read."""
    try:
        return look(context, endpoint)
    except Unavailable:
        return known
