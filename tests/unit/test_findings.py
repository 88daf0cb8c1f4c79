"""A diagnosis can be stored and read again, and an estimate can be turned."""

from __future__ import annotations

import msgspec

from kedge.core.diagnosis.findings import (
    Act,
    Action,
    Cause,
    Diagnosis,
    Estimate,
    Evidence,
    Finding,
    Kind,
    Missing,
)

FOUND = Diagnosis(
    new="r3",
    old="r2",
    metric="brier",
    headline="it would not help",
    effect=Estimate(0.01, -0.02, 0.04, 300),
    findings=(Finding(cause=Cause.WORLD, kind=Kind.CONCEPT, statement="other outcomes"),),
    evidence=(Evidence(question="world", answer="today less then", figure=0.1, verdict="yes"),),
    action=Action(Act.GO_FORWARD, "train on recent outcomes"),
    would_change=("log more",),
    missing=(Missing("reference", "a labelled window"),),
)


def test_it_survives_being_stored() -> None:
    raw = msgspec.json.encode(FOUND)
    assert msgspec.json.decode(raw, type=Diagnosis) == FOUND
    assert b'"cause":"world","kind":"concept"' in raw
    assert FOUND.causes == ("world",)


def test_an_estimate_turned_is_the_other_way_round() -> None:
    assert FOUND.effect is not None
    assert FOUND.effect.turned() == Estimate(-0.01, -0.04, 0.02, 300)
    assert Estimate(0.0, 0.0, 0.0, 9).turned().text() == "+0 [+0, +0]"
    assert FOUND.effect.text() == "+0.01 [-0.02, +0.04]"
