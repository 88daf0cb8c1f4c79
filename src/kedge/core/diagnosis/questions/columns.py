"""Questions about columns: broken, stale, recoded, or unlike the training set."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kedge.core.diagnosis import hidden
from kedge.core.diagnosis.case import Case, DiagnosisAnswer, ask_for, tell
from kedge.core.diagnosis.contrast import FLOOR, mean_of
from kedge.core.diagnosis.defects import Code, Defect, mismatches, nulls, plain
from kedge.core.diagnosis.defects import defects as find_defects
from kedge.core.diagnosis.findings import Cause, Estimate, Evidence, Finding, Kind

SHOWN = 5
"""Defects that a finding lists; the others are in the evidence."""


def defects(case: Case, _: DiagnosisAnswer) -> DiagnosisAnswer:
    """Ask whether a column is broken. It needs no labels."""
    facts, ref, now = case.facts, case.facts.reference, case.facts.current
    if ref is None or not ref.columns:
        return ask_for(
            "reference", "labelled requests of the release from before it became worse"
        ) + tell("defects", "there is no reference to compare columns with", "not tested")
    times = None if ref.at is None or now.at is None else (ref.at, now.at)
    training = facts.training.get("new")
    broken = tuple(
        find_defects(ref.columns, now.columns, facts.ranges, times=times, training=training)
    )
    if not broken:
        return tell("defects", f"none in {len(ref.columns)} columns", "no")
    text = "; ".join(fault.text for fault in broken[:SHOWN])
    more = f"; and {len(broken) - SHOWN} more" if len(broken) > SHOWN else ""
    finding = Finding(
        cause=Cause.DATA,
        statement=text + more,
        effect=_added(case, broken),
        columns=tuple(dict.fromkeys(fault.column for fault in broken)),
    )
    return DiagnosisAnswer(evidence=_rows("defects", broken), findings=(finding,), broken=broken)


def _rows(question: str, faults: tuple[Defect, ...]) -> tuple[Evidence, ...]:
    return tuple(
        Evidence(question=question, answer=fault.text, figure=fault.now, verdict="yes")
        for fault in faults
    )


def _added(case: Case, broken: tuple[Defect, ...]) -> Estimate | None:
    """Return the touched requests' addition to today's loss: their loss beyond the others'."""
    today, faulty = case.cells.get(("new", "new")), case.touched(broken)
    if today is None or not faulty.any() or faulty.all():
        return None
    others = mean_of(np.where(faulty, np.nan, today))
    added = mean_of(np.where(faulty, today - others.mean, today * 0), case.facts.current.units)
    return added.estimate() if others.enough and added.enough else None


def freshness(case: Case, _: DiagnosisAnswer) -> DiagnosisAnswer:
    """Ask for the age of the values that are read by key."""
    return DiagnosisAnswer(evidence=tuple(hidden.freshness(case.facts)))


def stale_or_recoded(case: Case, known: DiagnosisAnswer) -> DiagnosisAnswer:
    """Ask whether a column is false although its values are plausible."""
    found = hidden.hidden(case.facts, {fault.column for fault in known.broken})
    if not found.proven:
        return DiagnosisAnswer(suspects=found)
    findings = (hidden.broken(found),)
    return tell("hidden", found.text, "yes") + DiagnosisAnswer(findings=findings, suspects=found)


# ---------------------------------------------------------------- the training set


def train_serve(case: Case, known: DiagnosisAnswer) -> DiagnosisAnswer:
    """Ask whether production sends the new model inputs that its training set did not have."""
    training = case.facts.training.get("new")
    if not training:
        return DiagnosisAnswer()
    served = case.facts.inputs.get("new", case.facts.current.columns)
    found = tuple(mismatches(training, served))
    if not found:
        return tell("train_serve", "the inputs match the training set", "no")
    answer = DiagnosisAnswer(evidence=_rows("train_serve", found))
    shared = _shared(case)
    null = _unexpected(case, known, found, shared)
    harmless = known.contrast is not None and case.is_below(known.contrast, FLOOR)
    if not null or harmless:
        return answer
    is_shared = all(fault.column in shared for fault in null)
    text = "; ".join(fault.text for fault in null)
    text += f"; the same holds for {case.facts.old}" if is_shared else ""
    finding = Finding(
        cause=Cause.MODEL,
        kind=Kind.TRAIN_SERVE,
        effect=known.contrast.estimate() if known.contrast is not None else None,
        statement=f"the model of {case.facts.new} was not trained for its inputs: {text}",
        columns=tuple(fault.column for fault in null),
        is_shared=is_shared,
    )
    return answer + DiagnosisAnswer(findings=(finding,), replaces=frozenset({Cause.MODEL}))


def _shared(case: Case) -> set[str]:
    """Return the columns in which the way back differs from its training set."""
    facts = case.facts
    before = facts.inputs.get("old", facts.current.columns)
    return {fault.column for fault in mismatches(facts.training.get("old", {}), before)}


def _unexpected(
    case: Case, known: DiagnosisAnswer, found: tuple[Defect, ...], shared: set[str]
) -> list[Defect]:
    """Return nulls new to the training set that neither today nor both releases explain."""
    facts = case.facts
    served = facts.inputs.get("new", facts.current.columns)
    explained, faulty = {fault.column for fault in known.broken}, case.touched(known.broken)
    null = [
        fault
        for fault in found
        if fault.code is Code.NULL
        and fault.column not in explained
        and not _is_explained(served[fault.column], faulty)
    ]
    # A null that the reference had as well, and that the way back has, makes no difference.
    ref = facts.reference if known.contrast is not None else None
    raw = ref.columns if ref is not None else {}
    return [fault for fault in null if fault.column not in shared or fault.column not in raw]


def _is_explained(column: NDArray[Any], faulty: NDArray[np.bool_]) -> bool:
    """Return whether a model's input is null where a raw column is broken, and hardly elsewhere."""
    null = nulls(plain(column))
    return bool((null & faulty).sum() > 0.9 * null.sum())
