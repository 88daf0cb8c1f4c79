"""Laws of the evidence, and its error under the null: seeded, with the tolerance stated."""

from __future__ import annotations

from itertools import pairwise
from math import exp, inf, log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kedge.core import stats
from kedge.core.stats import ALARM_GRID, LAMBDAS

ALPHA = 0.01


@given(w=st.floats(0.001, 0.999), r0=st.floats(0.5, 4.0))
def test_a_bet_is_fair_under_the_hypothesis_it_is_made_against(w: float, r0: float) -> None:
    """The mean of the wealth after one bad unit is 1, for every share and every bet."""
    rise, fall = stats.label_increments(w, ALARM_GRID * r0, r0)
    theirs = w * r0 / (w * r0 + 1 - w)
    mean = theirs * np.exp(rise) + (1 - theirs) * np.exp(fall)
    assert np.allclose(mean, 1.0)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_share_of_nothing_or_everything_says_nothing(share: float) -> None:
    rise, fall = stats.label_increments(share, ALARM_GRID)
    assert not rise.any()
    assert not fall.any()
    sums = stats.label_sums(np.array([share]), np.array([[3.0, 4.0]]), ALARM_GRID)
    assert not sums.any()


def test_sums_are_increments_times_counts() -> None:
    rng = np.random.default_rng(1)
    share, bad = rng.uniform(0, 1, 50), rng.integers(0, 9, (50, 2)).astype(float)
    for r0 in (1.0, 2.0):
        rise, fall = stats.label_increments(share, ALARM_GRID * r0, r0)
        expected = bad[:, 1:] * rise + bad[:, :1] * fall
        assert np.allclose(stats.label_sums(share, bad, ALARM_GRID * r0, r0), expected)


def alarms(share: float, units: int, rate: float, seed: int, runs: int = 2_000) -> float:
    """How many of many healthy candidates are ever found guilty, looked at after every interval."""
    rng = np.random.default_rng(seed)
    wealth = np.zeros((runs, len(ALARM_GRID)))
    highest = np.full(runs, -inf)
    for _ in range(200):
        candidate = rng.binomial(units, share, runs)
        production = units - candidate
        bad = np.stack([rng.binomial(production, rate), rng.binomial(candidate, rate)], axis=1)
        wealth += stats.label_sums(candidate / units, bad.astype(float), ALARM_GRID)
        highest = np.maximum(highest, stats.log_mixture(wealth))
    return float((highest >= log(1 / ALPHA)).mean())


@pytest.mark.parametrize("share", [0.01, 0.05, 0.25, 0.5])
def test_a_healthy_candidate_is_rarely_found_guilty_however_often_one_looks(share: float) -> None:
    """At most alpha, plus two standard errors of 2,000 runs (0.45 %)."""
    assert alarms(share, units=100, rate=0.03, seed=7) <= ALPHA + 2 * 0.0023


def test_and_without_the_realised_share_it_would_be_found_guilty_often() -> None:
    """What the tolerance above is worth: the configured share in place of the realised one."""
    rng = np.random.default_rng(3)
    wealth = np.zeros((500, len(ALARM_GRID)))
    for _ in range(100):
        candidate = rng.binomial(400, 0.07, 500)  # a router that is off by two points
        bad = np.stack([rng.binomial(400 - candidate, 0.05), rng.binomial(candidate, 0.05)], 1)
        wealth += stats.label_sums(np.full(500, 0.05), bad.astype(float), ALARM_GRID)
    assert (stats.log_mixture(wealth) >= log(1 / ALPHA)).mean() > 0.3


def test_a_certificate_is_rarely_given_to_a_candidate_at_the_margin() -> None:
    rng = np.random.default_rng(11)
    grid = stats.ratio_grid(0.5)
    likelihood = np.zeros((2_000, len(grid)))
    highest = np.full(2_000, -inf)
    for _ in range(150):
        bad = np.stack([rng.binomial(200, 0.02, 2_000), rng.binomial(200, 0.03, 2_000)], axis=1)
        likelihood += stats.label_sums(np.full(2_000, 0.5), bad.astype(float), grid)
        highest = np.maximum(highest, stats.certificate_log_e(likelihood))
    assert (highest >= log(1 / ALPHA)).mean() <= ALPHA + 2 * 0.0023


def test_a_certificate_is_given_to_an_equal_candidate_in_the_end() -> None:
    grid = stats.ratio_grid(0.5)
    sums = stats.label_sums(np.array([0.5]), np.array([[600.0, 600.0]]), grid)
    assert stats.certificate_log_e(sums)[0] > log(1 / ALPHA)


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
    assert stats.placed(10**7) <= 1.0


def test_placed_is_the_sum_of_the_stakes() -> None:
    for k in (0, 1, 143, 144, 145, 288, 1_000):
        assert stats.placed(k) == pytest.approx(sum(stats.stake(n) for n in range(k + 1)))


def test_no_restart_is_due_before_the_beginning() -> None:
    assert [stats.restarts(s) for s in (-1e6, 0.0, 599.0, 600.0, 6_000.0)] == [0, 0, 0, 1, 10]


def test_a_restart_adds_its_stake_to_every_bet_and_nothing_to_a_fortune() -> None:
    wealth = np.array([[log(0.5), log(1e-9), 700.0]])
    found = stats.restarted(wealth, 0.25)
    assert np.allclose(np.exp(found[0, :2]), [0.75, 0.25])
    assert found[0, 2] == 700.0


# ---------------------------------------------------------------- means


@given(st.lists(st.tuples(st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 1.0])), max_size=40))
def test_bets_on_right_and_wrong_are_mcnemars(pairs: list[tuple[float, float]]) -> None:
    """A bet of lambda is one on a ratio of (1 + lambda) / (1 - lambda) of the discordant pairs."""
    ours, theirs = [p for p, _ in pairs], [c for _, c in pairs]
    worse = sum(c > p for p, c in pairs)
    better = sum(p > c for p, c in pairs)
    found = stats.paired_sums(ours, theirs, 0.05)[: stats.BETS]
    ratios = (1 + LAMBDAS) / (1 - LAMBDAS)
    expected = stats.label_sums(np.array([0.5]), np.array([[float(better), float(worse)]]), ratios)
    assert np.allclose(found, expected[0])


def test_batches_of_pairs_add_up() -> None:
    rng = np.random.default_rng(2)
    ours, theirs = rng.uniform(0, 1, 100), rng.uniform(0, 1, 100)
    parts = sum(
        stats.paired_sums(ours[n : n + 10], theirs[n : n + 10], 0.1) for n in range(0, 100, 10)
    )
    assert np.allclose(parts, stats.paired_sums(ours, theirs, 0.1))


def test_equal_losses_are_rarely_judged_worse_or_better() -> None:
    """Both hypotheses at their edge: equal means, and a mean at exactly the margin."""
    rng = np.random.default_rng(13)
    worse = within = 0
    for _ in range(300):
        p, c = rng.beta(2, 5, 1_000), rng.beta(2, 5, 1_000)
        steps = [stats.paired_sums(p[n : n + 50], c[n : n + 50], 0.1) for n in range(0, 1_000, 50)]
        walk = np.cumsum(steps, axis=0)
        worse += stats.log_mixture(walk[:, : stats.BETS]).max() >= log(1 / ALPHA)
        at_margin = rng.permutation(1.1 * p).clip(0, 1)
        steps = [
            stats.paired_sums(p[n : n + 50], at_margin[n : n + 50], 0.1)
            for n in range(0, 1_000, 50)
        ]
        walk = np.cumsum(steps, axis=0)
        within += stats.log_mixture(walk[:, stats.BETS : 2 * stats.BETS]).max() >= log(1 / ALPHA)
    assert worse / 300 <= ALPHA + 2 * 0.0058
    assert within / 300 <= ALPHA + 2 * 0.0058


def test_two_equal_arms_are_rarely_judged_worse_or_within_a_margin_that_is_passed() -> None:
    """Unpaired, at a fifth of the units: at the edge of both hypotheses, looked at every batch."""
    rng = np.random.default_rng(31)
    worse = within = 0
    for _ in range(300):
        walk, edge = np.zeros(stats.SUMS), np.zeros(stats.SUMS)
        highest = lowest = -inf
        for _ in range(30):
            p, c = (
                rng.beta(2, 5, rng.binomial(80, 0.8) + 1),
                rng.beta(2, 5, rng.binomial(80, 0.2) + 1),
            )
            walk += stats.arm_sums(p, c, 0.1)
            edge += stats.arm_sums(p, (1.1 * c).clip(0, 1), 0.1)
            highest = max(highest, stats.log_mixture(walk[: stats.BETS]))
            lowest = max(lowest, stats.log_mixture(edge[stats.BETS : 2 * stats.BETS]))
        worse += highest >= log(1 / ALPHA)
        within += lowest >= log(1 / ALPHA)
    assert worse / 300 <= ALPHA + 2 * 0.0058
    assert within / 300 <= ALPHA + 2 * 0.0058


def test_a_worse_arm_is_found_and_an_equal_one_proven() -> None:
    rng = np.random.default_rng(37)
    walk, equal = np.zeros(stats.SUMS), np.zeros(stats.SUMS)
    for _ in range(100):
        p = rng.beta(2, 8, 60)
        walk += stats.arm_sums(p, (rng.beta(2, 8, 30) + 0.1).clip(0, 1), 0.5)
        equal += stats.arm_sums(p, rng.beta(2, 8, 30), 0.5)
    assert stats.log_mixture(walk[: stats.BETS]) > log(1 / ALPHA)
    assert stats.log_mixture(equal[stats.BETS : 2 * stats.BETS]) > log(1 / ALPHA)
    n, total = walk[2 * stats.BETS : 2 * stats.BETS + 2]
    assert total / n == pytest.approx(0.1, abs=0.02)
    assert not stats.arm_sums([0.5], [], 0.1).any()


def test_losses_outside_their_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        stats.paired_sums([0.5], [1.5], 0.1)
    with pytest.raises(ValueError, match=r"\[-1, 1\]"):
        stats.bet_sums([1.5], LAMBDAS)


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


@pytest.mark.parametrize("ratio", [0.5, 1.0, 3.0])
def test_the_interval_of_a_ratio_covers_the_truth_at_every_look(ratio: float) -> None:
    """Missed, ever, in at most 5 % of 400 runs, plus two standard errors (1.1 %)."""
    rng = np.random.default_rng(19)
    grid = stats.ratio_grid(0.5)
    missed = 0
    for _ in range(400):
        likelihood = np.zeros(len(grid))
        for _ in range(15):
            bad = np.array(
                [[rng.binomial(300, 0.04), rng.binomial(300, 0.04 * ratio)]], dtype=float
            )
            likelihood += stats.label_sums(np.array([0.5]), bad, grid)[0]
            _, low, high = stats.rate_ratio_interval(likelihood, grid, 0.05)
            if not low <= ratio <= high:
                missed += 1
                break
    assert missed / 400 <= 0.05 + 2 * 0.011


def test_the_estimate_of_a_ratio_is_near_it_with_much_evidence() -> None:
    grid = stats.ratio_grid(0.5)
    sums = stats.label_sums(np.array([0.2]), np.array([[800.0, 600.0]]), grid)[0]
    found, low, high = stats.rate_ratio_interval(sums, grid, 0.05)
    assert found == pytest.approx(3.0, rel=0.1)
    assert 2.0 < low < 3.0 < high < 4.5


def test_without_evidence_a_ratio_may_be_anything() -> None:
    grid = stats.ratio_grid(0.5)
    assert stats.rate_ratio_interval(np.zeros(len(grid)), grid, 0.05) == (None, 0.0, inf)


def test_a_ratio_grid_ascends_and_its_margin_stands_where_it_is_said_to() -> None:
    for delta in (0.05, 0.5, 1.0):
        grid = stats.ratio_grid(delta)
        assert all(a < b for a, b in pairwise(grid))
        assert grid[stats.NULL] == pytest.approx(1 + delta)


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


def test_bonferroni_splits_the_budget() -> None:
    found = stats.bonferroni(np.log([150.0, 250.0, 90.0]), 0.01, np.array([0.5, 0.5, 0.0]))
    assert list(found) == [False, True, False]
    assert list(stats.bonferroni(np.log([150.0, 250.0]), 0.01)) == [False, True]
    assert not len(stats.bonferroni(np.zeros(0), 0.01))


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
