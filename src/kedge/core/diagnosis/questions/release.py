"""Questions about the release: whether it is worse on the same requests, and by which part."""

from __future__ import annotations

import numpy as np

from kedge.core.diagnosis.case import (
    Case,
    DiagnosisAnswer,
    ask_for,
    ask_for_outcomes,
    ask_for_units,
    tell,
)
from kedge.core.diagnosis.contrast import (
    FLOOR,
    LEAST,
    Floats,
    Mean,
    Shares,
    difference,
    losses,
    mean_of,
    shares,
    swapped,
)
from kedge.core.diagnosis.findings import Cause, Estimate, Finding

APART = 2.58
"""Standard errors, a 99 % interval, by which the larger part must exceed the other to be blamed alone."""
SWAPS = 10
"""Exchanged features that the evidence lists, those that add the most."""


def release(case: Case, known: DiagnosisAnswer) -> DiagnosisAnswer:
    """Ask whether the newer release is worse than the older one on the same requests."""
    facts = case.facts
    if facts.old is None:
        return ask_for("previous", "the answers of a second release, once there is one") + tell(
            "release", "there is no release to compare with", "not tested"
        )
    top, bottom = case.cells.get(("new", "new")), case.cells.get(("old", "old"))
    if top is None or bottom is None:
        return _unanswered(case, facts.old)
    units = facts.current.units
    paired = case.mean(top - bottom)
    if paired.units < LEAST and not known.is_uneven:
        arms = difference(mean_of(top, units), mean_of(bottom, units))
        paired = arms if arms.units > 2 * LEAST else paired
    if paired.units < LEAST:
        return _moved(case, paired.units)
    verdict = case.verdict(paired, FLOOR)
    text = f"{facts.new} less {facts.old}, on {paired.n:,} requests"
    answer = tell("release", text, verdict, paired) + DiagnosisAnswer(contrast=paired)
    return answer + ask_for_outcomes(case, paired, FLOOR) if verdict == "unclear" else answer


def _unanswered(case: Case, old: str) -> DiagnosisAnswer:
    answer, new = DiagnosisAnswer(), case.facts.new
    if ("new", "new") not in case.cells:
        answer += ask_for("new_answers", f"the answers of {new} (`log`)")
    if ("old", "old") not in case.cells:
        how = "by reverse shadow (`after`) or replay"
        answer += ask_for("old_answers", f"the answers of {old} to the same requests, {how}")
    return answer + tell("release", "the answers of one of the two are not known", "not tested")


def _moved(case: Case, known: int) -> DiagnosisAnswer:
    """Return how the answers moved, which needs no labels."""
    facts, answers = case.facts, case.facts.answers
    answer = ask_for_units(f"{known} units that both releases answered have one", facts.current)
    answer += tell("release", f"{known} labelled units", "not tested")
    top, bottom = answers["new", "new"], answers["old", "old"]
    moved = {cell: np.abs(scores - bottom) for cell, scores in answers.items()}
    with np.errstate(invalid="ignore"):
        whole = _finite_mean(top - bottom)
    if not whole.n:
        return answer
    answer += tell("moved", f"answers of {facts.new} less those of {facts.old}", "unclear", whole)
    parts = shares(moved)
    if parts is None:
        return answer
    for name, values in (("model", parts.model), ("features", parts.features)):
        text = f"how far the {name} moved the answers; not whether to the worse"
        answer += tell(name, text, "unclear", _finite_mean(values))
    return answer


def _finite_mean(values: Floats) -> Mean:
    return mean_of(np.where(np.isfinite(values), values, np.nan))


# ---------------------------------------------------------------- model and features


def parts(case: Case, known: DiagnosisAnswer) -> DiagnosisAnswer:
    """Ask whether a worse release is worse by its model or its features."""
    assert known.contrast is not None
    facts, effect = case.facts, known.contrast.estimate()
    name = f"{facts.new} is worse than {facts.old}"
    if len(facts.changed) == 1:
        (changed,) = facts.changed
        only = f"{name}, and only its {changed} differ" + ("s" if changed == "model" else "")
        return _blame(Cause(changed), only, effect)
    divided = shares(case.cells)
    if divided is None:
        asked = ask_for("replay", "a replay of one release's model on the other's features")
        apart = f"{name}; its model and its features were not replayed apart"
        return asked + _blame(Cause.RELEASE, apart, effect)
    model, features = case.mean(divided.model), case.mean(divided.features)
    exchanged = _exchanged(case)
    answer = _divided(case, divided, model, features) + _ways_back(case) + _swaps(case, exchanged)
    ranked = tuple(feature for feature, found in exchanged if case.is_real(found))
    blamed = _blamed(case, divided, model, features)
    for cause, found in blamed:
        columns = ranked if cause is Cause.FEATURES else ()
        answer += _blame(cause, f"{name} by its {cause.value}", found.estimate(), columns)
    if not blamed:
        answer += _blame(
            Cause.RELEASE, f"{name}; model and features have about the same part in it", effect
        )
    return answer


def _blame(
    cause: Cause, statement: str, effect: Estimate, columns: tuple[str, ...] = ()
) -> DiagnosisAnswer:
    if columns:
        statement += f", most of all {columns[0]}"
    return DiagnosisAnswer(
        findings=(Finding(cause=cause, statement=statement, effect=effect, columns=columns),)
    )


def _divided(case: Case, divided: Shares, model: Mean, features: Mean) -> DiagnosisAnswer:
    """Return the share of each part, and its addition alone."""
    answer = DiagnosisAnswer()
    way = "its share" + (" (Shapley)" if divided.both_paths else ", on the one way replayed")
    for part, found in (("model", model), ("features", features)):
        answer += tell(part, way, _yes_or_no(case, found), found)
    for part, values in (("model", divided.alone_model), ("features", divided.alone_features)):
        alone = case.mean(values)
        if alone.n:
            text = f"the new {part} with the rest old adds"
            answer += tell("interaction", text, _yes_or_no(case, alone), alone)
    return answer


def _yes_or_no(case: Case, found: Mean) -> str:
    return "yes" if case.is_real(found) else "no"


def _blamed(case: Case, divided: Shares, model: Mean, features: Mean) -> list[tuple[Cause, Mean]]:
    """Return the parts to blame: both where each is worse alone as well, else the larger.

    A part's share contains half of the interaction (a bug in the features may hurt the new model
    more). So the smaller of two is blamed only if it is worse alone too.
    """
    ordered = sorted(
        (
            (Cause.MODEL, model, divided.alone_model),
            (Cause.FEATURES, features, divided.alone_features),
        ),
        key=lambda each: -each[1].mean,
    )
    (first, most, _), (second, less, alone) = ordered
    own = case.mean(alone)
    if case.is_real(most) and case.is_real(less) and (own.n == 0 or case.is_real(own)):
        return [(first, most), (second, less)]
    gap = divided.model - divided.features
    apart = mean_of(gap if first is Cause.MODEL else -gap, case.facts.current.units)
    return [(first, most)] if case.is_real(most) and apart.z > APART else []


def _ways_back(case: Case) -> DiagnosisAnswer:
    """Return the effect of a rollback of one part alone."""
    answer, top = DiagnosisAnswer(), case.cells["new", "new"]
    for question, cell in (("back_model", ("old", "new")), ("back_features", ("new", "old"))):
        if cell in case.cells:
            found = case.mean(case.cells[cell] - top)
            verdict = "yes" if found.interval()[1] < 0 else "unclear"
            text = "rolled back alone, it would change the loss by"
            answer += tell(question, text, verdict, found)
    return answer


def _exchanged(case: Case) -> list[tuple[str, Mean]]:
    """Return the addition of each exchanged feature, the most first."""
    facts = case.facts

    def lost(answers: Floats | None) -> Floats | None:
        if answers is None:
            return None
        return losses(facts.metric, facts.output, answers, facts.current.truth)

    exchanged = {name: (lost(a), lost(b)) for name, (a, b) in facts.swaps.items()}
    counts = facts.metric == "error_rate"
    return swapped(case.cells, exchanged, facts.current.units, counts=counts)


def _swaps(case: Case, exchanged: list[tuple[str, Mean]]) -> DiagnosisAnswer:
    """Return the features that make the release worse."""
    answer = DiagnosisAnswer()
    for name, found in exchanged[:SWAPS]:
        answer += tell("swap", name, _yes_or_no(case, found), found)
    return answer
