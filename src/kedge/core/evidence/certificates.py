"""Certificates: the proof that a row is not worse than its margin."""

from __future__ import annotations

from math import inf, log

import numpy as np

from kedge.core.evidence import bets, stats
from kedge.core.evidence.rules import QUALITY, Rail
from kedge.core.evidence.stats import Floats
from kedge.core.evidence.step import Span, Step


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

    Requests without an entity, and callers by their first request (or label) in the step, are units that
    are final when they come. Their product is valid at any time. Callers' counts since the step
    began say more of each caller, but at the looks only. Each of the two has half of the budget.

    Args:
        step: the step that proves it.
        metric: the metric of the row.
        name: of the guardrail.
        rail: the guardrail.
        row: the row of the metric and segment.
        floor: the least floor where the units are callers.
    """
    span, steady = step.span, _counts(step, "steady", row)
    alone = known_units(span, rail, span.keyless, steady, step.means.get(row))
    lead = step.arrays["lead"][row]
    found = alone
    callers = step.proof.get((name, row))
    if callers is not None or lead.any() or row in step.leads:
        ours, theirs, both = lead.tolist()
        first = known_units(span, rail, span.callers, (ours, theirs, both), step.leads.get(row))
        found = alone + max(first, -inf if callers is None else callers - bets.LOG_LOOKS) - log(2)
    if metric == QUALITY:
        if not step.span.paired:  # the candidate's missing labels count as wrong
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


def _counts(step: Step, name: str, row: int) -> tuple[int, int, int]:
    ours, theirs = step.arrays[name][row].tolist()
    return ours, theirs, int(step.arrays["both"][row])


def known_units(
    span: Span, rail: Rail, share: float, bad: tuple[float, float, float], losses: Floats | None
) -> float:
    """Return the certificate of units that are final when they come.

    Args:
        span: of the step.
        rail: the guardrail.
        share: the designed share of these units.
        bad: units that went bad: of production, of the candidate, in pairs of both.
        losses: the log-wealth, where the guardrail judges losses.
    """
    ours, theirs, both = bad
    if rail.mean:
        return 0.0 if losses is None else float(stats.log_mixture(losses[: bets.MEANS]))
    if span.paired:
        p, c = np.array([0.0, 1.0, 1.0]), np.array([1.0, 0.0, 1.0])
        return bets.pairs_certificate(c, p, rail.worse_by, np.array([theirs, ours, both]))
    if not 0 < share < 1:
        return 0.0
    return bets.keyless_certificate(theirs, ours, share, rail.worse_by)
