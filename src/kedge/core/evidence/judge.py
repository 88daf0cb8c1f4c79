"""Judge of a comparison: folds bad events, and bets on them. Pure: no clock, disk or randomness.

Theory of operation
-------------------
* There is one row for each (metric, segment). Each row is judged in each step by itself, and in
  each step by many restarts. So a regression that begins late meets bets that have not counted its
  callers.
* A *unit* is a caller, or a request without an entity. A caller counts once in each restart, with
  its first bad event in it; a request counts once. The share is the designed one (`bets`).
* Each row, step, restart and part has its own part of alpha. The parts sum to alpha (a
  union bound: they share callers, and an average of e-values of different filtrations is none at a
  stopping time; Choe and Ramdas 2024). A row fails by itself, and a failure is permanent.
* A row's alarm has two parts. The labels of first bad events are tested each second. The callers'
  counts are tested at fixed looks, and find small harm among callers that ask often.
* Many bad units in one second of one arm are one event: a paused process is one fault.
* A pass needs its certificate, in this step. The absence of an alarm is no certificate. Where
  almost nothing ever goes bad, no ratio can be proven. Then it is enough that fewer of the
  candidate's units than a floor went bad with their first request.
* Time is the time of folding, and never goes back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from math import floor, inf, log, sqrt
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from kedge.core.evidence import bets, stats
from kedge.core.evidence.bursts import HISTORY_S, SETTLED_S, SPREAD, STEADY_S, History
from kedge.core.evidence.bursts import allowed as allowed_in
from kedge.core.evidence.certificates import callers_proof, proof
from kedge.core.evidence.events import Caller, First, Label, Second
from kedge.core.evidence.rows import Rows
from kedge.core.evidence.rules import METHOD, QUALITY, Alarm, Cells, JudgeRules, Key, Rail
from kedge.core.evidence.stats import ALARM_GRID, LAMBDAS, Floats
from kedge.core.evidence.step import SECONDS, TAIL, Ints, KeptStep, Step, load, span
from kedge.core.values import Value

LABELS_PART, COUNTS_PART = 0.9, 0.1
"""Parts of a whole row's alpha: bets on first bad events, and bets on counts at looks. Compared
with a fifth the counts lose ln 2, and find the same in every simulated world. Requests without an
entity gain a tenth."""
DECLARED = 0.9
"""Part of alpha that the declared steps share equally. Weights set by hand and changed policies
take the rest, 1/(i (i + 1)) of it each."""
STEPS = 8
"""Steps of one comparison that are kept, each with its table. Beyond it the oldest is dropped."""


APART = 3.0
"""Standard errors by which the given share must exceed the set one before it is used instead."""
FEWEST = 8
"""Bad callers of a row before it is certified at a look: fewer cannot earn enough evidence."""

Changed = list[NDArray[np.intp]]
"""Rows in which a unit went bad."""


class Judge:
    """Evidence of one comparison. Its owner folds seconds and labels into it."""

    def __init__(self, rules: JudgeRules, *, paired: bool, known: Sequence[int] = ()) -> None:
        self.rules = rules
        self.paired = paired
        self._known = tuple(known)
        """Weights at which callers were assigned before this comparison began."""
        self._extras = 0
        self.now = -inf
        self.steps: dict[int, Step] = {}
        self.weight: int | None = None
        self.rows = Rows(rules)
        self.failures: dict[Key, Alarm] = {}
        self._history: dict[str, History] = {}
        self._steady: dict[str, bool] = {}
        """By metric, whether production has no burst in the present second."""
        self.misrouted = 0
        """Bad events of callers whose arm does not follow from their bucket."""

    # ------------------------------------------------------------ steps

    @property
    def step(self) -> Step | None:
        """Return the present step."""
        return None if self.weight is None else self.steps.get(self.weight)

    def begin(self, weight: int, at: float) -> Step:
        """Continue the step of this weight, or begin it."""
        self.now = max(self.now, at)
        present, self.weight = self.weight, weight
        found = self.steps.get(weight)
        if found is not None:
            return found
        known = [*self._known, *self.steps]
        step = Step(weight, span(weight, known, paired=self.paired), self.now, self._share(weight))
        step.grow(len(self.rows.keys))
        self.steps[weight] = step
        while len(self.steps) > STEPS:
            # Late labels reopen an old step; a failure is excused by its own step only.
            spared = {failure.weight for failure in self.failures.values()}
            others = [one for one in self.steps if one not in (weight, present)]
            oldest = next((one for one in others if one not in spared), others[0])
            self._known = (*self._known, oldest)
            del self.steps[oldest]
        return step

    def _share(self, weight: int) -> float:
        if weight in self.rules.steps and weight not in self._known and not self._extras:
            return DECLARED / len(self.rules.steps)
        self._extras += 1
        return (1 - DECLARED) / (self._extras * (self._extras + 1))

    def judges_of(self, metric: str) -> list[tuple[str, Rail]]:
        """Return the guardrails that judge a metric's events."""
        return [
            (name, rail) for name, rail in self.rules.rails.items() if (rail.of or name) == metric
        ]

    def _restore(self, kept: _Kept) -> None:
        self._extras, self.now, self.weight = kept.extras, kept.now, kept.weight
        self.rows.load(kept.keys, kept.left_out)
        self.failures = {(one.metric, one.segment): one for one in kept.failures}
        self._history = {metric: History(past) for metric, past in kept.history.items()}
        self.misrouted = kept.misrouted
        for one, proofs in zip(kept.steps, kept.proofs, strict=True):
            step = self.steps[one.weight] = load(one)
            step.proof = {(name, row): value for name, row, value in proofs}

    # ------------------------------------------------------------ rows

    def _rows(self, metric: str, segments: Iterable[str]) -> list[int]:
        found = [self.rows.make(metric, name) for name in ("", *segments)]
        self._grow()
        return [row for row in found if row >= 0]

    def _grow(self) -> None:
        for step in self.steps.values():
            step.grow(len(self.rows.keys))

    # ------------------------------------------------------------ seconds

    def fold(self, weight: int, second: Second) -> None:
        """Fold one second of one step. Metrics without a guardrail are skipped."""
        step = self.begin(weight, second.at)
        step.advance(self.now)
        step.given += second.given
        by_metric: dict[str, list[Caller]] = {}
        for one in second.callers:
            by_metric.setdefault(one.metric, []).append(one)
        changed: Changed = []
        for metric, rail in self.rules.rails.items():
            if rail.of or rail.mean or metric == QUALITY:
                continue
            self._fold_bad(step, metric, by_metric.get(metric, []), second, changed)
            met = second.timed if metric.startswith("latency") else second.met
            if met:
                rows, cells = self._cells(metric, met)
                step.arrays["met"][rows] += cells
        self._fold_first(step, second.first)
        self._test(step, changed)
        self._look_at(step)

    def _fold_first(self, step: Step, first: Sequence[First]) -> None:
        for one in first:
            if not step.track(one.unit):
                continue
            for metric, rail in self.rules.rails.items():
                if not (rail.of or rail.mean or metric == QUALITY):
                    rows = self._rows(metric, one.segments)
                    step.ask(
                        rows,
                        one.bucket,
                        one.arm,
                        bad=metric in one.bad,
                        ours=metric in one.ours,
                        steady=self._steady.get(metric, True),
                    )

    def _cells(self, metric: str, cells: Cells) -> tuple[NDArray[np.intp], Ints]:
        """Return the rows of segments, and their counts; segments beyond the bound are left out."""
        found = list(map(self.rows.place[metric].get, cells))
        if None in found:
            found = [self.rows.make(metric, name) for name in cells]
            self._grow()
        rows = np.array(found, dtype=np.intp)
        flat = chain.from_iterable(cells.values())
        counts = np.fromiter(flat, np.int64, 2 * len(cells)).reshape(-1, 2)
        kept = rows >= 0
        return rows[kept], counts[kept]

    def _fold_bad(
        self, step: Step, metric: str, callers: list[Caller], second: Second, changed: Changed
    ) -> None:
        """Count what went bad in one metric in one second, bursts as one event."""
        cells = second.keyless.get(metric, {})
        keyless = cells.get("", (0, 0))
        mine = [one for one in callers if self._decided(step, one)]
        units = [len({one.unit for one in mine if one.arm == arm}) for arm in (0, 1)]
        expected, usual = self._usual(step, metric, second.at)
        self._remember(metric, second.at, units[0], keyless[0])
        allowed = [allowed_in(units[arm] + keyless[arm], expected) for arm in (0, 1)]
        if not step.span.paired:
            allowed[0] = None  # thinning production's would make its share of the bad ones smaller
        steady = units[0] + keyless[0] <= 1 + floor(usual + SPREAD * sqrt(usual))
        self._steady[metric] = steady
        left = self._fold_callers(step, metric, mine, allowed, changed, steady=steady)
        if cells:
            self._fold_keyless(step, metric, cells, changed, left, steady=steady)

    def _fold_callers(
        self,
        step: Step,
        metric: str,
        mine: list[Caller],
        allowed: list[int | None],
        changed: Changed,
        *,
        steady: bool,
    ) -> list[int | None]:
        """Count bad callers; return how many more a burst allows, -1: its event was counted."""
        left = list(allowed)
        counted: set[tuple[int, int]] = set()
        for one in mine:
            rows = self._rows(metric, one.segments)
            ours = one.times if steady and not one.arm else 0
            theirs = one.times if one.arm else 0
            room = left[one.arm]
            new = (one.arm, one.unit) not in counted
            if room is None or room > 0 or not new:
                step.caller(
                    rows, one.unit, one.arm, self.now, ours=ours, theirs=theirs, alarm=one.times
                )
            elif room == 0:
                step.burst(rows, one.unit, one.arm, self.now, ours, theirs)
            else:  # units that a burst leaves out of the alarm still count against a certificate
                step.caller(
                    rows, one.unit, one.arm, self.now, ours=ours, theirs=theirs, labelled=False
                )
            if room is not None and new and room >= 0:
                left[one.arm] = room - 1
            counted.add((one.arm, one.unit))
            if one.arm:
                step.spread(rows, self.now)
            changed.append(np.array(rows, dtype=np.intp))
        return left

    def _decided(self, step: Step, one: Caller) -> bool:
        """Return whether this step decided a caller's arm, and the arm follows from its bucket."""
        if step.span.paired:
            return True
        if not step.span.decides(one.bucket):
            return False
        if (one.bucket < step.weight) != bool(one.arm):
            self.misrouted += 1
            return False
        return True

    def _fold_keyless(
        self,
        step: Step,
        metric: str,
        cells: Cells,
        changed: Changed,
        left: list[int | None],
        *,
        steady: bool,
    ) -> None:
        rows, counts = self._cells(metric, cells)
        step.arrays["bad"][rows] += counts
        sure, told = counts.copy(), counts.copy()
        if not steady:
            sure[:, 0] = 0
        step.arrays["steady"][rows] += sure
        whole = rows == self.rows.find(metric, "")
        for arm, room in enumerate(left):
            if room is None:
                continue
            over = counts[:, arm] > max(room, 0)
            told[over, arm] = max(room, 0)
            if room >= 0 and over[whole].any():
                step.bursts(rows[whole], arm)
                changed.append(rows[whole])
        kept = told.any(axis=1)
        step.keyless(rows[kept], told[kept])
        step.spread(rows[counts[:, 1] > 0], self.now)
        changed.append(rows[kept])

    # ------------------------------------------------------------ bursts

    def _usual(self, step: Step, metric: str, at: float) -> tuple[float, float]:
        """Return the bad units to be expected in a second by production's rate, of either arm."""
        past = self._history.setdefault(metric, History())
        callers, keyless = past.recent(at)
        since = at - step.began

        def odds(share: float) -> float:
            return share / (1 - share) if 0 < share < 1 else 0.0

        expected = callers * odds(step.span.callers) + keyless * odds(step.span.keyless)
        return (
            expected / min(max(since, SETTLED_S), HISTORY_S),
            (callers + keyless) / min(max(since, STEADY_S), HISTORY_S),
        )

    def _remember(self, metric: str, at: float, callers: int, keyless: int) -> None:
        if callers or keyless:
            self._history.setdefault(metric, History()).add((at, callers, keyless))

    # ------------------------------------------------------------ labels

    def fold_labels(self, weight: int, labels: Sequence[Label], at: float) -> None:
        """Fold outcomes of one step's predictions, in the order of the predictions.

        Each wrong answer is an event when its label comes; nothing waits for the other arm.
        """
        rail = self.rules.rails.get(QUALITY)
        if rail is None or not labels:
            return
        present = self.weight
        step = self.begin(weight, at)
        self.weight = present if present is not None else weight
        step.advance(self.now)
        changed: Changed = []
        for one in labels:
            rows = self._rows(QUALITY, one.segments)
            self._fold_label(step, rail, one, rows)
            changed.append(np.array(rows, dtype=np.intp))
        self._test(step, changed)
        self._look_at(step)

    def forget_labels(self) -> None:
        """Drop the labels and what followed from them: they are folded again, corrected.

        A bet on the corrected outcomes has the same order and stakes. So it is the bet that would
        have been placed on correct labels at once. Its bound holds as before.
        """
        rows = [row for row in self.rows.place.get(QUALITY, {}).values() if row >= 0]
        for step in self.steps.values():
            step.forget_labels(rows)
        self.failures = {key: one for key, one in self.failures.items() if key[0] != QUALITY}

    def _fold_label(self, step: Step, rail: Rail, one: Label, rows: list[int]) -> None:
        of = step.span
        share = of.keyless if one.unit is None else of.callers
        step.labelled[one.arm] += 1
        if one.unit is not None and not of.decides(one.bucket):
            return
        if not 0 < share < 1:
            return
        step.dependence.add(
            one.theirs - one.ours if of.paired else one.theirs * (1 - share) - one.ours * share
        )
        step.answer(rows, one.arm, one.ours, one.theirs)
        arm = one.arm
        if of.paired:
            arm = int(one.theirs > one.ours)
        event = one.theirs != one.ours if of.paired else one.theirs + one.ours > 0
        first = one.unit is not None and step.heard(one.unit)
        if first and not rail.mean:
            self._lead(step, rows, one)
        if rail.mean:
            step.loss(
                rows,
                one.unit,
                arm,
                self.now,
                one.ours,
                one.theirs,
                share,
                rail.worse_by,
                first=first,
            )
        elif (
            one.unit is not None and one.ours + one.theirs > 0
        ):  # of pairs also what both had wrong
            step.caller(
                rows, one.unit, arm, self.now, ours=one.ours, theirs=one.theirs, labelled=event
            )
        elif one.unit is None and one.ours + one.theirs > 0 and not event:
            step.arrays["both"][rows] += 1
        elif event:
            cells = np.zeros((len(rows), 2), dtype=np.int64)
            cells[:, arm] = 1
            at = np.array(rows, dtype=np.intp)
            step.keyless(at, cells)
            step.arrays["steady"][at] += cells
        if arm and event:
            step.spread(rows, one.second)

    @staticmethod
    def _lead(step: Step, rows: list[int], one: Label) -> None:
        """Count a caller's first label in this step, for the anytime certificate."""
        if step.span.paired and one.ours and one.theirs:
            step.arrays["lead"][rows, 2] += 1
        elif one.theirs != one.ours:
            step.arrays["lead"][rows, int(one.theirs > one.ours)] += 1

    # ------------------------------------------------------------ the alarm

    @staticmethod
    def _credit(step: Step, rows: NDArray[np.intp]) -> Floats:
        """Return by row how many labels production has less than at the candidate's coverage.

        Each counts as wrong. Labels that come late, or never, by arm and outcome look like a
        difference between releases. So no candidate fails because labels are missing.
        """
        return step.missing(0) * step.part_of_labels(rows, 0)

    def _scaled(
        self, step: Step, rows: NDArray[np.intp], *, credit: bool = True
    ) -> tuple[Floats, NDArray[np.intp]]:
        """Return evidence of every restart, (m, K), scaled to sound at 1/alpha; and the richest bet.

        `credit`: production's missing labels count as wrong.
        """
        metric = self.rows.keys[int(rows[0])][0]
        rail = self.rules.rails[metric]
        if rail.mean:
            wealth = np.stack([step.wealth_of(int(row)) for row in rows])
            if not step.span.paired and credit:
                wealth += self._credit(step, rows)[:, None, None] * np.log1p(-LAMBDAS)
            log_e, best = stats.log_mixture(wealth), wealth.argmax(axis=-1)
        else:
            counts: NDArray[Any] = step.counts[rows].astype(np.float64)
            if metric == QUALITY and not step.span.paired and credit:
                counts[..., step.kind] += self._credit(step, rows)[:, None]
            log_e, best = bets.label_wealth(
                counts, step.span.callers, self._keyless_share(step), rail.r0
            )
        if metric == QUALITY and step.span.paired:
            log_e = log_e / step.dependence.times()
        known = self.rows.columns()
        part, whole = known.log_part[rows] + log(step.share), known.whole[rows]
        if not step.span.paired and not rail.mean:
            part = part + np.where(whole, log(LABELS_PART), 0.0)
        return log_e + part[:, None] + step.log_stakes, best

    def _keyless_share(self, step: Step) -> float:
        """Return the keyless requests' share: the designed one, or the given one if larger.

        A router that gives six per cent where five were set gives the candidate a fifth more of all
        failures. The check of the split reports that; the alarm must not blame the candidate.
        """
        share, row = step.span.keyless, self.rows.find("errors", "")
        if step.span.paired or row < 0 or not 0 < share < 1:
            return share
        ours, theirs = step.arrays["met"][row].tolist()
        n = ours + theirs
        if not n:
            return share
        given = theirs / n - APART * sqrt(share * (1 - share) / n)
        return float(min(max(share, given), 1 - 1 / (n + 2)))

    def _test(self, step: Step, changed: Changed) -> None:
        """Test whether an alarm sounds in the rows that changed."""
        if not changed:
            return
        every = np.unique(np.concatenate(changed))
        known = self.rows.columns()
        numbers = known.metric[every]
        for number in np.unique(numbers):
            rows = every[numbers == number]
            metric = self.rows.keys[int(rows[0])][0]
            rail = self.rules.rails[metric]
            if not rail.weight:
                continue
            theirs = step.theirs(rows, losses=rail.mean)
            able = theirs.max(axis=1) >= self.rules.min_bad
            rows, theirs = rows[able], theirs[able]
            if not len(rows):
                continue
            log_e, best = self._scaled(step, rows)
            step.arrays["best"][rows] = log_e.max(axis=1)
            since = step.begins if metric != QUALITY else np.full(len(step.begins), -inf)
            spread = step.arrays["seconds"][rows, SECONDS - 1]
            enough = (
                (theirs >= self.rules.min_bad)
                & (spread[:, None] >= since)
                & (spread[:, None] > -inf)
            )
            sounds = enough & (log_e >= -log(self.rules.alpha))
            if metric == QUALITY and not step.span.paired:
                plain = self._scaled(step, rows, credit=False)[0]
                unsure = enough & ~sounds & (plain >= -log(self.rules.alpha))
                step.arrays["uneven"][rows] = unsure.any(axis=1)
            for at in np.flatnonzero(sounds.any(axis=1)):
                place = int(np.argmax(np.where(sounds[at], log_e[at], -inf)))
                self._fails(
                    step, int(rows[at]), self._ratio(step, int(rows[at]), int(best[at, place]))
                )

    def _ratio(self, step: Step, row: int, best: int) -> float:
        """Return how many times as bad the candidate is by the richest bet."""
        rail = self.rules.rails[self.rows.keys[row][0]]
        if not rail.mean:
            return float(ALARM_GRID[best] * rail.r0)
        # A bet of lambda grows best where the mean is lambda times the mean square.
        n0, s0, q0, n1, _, q1, pairs, _, squares = step.sums_of(row)[-TAIL:].tolist()
        share = n1 / (n0 + n1) if n0 + n1 else 0.5
        spread = (
            squares / pairs if pairs else (q1 / max(n1, 1)) / max(share, 1e-9) + q0 / max(n0, 1)
        )
        ours = s0 / max(n0, 1)
        return 1 + float(LAMBDAS[best]) * spread / ours if ours else inf

    def _fails(
        self, step: Step, row: int, ratio: float, part: Literal["labels", "counts"] = "labels"
    ) -> None:
        key = self.rows.keys[row]
        if key in self.failures:
            return
        bad = self.bad(step, row)
        seconds = int(np.isfinite(step.arrays["seconds"][row]).sum())
        self.failures[key] = Alarm(
            *key, weight=step.weight, at=self.now, ratio=ratio, part=part, bad=bad, seconds=seconds
        )

    # ------------------------------------------------------------ looks

    def _look_at(self, step: Step) -> None:
        """Test the callers' counts if a look is due: certificates, and the alarm's second part."""
        if not step.look_due(self.now):
            return
        of = step.span
        if not 0 < of.callers < 1:
            return
        for row, found in step.units.by_row():
            metric, segment = self.rows.keys[row]
            known = step.known(row)
            if len(found["arm"]) < FEWEST:
                continue
            for name, rail in self.judges_of(metric):
                step.proof[name, row] = callers_proof(step, found, rail, known)
            rail = self.rules.rails[metric]
            if not segment and not of.paired and not rail.mean and rail.weight:
                self._count(step, row, rail, found, known)
        step.units.looked()

    def _count(
        self,
        step: Step,
        row: int,
        rail: Rail,
        found: dict[str, Floats],
        known: tuple[int, int] | None,
    ) -> None:
        """Bet on the counts of each caller, since the step began and since the look before the last."""
        if rail.r0 != 1 or row >= step.rows:
            return  # counts are exchangeable between arms only where the hypothesis is "the same"
        needed = -log(self.rules.alpha) + log(2 * bets.LOOKS)
        part = float(self.rows.columns().log_part[row]) + log(step.share) + log(COUNTS_PART)
        theirs, ours = found["arm"] == 1, found["arm"] == 0
        for late in (False, True) if step.looks > 2 else (False,):
            bad = found["alarm"] - (found["alarm_2"] if late else 0.0)
            x1, x0 = bad[theirs], bad[ours]
            if np.count_nonzero(x1) < self.rules.min_bad:
                continue
            log_e = bets.counts_log_e(x1, x0, step.span.callers, known) + part
            scaled = log_e - log(2 * bets.LOOKS)
            step.arrays["best"][row] = max(float(step.arrays["best"][row]), scaled)
            if log_e >= needed:
                n0, n1 = known or (len(x0), len(x1))
                mean = (x0.sum() / max(n0, 1), x1.sum() / max(n1, 1))
                self._fails(step, row, float(mean[1] / mean[0]) if mean[0] else inf, "counts")

    # ------------------------------------------------------------ reading

    def bad(self, step: Step, row: int) -> tuple[int, int]:
        """Return how many units went bad: callers once, requests without an entity each."""
        name = "bad" if self.rows.keys[row][0] == QUALITY else "all"
        found = step.arrays["bad"][row]
        if name == "all":
            found = found + step.arrays["went"][row]
        return int(found[0]), int(found[1])

    def units(self, step: Step, row: int) -> tuple[int, int]:
        """Return how many units asked: callers once, requests without an entity each."""
        found = step.arrays["met"][row]
        if self.rows.keys[row][0] != QUALITY:
            found = found + step.arrays["asked"][row]
        return int(found[0]), int(found[1])

    def alarms(self) -> NDArray[np.bool_]:
        """Return which rows have a part of the alarm, (rows,)."""
        return self.rows.columns().log_part > -inf

    def callers(self) -> tuple[int, int]:
        """Return the number of callers that this step decides on and that asked, by arm."""
        step, row = self.step, self.rows.find("errors", "")
        if step is None or row < 0:
            return 0, 0
        ours, theirs = step.arrays["asked"][row].tolist()
        return ours, theirs

    def proof(self, step: Step, name: str, row: int) -> float:
        """Return the certificate of a guardrail in one row, scaled to pass at 1/alpha."""
        rail = self.rules.rails[name]
        return proof(step, self.rows.keys[row][0], name, rail, row, self.rules.callers_floor)

    # ------------------------------------------------------------ keeping

    def save(self) -> bytes:
        """Return the judge as bytes; `load_judge` gives back exactly this one."""
        return msgspec.msgpack.encode(
            _Kept(
                method=METHOD,
                paired=self.paired,
                known=self._known,
                extras=self._extras,
                now=self.now,
                weight=self.weight,
                keys=tuple(self.rows.keys),
                failures=tuple(self.failures.values()),
                history={metric: past.kept() for metric, past in self._history.items()},
                left_out=self.rows.left_out,
                misrouted=self.misrouted,
                steps=tuple(step.save() for step in self.steps.values()),
                proofs=tuple(
                    tuple((name, row, value) for (name, row), value in step.proof.items())
                    for step in self.steps.values()
                ),
            )
        )

    def spent(self) -> tuple[int, tuple[int, ...]]:
        """Return how many further steps were begun, and every weight so far."""
        return self._extras, (*self._known, *self.steps)

    def go_on(self, extras: int, known: Sequence[int]) -> None:
        """Continue after a changed policy: no part of alpha and no caller is used twice."""
        self._extras = extras + 1
        self._known = tuple(known)


class _Kept(Value, frozen=True, kw_only=True):
    method: int
    paired: bool
    known: tuple[int, ...]
    extras: int
    now: float
    weight: int | None
    keys: tuple[Key, ...]
    failures: tuple[Alarm, ...]
    history: dict[str, tuple[tuple[float, int, int], ...]]
    left_out: int
    misrouted: int
    steps: tuple[KeptStep, ...]
    proofs: tuple[tuple[tuple[str, int, float], ...], ...]


def load_judge(raw: bytes, rules: JudgeRules) -> Judge:
    """Return the judge that was saved.

    Raises:
        ValueError: another version of the method saved it.
    """
    kept = msgspec.msgpack.decode(raw, type=_Kept)
    if kept.method != METHOD:
        raise ValueError(f"evidence of method {kept.method}, and this is method {METHOD}")
    judge = Judge(rules, paired=kept.paired, known=kept.known)
    judge._restore(kept)  # noqa: SLF001 - its own module
    return judge
