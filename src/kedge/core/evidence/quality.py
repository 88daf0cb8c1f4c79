"""Quality of two releases by labels: wrong answers, their losses, and their segments.

The judge gets each labelled prediction by itself, and counts a caller once in each restart: twenty
late flights of one aircraft are one aircraft. A prediction without an entity is its own unit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import partial
from math import isfinite, isnan, log, log2, sqrt

from kedge.core.errors import BadRequest, Refused
from kedge.core.evidence.answers import BETWEEN, RANKED, equal, number, relevant, truth
from kedge.core.evidence.events import Label
from kedge.core.evidence.labels import MEASURED, unfit_for
from kedge.core.evidence.records import Known, Labelled, delay_bin
from kedge.core.values import BUCKETS, Arm, Output, Value

LEAST_PROBABILITY = 1e-3
"""Least probability that is read, and the largest is one less it: the cap of `log_loss`."""
LOG_LOSS_CAP = -log(LEAST_PROBABILITY)
"""6.9 nats; `log_loss` is divided by it, so that it is in [0, 1]."""
ERROR_CAP = 10.0
"""Tolerances by which `absolute_error` is divided (1 without a tolerance); it is at most 1."""


# ---------------------------------------------------------------- one prediction


def fits(output: Output, value: Known, metric: str = "error_rate") -> bool:
    """Return whether an outcome can be judged by a metric (`labels.unfit_for`)."""
    return value is not None and unfit_for(output, value, metric) is None


def bad(output: Output, score: float | None, decision: str | None, value: Known) -> bool:
    """Return whether an answer was wrong. No answer, or one that is not a number, is wrong.

    `binary`: the decision is not the outcome (the score decides where no decision was stored).
    `score`: farther from the outcome than the tolerance. `class`: another class. `exact`: not
    equal; numbers within the tolerance, words letter by letter.

    Raises:
        BadRequest: `unfit_outcome`: the value cannot be compared with this output.
    """
    if not fits(output, value):
        raise BadRequest(
            f"an outcome of {value!r} does not fit an output of kind {output.kind}",
            code="unfit_outcome",
            hint=(
                "binary takes 0 or 1, score takes a number, class and exact take what the output"
                " gives"
            ),
        )
    return not equal(output, score, decision, value)


def error_rate(output: Output, score: float | None, decision: str | None, value: Known) -> float:
    """Return 1 for a wrong answer, 0 for a right one."""
    return float(bad(output, score, decision, value))


def log_loss(output: Output, score: float | None, _decision: str | None, value: Known) -> float:
    """Return -ln of the probability that the outcome was given, over its cap: 0 to 1."""
    if score is None or not isfinite(score):
        return 1.0
    given = score if truth(value, output.classes) else 1.0 - score
    return -log(min(max(given, LEAST_PROBABILITY), 1.0 - LEAST_PROBABILITY)) / LOG_LOSS_CAP


def brier(output: Output, score: float | None, _decision: str | None, value: Known) -> float:
    """Return the squared distance of the probability from the outcome: 0 to 1."""
    if score is None or not isfinite(score):
        return 1.0
    return (min(max(score, 0.0), 1.0) - float(bool(truth(value, output.classes)))) ** 2


def absolute_error(output: Output, score: float | None, _: str | None, value: Known) -> float:
    """Return the distance from the outcome over ten tolerances (1 without one), at most 1."""
    known = number(value)
    if score is None or known is None or not isfinite(score):
        return 1.0
    return min(abs(score - known) / (ERROR_CAP * output.tolerance or 1.0), 1.0)


def squared_error(output: Output, score: float | None, _: str | None, value: Known) -> float:
    """Return the square of `absolute_error`, so each error counts up to ten tolerances."""
    return absolute_error(output, score, None, value) ** 2


def relative_error(_output: Output, score: float | None, _: str | None, value: Known) -> float:
    """Return the distance relative to the outcome, at most 1; that is not 0 (`ZERO`)."""
    known = number(value)
    if score is None or not known or not isfinite(score):
        return 1.0
    return min(abs(score - known) / abs(known), 1.0)


def ranked_places(metric: str) -> int:
    """Return k of "ndcg@k"; 0 where the metric is another one, or k is not 1 to `RANKED`."""
    found = re.fullmatch(r"ndcg@([1-9]\d?)", metric, re.ASCII)
    return int(found[1]) if found and int(found[1]) <= RANKED else 0


def ndcg_loss(
    places: int, _: Output, _score: float | None, decision: str | None, value: Known
) -> float:
    """Return 1 less NDCG of the first `places` items: 0 where all relevant items are first.

    An item is relevant or not, and counts at its first place (Jarvelin and Kekalainen, TOIS 2002,
    with the discount 1 / log2(place + 1)).
    """
    wanted = set(relevant(value))
    if decision is None or not wanted:
        return 1.0
    gained = 0.0
    for place, item in enumerate(decision.split(BETWEEN)[:places], 1):
        if item in wanted:
            wanted.discard(item)
            gained += 1 / log2(place + 1)
    most = sum(
        1 / log2(place + 1) for place in range(1, min(places, len(set(relevant(value)))) + 1)
    )
    return max(1.0 - gained / most, 0.0)


Loss = Callable[[Output, float | None, str | None, Known], float]
NUMBERS = frozenset({"score", "exact", "custom"})
"""Kinds of output that may give a number."""
LOSSES: dict[str, tuple[Loss, frozenset[str]]] = {
    "error_rate": (
        error_rate,
        frozenset({"binary", "score", "class", "ranking", "exact", "custom"}),
    ),
    "log_loss": (log_loss, frozenset({"binary"})),
    "brier": (brier, frozenset({"binary"})),
    "absolute_error": (absolute_error, NUMBERS),
    "rmse": (squared_error, NUMBERS),
    "mape": (relative_error, NUMBERS),
}
"""Losses in [0, 1], and the kinds of output that each can judge. The loss without an answer is
1."""


def scale(metric: str, output: Output) -> float:
    """Return a loss of 1 in the metric's own unit: nats, or units of the prediction."""
    if metric == "log_loss":
        return LOG_LOSS_CAP
    return (ERROR_CAP * output.tolerance or 1.0) if metric in ("absolute_error", "rmse") else 1.0


def figure(metric: str, output: Output, mean: float) -> float:
    """Return a mean loss as the figure with the metric's name, in its own unit."""
    if ranked_places(metric):
        return 1.0 - mean
    return (sqrt(mean) if metric == "rmse" else mean) * scale(metric, output)


def margin(metric: str, worse_by: float) -> float:
    """Return how much worse the mean loss may be where the metric may be `worse_by` worse.

    The root of a mean is (1 + d) times another one exactly where the mean is (1 + d)^2 times the other.
    """
    return (1 + worse_by) ** 2 - 1 if metric == "rmse" else worse_by


def loss_of(metric: str, output: Output) -> Loss:
    """Return the loss with this name.

    Raises:
        Refused: `metric_unfit`: no such loss, or it cannot judge this output.
    """
    places = ranked_places(metric)
    if places and output.kind == "ranking":
        return partial(ndcg_loss, places)
    loss, kinds = LOSSES.get(metric, (error_rate, frozenset()))
    if output.kind not in kinds or (metric in MEASURED and output.label is not None):
        fit = ", ".join(
            name
            for name, (_, fitting) in LOSSES.items()
            if output.kind in fitting and not (name in MEASURED and output.label is not None)
        )
        fit += ", ndcg@10" if output.kind == "ranking" else ""
        one = output.label is not None and output.kind != "ranking"
        what = "a class" if one else f"an output of kind {output.kind}"
        raise Refused(
            f"{metric} cannot judge {what}",
            code="metric_unfit",
            hint=f"one of: {fit}; kedge help metrics has the table",
        )
    return loss


# ---------------------------------------------------------------- many


UnitOf = Callable[[str], tuple[int, int]]


class QualityJudgement(Value, frozen=True, kw_only=True):
    """Labels for the judge from a batch of labelled predictions of one comparison."""

    labels: tuple[tuple[int, str, Label], ...] = ()
    """In the order of the predictions: the weight in buckets, the label version, and the label."""
    delays: dict[int, int] = {}
    """By log-bin of the delay (`delay_bin`)."""
    versions: dict[str, int] = {}
    declined: int = 0
    failed: int = 0
    """Predictions whose candidate failed: production answered, so they are evidence on neither."""
    unfit: int = 0
    """Outcomes that do not fit the endpoint's output (a word instead of a number)."""


def judged(
    rows: Iterable[Labelled],
    output: Output,
    metric: str,
    unit_of: UnitOf,
    *,
    paired: bool,
    reverse: bool,
    own: Loss | None = None,
) -> QualityJudgement:
    """Turn labelled predictions into labels for the judge.

    Args:
        rows: of one comparison.
        output: the output that defines how answers are read.
        metric: name of the loss (`LOSSES`).
        unit_of: returns a caller's hash and bucket under the rollout's salt.
        paired: only predictions that both releases answered count, for both.
        reverse: the release that was left takes production's place.
        own: the loss, where the metric is the policy's function; NaN where that returns none.

    Raises:
        Refused: `metric_unfit`.
    """
    loss = loss_of(metric, output) if own is None else own
    found: list[tuple[int, str, Label]] = []
    delays: dict[int, int] = {}
    versions: dict[str, int] = {}
    declined = failed = unfits = 0
    for one in sorted(rows, key=lambda one: (one.row.at, one.row.id, one.outcome.label_version)):
        row, outcome = one.row, one.outcome
        versions[outcome.label_version] = versions.get(outcome.label_version, 0) + 1
        if outcome.value is None:
            declined += 1
            continue
        if not fits(output, outcome.value, metric):
            unfits += 1
            continue
        index = delay_bin(one.delay_s)
        delays[index] = delays.get(index, 0) + 1
        failed += row.failed
        label = _pair(one, output, loss, unit_of) if paired else _arm(one, output, loss, unit_of)
        if label is None:
            continue
        if isnan(label.ours) or isnan(label.theirs):
            unfits += 1
            continue
        if reverse:
            label = label._replace(arm=1 - label.arm, ours=label.theirs, theirs=label.ours)
        weight = BUCKETS - row.weight if reverse and not paired else row.weight
        found.append((weight, outcome.label_version, label))
    return QualityJudgement(
        labels=tuple(found),
        delays=delays,
        versions=versions,
        declined=declined,
        failed=failed,
        unfit=unfits,
    )


def _arm(one: Labelled, output: Output, loss: Loss, unit_of: UnitOf) -> Label | None:
    """Return the label of the caller's answer; None where the candidate failed."""
    row = one.row
    if row.failed:
        return None
    arm = 1 if row.arm == Arm.CANDIDATE else 0
    lost = loss(output, row.score, row.decision, one.outcome.value)
    unit, bucket = unit_of(row.unit) if row.unit else (None, -1)
    return Label(
        unit, bucket, arm, 0.0 if arm else lost, lost if arm else 0.0, row.at, row.segments
    )


def _pair(one: Labelled, output: Output, loss: Loss, unit_of: UnitOf) -> Label | None:
    """Return the label of both answers; None where there was no copy."""
    row, value = one.row, one.outcome.value
    if not row.paired:
        return None
    old, new = (row.score, row.decision), (row.shadow_score, row.shadow_decision)
    if row.arm == Arm.CANDIDATE and not row.failed:  # a reverse shadow copies to the old one
        old, new = new, old
    unit, bucket = unit_of(row.unit) if row.unit else (None, -1)
    return Label(
        unit, bucket, 0, loss(output, *old, value), loss(output, *new, value), row.at, row.segments
    )
