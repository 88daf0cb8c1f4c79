"""What an inference costs, and whether the candidate's cost more. Values in, values out.

Cost is a mean, unbounded and often skewed, so it is judged by an asymptotic confidence sequence
(Waudby-Smith et al., Annals of Statistics 2024) of the difference of the arms' means, which may
be looked at every second; bets, as for losses, need values with a bound.
"""

from __future__ import annotations

from math import isfinite, sqrt
from typing import Any

from kedge.core.evidence.rules import Verdict
from kedge.core.stats import asymptotic_half_width, rho_for
from kedge.core.values import CostPolicy, Prices
from kedge.core.windows import Spent

LEAST = 500
"""Requests of each arm before a verdict: the central limit that the interval rests on."""
ALPHA = 0.001
"""Of wrong verdicts on cost, beside the alarm's one per cent: it is declared by few."""


def prices_of(policy: CostPolicy, version: int) -> Prices:
    """The prices of a model version: its own, else the endpoint's."""
    return policy.versions.get(f"v{version}", policy)


def cost_of(
    prices: Prices, *, rows: int, micros: int, tokens: float = 0.0, reported: float = 0.0
) -> float:
    """Cost per inference (row) of one request.

    Args:
        prices: in the policy's currency.
        rows: inferences in the request; at least 1.
        micros: time inside the model, in microseconds.
        tokens: what the model said that it used.
        reported: what the model said that it cost.
    """
    found = prices.per_call * rows + prices.per_second * micros / 1e6 + prices.per_token * tokens
    total = found + reported
    return total / max(rows, 1) if isfinite(total) else 0.0


def verdict(segment: str, spent: Spent, worse_by: float) -> Verdict:
    """Compare what two arms cost in one segment.

    `fail` is proven to cost over `1 + worse_by` times production's mean; `pass` to cost less than
    that. The arms are taken as independent, which for pairs of the same requests is careful.

    Returns:
        The interval is of the difference of the means, candidate less production; anytime-valid,
        1 - `ALPHA`.
    """
    (n0, sum0, _), (n1, sum1, _) = spent.production, spent.candidate
    known: dict[str, Any] = {
        "metric": "cost", "segment": segment, "units": (n0, n1), "bad": (0, 0), "log_e": 0.0,
        "log_e_pass": 0.0, "suspect": False,
    }  # fmt: skip
    if min(n0, n1) < LEAST:
        reason = f"{min(n0, n1)} of {LEAST} requests on the smaller arm"
        return Verdict(verdict="inconclusive", reason=reason, **known)
    m0, m1 = sum0 / n0, sum1 / n1
    half, plain = _half(spent, 1 + worse_by), _half(spent, 1.0)
    known |= {"ratio": m1 / m0 if m0 else None, "interval": (m1 - m0 - plain, m1 - m0 + plain),
              "difference": m1 - m0}  # fmt: skip
    beyond = m1 - (1 + worse_by) * m0
    told = f"{m1:.3g} an inference, production {m0:.3g}"
    if beyond - half > 0:
        return Verdict(
            verdict="fail", reason=f"over {worse_by:.0%} dearer, proven: {told}", **known
        )
    if beyond + half < 0 or half == 0:
        return Verdict(verdict="pass", reason=f"not {worse_by:.0%} dearer, proven: {told}", **known)
    return Verdict(verdict="inconclusive", reason=f"neither proven: {told}", **known)


def _half(spent: Spent, times: float) -> float:
    """Half the width for the candidate's mean less `times` production's."""
    (n0, sum0, squares0), (n1, sum1, squares1) = spent.production, spent.candidate
    var0 = max(squares0 / n0 - (sum0 / n0) ** 2, 0.0)
    var1 = max(squares1 / n1 - (sum1 / n1) ** 2, 0.0)
    n = n0 * n1 / (n0 + n1)
    sigma = sqrt(n * (var1 / n1 + times * times * var0 / n0))
    return asymptotic_half_width(n, sigma, rho_for(LEAST, ALPHA), ALPHA)
