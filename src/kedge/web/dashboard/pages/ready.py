"""Ready page: the checks with their fixes, drills, the runbook, and the speed of rollbacks."""

from __future__ import annotations

from kedge.core.speed import SLO_S, Speed
from kedge.core.values import Value
from kedge.operations.stories import drill_story
from kedge.web.dashboard.pages.endpoint import EndpointHead
from kedge.web.dashboard.pages.page import DashboardPage, PagePart
from kedge.web.dashboard.pages.quantities import span
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
    took: str
    part: float
    """Share of the objective, at most 1."""
    within: bool


class ReadyView(Value, frozen=True, kw_only=True):
    """The readiness of an endpoint."""

    endpoint: str
    failed: int
    checks: tuple[CheckLine, ...]
    drills: tuple[tuple[str, str, bool], ...]
    """Time, what happened, and whether it succeeded."""
    objective: str
    speeds: tuple[SpeedLine, ...]
    runbook: str


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
        speeds=speeds_of(reading.speed),
        runbook=reading.runbook,
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
            found.append(_speed(one.at, what, took))
    found += [
        _speed(drill.at, f"drill to r{drill.release}", drill.back.total_s)
        for drill in speed.drills
        if drill.back is not None
    ]
    return tuple(sorted(found, key=lambda line: -line.at)[:20])


def _speed(at: float, what: str, took_s: float) -> SpeedLine:
    took = f"{took_s * 1e3:.0f} ms" if took_s < 1 else span(took_s)
    return SpeedLine(
        at=at, what=what, took=took, part=min(took_s / SLO_S, 1.0), within=took_s <= SLO_S
    )
