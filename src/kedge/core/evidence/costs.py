"""Costs of inferences by the declared prices."""

from __future__ import annotations

from math import inf, isfinite

from kedge.core.values import CostPolicy, Prices


def prices_of(policy: CostPolicy, version: int) -> Prices:
    """Return the prices of a model version: its own, else the endpoint's."""
    return policy.versions.get(f"v{version}", policy)


def cost_of(
    prices: Prices, *, rows: int, micros: int, tokens: float = 0.0, reported: float = 0.0
) -> float:
    """Return the cost per inference (row) of one request.

    Args:
        prices: in the policy's currency.
        rows: inferences in the request; at least 1.
        micros: time inside the model, in microseconds.
        tokens: tokens that the model reported.
        reported: cost that the model reported.
    """
    found = prices.per_call * rows + prices.per_second * micros / 1e6 + prices.per_token * tokens
    total = found + reported
    return total / max(rows, 1) if isfinite(total) else 0.0


def clipped(cost: float, largest: float | None) -> float:
    """Return the cost, limited to 0 to the declared largest one."""
    return min(max(cost, 0.0), inf if largest is None else largest)
