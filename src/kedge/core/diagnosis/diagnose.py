"""Diagnosis of an endpoint: why its answers became worse, and whether a rollback would help.

Theory of operation
-------------------
Questions are asked in the order of `QUESTIONS`. Each is a pure function of the case and of the
answers so far, and returns an addition to them. A question that cannot be answered adds an entry to
`missing`, never a guess:

0. Can the figures be trusted? No part is blamed on a broken split or a torn log.
1. Is a column broken? This needs no labels, so it is always asked. Is one stale or recoded
   (`suspects`)?
2. Is the newer release worse than the older one *on the same requests*? The comparison is paired,
   so that hard inputs of today are hard for both and cancel.
3. If so: its model or its features? The available replays decide (`contrast.shares`).
4. Is the *same* release worse than it was in the reference? Then the world changed.
5. If so: more of one outcome only, the same inputs with other outcomes, or other inputs
   (`shift`)?

A cause is named from 3.5 standard errors and 5 % of the reference's loss. Two causes are two
findings. *Noise* is a finding too, and has to be proven: the interval of both contrasts lies
below what is tolerated. A cause that is neither proven nor refuted is `cannot_tell`, with what to
log.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from msgspec.structs import replace

from kedge.core.diagnosis.advice import action, headline, would_change
from kedge.core.diagnosis.case import Case, DiagnosisAnswer
from kedge.core.diagnosis.contrast import FLOOR, WORLD_MARGIN
from kedge.core.diagnosis.defects import WHOLE
from kedge.core.diagnosis.facts import Facts, checked
from kedge.core.diagnosis.findings import Diagnosis
from kedge.core.diagnosis.questions.chance import chance
from kedge.core.diagnosis.questions.columns import (
    defects,
    freshness,
    stale_or_recoded,
    train_serve,
)
from kedge.core.diagnosis.questions.instruments import instruments
from kedge.core.diagnosis.questions.release import parts, release
from kedge.core.diagnosis.questions.world import (
    label_mix,
    look_alikes,
    outcomes_for_rise,
    reasons,
    spells,
    world,
)


def diagnose(facts: Facts) -> Diagnosis:
    """Ask every question in order, and return the diagnosis.

    Raises:
        Refused: `metric_unfit`: the metric cannot judge this output.
        ValueError: columns or answers of one window are not of one length.
    """
    checked(facts)
    case, known = Case.of(facts), DiagnosisAnswer()
    for question in QUESTIONS:
        if question.when(case, known):
            known += question.ask(case, known)
    return conclude(case, known)


# ---------------------------------------------------------------- when a question is asked


def always(_: Case, _known: DiagnosisAnswer) -> bool:
    """Return true: nothing has to be known before."""
    return True


def is_trusted(_: Case, known: DiagnosisAnswer) -> bool:
    """Return whether the figures can be trusted."""
    return not known.is_untrusted


def has_columns(_: Case, known: DiagnosisAnswer) -> bool:
    """Return whether no column is broken in every row."""
    return not any(fault.code in WHOLE for fault in known.broken)


def is_worse(case: Case, known: DiagnosisAnswer) -> bool:
    """Return whether the newer release is worse than the older one."""
    return known.contrast is not None and case.verdict(known.contrast, FLOOR) == "yes"


def has_risen(case: Case, known: DiagnosisAnswer) -> bool:
    """Return whether the same release is worse than it was, and no spell or label mix explains it."""
    return is_unexplained(case, known) and _rise(case, known) == "yes"


def may_have_risen(case: Case, known: DiagnosisAnswer) -> bool:
    """Return whether too few labels tell if the same release is worse than it was."""
    return is_unexplained(case, known) and _rise(case, known) == "unclear"


def _rise(case: Case, known: DiagnosisAnswer) -> str:
    return "" if known.rise is None else case.verdict(known.rise, WORLD_MARGIN)


def is_unexplained(_: Case, known: DiagnosisAnswer) -> bool:
    """Return whether a rise is known, and no spell or label mix explains it."""
    return known.rise is not None and not known.spell and not known.is_label_mix


def is_unexplained_and_binary(case: Case, known: DiagnosisAnswer) -> bool:
    """Return the same, where outcomes are yes or no."""
    return is_unexplained(case, known) and case.facts.output.kind == "binary"


def is_the_world(case: Case, known: DiagnosisAnswer) -> bool:
    """Return whether it has risen, and no stale or recoded column would look like that."""
    return has_risen(case, known) and not known.suspects.alike


def is_without_a_cause(_: Case, known: DiagnosisAnswer) -> bool:
    """Return whether nothing was found."""
    return not known.findings


# ---------------------------------------------------------------- the table


class DiagnosisQuestion(NamedTuple):
    """One question, and its condition for being asked."""

    ask: Callable[[Case, DiagnosisAnswer], DiagnosisAnswer]
    when: Callable[[Case, DiagnosisAnswer], bool] = always


QUESTIONS: tuple[DiagnosisQuestion, ...] = (
    DiagnosisQuestion(instruments),
    DiagnosisQuestion(defects),
    DiagnosisQuestion(freshness),
    DiagnosisQuestion(stale_or_recoded, when=has_columns),
    DiagnosisQuestion(release, when=is_trusted),
    DiagnosisQuestion(parts, when=is_worse),
    DiagnosisQuestion(train_serve, when=is_trusted),
    DiagnosisQuestion(world, when=is_trusted),
    DiagnosisQuestion(spells, when=has_risen),
    DiagnosisQuestion(label_mix, when=is_unexplained_and_binary),
    DiagnosisQuestion(outcomes_for_rise, when=may_have_risen),
    DiagnosisQuestion(look_alikes, when=has_risen),
    DiagnosisQuestion(reasons, when=is_the_world),
    DiagnosisQuestion(chance, when=is_without_a_cause),
)
"""Every question, in the order in which they are asked."""

# ---------------------------------------------------------------- the end


def conclude(case: Case, known: DiagnosisAnswer) -> Diagnosis:
    """Return the diagnosis that follows from all answers: headline, action and doubts."""
    facts, missing = case.facts, known.missing
    largest = sorted(
        known.findings, key=lambda one: -(one.effect.value if one.effect is not None else 0.0)
    )
    effect = known.contrast.estimate().turned() if known.contrast is not None else None
    whole = _whole_rise(case, known)
    findings = tuple(
        replace(one, share=one.effect.value / whole) if one.effect is not None and whole else one
        for one in largest
    )
    return Diagnosis(
        new=facts.new,
        old=facts.old,
        metric=facts.metric,
        headline=headline(facts.new, facts.old, facts.metric, effect, findings, missing),
        effect=effect,
        findings=findings,
        evidence=known.evidence,
        action=action(facts.new, facts.old, effect, findings, missing),
        would_change=would_change(findings),
        missing=missing,
    )


def _whole_rise(case: Case, known: DiagnosisAnswer) -> float | None:
    """Return the rise since the reference, where it is known and one."""
    if known.rise is None:
        return None
    more = 0.0
    if case.facts.reference_of == "old":
        if known.contrast is None:
            return None
        more = known.contrast.mean
    whole = known.rise.mean + more
    return whole if whole > case.floor else None
