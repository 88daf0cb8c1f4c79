"""Stale and recoded columns: those that are proven, those that a changed world would look like, and neither."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from kedge.core.diagnosis.contrast import Floats
from kedge.core.diagnosis.diagnose import diagnose
from kedge.core.diagnosis.facts import Facts, Sample, Source
from kedge.core.diagnosis.findings import Act, Diagnosis, Kind
from kedge.core.values import Output

N = 4_000
OUTPUT = Output(kind="binary", score="p")
BY = np.array([1.4, -1.0, 0.4, -0.6, 2.0, 0.0])
Columns = dict[str, Any]


def columns(seed: int, *, alone: bool = False, n: int = N) -> Columns:
    """Numbers and a list of kinds that hang together, unless `alone`."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=n)
    tie = 0.0 if alone else 1.0
    kind = np.clip(np.floor(2.5 + tie * z + rng.normal(size=n)), 0, 5)
    return {
        "a": tie * z + rng.normal(size=n),
        "b": tie * z + rng.normal(size=n),
        "c": rng.normal(size=n),
        "kind": rng.integers(0, 6, n).astype(float) if alone else kind,
    }


def chance(c: Columns, *, weights: tuple[float, ...] = (1.2, 0.7, 0.6), by: Any = BY) -> Floats:
    eta = sum(w * c[name] for w, name in zip(weights, "abc", strict=True))
    return np.asarray(1 / (1 + np.exp(-eta - by[c["kind"].astype(int)])))


def drawn(p: Floats, seed: int) -> Floats:
    return (np.random.default_rng(seed).random(len(p)) < p).astype(np.float64)


def facts(served: Columns, truth: Floats, *, alone: bool = False, labelled: int = 2_000) -> Facts:
    """One model that knows the truth of the reference; the columns of today may be false."""
    before = columns(1, alone=alone)
    known = truth.copy()
    known[labelled:] = np.nan
    answers = chance(served)
    return Facts(
        output=OUTPUT,
        metric="brier",
        new="r3",
        old="r2",
        current=Sample(columns=served, truth=known),
        answers={("new", "new"): answers, ("old", "old"): answers},
        reference=Sample(columns=before, truth=drawn(chance(before), 2), scores=chance(before)),
    )


def stale(column: Any, share: float = 1.0) -> Any:
    """What another request had, in some of the rows."""
    rng = np.random.default_rng(5)
    return np.where(rng.random(len(column)) < share, rng.permutation(column), column)


def recoded(column: Any) -> Any:
    return np.array([3, 0, 4, 5, 1, 2])[column.astype(int)].astype(np.float64)


def named(found: Diagnosis) -> tuple[str, str | None, tuple[str, ...]]:
    (one,) = found.findings
    return one.cause.value, one.kind and one.kind.value, one.columns


@pytest.mark.parametrize("share", [1.0, 0.7])
@pytest.mark.parametrize("name", ["a", "b"])
def test_a_stale_column_that_went_with_others_is_the_data(name: str, share: float) -> None:
    true = columns(11)
    served = {**true, name: stale(true[name], share)}
    found = diagnose(facts(served, drawn(chance(true), 3)))
    assert named(found) == ("data", "stale", (name,))
    assert found.action.code is Act.HOLD_FIX_DATA
    assert [each.kind for each in found.findings[0].suspects] == ["stale"]


@pytest.mark.parametrize("words", [False, True])
def test_a_recoded_column_is_the_data(words: bool) -> None:
    true = columns(11)
    served = {**true, "kind": recoded(true["kind"])}
    given = facts(served, drawn(chance(true), 3))
    if words:
        for sample in (given.current, given.reference):
            assert sample is not None
            assert isinstance(sample.columns, dict)
            sample.columns["kind"] = np.array(
                [f"k{v:.0f}" for v in sample.columns["kind"]], dtype=object
            )
    assert named(diagnose(given)) == ("data", "recoded", ("kind",))


def test_two_columns_of_one_source_are_both_named() -> None:
    true = columns(11)
    rows = np.random.default_rng(5).permutation(N)
    served = {**true, "a": true["a"][rows], "kind": true["kind"][rows]}
    found = diagnose(facts(served, drawn(chance(true), 3)))
    assert found.causes == ("data",)
    assert set(found.findings[0].columns) == {"a", "kind"}


@pytest.mark.parametrize(("name", "kind"), [("a", "stale"), ("kind", "recoded")])
def test_an_independent_column_is_not_distinguished_from_the_world(name: str, kind: str) -> None:
    """The column is independent of the others: only the outcomes say anything, and they say both."""
    true = columns(11, alone=True)
    served = {**true, name: recoded(true[name]) if kind == "recoded" else stale(true[name])}
    found = diagnose(facts(served, drawn(chance(true), 3), alone=True))
    assert named(found) == ("cannot_tell", "world_or_data", (name,))
    assert found.findings[0].suspects[0].kind == kind
    assert found.findings[0].statement.startswith(f"world or data: cannot tell; check {name}: ")
    assert found.action.code is Act.HOLD
    assert name in found.action.sentence
    assert "train" not in found.action.sentence


def test_a_world_that_forgets_a_column_looks_like_old_values() -> None:
    """The truth does no longer depend on the column: the very same facts as of a stale one."""
    now = columns(11, alone=True)
    truth = drawn(chance(now, weights=(0.0, 0.7, 0.6)), 3)
    found = diagnose(facts(now, truth, alone=True))
    assert named(found) == ("cannot_tell", "world_or_data", ("a",))


@pytest.mark.parametrize(
    ("weights", "by"),
    [
        ((-1.2, 0.7, 0.6), BY),  # the opposite, which no old value says
        ((0.2, -0.5, 0.6), BY),  # two columns at once
        ((0.4, 0.2, 0.2), 0.3 * BY),  # all at once
        ((1.2, 0.7, 0.6), BY + 2.0),  # everybody
    ],
)
@pytest.mark.parametrize("alone", [False, True])
def test_other_outcomes_that_no_false_column_explains_are_the_world(
    weights: tuple[float, ...], by: Any, alone: bool
) -> None:
    now = columns(11, alone=alone)
    found = diagnose(facts(now, drawn(chance(now, weights=weights, by=by), 3), alone=alone))
    assert found.causes == ("world",)


def test_a_world_that_forgets_a_column_is_named_where_the_others_vouch_for_it() -> None:
    """The column goes with the others as it did, so it is neither stale nor recoded."""
    now = columns(11)
    found = diagnose(facts(now, drawn(chance(now, weights=(0.0, 0.7, 0.6)), 3)))
    assert found.causes == ("world",)
    assert found.findings[0].kind is Kind.CONCEPT


def test_a_healthy_day_has_none() -> None:
    for seed in range(11, 17):
        now = columns(seed)
        assert "data" not in diagnose(facts(now, drawn(chance(now), seed + 50))).causes


def test_harder_inputs_are_no_broken_columns() -> None:
    many = columns(11, n=10 * N)
    p = chance(many)
    kept = np.flatnonzero(np.random.default_rng(5).random(len(p)) < np.exp(-6 * np.abs(p - 0.5)))[
        :N
    ]
    now = {name: column[kept] for name, column in many.items()}
    found = diagnose(facts(now, drawn(p[kept], 3)))
    assert found.causes == ("world",)


def test_a_source_that_is_late_is_a_suspect_where_the_world_would_be_named() -> None:
    now = columns(11)
    given = facts(now, drawn(chance(now, weights=(0.2, -0.5, 0.6)), 3))
    late = Source("delays/1#2@1", 5_400.0, 1_800.0)
    found = diagnose(replace(given, sources=(late, Source("seats/1#1@1", 60.0, 1_800.0))))
    assert named(found) == ("cannot_tell", "world_or_data", ("delays/1#2@1",))
    assert "delays/1#2@1 is 90 min behind (limit 30 min)" in found.findings[0].statement
    fresh = diagnose(replace(given, sources=(late._replace(lag_s=60.0),)))
    assert fresh.causes == ("world",)
    assert [e.verdict for e in fresh.evidence if e.question == "freshness"] == ["no"]
    healthy = facts(now, drawn(chance(now), 3))
    assert diagnose(replace(healthy, sources=(late,))).causes == ("noise",), "late, and no harm"


def test_a_stale_column_is_found_without_labels_where_it_is_plain() -> None:
    true = columns(11)
    served = {**true, "a": stale(true["a"])}
    found = diagnose(facts(served, drawn(chance(true), 3), labelled=0))
    assert found.causes == ("data",)
    assert found.findings[0].columns == ("a",)
