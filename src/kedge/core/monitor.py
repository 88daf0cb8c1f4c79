"""The judge: intervals in, verdicts out. Pure; its state is a handful of arrays.

Theory of operation
-------------------
* One row for each (metric, segment): log-wealth of the alarm's bets, what the proof of "not worse"
  needs, and the totals. `fold` adds one interval to all its rows at once.
* Counted rows (errors, latency) are judged by the label of bad units; losses by bets on their mean
  difference, which for pairs of right and wrong is McNemar's test (`core.stats`).
* A row that appears later joins with what was placed until then, as if it had been bet on before
  with nothing seen: it is an e-process from there on.
* The alarm is one weighted average over all rows (`overall`). A row fails by itself when its own
  share of that average reaches 1/alpha; such a failure stays.
* A pass needs its proof: absence of an alarm is none. Where almost nothing ever goes bad, no ratio
  can be proven; then it is enough to prove that the candidate's rate is below a floor.
* Restarts follow the time in intervals. A clock that goes back places nothing twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from math import exp, inf, log
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from kedge.core import stats
from kedge.core.stats import ALARM_GRID, BETS, LAMBDAS, NULL, RATIOS, SUMS, Floats
from kedge.core.values import Value

CLOSING_UNITS = 5
"""Exposed candidate units that end an interval: the realised share is then not mostly noise."""
CLOSING_S = 60.0
"""An interval ends after a minute in any case: arms are alike within it."""
SHOWN_ALPHA = 0.05
"""Of the intervals and suspicions that are shown; nothing is done on them."""

Counts = NDArray[np.int64]
Key = tuple[str, str]
"""(metric, segment); segment "" is everything."""
Word = Literal["pass", "fail", "inconclusive", "broken input"]


class Rail(Value, frozen=True):
    """One guardrail.

    The alarm bets that the rate ratio is above `r0`; a pass needs the proof that it is below
    1 + `worse_by`.
    """

    worse_by: float
    r0: float = 1.0
    weight: float = 0.0
    """Its share of the alarm; 0: never alarms."""
    floor: float = 0.001
    """A rate proven to be below this passes without a ratio: one in a thousand."""
    mean: bool = False
    """Judged by losses instead of counts of bad units."""


class Rules(Value, frozen=True, kw_only=True):
    """What the judge is asked to prove."""

    rails: dict[str, Rail]
    alpha: float = 0.01
    segment_stake: float = 0.2
    """Share of each metric's weight that its segments have together."""
    min_bad: int = 5
    """Bad candidate units before an alarm: a handful can be one cause outside the model."""
    min_units: int = 100
    min_units_per_segment: int = 100


class Verdict(Value, frozen=True, kw_only=True):
    """What is known of one metric in one segment. Pairs are (production, candidate)."""

    metric: str
    segment: str
    verdict: Word
    reason: str
    units: tuple[int, int]
    bad: tuple[int, int]
    """In pairs: where only production went bad (or lost more), and only the candidate."""
    ratio: float | None = None
    """Of the rates, candidate over production, each ramp step compared with itself."""
    interval: tuple[float, float | None] | None = None
    """Anytime-valid, 95 %; None above: no bound yet. Of the mean difference, in paired losses."""
    difference: float | None = None
    """Mean paired loss, the candidate's less production's."""
    log_e: float = 0.0
    log_e_pass: float = 0.0
    suspect: bool = False
    """Stands out now (e-BH over all segments); nothing follows from it."""


class Overall(Value, frozen=True):
    """The alarm over everything."""

    verdict: Word
    reason: str
    log_e: float = 0.0
    needed: float = 0.0
    """It sounds at this."""
    metric: str = ""
    segment: str = ""


@dataclass(frozen=True)
class Interval:
    """One closed interval of a comparison.

    `counts` has shape (K, 4): exposed units of production and candidate, then those that went bad.
    In pairs: pairs twice, then those where only production was bad, and only the candidate.
    `sums`, of a guardrail on paired losses, has shape (K, SUMS) (`stats.paired_sums`).
    """

    at: float
    """Unix seconds at its end."""
    keys: tuple[Key, ...]
    counts: Counts
    paired: bool = False
    sums: Floats | None = None


@dataclass(frozen=True)
class Judge:
    """Everything that is remembered. Never changed in place."""

    began: float
    last: float
    restarts: int
    rails: Mapping[str, Rail]
    keys: tuple[Key, ...]
    place: Mapping[Key, int]
    """Where each key's row is."""
    metric: NDArray[np.intp]
    """(K,) which guardrail, in the order of `rails`."""
    segmented: stats.Mask
    """(K,) whether it is a segment's row."""
    alarm: Floats
    """(K, BETS) log-wealth of the alarm's bets."""
    proof: Floats
    """(K, RATIOS) log-likelihood on `stats.ratio_grid`; of paired losses the bets on "within the
    margin", then n, sum and sum of squares of the differences, and the sum of production's losses."""
    totals: Counts
    """(K, 4)"""
    log_e: Floats
    """(K,) the mixture over the alarm's bets."""
    highest: Floats
    """(K,) the highest log e-value so far: a failure stays."""


def closes(exposed_candidate: int, exposed_production: int, seconds: float) -> bool:
    """Whether an interval ends now: by exposure and time, never by what went bad."""
    enough = exposed_candidate >= CLOSING_UNITS and exposed_production > 0
    return enough or seconds >= CLOSING_S


def begin(at: float, rails: Mapping[str, Rail]) -> Judge:
    """A judge that has seen nothing."""
    return Judge(
        began=at, last=at, restarts=0, rails=dict(rails), keys=(), place={},
        metric=np.zeros(0, dtype=np.intp), segmented=np.zeros(0, dtype=np.bool_), alarm=np.zeros((0, BETS)),
        proof=np.zeros((0, RATIOS)), totals=np.zeros((0, 4), dtype=np.int64), log_e=np.zeros(0),
        highest=np.zeros(0),
    )  # fmt: skip


def fold(judge: Judge, interval: Interval) -> Judge:
    """Take one interval in. Metrics without a guardrail are passed over."""
    judge, every = _placed(_restarted(judge, interval.at), interval.keys)
    taken = np.flatnonzero(every >= 0)
    rows, counts = every[taken], interval.counts[taken]
    alarm, proof = judge.alarm.copy(), judge.proof.copy()
    totals, log_e = judge.totals.copy(), judge.log_e.copy()
    totals[rows] += counts
    for number, rail in enumerate(judge.rails.values()):
        mine = judge.metric[rows] == number
        if rail.mean:
            if interval.sums is None or not mine.any():
                continue
            more = interval.sums[taken[mine]]
            at = rows[mine]
            alarm[at] += more[:, :BETS]
            proof[at, : SUMS - BETS] += more[:, BETS:]
        else:
            mine &= counts[:, 2] + counts[:, 3] > 0
            if not mine.any():
                continue
            at, cells = rows[mine], counts[mine]
            units = cells[:, 0] + cells[:, 1]
            share = np.where(units > 0, cells[:, 1] / np.maximum(units, 1), 0.0)
            if interval.paired:
                share = np.full(len(cells), 0.5)
            bad = cells[:, 2:].astype(np.float64)
            alarm[at] += stats.label_sums(share, bad, ALARM_GRID * rail.r0, rail.r0)
            proof[at] += stats.label_sums(share, bad, stats.ratio_grid(rail.worse_by))
        log_e[at] = stats.log_mixture(alarm[at])
    return replace(
        judge, last=max(judge.last, interval.at), alarm=alarm, proof=proof, totals=totals,
        log_e=log_e, highest=np.maximum(judge.highest, log_e),
    )  # fmt: skip


def _restarted(judge: Judge, at: float) -> Judge:
    """Place the stakes of every restart since the last look; a clock that went back places none."""
    due = stats.restarts(at - judge.began)
    if due <= judge.restarts:
        return judge
    more = stats.placed(due) - stats.placed(judge.restarts)
    alarm = stats.restarted(judge.alarm, more)
    return replace(judge, restarts=due, alarm=alarm, log_e=stats.log_mixture(alarm))


def _placed(judge: Judge, keys: tuple[Key, ...]) -> tuple[Judge, NDArray[np.intp]]:
    """Where each key's row is, -1 without a guardrail; rows are made for those that are new."""
    if keys is judge.keys:
        return judge, np.arange(len(keys), dtype=np.intp)
    rows = _rows(judge, keys)
    if (rows < 0).any():
        judge = _joined(judge, keys)
        rows = _rows(judge, keys)
    return judge, rows


def _rows(judge: Judge, keys: tuple[Key, ...]) -> NDArray[np.intp]:
    place = judge.place
    return np.fromiter((place.get(key, -1) for key in keys), np.intp, len(keys))


def _joined(judge: Judge, keys: tuple[Key, ...]) -> Judge:
    """Rows for keys that were not seen before and have a guardrail."""
    new = [key for key in keys if key not in judge.place and key[0] in judge.rails]
    if not new:
        return judge
    number = {name: n for n, name in enumerate(judge.rails)}
    placed = log(stats.placed(judge.restarts))
    every = (*judge.keys, *new)
    return replace(
        judge,
        keys=every,
        place={key: row for row, key in enumerate(every)},
        segmented=np.concatenate([judge.segmented, np.array([bool(s) for _, s in new])]),
        metric=np.concatenate([judge.metric, np.array([number[m] for m, _ in new], dtype=np.intp)]),
        alarm=np.concatenate([judge.alarm, np.full((len(new), BETS), placed)]),
        proof=np.concatenate([judge.proof, np.zeros((len(new), RATIOS))]),
        totals=np.concatenate([judge.totals, np.zeros((len(new), 4), dtype=np.int64)]),
        log_e=np.concatenate([judge.log_e, np.full(len(new), placed)]),
        highest=np.concatenate([judge.highest, np.full(len(new), placed)]),
    )


# ---------------------------------------------------------------- verdicts


def _weights(judge: Judge, rules: Rules) -> Floats:
    """The share of the alarm that each row has: its metric's, less what the segments have."""
    rails = [rules.rails.get(name) for name in judge.rails]
    weight = np.array([0.0 if rail is None else rail.weight for rail in rails])
    segmented = judge.segmented
    count = np.bincount(judge.metric[segmented], minlength=len(rails))
    each = rules.segment_stake / np.maximum(count, 1)
    part = np.where(segmented, each[judge.metric], 1 - rules.segment_stake)
    return np.asarray(part * weight[judge.metric])


def _failing(judge: Judge, rules: Rules, weights: Floats) -> stats.Mask:
    enough = judge.totals[:, 3] >= rules.min_bad
    return np.asarray(
        (weights > 0) & enough & stats.bonferroni(judge.highest, rules.alpha, weights)
    )


def _proofs(judge: Judge, rows: NDArray[np.intp]) -> Floats:
    """Evidence of "not worse than the margin", one number a row."""
    found = np.zeros(len(rows))
    for number, rail in enumerate(judge.rails.values()):
        mine = judge.metric[rows] == number
        at = rows[mine]
        if not len(at):
            continue
        if rail.mean:
            found[mine] = stats.log_mixture(judge.proof[at, :BETS])
            continue
        ratio = stats.certificate_log_e(judge.proof[at])
        below = stats.below_log_e(judge.totals[at, 3], judge.totals[at, 1], rail.floor)
        # Two chances to be proven: each has half of the budget.
        found[mine] = np.maximum(ratio, below) - log(2)
    return found


def _mild(judge: Judge, rows: NDArray[np.intp]) -> stats.Mask:
    """Whether the harm that the alarm's richest bet bets on is within the margin.

    The proof is about the whole time; a regression that came late is not excused by the good
    hours before it. The bets placed since then know how large it is.
    """
    best = judge.alarm[rows].argmax(axis=1)
    found = np.zeros(len(rows), dtype=np.bool_)
    for number, rail in enumerate(judge.rails.values()):
        mine = judge.metric[rows] == number
        if rail.mean:
            squares, ours = judge.proof[rows[mine], BETS + 2 : BETS + 4].T
            # A bet of lambda grows best where the mean is lambda times the mean square.
            found[mine] = LAMBDAS[best[mine]] * squares <= rail.worse_by * ours
        else:
            found[mine] = ALARM_GRID[best[mine]] * rail.r0 <= (1 + rail.worse_by) * 1.001
    return found


def overall(judge: Judge, rules: Rules) -> Overall:
    """The alarm: the weighted average of all e-values reaches 1/alpha, or a row did by itself."""
    needed = -log(rules.alpha)
    if not judge.keys:
        return Overall("inconclusive", "no data", needed=needed)
    weights = _weights(judge, rules)
    bad = judge.totals[:, 3]
    able = (weights > 0) & (bad >= rules.min_bad)
    if not able.any():
        most = int(bad[weights > 0].max(initial=0))
        reason = f"{most} of {rules.min_bad} bad units of the candidate"
        return Overall("inconclusive", reason, needed=needed)
    fails = _failing(judge, rules, weights)
    terms = np.full(len(bad), -inf)
    terms[able] = judge.log_e[able] + np.log(weights[able])
    most_term = float(terms.max())
    total = most_term + log(float(np.exp(terms - most_term).sum()))
    latched = np.where(fails, judge.highest + np.log(np.maximum(weights, 1e-300)), -inf)
    top = int(np.argmax(latched if fails.any() else terms))
    metric, segment = judge.keys[top]
    if total < needed and not fails.any():
        reason = f"no harm proven: evidence {exp(min(total, 700)):.3g} of {exp(needed):.3g}"
        return Overall("inconclusive", reason, total, needed, metric, segment)
    # Those that were proven to be within their margin do not alarm; any other does.
    blamed = fails if fails.any() else np.arange(len(bad)) == top
    rows = np.flatnonzero(blamed)
    within = (_proofs(judge, rows) >= needed) & _mild(judge, rows)
    if within.all():
        reason = f"{_name(metric, segment)} is worse, within margin"
        return Overall("pass", reason, total, needed, metric, segment)
    order = latched[rows] if fails.any() else terms[rows]
    top = int(rows[int(np.argmax(np.where(within, -inf, order)))])
    metric, segment = judge.keys[top]
    reason = f"{_name(metric, segment)}: {_figures(judge, top)}"
    return Overall("fail", reason, max(total, needed), needed, metric, segment)


def _name(metric: str, segment: str) -> str:
    return f"{metric} in {segment}" if segment else metric


def _figures(judge: Judge, row: int) -> str:
    old, new, old_bad, new_bad = (int(n) for n in judge.totals[row])
    if judge.rails[judge.keys[row][0]].mean:
        n, total = judge.proof[row, BETS : BETS + 2]
        return (
            f"mean loss {total / max(n, 1):+.4f} over {int(n)} labelled, "
            f"wrong {new_bad} times and production {old_bad}"
        )
    return (
        f"candidate {new_bad} bad of {new} ({new_bad / max(new, 1):.2%}), "
        f"production {old_bad} of {old} ({old_bad / max(old, 1):.2%})"
    )


def verdicts(
    judge: Judge, rules: Rules, *, only: AbstractSet[Key] | None = None
) -> tuple[Verdict, ...]:
    """What is known of every (metric, segment), or of some."""
    if not judge.keys:
        return ()
    rows = np.arange(len(judge.keys), dtype=np.intp)
    if only is not None:
        rows = np.sort([judge.place[key] for key in only if key in judge.place]).astype(np.intp)
    suspect = stats.e_bh(judge.log_e, SHOWN_ALPHA)
    fails = _failing(judge, rules, _weights(judge, rules))
    known = zip(rows, _proofs(judge, rows), _mild(judge, rows), strict=True)
    return tuple(
        _verdict(
            judge, rules, int(row), log_e=float(judge.log_e[row]), proof=float(proof),
            fails=bool(fails[row]), mild=bool(mild), suspect=bool(suspect[row]),
        )
        for row, proof, mild in known
    )  # fmt: skip


def _verdict(
    judge: Judge,
    rules: Rules,
    row: int,
    *,
    log_e: float,
    proof: float,
    fails: bool,
    mild: bool,
    suspect: bool,
) -> Verdict:
    metric, segment = judge.keys[row]
    rail = judge.rails[metric]
    old, new, old_bad, new_bad = (int(n) for n in judge.totals[row])
    word, reason = _word(judge, rules, row, log_e=log_e, proof=proof, fails=fails, mild=mild)
    ratio: float | None = None
    difference: float | None = None
    interval: tuple[float, float | None] | None = None
    if rail.mean:
        n, total, squares = judge.proof[row, BETS : BETS + 3].tolist()
        if n:
            difference = total / n
            interval = stats.mean_interval(n, total, squares, SHOWN_ALPHA)
    else:
        ratio, low, high = stats.rate_ratio_interval(
            judge.proof[row], stats.ratio_grid(rail.worse_by), SHOWN_ALPHA
        )
        interval = low, high if high < inf else None
        ratio = ratio if ratio is not None and ratio < inf else None
    return Verdict(
        metric=metric, segment=segment, verdict=word, reason=reason, units=(old, new),
        bad=(old_bad, new_bad), ratio=ratio, interval=interval, difference=difference,
        log_e=log_e, log_e_pass=proof, suspect=suspect,
    )  # fmt: skip


def _word(
    judge: Judge, rules: Rules, row: int, *, log_e: float, proof: float, fails: bool, mild: bool
) -> tuple[Word, str]:
    metric, segment = judge.keys[row]
    worse_by = judge.rails[metric].worse_by
    new, new_bad = int(judge.totals[row, 1]), int(judge.totals[row, 3])
    least = rules.min_units_per_segment if segment else rules.min_units
    if not new:
        return "inconclusive", "no data"
    if proof >= -log(rules.alpha) and new >= least and (mild or not fails):
        if fails:
            return "pass", f"worse, within margin: {_figures(judge, row)}"
        return "pass", f"not {worse_by:.0%} worse, proven: {_figures(judge, row)}"
    if fails:
        return "fail", f"worse, proven: {_figures(judge, row)}"
    if new < least:
        return "inconclusive", f"{new} of {least} units"
    return "inconclusive", (
        f"neither proven: worse {exp(min(log_e, 700)):.2g}, "
        f"not {worse_by:.0%} worse {exp(min(proof, 700)):.2g}, of {1 / rules.alpha:.0f}; "
        f"{new_bad} bad of {new}"
    )


# ---------------------------------------------------------------- keeping


class _Kept(Value, frozen=True, kw_only=True):
    began: float
    last: float
    restarts: int
    rails: dict[str, Rail]
    keys: tuple[Key, ...]
    alarm: bytes
    proof: bytes
    totals: bytes
    highest: bytes
    bets: tuple[float, ...]


_BETS = (*ALARM_GRID.tolist(), *LAMBDAS.tolist(), float(RATIOS), float(NULL))
"""What the sums mean; those of another grid cannot be gone on with."""


def save(judge: Judge) -> bytes:
    """The judge as bytes; `load` gives back exactly this one."""
    return msgspec.msgpack.encode(_Kept(
        began=judge.began, last=judge.last, restarts=judge.restarts, rails=dict(judge.rails),
        keys=judge.keys, alarm=judge.alarm.tobytes(), proof=judge.proof.tobytes(),
        totals=judge.totals.tobytes(), highest=judge.highest.tobytes(), bets=_BETS,
    ))  # fmt: skip


def load(raw: bytes) -> Judge:
    """The judge that was saved.

    Raises:
        ValueError: it was saved by a kedge that bets on other ratios.
    """
    kept = msgspec.msgpack.decode(raw, type=_Kept)
    if kept.bets != _BETS:
        raise ValueError("saved with another grid of bets")
    judge = _joined(begin(kept.began, kept.rails), kept.keys)
    count = len(kept.keys)
    alarm = np.frombuffer(kept.alarm).reshape(count, BETS).copy()
    return replace(
        judge,
        last=kept.last,
        restarts=kept.restarts,
        alarm=alarm,
        log_e=stats.log_mixture(alarm),
        proof=np.frombuffer(kept.proof).reshape(count, RATIOS).copy(),
        totals=np.frombuffer(kept.totals, dtype=np.int64).reshape(count, 4).copy(),
        highest=np.frombuffer(kept.highest).copy(),
    )
