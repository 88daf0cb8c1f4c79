"""Ready page: the checks with their fixes, drills, the runbook, and the speed of rollbacks."""

from __future__ import annotations

from kedge.core.runbook import Runbook, RunbookStep
from kedge.core.speed import SLO_S, Speed
from kedge.core.stored.stories import drill_story
from kedge.core.values import Value
from kedge.web.dashboard.pages.endpoint import EndpointHead
from kedge.web.dashboard.pages.page import DashboardPage, PagePart
from kedge.web.dashboard.pages.quantities import count, milliseconds, span
from kedge.web.dashboard.pages.readings import ReadyReading

OUTCOMES = {"pass": ("ok", "passed"), "fail": ("bad", "failed"), "not applicable": ("", "not yet")}


class CheckLine(Value, frozen=True, kw_only=True):
    """One check."""

    name: str
    tone: str
    word: str
    why: str
    fix: str


class SpeedLine(Value, frozen=True, kw_only=True):
    """One rollback or drill on the scale of the objective."""

    at: float
    what: str
    steps: str
    """How long each part of it took; empty: not known."""
    took: str
    part: float
    """Share of the objective, at most 1."""
    within: bool


class RunbookLine(Value, frozen=True, kw_only=True):
    """One step of the runbook."""

    title: str
    expected: str
    measured: str
    why: str
    commands: str
    after: str


class RunbookView(Value, frozen=True, kw_only=True):
    """The runbook of an endpoint."""

    live: str
    host: str
    directory: str
    expected: str
    people: tuple[tuple[str, str], ...]
    """From when on, and whom to call."""
    way_back: tuple[RunbookLine, ...]
    more: tuple[RunbookLine, ...]


class ReadyView(Value, frozen=True, kw_only=True):
    """The readiness of an endpoint."""

    endpoint: str
    failed: int
    checks: tuple[CheckLine, ...]
    drills: tuple[tuple[str, str, bool], ...]
    """Time, what happened, and whether it succeeded."""
    objective: str
    within: str
    """How many rollbacks met the objective; empty: there was none."""
    speeds: tuple[SpeedLine, ...]
    book: RunbookView


def ready_page(reading: ReadyReading, head: EndpointHead, at: float) -> DashboardPage:
    """Return the page of an endpoint's readiness."""
    view = ReadyView(
        endpoint=head.endpoint,
        failed=sum(check.outcome == "fail" for check in reading.checks),
        checks=tuple(
            CheckLine(
                name=check.name,
                tone=OUTCOMES[check.outcome][0],
                word=OUTCOMES[check.outcome][1],
                why=check.why,
                fix=check.mend,
            )
            for check in sorted(reading.checks, key=lambda check: check.outcome != "fail")
        ),
        drills=tuple((when, drill_story(body), body.ok) for when, body in reading.drills),
        objective=span(SLO_S),
        within=within_of(reading.speed),
        speeds=speeds_of(reading.speed),
        book=book_of(reading.runbook),
    )
    return DashboardPage(
        title=f"Ready · {head.endpoint}",
        template="endpoint_page.html",
        parts=(
            PagePart("head", "endpoint_head.html", head),
            PagePart("ready", "ready.html", view),
        ),
        endpoint=head.endpoint,
        tab="ready",
        at=at,
    )


def book_of(book: Runbook) -> RunbookView:
    """Return the runbook as the page shows it."""
    return RunbookView(
        live=book.live,
        host=book.site.host,
        directory=book.site.directory,
        expected=span(book.expected_s),
        people=tuple((person.when, person.who) for person in book.people),
        way_back=tuple(_step(step) for step in book.way_back),
        more=tuple(_step(step) for step in book.more),
    )


def _step(step: RunbookStep) -> RunbookLine:
    measured = step.measured
    return RunbookLine(
        title=step.title,
        expected=span(step.expected_s) if step.expected_s is not None else "",
        measured=f"last {_took(measured.seconds)}" if measured is not None else "",
        why=step.why,
        commands="\n".join(step.commands),
        after=step.after,
    )


def within_of(speed: Speed | None) -> str:
    """Return how many past rollbacks met the objective."""
    if speed is None or not speed.incidents:
        return ""
    known = [one.total_s for one in speed.incidents if one.total_s is not None]
    met = sum(total <= SLO_S for total in known)
    told = f"{met} of {count(len(known), 'rollback')} within it, from the first caller"
    if speed.whole_s.p50 is not None:
        told += f"; median {_took(speed.whole_s.p50)}"
    return told + (f"; {speed.unknown} not known" if speed.unknown else "")


def speeds_of(speed: Speed | None) -> tuple[SpeedLine, ...]:
    """Return the past rollbacks and drills, newest first, against the objective."""
    if speed is None:
        return ()
    found = []
    for one in speed.incidents:
        flip = one.machine.total_s if one.machine is not None else None
        took = one.total_s if one.total_s is not None else flip
        if took is not None:
            what = f"rollback from r{one.release} by {one.by}"
            parts = (("detect", one.detect_s), ("decide", one.decide_s), ("flip", flip))
            found.append(_speed(one.at, what, took, parts))
    found += [
        _speed(drill.at, f"drill to r{drill.release}", drill.back.total_s)
        for drill in speed.drills
        if drill.back is not None
    ]
    return tuple(sorted(found, key=lambda line: -line.at)[:20])


def _speed(
    at: float, what: str, took_s: float, parts: tuple[tuple[str, float | None], ...] = ()
) -> SpeedLine:
    return SpeedLine(
        at=at,
        what=what,
        steps=" · ".join(f"{name} {_took(part)}" for name, part in parts if part is not None),
        took=_took(took_s),
        part=min(took_s / SLO_S, 1.0),
        within=took_s <= SLO_S,
    )


def _took(seconds: float) -> str:
    return milliseconds(seconds * 1e3) if seconds < 1 else span(seconds)
