"""Watch of one comparison: windows gathered into seconds, and the judge's state.

The patrol keeps one watch per rollout; `kedge evidence` makes one for a look. Both fold the same
windows in the same order, so both have the same result. Everything here is a fold over windows: the
only clock is the seconds in them.

A second is judged once a window of a later one arrived, or two seconds later. Many failures in one
second are one event, so the windows of all workers are needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from math import inf
from typing import TypeVar
from zlib import crc32

import msgspec
import numpy as np

from kedge.core.automation import PatrolFacts, canary_steps, guardrails, rules
from kedge.core.evidence import stats
from kedge.core.evidence.answers import get_target
from kedge.core.evidence.cost_judge import CostFigures, CostJudge, figure
from kedge.core.evidence.events import Caller, First, Label, Second
from kedge.core.evidence.faults import Faults, folded
from kedge.core.evidence.judge import Judge, load_judge
from kedge.core.evidence.label_summary import LabelSummary, get_delays
from kedge.core.evidence.labels import UnfitLabels, is_own, matched, reason, told
from kedge.core.evidence.quality import Loss
from kedge.core.evidence.quality import figure as figure_of
from kedge.core.evidence.quality import judged as judged_labels
from kedge.core.evidence.records import Labelled, Reused, live_version
from kedge.core.evidence.rules import METHOD, QUALITY, Verdict, Word
from kedge.core.evidence.scores import estimates, gathered
from kedge.core.evidence.series import EvidenceSeries
from kedge.core.evidence.verdicts import ARMS, overall, verdicts
from kedge.core.evidence.windows import (
    METRICS,
    OURS,
    Agreement,
    Counts,
    DisagreeingPair,
    Growing,
    Spent,
    Window,
    added,
    agreement_sum,
    turned,
)
from kedge.core.routing import key_of, unit_of
from kedge.core.values import BUCKETS, State
from kedge.engine.snapshot import CHECK, UNREADABLE, Labels, Snapshot, pack, read_snapshot

EXAMPLES = 20
"""Newest disagreements that are kept whatever their segments are."""
OF_SEGMENT, MOST_EXAMPLES = 2, 60
"""Further ones: so many of each segment, and so many in all."""
SEGMENTS = 2_000
"""Limit of segments counted in one comparison; further ones go to `other`, and are counted."""
HELD_S = 2.0
"""How long a second waits for the windows of all workers: each writes once a second."""
LULL_S = 5
"""Longest gap without a window that still counts as watched time."""


def comparison_of(state: State) -> str:
    """Return the key of a comparison: the pair, its salt and its stage."""
    return f"{state.production}/{state.compared}/{state.salt}/{state.stage}"


class Watch:
    """The watch of one comparison."""

    def __init__(self, state: State, kept: bytes | None = None) -> None:
        self.key = comparison_of(state)
        self.comparison = (state.production, state.compared, state.salt)
        self.paired = state.mirrored is not None
        self.reverse = state.candidate is None
        """After a promotion, the release that was left has production's part, and is the
        measure."""
        self.arms = _names(state) if self.reverse else ARMS
        """The names of both releases, such as `r3` once their roles have changed."""
        self._policy = state.policy_digest
        self.rules = rules(
            state.policy, paired=self.paired, held=state.holdback if state.held is not None else 0
        )
        self.cursor = 0
        # Callers who are held back after a promotion had an arm before it, at the canary's steps.
        before = canary_steps(state.policy) if state.held is not None else ()
        self._judge = Judge(self.rules, paired=self.paired, known=before)
        self._waiting: list[Window] = []
        self._began = self._last = 0
        self._step = (state.weight if state.held is None else BUCKETS - state.holdback, 0)
        self._requests: Growing = {}
        self.healthy_s = 0.0
        self.restarted = ""
        self._failed = 0
        self.counted: dict[str, int] = {}
        self.totals: dict[str, list[int]] = {}
        self.agreement: dict[str, Agreement] = {}
        self.scores: dict[int, tuple[int, int, float, float]] = {}
        self.examples: tuple[DisagreeingPair, ...] = ()
        self._arms: dict[str, dict[int, tuple[int, int]]] = {}
        self.labels = Labels()
        self.costs: dict[str, Spent] = {}
        self.noise = (0, 0)
        self.faults = Faults()
        self.series = EvidenceSeries()
        """The alarm's evidence over the whole comparison."""
        self._dearer = _cost_judge(state, b"")
        self._output = get_target(state)
        self._unit_of = partial(unit_of, key_of(state.salt))
        rail = guardrails(state.policy)["quality"]
        self._metric = rail.metric or "error_rate"
        self.own = self._metric if is_own(self._metric) else None
        """The policy's function that returns how bad an answer was; None: there is none."""
        self.own_fault = ""
        """Why the function gave no losses; its labels wait. Set by the caller of `fold_labels`, not
        stored."""
        self.labels_left = False
        """Whether some labels may not be folded yet. Set by the caller of `fold_labels`, not
        stored."""
        self.label_coverage: dict[str, tuple[int, int]] = {}
        """By arm: labelled predictions, and all. Set by the patrol, not stored."""
        self.held = ""
        self.reused = Reused()
        """Ids of the endpoint that more than one request used. Set by the command that shows it,
        not stored."""
        if kept is not None:
            try:
                self._restore(state, read_snapshot(kept))
            except (
                msgspec.MsgspecError,
                ValueError,
                ArithmeticError,
                LookupError,
                TypeError,
                AttributeError,
            ):
                self.__init__(state)  # type: ignore[misc]
                self.begin_anew(UNREADABLE)

    @property
    def judge(self) -> Judge:
        """What was folded so far, for an estimate of what is missing."""
        return self._judge

    @property
    def newest(self) -> int:
        """Unix seconds of the newest window; 0: there is none."""
        return self._last

    def fits(self, state: State) -> bool:
        """Return whether this is the watch of the row as it is now."""
        return self.key == comparison_of(state) and self._policy == state.policy_digest

    def begin_anew(self, why: str) -> None:
        """Note that evidence was lost: the rollout must be paused."""
        self.restarted = self.held = why

    # ------------------------------------------------------------ keeping

    def snapshot(self) -> bytes:
        """Return the whole watch as bytes."""
        raw = pack(
            Snapshot(
                cursor=self.cursor,
                judge=self._judge.save(),
                policy=self._policy,
                method=METHOD,
                spent=self._judge.spent(),
                restarted=self.restarted,
                waiting=tuple(self._waiting),
                requests=self._requests,
                began=self._began,
                step=self._step,
                healthy_s=self.healthy_s,
                last=self._last,
                failed=self._failed,
                facts=self.counted,
                totals=self.totals,
                agreement=self.agreement,
                scores=self.scores,
                examples=self.examples,
                arms=self._arms,
                labels=self.labels,
                costs=self.costs,
                cost_judge=self._dearer.save() if self._dearer else b"",
                noise=self.noise,
                faults=self.faults,
                series=self.series,
                held=self.held,
                check=bytes(CHECK),
            )
        )[:-CHECK]
        return raw + crc32(raw).to_bytes(CHECK)

    def _restore(self, state: State, kept: Snapshot) -> None:
        self.restarted, self.held = kept.restarted, kept.held
        if kept.method != METHOD:
            self.restarted = "kedge was upgraded: units are counted differently now"
            self.cursor = kept.cursor
            self._judge.go_on(*kept.spent)
            return
        if kept.policy != self._policy:  # another policy has other guardrails: start again
            self.restarted = "the policy changed"
            self._judge.go_on(*kept.spent)
            return
        self._judge = load_judge(kept.judge, self.rules)
        self.cursor, self._began, self._waiting = kept.cursor, kept.began, list(kept.waiting)
        self._step, self.healthy_s, self._last = kept.step, kept.healthy_s, kept.last
        self._requests, self._failed = kept.requests, kept.failed
        self.counted, self.totals, self.agreement = kept.facts, kept.totals, kept.agreement
        self.scores, self.examples, self._arms = kept.scores, kept.examples, kept.arms
        self.labels, self.costs, self.noise = kept.labels, kept.costs, kept.noise
        self._dearer = _cost_judge(state, kept.cost_judge)
        self.faults, self.series = kept.faults, kept.series

    # ------------------------------------------------------------ folding

    def fold(self, window: Window) -> None:
        """Fold one window; those of other comparisons, or of another stage, are skipped."""
        if window.comparison != self.comparison or window.paired != self.paired:
            return
        if window.method != METHOD:
            self._count("older_windows")
            return
        if self.reverse:
            window = turned(window)
        if self._dearer:
            self._dearer.fold(window)
        if window.weight != self._step[0]:
            self.settle(inf)
            self._step = (window.weight, window.at)
            self._requests = {}
        self._pass_time(window.at)
        self._add(window)
        self.faults = folded(self.faults, window, own=not self.reverse)
        self._judge.begin(window.weight, float(window.at))
        self._waiting.append(window)
        self._judge_before(window.at)

    def settle(self, now: float) -> None:
        """Judge the seconds that have waited long enough for the windows of all workers."""
        self._judge_before(now - HELD_S)

    def _judge_before(self, at: float) -> None:
        """Judge the seconds before this one, oldest first."""
        due = [window for window in self._waiting if window.at < at]
        if not due:
            return
        self._waiting = [window for window in self._waiting if window.at >= at]
        seconds: dict[tuple[int, int], list[Window]] = {}
        for window in due:
            seconds.setdefault((window.at, window.weight), []).append(window)
        for (second, weight), windows in sorted(seconds.items()):
            self._judge.fold(weight, second_of(windows))
            self._note(second)
        self._unhealthy()

    def _note(self, at: float) -> None:
        """Add the present evidence to its series, if it is time."""
        if self.series.is_due(at):
            self.series = self.series.plus(at, overall(self._judge).log_e)

    def _unhealthy(self) -> None:
        """Restart the healthy window after a new failure."""
        if len(self._judge.failures) > self._failed and overall(self._judge).verdict == "fail":
            self.healthy_s = 0.0
        self._failed = len(self._judge.failures)

    def _pass_time(self, at: int) -> None:
        """Add to the healthy time if there was traffic. A clock that jumps adds none."""
        if not self._last:
            self._began = at
            if not self._step[1]:
                self._step = (self._step[0], at)
        elif 0 < at - self._last <= LULL_S:
            self.healthy_s += at - self._last
        elif at < self._last:
            self._began = min(self._began, at)
        self._last = at

    def _add(self, window: Window) -> None:
        """Count what is shown, and what coverage is computed from."""
        cells = self._bounded(window.exposed)
        added(self.totals, cells)
        added(self._requests, cells)
        for name, cell in window.agreement.items():
            if name in self.agreement or len(self.agreement) < SEGMENTS:
                old = self.agreement.get(name, Agreement())
                self.agreement[name] = agreement_sum(old, cell)
        for bin_, more_ in window.scores.items():
            n, within, apart, size = self.scores.get(bin_, (0, 0, 0.0, 0.0))
            self.scores[bin_] = (n + more_[0], within + more_[1], apart + more_[2], size + more_[3])
        for name, spent in window.costs.items():
            if name in self.costs or len(self.costs) < SEGMENTS:
                self.costs[name] = self.costs.get(name, Spent()).plus(spent)
        self.noise = (self.noise[0] + window.noise[0], self.noise[1] + window.noise[1])
        if window.examples:
            self.examples = kept_examples((*window.examples, *self.examples))
        if window.fresh is not None:
            mine = self._arms.setdefault(window.replica, {})
            before = mine.get(window.weight, (0, 0))
            mine[window.weight] = (before[0] + window.fresh[0], before[1] + window.fresh[1])
        for name in ("mirrored", "copied", "broken", "lost", "other", "cut"):
            self._count(name, getattr(window, name))

    def _count(self, name: str, by: int = 1) -> None:
        self.counted[name] = self.counted.get(name, 0) + by

    def _bounded(self, cells: Mapping[str, Sequence[int]]) -> Mapping[str, Sequence[int]]:
        if len(cells) + len(self.totals) < SEGMENTS:
            return cells
        kept = {name: cell for name, cell in cells.items() if name in self.totals or not name}
        self._count("segments_left_out", len(cells) - len(kept))
        return kept

    def end(self) -> None:
        """Judge the seconds that are still open: no window will follow."""
        self._judge_before(inf)
        if self._dearer:
            self._dearer.end()

    # ------------------------------------------------------------ labels

    def correct(self, newest: int, first: int | None) -> None:
        """Note corrections: if a folded label was corrected, all labels are folded again.

        Args:
            newest: the number of the newest correction.
            first: the first label that was corrected since the newest one known; None: no joined
                one.
        """
        if first is None or first > self.labels.cursor:
            self.labels = msgspec.structs.replace(self.labels, corrected=newest)
            return
        self._judge.forget_labels()
        self._failed = len(self._judge.failures)
        self.labels = Labels(version=self.labels.version, corrected=newest)

    def fold_labels(
        self, rows: Sequence[Labelled], cursor: int, at: float, own: Loss | None = None
    ) -> None:
        """Fold a batch of labelled predictions, in the order in which they were joined.

        Args:
            rows: those of the endpoint after the cursor; those of other comparisons are skipped.
            cursor: where the next batch begins.
            at: Unix seconds now.
            own: the loss, if the metric is a function of the policy's (`own`).

        Raises:
            Refused: `metric_unfit`: the declared quality metric cannot judge this output.
        """
        mine = [one for one in rows if one.row.comparison == self.comparison]
        of = judged_labels(
            mine,
            self._output,
            self._metric,
            self._unit_of,
            paired=self.paired,
            reverse=self.reverse,
            own=own,
        )
        known = self.labels
        seen = {version: n for _, version, _ in of.labels for n in [of.versions[version]]}
        version = known.version if known.version is not None or not seen else live_version(seen)
        units, loss = list(known.units), list(known.loss)
        by_weight: dict[int, list[Label]] = {}
        for weight, named, label in of.labels:
            if named != version:
                continue
            by_weight.setdefault(weight, []).append(label)
            for arm, lost in enumerate((label.ours, label.theirs)):
                if self.paired or arm == label.arm:
                    units[arm] += 1
                    loss[arm] += lost
        for weight, labels in by_weight.items():
            self._judge.fold_labels(weight, labels, at)
        self._note(at)
        self._unhealthy()
        series = known.series
        if by_weight and series.is_due(at):
            series = series.plus(at, *units, *loss)
        fit = [one for one in mine if version is None or one.outcome.label_version == version]
        self.labels = Labels(
            cursor=cursor,
            corrected=known.corrected,
            version=version,
            versions=_summed(known.versions, of.versions),
            units=(units[0], units[1]),
            loss=(loss[0], loss[1]),
            declined=known.declined + of.declined,
            unfit=known.unfit + of.unfit,
            delays=_summed(known.delays, of.delays),
            matching=matched(known.matching, fit, self._output, self._metric),
            scores=gathered(known.scores, fit, self._output, reverse=self.reverse),
            series=series,
        )

    def uneven_labels(self) -> str:
        """Return why a verdict waits for labels that arrive unevenly by arm; empty if none does."""
        step = self._judge.step
        if step is None or not step.uneven:
            return ""
        shares = [
            labelled / given if given else 0.0
            for labelled, given in zip(step.labelled.tolist(), step.given.tolist(), strict=True)
        ]
        return (
            f"labels come unevenly: {shares[0]:.1%} of production's predictions have one, and"
            f" {shares[1]:.1%} of the candidate's"
        )

    def label_summary(self) -> LabelSummary:
        """Return coverage, delay and the declared loss by arm."""
        known = self.labels
        ours, theirs = (s / n if n else None for s, n in zip(known.loss, known.units, strict=True))
        return LabelSummary(
            metric=self._metric,
            version=known.version,
            versions=known.versions,
            units=known.units,
            loss=(ours, theirs),
            figures=(self.figure(ours), self.figure(theirs)),
            estimates=estimates(known.scores),
            declined=known.declined,
            unfit=known.unfit,
            output=self._output.name,
            reads=self._output.reads,
            unfit_because=tuple(
                UnfitLabels(
                    why, count, reason(why, known.matching.examples.get(why, ""), self._output)
                )
                for why, count in known.matching.unfit.items()
            ),
            matched=self._arms_turned(known.matching.matched),
            fault=self.own_fault or told(known.matching, self._output),
            delay_s=get_delays(known.delays),
            coverage=self.label_coverage,
            uneven=self.uneven_labels(),
            reused=self.reused,
        )

    def quality_series(self) -> tuple[tuple[int, ...], list[float | None], list[float | None]]:
        """Return times, and the declared loss of each arm by then, as its metric's figure."""
        series = self.labels.series
        ours, theirs = (
            [self.figure(p[2 + arm] / p[arm] if p[arm] else None) for p in series.values]
            for arm in (0, 1)
        )
        return series.at, ours, theirs

    def figure(self, mean: float | None) -> float | None:
        """Return a mean loss in the form of the declared metric."""
        return None if mean is None else figure_of(self._metric, self._output, mean)

    # ------------------------------------------------------------ telling

    def facts(self, now: float) -> PatrolFacts:
        """Return the facts for the policy's decision."""
        self.settle(now)
        whole = {(name, "") for name in self.rules.rails}
        production, candidate = self.totals.get("", [0, 0])
        step = self._requests.get("", [0, 0])
        return PatrolFacts(
            overall=overall(self._judge, self.arms),
            verdicts=(
                *self._believed(verdicts(self._judge, self._shown(), only=whole, arms=self.arms)),
                *self._costly({""}),
            ),
            units=(production, candidate),
            pairs=candidate if self.paired else 0,
            requests=(step[0], step[1]),
            callers=self._judge.callers(),
            mirrored=self.counted.get("mirrored", 0),
            copied=self.counted.get("copied", 0),
            segments={name: cell[1] for name, cell in self.totals.items() if name},
            healthy_s=self.healthy_s,
            step_s=float(max(self._last - self._step[1], 0)),
            streak=self.faults.streak,
            broken=self.counted.get("broken", 0),
            crashes=self.faults.crashes,
            silent_s=self.faults.silence_s,
            routed=self.faults.routed,
            unasked=self.faults.unasked,
            spread={metric: self.faults.spread(metric) for metric in METRICS},
            unfit_labels=told(self.labels.matching, self._output),
            labels_broken=self.labels.matching.state == "broken",
            mismatch=self._mismatch(),
            stale_s=max(now - self._last, 0.0) if self._last else 0.0,
            uneven=self.uneven_labels(),
            restarted=self.restarted,
            begun_anew=self.held,
        )

    def verdicts(self, only: set[tuple[str, str]] | None = None) -> tuple[Verdict, ...]:
        """Return every verdict, or those of some (metric, segment)."""
        found = verdicts(self._judge, self._shown(), only=only, arms=self.arms)
        return (*self._believed(found), *self._costly())

    def _believed(self, found: Sequence[Verdict]) -> tuple[Verdict, ...]:
        """Withdraw a pass of quality while no label equals any answer: all rows are wrong."""
        why = told(self.labels.matching, self._output)
        if not why:
            return tuple(found)
        broken = self.labels.matching.state == "broken"
        word: Word = "broken input" if broken else "inconclusive"
        return tuple(
            (
                msgspec.structs.replace(one, verdict=word, reason=why)
                if one.metric == QUALITY and one.verdict == "pass"
                else one
            )
            for one in found
        )

    def _arms_turned(self, arms: tuple[int, int]) -> tuple[int, int]:
        """Return production first: after a promotion the release that was left has its part."""
        return (arms[1], arms[0]) if self.reverse else arms

    def _shown(self) -> dict[str, tuple[int, int]]:
        return {name: (cell[0], cell[1]) for name, cell in self._requests.items()}

    def _costly(self, only: set[str] | None = None) -> tuple[Verdict, ...]:
        """Return the verdict on the total cost if cost is guarded; the rest are figures."""
        judge = self._dearer
        return tuple(
            (
                judge.verdict(spent)
                if judge and not name
                else figure(name, spent, guarded=judge is not None)
            )
            for name, spent in self.costs.items()
            if only is None or name in only
        )

    def cost_figures(self) -> CostFigures | None:
        """Return what the judge of cost clipped and left out; None if cost is not guarded."""
        return self._dearer.figures() if self._dearer else None

    def _mismatch(self) -> str:
        """Return how the arms' shares differ from the set weights; empty unless significant."""
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
        return f"the share of {self.arms[1]} is not what was set, and not by chance: {told}"


def kept_examples(found: Sequence[DisagreeingPair]) -> tuple[DisagreeingPair, ...]:
    """Return the examples that are kept, newest first: the newest, and some of each segment."""
    kept: list[DisagreeingPair] = []
    seen: dict[str, int] = {}
    for one in found:
        rare = any(seen.get(name, 0) < OF_SEGMENT for name in one.segments)
        if len(kept) < EXAMPLES or rare:
            kept.append(one)
            seen.update({name: seen.get(name, 0) + 1 for name in one.segments})
        if len(kept) == MOST_EXAMPLES:
            break
    return tuple(kept)


def second_of(windows: Sequence[Window]) -> Second:
    """Return the counts of all workers in one second."""
    keyless: dict[str, Growing] = {}
    met: Growing = {}
    timed: Growing = {}
    given = [0, 0]
    callers: list[Caller] = []
    first: list[First] = []
    for window in windows:
        for metric, cells in window.bad.items():
            added(keyless.setdefault(metric, {}), cells)
        added(met, _less(window.exposed, window.named))
        added(timed, _less(window.answered, window.named_answered))
        given = [a + b for a, b in zip(given, window.predictions, strict=True)]
        callers += [
            Caller(one.unit, one.bucket, METRICS[one.metric], one.arm, one.times, one.segments)
            for one in window.units
        ]
        first += [
            First(
                one.unit,
                one.bucket,
                one.arm,
                _metrics(one.bad),
                one.segments,
                _metrics(one.bad >> OURS),
            )
            for one in window.first
        ]
    return Second(
        at=float(windows[0].at),
        callers=callers,
        met=_fixed(met),
        timed=_fixed(timed),
        first=first,
        keyless={metric: _fixed(cells) for metric, cells in keyless.items()},
        given=(given[0], given[1]),
    )


def _less(counts: Mapping[str, Sequence[int]], named: Counts) -> Mapping[str, Sequence[int]]:
    """Return the requests without an entity."""
    if not named:
        return counts
    found = {}
    for name, (ours, theirs) in counts.items():
        less = named.get(name, (0, 0))
        if ours - less[0] or theirs - less[1]:
            found[name] = (ours - less[0], theirs - less[1])
    return found


def _metrics(bits: int) -> frozenset[str]:
    """Return the metrics of `FirstAsk.bad` in which the candidate, or the only arm, went bad."""
    return (
        frozenset(name for n, name in enumerate(METRICS) if bits >> n & 1) if bits else frozenset()
    )


def _fixed(cells: Growing) -> Counts:
    return {name: (cell[0], cell[1]) for name, cell in cells.items()}


_K = TypeVar("_K")


def _summed(one: Mapping[_K, int], other: Mapping[_K, int]) -> dict[_K, int]:
    return {key: one.get(key, 0) + other.get(key, 0) for key in {**one, **other}}


def _cost_judge(state: State, kept: bytes) -> CostJudge | None:
    """Begin or continue the judge of cost, if the policy guards cost."""
    policy = state.policy
    rail, cost = policy.guardrails.get("cost"), policy.cost
    if rail is None or cost is None:
        return None
    canary = state.mirrored is None and state.candidate is not None
    steps = [round(step * BUCKETS / 100) for step in policy.canary.steps] if canary else []
    return CostJudge(
        worse_by=rail.worse_by,
        largest=cost.max,
        paired=state.mirrored is not None,
        declared=steps,
        keyed=policy.entity is not None,
        kept=kept,
    )


def judged(state: State) -> tuple[int | None, int | None]:
    """Return the release that is the measure, and the one that is judged by it.

    After a promotion the release that was left is the measure: production is judged.
    """
    if state.candidate is None:
        return state.compared, state.production
    return state.production, state.candidate


def _names(state: State) -> tuple[str, str]:
    """Return both releases by name, the measure first."""
    old, new = judged(state)
    return f"r{old}", f"r{new}"
