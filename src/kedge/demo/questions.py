"""Questions of the demo to kedge: what a transformation would change, and why production became worse."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, TypeVar

from kedge.demo.processes import CommandResult
from kedge.demo.report import AnsweredQuestion
from kedge.operations.diagnosis.document import DiagnosisReport
from kedge.operations.features.apply import AppliedFeatures, AppliedTransformation
from kedge.system.pause import pause
from kedge.system.terminal import show

AGAIN, WAIT_S = 2, 8.0
"""How often it is asked again at most, and how long labels are waited for before."""


T = TypeVar("T")


class Asking(Protocol):
    """The part of the demo that asks questions."""

    diagnoses: list[AnsweredQuestion]

    def shell(self, *words: str, prints: type[T]) -> CommandResult[T]:
        """Show a command, run it, and return what it printed."""


def asked(demo: Asking, since_s: float) -> DiagnosisReport:
    """Ask why; and once or twice again while the answer is that more outcomes would tell."""
    told = _ask(demo, since_s)
    for _ in range(AGAIN):
        lacking = {lack.code for lack in told.diagnosis.missing}
        first = told.diagnosis.findings[0]
        if first.cause != "cannot_tell" or not lacking & {"outcomes", "more_outcomes"}:
            break
        show(f"  cannot tell yet: {first.statement[:100]}; asked again in {WAIT_S:.0f} s")
        pause(WAIT_S)
        since_s += 2 * WAIT_S  # as much again for the diagnosis itself
        told = _ask(demo, since_s)
    return told


def _ask(demo: Asking, since_s: float) -> DiagnosisReport:
    words = ("diagnose", "flights", "--since", f"{since_s:.0f}s")
    return demo.shell(*words, prints=DiagnosisReport).data


def diagnosed(demo: Asking, injected: str, since_s: float) -> None:
    """Ask why, show the answer, and keep it for the report."""
    found = asked(demo, since_s).diagnosis
    show(f"  {found.headline}")
    for finding in found.findings:
        kind = f" ({finding.kind})" if finding.kind else ""
        show(f"    {finding.cause}{kind}: {finding.statement[:110]}")
    show(f"    do: {found.action.sentence[:130]}")
    effect = found.effect
    answer = AnsweredQuestion(
        injected=injected,
        found=tuple(finding.cause for finding in found.findings),
        effect=None if effect is None else effect.value,
        interval=(None, None) if effect is None else (effect.low, effect.high),
        labelled=0 if effect is None else effect.n,
        action=found.action.code,
    )
    demo.diagnoses.append(answer)
    if injected not in answer.found:
        show(f"    NOT what was injected: that is {injected}")


def apply(demo: Asking, work: Path, *, wrong: bool) -> AppliedTransformation:
    """Apply the features file, with or without the mistake: one word of one line."""
    text = (Path(__file__).parent / "features.py").read_text(encoding="utf-8")
    if wrong:
        text = text.replace('raw["sched_minute"]', 'raw["utc_minute"]')
    (work / "features.py").write_text(text, encoding="utf-8")
    applied = demo.shell("features", "apply", "features.py", prints=AppliedFeatures).data
    told = applied.transformations[0]
    against = f"; {told.outcome} against {told.against}" if told.against else ""
    from_ = ", ".join(told.raw[:6])
    show(f"  {told.version}: takes {from_}, ... out of a request{against}")
    for column in told.columns:
        if column.outcome != "bit-equal":
            show(
                f"    {column.column:14} {column.outcome}: {column.rows} values, "
                f"by {column.largest or 0.0:g} at most"
            )
    return told
