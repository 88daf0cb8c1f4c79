"""A finding as it is recorded: its endpoint, its level, and the rollbacks that it holds."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from kedge.core.diagnosis.findings import (
    Act,
    Action,
    Cause,
    Diagnosis,
    Estimate,
    Finding,
    Kind,
    Missing,
)
from kedge.core.diagnosis.summary import FRESH_S, SHOWN_S, DiagnosisSummary, about, filed, holds

NOW = 1_770_000_000.0
HELPS, HARMS, UNCLEAR = (
    Estimate(-0.1, -0.2, -0.05, 500),
    Estimate(0.1, 0.05, 0.2, 500),
    Estimate(0.0, -0.1, 0.1, 500),
)


def finding(*causes: Cause, effect: Estimate | None = UNCLEAR, **more: Any) -> DiagnosisSummary:
    known: dict[str, Any] = {
        "at": NOW,
        "since": NOW - 3600,
        "until": NOW,
        "requests": 1000,
        "labelled": 500,
        "new": 3,
        "old": 2,
        "metric": "brier",
        "headline": "said",
        "causes": causes,
        "effect": effect,
        "harms": (HARMS,) * len(causes),
        "action": Act.GO_FORWARD,
        "advice": "train again",
    }
    return DiagnosisSummary(**{**known, **more})


def test_a_diagnosis_in_short_survives_the_ledger() -> None:
    whole = Diagnosis(
        new="r3 (v7)",
        old="r2 (v6)",
        metric="brier",
        headline="said",
        effect=HELPS,
        evidence=(),
        findings=(
            Finding(cause=Cause.WORLD, kind=Kind.CONCEPT, statement="other outcomes", effect=HARMS),
            Finding(cause=Cause.DATA, statement="x is gone", columns=("x",)),
        ),
        action=Action(Act.GO_FORWARD, "train again"),
        would_change=("a season",),
        missing=(Missing("reference", "a window"),),
    )
    short = filed(
        whole, new=3, old=2, at=NOW, since=NOW - 60, until=NOW - 10, requests=7, labelled=5
    )
    assert (short.at, short.new, short.old) == (NOW - 10, 3, 2)
    assert (short.kinds, short.harms) == (("concept", ""), (HARMS, None))
    assert short.missing == ("a window",)
    assert msgspec.convert(msgspec.to_builtins(short), DiagnosisSummary) == short


@pytest.mark.parametrize(
    "causes, effect, against",
    [
        ((Cause.WORLD,), UNCLEAR, True),
        ((Cause.DATA,), None, True),
        ((Cause.LABEL_MIX,), UNCLEAR, True),
        ((Cause.WORLD, Cause.MODEL), UNCLEAR, False),
        ((Cause.WORLD,), HELPS, False),
        ((Cause.MODEL,), HELPS, False),
        ((Cause.CANNOT_TELL,), HARMS, True),
        ((Cause.CANNOT_TELL,), UNCLEAR, False),
        ((Cause.NOISE,), None, False),
    ],
)
def test_it_speaks_against_a_rollback_that_would_not_help(
    causes: tuple[Cause, ...], effect: Estimate | None, against: bool
) -> None:
    assert finding(*causes, effect=effect).against is against


@pytest.mark.parametrize(
    "causes, harms, harm",
    [
        ((Cause.WORLD,), (HARMS,), "page"),
        ((Cause.FEATURES, Cause.WORLD), (UNCLEAR, HARMS), "page"),
        ((Cause.DATA,), (None,), "warn"),
        ((Cause.DATA,), (UNCLEAR,), None),
        ((Cause.NOISE,), (None,), None),
        ((Cause.CANNOT_TELL,), (HARMS,), None),
    ],
)
def test_only_harm_raises_an_alert(
    causes: tuple[Cause, ...], harms: tuple[Estimate | None, ...], harm: str | None
) -> None:
    assert finding(*causes, harms=harms).harm == harm


def test_a_look_alike_is_heard_of_and_holds_nothing() -> None:
    """Neither the world nor the data is named, so a rollback that is due is not held by it."""
    known = finding(Cause.CANNOT_TELL, kinds=(Kind.WORLD_OR_DATA.value,))
    assert known.harm == "page"
    assert known.names == ("world or data",)
    assert not known.elsewhere
    assert not known.against
    assert holds(known, 3, 2, {"quality"}, NOW) == ""
    assert finding(Cause.CANNOT_TELL, kinds=("",)).harm is None
    assert finding(Cause.CANNOT_TELL).names == ("cannot tell",)


def test_it_is_about_the_release_that_is_left_for_a_day() -> None:
    found = finding(Cause.MODEL)
    assert about(found, 3, NOW + SHOWN_S)
    assert not about(found, 3, NOW + SHOWN_S + 1)
    assert not about(found, 2, NOW)


def test_a_soft_failure_that_is_the_worlds_is_held() -> None:
    said = holds(finding(Cause.WORLD), 3, 2, {"quality"}, NOW)
    assert said == "the diagnosis found world: said; train again"
    assert "data" in holds(finding(Cause.DATA), 3, 2, {"violations", "cost"}, NOW + FRESH_S)


@pytest.mark.parametrize(
    "found, new, old, failing, later",
    [
        (None, 3, 2, {"quality"}, 0.0),
        (finding(Cause.WORLD), 4, 2, {"quality"}, 0.0),
        (finding(Cause.WORLD), 3, 1, {"quality"}, 0.0),
        (finding(Cause.WORLD), 3, 2, {"quality", "errors"}, 0.0),
        (finding(Cause.WORLD), 3, 2, {"latency.p99"}, 0.0),
        (finding(Cause.WORLD), 3, 2, set(), 0.0),
        (finding(Cause.WORLD), 3, 2, {"quality"}, FRESH_S + 1),
        (finding(Cause.WORLD, Cause.FEATURES), 3, 2, {"quality"}, 0.0),
        (finding(Cause.WORLD, effect=HELPS), 3, 2, {"quality"}, 0.0),
        (finding(Cause.DATA, effect=None), 3, 2, {"quality"}, 0.0),
        (finding(Cause.NOISE), 3, 2, {"quality"}, 0.0),
        (finding(Cause.WORLD, segment="origin=JFK"), 3, 2, {"quality"}, 0.0),
        (finding(Cause.CANNOT_TELL, effect=HARMS), 3, 2, {"quality"}, 0.0),
    ],
)
def test_nothing_else_is_held(
    found: DiagnosisSummary | None, new: int, old: int, failing: set[str], later: float
) -> None:
    assert holds(found, new, old, failing, NOW + later) == ""
