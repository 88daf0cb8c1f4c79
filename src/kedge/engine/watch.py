"""What is known of one comparison: windows gathered into intervals, and the judge's state.

The patrol keeps one per rollout; `kedge evidence` makes one for a look. Both fold the same
windows in the same order, so both know the same. Everything here is a fold over windows: no
clock but the seconds in them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from kedge.core import costs, monitor, stats
from kedge.core.evidence.faults import Faults, folded
from kedge.core.monitor import Interval, Judge
from kedge.core.policy import EARLY, Facts, guardrails, rules
from kedge.core.quality import Seen, tally
from kedge.core.records import Labelled, Stratum, delay_upper_s
from kedge.core.values import BUCKETS, State, Value
from kedge.core.windows import (
    METRICS,
    Agreement,
    Example,
    Growing,
    Spent,
    Window,
    added,
    agreement_sum,
)

UNITS = 200_000
"""Bad units remembered a day: 16 MB at most. Beyond it they are no longer told apart, and counted."""
DAY_S = 86_400
"""A unit that went bad counts once a day, the horizon of the judge's first stake."""
EXAMPLES = 20
SEGMENTS = 2_000
"""Segments judged in one comparison; the rest is left to `other`, and counted."""
LULL_S = 5
"""A second without a window within so many seconds of one still counts as watched."""


class Labels(Value, frozen=True, kw_only=True):
    """What late labels said of one comparison so far."""

    cursor: int = 0
    version: str | None = None
    """The label version that is judged: that of the first batch. Others are counted, not mixed in."""
    versions: dict[str, int] = {}
    units: tuple[int, int] = (0, 0)
    """Labelled predictions by arm; in pairs, the pairs twice."""
    loss: tuple[float, float] = (0.0, 0.0)
    """Sums of the declared loss over them."""
    declined: int = 0
    unfit: int = 0
    delays: dict[int, int] = {}


class Snapshot(Value, frozen=True, kw_only=True):
    """A watch as it is kept."""

    cursor: int
    judge: bytes
    policy: str
    units: bytes = b""
    day: int = 0
    open: dict[str, dict[str, list[int]]] = {}
    exposed: dict[str, list[int]] = {}
    answered: dict[str, list[int]] = {}
    began: int = 0
    step: tuple[int, int] = (0, 0)
    healthy_s: float = 0.0
    last: int = 0
    facts: dict[str, int] = {}
    totals: dict[str, list[int]] = {}
    agreement: dict[str, Agreement] = {}
    scores: dict[int, tuple[int, int, float, float]] = {}
    examples: tuple[Example, ...] = ()
    arms: dict[str, dict[int, tuple[int, int]]] = {}
    labels: Labels = Labels()
    labelled: bytes = b""
    costs: dict[str, Spent] = {}
    noise: tuple[int, int] = (0, 0)
    faults: Faults = Faults()


_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(Snapshot).decode


def comparison_of(state: State) -> str:
    """The key under which a comparison is kept: the pair, its salt and how it is watched."""
    return f"{state.production}/{state.compared}/{state.salt}/{state.stage}"


class Watch:
    """One comparison, watched."""

    def __init__(self, state: State, kept: bytes | None = None) -> None:
        self.key = comparison_of(state)
        self.comparison = (state.production, state.compared, state.salt)
        self.paired = state.mirrored is not None
        self.reverse = state.candidate is None
        """After a promotion: the release that was left has production's part, and is the measure."""
        self._policy = state.policy_digest
        self.rules = rules(state.policy, paired=self.paired)
        self.cursor = 0
        self._judge: Judge | None = None
        self._units: set[tuple[int, int]] = set()
        self._day = 0
        self._open: dict[str, Growing] = {}
        self._exposed: Growing = {}
        self._answered: Growing = {}
        self._began = self._last = 0
        self._step = (state.weight if state.held is None else BUCKETS - state.holdback, 0)
        self.healthy_s = 0.0
        self.counted: dict[str, int] = {}
        self.totals: dict[str, list[int]] = {}
        self.agreement: dict[str, Agreement] = {}
        self.scores: dict[int, tuple[int, int, float, float]] = {}
        self.examples: tuple[Example, ...] = ()
        self._arms: dict[str, dict[int, tuple[int, int]]] = {}
        self.labels = Labels()
        self.costs: dict[str, Spent] = {}
        self.noise = (0, 0)
        self.faults = Faults()
        self._dearer = state.policy.guardrails.get("cost")
        self._labelled = Seen()
        self._output = state.policy.output
        self._metric = guardrails(state.policy)["quality"].metric or "error_rate"
        self.label_coverage: dict[str, tuple[int, int]] = {}
        """By arm: labelled, and predictions that were given. Told by the patrol, not kept."""
        if kept is not None:
            self._restore(_unpack(kept))

    def fits(self, state: State) -> bool:
        """Whether this is the watch of the row as it is now."""
        return self.key == comparison_of(state) and self._policy == state.policy_digest

    # ------------------------------------------------------------ keeping

    def snapshot(self) -> bytes:
        """Everything, as bytes."""
        units = np.array(sorted(self._units), dtype=np.int64).tobytes()
        return _pack(Snapshot(
            cursor=self.cursor, judge=monitor.save(self._judge) if self._judge else b"",
            policy=self._policy, units=units, day=self._day, open=self._open, exposed=self._exposed,
            answered=self._answered, began=self._began, step=self._step, healthy_s=self.healthy_s,
            last=self._last, facts=self.counted, totals=self.totals, agreement=self.agreement,
            scores=self.scores, examples=self.examples, arms=self._arms, labels=self.labels,
            labelled=np.array(self._labelled.keys(), dtype=np.int64).tobytes(), costs=self.costs,
            noise=self.noise, faults=self.faults,
        ))  # fmt: skip

    def _restore(self, kept: Snapshot) -> None:
        if kept.policy != self._policy:
            return  # another policy asks other questions: they are asked from the beginning
        pairs = np.frombuffer(kept.units, dtype=np.int64).reshape(-1, 2)
        self._units = {(int(metric), int(unit)) for metric, unit in pairs}
        self._judge = monitor.load(kept.judge) if kept.judge else None
        self.cursor, self._day, self._began = kept.cursor, kept.day, kept.began
        self._open, self._exposed, self._answered = kept.open, kept.exposed, kept.answered
        self._step, self.healthy_s, self._last = kept.step, kept.healthy_s, kept.last
        self.counted, self.totals, self.agreement = kept.facts, kept.totals, kept.agreement
        self.scores, self.examples, self._arms = kept.scores, kept.examples, kept.arms
        self.labels, self.costs, self.noise = kept.labels, kept.costs, kept.noise
        self.faults = kept.faults
        self._labelled = Seen(np.frombuffer(kept.labelled, dtype=np.int64).tolist())

    # ------------------------------------------------------------ folding

    def fold(self, window: Window) -> None:
        """Take one window in. Those of other comparisons, or of the other stage, are passed over."""
        if window.comparison != self.comparison or window.paired != self.paired:
            return
        if self.reverse:
            window = turned(window)
        if window.weight != self._step[0]:
            self._close(window.at)
            self._step = (window.weight, window.at)
        self._pass_time(window.at)
        self._add(window)
        self.faults = folded(self.faults, window, own=not self.reverse)
        production, candidate = self._exposed.get("", [0, 0])
        if monitor.closes(candidate, production, float(window.at - self._began)):
            self._close(window.at)

    def _pass_time(self, at: int) -> None:
        """Healthy seconds: those with traffic. A clock that jumps adds none."""
        if not self._last:
            self._began = at
            if not self._step[1]:
                self._step = (self._step[0], at)
        elif 0 < at - self._last <= LULL_S:
            self.healthy_s += at - self._last
        elif at < self._last:
            self._began = min(self._began, at)
        self._last = at
        if at // DAY_S != self._day:
            self._day = at // DAY_S
            self._units.clear()

    def _add(self, window: Window) -> None:
        added(self._exposed, self._bounded(window.exposed))
        added(self._answered, self._bounded(window.answered))
        for metric, cells in window.bad.items():
            added(self._open.setdefault(metric, {}), self._bounded(cells))
        for unit in window.units:
            key = (unit.metric, unit.unit)
            if key in self._units:
                continue
            if len(self._units) < UNITS:
                self._units.add(key)
            else:
                self._count("forgotten_units")
            slices = self._open.setdefault(METRICS[unit.metric], {})
            for name in ("", *unit.segments):
                slices.setdefault(name, [0, 0])[unit.arm] += 1
        for name, cell in window.agreement.items():
            if name in self.agreement or len(self.agreement) < SEGMENTS:
                old = self.agreement.get(name, Agreement())
                self.agreement[name] = agreement_sum(old, cell)
        for bin_, more in window.scores.items():
            n, within, apart, size = self.scores.get(bin_, (0, 0, 0.0, 0.0))
            self.scores[bin_] = (n + more[0], within + more[1], apart + more[2], size + more[3])
        for name, spent in window.costs.items():
            if name in self.costs or len(self.costs) < SEGMENTS:
                self.costs[name] = self.costs.get(name, Spent()).plus(spent)
        self.noise = (self.noise[0] + window.noise[0], self.noise[1] + window.noise[1])
        self.examples = (*window.examples, *self.examples)[:EXAMPLES]
        if window.fresh is not None:
            mine = self._arms.setdefault(window.replica, {})
            before = mine.get(window.weight, (0, 0))
            mine[window.weight] = (before[0] + window.fresh[0], before[1] + window.fresh[1])
        for name in ("mirrored", "copied", "broken", "lost", "other"):
            self._count(name, getattr(window, name))

    def _count(self, name: str, by: int = 1) -> None:
        self.counted[name] = self.counted.get(name, 0) + by

    def _bounded(self, cells: Mapping[str, Sequence[int]]) -> Mapping[str, Sequence[int]]:
        if len(cells) + len(self.totals) < SEGMENTS:
            return cells
        kept = {name: cell for name, cell in cells.items() if name in self.totals or not name}
        self._count("segments_left_out", len(cells) - len(kept))
        return kept

    def _close(self, at: int) -> None:
        """End the interval: what was gathered becomes evidence."""
        keys: list[tuple[str, str]] = []
        counts: list[list[int]] = []
        for metric in METRICS:
            if metric not in self.rules.rails:
                continue
            exposed = self._exposed if metric == "errors" else self._answered
            bad = self._open.get(metric, {})
            for name, (production, candidate) in exposed.items():
                row = [production, candidate, *bad.get(name, [0, 0])]
                keys.append((metric, name))
                counts.append(row)
                if metric == "errors" and not name:
                    keys.append((EARLY, name))
                    counts.append(row)
        for name, (production, candidate) in self._exposed.items():
            cell = self.totals.setdefault(name, [0, 0])
            cell[0] += production
            cell[1] += candidate
        self._open, self._exposed, self._answered = {}, {}, {}
        self._began = at
        if keys:
            self._judged(Interval(
                at=float(at), keys=tuple(keys), counts=np.array(counts, dtype=np.int64),
                paired=self.paired,
            ))  # fmt: skip

    def _judged(self, interval: Interval) -> None:
        if self._judge is None:
            self._judge = monitor.begin(interval.at, self.rules.rails)
        self._judge = monitor.fold(self._judge, interval)
        if monitor.overall(self._judge, self.rules).verdict == "fail":
            self.healthy_s = 0.0

    def end(self) -> None:
        """Judge what is still open: nothing more will come."""
        self._close(self._last)

    # ------------------------------------------------------------ labels

    def fold_labels(self, rows: Sequence[Labelled], cursor: int, at: float) -> None:
        """Take a batch of labelled predictions in, in the order in which they were joined.

        Args:
            rows: those of the endpoint after the cursor; of other comparisons are passed over.
            cursor: where the next batch begins.
            at: Unix seconds now.

        Raises:
            Refused: `metric_unfit`: the declared quality metric cannot judge this output.
        """
        mine = [one for one in rows if one.row.comparison == self.comparison]
        of = tally(mine, self._output, self._metric, self._labelled)
        known = self.labels
        version = known.version if known.version is not None or not of.strata else of.live
        versions, delays = dict(known.versions), dict(known.delays)
        for one in mine:
            name = one.outcome.label_version
            versions[name] = versions.get(name, 0) + 1
        for index, count in of.delays.items():
            delays[index] = delays.get(index, 0) + count
        units, loss = list(known.units), list(known.loss)
        for stratum in of.strata:
            if stratum.label_version == version:
                self._judge_labels(stratum, at, units, loss)
        self.labels = Labels(
            cursor=cursor, version=version, versions=versions, units=(units[0], units[1]),
            loss=(loss[0], loss[1]), declined=known.declined + of.declined,
            unfit=known.unfit + of.unfit, delays=delays,
        )  # fmt: skip

    def _judge_labels(
        self, stratum: Stratum, at: float, units: list[int], loss: list[float]
    ) -> None:
        """Labels of one stratum are one interval: the labelled shares are the exposure."""
        found = stratum.paired if self.paired else stratum.losses
        if self.reverse:
            found = {name: (theirs, ours) for name, (ours, theirs) in found.items()}
        for arm, losses in enumerate(found.get("", ((), ()))):
            units[arm] += len(losses)
            loss[arm] += sum(losses)
        names = [name for name in found if not name or name in self.totals]
        cells = stratum.cells
        if self.reverse:
            cells = {name: (b, a, d, c) for name, (a, b, c, d) in cells.items()}
        counts = [_discordant(*found[n]) if self.paired else cells[n] for n in names]
        margin = self.rules.rails["quality"].worse_by
        add_up = stats.paired_sums if self.paired else stats.arm_sums
        sums = np.array([add_up(*found[n], margin) for n in names])
        if names:
            self._judged(Interval(
                at=at, keys=tuple(("quality", name) for name in names),
                counts=np.array(counts, dtype=np.int64), paired=self.paired, sums=sums,
            ))  # fmt: skip

    def label_summary(self) -> dict[str, Any]:
        """Coverage, delay and the declared loss by arm, as plain values."""
        known = self.labels
        total = sum(known.delays.values())
        shown: dict[str, float | None] = {"p50": None, "p95": None}
        for name, q in (("p50", 0.5), ("p95", 0.95)):
            run = 0
            for index in sorted(known.delays):
                run += known.delays[index]
                if run >= q * total:
                    shown[name] = delay_upper_s(index)
                    break
        return {
            "metric": self._metric,
            "version": known.version,
            "versions": known.versions,
            "units": list(known.units),
            "loss": [s / n if n else None for s, n in zip(known.loss, known.units, strict=True)],
            "declined": known.declined,
            "unfit": known.unfit,
            "delay_s": shown,
            "coverage": {arm: list(counts) for arm, counts in self.label_coverage.items()},
            "passed_over": self._labelled.passed,
        }

    # ------------------------------------------------------------ telling

    def facts(self, now: float) -> Facts:
        """What is known, for the policy to decide on."""
        judge = self._judge or monitor.begin(now, self.rules.rails)
        overall = monitor.overall(judge, self.rules)
        whole = {key for key in judge.keys if key[1] == ""}
        production, candidate = self.totals.get("", [0, 0])
        pairs = candidate if self.paired else 0
        return Facts(
            overall=overall,
            verdicts=(*monitor.verdicts(judge, self.rules, only=whole), *self._costly({""})),
            units=(production, candidate), pairs=pairs,
            mirrored=self.counted.get("mirrored", 0), copied=self.counted.get("copied", 0),
            segments={name: cell[1] for name, cell in self.totals.items() if name},
            healthy_s=self.healthy_s, step_s=float(max(self._last - self._step[1], 0)),
            streak=self.faults.streak, broken=self.counted.get("broken", 0),
            crashes=self.faults.crashes, silent_s=self.faults.silence_s,
            routed=self.faults.routed, unasked=self.faults.unasked,
            spread={metric: self.faults.spread(metric) for metric in METRICS},
            mismatch=self._mismatch(), stale_s=max(now - self._last, 0.0) if self._last else 0.0,
        )  # fmt: skip

    def verdicts(self, only: set[tuple[str, str]] | None = None) -> tuple[monitor.Verdict, ...]:
        """Every verdict, or those of some (metric, segment)."""
        if self._judge is None:
            return ()
        return (*monitor.verdicts(self._judge, self.rules, only=only), *self._costly())

    def _costly(self, only: set[str] | None = None) -> tuple[monitor.Verdict, ...]:
        """Verdicts on cost. Without a guardrail they are figures, judged at a margin of none."""
        margin = self._dearer.worse_by if self._dearer else 0.0
        return tuple(
            costs.verdict(name, spent, margin)
            for name, spent in self.costs.items()
            if only is None or name in only
        )

    def _mismatch(self) -> str:
        """Whether the arms have the shares they were told: per replica, averaged."""
        if self.paired or not self._arms:
            return ""
        found = []
        for strata in self._arms.values():
            log_e = sum(
                stats.srm_log_e(production, candidate, weight / BUCKETS)
                for weight, (production, candidate) in strata.items()
                if 0 < weight < BUCKETS
            )
            found.append(log_e)
        most = max(found, default=0.0)
        average = most + float(np.log(np.mean(np.exp(np.array(found) - most)))) if found else 0.0
        if average < -np.log(self.rules.alpha):
            return ""
        sums: dict[int, list[int]] = {}
        for strata in self._arms.values():
            for weight, (production, candidate) in strata.items():
                cell = sums.setdefault(weight, [0, 0])
                cell[0] += production
                cell[1] += candidate
        told = "; ".join(
            f"{c / (p + c):.2%} of {p + c} units at {w / 100:g} %"
            for w, (p, c) in sums.items()
            if p + c
        )
        return f"the share of the candidate is not what was set, and not by chance: {told}"


def _discordant(ours: Sequence[float], theirs: Sequence[float]) -> tuple[int, int, int, int]:
    """Pairs twice, then those in which only production lost more, and only the candidate."""
    apart = [p - c for p, c in zip(ours, theirs, strict=True)]
    return len(apart), len(apart), sum(d > 0 for d in apart), sum(d < 0 for d in apart)


def judged(state: State) -> tuple[int | None, int | None]:
    """Which release is the measure and which is judged by it.

    After a promotion the one that was left is the measure: production is judged.
    """
    if state.candidate is None:
        return state.compared, state.production
    return state.production, state.candidate


def turned(window: Window) -> Window:
    """The same window with the arms exchanged."""
    return msgspec.structs.replace(
        window,
        weight=window.weight if window.paired else BUCKETS - window.weight,
        fresh=None if window.fresh is None else (window.fresh[1], window.fresh[0]),
        exposed={name: (c, p) for name, (p, c) in window.exposed.items()},
        answered={name: (c, p) for name, (p, c) in window.answered.items()},
        bad={metric: {name: (c, p) for name, (p, c) in cells.items()}
             for metric, cells in window.bad.items()},
        units=tuple(msgspec.structs.replace(unit, arm=1 - unit.arm) for unit in window.units),
        agreement={
            name: msgspec.structs.replace(
                cell, only_production=cell.only_candidate, only_candidate=cell.only_production
            )
            for name, cell in window.agreement.items()
        },
        costs={name: Spent(of.candidate, of.production) for name, of in window.costs.items()},
        scores={bin_: (n, w, -apart, size) for bin_, (n, w, apart, size) in window.scores.items()},
        examples=tuple(
            msgspec.structs.replace(one, production=one.candidate, candidate=one.production)
            for one in window.examples
        ),
    )  # fmt: skip
