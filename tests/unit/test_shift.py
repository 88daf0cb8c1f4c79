"""The shift of inputs is found, the split adds up, and a misfit of one half does no harm."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as reference
from sklearn.linear_model import LogisticRegression

from kedge.core.diagnosis import shift as disde
from kedge.core.diagnosis.shift import (
    ShiftWindow,
    basis,
    domain,
    expected,
    ks,
    logistic,
    ranked,
    spaced,
    terms,
)


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_newton_finds_what_scikit_learn_finds() -> None:
    x = rng(1).normal(size=(800, 3))
    t = (rng(2).random(800) < 1 / (1 + np.exp(-(x @ [1.0, -2.0, 0.5] + 0.3)))).astype(float)
    beta = logistic(np.c_[np.ones(800), x], t)
    other = LogisticRegression(C=1 / disde.PENALTY, tol=1e-10, max_iter=1_000).fit(x, t)
    assert beta[1:] == pytest.approx(other.coef_[0], abs=1e-4)
    assert beta[0] == pytest.approx(other.intercept_[0], abs=1e-4)


def test_newton_survives_two_windows_that_have_nothing_in_common() -> None:
    p, q = domain({"x": rng(1).normal(size=300)}, {"x": rng(2).normal(100, 1, 300)})
    assert np.isfinite(p).all()
    assert np.median(p) < 0.1
    assert np.median(q) > 0.9


def test_the_same_population_cannot_be_distinguished() -> None:
    p, q = domain({"x": rng(1).normal(size=2_000)}, {"x": rng(2).normal(size=500)})
    assert np.concatenate([p, q]).mean() == pytest.approx(0.5, abs=0.05), (
        "both sides count the same"
    )
    assert max(p.std(), q.std()) < 0.08


def test_words_and_nulls_tell_windows_apart() -> None:
    words = np.array(["a", "b", None, "c"] * 200, dtype=object)
    other = np.array(["a", "a", None, "d"] * 200, dtype=object)
    p, q = domain({"w": words}, {"w": other})
    assert p[words == "c"].max() < 0.1
    assert q[other == "d"].min() > 0.9
    x = rng(1).normal(size=400)
    holes = np.where(np.arange(400) % 2, x, np.nan)
    p, q = domain({"x": x}, {"x": holes})
    assert q[::2].min() > 0.9


def test_a_column_of_one_value_says_nothing() -> None:
    assert basis(np.full(50, 3.0)).shape == (50, 0)
    assert basis(np.full(50, np.nan)).shape == (50, 1)
    p, q = domain({"x": np.full(100, 3.0)}, {"x": np.full(100, 3.0)})
    assert p == pytest.approx(0.5)
    assert q == pytest.approx(0.5)


def test_ranks_are_even_and_a_null_is_in_the_middle() -> None:
    found = ranked(np.array([3.0, 1.0, np.nan, 1e9]))
    assert found[2] == 0.0
    assert -1 <= found[1] < found[0] < found[3] <= 1


def windows(shift: float, concept: float, n: int = 4_000) -> tuple[ShiftWindow, ShiftWindow]:
    """Losses that grow with x; today's inputs are shifted, and the same inputs lose more."""
    dice = rng(5)
    x, y = dice.normal(size=n), dice.normal(shift, 1, n)
    lost, now = x**2 + dice.normal(size=n), y**2 + concept + dice.normal(size=n)
    p, q = domain({"x": x}, {"x": y})
    usual, usual_now = expected({"x": x}, lost, {"x": y})
    return ShiftWindow(lost, p, usual), ShiftWindow(now, q, usual_now)


@pytest.mark.parametrize(("shift", "concept"), [(0.0, 0.0), (0.8, 0.0), (0.0, 1.0), (0.8, 1.0)])
def test_the_rise_is_split_as_it_was_made(shift: float, concept: float) -> None:
    before, now = windows(shift, concept)
    found = terms(before, now)
    assert found.concept + found.inputs == pytest.approx(now.loss.mean() - before.loss.mean())
    assert found.concept == pytest.approx(concept, abs=4 * found.concept_se)
    assert found.inputs == pytest.approx(shift**2, abs=4 * found.inputs_se + 0.05)
    assert found.overlaps


def test_wrong_weights_do_no_harm_where_the_expectation_is_right() -> None:
    before, now = windows(0.8, 1.0)
    blind = terms(before._replace(p=np.full(4_000, 0.5)), now._replace(p=np.full(4_000, 0.5)))
    assert blind.concept == pytest.approx(1.0, abs=0.1)
    dull = terms(before._replace(expected=np.zeros(4_000)), now._replace(expected=np.zeros(4_000)))
    assert dull.concept == pytest.approx(1.0, abs=0.2)


def test_no_overlap_is_said() -> None:
    before, now = windows(12.0, 0.0, n=500)
    assert not terms(before, now).overlaps


def test_errors_are_those_of_repeated_windows() -> None:
    """The stated error of the concept against its spread over 60 draws."""
    found, stated = [], []
    for seed in range(60):
        dice = rng(100 + seed)
        x, y = dice.normal(size=800), dice.normal(0.5, 1, 800)
        lost, now = x**2 + dice.normal(size=800), y**2 + dice.normal(size=800)
        p, q = domain({"x": x}, {"x": y})
        usual, usual_now = expected({"x": x}, lost, {"x": y})
        told = terms(ShiftWindow(lost, p, usual), ShiftWindow(now, q, usual_now))
        found.append(told.concept)
        stated.append(told.concept_se)
    assert np.std(found) == pytest.approx(np.mean(stated), rel=0.35)


def test_kolmogorov_and_smirnov_agree_with_scipy() -> None:
    a, b = rng(1).normal(size=500), rng(2).normal(0.15, 1, 700)
    plain = reference.ks_2samp(a, b, method="asymp")
    distance, p = ks(a, b)
    assert distance == pytest.approx(plain.statistic)
    assert p == pytest.approx(plain.pvalue, rel=0.15)
    assert ks(a, a) == (0.0, 1.0)
    assert ks(a, a[:0]) == (0.0, 1.0)


def test_many_rows_are_thinned_evenly() -> None:
    assert spaced(5).tolist() == [0, 1, 2, 3, 4]
    rows = spaced(100_000, 1_000)
    assert (rows[0], rows[-1], len(set(rows.tolist()))) == (0, 99_999, 1_000)
