"""Question about the instruments: whether the figures can be trusted."""

from __future__ import annotations

from kedge.core.diagnosis.case import Case, DiagnosisAnswer, ask_for, tell
from kedge.core.diagnosis.contrast import LOST
from kedge.core.diagnosis.facts import Instruments
from kedge.core.diagnosis.findings import Cause, Finding, Kind


def instruments(case: Case, _: DiagnosisAnswer) -> DiagnosisAnswer:
    """Ask whether the split, the log and the labels are as they should be."""
    told = case.facts.instruments
    parts = (_split(told), _log(told))
    faults = [fault for fault, _ in parts if fault]
    answer = parts[0][1] + parts[1][1] + _labels(told)
    if not faults:
        return answer
    finding = Finding(
        cause=Cause.CANNOT_TELL,
        kind=Kind.INSTRUMENTATION,
        statement=f"the figures cannot be trusted: {'; '.join(faults)}",
    )
    return answer + DiagnosisAnswer(findings=(finding,), is_untrusted=True)


def _split(told: Instruments) -> tuple[str, DiagnosisAnswer]:
    if not told.split_fault:
        return "", tell("split", "as configured", "no")
    asked = ask_for("split", "requests by arm at the share that was set")
    return told.split_fault, asked + tell("split", told.split_fault, "yes")


def _log(told: Instruments) -> tuple[str, DiagnosisAnswer]:
    text = f"{told.lost:.1%} of it is lost"
    if told.lost <= LOST:
        return "", tell("log", text, "no")
    asked = ask_for("log", "every sampled request: free the disk, or sample less")
    return f"{told.lost:.0%} of the log is lost", asked + tell("log", text, "yes")


def _labels(told: Instruments) -> DiagnosisAnswer:
    """Return whether one arm gets more labels, which makes unpaired figures worthless."""
    labelled = told.labelled()
    if labelled is None:
        return DiagnosisAnswer()
    row = tell("labels", f"labelled: {labelled.text}", "yes" if labelled.uneven else "no")
    return row + DiagnosisAnswer(is_uneven=labelled.uneven)
