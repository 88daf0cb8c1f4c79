"""Judge of cost: a verdict by unit on whether the candidate is dearer.

Theory of operation
-------------------
* A unit is a caller, valued by its mean cost per inference in the step, or a request without a
  caller. Costs are clipped at a cap c, so the bets stay solvent however skewed the costs are.
  Y1 = min(x, c)/c of a candidate's unit, y0 = min((1 + d) x, c)/c of production's, d = `worse_by`.
* `pass` bets that the candidate is not d dearer. A candidate's unit is a factor 1 - b (y1 - z). A
  unit of production is a factor 1 + b (y0 - z) w/(1 - w). A candidate that costs at least 1 + d
  times production has E y1 >= E y0. So the expected factor is at most 1 + b w (E y0 - E y1) <= 1.
  `fail` bets with the signs reversed. z is a constant that is known before the bets: it removes the
  noise of the split and does not affect validity.
* Requests without a caller: each was assigned by itself with the designed share w. So the product
  is an e-process, and is looked at after every window.
* Callers have two kinds of bets, each with half of alpha. `firsts`: a caller's first window in the
  step. Its arm still follows from the hash, so these are an e-process like the requests, and find
  much dearer candidates in seconds. `callers`: one bet on each caller's mean so far, and w is the
  realised share. Given the numbers on both arms, the product's mean is at most exp(N b (E y0 - E
  y1)) <= 1. It is no martingale in time, so it is looked at `bets.LOOK_S` only, and needs
  log(bets.LOOKS) more. Both are multiplied by the requests without a caller.
* Pairs: both releases have a cost for one request, so a unit is a factor 1 -+ b (y1 - y0).
* A step (weight) has its own bets. Only callers whose arm was not known in an earlier, smaller
  step count in it. The steps share `ALPHA` of `fail`. The certificate of each step has all of
  `ALPHA`, since a dearer candidate has to pass all of them.
* The cap is the declared `cost.max`, or is learned. It is learned from units without bets: a tenth
  of the callers (by a hash that is independent of the arm), or the first requests.
* One pause of a process makes many requests dear at once. Gains from costs at the cap are therefore
  bounded in each window. Leaving out gains lowers the evidence, so it cannot make a wrong verdict.

Deliberately absent: costs above the cap. A candidate that is dearer only there is not found; the
verdict reports how many units are clipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from typing import Any

import msgspec
import numpy as np

from kedge.core.evidence.bets import LOOK_S, LOOKS
from kedge.core.evidence.cost_bets import (
    BETS,
    EDGES,
    WHOLE,
    CostCells,
    Scale,
    Table,
    bin_of,
    callers_log_e,
    learned,
    learns,
    pairs_log_e,
    requests_growth,
)
from kedge.core.evidence.rules import Verdict, Word
from kedge.core.evidence.stats import log_mixture
from kedge.core.evidence.windows import CANDIDATE, PRODUCTION, CallerCost, CostCell, Spent, Window
from kedge.core.values import BUCKETS, Value

ALPHA = 0.001
"""Probability of wrong verdicts on cost, for `pass` and for `fail` each, beside the alarm's one per
cent: few policies declare costs."""
METHOD = 1
"""Version of this method. Evidence of another version is not continued."""
LEAST = 5
"""Units on the smaller arm before a verdict: fewer are single callers, whatever the bets show."""
LEARN_CALLERS = 3
"""Production's learning callers without which a look is skipped."""
LEARN_UNITS = 100
"""Production's units from which the scale of bets in time is learned: five are above the 95th
percentile."""
LATE_S = 60
"""Seconds after a new weight in which windows of the previous one are late, not a step back."""
FIRST_SHARE, FURTHER_SHARE = 0.9, 0.1
"""Parts of `fail`'s `ALPHA` that the declared steps share, and that further ones share."""


Pair = tuple[int, int]
"""Values of production and of the candidate."""
Evidence = tuple[float, float]
"""Evidence for `pass` and for `fail`."""
Wealth = tuple[tuple[float, ...], ...]


class CostFigures(Value, frozen=True, kw_only=True):
    """Figures of what the judge of cost clipped and left out. Pairs are (production, candidate)."""

    cap: float | None
    """Cost at which others are clipped, in the policy's currency; None: not known yet."""
    clipped: Pair
    """Requests that were clipped at the declared `cost.max`."""
    at_cap: Pair
    """Units whose mean cost is the cap, or more."""
    units: Pair
    """Units with bets in this step."""
    left_out: int
    """Costs that a window had no room for."""


class Kept(Value, frozen=True, kw_only=True):
    """A cost judge as it is saved."""

    method: int = 0
    keyed: bool = False
    cap: float = 0.0
    centre: float = 0.0
    weight: int = -1
    before: int = -1
    began: int = 0
    taken: tuple[int, ...] = ()
    further: int = 0
    share: float = 0.0
    look: int = 0
    wealth: tuple[tuple[float, ...], ...] = ()
    """By `pass` and `fail`, the logarithm of each bet on requests without a caller."""
    first_wealth: tuple[tuple[float, ...], ...] = ()
    """By `pass` and `fail`, the logarithm of each bet on callers' first windows."""
    bins: dict[int, tuple[int, float]] = {}
    requests: tuple[int, int] = (0, 0)
    above: tuple[int, int] = (0, 0)
    firsts: tuple[int, int] = (0, 0)
    firsts_above: tuple[int, int] = (0, 0)
    callers: tuple[int, int] = (0, 0)
    callers_above: tuple[int, int] = (0, 0)
    of_callers: tuple[float, float] = (0.0, 0.0)
    passed: bool = False
    failed: bool = False
    clips: tuple[int, int] = (0, 0)
    left_out: int = 0
    below: int = WHOLE
    units: bytes = b""
    arms: bytes = b""
    times: bytes = b""
    sums: bytes = b""


_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(Kept).decode


class CostJudge:
    """Evidence on the cost of one comparison, folded from its windows."""

    def __init__(
        self,
        *,
        worse_by: float,
        largest: float | None,
        paired: bool,
        declared: Sequence[int],
        keyed: bool,
        kept: bytes = b"",
    ) -> None:
        """Begin, or continue.

        Args:
            worse_by: the margin.
            largest: the declared `cost.max`; None: the cap is learned.
            paired: a shadow.
            declared: weights of the declared steps, in buckets; empty: the first step is declared.
            keyed: requests name their callers.
            kept: `save` of a judge with the same arguments.
        """
        self._worse_by, self._paired, self._declared = worse_by, paired, tuple(declared)
        self._table = Table()
        self._is = self._fresh(Kept(method=METHOD, keyed=keyed, cap=largest or 0.0))
        if kept:
            self._restore(_unpack(kept))

    # ------------------------------------------------------------ keeping

    def save(self) -> bytes:
        """Return the judge as bytes."""
        table = self._table
        table.settle()
        return _pack(
            self._but(
                units=table.units.tobytes(),
                arms=table.arms.tobytes(),
                times=table.times.tobytes(),
                sums=table.sums.tobytes(),
                below=table.below,
            )
        )

    def _restore(self, kept: Kept) -> None:
        if kept.method != METHOD:
            return
        table = self._table
        table.units = np.frombuffer(kept.units, np.int64)
        table.arms = np.frombuffer(kept.arms, np.int8)
        table.times = np.frombuffer(kept.times, np.int64)
        table.sums = np.frombuffer(kept.sums, np.float64).reshape(-1, 2)
        table.below = kept.below
        self._is = msgspec.structs.replace(kept, units=b"", arms=b"", times=b"", sums=b"")

    def _but(self, **changed: Any) -> Kept:
        return msgspec.structs.replace(self._is, **changed)

    # ------------------------------------------------------------ folding

    def fold(self, window: Window) -> None:
        """Fold one window, with its arms as in the comparison."""
        clips = self._is.clips[0] + window.clips[0], self._is.clips[1] + window.clips[1]
        self._is = self._but(clips=clips, left_out=self._is.left_out + window.uncosted)
        if not window.callers and not window.cells and window.weight != self._is.weight:
            return
        if window.weight != self._is.weight:
            if window.weight == self._is.before and window.at < self._is.began + LATE_S:
                return
            self._begin(window.weight, window.at)
        if window.callers and not self._is.keyed:
            self._is = self._but(keyed=True)
            self._begin(window.weight, window.at)
        while self._is.look < LOOKS and window.at >= self._is.began + LOOK_S[self._is.look]:
            self._look()
        if window.cells:
            cells = CostCells(window.cells)
            self._is = self._bet_requests(cells)
            self._learn_from(cells)
        if window.callers:
            self._meet(window.callers)
        if self._scale() is None:
            self._learn()
        else:
            self._latch(self._in_time(), looks=1)

    def _meet(self, callers: Sequence[CallerCost]) -> None:
        """Bet on the first window of callers that are new in this step, and add up all."""
        below, weight = self._known_below(), self._is.weight
        found = []
        for one in callers:
            arm = CANDIDATE if self._paired or one.bucket < weight else PRODUCTION
            other = 0 if self._paired else one.requests[1 - arm]
            # A request of another arm than its bucket's comes from a failover or an operator.
            if one.requests[arm] and not other and (self._paired or one.bucket >= below):
                found.append((one, arm))
        units = np.array([one.unit for one, _ in found], dtype=np.int64)
        new, teach = self._table.new(units), learns(units)
        cells: tuple[list[CostCell], list[CostCell]] = ([], [])
        for at, (one, arm) in enumerate(found):
            if new[at]:
                cells[int(teach[at])].append(_first(one))
            self._table.add(one.unit, arm, one.requests[arm], one.cost)
        if cells[0]:
            share = (weight - below) / (BUCKETS - below)
            self._is = self._bet_firsts(CostCells(cells[0]), share)
        if cells[1]:
            self._learn_from(CostCells(cells[1]))

    def end(self) -> None:
        """Look once more at the end of the windows, in place of the next look."""
        if self._is.keyed and self._is.weight >= 0 and self._is.look < LOOKS:
            self._look()

    def _known_below(self) -> int:
        """Return the bucket below which callers' arms were known in an earlier, smaller step."""
        return max((w for w in self._is.taken[:-1] if w < self._is.weight), default=0)

    def _begin(self, weight: int, at: int) -> None:
        """Begin a set of bets: for another step, or for the first callers."""
        was = self._is
        declared = self._declared or (weight,) if not was.taken else self._declared or was.taken[:1]
        if weight in declared and weight not in was.taken:
            share, further = FIRST_SHARE / len(set(declared)), was.further
        else:
            further = was.further + 1
            share = FURTHER_SHARE / (further * (further + 1))
        self._is = self._fresh(
            self._but(
                before=was.weight,
                weight=weight,
                began=at,
                taken=(*was.taken, weight)[-256:],
                further=further,
                share=share,
            )
        )
        self._learn()  # from an earlier step's requests, before this one
        self._is = self._but(bins={}, above=(0, 0))
        below, self._table = self._table.below, Table()
        self._table.below = below

    @staticmethod
    def _fresh(kept: Kept) -> Kept:
        """Return the state without units and without a certificate."""
        zeros = (0.0,) * len(BETS)
        return msgspec.structs.replace(
            kept,
            look=0,
            wealth=(zeros, zeros),
            first_wealth=(zeros, zeros),
            firsts=(0, 0),
            firsts_above=(0, 0),
            centre=0.0,
            requests=(0, 0),
            callers=(0, 0),
            callers_above=(0, 0),
            of_callers=(0.0, 0.0),
            passed=False,
        )

    # ------------------------------------------------------------ bets in time

    def _scale(self) -> Scale | None:
        """Return the scale of bets in time, once it is known."""
        of = self._is
        known = of.cap and (of.centre or self._paired)
        return Scale(self._worse_by, of.cap, 0.0 if self._paired else of.centre) if known else None

    def _bet_requests(self, cells: CostCells) -> Kept:
        of = self._is
        wealth, units, above = self._bet(cells, of.weight / BUCKETS, of.wealth)
        return self._but(
            wealth=wealth, requests=_plus(of.requests, units), above=_plus(of.above, above)
        )

    def _bet_firsts(self, cells: CostCells, share: float) -> Kept:
        of = self._is
        wealth, units, above = self._bet(cells, share, of.first_wealth)
        return self._but(
            first_wealth=wealth,
            firsts=_plus(of.firsts, units),
            firsts_above=_plus(of.firsts_above, above),
        )

    def _bet(self, cells: CostCells, share: float, before: Wealth) -> tuple[Wealth, Pair, Pair]:
        """Return the wealth after some units, the number of units, and how many are at the cap."""
        scale, of = self._scale(), self._is
        if scale is None or not (self._paired or 0 < share < 1):
            return before, (0, 0), (0, 0)
        seen = of.requests[0] + of.firsts[0]
        often = (of.above[0] + of.firsts_above[0]) / seen if seen else 0.0
        grown = requests_growth(cells, scale, share, often, paired=self._paired)
        wealth = tuple(
            tuple((np.array(had) + more).tolist()) for had, more in zip(before, grown, strict=True)
        )
        units = cells.times.sum(axis=0)
        above = ((cells.mean >= scale.cap) * cells.times).sum(axis=0)
        return wealth, (int(units[0]), int(units[1])), (int(above[0]), int(above[1]))

    def _learn_from(self, cells: CostCells) -> None:
        """Count production's costs by bin, for the scale of later units and of later steps."""
        bins = dict(self._is.bins)
        places = np.searchsorted(EDGES, cells.low[:, 0], side="right") - 1
        for place, n, mean in zip(places, cells.times[:, 0], cells.mean[:, 0], strict=True):
            if n:
                had = bins.get(int(place), (0, 0.0))
                bins[int(place)] = (had[0] + int(n), had[1] + float(n * mean))
        self._is = self._but(bins=bins)

    def _learn(self) -> None:
        """Fix the scale of the following units, once enough are counted."""
        cells = [self._is.bins[place] for place in sorted(self._is.bins)]
        times = np.array([n for n, _ in cells], dtype=np.float64)
        if times.sum() >= LEARN_UNITS:
            means = np.array([total for _, total in cells]) / times
            scale = learned(means, times, self._worse_by, self._is.cap)
            self._is = self._but(cap=scale.cap, centre=scale.centre)

    # ------------------------------------------------------------ callers

    def _look(self) -> None:
        """Bet once on each caller's mean cost so far."""
        self._is = self._but(look=self._is.look + 1)
        if not self._is.keyed:
            return
        table = self._table
        table.settle()
        means = table.sums / np.maximum(table.times, 1)[:, None]
        teach = learns(table.units)
        ours = (table.arms == PRODUCTION) | self._paired
        theirs = table.arms == CANDIDATE
        if self._paired and self._is.cap:
            scale = Scale(self._worse_by, self._is.cap)
        elif (ours & teach).sum() < LEARN_CALLERS:
            return
        else:
            costs = means[ours & teach, 0]
            scale = learned(costs, np.ones(len(costs)), self._worse_by, self._is.cap)
            if self._paired:
                scale = Scale(self._worse_by, scale.cap)
        zero, one = means[ours & ~teach, 0], means[theirs & ~teach, 1]
        found = (pairs_log_e if self._paired else callers_log_e)(zero, one, scale)
        self._is = self._but(
            cap=scale.cap,
            callers=(len(zero), len(one)),
            of_callers=found,
            callers_above=(int((zero >= scale.cap).sum()), int((one >= scale.cap).sum())),
        )
        self._latch(self._at_look(), looks=LOOKS)

    # ------------------------------------------------------------ telling

    def _in_time(self) -> Evidence:
        """Return the anytime log-evidence for `pass` and for `fail`."""
        of = self._is
        logs = [
            float(log_mixture(np.array(requests)) + log_mixture(np.array(firsts)))
            for requests, firsts in zip(of.wealth, of.first_wealth, strict=True)
        ]
        return logs[0], logs[1]

    def _at_look(self) -> Evidence:
        """Return the log-evidence of callers' means at the last look, plus that of requests."""
        of = self._is
        logs = [
            float(log_mixture(np.array(requests))) + means
            for requests, means in zip(of.wealth, of.of_callers, strict=True)
        ]
        return logs[0], logs[1]

    @property
    def units(self) -> tuple[int, int]:
        """Return the units with bets in this step, by arm: requests, and callers so far."""
        of = self._is
        production, candidate = (max(pair) for pair in zip(of.callers, of.firsts, strict=True))
        return of.requests[0] + production, of.requests[1] + candidate

    def _latch(self, log_e: Evidence, looks: int) -> None:
        if min(self.units) < LEAST:
            return
        needed = log(looks * (2 if self._is.keyed else 1) / ALPHA)
        self._is = self._but(
            passed=self._is.passed or log_e[0] >= needed,
            failed=self._is.failed or log_e[1] >= needed - log(self._is.share),
        )

    def figures(self) -> CostFigures:
        """Return the figures of clipping and omission."""
        of = self._is
        return CostFigures(
            cap=of.cap or None,
            clipped=of.clips,
            at_cap=_plus(of.above, of.callers_above if any(of.callers) else of.firsts_above),
            units=self.units,
            left_out=of.left_out,
        )

    def verdict(self, spent: Spent) -> Verdict:
        """Return the verdict of this step, with the costs of both arms."""
        told = _told(spent)
        word: Word = "inconclusive"
        if self._is.failed:
            word, reason = "fail", f"over {self._worse_by:.0%} dearer, proven: {told}"
        elif self._is.passed:
            word = "pass"
            reason = f"not {self._worse_by:.0%} dearer, proven: {told}{self._capped()}"
        else:
            reason = self._lacks() or f"neither proven: {told}"
        passing, failing = map(max, zip(self._in_time(), self._at_look(), strict=True))
        return msgspec.structs.replace(
            _undecided("", spent, reason),
            verdict=word,
            units=self.units,
            log_e=failing,
            log_e_pass=passing,
        )

    def _capped(self) -> str:
        """Return the range of costs that the verdict covers, in words."""
        n0, n1 = self.figures().at_cap
        return f"; costs are clipped at {self._is.cap:.3g} ({n0} and {n1} units)"

    def _lacks(self) -> str:
        """Return what is missing for any proof, in words; empty when only units are missing."""
        of = self._is
        if of.weight < 0:
            return "no cost of a unit was reported"
        known = sum(n for n, _ in of.bins.values())
        if not any(self.units) and self._scale() is None:
            what = "callers and requests" if of.keyed else "requests"
            told = f"{known} of {LEARN_UNITS} {what} of production that the scale is learned from"
            due = (
                f"; callers are looked at {LOOK_S[of.look % LOOKS] / 60:.0f} min after the step"
                " began"
            )
            return told + (due if of.keyed else "")
        if min(self.units) < LEAST:
            return f"{min(self.units)} of {LEAST} units on the smaller arm"
        return ""


def _first(one: CallerCost) -> CostCell:
    """Return a caller's first window as a unit, with its mean cost there."""
    means = [total / n if n else 0.0 for n, total in zip(one.requests, one.cost, strict=True)]
    bins = [bin_of(mean) for mean in means]
    times = int(one.requests[0] > 0), int(one.requests[1] > 0)
    return CostCell((bins[0], bins[1]), times, (means[0], means[1]))


def _plus(one: Pair, other: Pair) -> Pair:
    return one[0] + other[0], one[1] + other[1]


def figure(segment: str, spent: Spent, *, guarded: bool) -> Verdict:
    """Return the costs of both arms without a verdict: in a segment, or without a guardrail."""
    why = "cost is judged as a whole" if guarded else "no guardrail"
    return _undecided(segment, spent, f"{why}: {_told(spent)}")


def _undecided(segment: str, spent: Spent, reason: str) -> Verdict:
    """Return the costs of both arms, as a verdict that proves nothing."""
    (n0, sum0, _), (n1, sum1, _) = spent.production, spent.candidate
    m0, m1 = (sum0 / n0, sum1 / n1) if min(n0, n1) else (0.0, 0.0)
    return Verdict(
        metric="cost",
        segment=segment,
        verdict="inconclusive",
        reason=reason,
        units=(n0, n1),
        bad=(0, 0),
        ratio=m1 / m0 if m0 else None,
        difference=m1 - m0 if min(n0, n1) else None,
    )


def _told(spent: Spent) -> str:
    means = [
        f"{total / n:.3g}" if n else "-" for n, total, _ in (spent.candidate, spent.production)
    ]
    return f"{means[0]} an inference, production {means[1]}"
