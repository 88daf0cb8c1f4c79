"""Laws of the bets: fair without a difference, and never in favour of a false claim."""

from __future__ import annotations

from itertools import product
from math import comb, exp, log, prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kedge.core.evidence import bets
from kedge.core.evidence.stats import ALARM_GRID, LAMBDAS, log_mixture

ALPHA = 0.01


def counts(theirs: int, every: int, kind: int = bets.KEYLESS, bursts: int = 0) -> bets.Counts:
    found = np.zeros(bets.LABELS, dtype=np.int64)
    found[bets.CANDIDATE], found[kind], found[bets.BURSTS] = theirs, every, bursts
    return found


@given(
    w=st.floats(0.001, 0.999),
    r0=st.floats(0.5, 4.0),
    kind=st.sampled_from([bets.CALLERS, bets.KEYLESS]),
)
def test_a_bet_on_a_label_is_fair_under_its_hypothesis(w: float, r0: float, kind: int) -> None:
    """The mean of the wealth after one bad unit is 1, for every share."""
    theirs = w * r0 / (w * r0 + 1 - w)
    wealth = [exp(bets.label_wealth(counts(n, 1, kind), w, w, r0)[0]) for n in (0, 1)]
    assert theirs * wealth[1] + (1 - theirs) * wealth[0] == pytest.approx(1.0)


@pytest.mark.parametrize("share", [0.01, 0.05, 0.25, 0.5])
def test_a_healthy_candidate_is_rarely_found_guilty_however_often_one_looks(share: float) -> None:
    """At most alpha, plus two standard errors of 2,000 runs (0.45 %)."""
    rng = np.random.default_rng(7)
    theirs = np.cumsum(rng.random((2_000, 600)) < share, axis=1)
    found = np.zeros((2_000, 600, bets.LABELS), dtype=np.int64)
    found[..., bets.CANDIDATE], found[..., bets.CALLERS] = theirs, np.arange(1, 601)
    highest = bets.label_wealth(found, share, share)[0].max(axis=1)
    assert (highest >= log(1 / ALPHA)).mean() <= ALPHA + 2 * 0.0023


def test_and_with_another_share_than_the_set_one_it_would_be_found_guilty_often() -> None:
    """What the tolerance above is worth: a router that is off by two points."""
    rng = np.random.default_rng(3)
    theirs = rng.binomial(2_000, 0.07, 500)
    found = np.stack([counts(int(n), 2_000) for n in theirs])
    assert (bets.label_wealth(found, 0.05, 0.05)[0] >= log(1 / ALPHA)).mean() > 0.3


def test_a_burst_earns_at_most_what_a_share_of_a_half_earns() -> None:
    one = bets.label_wealth(counts(1, 0, bursts=1), 0.05, 0.05)[0]
    assert one == pytest.approx(log_mixture(np.log(ALARM_GRID) - np.log1p(0.5 * (ALARM_GRID - 1))))


@given(
    loss=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=2, max_size=6),
    share=st.sampled_from([0.05, 0.25, 0.5]),
)
def test_counts_of_callers_are_fair_over_all_assignments(
    loss: list[tuple[int, int]], share: float
) -> None:
    """Whatever each caller does on whichever release: over the assignments the mean is 1."""
    same = [one for one, _ in loss]
    mean = 0.0
    for arms in product((0, 1), repeat=len(same)):
        part = prod(share if arm else 1 - share for arm in arms)
        x1 = np.array([x for x, arm in zip(same, arms, strict=True) if arm and x], dtype=float)
        x0 = np.array([x for x, arm in zip(same, arms, strict=True) if not arm and x], dtype=float)
        mean += part * exp(bets.counts_log_e(x1, x0, share, None))
    assert mean == pytest.approx(1.0)


@given(
    loss=st.lists(st.integers(0, 40), min_size=2, max_size=6),
    share=st.sampled_from([0.05, 0.25, 0.5]),
    worse_by=st.sampled_from([0.05, 0.5, 1.0]),
)
def test_a_certificate_is_no_bargain_at_the_margin(
    loss: list[int], share: float, worse_by: float
) -> None:
    """Each caller exactly `worse_by` worse on the candidate: over the assignments the mean is at most 1."""
    mean = 0.0
    for arms in product((0, 1), repeat=len(loss)):
        part = prod(share if arm else 1 - share for arm in arms)
        x1 = np.array([x * (1 + worse_by) for x, arm in zip(loss, arms, strict=True) if arm and x])
        x0 = np.array([float(x) for x, arm in zip(loss, arms, strict=True) if not arm and x])
        mean += part * exp(bets.callers_certificate(x1, x0, share, worse_by, None))
    assert mean <= 1.0 + 1e-9


@pytest.mark.parametrize("known", [(30, 10), (20, 20)])
def test_the_realised_share_is_no_bargain_either(known: tuple[int, int]) -> None:
    """Over all ways to give so many of 40 callers to the candidate, all exactly at the margin."""
    n0, n1 = known
    bad = 12
    mean = 0.0
    for theirs in range(max(0, bad - n0), min(bad, n1) + 1):
        ways = comb(n1, theirs) * comb(n0, bad - theirs) / comb(n0 + n1, bad)
        x1, x0 = np.full(theirs, 3.0), np.full(bad - theirs, 2.0)
        mean += ways * exp(bets.callers_certificate(x1, x0, n1 / (n0 + n1), 0.5, known))
    assert mean <= 1.0 + 1e-9


def test_callers_that_are_capped_in_both_arms_prove_nothing() -> None:
    """All fail so often that both counts are at their caps: no ratio can be read from them."""
    found = bets.callers_certificate(np.full(500, 1e6), np.full(500, 1e6), 0.5, 0.5, (500, 500))
    assert found < log(1 / ALPHA)


@given(
    worse=st.integers(0, 12),
    better=st.integers(0, 12),
    both=st.integers(0, 12),
    d=st.sampled_from([0.05, 0.5]),
)
def test_pairs_add_up_however_they_are_given(worse: int, better: int, both: int, d: float) -> None:
    one = np.repeat([1.0, 0.0, 1.0], [worse, better, both])
    other = np.repeat([0.0, 1.0, 1.0], [worse, better, both])
    times = np.array([worse, better, both])
    short = bets.pairs_certificate(np.array([1.0, 0.0, 1.0]), np.array([0.0, 1.0, 1.0]), d, times)
    assert bets.pairs_certificate(one, other, d) == pytest.approx(short)


def test_pairs_at_the_margin_are_rarely_certified() -> None:
    """At most alpha of 300 runs, plus two standard errors (1.2 %), looked at after each fifty."""
    rng = np.random.default_rng(13)
    certified = 0
    for _ in range(300):
        ours = rng.beta(2, 5, 1_000)
        theirs = rng.permutation(1.1 * ours).clip(0, 1)
        steps = np.stack(
            [
                bets.mean_certificate(p, c, 0.5, 0.1, paired=True)
                for p, c in zip(ours, theirs, strict=True)
            ]
        )
        certified += log_mixture(np.cumsum(steps, axis=0)[49::50]).max() >= log(1 / ALPHA)
    assert certified / 300 <= ALPHA + 2 * 0.0058


@given(st.floats(0, 1), st.sampled_from([0.05, 0.25, 0.5]))
def test_a_loss_that_does_not_depend_on_the_arm_is_a_fair_bet(loss: float, share: float) -> None:
    theirs, ours = np.exp(bets.mean_steps(loss, 1, share)), np.exp(bets.mean_steps(loss, 0, share))
    assert np.allclose(share * theirs + (1 - share) * ours, 1.0)


def test_bets_on_right_and_wrong_are_mcnemars() -> None:
    """A bet of lambda is one on a ratio of (1 + lambda) / (1 - lambda) of the discordant pairs."""
    ratios = (1 + LAMBDAS) / (1 - LAMBDAS)
    assert np.allclose(bets.pair_steps(1.0), np.log(ratios) - np.log1p(0.5 * (ratios - 1)))
    assert np.allclose(bets.pair_steps(-1.0), -np.log1p(0.5 * (ratios - 1)))
