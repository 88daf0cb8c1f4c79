"""Conditions that open alerts: what lasts at an endpoint, and what has happened.

`conditions` returns what is wrong now, by the patrol's decision. `happened` and `found_by` return
what an entry of the ledger raises. Only a lasting condition ends by itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING

from kedge.core.alerts.alerts import Alert, Raise, Topic
from kedge.core.diagnosis.summary import DiagnosisSummary
from kedge.core.release.commands import (
    Aborted,
    AnyEvent,
    CanaryStarted,
    CandidateRolledBack,
    Promoted,
    Resumed,
    RolledBack,
    ShadowStarted,
    WeightSet,
)
from kedge.core.values import ActorKind, Stage, State

if TYPE_CHECKING:  # importing it loads NumPy, and a rollback must not wait for that
    from kedge.core.automation import Decision

BROKEN_S = 60.0
"""Seconds of broken input before an alert is sent: restarting a worker takes some seconds."""
MENDED_S = 10.0
"""Seconds of sound input before that alert ends, so that a flicker is one alert."""
UNWRITTEN_S = 10.0
"""Seconds that a replica cannot write before an alert is sent: a locked file is soon released."""
UNDER_WAY_S = 5.0
"""Seconds in which the patrol's rollback should land; then an alert of the failure is sent."""


OF_REPLICAS = (Topic.HISTORY, Topic.RECORDING)
"""Topics of the conditions that replicas report of themselves."""


def conditions(state: State, decision: Decision | None, *, fault: str = "") -> tuple[Raise, ...]:
    """Return the lasting conditions of an endpoint.

    Args:
        state: the row.
        decision: the patrol's on exactly this row; None when it compares nothing.
        fault: why the patrol cannot observe; empty when it can.
    """
    if state.compared is None:
        return ()
    if fault:
        return (
            Raise(
                key="blind",
                topic=Topic.BLIND,
                level="warn",
                lasts="condition",
                after_s=BROKEN_S,
                detail=fault,
                summary="the patrol cannot judge: no verdict and no automatic rollback",
            ),
        )
    if decision is None:
        return ()
    subject = judged(state)
    if decision.verdict == "fail":
        return (_failing(state, decision, subject),)
    if decision.verdict == "broken input":
        return (
            Raise(
                key="broken",
                topic=Topic.BROKEN,
                level="warn",
                lasts="condition",
                after_s=BROKEN_S,
                detail=decision.reason,
                subject=subject,
                summary="the input is broken: no verdict can be given",
            ),
        )
    if decision.code == "ask":
        return (
            Raise(
                key=f"waiting:r{subject}@{_step(state)}",
                topic=Topic.WAITING,
                step=_step(state),
                level="warn",
                lasts="condition",
                detail=decision.reason,
                subject=subject,
                summary=f"r{subject} passed at {_step(state)} and waits for an operator",
            ),
        )
    return ()


def control_down(state: State) -> Raise:
    """Return the alert that control's stand-in raises: a page where a release is being judged."""
    return Raise(
        key="control",
        topic=Topic.CONTROL,
        lasts="condition",
        level="warn" if state.compared is None else "page",
        summary="control keeps ending: no verdict and no automatic rollback",
        detail="the supervisor keeps restarting it; logs/control.log shows why it ends",
    )


def of_replicas(astray: Mapping[str, str], unwritten: Mapping[str, str]) -> tuple[Raise, ...]:
    """Return the lasting conditions that replicas report of themselves, alike at every endpoint.

    Args:
        astray: by name, why a replica does not follow the present ledger.
        unwritten: by name, why a replica cannot write its counts.
    """
    found = []
    if astray:
        found.append(
            Raise(
                key=Topic.HISTORY.value,
                topic=Topic.HISTORY,
                level="page",
                lasts="condition",
                detail=f"{_each(astray)}; kedge doctor compares all heads",
                summary=(
                    "the ledger is not the one that replicas followed: they keep what they serve"
                ),
            )
        )
    if unwritten:
        found.append(
            Raise(
                key=Topic.RECORDING.value,
                topic=Topic.RECORDING,
                level="warn",
                lasts="condition",
                after_s=UNWRITTEN_S,
                detail=_each(unwritten),
                summary="requests are not counted: a replica cannot write, and no verdict is safe",
            )
        )
    return tuple(found)


def _each(texts: Mapping[str, str]) -> str:
    return "; ".join(f"{name}: {text}" for name, text in sorted(texts.items()))


def judged(state: State) -> int | None:
    """Return the judged release: the candidate, or production after a promotion."""
    return state.candidate if state.candidate is not None else state.production


def _step(state: State) -> str:
    return f"{state.weight / 100:g} %" if state.stage is Stage.CANARY else str(state.stage)


def _failing(state: State, decision: Decision, subject: int | None) -> Raise:
    """Return a failure that still stands; a rollback that ended one is an entry of the ledger."""
    after_s = 0.0
    if decision.code == "frozen":
        done = "automation is frozen, so nothing was done"
    elif decision.code == "not_the_release":
        done = "a diagnosis found another cause, so nothing was rolled back"
    elif decision.command is not None:
        done, after_s = "the patrol's command was not carried out", UNDER_WAY_S
    elif state.stage is Stage.SHADOW:
        done = "no caller received its answers"
    elif state.candidate is None:
        done = "it is production, and nothing was done"
    else:
        done = "the rollout is held"
    return Raise(
        key=f"failing:r{subject}",
        topic=Topic.FAILING,
        level="page",
        lasts="condition",
        subject=subject,
        summary=f"r{subject} fails; {done}",
        detail=decision.reason,
        after_s=after_s,
    )


def happened(event: AnyEvent, *, by: str, actor: ActorKind, reason: str) -> Raise | None:
    """Return the alert that an entry of the ledger opens, if any.

    Args:
        event: what happened.
        by: the name of the actor, for the summary.
        actor: the kind of actor: an automatic rollback raises an alert, a person's command does
            not.
        reason: the reason, for the detail.
    """
    match event:
        case CandidateRolledBack(release=left) if actor.is_automatic:
            return Raise(
                key=f"rolled_back:r{left}",
                topic=Topic.ROLLED_BACK,
                level="page",
                lasts="event",
                subject=left,
                summary=f"r{left} failed and was rolled back",
                detail=reason,
            )
        case RolledBack(release=number, left=left) if actor.is_automatic:
            return Raise(
                key=f"rolled_back:r{left}",
                topic=Topic.ROLLED_BACK,
                level="page",
                lasts="event",
                subject=left,
                summary=f"production went back from r{left} to r{number}",
                detail=reason,
            )
        case (
            Promoted(release=number, override=why)
            | ShadowStarted(release=number, override=why)
            | CanaryStarted(release=number, override=why)
            | WeightSet(release=number, override=why)
            | Resumed(release=number, override=why)
        ) if why is not None:
            word = str(event.__struct_config__.tag).replace("_started", "").replace("_", " ")
            return Raise(
                key=f"override:r{number}",
                topic=Topic.OVERRIDE,
                level="warn",
                lasts="event",
                subject=number,
                summary=f"{by} overrode the rules: r{number}, {word}",
                detail=why,
            )
    return None


def lost_evidence(subject: int | None, reason: str, detail: str) -> Raise:
    """Return the alert of evidence that was lost in a rollout."""
    return Raise(
        key=f"evidence:r{subject}",
        topic=Topic.EVIDENCE,
        level="warn",
        lasts="event",
        subject=subject,
        summary=f"the evidence of r{subject} was lost and restarted; its rollout is paused",
        detail=f"{reason}; {detail}" if detail else reason,
    )


def found_by(finding: DiagnosisSummary) -> Raise | None:
    """Return the alert that a diagnosis raises; none where it knows of no harm."""
    if (level := finding.harm) is None:
        return None
    causes = ", ".join(finding.names)
    return Raise(
        key=f"finding:r{finding.new}:{causes}:{level}",
        topic=Topic.FINDING,
        level=level,
        lasts="event",
        subject=finding.new,
        summary=f"r{finding.new} gives worse answers: {causes}",
        detail=f"{finding.headline}; {finding.advice}",
    )


def settled(alert: Alert, state: State, decision: Decision | None, raised: Collection[str]) -> str:
    """Return why a condition is over; empty while it stands.

    Args:
        alert: an open alert.
        state: the row.
        decision: the patrol's on this row; None when it compares nothing.
        raised: the keys of the conditions that hold now.
    """
    if alert.lasts != "condition" or alert.key in raised or alert.topic is Topic.CONTROL:
        return ""
    if alert.topic in OF_REPLICAS:
        return "no replica reports it any more"
    if alert.subject is not None and (state.compared is None or judged(state) != alert.subject):
        word = "is production" if state.production == alert.subject else "left the rollout"
        return f"r{alert.subject} {word}"
    if state.compared is None:
        return "nothing is compared any more"
    if decision is None:
        return ""
    if alert.topic is Topic.WAITING and alert.step != _step(state):
        return f"r{alert.subject} went on to {_step(state)}"
    if alert.topic is Topic.WAITING and decision.verdict != "fail":
        return ""  # a verdict wavers; a proven failure still waits for an operator
    if alert.topic in (Topic.BROKEN, Topic.BLIND):
        return f"it can be judged again: {decision.verdict}"
    return f"the verdict is {decision.verdict} now: {decision.reason}"


def continued(alert: Alert, since: Iterable[tuple[AnyEvent, str, str]]) -> str:
    """Return which actor promoted a failing release further, and why; empty if it ended otherwise.

    Args:
        alert: an alert that is about to end.
        since: changes of the row since it was opened, newest first: event, actor, and reason.
    """
    if alert.topic is not Topic.FAILING:
        return ""
    for event, by, reason in since:
        match event:
            case (
                CandidateRolledBack(release=number)
                | Aborted(release=number)
                | RolledBack(left=number)
            ) if number == alert.subject:
                return ""
            case (
                CanaryStarted(release=number, override=why) | Promoted(release=number, override=why)
            ) if number == alert.subject:
                return f"continued by {by}: {why or reason or 'no reason given'}"
    return ""


def ends_after_s(alert: Alert) -> float:
    """Return the seconds that a condition has to be over before its alert ends."""
    return MENDED_S if alert.topic in (Topic.BROKEN, Topic.BLIND) else 0.0
