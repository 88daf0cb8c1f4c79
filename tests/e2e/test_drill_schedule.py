"""A control that runs starts the drill that its policy asks for, and no caller notices."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from e2e.place import Site
from kedge.core.release.commands import Promote
from kedge.core.release.machine import decide
from kedge.core.stored.ledger import Note
from kedge.core.stored.notes import DrillResult, build_note
from kedge.core.values import ActorKind, Refusal, State
from kedge.operations.releases import release_of
from kedge.operations.setup import create_workplace
from kedge.workspace import Workplace

pytestmark = pytest.mark.e2e

HOUR_S = 3600.0


def iso(ago_s: float) -> str:
    return datetime.fromtimestamp(time.time() - ago_s, UTC).isoformat().replace("+00:00", "Z")


def promoted_long_ago(site: Site, **both: Any) -> Workplace:
    """r1 and then r2 became production an hour ago: within ten minutes nothing is drilled by itself."""
    place = Workplace(site.root / ".kedge")
    create_workplace(site.root / ".kedge")
    site.run("apply")
    for name, scale in (("one", 2.0), ("two", 3.0)):
        site.run("register", "flights", site.model(name, scale=scale, **both))
    for version in ("v1", "v2"):
        number = release_of(place, "flights", version).number
        row = place.ledger.read().states["flights"]
        events = decide(row, Promote(number, override="a test"), iso(HOUR_S))
        assert not isinstance(events, Refusal)
        place.ledger.append(
            "flights", events, expect=row.epoch, by="ada", reason="a test", at=iso(HOUR_S)
        )
    return place


def row(place: Workplace) -> State:
    return place.ledger.read().states["flights"]


def drills(place: Workplace) -> list[tuple[ActorKind, DrillResult]]:
    """What filed each, and its body; newest first."""
    entries = place.ledger.entries("flights", "drill", limit=20)
    return [
        (e.actor, e.event.body)
        for e in entries
        if isinstance(e.event, Note) and isinstance(e.event.body, DrillResult)
    ]


@pytest.mark.parametrize(
    "last_h", [pytest.param(None, marks=pytest.mark.soak), 25.0], ids=["never", "a day ago"]
)
def test_a_drill_that_is_due_is_started_ends_and_is_filed_while_callers_notice_nothing(
    make_site: Callable[..., Site], last_h: float | None
) -> None:
    """`kedge up` is started; the drill is control's own, and a bound of ten seconds is all of it."""
    site = make_site(policy='drill = {every = "1d"}\n')
    place = promoted_long_ago(site)
    if last_h is not None:
        place.ledger.note(
            "flights",
            build_note(DrillResult(ok=True, total_s=1.0, release=1)),
            by="ada",
            reason="",
            at=iso(last_h * HOUR_S),
        )
    known = len(drills(place))
    site.start()
    site.until(lambda: site.infer()[0] == 200, "the first answer")
    with site.load(rate=100) as load:
        site.until(lambda: row(place).drill is not None, "the drill to begin", 60)
        site.until(lambda: load.releases.get("r1"), "an old answer")
        site.until(lambda: len(drills(place)) > known, "its outcome", 60)
    assert load.failures == []
    actor, filed = drills(place)[0]
    assert actor is ActorKind.CONTROL
    assert (filed.ok, filed.why, filed.release, filed.left) == (True, "", 1, 2)
    assert (filed.failed, (filed.answered or 0) > 0) == (0, True)
    assert load.releases["r1"] > 100
    after = row(place)
    assert (after.drill, after.production, after.back, after.condemned) == (None, 2, 1, ())
    assert site.served() == "r2"
    time.sleep(6)  # the next look of the schedule
    assert len(drills(place)) == known + 1


@pytest.mark.soak  # its time is spent waiting; the suite has a quarter of an hour
def test_a_slow_start_is_drilled_when_ready_and_not_recorded_as_failed(
    make_site: Callable[..., Site],
) -> None:
    """After a reboot control is there long before the models are; and nothing keeps the way back loaded."""
    site = make_site(policy='drill = {every = "1d"}\nback_window = "1s"\n', workers=1)
    place = promoted_long_ago(site, sleep_load_s=8.0)
    site.start()
    actor, filed = site.until(lambda: drills(place), "the outcome", 90)[0]
    assert actor is ActorKind.CONTROL
    assert (filed.ok, filed.why, filed.for_s > 40) == (True, "", True)
    assert site.served() == "r2"
    checked = {one["name"]: one for one in site.data("check", "flights", check=False)["checks"]}
    assert [checked[name]["outcome"] for name in ("deployable", "warm", "drill")] == ["pass"] * 3
    assert "r1 is not kept loaded, since its back_window of 1s is over" in checked["warm"]["why"]
