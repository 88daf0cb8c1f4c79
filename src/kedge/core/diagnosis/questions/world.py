"""Questions about the world: whether the same release is worse than in the reference, and why."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kedge.core.diagnosis import hidden
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
    WORLD_MARGIN,
    Floats,
    Mean,
    Z,
    difference,
    mean_of,
)
from kedge.core.diagnosis.defects import WHOLE, Code, stepped
from kedge.core.diagnosis.facts import Sample
from kedge.core.diagnosis.findings import Cause, Finding, Kind
from kedge.core.diagnosis.world import LabelledWindow, beyond, part, reason
from kedge.core.diagnosis.world import spells as count_spells


def world(case: Case, known: DiagnosisAnswer) -> DiagnosisAnswer:
    """Ask whether the same release is worse than in the reference."""
    facts, now, which = case.facts, case.facts.current, case.facts.reference_of
    ref, today = facts.reference, case.cells.get((which, which))
    if ref is None or case.before is None:
        return ask_for(
            "reference", "labelled requests of the release from before it became worse"
        ) + tell("world", "there is no reference with answers and outcomes", "not tested")
    if today is None:
        name = facts.old if which == "old" else facts.new
        how = "by reverse shadow (`after`) or replay"
        return ask_for(
            f"{which}_answers", f"the answers of {name} to today's requests, {how}"
        ) + tell("world", "the release of the reference did not answer today", "not tested")
    clean = ~case.touched(known.broken)
    whole = bool(known.suspects.proven) or any(fault.code in WHOLE for fault in known.broken)
    if whole or not clean.any():
        return tell("world", "every request is touched by a broken column", "not tested")
    now_mean = mean_of(np.where(clean, today, np.nan), now.units)
    rise = difference(now_mean, mean_of(case.before, ref.units))
    if not rise.enough:
        return ask_for_units(f"{rise.units} units of one window have one", now, ref) + tell(
            "world", f"{rise.units} labelled units", "not tested"
        )
    text = f"the same release, today less the reference, on {rise.n:,} requests"
    return tell("world", text, case.verdict(rise, WORLD_MARGIN), rise) + DiagnosisAnswer(rise=rise)


class RiseWindows(NamedTuple):
    """Both windows of a rise: the reference, and today without the requests that a fault explains."""

    reference: Sample
    scores: Floats
    before: Floats
    today: Floats
    clean: NDArray[np.bool_]
    rise: Mean

    @staticmethod
    def of(case: Case, known: DiagnosisAnswer) -> RiseWindows:
        """Return the windows that `world` found a rise in, or none."""
        ref, which = case.facts.reference, case.facts.reference_of
        assert ref is not None
        assert ref.scores is not None
        assert case.before is not None
        assert known.rise is not None
        clean = ~case.touched(known.broken)
        today = np.where(clean, case.cells[which, which], np.nan)
        return RiseWindows(ref, ref.scores, case.before, today, clean, known.rise)


def spells(case: Case, known: DiagnosisAnswer) -> DiagnosisAnswer:
    """Ask whether the reference had such times as well, which ended."""
    both, now = RiseWindows.of(case, known), case.facts.current
    if both.reference.at is None or now.at is None:
        return DiagnosisAnswer()
    times = both.reference.at, now.at[~np.isnan(both.today)]
    found = count_spells(both.before, times, mean_of(both.today).mean)
    row = tell("spells", found.text, "yes" if found.usual else "no")
    return row + DiagnosisAnswer(spell=found.text if found.usual else "")


# ---------------------------------------------------------------- what about the world changed


def label_mix(case: Case, known: DiagnosisAnswer) -> DiagnosisAnswer:
    """Ask whether there is only more of one outcome."""
    both, now = RiseWindows.of(case, known), case.facts.current
    told = part(*_windows(case, both, []), now.truth, now.units, Z)
    row = tell("label_mix", told.text, told.verdict, told.mean)
    if told.verdict != "yes" or both.rise.interval()[1] <= 0:
        return row
    finding = Finding(cause=Cause.LABEL_MIX, effect=both.rise.estimate(), statement=told.text)
    return row + DiagnosisAnswer(findings=(finding,), is_label_mix=True)


def _windows(
    case: Case, both: RiseWindows, columns: list[str]
) -> tuple[LabelledWindow, LabelledWindow]:
    """Return the labelled requests of both windows."""
    ref, now, which = both.reference, case.facts.current, case.facts.reference_of
    scores = case.facts.answers[which, which]
    return (
        LabelledWindow.of(ref.columns, columns, both.scores, ref.truth, both.before, ref.units),
        LabelledWindow.of(now.columns, columns, scores, now.truth, both.today, now.units),
    )


def outcomes_for_rise(case: Case, known: DiagnosisAnswer) -> DiagnosisAnswer:
    """Ask how many outcomes would show whether it is worse."""
    assert known.rise is not None
    return ask_for_outcomes(case, known.rise, WORLD_MARGIN)


def look_alikes(_: Case, known: DiagnosisAnswer) -> DiagnosisAnswer:
    """Ask whether a stale or recoded column would look like the changed world."""
    assert known.rise is not None
    found = known.suspects
    if found.alike:
        row = tell("hidden", found.text, "unclear")
        return row + DiagnosisAnswer(findings=(hidden.alike(found, known.rise.estimate()),))
    if not found.asked:
        text = "too few labelled rows to look for columns that are stale or recoded"
        return tell("hidden", text, "unclear")
    text = "no column that is stale or recoded would look like it"
    if not found.left_out:
        return tell("hidden", text, "no")
    text += f", of all but {found.left_out} columns, which were not checked"
    return tell("hidden", text, "unclear")


def reasons(case: Case, known: DiagnosisAnswer) -> DiagnosisAnswer:
    """Ask whether the same inputs have other outcomes, or the inputs changed."""
    both, answer = RiseWindows.of(case, known), DiagnosisAnswer()
    before, after = _windows(case, both, _comparable(case, known, both.reference))
    binary = case.facts.output.kind == "binary"
    for kind, statement, effect, rows in reason(
        before, after, both.rise, case.floor, Z, binary=binary
    ):
        answer += DiagnosisAnswer(evidence=tuple(rows))
        if kind is not Kind.CONCEPT and not _is_beyond(case, both):
            text = f"{statement}; the broken requests may have been the easier ones"
            answer += tell("inputs", text, "unclear")
            continue
        if known.suspects.explained:
            text = "beside the broken columns, outcomes relate to all as before"
            answer += tell("hidden", text, "no")
            continue
        if kind is Kind.UNDIVIDED:
            answer += ask_for_outcomes(case, both.rise, FLOOR)
        elif kind is Kind.NO_OVERLAP:
            answer += ask_for("overlap", "a reference whose inputs are like today's")
        finding = Finding(cause=Cause.WORLD, kind=kind, statement=statement, effect=effect)
        answer += DiagnosisAnswer(findings=(finding,))
    return answer


def _comparable(case: Case, known: DiagnosisAnswer, ref: Sample) -> list[str]:
    """Return the columns of both windows that differ neither by a fault nor by the calendar."""
    now = case.facts.current
    gone = {fault.column for fault in known.broken if fault.code is Code.LEAVES_CONSTANT}
    return [
        name
        for name, column in ref.columns.items()
        if name in now.columns
        and name not in gone
        and not stepped(column, now.columns[name], (ref.at, now.at))
    ]


def _is_beyond(case: Case, both: RiseWindows) -> bool:
    """Return whether requests without a fault lose more than the hardest ones before.

    Those without may be the harder ones, since nulls may come where it was easy. So they are
    compared with an equal part of the reference: the hardest, by its scores.
    """
    if both.clean.all():
        return True
    before = both.scores, both.before, both.reference.units
    return case.is_real(beyond(before, (both.today, case.facts.current.units), both.clean))
