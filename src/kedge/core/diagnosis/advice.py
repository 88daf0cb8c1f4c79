"""Advice from the findings, in a sentence each: headline, action and doubts."""

from __future__ import annotations

from kedge.core.diagnosis.findings import (
    ELSEWHERE,
    RELEASE,
    Act,
    Action,
    Cause,
    Estimate,
    Finding,
    Kind,
    Missing,
)

ORDER = {Cause.DATA: 1, Cause.LABEL_MIX: 2, Cause.WORLD: 3}
"""Order of actions: a source is fixed in hours, a model is trained in days."""


def headline(
    new: str,
    old: str | None,
    metric: str,
    effect: Estimate | None,
    findings: tuple[Finding, ...],
    missing: tuple[Missing, ...],
) -> str:
    """Return the effect of a rollback in one sentence."""
    if old is None:
        return f"no earlier release is good: {new} cannot be rolled back"
    if effect is None:
        logs = "; ".join(lack.log for lack in missing if lack.code not in ("previous", "reference"))
        return f"not known yet what rolling {new} back to {old} would change" + (
            f"; needed: {logs}" if logs else ""
        )
    said = f"rolling {new} back to {old} would change {metric.replace('_', ' ')} by {effect.text()}"
    causes = {finding.cause for finding in findings}
    if not causes & ELSEWHERE:
        return said
    if causes & RELEASE:
        return f"{said}: it would help in part, since {_blamed(findings)} too"
    if effect.low > 0:
        return f"{said}: it would make it worse, since {_blamed(findings)}"
    helps = "it would not undo it" if effect.high < 0 else "it would not help"
    return f"{said}: {helps}, since {_blamed(findings)}"


def _blamed(findings: tuple[Finding, ...]) -> str:
    words = {
        Cause.DATA: "the data is broken",
        Cause.WORLD: "the world changed",
        Cause.LABEL_MIX: "the mix of outcomes changed",
    }
    return " and ".join(dict.fromkeys(words[f.cause] for f in findings if f.cause in words))


def action(
    new: str,
    old: str | None,
    effect: Estimate | None,
    findings: tuple[Finding, ...],
    missing: tuple[Missing, ...],
) -> Action:
    """Return the first action, and in its sentence the next ones.

    A rollback is first wherever the release is to blame: it is quick, and can be undone.
    """
    causes = [finding.cause for finding in findings]
    steps: list[tuple[Act, str]] = []
    to_blame = [cause for cause in causes if cause in RELEASE]
    proven = effect is not None and effect.high < 0
    if to_blame and old is not None and (proven or _only_it(findings)):
        steps.append(_back(to_blame, new, old))
    elif to_blame:
        said = "train a model on the inputs of production: it is not shown that rolling back helps"
        steps.append((Act.GO_FORWARD, said))
    for finding in sorted(findings, key=lambda f: ORDER.get(f.cause, 0)):
        steps += _elsewhere(finding)
    if Cause.NOISE in causes:
        steps.append((Act.NOTHING, "do nothing: this is within the usual range"))
    if not steps:
        logs = "; ".join(lack.log for lack in missing)
        steps.append((Act.HOLD, f"wait; needed: {logs}" if logs else "wait until more is known"))
    return Action(steps[0][0], ", then ".join(dict.fromkeys(said for _, said in steps)))


def _only_it(findings: tuple[Finding, ...]) -> bool:
    """Return whether, without labels, only the new model was not trained for its inputs."""
    return any(
        f.kind is Kind.TRAIN_SERVE and f.effect is None and not f.is_shared for f in findings
    )


def _back(blamed: list[Cause], new: str, old: str) -> tuple[Act, str]:
    if blamed == [Cause.MODEL]:
        return Act.ROLL_BACK_MODEL, f"roll the model back from that of {new} to that of {old}"
    if blamed == [Cause.FEATURES]:
        return (
            Act.ROLL_BACK_FEATURES,
            f"roll the features back to those of {old}, and keep the model",
        )
    return Act.ROLL_BACK, f"roll {new} back to {old}"


def _elsewhere(finding: Finding) -> list[tuple[Act, str]]:
    if finding.cause is Cause.DATA:
        columns = ", ".join(finding.columns[:5])
        return [(Act.HOLD_FIX_DATA, f"hold every rollout, and check {columns} at the source")]
    if finding.cause is Cause.LABEL_MIX:
        return [(Act.GO_FORWARD, "go forward: move the threshold, or recalibrate")]
    if finding.cause is Cause.WORLD:
        forward = {
            Kind.CONCEPT: "go forward: train on recent outcomes",
            Kind.HARDER_INPUTS: (
                "go forward: label and train on such requests, or accept a new reference"
            ),
        }
        other = "go forward: train on recent requests, or accept a new reference"
        return [(Act.GO_FORWARD, forward.get(finding.kind, other) if finding.kind else other)]
    if finding.kind is Kind.WORLD_OR_DATA:
        columns = ", ".join(finding.columns[:5])
        return [(Act.HOLD, f"hold every rollout, and compare {columns} with the source")]
    if finding.kind is Kind.INSTRUMENTATION:
        return [(Act.HOLD_FIX_LOGGING, "hold every rollout and fix the split or the log")]
    return []


def excluded(release: float | None, world: float | None, spell: str) -> str:
    """Return the causes that noise excludes, in a sentence.

    Args:
        release: largest part of the loss that the release may have added; None: there is no second
            release.
        world: largest part of the loss that the world may have added.
        spell: how often such times occurred before, where they did.
    """
    tops = [] if release is None else [f"the release by more than {release:.1%}"]
    if world is not None and not spell:
        tops.append(f"the world by more than {world:.0%}")
    said = "nothing made it worse"
    if tops:
        are = "is" if len(tops) == 1 else "are"
        said += f": of its loss, {' and '.join(tops)} {are} excluded"
    return f"it comes and goes: {spell}; {said}" if spell else said


def would_change(findings: tuple[Finding, ...]) -> tuple[str, ...]:
    """Return what would change the verdict, beside the missing items."""
    said = []
    causes = {finding.cause for finding in findings}
    if causes & RELEASE:
        said.append(
            "a replay of other requests shows that rolling back may change nothing (an interval"
            " with 0)"
        )
    if Cause.DATA in causes:
        said.append("the reference has the same defect in these columns, so it is not new")
    if Cause.WORLD in causes or Cause.LABEL_MIX in causes:
        said.append("a reference of the same weekday and hour is as bad, so it is seasonal")
    if Cause.NOISE in causes:
        said.append("more labels show a rise that those so far exclude")
    if any(f.kind is Kind.WORLD_OR_DATA for f in findings):
        said.append(
            "the values of these columns at their source differ from those that were served"
        )
    said.append("late labels differ from those seen so far: only labelled requests are judged")
    return tuple(said)
