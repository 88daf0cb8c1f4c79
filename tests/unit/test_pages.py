"""Pages of alerts and decisions as values: escalation, history, policies and two releases."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from kedge.core.access import Role
from kedge.core.alerts.alerts import AlertTarget, Delivery, Rung, Topic
from kedge.core.values import (
    Field,
    Placement,
    Policy,
    Release,
    Signature,
    Stage,
)
from kedge.operations.alerts import ListedAlert
from kedge.web.dashboard.pages.alerts import escalation_of, line_of
from kedge.web.dashboard.pages.comparison import MOST_LINES, compare
from kedge.web.dashboard.pages.fleet import STAGES, VERDICTS
from kedge.web.dashboard.pages.page import Viewer
from kedge.web.dashboard.pages.readings import AlertDuty, PolicyEntry, ReleaseReading

VIEWER = Viewer(name="eve", role=Role.VIEWER, can_operate=False)
ALERT = ListedAlert(
    number=7,
    endpoint="flights",
    key="failing:r2",
    topic=Topic.FAILING,
    level="page",
    lasts="condition",
    summary="r2 fails",
    opened_at="2026-11-23T12:00:00.000000Z",
    elapsed_s=60.0,
    seen=1000.0,
    open=True,
    standing="sent",
)
LEVELS = (
    Rung(0.0, (AlertTarget(0, "mailto:…", "", "mailto:a@b"),)),
    Rung(300.0, (AlertTarget(1, "rota", "grace", "https://c"),)),
)


def delivery(level: int, channel: str, state: str, **more: object) -> Delivery:
    return Delivery(level=level, channel=channel, state=state, **more)  # type: ignore[arg-type]


def states(alert: ListedAlert, at: float = 1060.0) -> list[tuple[str, str]]:
    return [(line.to, line.state) for line in escalation_of(alert, LEVELS, at)]


def test_each_level_says_whom_it_tells_and_when() -> None:
    told = replace(ALERT, deliveries=(delivery(0, "mailto:…", "delivered"),))
    assert states(told) == [("mailto:…", "delivered"), ("rota (grace)", "in 3 min")]
    assert states(told, 1240.0)[1] == ("rota (grace)", "due now")


def test_a_dead_channel_and_an_acknowledgement_are_named() -> None:
    dead = delivery(0, "mailto:…", "failed", failures=3, fault="no route")
    assert states(replace(ALERT, deliveries=(dead,)))[0][1] == "failed 3 times: no route"
    assert states(replace(ALERT, acknowledged_by="ada"))[1][1] == "not needed: it is acknowledged"
    assert len(states(replace(ALERT, level="warn"))) == 1


def test_the_history_of_an_alert_is_in_order_and_a_viewer_reads_why_not() -> None:
    over = replace(
        ALERT,
        open=False,
        acknowledged_at="2026-11-23T12:02:00.000000Z",
        acknowledged_by="ada",
        resolved_at="2026-11-23T12:03:00.000000Z",
        resolved="r2 was rolled back",
        deliveries=(delivery(0, "rota", "delivered", who="grace", at="2026-11-23T12:01:00.000Z"),),
    )
    line = line_of(over, AlertDuty(owner="ada", levels=LEVELS), VIEWER, 1060.0)
    assert [text for _, text in line.history] == [
        "opened",
        "sent by rota (grace)",
        "acknowledged by ada",
        "resolved: r2 was rolled back",
    ]
    assert line.escalation == ()
    assert "role is viewer" in line.refusal


@pytest.mark.parametrize("stage", Stage)
def test_a_page_has_a_word_for_each_stage(stage: Stage) -> None:
    assert STAGES[stage]
    assert set(VERDICTS) == {"pass", "fail", "inconclusive", "broken input"}


# ---------------------------------------------------------------- two releases


def reading(number: int, source: str = "", **more: object) -> ReleaseReading:
    release = Release(
        endpoint="flights",
        number=number,
        digest=f"sha256:{number}",
        model="flights",
        version=number,
        model_digest=f"sha256:m{number}",
        flavour="onnx",
        signature=Signature(
            inputs=(Field("x", "float32"), Field(f"x{number}", "int64")),
            outputs=(Field("y", "float32"),),
        ),
        placement=Placement.INLINE,
    )
    policy = Policy(audience="internal", **more)  # type: ignore[arg-type]
    return ReleaseReading(
        release=release,
        policy=PolicyEntry(number, number, f"sha256:p{number}", policy),
        source=(("features.py", source),) if source else (),
    )


def test_two_releases_differ_in_fields_policy_and_source() -> None:
    found = compare(
        reading(1, "a = 1\nb = 2\n", back_window="7d"),
        reading(2, "a = 1\nb = 3\n", back_window="9d"),
    )
    assert {row.what for row in found.fields} == {"input x1", "input x2"}
    assert [(row.what, row.one, row.other) for row in found.policy] == [("back window", "7d", "9d")]
    assert [(line.tone, line.text) for line in found.source if line.tone in ("added", "removed")][
        2:
    ] == [("removed", "-b = 2"), ("added", "+b = 3")]
    assert not found.source_cut


def test_equal_sources_and_no_sources_are_told_apart_and_long_ones_are_cut() -> None:
    assert compare(reading(1, "a"), reading(2, "a")).source_note == "the same source"
    assert "neither" in compare(reading(1), reading(2)).source_note
    assert "only one" in compare(reading(1, "a"), reading(2)).source_note
    long = "\n".join(f"x{n} = 1" for n in range(2 * MOST_LINES))
    found = compare(reading(1, long), reading(2, long.replace("1", "2")))
    assert found.source_cut
    assert len(found.source) == MOST_LINES
