"""What labels say about two releases: who was wrong, by how much, and in which slice.

A unit counts once a day, however many of its predictions were labelled: twenty late flights of
one aircraft are one aircraft. Predictions without an entity are each their own unit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from hashlib import blake2b
from math import isfinite, log

from kedge.core.errors import BadRequest, Refused
from kedge.core.evidence.answers import equal, number, truth, unfit
from kedge.core.evidence.labels import MEASURED
from kedge.core.records import (
    Cell,
    JoinRow,
    Known,
    Labelled,
    Quality,
    Stratum,
    delay_bin,
    live_version,
)
from kedge.core.values import Arm, Output

DAY_S = 86_400
"""How long a unit counts once: the horizon that errors have too."""
LEAST_PROBABILITY = 1e-3
"""A probability is read as at least this, and at most one less it: the cap of `log_loss`."""
LOG_LOSS_CAP = -log(LEAST_PROBABILITY)
"""6.9 nats; `log_loss` is divided by it, so that it lies in [0, 1]."""
ERROR_CAP = 10.0
"""`absolute_error` is divided by so many tolerances (by 1 without one), and stops at 1."""


# ---------------------------------------------------------------- one prediction


def fits(output: Output, value: Known, *, measured: bool = False) -> bool:
    """Return whether an outcome can be compared with what the endpoint says (`answers.unfit`)."""
    return value is not None and unfit(output, value, measured=measured) is None


def bad(output: Output, score: float | None, decision: str | None, value: Known) -> bool:
    """Return whether an answer was wrong. No answer, or one that is not a number, is wrong.

    `binary`: the decision is not what was true (the score decides where no decision was kept).
    `score`: further from the truth than the tolerance. `class`: another class. `exact`: not equal;
    numbers within the tolerance, words letter by letter.

    Raises:
        BadRequest: `unfit_outcome`: the value cannot be compared with this output.
    """
    if not fits(output, value):
        raise BadRequest(
            f"an outcome of {value!r} does not fit an output of kind {output.kind}",
            code="unfit_outcome",
            hint="binary takes 0 or 1, score takes a number, class and exact take what the output gives",
        )
    return not equal(output, score, decision, value)


def error_rate(output: Output, score: float | None, decision: str | None, value: Known) -> float:
    """1 for a wrong answer, 0 for a right one."""
    return float(bad(output, score, decision, value))


def log_loss(output: Output, score: float | None, _decision: str | None, value: Known) -> float:
    """-ln of the probability that was given to what came true, over its cap: 0 to 1."""
    if score is None or not isfinite(score):
        return 1.0
    given = score if truth(value, output.classes) else 1.0 - score
    return -log(min(max(given, LEAST_PROBABILITY), 1.0 - LEAST_PROBABILITY)) / LOG_LOSS_CAP


def brier(output: Output, score: float | None, _decision: str | None, value: Known) -> float:
    """The squared distance of the probability from what came true: 0 to 1."""
    if score is None or not isfinite(score):
        return 1.0
    return (min(max(score, 0.0), 1.0) - float(bool(truth(value, output.classes)))) ** 2


def absolute_error(output: Output, score: float | None, _: str | None, value: Known) -> float:
    """The distance from the truth, over ten tolerances (over 1 without one), at most 1."""
    known = number(value)
    if score is None or known is None or not isfinite(score):
        return 1.0
    return min(abs(score - known) / (ERROR_CAP * output.tolerance or 1.0), 1.0)


Loss = Callable[[Output, float | None, str | None, Known], float]
LOSSES: dict[str, tuple[Loss, frozenset[str]]] = {
    "error_rate": (error_rate, frozenset({"binary", "score", "class", "exact", "custom"})),
    "log_loss": (log_loss, frozenset({"binary"})),
    "brier": (brier, frozenset({"binary"})),
    "absolute_error": (absolute_error, frozenset({"score", "exact", "custom"})),
}
"""Each in [0, 1], and the kinds of output that it can judge. 1 where there is no answer."""


def loss_of(metric: str, output: Output) -> Loss:
    """The loss with this name.

    Raises:
        Refused: `metric_unfit`: there is none, or it cannot judge this output.
    """
    loss, kinds = LOSSES.get(metric, (error_rate, frozenset()))
    if output.kind not in kinds or (metric in MEASURED and output.label is not None):
        fit = ", ".join(
            name for name, (_, fitting) in LOSSES.items()
            if output.kind in fitting and not (name in MEASURED and output.label is not None)
        )  # fmt: skip
        what = "a class" if output.label is not None else f"an output of kind {output.kind}"
        raise Refused(
            f"{metric} cannot judge {what}",
            code="metric_unfit",
            hint=f"one of: {fit}",
        )
    return loss


# ---------------------------------------------------------------- many


class Seen:
    """Which units were counted already today, for all batches of one comparison.

    Bounded: beyond `limit` a unit is passed over and counted in `passed`, since one that is
    counted twice would count as two.
    """

    def __init__(self, keys: Iterable[int] = (), limit: int = 200_000) -> None:
        self._keys = set(keys)
        self._limit = limit
        self.passed = 0

    def first(self, *key: object) -> bool:
        """Whether this is new; it is not any more."""
        digest = blake2b(repr(key).encode(errors="surrogatepass"), digest_size=8).digest()
        hashed = int.from_bytes(digest) >> 1
        if hashed in self._keys:
            return False
        if len(self._keys) >= self._limit:
            self.passed += 1
            return False
        self._keys.add(hashed)
        return True

    def keys(self) -> tuple[int, ...]:
        """What is remembered, each a 63-bit number."""
        return tuple(sorted(self._keys))


class _Building:
    """One stratum while it is counted."""

    __slots__ = ("cells", "key", "losses", "paired")

    def __init__(self, key: tuple[int, int | None, str, str, int]) -> None:
        self.key = key
        self.cells: dict[str, list[int]] = {}
        self.losses: dict[tuple[str, int], list[float]] = {}
        self.paired: dict[str, tuple[list[float], list[float]]] = {}

    def done(self) -> Stratum:
        production, candidate, salt, version, weight = self.key
        return Stratum(
            production=production, candidate=candidate, salt=salt, weight=weight,
            label_version=version,
            cells={name: _cell(counts) for name, counts in self.cells.items()},
            losses={
                name: (tuple(self.losses.get((name, 0), ())), tuple(self.losses.get((name, 1), ())))
                for name in self.cells
            },
            paired={name: (tuple(ours), tuple(theirs)) for name, (ours, theirs) in self.paired.items()},
        )  # fmt: skip


def tally(
    rows: Iterable[Labelled | JoinRow], output: Output, metric: str, seen: Seen | None = None
) -> Quality:
    """Count labelled predictions, comparison by comparison and stratum by stratum.

    A unit counts once a day per arm and segment, with the first of its predictions: what it did
    later that day adds nothing. The same holds for pairs. A prediction without an entity is its
    own unit.

    Args:
        rows: labelled predictions, and, to have them in the coverage, those without a label.
        output: how the endpoint's answers are read.
        metric: which loss (`LOSSES`).
        seen: the units counted by earlier batches; without it, this batch stands alone.

    Raises:
        Refused: `metric_unfit`.
    """
    loss, seen = loss_of(metric, output), seen or Seen()
    waiting, labelled = _sorted(rows)
    building: dict[tuple[int, int | None, str, str, int], _Building] = {}
    delays: dict[int, int] = {}
    by_version: dict[str, dict[str, int]] = {}
    declined = failed = unfits = 0
    for one in labelled:
        row, outcome = one.row, one.outcome
        if outcome.value is None:
            declined += 1
            continue
        if not fits(output, outcome.value, measured=metric in MEASURED):
            unfits += 1
            continue
        index = delay_bin(one.delay_s)
        delays[index] = delays.get(index, 0) + 1
        arms = by_version.setdefault(outcome.label_version, {})
        arms[row.arm] = arms.get(row.arm, 0) + 1
        key = (row.production, row.candidate, row.salt, outcome.label_version, row.weight)
        stratum = building.get(key) or building.setdefault(key, _Building(key))
        if row.failed:
            failed += 1
        else:
            _count_arm(stratum, one, output, loss, seen)
        if row.paired:
            _count_pair(stratum, one, output, loss, seen)
    live = live_version({name: sum(arms.values()) for name, arms in by_version.items()})
    return Quality(
        metric=metric,
        strata=tuple(
            building[key].done() for key in sorted(building, key=lambda k: (k[0], k[1] or 0, k[2:]))
        ),
        live=live,
        delays=delays,
        coverage=_coverage(waiting, labelled, by_version.get(live, {})),
        declined=declined,
        failed=failed,
        unfit=unfits,
    )


def _sorted(rows: Iterable[Labelled | JoinRow]) -> tuple[list[JoinRow], list[Labelled]]:
    waiting: list[JoinRow] = []
    labelled: list[Labelled] = []
    for row in rows:
        if isinstance(row, Labelled):
            labelled.append(row)
        else:
            waiting.append(row)
    labelled.sort(key=lambda one: (one.row.at, one.row.id, one.outcome.label_version))
    return waiting, labelled


def _coverage(
    waiting: list[JoinRow], labelled: list[Labelled], live: dict[str, int]
) -> dict[str, tuple[int, int]]:
    """By arm: with a label under the live version, and all. A row may have several versions."""
    given: dict[str, set[tuple[str, float]]] = {}
    for row in waiting:
        given.setdefault(row.arm, set()).add((row.id, row.at))
    for one in labelled:
        given.setdefault(one.row.arm, set()).add((one.row.id, one.row.at))
    return {arm: (live.get(arm, 0), len(rows)) for arm, rows in sorted(given.items())}


def _count_arm(into: _Building, one: Labelled, output: Output, loss: Loss, seen: Seen) -> None:
    row, value = one.row, one.outcome.value
    arm = 1 if row.arm == Arm.CANDIDATE else 0
    wrong = bad(output, row.score, row.decision, value)
    lost = loss(output, row.score, row.decision, value)
    for segment in ("", *row.segments):
        if row.unit and not seen.first(*into.key[:4], row.unit, int(row.at // DAY_S), segment, arm):
            continue
        cell = into.cells.get(segment) or into.cells.setdefault(segment, [0, 0, 0, 0])
        cell[arm] += 1
        cell[2 + arm] += wrong
        into.losses.setdefault((segment, arm), []).append(lost)


def _count_pair(into: _Building, one: Labelled, output: Output, loss: Loss, seen: Seen) -> None:
    row, value = one.row, one.outcome.value
    old, new = (row.score, row.decision), (row.shadow_score, row.shadow_decision)
    if row.arm == Arm.CANDIDATE and not row.failed:  # a reverse shadow: the copy is the old one
        old, new = new, old
    lost_old, lost_new = loss(output, *old, value), loss(output, *new, value)
    for segment in ("", *row.segments):
        day = int(row.at // DAY_S)
        if row.unit and not seen.first(*into.key[:4], row.unit, day, segment, "pair"):
            continue
        ours, theirs = into.paired.setdefault(segment, ([], []))
        ours.append(lost_old)
        theirs.append(lost_new)


def _cell(counts: list[int]) -> Cell:
    old, new, old_bad, new_bad = counts
    return old, new, old_bad, new_bad
