"""Laws of the evidence, and its error under the null: seeded, with the tolerance stated."""

from __future__ import annotations

from itertools import pairwise
from math import exp, inf, log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kedge.core.evidence import bets, stats

ALPHA = 0.01


def test_a_rate_below_the_floor_is_proven_without_one_bad_unit() -> None:
    """After about ln(1/alpha)/floor units, plus ln 8 for the eight bets it is shared with."""
    needed = (log(1 / ALPHA) + log(8)) / 0.001
    assert stats.below_log_e(0, needed * 1.02, 0.001) > log(1 / ALPHA)
    assert stats.below_log_e(0, needed * 0.6, 0.001) < log(1 / ALPHA)
    assert stats.below_log_e(20, needed, 0.001) < 0


def test_a_rate_at_the_floor_is_rarely_proven_below_it() -> None:
    rng = np.random.default_rng(5)
    bad = np.cumsum(rng.binomial(100, 0.01, (3_000, 200)), axis=1)
    units = np.arange(1, 201) * 100
    found = stats.below_log_e(bad, units, 0.01).max(axis=1) >= log(1 / ALPHA)
    assert found.mean() <= ALPHA + 2 * 0.0019


# ---------------------------------------------------------------- restarts


def test_all_stakes_together_are_at_most_the_wealth_there_is() -> None:
    assert sum(stats.stake(k) for k in range(200_000)) <= 1.0


def test_no_restart_is_due_before_the_beginning() -> None:
    assert [stats.restarts(s) for s in (-1e6, 0.0, 599.0, 600.0, 6_000.0)] == [0, 0, 0, 1, 10]


# ---------------------------------------------------------------- means


def test_the_interval_of_a_mean_covers_the_truth_at_every_look() -> None:
    """Asymptotic, so at least 93 % of 400 runs are asked for, of a stated 95 %."""
    rng = np.random.default_rng(17)
    covered = 0
    for _ in range(400):
        d = rng.choice([-1.0, 0.0, 1.0], size=2_000, p=[0.04, 0.9, 0.06])
        n, total, squares = np.arange(1, 2_001), np.cumsum(d), np.cumsum(d * d)
        covered += all(
            low <= 0.02 <= high
            for at in range(99, 2_000, 100)
            for low, high in [stats.mean_interval(n[at], total[at], squares[at], 0.05)]
        )
    assert covered / 400 >= 0.93


def test_without_units_a_mean_may_be_anything() -> None:
    assert stats.mean_interval(0, 0.0, 0.0, 0.05) == (-1.0, 1.0)
    assert stats.asymptotic_half_width(0, 1.0, 1.0, 0.05) == inf


# ---------------------------------------------------------------- ratios and many


def likelihood_of(bad: tuple[int, int], share: float, grid: stats.Floats) -> stats.Floats:
    counts = np.zeros(bets.LABELS, dtype=np.int64)
    counts[bets.CANDIDATE], counts[bets.KEYLESS] = bad[1], sum(bad)
    return bets.label_likelihood(counts, share, share, grid)


@pytest.mark.parametrize("ratio", [0.5, 1.0, 3.0])
def test_the_interval_of_a_ratio_covers_the_truth_at_every_look(ratio: float) -> None:
    """Missed, ever, in at most 5 % of 400 runs, plus two standard errors (1.1 %)."""
    rng = np.random.default_rng(19)
    grid = stats.ratio_grid(0.5)
    missed = 0
    for _ in range(400):
        likelihood = np.zeros(len(grid))
        for _ in range(15):
            bad = int(rng.binomial(300, 0.04)), int(rng.binomial(300, 0.04 * ratio))
            likelihood += likelihood_of(bad, 0.5, grid)
            _, low, high = stats.rate_ratio_interval(likelihood, grid, 0.05)
            if not low <= ratio <= high:
                missed += 1
                break
    assert missed / 400 <= 0.05 + 2 * 0.011


def test_the_estimate_of_a_ratio_is_near_it_with_much_evidence() -> None:
    grid = stats.ratio_grid(0.5)
    sums = likelihood_of((800, 600), 0.2, grid)
    found, low, high = stats.rate_ratio_interval(sums, grid, 0.05)
    assert found == pytest.approx(3.0, rel=0.1)
    assert 2.0 < low < 3.0 < high < 4.5


def test_without_evidence_a_ratio_may_be_anything() -> None:
    grid = stats.ratio_grid(0.5)
    assert stats.rate_ratio_interval(np.zeros(len(grid)), grid, 0.05) == (None, 0.0, inf)


def test_a_ratio_grid_ascends() -> None:
    for delta in (0.05, 0.5, 1.0):
        assert all(a < b for a, b in pairwise(stats.ratio_grid(delta)))


@given(st.lists(st.floats(-5, 12), max_size=12))
def test_e_bh_is_its_definition(values: list[float]) -> None:
    log_e, count = np.array(values), len(values)
    best = 0
    for k in range(1, count + 1):
        if sorted(values, reverse=True)[k - 1] >= log(count / (0.05 * k)):
            best = k
    assert stats.e_bh(log_e, 0.05).sum() >= best
    cut = sorted(values, reverse=True)[best - 1] if best else inf
    assert list(stats.e_bh(log_e, 0.05)) == [value >= cut for value in values]


def test_a_right_split_is_rarely_called_a_mismatch_and_a_wrong_one_is_found() -> None:
    rng = np.random.default_rng(23)
    wrong = 0
    for _ in range(300):
        theirs = np.cumsum(rng.binomial(100, 0.05, 60))
        wrong += any(
            stats.srm_log_e(100 * (n + 1) - int(theirs[n]), int(theirs[n]), 0.05) >= log(1 / ALPHA)
            for n in range(60)
        )
    assert wrong / 300 <= ALPHA + 2 * 0.0058
    assert stats.srm_log_e(9_300, 700, 0.05) > log(1 / ALPHA)
    assert stats.srm_log_e(10, 1, 0.0) == inf
    assert stats.srm_log_e(10, 0, 0.0) == 0.0


def test_a_mixture_is_the_mean_of_the_wealth() -> None:
    wealth = np.log([[1.0, 3.0], [0.5, 1.5]])
    assert np.allclose(np.exp(stats.log_mixture(wealth)), [2.0, 1.0])
    assert exp(stats.log_mixture(np.array([-inf, log(4.0)]))) == pytest.approx(2.0)
    assert stats.log_mixture(np.array([900.0, 900.0])) == pytest.approx(900.0)
