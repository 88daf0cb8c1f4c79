"""Verdicts of a judge, in words and figures."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from math import inf, log, sqrt
from typing import NamedTuple

import numpy as np

from kedge.core.evidence import bets, stats
from kedge.core.evidence.judge import Judge
from kedge.core.evidence.rules import (
    QUALITY,
    SHOWN_ALPHA,
    Alarm,
    Cells,
    Key,
    Overall,
    Rail,
    Verdict,
    Word,
)
from kedge.core.evidence.step import TAIL, Step

ARMS = ("production", "the candidate")
"""Default names of both releases in a reason: the measure, then the judged release."""
Arms = tuple[str, str]
PROVABLE = 700
"""Callers of the candidate without a failure that prove a rate below one in a hundred: 620 to 730,
depending on the bets."""
LEAST_SHOWN = 0.0005
"""A relative difference of losses that is shown: a tenth of a per cent, rounded."""


def overall(judge: Judge, arms: Arms = ARMS) -> Overall:
    """Return whether an alarm sounds, and which; `arms` are both releases' names in reasons."""
    rules = judge.rules
    needed = -log(rules.alpha)
    step = judge.step
    heard = list(judge.failures.values())
    failed = [one for one in heard if not _excused(judge, one)]
    if failed:
        first = min(failed, key=lambda one: one.at)
        name = _name(first.metric, first.segment)
        reason = f"{name}: {_figures(judge, first, arms)}"
        return Overall("fail", reason, needed, needed, first.metric, first.segment)
    if heard:
        one = heard[0]
        reason = f"{_name(one.metric, one.segment)} is worse, within margin"
        return Overall("pass", reason, needed, needed, one.metric, one.segment)
    if step is None or not judge.rows.keys:
        return Overall("inconclusive", "no data", needed=needed)
    bad = [
        judge.bad(step, row)[1]
        for metric, rail in rules.rails.items()
        if rail.weight and (row := judge.rows.find(metric, "")) >= 0
    ]
    if max(bad, default=0) < rules.min_bad:
        found = max(bad, default=0)
        reason = f"{found} bad units of {arms[1]}, and an alarm needs {rules.min_bad}"
        return Overall("inconclusive", reason, needed=needed)
    able = np.flatnonzero(judge.alarms())
    best = step.arrays["best"][able]
    top = int(able[int(np.argmax(best))])
    metric, segment = judge.rows.keys[top]
    log_e = float(best.max())
    reason = "no harm proven"
    return Overall("inconclusive", reason, log_e, needed, metric, segment)


def _excused(judge: Judge, failure: Alarm) -> bool:
    """Return whether its own step proves a failure to be within its margin.

    The certificate is about the whole step, and the good hours before a late regression do not
    excuse it. So the bets that were placed since then must not show more than the margin either.
    """
    step = judge.steps.get(failure.weight)
    row = judge.rows.find(failure.metric, failure.segment)
    rail = judge.rules.rails.get(failure.metric)
    if step is None or row < 0 or rail is None:
        return False
    mild = failure.ratio <= (1 + rail.worse_by) * 1.001
    return mild and judge.proof(step, failure.metric, row) >= -log(judge.rules.alpha)


def verdicts(
    judge: Judge,
    requests: Mapping[str, tuple[int, int]],
    *,
    only: AbstractSet[Key] | None = None,
    arms: Arms = ARMS,
) -> tuple[Verdict, ...]:
    """Return the verdicts on every (metric, segment), or on some, in the present step.

    Args:
        judge: what was folded.
        requests: by segment, each arm's requests in this step; pairs count for both arms.
        only: these keys, where given.
        arms: the names of both releases in reasons.
    """
    step = judge.step
    if step is None:
        return ()
    found = []
    suspects = _suspects(judge, step) if only is None else frozenset()
    for name, rail in judge.rules.rails.items():
        metric = rail.of or name
        if only is None:
            rows = [row for row, (of, _) in enumerate(judge.rows.keys) if of == metric]
        else:
            rows = [judge.rows.find(metric, segment) for of, segment in only if of == name]
        for row in rows:
            if row >= 0:
                suspect = row in suspects and not rail.of
                found.append(_verdict(judge, step, name, row, requests, suspect=suspect, arms=arms))
    return tuple(found)


def _suspects(judge: Judge, step: Step) -> frozenset[int]:
    """Return the rows that stand out now (e-BH); nothing follows from it."""
    if not len(judge.rows.keys):
        return frozenset()
    found = stats.e_bh(step.arrays["best"].astype(np.float64), SHOWN_ALPHA)
    return frozenset(np.flatnonzero(found).tolist())


class ComparedLosses(NamedTuple):
    """The mean losses of both releases, and how the candidate's metric compares."""

    means: tuple[float, float] | None = None
    ratio: float | None = None
    interval: tuple[float, float] | None = None


NO_LOSSES = ComparedLosses()
NO_RAIL = Rail(worse_by=0.0)


class _Known(NamedTuple):
    """Figures that one verdict is made of."""

    metric: str
    segment: str
    rail: Rail
    units: tuple[int, int]
    bad: tuple[int, int]
    asked: tuple[int, int]
    """Requests, or labels."""
    log_e: float
    proof: float
    callers: int
    """Of the candidate that this step decides on."""
    named: bool
    arms: Arms
    losses: ComparedLosses
    paired: bool


def _verdict(
    judge: Judge, step: Step, name: str, row: int, requests: Cells, *, suspect: bool, arms: Arms
) -> Verdict:
    metric, segment = judge.rows.keys[row]
    rail = judge.rules.rails[name]
    units, bad = judge.units(step, row), judge.bad(step, row)
    compared = _losses(step, row, rail) if metric == QUALITY else NO_LOSSES
    callers = int(step.arrays["asked"][row, 1])
    named = bool(step.arrays["asked"][row].any() or step.arrays["went"][row].any())
    asked = units if metric == QUALITY else requests.get(segment, (0, 0))
    best = float(step.arrays["best"][row])
    of = _Known(
        name,
        segment,
        rail,
        units,
        bad,
        asked,
        log_e=best if best > -inf else 0.0,
        proof=judge.proof(step, name, row),
        callers=callers,
        named=named,
        arms=arms,
        losses=compared,
        paired=judge.paired,
    )
    word, reason = _word(judge, of)
    ratio, interval, difference = _estimate(step, row, rail, metric)
    return Verdict(
        metric=name,
        segment=segment,
        verdict=word,
        reason=reason,
        units=units,
        bad=bad,
        ratio=ratio,
        interval=interval,
        difference=difference,
        losses=compared.means,
        loss_ratio=compared.ratio,
        loss_interval=compared.interval,
        log_e=of.log_e,
        log_e_pass=of.proof,
        suspect=suspect,
        callers=named,
        provable=not named or callers >= PROVABLE or callers == 0,
    )


def _word(judge: Judge, of: _Known) -> tuple[Word, str]:
    rules = judge.rules
    least = rules.min_units_per_segment if of.segment else rules.min_units
    failure = judge.failures.get((of.metric, of.segment))
    if failure is not None and not _excused(judge, failure):
        return "fail", f"worse, proven: {_figures(judge, failure, of.arms)}"
    told = _told(of)
    if not of.asked[1] and not of.units[1]:
        return "inconclusive", "no data"
    if of.proof >= -log(rules.alpha) and of.asked[1] >= least:
        if failure is not None:
            return "pass", f"worse, within margin: {told}"
        return "pass", f"not {of.rail.shown:.0%} worse, proven: {told}"
    if of.asked[1] < least:
        kind = "labels" if of.metric == QUALITY else "pairs" if judge.paired else "requests"
        return "inconclusive", f"{of.asked[1]} of {least} {kind}"
    few = ""
    if of.named and of.metric != QUALITY and 0 < of.callers < PROVABLE and not of.bad[0]:
        few = (
            f"; {of.callers} callers of {of.arms[1]}, and about {PROVABLE} prove that fewer than 1"
            " in 100 fail"
        )
    return "inconclusive", f"too early: {told}{few}"


def _told(of: _Known) -> str:
    if of.metric == QUALITY:
        return _told_quality(of.rail, of.losses, of.units, of.bad, of.arms, paired=of.paired)
    kind = "callers" if of.named and not of.asked[1] else "units"
    (old, new), (b0, b1), (n0, n1) = of.arms, of.bad, of.units
    return (
        f"{b1} of {n1} {kind} bad on {new} ({_share(b1, n1)}), {b0} of {n0} on {old}"
        f" ({_share(b0, n0)})"
    )


def _told_quality(
    rail: Rail,
    losses: ComparedLosses,
    labels: tuple[int, int],
    bad: tuple[int, int],
    arms: Arms,
    *,
    paired: bool,
) -> str:
    """Return how the losses compare, or the wrong answers where each label is right or wrong."""
    (old, new), (b0, b1), (n0, n1) = arms, bad, labels
    if not rail.mean and paired:
        return f"only {new} is wrong on {b1} of {n1} labels, and only {old} on {b0}"
    if not rail.mean:
        return (
            f"{new} is wrong on {b1} of {n1} labels ({_share(b1, n1)}), {old} on {b0} of {n0}"
            f" ({_share(b0, n0)})"
        )
    counts = f"{n1} labels" if n0 == n1 else f"{n1} labels, and {n0} of {old}"
    if losses.ratio is None:
        return f"no loss of {old} to compare with, {counts}"
    more = losses.ratio - 1
    if abs(more) < LEAST_SHOWN:
        return f"the loss of {new} is that of {old}, {counts}"
    word = "larger" if more > 0 else "smaller"
    return f"the loss of {new} is {abs(more):.1%} {word} than that of {old}, {counts}"


def _share(bad: int, units: int) -> str:
    return f"{bad / units:.2%}" if units else "-"


def _name(metric: str, segment: str) -> str:
    return f"{metric} in {segment}" if segment else metric


def _figures(judge: Judge, failure: Alarm, arms: Arms) -> str:
    """Return how many units of each arm went bad, over how many seconds, and where."""
    step, row = judge.steps.get(failure.weight), judge.rows.find(failure.metric, failure.segment)
    old, new = failure.bad
    if failure.metric == QUALITY:
        rail = judge.rules.rails.get(failure.metric, NO_RAIL)
        known = step is not None and row >= 0
        losses = _losses(step, row, rail) if step is not None and known else NO_LOSSES
        units = judge.units(step, row) if step is not None and known else (0, 0)
        return _told_quality(rail, losses, units, failure.bad, arms, paired=judge.paired)
    spread = (
        f"in at least {failure.seconds} separate seconds"
        if failure.seconds > 1
        else "in one second"
    )
    where = "" if judge.paired else f" at {failure.weight / 100:g} %"
    return f"{new} bad units of {arms[1]} {spread}, {old} of {arms[0]}{where}"


# ---------------------------------------------------------------- estimates


def _estimate(
    step: Step, row: int, rail: Rail, metric: str
) -> tuple[float | None, tuple[float, float | None] | None, float | None]:
    """Return a ratio, an interval and a difference to be shown."""
    if metric == QUALITY:
        return _difference(step, row)
    first = step.counts[row, 0].astype(np.int64)
    if first[bets.CALLERS] == 0:
        grid = stats.ratio_grid(rail.worse_by)
        of = bets.label_likelihood(first, step.span.callers, step.span.keyless, grid)
        ratio, low, high = stats.rate_ratio_interval(of, grid, SHOWN_ALPHA)
        shown = ratio if ratio is not None and ratio < inf else None
        return shown, (low, high if high < inf else None), None
    return (*_caller_ratio(step, row), None)


def _losses(step: Step, row: int, rail: Rail) -> ComparedLosses:
    """Return the mean losses, and the ratio of the metric with its interval.

    The interval is that of the difference, as a multiple of production's mean.
    """
    n0, s0, _, n1, s1, *_ = step.sums_of(row)[-TAIL:].tolist()
    if not min(n0, n1):
        return NO_LOSSES
    m0, m1 = s0 / n0, s1 / n1
    if not m0:
        return ComparedLosses((m0, m1))

    def spell(ratio: float) -> float:
        return sqrt(max(ratio, 0.0)) if rail.squared else max(ratio, 0.0)

    _, interval, _ = _difference(step, row)
    low, high = interval or (0.0, None)
    shown = None if high is None else (spell(1 + low / m0), spell(1 + high / m0))
    return ComparedLosses((m0, m1), spell(m1 / m0), shown)


def _caller_ratio(step: Step, row: int) -> tuple[float | None, tuple[float, float | None] | None]:
    """Return the ratio of bad requests a caller, and its interval by the callers' own spread.

    For showing only: an asymptotic confidence sequence of the difference of the means (Waudby-Smith
    et al., Annals of Statistics 2024), as a multiple of production's mean.
    """
    found, known = step.units.of_row(row), step.known(row)
    if known is None or min(known) < 2:
        return None, None
    if step.span.paired:
        x1, x0 = found["theirs"], found["ours"]
    else:
        x1, x0 = found["theirs"][found["arm"] == 1], found["ours"][found["arm"] == 0]
    n0, n1 = max(known[0], len(x0)), max(known[1], len(x1))
    m0, m1 = x0.sum() / n0, x1.sum() / n1
    if not m0:
        return None, (0.0, None)
    spread = (np.square(x1).sum() / n1 - m1 * m1) / n1 + (np.square(x0).sum() / n0 - m0 * m0) / n0
    n = n0 * n1 / (n0 + n1)
    half = stats.asymptotic_half_width(
        n, sqrt(max(spread, 0.0) * n), stats.rho_for(1000, SHOWN_ALPHA), SHOWN_ALPHA
    )
    ratio = float(m1 / m0)
    return ratio, (max(float(ratio - half / m0), 0.0), float(ratio + half / m0))


def _difference(
    step: Step, row: int
) -> tuple[float | None, tuple[float, float | None] | None, float | None]:
    n0, s0, q0, n1, s1, q1, pairs, apart, squares = step.sums_of(row)[-TAIL:].tolist()
    if pairs:
        return None, stats.mean_interval(pairs, apart, squares, SHOWN_ALPHA), apart / pairs
    if min(n0, n1) < 2:
        return None, None, s1 / n1 - s0 / n0 if min(n0, n1) else None
    difference = s1 / n1 - s0 / n0
    n = n0 * n1 / (n0 + n1)
    spread = max(q1 / n1 - (s1 / n1) ** 2, 1 / n1) / n1 + max(q0 / n0 - (s0 / n0) ** 2, 1 / n0) / n0
    half = stats.asymptotic_half_width(
        n, sqrt(spread * n), stats.rho_for(1000, SHOWN_ALPHA), SHOWN_ALPHA
    )
    return None, (max(difference - half, -1.0), min(difference + half, 1.0)), difference
