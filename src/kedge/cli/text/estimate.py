"""Text of an estimate: the conditions that a rollout waits for, the time, and the next step."""

from __future__ import annotations

from collections.abc import Callable

from kedge.cli.text.layout import rate, rough, span, wrap
from kedge.core.estimate import RolloutEstimate, UnmetCondition
from kedge.core.values import Stage
from kedge.operations.evidence.view import ComparisonView
from kedge.operations.status.view import EndpointStatus

WHAT = {
    "errors": "errors are",
    "errors.doubled": "errors are",
    "latency.p50": "slow answers are",
    "latency.p99": "slow answers are",
    "violations": "values out of range are",
    "quality": "wrong answers are",
    "cost": "an inference is",
}
"""Subject of a guardrail's claim."""
NAMES = {"errors.doubled": "errors"}
"""Names of guardrails in a list."""


def shown_by(metric: str, margin: float | None, figure: str = "") -> str:
    """Return the claim of a guardrail: "errors are not doubled"; `figure` is that of quality."""
    if metric == "quality" and figure not in ("", "error_rate"):
        worse = "worse" if margin is None else f"{margin * 100:g} % worse"
        return f"{figure} is not {worse}"
    what = WHAT.get(metric, f"{metric} is")
    if margin is None:
        return f"{what} not worse"
    if metric == "cost":
        return f"{what} not {margin * 100:g} % dearer"
    if margin == 1:
        return f"{what} not doubled"
    if margin > 1:
        return f"{what} not {1 + margin:g} times as frequent"
    return f"{what} not {margin * 100:g} % more frequent"


def _counted(part: UnmetCondition) -> str:
    return f"{part.needed or 0:,.0f}"


UNTIL: dict[str, Callable[[UnmetCondition], str]] = {
    "dwell": lambda part: f"until the step's least time of {span(part.needed or 0)} is over",
    "requests": lambda part: f"until each release had {_counted(part)} requests",
    "pairs": lambda part: f"until {_counted(part)} answers are compared",
    "window": lambda part: f"until the shadow window of {span(part.needed or 0)} is over",
    "segments": lambda part: f"until each segment has {_counted(part)} compared answers",
    "silence": lambda part: (
        f"until {span(part.needed or 0)} passed without an alarm: so few callers can prove no"
        " more at this step"
    ),
}
"""Text of a condition that is no guardrail."""
WITHOUT = {
    "starting": "no estimate yet: the first requests are being counted",
    "no_traffic": "no estimate: no requests come",
    "no_labels": "no estimate: no outcome came yet (kedge outcomes hands them in)",
    "few_callers": (
        "so few callers can prove nothing more: promote it by hand (kedge plan says how many it"
        " takes)"
    ),
    "beyond": "not within a month of this traffic",
    "coverage": "no estimate: too many copies go without an answer",
    "unknown": "no estimate",
}
"""Text for an estimate without a number of seconds, by cause."""


def estimate_text(found: RolloutEstimate, then: str = "") -> str:
    """Return one sentence without a full stop: the time, the rate, and the claim to show.

    Args:
        found: the estimate.
        then: the text that follows.
    """
    part = found.part
    name = part.waits_for
    aim = (
        UNTIL[name](part)
        if name in UNTIL
        else f"to show that {shown_by(name, part.margin, part.metric)}"
    )
    if found.seconds is None:
        return f"{WITHOUT[found.cause]}; it waits {aim}"
    at = "" if name in ("dwell", "window", "silence") else f" at {rate(found.rate)}"
    least = "at least " if found.at_least else ""
    after = f"; then {then}" if then else ""
    return f"{least}{rough(found.seconds)} more{at} {aim}{after}"


def part_text(part: UnmetCondition) -> str:
    """Return the remaining need of one condition."""
    if part.seconds is None:
        return WITHOUT[part.cause]
    return rough(part.seconds)


def next_text(found: ComparisonView | EndpointStatus) -> str:
    """Return the step that follows when the present step or window is proven."""
    to = "production" if found.next_weight is None else f"{found.next_weight:g} %"
    if found.stage == Stage.SHADOW:
        goes = found.on_pass == "promote"
        return (
            "production"
            if goes
            else f"kedge canary {found.endpoint} or kedge promote {found.endpoint}"
        )
    walks = found.auto and (found.next_weight is not None or found.on_pass == "promote")
    if walks and not found.paused and not found.frozen:
        return to
    return f"kedge promote {found.endpoint} (to {to})"


def rollout_lines(found: EndpointStatus, width: int) -> list[str]:
    """Return the lines of `kedge status` on a rollout: step, who advances it, open conditions."""
    if found.stage not in (Stage.CANARY, Stage.SHADOW):
        return []
    who = (
        "held"
        if found.paused
        else (
            "automation is frozen"
            if found.frozen
            else (
                "automatic"
                if found.auto or (found.stage == Stage.SHADOW and found.on_pass == "promote")
                else "by hand"
            )
        )
    )
    where = "shadow"
    if found.stage == Stage.CANARY:
        number, of = found.step, found.steps
        where = f"step {number} of {of}" if number else f"before step 1 of {of}"
    lines = [f"{where}, {who}"]
    if found.estimate is not None:
        lines += wrap(estimate_text(found.estimate, next_text(found)), width, hanging="")
    elif found.decision is not None:
        decision = found.decision
        lines += wrap(f"{decision.verdict}: {decision.reason}", width, hanging="")
    return lines
