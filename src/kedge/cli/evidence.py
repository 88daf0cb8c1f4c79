"""The command `kedge evidence`."""

from __future__ import annotations

import functools

import click

from kedge.adapters.clock import SystemClock
from kedge.cli.context import Context, Shown, prints, verb
from kedge.cli.endpoint import endpoint
from kedge.cli.screen.evidence import course_screen, evidence_screen
from kedge.cli.text.evidence import course_text, evidence_text
from kedge.cli.text.layout import get_width
from kedge.operations.evidence.read import RolloutEvidence, course_of, evidence_of
from kedge.operations.evidence.view import CoursePoint
from kedge.system.terminal import one_line


@click.command()
@endpoint()
@click.option("--segment", metavar="FIELD=VALUE", help="Show this segment only, beside the whole.")
@click.option("--watch", is_flag=True, help="Show it again each second until Ctrl-C.")
@click.option("--since", help="Show the course of minutes and hours instead, such as 7d.")
@verb
@prints(RolloutEvidence | list[CoursePoint])
def evidence(
    context: Context, endpoint: str, segment: str | None, watch: bool, since: str | None
) -> None:
    """Compare candidate and production, with a verdict each."""
    open_place = functools.cache(context.place)

    def look() -> RolloutEvidence | list[CoursePoint]:
        if since is not None:
            return course_of(open_place(), endpoint, since)
        return evidence_of(open_place(), endpoint, segment)

    if since is not None:
        course = context.result(look)
        assert isinstance(course, list)
        text = course_text(one_line(course), segment, get_width())
        context.out(course, text, course_screen(one_line(course), segment))
        return

    def read() -> Shown:
        found = context.result(look)
        assert isinstance(found, RolloutEvidence)
        empty = segment is not None and not found.segments
        note = f"no request of {segment} was counted at this step" if empty else ""
        text = evidence_text(one_line(found), get_width())
        return Shown(found, text, evidence_screen(one_line(found)), note)

    context.repeat(read, SystemClock().unix, again=watch)
