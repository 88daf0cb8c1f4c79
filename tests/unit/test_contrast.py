"""Losses as the judge's own, intervals that hold, and shares that add up."""

from __future__ import annotations

from math import inf, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as reference

from kedge.core.diagnosis.contrast import (
    LEAST,
    Floats,
    Mean,
    difference,
    losses,
    mean_of,
    shares,
    swapped,
    t_quantile,
)
from kedge.core.errors import Refused
from kedge.core.evidence.quality import LOSSES, scale
from kedge.core.values import Output

BINARY = Output(kind="binary", threshold=0.4)
SCORE = Output(kind="score", tolerance=0.25)


@given(score=st.floats(-0.5, 1.5), yes=st.booleans())
@pytest.mark.parametrize("metric", ["error_rate", "log_loss", "brier"])
def test_a_loss_of_many_is_the_judges_loss_of_one(metric: str, score: float, yes: bool) -> None:
    found = losses(metric, BINARY, np.array([score]), np.array([float(yes)]))
    one = LOSSES[metric][0](BINARY, score, None, yes)
    assert found[0] == pytest.approx(one * scale(metric, BINARY))


@given(score=st.floats(-9, 9), known=st.floats(-9, 9))
@pytest.mark.parametrize("metric", ["error_rate", "absolute_error"])
@pytest.mark.parametrize("kind", ["score", "exact"])
def test_so_it_is_with_numbers(metric: str, kind: str, score: float, known: float) -> None:
    output = Output(kind="score" if kind == "score" else "exact", tolerance=0.25)
    found = losses(metric, output, np.array([score]), np.array([known]))
    one = LOSSES[metric][0](output, score, None, known)
    assert found[0] == pytest.approx(one * scale(metric, output))


def test_losses_are_in_the_metrics_own_unit() -> None:
    assert losses("log_loss", BINARY, np.array([0.5]), np.array([1.0]))[0] == pytest.approx(
        np.log(2)
    )
    assert losses("absolute_error", SCORE, np.array([1.5]), np.array([1.0]))[0] == 0.5


def test_not_asked_is_no_loss_and_no_answer_is_the_largest() -> None:
    found = losses("brier", BINARY, np.array([nan, inf, 0.5, 0.5]), np.array([1.0, 1.0, nan, 7.0]))
    assert np.isnan(found).tolist() == [True, False, True, True]
    assert found[1] == 1.0


def test_a_metric_that_cannot_judge_is_refused() -> None:
    with pytest.raises(Refused, match="brier cannot judge"):
        losses("brier", SCORE, np.array([0.5]), np.array([1.0]))


@pytest.mark.parametrize("df", [9, 30, 49, 1000, inf])
@pytest.mark.parametrize("p", [0.9, 0.975, 0.995, 0.9998])
def test_the_quantile_is_students(p: float, df: float) -> None:
    rel = 0.01 if df < 20 else 0.002
    assert t_quantile(p, df) == pytest.approx(float(reference.t.ppf(p, df)), rel=rel)


def test_without_units_it_is_the_t_interval() -> None:
    x = np.random.default_rng(1).exponential(size=200) - 1
    plain = reference.ttest_1samp(x, 0).confidence_interval(0.95)
    assert mean_of(x).interval() == pytest.approx((plain.low, plain.high), abs=1e-4)


def test_a_unit_that_repeats_itself_is_counted_once() -> None:
    x = np.random.default_rng(2).normal(size=100)
    units = np.array([f"u{n}" for n in range(100)], dtype=object)
    once, often = mean_of(x, units), mean_of(np.repeat(x, 10), np.repeat(units, 10))
    assert (often.mean, often.se) == pytest.approx((once.mean, once.se))
    assert often.units == 100
    assert mean_of(np.repeat(x, 10)).se < 0.4 * often.se


def test_requests_without_a_unit_are_each_their_own() -> None:
    x = np.random.default_rng(3).normal(size=60)
    nobody = np.array([None, ""] * 30, dtype=object)
    assert mean_of(x, nobody) == mean_of(x)


def test_no_difference_seen_is_not_no_difference_there_is() -> None:
    low, high = mean_of(np.zeros(100), counts=True).interval()
    assert -0.05 < low < -0.01
    assert 0.01 < high < 0.05
    assert mean_of(np.zeros(100)).interval() == (0.0, 0.0)


def test_few_are_too_few() -> None:
    assert not mean_of(np.ones(LEAST - 1)).enough
    assert mean_of(np.ones(LEAST)).enough
    assert mean_of(np.array([nan, 1.0])).interval() == (-inf, inf)
    assert mean_of(np.array([nan])).n == 0


def test_two_windows_differ_as_welch_says() -> None:
    rng = np.random.default_rng(4)
    a, b = rng.normal(1, 3, 300), rng.normal(0, 1, 90)
    plain = reference.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    found = difference(mean_of(a), mean_of(b))
    assert found.interval() == pytest.approx((plain.low, plain.high), abs=1e-3)
    assert found.units == 90
    assert difference(mean_of(a), Mean(0.0, inf, 0.0, 0, 0)).interval() == (-inf, inf)


# ---------------------------------------------------------------- shares


def cells(
    new_old: float | None = None, old_new: float | None = None
) -> dict[tuple[str, str], Floats]:
    known = {
        ("new", "new"): 10.0,
        ("old", "old"): 2.0,
        ("new", "old"): new_old,
        ("old", "new"): old_new,
    }
    return {cell: np.full(3, value) for cell, value in known.items() if value is not None}


@pytest.mark.parametrize(("new_old", "old_new"), [(4.0, 7.0), (4.0, None), (None, 7.0)])
def test_shares_add_up_to_the_whole(new_old: float | None, old_new: float | None) -> None:
    parts = shares(cells(new_old, old_new))
    assert parts is not None
    assert (parts.model + parts.features).tolist() == [8.0] * 3


def test_shapley_is_the_mean_of_both_ways() -> None:
    parts = shares(cells(new_old=4.0, old_new=7.0))
    assert parts is not None
    assert parts.both_paths
    assert parts.model.tolist() == [((4 - 2) + (10 - 7)) / 2] * 3
    assert parts.alone_features.tolist() == [5.0] * 3


def test_two_cells_cannot_be_divided() -> None:
    assert shares(cells()) is None
    assert shares({("new", "old"): np.zeros(3), ("old", "new"): np.zeros(3)}) is None


def test_exchanged_features_are_ranked_by_what_they_add() -> None:
    into, out = np.full(3, 5.0), np.full(3, 3.0)
    ranked = swapped(
        cells(),
        {"little": (np.full(3, 2.5), None), "much": (into, out), "none": (None, None)},
        None,
        counts=False,
    )
    assert [(name, found.mean) for name, found in ranked] == [("much", 5.0), ("little", 0.5)]
