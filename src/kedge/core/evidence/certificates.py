"""Certificates: whether a row is proven to be not worse than its margin."""

from __future__ import annotations

from math import log

import numpy as np

from kedge.core import stats
from kedge.core.evidence import bets
from kedge.core.evidence.rules import QUALITY, Rail
from kedge.core.evidence.step import TAIL, Step
from kedge.core.stats import Floats


def callers_proof(
    step: Step, found: dict[str, Floats], rail: Rail, known: tuple[int, int] | None
) -> float:
    """Return the callers' certificate of one guardrail from the counts of one row."""
    if step.span.paired:
        return bets.pairs_certificate(found["theirs"], found["ours"], rail.worse_by)
    theirs, ours = found["theirs"][found["arm"] == 1], found["ours"][found["arm"] == 0]
    return bets.callers_certificate(theirs, ours, step.span.callers, rail.worse_by, known)


def proof(step: Step, metric: str, name: str, rail: Rail, row: int, floor: float) -> float:
    """Return the certificate of a guardrail in one row, scaled to pass at 1/alpha.

    Args:
        step: where it is proven.
        metric: whose row it is.
        name: of the guardrail.
        rail: the guardrail.
        row: of the metric and segment.
        floor: the least floor where the units are callers.
    """
    found = _keyless_proof(step, row, rail)
    callers = step.proof.get((name, row))
    if callers is not None:
        found += callers - bets.LOG_LOOKS
    if metric == QUALITY:
        if not step.span.paired:  # labels that the candidate lacks count as wrong
            lacking = step.missing(1) * float(step.part_of_labels(np.array([row]), 1)[0])
            y1, _ = bets.capped(np.ones(1), np.ones(1), rail.worse_by, 1)
            found += float(lacking * np.log1p(-bets.CERTIFICATE_BETS.max() * y1[0]))
        return found / step.dependence.times(careful=True)
    asked, bad = step.arrays["first"][row].tolist()
    bad += int(step.arrays["bad"][row, 1])
    units = asked + int(step.arrays["met"][row, 1])
    below = float(stats.below_log_e(bad, units, max(rail.floor, floor) if asked else rail.floor))
    # Two chances to be proven: each has half of the budget.
    return max(found, below) - log(2)


def _keyless_proof(step: Step, row: int, rail: Rail) -> float:
    """Return the certificate from requests without an entity."""
    share = step.span.keyless
    if rail.mean:
        return float(stats.log_mixture(step.sums_of(row)[:-TAIL]))
    ours, theirs = step.arrays["steady"][row].tolist()
    if step.span.paired:
        p, c = np.array([0.0, 1.0, 1.0]), np.array([1.0, 0.0, 1.0])
        times = np.array([theirs, ours, step.arrays["both"][row]])
        return bets.pairs_certificate(c, p, rail.worse_by, times)
    if not 0 < share < 1:
        return 0.0
    return bets.keyless_certificate(theirs, ours, share, rail.worse_by)
