"""Case of a diagnosis and the answers to its questions, both frozen.

Every question gets the case and the earlier answers, and returns its own answer. Answers add up: `a
+ b` is the knowledge after both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kedge.core.diagnosis.contrast import (
    FLOOR,
    LEAST,
    PROOF_LEVEL,
    Cell,
    Floats,
    Mean,
    Z,
    losses,
    mean_of,
)
from kedge.core.diagnosis.defects import Defect, touched
from kedge.core.diagnosis.facts import Facts, Sample
from kedge.core.diagnosis.findings import Cause, Evidence, Finding, Missing
from kedge.core.diagnosis.suspects import NOTHING, SuspectFindings
from kedge.core.values import Value


@dataclass(frozen=True, kw_only=True)
class Case:
    """Facts, the losses of their answers, and the least change of the mean loss that matters."""

    facts: Facts
    cells: Mapping[Cell, Floats]
    """Losses of today's answers, by (model, features), (n,) each."""
    before: Floats | None
    """Losses of the reference, (m,); None if it has no answers."""
    floor: float
    """Change of the mean loss below which nothing is an incident."""

    @staticmethod
    def of(facts: Facts) -> Case:
        """Compute the losses of all answers.

        Raises:
            Refused: `metric_unfit`: the metric cannot judge this output.
        """
        metric, output, ref = facts.metric, facts.output, facts.reference
        cells = {
            cell: losses(metric, output, scores, facts.current.truth)
            for cell, scores in facts.answers.items()
        }
        before = (
            losses(metric, output, ref.scores, ref.truth)
            if ref is not None and ref.scores is not None
            else None
        )
        return Case(
            facts=facts, cells=cells, before=before, floor=FLOOR * _usual_loss(cells, before)
        )

    def mean(self, values: Floats) -> Mean:
        """Return the mean of differences of losses of today's requests, (n,)."""
        counts = self.facts.metric == "error_rate"
        return mean_of(values, self.facts.current.units, counts=counts)

    def is_real(self, found: Mean) -> bool:
        """Return whether a mean is a rise, surely and by enough to matter."""
        return found.enough and found.mean > self.floor and found.z > Z

    def is_below(self, found: Mean, margin: float) -> bool:
        """Return whether a rise of `margin` of the usual loss is excluded."""
        return found.enough and found.interval(PROOF_LEVEL)[1] < margin * self.floor / FLOOR

    def verdict(self, found: Mean, margin: float) -> str:
        """Return yes, no, or unclear."""
        if self.is_real(found):
            return "yes"
        return "no" if self.is_below(found, margin) else "unclear"

    def touched(self, broken: tuple[Defect, ...]) -> NDArray[np.bool_]:
        """Return today's requests that a defect of their row explains, (n,)."""
        ref, now = self.facts.reference, self.facts.current
        return touched(broken, now.columns, ref.columns if ref else {}, len(now.truth))


def _usual_loss(cells: Mapping[Cell, Floats], before: Floats | None) -> float:
    """Return the loss that the floor refers to: the reference's, else the old release's today."""
    for known in (before, cells.get(("old", "old")), cells.get(("new", "new"))):
        if known is not None and not np.isnan(known).all():
            return float(np.nanmean(known))
    return 0.0


class DiagnosisAnswer(Value, frozen=True, kw_only=True):
    """Answer of one question, or of several. Each result that later questions need is a field."""

    evidence: tuple[Evidence, ...] = ()
    findings: tuple[Finding, ...] = ()
    missing: tuple[Missing, ...] = ()
    """At most one of each code: that of the first question."""
    replaces: frozenset[Cause] = frozenset()
    """Causes whose earlier findings no longer count."""
    is_untrusted: bool = False
    """By `instruments`: the figures cannot be trusted, so that no release is blamed."""
    is_uneven: bool = False
    """By `instruments`: one arm has surely fewer labels than the other."""
    broken: tuple[Defect, ...] = ()
    """By `defects`: faults of columns."""
    suspects: SuspectFindings = NOTHING
    """By `stale_or_recoded`: which columns are false although their values are plausible."""
    contrast: Mean | None = None
    """By `release`: the newer release's loss today less the older one's."""
    rise: Mean | None = None
    """By `world`: the loss of one release today less that of the reference."""
    spell: str = ""
    """By `spells`: how often the reference had such times, in words; empty where it had none."""
    is_label_mix: bool = False
    """By `label_mix`: a changed share of outcomes explains the rise."""

    def __add__(self, later: DiagnosisAnswer) -> DiagnosisAnswer:
        """Return the sum of this answer and a later one."""
        kept = (one for one in self.findings if one.cause not in later.replaces)
        known = {one.code for one in self.missing}
        return DiagnosisAnswer(
            evidence=self.evidence + later.evidence,
            findings=(*kept, *later.findings),
            missing=(*self.missing, *(one for one in later.missing if one.code not in known)),
            replaces=self.replaces | later.replaces,
            is_untrusted=self.is_untrusted or later.is_untrusted,
            is_uneven=self.is_uneven or later.is_uneven,
            broken=self.broken + later.broken,
            suspects=self.suspects if later.suspects is NOTHING else later.suspects,
            contrast=self.contrast if later.contrast is None else later.contrast,
            rise=self.rise if later.rise is None else later.rise,
            spell=later.spell or self.spell,
            is_label_mix=self.is_label_mix or later.is_label_mix,
        )


# ---------------------------------------------------------------- parts of an answer


def tell(question: str, answer: str, verdict: str, found: Mean | None = None) -> DiagnosisAnswer:
    """Return an answer with one row of evidence, with its interval where there is one."""
    if found is None or found.df < 1:
        row = Evidence(question=question, answer=answer, verdict=verdict)
        return DiagnosisAnswer(evidence=(row,))
    low, high = found.interval()
    row = Evidence(
        question=question, answer=answer, figure=found.mean, low=low, high=high, verdict=verdict
    )
    return DiagnosisAnswer(evidence=(row,))


def ask_for(code: str, log: str) -> DiagnosisAnswer:
    """Return an answer with one missing item, and what to log for it."""
    return DiagnosisAnswer(missing=(Missing(code, log),))


def ask_for_units(known: str, *of: Sample) -> DiagnosisAnswer:
    """Return an answer that names what is too few: outcomes, or units that could have one."""
    units = min(mean_of(np.zeros(len(sample.truth)), sample.units).units for sample in of)
    code, what = (
        ("outcomes", "outcomes")
        if units >= LEAST
        else ("more_units", "more units (`log.sample`, or a longer window), with outcomes")
    )
    return ask_for(code, f"{what}: {known}, {LEAST} are needed")


def ask_for_outcomes(case: Case, found: Mean, margin: float) -> DiagnosisAnswer:
    """Return an answer with the number of outcomes that would show a rise of `margin`."""
    aim = margin * case.floor / FLOOR / (3 * 2)
    if aim <= 0 or not np.isfinite(found.se):
        return DiagnosisAnswer()
    return ask_for(
        "more_outcomes",
        f"outcomes of about {found.wanted(aim):,} requests ({found.n:,} are known)",
    )
