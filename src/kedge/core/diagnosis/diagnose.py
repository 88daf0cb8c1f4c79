"""Diagnosis of why an endpoint answers worse than it did, and whether rolling back would help.

Theory of operation
-------------------
Questions are asked in a fixed order, each answered from what was logged. An answer that cannot
be given is a hole with a name, never a guess:

0. Can the figures be trusted? No part is blamed on a broken split or a torn log.
1. Is a column broken? Needs no labels, so it is always asked. Is one stale or recoded (`suspects`)?
2. Is the newer release worse than the older one *on the same requests*? Paired, so that what is
   hard about today is hard for both and cancels.
3. If so: its model or its features? From the replays that there are (`contrast.shares`).
4. Is the *same* release worse than it was in the reference? Then the world changed.
5. If so: more of one outcome only, the same inputs with other outcomes, or other inputs
   (`disde`)?

A cause is named from 3.5 standard errors and 5 % of the reference's loss on. Two causes are two
findings. *Noise* is a finding too, and has to be proven: the interval of both contrasts lies
below what is tolerated. Whatever is neither proven nor refuted is `cannot_tell`, with what to log.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from kedge.core.diagnosis.advice import action, excluded, headline, would_change
from kedge.core.diagnosis.contrast import (
    FLOOR,
    HINT,
    LEAST,
    LOST,
    PROOF_LEVEL,
    WORLD_MARGIN,
    Floats,
    Mean,
    Z,
    difference,
    losses,
    mean_of,
    shares,
    swapped,
)
from kedge.core.diagnosis.defects import (
    WHOLE,
    Code,
    Defect,
    defects,
    mismatches,
    nulls,
    plain,
    stepped,
    touched,
)
from kedge.core.diagnosis.facts import Facts, Sample, checked
from kedge.core.diagnosis.findings import (
    Cause,
    Diagnosis,
    Estimate,
    Evidence,
    Finding,
    Kind,
    Missing,
)
from kedge.core.diagnosis.hidden import alike, broken, freshness, hidden
from kedge.core.diagnosis.suspects import NOTHING
from kedge.core.diagnosis.world import LabelledWindow, beyond, part, reason, spells


def diagnose(facts: Facts) -> Diagnosis:
    """Ask every question in order, and say what follows.

    Raises:
        Refused: `metric_unfit`: the metric cannot judge this output.
        ValueError: columns or answers of one window are not of one length.
    """
    checked(facts)
    case = _Case(facts)
    trusted = case.instruments()
    case.data()
    case.hidden()
    if trusted:
        case.release()
        case.serving()
        case.world()
    return case.done()


class _Case:
    """One diagnosis under way: what was found so far, and what is missing."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.counts = facts.metric == "error_rate"
        now, ref = facts.current, facts.reference
        self.cells = {
            cell: losses(facts.metric, facts.output, scores, now.truth)
            for cell, scores in facts.answers.items()
        }
        self.before = (
            losses(facts.metric, facts.output, ref.scores, ref.truth)
            if ref is not None and ref.scores is not None
            else None
        )
        self.findings: list[Finding] = []
        self.evidence: list[Evidence] = []
        self.missing: dict[str, Missing] = {}
        self.broken: list[Defect] = []
        self.judged = NOTHING
        self.contrast: Mean | None = None
        self.rise: Mean | None = None
        self.spell = ""
        self.uneven = False
        self.ranked: tuple[str, ...] = ()
        self.floor = FLOOR * self._usual()

    def _usual(self) -> float:
        """The loss that the floor is a part of: the reference's, else the old release's today."""
        for known in (self.before, self.cells.get(("old", "old")), self.cells.get(("new", "new"))):
            if known is not None and not np.isnan(known).all():
                return float(np.nanmean(known))
        return 0.0

    # ------------------------------------------------------------ what was found

    def tell(self, question: str, answer: str, verdict: str, found: Mean | None = None) -> None:
        """Add a row of evidence."""
        if found is None or found.df < 1:
            self.evidence.append(Evidence(question=question, answer=answer, verdict=verdict))
            return
        low, high = found.interval()
        self.evidence.append(
            Evidence(
                question=question,
                answer=answer,
                figure=found.mean,
                low=low,
                high=high,
                verdict=verdict,
            )
        )

    def lack(self, code: str, log: str) -> None:
        """Something to log is not there."""
        self.missing.setdefault(code, Missing(code, log))

    def real(self, found: Mean) -> bool:
        """Whether it is a rise, surely and by enough to matter."""
        return found.enough and found.mean > self.floor and found.z > Z

    def below(self, found: Mean, margin: float) -> bool:
        """Whether a rise of `margin` of the usual loss is excluded."""
        return found.enough and found.interval(PROOF_LEVEL)[1] < margin * self.floor / FLOOR

    def verdict(self, found: Mean, margin: float) -> str:
        """Yes, no, or unclear."""
        return "yes" if self.real(found) else "no" if self.below(found, margin) else "unclear"

    # ------------------------------------------------------------ the questions

    def instruments(self) -> bool:
        """Can the figures be trusted?"""
        told = self.facts.instruments
        faults = []
        if told.split_fault:
            faults.append(told.split_fault)
            self.lack("split", "requests by arm at the share that was set")
        self.tell("split", told.split_fault or "as it was set", "yes" if told.split_fault else "no")
        if told.lost > LOST:
            faults.append(f"{told.lost:.0%} of the log is lost")
            self.lack("log", "every sampled request: free the disk, or sample less")
        self.tell("log", f"{told.lost:.1%} of it is lost", "yes" if told.lost > LOST else "no")
        labelled = told.labelled()
        if labelled is not None:
            # Labels that come for one arm more than for the other: unpaired figures are worth
            # nothing.
            self.uneven = labelled.uneven
            self.tell("labels", f"labelled: {labelled.text}", "yes" if labelled.uneven else "no")
        if faults:
            self.findings.append(
                Finding(
                    cause=Cause.CANNOT_TELL,
                    kind=Kind.INSTRUMENTATION,
                    statement=f"the figures cannot be trusted: {'; '.join(faults)}",
                )
            )
        return not faults

    def data(self) -> None:
        """Is a column broken?"""
        ref, now = self.facts.reference, self.facts.current
        if ref is None or not ref.columns:
            self.lack("reference", "labelled requests of the release from before it became worse")
            self.tell("defects", "there is no reference to compare columns with", "not tested")
            return
        times = None if ref.at is None or now.at is None else (ref.at, now.at)
        self.broken = defects(
            ref.columns,
            now.columns,
            self.facts.ranges,
            times=times,
            training=self.facts.training.get("new"),
        )
        for fault in self.broken:
            self.evidence.append(
                Evidence(question="defects", answer=fault.text, figure=fault.now, verdict="yes")
            )
        if not self.broken:
            self.tell("defects", f"none in {len(ref.columns)} columns", "no")
            return
        text = "; ".join(fault.text for fault in self.broken[:5])
        more = f"; and {len(self.broken) - 5} more" if len(self.broken) > 5 else ""
        self.findings.append(
            Finding(
                cause=Cause.DATA,
                statement=text + more,
                effect=self._added(),
                columns=tuple(dict.fromkeys(fault.column for fault in self.broken)),
            )
        )

    def hidden(self) -> None:
        """Is a column stale or recoded? Its values are plausible; what they go with is not."""
        self.evidence += freshness(self.facts)
        if any(fault.code in WHOLE for fault in self.broken):
            return
        self.judged = hidden(self.facts, {fault.column for fault in self.broken})
        if self.judged.proven:
            self.tell("hidden", self.judged.text, "yes")
            self.findings.append(broken(self.judged))

    def _added(self) -> Estimate | None:
        """What the touched requests add to today's loss, by what they lose more than the others."""
        today, faulty = self.cells.get(("new", "new")), self._touched()
        if today is None or not faulty.any() or faulty.all():
            return None
        others = mean_of(np.where(faulty, np.nan, today))
        added = mean_of(np.where(faulty, today - others.mean, today * 0), self.facts.current.units)
        return added.estimate() if others.enough and added.enough else None

    def release(self) -> None:
        """Is the newer release worse than the older one on the same requests?"""
        if self.facts.old is None:
            self.lack("previous", "the answers of a second release, once there is one")
            self.tell("release", "there is no release to compare with", "not tested")
            return
        top, bottom = self.cells.get(("new", "new")), self.cells.get(("old", "old"))
        if top is None:
            self.lack("new_answers", f"the answers of {self.facts.new} (`log`)")
        if bottom is None:
            self.lack(
                "old_answers",
                f"the answers of {self.facts.old} to the same requests, by "
                "reverse shadow (`after`) or replay",
            )
        if top is None or bottom is None:
            self.tell("release", "the answers of one of the two are not known", "not tested")
            return
        units = self.facts.current.units
        both = top - bottom
        paired = mean_of(both, units, counts=self.counts)
        if paired.units < LEAST and not self.uneven:
            arms = difference(mean_of(top, units), mean_of(bottom, units))
            paired = arms if arms.units > 2 * LEAST else paired
        if paired.units < LEAST:
            self._few(paired.units)
            return
        self.contrast = paired
        verdict = self.verdict(paired, FLOOR)
        self.tell(
            "release",
            f"{self.facts.new} less {self.facts.old}, on {paired.n:,} requests",
            verdict,
            paired,
        )
        if verdict == "yes":
            self._divide(paired)
        elif verdict == "unclear":
            self._want(paired, FLOOR)

    def _few(self, known: int) -> None:
        """Too few labels: what moved can still be told."""
        self._short(f"{known} units that both releases answered have one", self.facts.current)
        self.tell("release", f"{known} labelled units", "not tested")
        answers = self.facts.answers
        top, bottom = answers[("new", "new")], answers[("old", "old")]
        moved = {cell: np.abs(scores - bottom) for cell, scores in answers.items()}
        with np.errstate(invalid="ignore"):
            whole = mean_of(np.where(np.isfinite(top - bottom), top - bottom, np.nan))
        if not whole.n:
            return
        self.tell(
            "moved", f"answers of {self.facts.new} less those of {self.facts.old}", "unclear", whole
        )
        parts = shares(moved)
        if parts is not None:
            for name, values in (("model", parts.model), ("features", parts.features)):
                text = f"how far the {name} moved the answers; not whether to the worse"
                self.tell(
                    name, text, "unclear", mean_of(np.where(np.isfinite(values), values, np.nan))
                )

    def _short(self, known: str, *of: Sample) -> None:
        """Say what is too few: labels, or units that could have one."""
        units = min(mean_of(np.zeros(len(sample.truth)), sample.units).units for sample in of)
        code, what = (
            ("outcomes", "outcomes")
            if units >= LEAST
            else ("more_units", "more units (`log.sample`, or a longer window), with outcomes")
        )
        self.lack(code, f"{what}: {known}, {LEAST} are needed")

    def _want(self, found: Mean, margin: float) -> None:
        """Say how many labels would decide it."""
        if (aim := margin * self.floor / FLOOR / (3 * 2)) > 0 and np.isfinite(found.se):
            self.lack(
                "more_outcomes",
                f"outcomes of about {found.wanted(aim):,} requests ({found.n:,} are known)",
            )

    def _divide(self, paired: Mean) -> None:
        """The release is worse: by its model or its features?"""
        effect = paired.estimate()
        name, facts = f"{self.facts.new} is worse than {self.facts.old}", self.facts
        if len(facts.changed) == 1:
            (changed,) = facts.changed
            self._blame(
                Cause(changed),
                f"{name}, and only its {changed} differ" + ("s" if changed == "model" else ""),
                effect,
            )
            return
        parts = shares(self.cells)
        if parts is None:
            self.lack("replay", "a replay of one release's model on the other's features")
            self._blame(
                Cause.RELEASE, f"{name}; its model and its features were not replayed apart", effect
            )
            return
        units = facts.current.units
        model = mean_of(parts.model, units, counts=self.counts)
        features = mean_of(parts.features, units, counts=self.counts)
        for part_, found in (("model", model), ("features", features)):
            way = "its share" + (" (Shapley)" if parts.both_paths else ", on the one way replayed")
            self.tell(part_, way, "yes" if self.real(found) else "no", found)
        for values, what in ((parts.alone_model, "model"), (parts.alone_features, "features")):
            alone = mean_of(values, units, counts=self.counts)
            if alone.n:
                text = f"the new {what} with the rest old adds"
                self.tell("interaction", text, "yes" if self.real(alone) else "no", alone)
        self._ways_back(units)
        self._swaps()
        blamed = self._blamed(parts, model, features)
        for cause, found in blamed:
            self._blame(cause, f"{name} by its {cause.value}", found.estimate())
        if not blamed:
            self._blame(
                Cause.RELEASE, f"{name}; model and features have about the same part in it", effect
            )

    def _blamed(self, parts: Any, model: Mean, features: Mean) -> list[tuple[Cause, Mean]]:
        """The parts to blame: both where each is worse alone as well, else the larger.

        A part's share holds half of what happens only together (a bug in the features may hurt
        the new model more). So the smaller of two is blamed only if it is worse on its own too.
        """
        units = self.facts.current.units
        ordered = sorted(
            (
                (Cause.MODEL, model, parts.alone_model),
                (Cause.FEATURES, features, parts.alone_features),
            ),
            key=lambda each: -each[1].mean,
        )
        (first, most, _), (second, less, alone) = ordered
        own = mean_of(alone, units, counts=self.counts)
        if self.real(most) and self.real(less) and (own.n == 0 or self.real(own)):
            return [(first, most), (second, less)]
        gap = parts.model - parts.features
        apart = mean_of(gap if first is Cause.MODEL else -gap, units)
        return [(first, most)] if self.real(most) and apart.z > 2.58 else []

    def _ways_back(self, units: Any) -> None:
        """What rolling one part back alone would do."""
        top = self.cells[("new", "new")]
        for question, cell in (("back_model", ("old", "new")), ("back_features", ("new", "old"))):
            if cell in self.cells:
                found = mean_of(self.cells[cell] - top, units, counts=self.counts)
                verdict = "yes" if found.interval()[1] < 0 else "unclear"
                text = "rolled back alone, it would change the loss by"
                self.tell(question, text, verdict, found)

    def _swaps(self) -> None:
        """Which feature it is."""
        truth, facts = self.facts.current.truth, self.facts

        def lost(answers: Floats | None) -> Floats | None:
            return None if answers is None else losses(facts.metric, facts.output, answers, truth)

        exchanged = {name: (lost(a), lost(b)) for name, (a, b) in facts.swaps.items()}
        ranked = swapped(self.cells, exchanged, facts.current.units, counts=self.counts)
        for name, found in ranked[:10]:
            self.tell("swap", name, "yes" if self.real(found) else "no", found)
        self.ranked = tuple(name for name, found in ranked if self.real(found))

    def _blame(self, cause: Cause, statement: str, effect: Estimate) -> None:
        columns = self.ranked if cause is Cause.FEATURES else ()
        if columns:
            statement += f", most of all {columns[0]}"
        self.findings.append(
            Finding(cause=cause, statement=statement, effect=effect, columns=columns)
        )

    def serving(self) -> None:
        """Does production send the new model what its training set did not have?"""
        facts = self.facts
        known = facts.training.get("new")
        if not known:
            return
        served = facts.inputs.get("new", facts.current.columns)
        found = mismatches(known, served)
        explained = {fault.column for fault in self.broken}
        for fault in found:
            self.evidence.append(
                Evidence(question="train_serve", answer=fault.text, figure=fault.now, verdict="yes")
            )
        if not found:
            self.tell("train_serve", "production sends what was trained on", "no")
        null = [
            f
            for f in found
            if f.code is Code.NULL
            and f.column not in explained
            and not self._explained(served[f.column])
        ]
        before = facts.inputs.get("old", facts.current.columns)
        shared = {f.column for f in mismatches(facts.training.get("old", {}), before)}
        # What the reference had as well, and the way back has, made no difference between them.
        ref = facts.reference if self.contrast is not None else None
        raw = ref.columns if ref is not None else {}
        null = [f for f in null if f.column not in shared or f.column not in raw]
        harmless = self.contrast is not None and self.below(self.contrast, FLOOR)
        if not null or harmless:
            return
        is_shared = all(f.column in shared for f in null)
        text = "; ".join(fault.text for fault in null)
        text += f"; so it is with {facts.old}" if is_shared else ""
        self.findings = [f for f in self.findings if f.cause is not Cause.MODEL]
        effect = self.contrast.estimate() if self.contrast is not None else None
        self.findings.append(
            Finding(
                cause=Cause.MODEL,
                kind=Kind.TRAIN_SERVE,
                effect=effect,
                statement=f"the model of {facts.new} was not trained for what it is sent: {text}",
                columns=tuple(fault.column for fault in null),
                is_shared=is_shared,
            )
        )

    def _explained(self, column: NDArray[Any]) -> bool:
        """Whether a model's input is null where a raw column is broken, and hardly elsewhere."""
        null, faulty = nulls(plain(column)), self._touched()
        return bool((null & faulty).sum() > 0.9 * null.sum())

    def world(self) -> None:
        """Is the same release worse than it was?"""
        facts, now, which = self.facts, self.facts.current, self.facts.reference_of
        ref, today = facts.reference, self.cells.get((which, which))
        if ref is None or self.before is None:
            self.lack("reference", "labelled requests of the release from before it became worse")
            self.tell("world", "there is no reference with answers and outcomes", "not tested")
            return
        if today is None:
            name = facts.old if which == "old" else facts.new
            self.lack(
                f"{which}_answers",
                f"the answers of {name} to today's requests, by reverse shadow (`after`) or replay",
            )
            self.tell("world", "the release of the reference did not answer today", "not tested")
            return
        clean = ~self._touched()
        whole = bool(self.judged.proven) or any(fault.code in WHOLE for fault in self.broken)
        if whole or not clean.any():
            self.tell("world", "every request is touched by a broken column", "not tested")
            return
        now_mean = mean_of(np.where(clean, today, np.nan), now.units)
        rise = difference(now_mean, mean_of(self.before, ref.units))
        if not rise.enough:
            self._short(f"{rise.units} units of one window have one", now, ref)
            self.tell("world", f"{rise.units} labelled units", "not tested")
            return
        self.rise = rise
        verdict = self.verdict(rise, WORLD_MARGIN)
        self.tell(
            "world",
            f"the same release, today less the reference, on {rise.n:,} requests",
            verdict,
            rise,
        )
        if verdict == "yes" and self._usual_spell(np.where(clean, today, np.nan), now_mean.mean):
            return
        self._explain(today, clean, verdict)

    def _usual_spell(self, today: Floats, mean: float) -> bool:
        """Whether the reference had such times as well, and they ended."""
        ref, now = self.facts.reference, self.facts.current
        if ref is None or ref.at is None or now.at is None or self.before is None:
            return False
        found = spells(self.before, (ref.at, now.at[~np.isnan(today)]), mean)
        self.tell("spells", found.text, "yes" if found.usual else "no")
        self.spell = found.text if found.usual else ""
        return found.usual

    def _touched(self) -> NDArray[np.bool_]:
        """Requests that a defect of their row explains; the rest is the world's to explain."""
        ref, now = self.facts.reference, self.facts.current
        return touched(self.broken, now.columns, ref.columns if ref else {}, len(now.truth))

    def _explain(self, today: Floats, clean: NDArray[np.bool_], verdict: str) -> None:
        """What about the world changed."""
        facts, ref, now = self.facts, self.facts.reference, self.facts.current
        which = facts.reference_of
        assert ref is not None
        assert ref.scores is not None
        assert self.before is not None
        assert self.rise is not None
        gone = {f.column for f in self.broken if f.code is Code.LEAVES_CONSTANT}
        columns = [
            name
            for name, before_ in ref.columns.items()
            if name in now.columns
            and name not in gone
            and not stepped(before_, now.columns[name], (ref.at, now.at))
        ]
        before = LabelledWindow.of(
            ref.columns, columns, ref.scores, ref.truth, self.before, ref.units
        )
        scores, loss = facts.answers[which, which], np.where(clean, today, np.nan)
        after = LabelledWindow.of(now.columns, columns, scores, now.truth, loss, now.units)
        binary = facts.output.kind == "binary"
        if binary:
            told = part(before, after, now.truth, now.units, Z)
            self.tell("label_mix", told.text, told.verdict, told.mean)
            if told.verdict == "yes" and self.rise.interval()[1] > 0:
                self.findings.append(
                    Finding(
                        cause=Cause.LABEL_MIX,
                        effect=self.rise.estimate(),
                        statement=told.text,
                    )
                )
                return
        if verdict == "unclear":
            self._want(self.rise, WORLD_MARGIN)
        if verdict != "yes" or self._alike():
            return
        for kind, statement, effect, rows in reason(
            before, after, self.rise, self.floor, Z, binary=binary
        ):
            self.evidence += rows
            if kind is not Kind.CONCEPT and not self._beyond(today, clean):
                text = f"{statement}; it may be that the broken requests were the easier ones"
                self.tell("inputs", text, "unclear")
                continue
            if self.judged.explained:
                self.tell(
                    "hidden", "beside the broken columns, outcomes go with all as they did", "no"
                )
                continue
            if kind is Kind.UNDIVIDED:
                self._want(self.rise, FLOOR)
            elif kind is Kind.NO_OVERLAP:
                self.lack("overlap", "a reference whose inputs are like today's")
            self.findings.append(
                Finding(cause=Cause.WORLD, kind=kind, statement=statement, effect=effect)
            )

    def _alike(self) -> bool:
        """Whether a stale or recoded column would look like the changed world."""
        told, unclear = self.judged.text, bool(self.judged.alike)
        if not unclear:
            told = "no column that is stale or recoded would look like it"
            if not self.judged.asked:
                told = "too few labelled rows to look for columns that are stale or recoded"
            elif self.judged.left_out:
                told += f", of all but {self.judged.left_out} columns, which were not looked at"
        sure = self.judged.asked and not self.judged.left_out and not unclear
        self.tell("hidden", told, "no" if sure else "unclear")
        if unclear and self.rise is not None:
            self.findings.append(alike(self.judged, self.rise.estimate()))
        return unclear

    def _beyond(self, today: Floats, clean: NDArray[np.bool_]) -> bool:
        """Whether requests without a fault lose more than the hardest ones ever did.

        Those without may be the harder ones, for nulls may come where it was easy. So they are held
        against as large a part of the reference: the hardest, by the score that was given.
        """
        ref = self.facts.reference
        if clean.all():
            return True
        assert ref is not None
        assert ref.scores is not None
        assert self.before is not None
        return self.real(
            beyond((ref.scores, self.before, ref.units), (today, self.facts.current.units), clean)
        )

    # ------------------------------------------------------------ the end

    def done(self) -> Diagnosis:
        """Put it together."""
        facts = self.facts
        if not self.findings:
            self.findings.append(self._nothing())
        self.findings.sort(key=lambda f: -(f.effect.value if f.effect is not None else 0.0))
        effect = self.contrast.estimate().turned() if self.contrast is not None else None
        whole = self._whole()
        every = tuple(
            replace(f, share=f.effect.value / whole) if f.effect is not None and whole else f
            for f in self.findings
        )
        missing = tuple(self.missing.values())
        return Diagnosis(
            new=facts.new,
            old=facts.old,
            metric=facts.metric,
            headline=headline(facts.new, facts.old, facts.metric, effect, every, missing),
            effect=effect,
            findings=every,
            evidence=tuple(self.evidence),
            action=action(facts.new, facts.old, effect, every, missing),
            would_change=would_change(every),
            missing=missing,
        )

    def _whole(self) -> float | None:
        """The rise since the reference, where it is known and one."""
        if self.rise is None:
            return None
        more = 0.0
        if self.facts.reference_of == "old":
            if self.contrast is None:
                return None
            more = self.contrast.mean
        whole = self.rise.mean + more
        return whole if whole > self.floor else None

    def _nothing(self) -> Finding:
        """No cause was found: is that a proof?"""
        facts, release, world = self.facts, self.contrast, self.rise
        # Without a second release nothing but the world can have changed since its own reference.
        alone = facts.old is None and facts.reference_of == "new"
        well = alone or (release is not None and self.below(release, FLOOR))
        if well and world is not None and (self.spell or self._harmless(world)):
            return self._noise(release, world)
        logs = (f"log {lack.log}" for lack in self.missing.values())
        told = "; ".join(filter(None, (self.spell, *logs)))
        said = told or "no cause was found, and none is excluded"
        return Finding(cause=Cause.CANNOT_TELL, statement=said)

    def _harmless(self, world: Mean) -> bool:
        """Whether the world made nothing worse, as far as two windows can prove it."""
        if world.z >= HINT and not self.below(world, FLOOR):
            return False
        return self.below(world, WORLD_MARGIN)

    def _noise(self, release: Mean | None, world: Mean) -> Finding:
        """Proven: with how much was excluded."""
        usual = self.floor / FLOOR
        tops = [
            max(found.interval(PROOF_LEVEL)[1] / usual, 0) if found is not None else None
            for found in (release, world)
        ]
        said = excluded(tops[0], tops[1], self.spell)
        return Finding(cause=Cause.NOISE, statement=said)
