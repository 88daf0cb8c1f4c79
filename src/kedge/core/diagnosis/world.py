"""World: the change that makes the same release worse than before.

It is more of one outcome only (*label mix*), other outcomes of the same inputs (*concept*), or
other inputs (*harder inputs*). The label mix is tested first, since it looks like each of the
others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kedge.core.diagnosis.contrast import LEAST, Floats, Mean, Units, difference, mean_of
from kedge.core.diagnosis.defects import plain
from kedge.core.diagnosis.findings import Estimate, Evidence, Kind
from kedge.core.diagnosis.shift import ShiftWindow, Terms, domain, expected, ks, spaced, terms
from kedge.core.diagnosis.stretches import FEWEST, Stretches

SAME = 1e-3
"""Kolmogorov and Smirnov's p-value above which scores within a class count as unchanged."""
MISFIT = 0.2
"""Part of the rise that a badly fitting classifier can assign to the wrong kind. With harder inputs
only, a tenth to a sixth of the rise was assigned to other outcomes. So a second kind needs more
than a fifth."""
APART = 2.0
"""Standard errors by which concept and inputs must differ to be distinguished: the rise itself is
certain then, and only its kind is open."""


SPELL = 0.05
"""Share of a reference's stretches as long as today from which such a bad time is usual: one day in
twenty comes every month."""


MIX = 1.25
"""Factor of the odds of yes: a smaller one needs no other threshold. Census data of three years
differ by 1 point of 50, surely and harmlessly."""


class LabelledWindow(NamedTuple):
    """Labelled requests of a window: inputs, answers, outcomes and losses."""

    columns: dict[str, NDArray[Any]]
    scores: Floats
    truth: Floats
    loss: Floats
    units: Units = None

    @staticmethod
    def of(
        columns: Mapping[str, NDArray[Any]],
        names: Sequence[str],
        scores: Floats,
        truth: Floats,
        loss: Floats,
        units: Units = None,
    ) -> LabelledWindow:
        """Return the requests with a loss, and a number as their answer."""
        known = ~np.isnan(loss) & np.isfinite(scores)
        kept = {name: plain(columns[name])[known] for name in names}
        whose = None if units is None else units[known]
        return LabelledWindow(kept, scores[known], truth[known], loss[known], whose)

    def spaced(self) -> LabelledWindow:
        """Return at most as many requests as the classifier uses."""
        rows = spaced(len(self.loss))
        return LabelledWindow(
            {name: column[rows] for name, column in self.columns.items()},
            self.scores[rows],
            self.truth[rows],
            self.loss[rows],
            None if self.units is None else self.units[rows],
        )


class Told(NamedTuple):
    """Result of the label mix: whether there is only more of one outcome."""

    verdict: str
    text: str
    mean: Mean


def part(
    before: LabelledWindow, after: LabelledWindow, every: Floats, units: Units, z: float
) -> Told:
    """Return whether the cause is the label mix: another share of yes only.

    The share must have changed by more than `z` errors and by enough to matter. The scores within
    each class must not have changed (the assumption of Lipton, Wang and Smola, ICML 2018). The
    losses of the reference, with today's share of either class, must also explain today's.

    Args:
        before: the reference.
        after: today, without the requests that a broken column touches.
        every: today's outcomes, with those requests: they are still true, and leaving them out
            would be a selection, (n,); NaN is ignored.
        units: the units of the requests.
        z: standard errors from which a share has changed.
    """
    share = difference(mean_of(every, units), mean_of(before.truth, before.units))
    moved = difference(mean_of(after.truth, after.units), mean_of(before.truth, before.units))
    moved = min(share, moved, key=lambda each: abs(each.z))
    text = f"{np.nanmean(every):.1%} are true, {before.truth.mean():.1%} before"
    if abs(moved.z) <= z or 1 / MIX < _odds(float(np.nanmean(every)), before) < MIX:
        return Told("no", text, moved)
    least = min(int((window.truth == k).sum()) for window in (before, after) for k in (0.0, 1.0))
    if least < LEAST:
        return Told("unclear", f"{text}; {least} labels of a class are too few", moved)
    for k in (0.0, 1.0):
        a, b = before.scores[before.truth == k], after.scores[after.truth == k]
        if ks(a, b)[1] <= SAME:
            return Told("no", f"{text}, and scores within a class moved too", moved)
    yes = float(after.truth.mean())
    rest, error = float(after.loss.mean()), 0.0
    for k, weight in ((0.0, 1 - yes), (1.0, yes)):
        old, new = before.loss[before.truth == k], after.loss[after.truth == k]
        rest -= weight * float(old.mean())
        error += weight**2 * float(old.var() / len(old) + new.var() / len(new))
    if abs(rest) > z * sqrt(error):
        return Told("no", f"{text}, which does not account for the loss", moved)
    return Told("yes", f"{text}; within either outcome the scores are as they were", moved)


def _odds(share: float, before: LabelledWindow) -> float:
    """Return the ratio of the odds of yes, today over the reference, shrunk towards 1."""
    known = before.truth
    was = (known.sum() + 1) / (len(known) - known.sum() + 1)
    return float(share / max(1 - share, 1e-9) / was)


class Spells(NamedTuple):
    """Number of bad stretches of a reference that ended, and number of all stretches."""

    bad: int
    of: int

    @property
    def usual(self) -> bool:
        """Return whether such times come and go by themselves."""
        return self.of >= FEWEST and self.bad >= SPELL * self.of

    @property
    def text(self) -> str:
        """Return the spells in words."""
        return (
            f"{self.bad} of the {self.of} stretches before that were as long were as bad, and ended"
        )


def spells(loss: Floats, times: tuple[Floats, Floats], today: float) -> Spells:
    """Return how often a reference was as bad as today for as long, and recovered.

    A bad stretch that lasted until the reference's end does not count: it may be the start of
    today's rise.

    Args:
        loss: of the reference, (n,); NaN is ignored.
        times: of the labelled rows of both windows, seconds, (n,) and (m,).
        today: today's mean loss.
    """
    known = ~np.isnan(loss)
    stretches = Stretches((times[0][known], times[1]), (int(known.sum()), len(times[1])))
    bad = [float(part.mean()) >= today for part in stretches.of(loss[known])]
    while bad and bad[-1]:
        bad.pop()
    return Spells(sum(bad), len(bad))


HEAPS = 20
"""Number of groups of similar scores, whose losses are compared: one of 20 from 4,000 labels has
200."""


def hardest(scores: Floats, loss: Floats, share: float) -> NDArray[np.bool_]:
    """Return the part of a window, (n,), whose scores have the largest mean loss.

    `share` is the size of that part, 0 to 1. A loss of NaN is ignored.
    """
    found = np.zeros(len(loss), dtype=np.bool_)
    known = np.flatnonzero(~np.isnan(loss) & np.isfinite(scores))
    heaps = np.array_split(known[np.argsort(scores[known], kind="stable")], HEAPS)
    left = share * len(known)
    for heap in sorted(filter(len, heaps), key=lambda heap: -float(loss[heap].mean())):
        if left <= 0:
            break
        found[heap] = True
        left -= len(heap)
    return found


def beyond(
    before: tuple[Floats, Floats, Units], now: tuple[Floats, Units], clean: NDArray[np.bool_]
) -> Mean:
    """Return how much more faultless requests lose than an equal, hardest part of the reference.

    Args:
        before: the reference's scores, losses and units, (n,).
        now: today's losses and units, (m,).
        clean: which of today's rows have no fault, (m,).
    """
    scores, loss, units = before
    hard = hardest(scores, loss, float(clean.mean()))
    today = mean_of(np.where(clean, now[0], np.nan), now[1])
    return difference(today, mean_of(np.where(hard, loss, np.nan), units))


Reason = tuple[Kind, str, Estimate | None, list[Evidence]]


def reason(
    before: LabelledWindow,
    after: LabelledWindow,
    rise: Mean,
    floor: float,
    z: float,
    *,
    binary: bool,
) -> list[Reason]:
    """Return concept or inputs, or both, with their evidence.

    Args:
        before: the reference. after: today, both with one loss a request.
        rise: of the mean loss.
        floor: what matters, in the metric's unit.
        z: standard errors from which a second kind counts.
        binary: whether the scores are probabilities.
    """
    one, two = before.spaced(), after.spaced()
    ref, now = dict(one.columns), dict(two.columns)
    if binary:
        for columns, scores in ((ref, one.scores), (now, two.scores)):
            p = np.clip(scores, 1e-3, 1 - 1e-3)
            columns["\0logit"], columns["\0spread"] = np.log(p / (1 - p)), p * (1 - p)
    else:
        ref["\0score"], now["\0score"] = one.scores, two.scores
    usual, usual_now = expected(ref, one.loss, now)
    ref["\0expected"], now["\0expected"] = usual, usual_now
    p, p_now = domain(ref, now)
    found = terms(ShiftWindow(one.loss, p, usual), ShiftWindow(two.loss, p_now, usual_now))
    # Requests of one unit are alike, which changes the error of the rise and of its parts alike.
    alone = difference(mean_of(before.loss), mean_of(after.loss)).se
    alike = max(rise.se / alone, 1.0) if alone > 0 else 1.0
    found = found._replace(
        concept_se=alike * found.concept_se,
        inputs_se=alike * found.inputs_se,
        gap_se=alike * found.gap_se,
    )
    rows = [
        _row("concept", "the loss of the same inputs is higher", found.concept, found.concept_se),
        _row("inputs", "the inputs changed", found.inputs, found.inputs_se),
    ]
    if not found.overlaps:
        text = f"few requests resemble the reference (as if {found.overlap:.0f} were)"
        return [(Kind.NO_OVERLAP, text, rise.estimate(), rows)]
    return _kinds(found, rise, floor, z, rows)


def _kinds(found: Terms, rise: Mean, floor: float, z: float, rows: list[Evidence]) -> list[Reason]:
    n = rise.n
    concept: Reason = (
        Kind.CONCEPT,
        "the same inputs have different outcomes than before",
        _estimate(found.concept, found.concept_se, n),
        [],
    )
    inputs: Reason = (
        Kind.HARDER_INPUTS,
        "more requests of a kind that was always hard, or that is new",
        _estimate(found.inputs, found.inputs_se, n),
        [],
    )
    parts = [(found.concept, found.concept_se, concept), (found.inputs, found.inputs_se, inputs)]
    both = all(
        value > floor and value - MISFIT * rise.mean > z * error for value, error, _ in parts
    )
    first, other = (concept, inputs) if found.concept > found.inputs else (inputs, concept)
    if both:
        return [(*first[:3], rows), other]
    if abs(found.concept - found.inputs) <= APART * found.gap_se:
        text = "the same release is worse than it was; whether inputs or outcomes changed is open"
        return [(Kind.UNDIVIDED, text, rise.estimate(), rows)]
    return [(*first[:3], rows)]


def _estimate(value: float, error: float, n: int) -> Estimate:
    return Estimate(value, value - 1.96 * error, value + 1.96 * error, n)


def _row(question: str, answer: str, value: float, error: float) -> Evidence:
    return Evidence(
        question=question,
        answer=answer,
        figure=value,
        low=value - 1.96 * error,
        high=value + 1.96 * error,
        verdict="yes" if value > 1.96 * error else "no",
    )
