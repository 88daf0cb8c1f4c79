"""The cost of an inference: prices, sums, and clipping."""

from __future__ import annotations

import pytest

from kedge.core.evidence.costs import clipped, cost_of, prices_of
from kedge.core.values import CostPolicy, Prices

PRICES = Prices(per_call=0.01, per_second=2.0, per_token=0.001)


def test_all_parts_are_added_up_an_inference() -> None:
    """Two rows, half a second, 100 tokens, and 30 that the model reported."""
    found = cost_of(PRICES, rows=2, micros=500_000, tokens=100, reported=30)
    assert found == pytest.approx((2 * 0.01 + 1.0 + 0.1 + 30) / 2)


@pytest.mark.parametrize("said", [float("nan"), float("inf")])
def test_a_cost_that_is_no_number_counts_as_zero(said: float) -> None:
    """A model's nonsense must not make every later sum nonsense."""
    assert cost_of(PRICES, rows=1, micros=10, reported=said) == 0.0


def test_a_version_may_have_prices_of_its_own() -> None:
    policy = CostPolicy(per_call=1.0, versions={"v3": Prices(per_call=5.0)})
    assert [prices_of(policy, n).per_call for n in (2, 3)] == [1.0, 5.0]


def test_a_cost_is_clipped_between_nothing_and_the_declared_largest() -> None:
    assert [clipped(cost, 2.0) for cost in (-1.0, 1.0, 3.0)] == [0.0, 1.0, 2.0]
    assert clipped(1e9, None) == 1e9
