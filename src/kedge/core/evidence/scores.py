"""Scores and outcomes of a release in histograms, for figures that are no mean over requests.

Theory of operation
-------------------
* AUC is about pairs of requests, and the calibration error about bins of them. Neither is the mean
  of a request's loss, which the judge's bets need. So they are shown as estimates with an interval,
  and are never a verdict.
* A score that is a probability is counted by its log-odds, `WIDTH` apart; any other number by its sign
  and the logarithm of its size. Both keep the order, so only pairs within one bin are ties. A tie
  counts one half, which is also its mean where the order within a bin says nothing.
* The variance of AUC is DeLong's (Biometrics 1988), by the placements of both classes. Each
  labelled request counts as one, also if a caller has several. That of the calibration error is the
  binomial one of each bin, and takes the sign of each bin's gap as known. With few labels it is
  biased upward (Roelofs et al., AISTATS 2022).
"""

from __future__ import annotations

from collections.abc import Iterable
from math import floor, isfinite, log, sqrt

from kedge.core.evidence.answers import truth
from kedge.core.evidence.labels import answers_of
from kedge.core.evidence.records import Labelled
from kedge.core.values import Output, Value

WIDTH = 0.02
"""Width of a bin in log-odds, or in the logarithm of a size: two per cent of the odds."""
FURTHEST = 1_000
"""Bins from the middle: odds of e^20, or 1 to 5e8. Larger scores share the last one."""
TABLE = 15
"""Bins of the calibration error, of equal width (Guo et al., ICML 2017)."""
Z = 1.959964
"""Normal quantile of a 95 % interval."""


class Scored(Value, frozen=True, kw_only=True):
    """Predictions and outcomes: at most 6,003 bins and a table of 15."""

    bins: dict[int, tuple[int, int]] = {}
    """Labels no and yes by bin of the score, in the order of the scores."""
    table: tuple[tuple[int, float, int], ...] = ()
    """By fifteenth of [0, 1]: labels, the sum of the scores, and labels that are yes."""
    outside: int = 0
    """Scores that are no probability: with any, there is no figure of calibration."""


class EstimatedFigure(Value, frozen=True):
    """An estimate with its 95 % interval."""

    value: float
    low: float
    high: float
    labels: int
    """Labels that it is computed from."""


def bin_of(score: float) -> int:
    """Return the bin of a score: within each kind, a larger score has no smaller bin."""
    if 0 <= score <= 1:
        if score in (0.0, 1.0):
            return FURTHEST if score else -FURTHEST
        return min(max(floor(log(score / (1 - score)) / WIDTH), -FURTHEST), FURTHEST)
    # These bins are beyond all probabilities, on either side.
    size = min(max(floor(log(abs(score) + 1e-9) / WIDTH), -FURTHEST), FURTHEST) + FURTHEST + 1
    return (1 if score > 0 else -1) * (FURTHEST + size)


def counted(known: Scored, found: Iterable[tuple[float, bool]]) -> Scored:
    """Return the counts with further scores and outcomes, except scores that are not finite."""
    bins = dict(known.bins)
    table = [list(each) for each in known.table] or [[0, 0.0, 0] for _ in range(TABLE)]
    outside, more = known.outside, False
    for score, yes in found:
        if not isfinite(score):
            continue
        more = True
        place = bin_of(score)
        no_, yes_ = bins.get(place, (0, 0))
        bins[place] = (no_ + (not yes), yes_ + yes)
        if not 0 <= score <= 1:
            outside += 1
            continue
        row = table[min(int(score * TABLE), TABLE - 1)]
        row[0] += 1
        row[1] += score
        row[2] += yes
    if not more:
        return known
    kept = tuple((int(n), float(total), int(yes)) for n, total, yes in table)
    return Scored(bins=bins, table=kept, outside=outside)


def auc(of: Scored) -> EstimatedFigure | None:
    """Return the area under the ROC curve; None without labels of both kinds."""
    places = [of.bins[place] for place in sorted(of.bins)]
    no, yes = sum(one for one, _ in places), sum(one for _, one in places)
    if not no or not yes:
        return None
    below_no = below_yes = 0
    area = of_yes = of_no = 0.0
    for n, y in places:
        placed = (below_no + n / 2) / no  # of a yes in this bin: the share of no that it is above
        other = 1 - (below_yes + y / 2) / yes  # of a no: the share of yes that is above it
        area += y * placed
        of_yes += y * placed * placed
        of_no += n * other * other
        below_no, below_yes = below_no + n, below_yes + y
    value = area / yes
    # The variance is kept at 1/n and above: a few labels in perfect order do not reduce the
    # interval to a point.
    variance = sum(
        max(squares / count - value * value, 1 / count) / count
        for squares, count in ((of_yes, yes), (of_no, no))
    )
    return _figure(value, variance, no + yes)


def calibration_error(of: Scored) -> EstimatedFigure | None:
    """Return the mean distance of scores from the frequency of yes, by bins.

    It is None without labels, or where scores are no probabilities.
    """
    labels = sum(n for n, _, _ in of.table)
    if not labels or of.outside:
        return None
    value = variance = 0.0
    for n, total, yes in of.table:
        if n:
            value += abs(yes - total) / labels
            share = min(max(yes / n, 0.5 / (n + 1)), 1 - 0.5 / (n + 1))
            variance += (n / labels) ** 2 * share * (1 - share) / n
    return _figure(value, variance, labels)


def _figure(value: float, variance: float, labels: int) -> EstimatedFigure:
    half = Z * sqrt(variance)
    return EstimatedFigure(value, max(value - half, 0.0), min(value + half, 1.0), labels)


def gathered(
    known: tuple[Scored, Scored], rows: Iterable[Labelled], output: Output, *, reverse: bool
) -> tuple[Scored, Scored]:
    """Return both releases' counts, the measure first, with further labelled predictions.

    Args:
        known: counts so far.
        rows: labelled predictions of one comparison, under one label version.
        output: the output that defines how answers are read; only kind `binary` is counted.
        reverse: the release that was left is the measure.
    """
    if output.kind != "binary":
        return known
    found: tuple[list[tuple[float, bool]], list[tuple[float, bool]]] = ([], [])
    for one in rows:
        yes = truth(one.outcome.value, output.classes)
        for arm, score, _ in answers_of(one.row):
            if yes is not None and score is not None:
                found[1 - arm if reverse else arm].append((score, yes))
    return counted(known[0], found[0]), counted(known[1], found[1])


ESTIMATES = {"auc": auc, "calibration_error": calibration_error}
"""Figures of a binary output that are shown beside the verdicts, by name."""


BothFigures = tuple[EstimatedFigure | None, EstimatedFigure | None]
"""One estimate of both releases, the measure first."""


def estimates(of: tuple[Scored, Scored]) -> dict[str, BothFigures]:
    """Return every estimate of both releases by name; empty where no score has a label."""
    if not any(one.bins for one in of):
        return {}
    found = {name: (estimate(of[0]), estimate(of[1])) for name, estimate in ESTIMATES.items()}
    return {name: both for name, both in found.items() if any(one is not None for one in both)}
