"""What an inference costs: prices, sums, and a verdict that errs as rarely as it says."""

from __future__ import annotations

import numpy as np
import pytest

from kedge.core.costs import ALPHA, LEAST, cost_of, prices_of, verdict
from kedge.core.values import CostPolicy, Prices
from kedge.core.windows import Spent

PRICES = Prices(per_call=0.01, per_second=2.0, per_token=0.001)


def sums(values: np.ndarray) -> tuple[int, float, float]:
    return len(values), float(values.sum()), float(np.square(values).sum())


def test_all_parts_are_added_up_an_inference() -> None:
    """Two rows, half a second, 100 tokens, and 30 that the model reported."""
    found = cost_of(PRICES, rows=2, micros=500_000, tokens=100, reported=30)
    assert found == pytest.approx((2 * 0.01 + 1.0 + 0.1 + 30) / 2)


@pytest.mark.parametrize("said", [float("nan"), float("inf")])
def test_what_is_no_number_costs_nothing(said: float) -> None:
    """A model's nonsense must not make every later sum nonsense."""
    assert cost_of(PRICES, rows=1, micros=10, reported=said) == 0.0


def test_a_version_may_have_prices_of_its_own() -> None:
    policy = CostPolicy(per_call=1.0, versions={"v3": Prices(per_call=5.0)})
    assert [prices_of(policy, n).per_call for n in (2, 3)] == [1.0, 5.0]


def test_without_enough_requests_nothing_is_said() -> None:
    few = Spent((LEAST - 1, 1.0, 1.0), (LEAST, 1.0, 1.0))
    assert verdict("", few, 0.1).verdict == "inconclusive"
    assert verdict("", Spent(), 0.1).verdict == "inconclusive"


def test_a_fixed_price_is_known_at_once() -> None:
    same = sums(np.full(LEAST, 0.01))
    dearer = sums(np.full(LEAST, 0.02))
    assert verdict("", Spent(same, same), 0.1).verdict == "pass"
    found = verdict("", Spent(same, dearer), 0.1)
    assert found.verdict == "fail"
    assert found.ratio == pytest.approx(2.0)


def looked_at(ratio: float, worse_by: float, seed: int) -> list[str]:
    """Verdicts on skewed costs, looked at every hundred requests."""
    dice = np.random.default_rng(seed)
    spent = Spent()
    words: list[str] = []
    for _ in range(100):
        ours, theirs = dice.gamma(2.0, 1.0, 100), dice.gamma(2.0, ratio, 100)
        spent = spent.plus(Spent(sums(ours), sums(theirs)))
        words.append(verdict("", spent, worse_by).verdict)
    return words


def test_a_dearer_candidate_fails_and_a_cheaper_one_passes() -> None:
    assert {looked_at(1.5, 0.1, seed)[-1] for seed in range(20)} == {"fail"}
    assert {looked_at(0.9, 0.1, seed)[-1] for seed in range(20)} == {"pass"}


def test_looking_often_fails_no_candidate_at_the_margin() -> None:
    """At exactly the margin both verdicts are wrong: at most ALPHA, in 300 runs of a hundred looks."""
    wrong = sum(bool({"fail", "pass"} & set(looked_at(1.1, 0.1, seed))) for seed in range(300))
    assert wrong <= 300 * ALPHA + 3
